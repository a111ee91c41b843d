"""What the supervisor gives on to the processes it starts, and that it has not their code itself."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.app import run
from gateway.app.places import find_places


@pytest.mark.parametrize(
    ("given", "expected"), [([], "off"), (["--spread-esp", "auto"], "auto")], ids=["default", "auto"]
)
def test_the_agent_is_told_whether_to_spread_esp(tmp_path: Path, given: list[str], expected: str) -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    args = parser.parse_args(given)
    places = find_places({}, run_dir=tmp_path, datapath=None)

    words = run._Supervisor(args, places, own_agent=True)._agent_argv()

    assert words[words.index("--spread-esp") + 1] == expected


def test_the_agent_is_told_from_where_to_forward(tmp_path: Path) -> None:
    given = ["--forward-interface", "lan0", "--forward-interface", "lan1", "--forward-inbound", "nic0"]
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    places = find_places({}, run_dir=tmp_path, datapath=None)

    words = run._Supervisor(parser.parse_args(given), places, own_agent=True)._agent_argv()

    assert " ".join(given) in " ".join(words)


def test_the_agent_is_told_what_the_engine_is_to_have(tmp_path: Path) -> None:
    given = [
        *("--engine-interface", "eth0", "--engine-interface", "eth1", "--engine-inner-interface", "eth2"),
        *("--engine-ike-rate", "50", "--engine-io", "live", "--engine-cpu", "0", "--engine-busy-poll"),
    ]
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    places = find_places({}, run_dir=tmp_path, datapath=None)

    words = run._Supervisor(parser.parse_args(given), places, own_agent=True)._agent_argv()

    assert " ".join(given) in " ".join(words)


def test_a_worker_on_a_cpu_that_is_not_here_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)

    with pytest.raises(SystemExit):
        parser.parse_args(["--engine-cpu", "100000"])

    assert "there is no CPU 100000 here, but 0 to" in capsys.readouterr().err


def test_it_is_small_without_the_code_of_its_children() -> None:
    theirs = ("gateway.app.agent", "gateway.app.controller", "gateway.agent", "gateway.host.bpf", "pyroute2")
    code = f"import sys, gateway.app.run; print([name for name in {theirs} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout == "[]\n"
