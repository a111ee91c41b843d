"""What is left of a process that crashes in C code, and how its supervisor names it."""

import signal
import subprocess
import sys

import pytest

from gateway.app.run import exit_status

CRASH = """
import argparse, os, signal
from gateway.app.log_options import add_log_arguments, configure_logs

def crash(psk):
    os.kill(os.getpid(), signal.SIGSEGV)

parser = argparse.ArgumentParser()
add_log_arguments(parser)
configure_logs(parser.parse_args([]))
crash("correct " + "horse")
"""


def test_a_crash_leaves_its_stack_and_no_values() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=30, check=False
    )

    assert exit_status(done.returncode) == "SIGSEGV"
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "line 6 in crash" in done.stderr
    assert "correct" not in done.stderr


@pytest.mark.parametrize(
    ("status", "name"), [(0, "0"), (1, "1"), (-signal.SIGSEGV, "SIGSEGV"), (-40, "signal 40")]
)
def test_a_supervisor_names_the_signal_that_ended_a_child(status: int, name: str) -> None:
    assert exit_status(status) == name
