"""A short run of the engine's libFuzzer target; `make fuzz` runs it for long."""

import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest

from gateway.esp.outbound import OutboundSa
from gateway.esp.packet import trailer
from gateway.ipsec.sa import Direction
from tests.engine.conftest import BUILD, make
from tests.unit.esp.samples import ENCAPSULATION, association, ip_packet, make_entropy

# What the first byte of an input asks for: see fuzz_open.c.
SEAL, IN_UDP, FIND_SA = 0x08, 0x10, 0x20


def seeds(folder: Path) -> None:
    """Write payloads that each peer of the target seals, and packets as they come."""
    for number, (version, next_header) in product(range(8), ((4, 4), (6, 41), (4, 59), (4, 17))):
        payload = ip_packet(version, bytes.fromhex("d431003500080000") + b"payload", protocol=17)
        if next_header == 17:
            payload = payload[20:]
        end = trailer(len(payload), next_header, 16)
        is_ah = number in (5, 6)
        text = bytes((next_header,)) + payload if is_ah else payload + end
        for udp in (0, IN_UDP):
            name = f"payload-{number}-{next_header}-{udp}"
            (folder / name).write_bytes(bytes((SEAL | udp | number,)) + text)
    for outer, udp in product((4, 6), (None, ENCAPSULATION)):
        sa = association(Direction.OUTBOUND, outer=outer, encapsulation=udp)
        packet = OutboundSa(sa, entropy=make_entropy(), next_sequence=1).seal(ip_packet(), 0.0)
        (folder / f"packet-{outer}-{bool(udp)}").write_bytes(b"\0" + packet)
        for number in range(8):
            (folder / f"found-{number}-{outer}").write_bytes(bytes((FIND_SA | number,)) + packet)


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
