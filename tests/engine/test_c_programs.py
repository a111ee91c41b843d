"""The engine's own tests in C (TAP), as it ships and under the address and undefined behaviour sanitizers."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import BUILD, ENGINE, make

PROGRAMS = sorted(path.stem for path in (ENGINE / "tests").glob("test_*.c"))
BUILDS = {
    "as it ships": (".", {}),  # optimised, and the only one in which what was freed may be looked at
    "both crypto libraries": ("sanitized", {"SANITIZE": "yes"}),
    "OpenSSL alone": ("sanitized-openssl", {"SANITIZE": "yes", "IPSECMB": "no"}),
}


def run_tap(program: Path) -> list[str]:
    """Run a program and return its lines; it must do what its plan says, and end well."""
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("not ok")]
    assert (done.returncode, failed) == (0, []), done.stderr
    assert lines[-1] == f"1..{len(lines) - 1}"
    return lines


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 3


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_check_is_ok(program: str, build: str) -> None:
    folder, variables = BUILDS[build]

    lines = run_tap(make(program, build=BUILD / folder, **variables) / program)

    assert len(lines) > 10
    if build == "OpenSSL alone":
        assert not [line for line in lines if re.search(r"by ipsec-mb$", line)]
