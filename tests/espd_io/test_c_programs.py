"""What I/O methods are made of, tested in C."""

import pytest

from tests.engine.conftest import BUILD, make
from tests.engine.test_c_programs import run_tap
from tests.espd.conftest import ESPD


@pytest.mark.parametrize("program", ["test_io", "test_port"])
def test_every_check_is_ok(program: str) -> None:
    build = make(program, build=BUILD / "sanitized", source=ESPD, SANITIZE="yes")

    assert len(run_tap(build / program)) > 10
