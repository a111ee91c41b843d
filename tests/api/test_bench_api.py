"""`ipsecgw bench api`, small, over real sockets and processes."""

import asyncio
from pathlib import Path

import pytest

from gateway.bench.api import ours
from gateway.bench.api.run import Results, report


def test_a_small_run_applies_lists_and_watches(tmp_path: Path) -> None:
    with ours.subject(tmp_path, "--state", str(tmp_path / "state")) as (address, pid):
        applied = asyncio.run(ours.measure_applying(address, pid, 500))
        calls = asyncio.run(ours.measure_calls(address, 500))

    assert applied.rate > 0
    assert applied.resident_bytes > 1_000_000
    assert all(0 < call.p50_ms <= call.p99_ms <= call.worst_ms for call in calls)


def test_watchers_are_right_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_WATCH_S", 0.5)

    watching = asyncio.run(ours.measure_watchers(tmp_path, 20))

    results = Results(machine={}, watching=watching)
    assert watching.wrong == 0
    assert "20" in report(results).to_html()
