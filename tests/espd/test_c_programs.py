"""Parts of espd tested in C (TAP), as it ships and under the address and undefined behaviour sanitizers."""

import pytest

from tests.engine.conftest import BUILD, make
from tests.engine.test_c_programs import run_tap
from tests.espd.conftest import ESPD

BUILDS = {"as it ships": (".", {}), "sanitized": ("sanitized", {"SANITIZE": "yes"})}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("program", ["test_offload", "test_tables"])
def test_every_check_is_ok(program: str, build: str) -> None:
    folder, variables = BUILDS[build]

    lines = run_tap(make(program, build=BUILD / folder, source=ESPD, **variables) / program)

    assert len(lines) > 10


def test_what_is_confined_does_nothing_else() -> None:
    """As it ships: sanitizers open files and need more system calls."""
    lines = run_tap(make("test_sandbox", build=BUILD, source=ESPD) / "test_sandbox")

    assert len(lines) > 10
