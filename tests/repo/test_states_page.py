"""The page of states is made from the tables of the code, and whole."""

import re
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from gateway.ike.v2.states import (
    CHILD_SA_COLLISIONS,
    CHILD_SA_TRANSITIONS,
    IKE_SA_COLLISIONS,
    IKE_SA_TRANSITIONS,
    REKEY_OUTCOMES,
)

ROOT = Path(__file__).parents[2]


def test_the_page_of_states_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate_states.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_page_draws_every_transition() -> None:
    page = (ROOT / "docs" / "ike-states.md").read_text()

    drawn = re.findall(r"^    (\w+) --> (\w+) : (.+)$", page, re.MULTILINE)

    tables = (IKE_SA_TRANSITIONS, CHILD_SA_TRANSITIONS)
    known = [(old.value, new.value, why.value) for table in tables for (old, why), new in table.items()]
    assert drawn == known


def test_the_page_says_what_becomes_of_every_collision() -> None:
    page = (ROOT / "docs" / "ike-states.md").read_text()
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", page, re.MULTILINE)

    written = [cell for _, cells in rows for cell in cells.split(" | ") if cell.strip()]

    tables: list[Mapping[tuple[Enum, Enum], Enum]] = [
        IKE_SA_COLLISIONS,
        CHILD_SA_COLLISIONS,
        REKEY_OUTCOMES,
    ]
    assert sorted(written) == sorted(entry.value for table in tables for entry in table.values())
