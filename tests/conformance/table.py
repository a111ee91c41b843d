"""The table at the end of a run of the conformance suite: every case, by backend and I/O method.

It counts what ran, wherever that was: in this process, in those of xdist, or in a guest.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import pytest

from tests.conformance.exemptions import EXEMPTIONS

COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "fake": ("fake", ""),
    "software": ("software", ""),
    "remote": ("gRPC", ""),
    "every": ("auto", ""),
    "xfrm": ("xfrm", "kernel"),
    "engine_books": ("engine", "none"),
    "engine": ("engine", "TUN, raw"),
    "engine_live": ("engine", "live"),
    "engine_af_xdp": ("engine", "AF_XDP"),
    "engine_af_packet": ("engine", "AF_PACKET"),
}
"""By what an identifier of a test says: the words for the backend, and for how packets go in and out."""
_LEGEND: Final = (
    "gRPC: the agent with every backend, as a controller has it; auto: the same in its process.",
    "engine, none: the backend over an espd that keeps the books.",
    "live (frames), AF_XDP (copy), AF_PACKET: by what espd sends; it receives by AF_XDP copy. Each such case",
    "shows that what was sealed left by no other way.",
    ".: not asked: the case has no packet or needs another kernel, or was not selected",
)
_NODE: Final = re.compile(r"tests/conformance/\w+\.py::test_(?P<name>\w+)\[(?P<parameters>.*)\]$", re.DOTALL)
_WIDTH: Final = 11
_PASSED, _FAILED, _EXEMPT, _SKIPPED = "passed", "FAILED", "exempt", "skipped"


def place_of(nodeid: str) -> tuple[str, str] | None:
    """Return case and column of a test, or `None` if it is not one of a backend."""
    found = _NODE.match(nodeid)
    if found is None:
        return None
    parameters = found["parameters"].split("-")
    column = next((name for name in parameters if name in COLUMNS), None)
    if column is None:
        return None
    parameters.remove(column)
    return found["name"] + (f"[{'-'.join(parameters)}]" if parameters else ""), column


class ConformanceTable:
    """pytest plugin: gathers the outcomes of one run, and prints them."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, str]] = {}
        """By case and column: what came of it."""
        self._lines: dict[str, tuple[str, int]] = {}
        """By case: file and line of its test."""
        self._reasons: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one part of one test."""
        place = place_of(report.nodeid)
        if place is None or (report.passed and report.when != "call"):
            return
        case, column = place
        cells = self._cells.setdefault(case, {})
        file, line, _ = report.location
        self._lines[case] = file, line or 0
        # What is torn down after a case that passed, or failed, may fail too.
        if cells.get(column) != _FAILED:
            cells[column] = self._outcome(report)

    def _outcome(self, report: pytest.TestReport) -> str:
        if report.passed:
            return _PASSED
        if report.failed:
            return _FAILED
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = said.removeprefix("Skipped: ")
        if reason not in self._reasons:
            self._reasons.append(reason)
        kind = _EXEMPT if reason in EXEMPTIONS.values() else _SKIPPED
        return f"{kind} {self._reasons.index(reason) + 1}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, if there was anything to fill it."""
        if not self._cells:
            return
        terminalreporter.section("conformance: backend x I/O method x case")
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the table."""
        columns = [name for name in COLUMNS if any(name in cells for cells in self._cells.values())]
        yield _line((COLUMNS[name][0] for name in columns), "backend")
        yield _line((COLUMNS[name][1] for name in columns), "I/O method")
        for case in sorted(self._cells, key=self._lines.__getitem__):
            yield _line((self._cells[case].get(name, ".") for name in columns), case)
        yield ""
        for number, reason in enumerate(self._reasons, 1):
            yield f"{number}: {reason}"
        yield from _LEGEND


def _line(cells: Iterable[str], case: str) -> str:
    return "".join(f"{cell:{_WIDTH}}" for cell in cells) + case
