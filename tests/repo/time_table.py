"""How long each kind of test took, beside the minutes it may take in `make test`.

Usage: time_table.py RECORDED. pytest appends to that file one JSON object for each of its runs, by `Times`.
Seconds are those within tests, divided by the workers of the run, or by its guests: about what the stage
takes by the clock.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

#: Kind, the folders of its tests, and the minutes that it may take; `None`: no budget of its own.
KINDS: tuple[tuple[str, tuple[str, ...], int | None], ...] = (
    ("unit and exchange", ("unit", "exchanges", "fuzz", "repo", "engine"), 2),
    ("API", ("api",), 4),
    ("guest", (), 4),
    ("conformance", ("conformance", "espd", "espd_io", "ebpf"), 4),
    ("interop", ("interop",), 6),
    ("namespaces", ("netns",), None),
    ("packages", ("packages",), None),
)
GUEST = "guest"


def kind_of(report: pytest.TestReport) -> str:
    """Return the kind of a test; what runs in the guest's kernel is of the guest, wherever it is written."""
    if GUEST in report.keywords:
        return GUEST
    folder = report.nodeid.split("/")[1]
    return next((kind for kind, folders, _ in KINDS if folder in folders), folder)


class Times:
    """pytest plugin: adds up the time of tests by their kind.

    Args:
        path: What is appended to at the end.
        workers: How many run tests at once.
        guests: Tells at the end how many guests each of them had.
    """

    def __init__(self, path: Path, workers: int, guests: Callable[[], int]) -> None:
        self._path = path
        self._workers = workers
        self._guests = guests
        self._seconds: Counter[str] = Counter()
        self._tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one part of one test."""
        kind = kind_of(report)
        self._seconds[kind] += report.duration / self._workers  # type: ignore[assignment]  # a Counter adds floats as well
        self._tests[kind] += report.when == "call"

    def pytest_sessionfinish(self) -> None:
        """Write down what this run came to."""
        self._seconds[GUEST] /= self._guests()  # type: ignore[assignment]
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as times:
            times.write(
                json.dumps({kind: [self._tests[kind], self._seconds[kind]] for kind in self._tests}) + "\n"
            )


def main() -> int:
    """Print the table; return 0, for a busy machine is no fault of a test."""
    tests: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for line in Path(sys.argv[1]).read_text().splitlines():
        for kind, (count, spent) in json.loads(line).items():
            tests[kind] += count
            seconds[kind] = seconds.get(kind, 0.0) + spent
    print("== time of each kind of test")
    for kind, _, budget in KINDS:
        told = "" if budget is None else f" of {60 * budget} s"
        over = " (over)" if budget is not None and seconds.get(kind, 0.0) > 60 * budget else ""
        print(f"   {kind:18} {tests[kind]:6} tests {seconds.get(kind, 0.0):6.0f} s{told}{over}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
