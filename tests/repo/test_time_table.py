"""Every test is of a kind that the table of times knows, and its time is what the stage takes by itself."""

import json
from pathlib import Path

import pytest

from tests.repo.time_table import KINDS, Times

TESTS = Path(__file__).resolve().parents[1]


def test_every_folder_of_tests_is_of_one_kind() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    # Everything in tests/guest runs in the guest.
    known = [folder for _, folders_of_kind, _ in KINDS for folder in folders_of_kind]

    assert sorted(known) == sorted(folders - {"guest"})


def test_time_is_shared_among_workers_and_that_of_the_guest_among_guests(tmp_path: Path) -> None:
    times = Times(tmp_path / "times", workers=2, guests=lambda: 3)
    for nodeid, keywords in (("tests/guest/test_x.py::a", {"guest": 1}), ("tests/unit/test_y.py::b", {})):
        times.pytest_runtest_logreport(
            pytest.TestReport(
                nodeid=nodeid,
                location=("", None, ""),
                keywords=keywords,
                outcome="passed",
                longrepr=None,
                when="call",
                duration=12.0,
            )
        )

    times.pytest_sessionfinish()

    assert json.loads((tmp_path / "times").read_text()) == {"guest": [1, 2.0], "unit and exchange": [1, 6.0]}
