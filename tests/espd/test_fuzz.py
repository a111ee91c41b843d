"""A short run of libFuzzer's target for the control socket; `make fuzz` runs it for long."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import make_params
from gateway.datapath.engine.records import NEVER
from tests.engine.conftest import BUILD, make
from tests.espd.client import policy_message
from tests.espd.conftest import ESPD
from tests.espd.machine import LOCAL, REMOTE, inbound, outbound

ANY_BYTES = b"\xff"


def seeds() -> list[bytes]:
    """Return a whole configuration of one tunnel, and each message alone."""
    sas = []
    for cookie, sa in enumerate((outbound(), inbound()), 1):
        message = p.SaMessage(worker=p.ANY_WORKER, params=make_params(sa))
        message.params.cookie = cookie
        message.params.next_sequence = 1
        message.params.sequence_limit = NEVER
        sas.append(chosen(p.MessageType.SA_ADD, message))
    tunnel = p.Tunnel(tunnel=1, count=1)
    tunnel.cookies[0] = 1
    route = p.RouteMessage(family=4, prefix_bits=8, kind=p.RouteKind.LOCAL)
    whole = [
        *sas,
        chosen(p.MessageType.TUNNEL_SET, tunnel),
        chosen(p.MessageType.POLICY_SET, policy_message(1, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=1)),
        chosen(p.MessageType.ROUTE_SET, route),
        chosen(p.MessageType.NEIGHBOUR_SET, p.NeighbourMessage(device=1, family=4)),
        chosen(p.MessageType.COMMIT, p.Plain()),
        chosen(p.MessageType.SA_RESERVE, p.SaReserve(cookie=1, sequence_limit=NEVER)),
        chosen(p.MessageType.SA_PATH_MTU, p.SaPathMtu(cookie=1, path_mtu=1400)),
        chosen(p.MessageType.SA_LIST, p.SaName()),
        chosen(p.MessageType.SA_REMOVE, p.SaName(cookie=1)),
    ]
    return [b"".join(whole), *whole, ANY_BYTES + bytes(40)]


def chosen(kind: p.MessageType, message: p.RequestMessage) -> bytes:
    """Return a message as the target wants it: a byte that chooses the request, then all but the header."""
    return bytes([kind - 1]) + bytes(message)[ctypes.sizeof(p.Header) :]


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang, which brings libFuzzer, is not installed")
def test_nothing_that_is_said_breaks_espd(tmp_path: Path) -> None:
    program = make("fuzz_control", build=BUILD / "fuzz", source=ESPD) / "fuzz_control"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed)

    done = subprocess.run(
        [program, "-runs=4000", "-seed=1", "-max_len=6000", corpus],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 4000 runs" in done.stderr
