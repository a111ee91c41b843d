"""Print the table of skipped tests and compare it with the committed list.

Usage: skip_table.py RECORDED EXPECTED. EXPECTED has one `test id<TAB>reason` a line and comments with `#`.
On the kind of machine CI runs on (root, Linux) the two must be equal, so that no test goes quiet unnoticed.
"""

import sys
from pathlib import Path


def read(path: Path) -> set[tuple[str, str]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {
        (line.partition("\t")[0], line.partition("\t")[2])
        for line in lines
        if line and not line.startswith("#")
    }


def main() -> int:
    recorded, expected = read(Path(sys.argv[1])), read(Path(sys.argv[2]))
    print(f"== skipped tests: {len(recorded)}")
    for test, reason in sorted(recorded):
        print(f"   {test}: {reason}")
    unexpected, vanished = sorted(recorded - expected), sorted(expected - recorded)
    for test, reason in unexpected:
        print(f"not in {sys.argv[2]}: {test}: {reason}", file=sys.stderr)
    for test, _ in vanished:
        print(f"in {sys.argv[2]}, but no longer skipped: {test}", file=sys.stderr)
    return 1 if unexpected or vanished else 0


if __name__ == "__main__":
    sys.exit(main())
