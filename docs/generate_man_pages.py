"""Write docs/man/*.8 from the parsers of the command line.

Usage: python docs/generate_man_pages.py [--check]
"""

import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gateway.cli.commands import describe  # noqa: E402 - found only with the line above
from gateway.cli.main import build_parser  # noqa: E402 - the same
from gateway.cli.manual import pages  # noqa: E402 - the same

TARGET = ROOT / "docs" / "man"


def main() -> int:
    """Write the pages, or with --check say which are not as they would be written."""
    wanted = pages(describe(build_parser(None)), version("ipsec-gateway"))
    there = {path.name: path.read_text() for path in TARGET.glob("*.8")}
    if "--check" in sys.argv:
        stale = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
        if stale:
            print(f"stale: {', '.join(stale)}; run python docs/generate_man_pages.py", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(exist_ok=True)
    for name in set(there) - set(wanted):
        (TARGET / name).unlink()
    for name, text in wanted.items():
        (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
