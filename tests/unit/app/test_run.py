"""What the supervisor gives on to the processes it starts."""

import argparse
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
