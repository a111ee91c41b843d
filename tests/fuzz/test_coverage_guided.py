"""Every fuzz target for a second, guided by coverage; `make fuzz FUZZ_SECONDS=3600` is the long run."""

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
GROUPS = {
    "ike": IKE_TARGETS,
    "esp": ESP_TARGETS,
    "files": FILE_TARGETS,
    "foreign": FOREIGN_TARGETS,
    "api": API_TARGETS,
}

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has packages for x86_64 only")


@pytest.mark.parametrize("group", GROUPS)
def test_targets_run_and_find_nothing(group, tmp_path):
    names = [target.name for target in GROUPS[group]]

    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--seconds", "1", "--corpus", tmp_path, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    lines = re.findall(r"^(\w+) +(\d+) executions in .* (\d+) edges  (.+)$", done.stdout, re.MULTILINE)
    assert [(name, verdict) for name, _, _, verdict in lines] == [(name, "ok") for name in names], done.stderr
    for name, executions, edges, _ in lines:
        seeds = len(list(tmp_path.glob(f"{name}/seed-*")))
        assert int(executions) > seeds > 0, name
        assert int(edges) > 10, name
    assert done.returncode == 0


@pytest.mark.parametrize("target", [t for group in GROUPS.values() for t in group], ids=lambda t: t.name)
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


def test_a_mistake_is_found_and_kept(tmp_path):
    """The runner fails where a target raises: here by an input of a target whose oracle is broken."""
    script = (
        "from tests.fuzz import run\n"
        "from tests.fuzz.target import Target\n"
        "from pathlib import Path\n"
        "def mistake(data):\n"
        "    assert not data.startswith(b'IKE')\n"
        "import sys\n"
        f"sys.exit(run.fuzz(Target('broken', lambda: [b'IKE1'], mistake), 5, Path({str(tmp_path)!r})))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )

    assert done.returncode == 0  # `fuzz` said False
    assert "FAILED" in done.stdout
    assert "AssertionError" in done.stderr
    assert [path.read_bytes() for path in tmp_path.glob("broken-crash-*")] == [b"IKE1"]


def test_time_is_gathered_over_runs(tmp_path):
    """The second run finds that one target has had its time, and gives the other what it lacks."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--seconds", "1", "--corpus", tmp_path]

    def run(*arguments):
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return re.findall(r"^(\w+) +(\d+) executions", done.stdout, re.MULTILINE)

    first = run("--total", "0.1", "ike_notify")
    second = run("--total", "0.1", "ike_notify", "identity")
    record = run("--record", "ike_notify", "identity")

    assert [name for name, _ in first] == ["ike_notify"]
    assert [name for name, _ in second] == ["identity"]
    assert record == [*first, *second]
