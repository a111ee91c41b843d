"""Every test is of a kind that the table of times knows."""

from pathlib import Path

from tests.repo.time_table import KINDS

TESTS = Path(__file__).resolve().parents[1]


def test_every_folder_of_tests_is_of_one_kind() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    # Everything in tests/guest runs in the guest.
    known = [folder for _, folders_of_kind, _ in KINDS for folder in folders_of_kind]

    assert sorted(known) == sorted(folders - {"guest"})
