"""A short run of the engine's libFuzzer target; `make fuzz` runs it for long."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.esp.outbound import OutboundSa
from gateway.ipsec.sa import Direction
from tests.engine.conftest import BUILD, make
from tests.unit.esp.samples import association, ip_packet, make_entropy


def seeds(folder: Path) -> None:
    """Write packets that look right, and payloads that are sealed in the target."""
    packet = OutboundSa(association(Direction.OUTBOUND), entropy=make_entropy()).seal(ip_packet(), 0.0)
    inner = [ip_packet(version, b"payload") for version in (4, 6)]
    (folder / "packet").write_bytes(b"\0" + packet)
    for number, payload in enumerate(inner):
        trailer = bytes((1, 1, (4, 41)[number]))
        (folder / f"payload-{number}").write_bytes(bytes((8 + number,)) + payload + trailer)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang, which brings libFuzzer, is not installed")
def test_nothing_that_comes_in_breaks_the_engine(tmp_path: Path) -> None:
    program = make("fuzz_open", build=BUILD / "fuzz") / "fuzz_open"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds(corpus)

    done = subprocess.run(
        [program, "-runs=30000", "-seed=1", "-max_len=600", corpus],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 30000 runs" in done.stderr
