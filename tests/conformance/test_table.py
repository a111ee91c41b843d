"""The table at the end of a run: what is in which cell."""

from collections.abc import Sequence
from typing import Literal

import pytest

from tests.conformance.exemptions import EXEMPTIONS
from tests.conformance.table import COLUMNS, ConformanceTable, place_of

FILE = "tests/conformance/test_traffic.py::test_"
EXEMPT = EXEMPTIONS["engine", "fragments of AH"]

Outcome = Literal["passed", "failed", "skipped"]
When = Literal["setup", "call", "teardown"]


def report(
    test: str, outcome: Outcome = "passed", when: When = "call", *, reason: str = "", line: int = 1
) -> pytest.TestReport:
    longrepr = (__file__, 1, f"Skipped: {reason}") if reason else None
    location = (FILE, line, test)
    return pytest.TestReport(
        FILE + test, location=location, keywords={}, outcome=outcome, longrepr=longrepr, when=when
    )


def rows(*reports: pytest.TestReport) -> list[list[str]]:
    """Return the lines of the table above the empty one, by words."""
    return [line.split("  ") for line in lines(reports)[: lines(reports).index("")]]


def lines(reports: Sequence[pytest.TestReport]) -> list[str]:
    table = ConformanceTable()
    for each in reports:
        table.pytest_runtest_logreport(each)
    return list(table.lines())


def cells(*reports: pytest.TestReport) -> list[list[str]]:
    """Return the words of each case."""
    return [[word.strip() for word in row if word] for row in rows(*reports)[2:]]


@pytest.mark.parametrize(
    ("test", "place"),
    [
        ("a_case[engine_live-tunnel-v4-in-v6]", ("a_case[tunnel-v4-in-v6]", "engine_live")),
        ("a_case[engine]", ("a_case", "engine")),
        ("a_case[not wanted-xfrm]", ("a_case[not wanted]", "xfrm")),
        ("a_case[4]", None),
        ("a_case", None),
    ],
)
def test_a_test_is_placed_by_its_identifier(test: str, place: tuple[str, str] | None) -> None:
    assert place_of(FILE + test) == place


def test_a_test_of_another_folder_is_in_no_cell() -> None:
    assert place_of("tests/netns/test_placement.py::test_a_case[software]") is None


def test_each_method_has_its_cell_and_what_did_not_run_has_a_dot() -> None:
    found = rows(report("first[engine-4]"), report("first[engine_live-4]"), report("second[engine]"))

    assert [[word.strip() for word in row if word] for row in found] == [
        ["engine", "engine", "backend"],
        ["TUN, raw", "live", "I/O method"],
        ["passed", "passed", "first[4]"],
        ["passed", ".", "second"],
    ]


def test_cases_are_in_the_order_of_their_file_whatever_ended_first() -> None:
    assert cells(report("z[engine]", line=1), report("b[engine]", line=3), report("a[engine]", line=2)) == [
        ["passed", "z"],
        ["passed", "a"],
        ["passed", "b"],
    ]


def test_a_case_that_fails_in_setup_or_at_its_end_has_failed() -> None:
    assert cells(report("a[engine]", "failed", "setup")) == [["FAILED", "a"]]
    assert cells(report("a[engine]"), report("a[engine]", "failed", "teardown")) == [["FAILED", "a"]]
    assert cells(report("a[engine]", "failed"), report("a[engine]", "passed", "teardown")) == [
        ["FAILED", "a"]
    ]


def test_an_exemption_has_the_number_of_its_reason_and_no_other_skip_is_one() -> None:
    reports = [
        report("a[engine]", "skipped", reason=EXEMPT),
        report("b[engine]", "skipped", reason="no root"),
        report("c[engine]", "skipped", reason=EXEMPT),
    ]

    assert cells(*reports) == [["exempt 1", "a"], ["skipped 2", "b"], ["exempt 1", "c"]]
    assert {f"1: {EXEMPT}", "2: no root"} <= set(lines(reports))


def test_every_datapath_of_the_suite_has_a_column() -> None:
    from tests.conformance.conftest import OPENERS

    assert OPENERS.keys() == COLUMNS.keys()
