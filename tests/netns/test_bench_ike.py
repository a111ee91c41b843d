"""`ipsecgw bench ike` over UDP: our responder and charon beside it, and honest handshakes in a flood."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

BENCH = (sys.executable, "-m", "gateway.cli.main", "bench", "ike", "--suite", "psk-x25519", "--held", "0")


def test_both_responders_are_measured_and_the_flood_is_real(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    options = ["--storm", "0", "--handshakes", "20", "--flood", "2000", "--flood-seconds", "3", "--json"]

    process = subprocess.Popen(
        [*BENCH, *options, str(results)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    printed, _ = process.communicate(timeout=300)

    assert process.returncode == 0, printed
    told = json.loads(results.read_text())
    assert told["left_out"] == []
    assert [row["responder"] for row in told["over_udp"]] == ["ipsecgw", "charon"]
    assert all(row["handshakes"] == 20 and row["cpu_ms"] > 0 for row in told["over_udp"])
    ours, theirs = told["floods"]
    for row in (ours, theirs):
        assert 0 < row["flood_pps"] <= 2400
        assert row["honest"] >= 1
    assert ours["established"] == ours["honest"], "an honest handshake failed under the flood"
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"ikb{process.pid}" not in namespaces
