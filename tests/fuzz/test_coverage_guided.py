"""Every fuzz target for some inputs, guided by coverage; `make fuzz FUZZ_SECONDS=3600` is the long run."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.ike.events import IkeSaEstablished
from gateway.inspect.ledger import Verdict
from tests.fuzz.api_targets import API_TARGETS
from tests.fuzz.esp_targets import ESP_TARGETS
from tests.fuzz.file_targets import FILE_TARGETS
from tests.fuzz.foreign_targets import FOREIGN_TARGETS
from tests.fuzz.ike_targets import (
    IKE_TARGETS,
    RESPONSE,
    Hostile,
    peer_seeds,
    run_peer,
    send_all,
    signer_seeds,
    waiting_for_signatures,
)
from tests.fuzz.inspect_targets import stories, verified

ROOT = Path(__file__).parents[2]
TARGETS = (*IKE_TARGETS, *ESP_TARGETS, *FILE_TARGETS, *FOREIGN_TARGETS, *API_TARGETS)
INPUTS = 150
"""For each target, beyond its seeds."""

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has packages for x86_64 only")


def test_targets_run_and_find_nothing(tmp_path):
    """In one process, because it takes seconds to instrument everything."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--inputs", str(INPUTS), "--corpus", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    lines = re.findall(r"^(\w+) +(\d+) executions in .* (\d+) edges  (.+)$", done.stdout, re.MULTILINE)
    expected = [(target.name, "ok") for target in TARGETS]
    assert [(name, verdict) for name, _, _, verdict in lines] == expected, done.stderr
    for name, executions, edges, _ in lines:
        seeds = len(list(tmp_path.glob(f"{name}/seed-*")))
        assert int(executions) > seeds > 0, name
        assert int(edges) > 10, name
    assert done.returncode == 0


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_seeds_pass(target):
    """Without instrumentation, so that a mistake in a seed has a readable trace."""
    for seed in target.seeds():
        target.run(seed[: target.max_bytes])


def test_the_hostile_peer_is_believed_often_enough(monkeypatch):
    """Or the target would fuzz the integrity check only."""
    answered = []
    send = Hostile.send

    def watched(self, flags, first_payload, octets):
        before = self.next_request
        send(self, flags, first_payload, octets)
        if not flags & RESPONSE:
            answered.append(self.next_request > before)

    monkeypatch.setattr(Hostile, "send", watched)
    for seed in peer_seeds():
        run_peer(seed)

    assert len(answered) > 50
    assert sum(answered) > len(answered) / 2


def test_genuine_signatures_are_believed():
    """Or the target would never get behind the check of AUTH."""
    believed = [
        bool(send_all(seed, waiting_for_signatures(seed[0])).events(IkeSaEstablished))
        for seed in signer_seeds()
    ]

    assert sum(believed) >= len(believed) * 3 / 4


def test_whole_stories_are_verified():
    """Or the target would only see secrets that fit nothing."""
    results = [[one.verdict for one in verified(story)] for story in list(stories())[::3]]

    assert len(results) == 6
    assert not any(Verdict.DIFFERS in verdicts for verdicts in results)
    assert sum(verdicts.count(Verdict.OK) for verdicts in results) > 90


# --- how they are run, shown with targets that take no time to instrument --------------------------

TINY = """\
import sys
from pathlib import Path

import atheris

from tests.fuzz.campaign import main
from tests.fuzz.target import Target


@atheris.instrument_func
def harmless(data):
    return len(data) > 3 and data[0] == 1


@atheris.instrument_func
def mistake(data):
    assert not data.startswith(b"IKE")


targets = [
    Target("first", lambda: [b"abc"], harmless),
    Target("second", lambda: [b"def"], harmless),
    Target("broken", lambda: [b"IKE1"], mistake),
]
sys.exit(main(targets, sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", TINY, "--corpus", tmp_path, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return run


def test_a_mistake_is_found_and_kept(run, tmp_path):
    """The runner fails where a target raises: here by an input of a target whose oracle is broken."""
    done = run("--inputs", "100", "broken")

    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "AssertionError" in done.stderr
    assert [path.read_bytes() for path in tmp_path.glob("broken-crash-*")] == [b"IKE1"]


def test_so_many_inputs_are_tried(run):
    done = run("--inputs", "100", "first")

    assert done.returncode == 0, done.stderr
    assert re.findall(r"^first +(\d+) executions .* ok$", done.stdout, re.MULTILINE) == ["101"]


def test_time_is_gathered_over_runs(run):
    """The second run finds that one target has had its time, and gives the other what it lacks."""

    def told(*arguments):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        return re.findall(r"^(\w+) +(\d+) executions", done.stdout, re.MULTILINE)

    first = told("--seconds", "1", "--total", "0.1", "first")
    second = told("--seconds", "1", "--total", "0.1", "first", "second")
    record = told("--record", "first", "second")

    assert {name for name, _ in first} == {"first"}
    assert {name for name, _ in second} == {"second"}
    assert [name for name, _ in record] == ["first", "second"]
    assert [int(count) for _, count in record] == [
        sum(int(count) for _, count in lines) for lines in (first, second)
    ]
