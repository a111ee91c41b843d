"""`ipsecgw bench tcp` over real gateways, briefly: not for its figures, but that it measures them."""

import json
from pathlib import Path

import pytest

from gateway.bench.tcp.pair import WAYS
from gateway.bench.tcp.run import run
from tests.engine.conftest import make
from tests.espd.conftest import ESPD

pytestmark = pytest.mark.netns


def test_a_stream_goes_each_way_that_is_asked_for() -> None:
    said: list[str] = []
    wanted = [way for way in WAYS if way.backend in ("", "software")]

    results = run(wanted, rounds=1, seconds=0.5, say=said.append)

    assert said == ["round 1: forwarding", "round 1: software"]
    assert [row.left_out for row in results.rows] == ["", ""]
    assert all(row.rounds[0].gigabits_per_s > 0 for row in results.rows)


@pytest.mark.parametrize("way", ["engine, in UDP", "engine, XDP outside"])
def test_a_stream_goes_through_the_engine(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
    mounts = _bpf_mounts()

    (row,) = run([each for each in WAYS if each.name == way], rounds=1, seconds=0.5, say=print).rows

    assert row.left_out == ""
    assert row.rounds[0].gigabits_per_s > 0
    assert ("AF_XDP" in row.words) == ("XDP" in way)
    assert _bpf_mounts() == mounts


def test_a_way_that_cannot_be_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IPSECGW_ESPD", str(tmp_path / "espd"))

    results = run([way for way in WAYS if way.name == "engine"], rounds=1, seconds=0.5, say=lambda _: None)

    (row,) = json.loads(results.to_json())["rows"]
    assert "there is no program" in row["left_out"]
    assert row["rounds"] == []


def _bpf_mounts() -> set[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return {place for _, place, kind, *_ in map(str.split, lines) if kind == "bpf"}
