"""docs/security.md names a test for each guarantee: every one of them exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", (ROOT / "docs/security.md").read_text())))


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_guarantee_has_the_test_it_names(file: str, name: str) -> None:
    path = ROOT / file

    assert path.is_file()
    assert not name or re.search(rf"^(?:async )?def {name}\(", path.read_text(), re.MULTILINE)
