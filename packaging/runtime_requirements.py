"""Print the part of requirements.lock that the program itself needs, without what only developers need.

Usage: python packaging/runtime_requirements.py, in an environment made from the lock file.
"""

import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def needed() -> set[str]:
    """Return the names of all packages that our dependencies lead to, with the extras they ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    found: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in found:
            continue
        found.add(key)
        for text in requires(wanted.name) or ():
            further = Requirement(text)
            marker = further.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}):
                waiting.append(further)
    return {name for name, _ in found}


def main() -> int:
    """Print them, each with its hashes."""
    names = needed()
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    pinned = {canonicalize_name(re.split(r"==", entry, maxsplit=1)[0].strip()): entry for entry in entries}
    if missing := names - pinned.keys():
        print(f"not in requirements.lock: {', '.join(sorted(missing))}; run make lock", file=sys.stderr)
        return 1
    print("".join(pinned[name] for name in sorted(names)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
