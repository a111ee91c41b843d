"""Short runs of libFuzzer's targets for the control socket and the hand-over; `make fuzz` has long ones."""

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import make_params
from gateway.datapath.engine.records import NEVER
from tests.conformance.namespace import fresh_network_namespace
from tests.engine.conftest import BUILD, make
from tests.espd.client import policy_message
from tests.espd.conftest import ESPD
from tests.espd.machine import LOCAL, OURS, REMOTE, Machine, inbound, outbound, running
from tests.espd.test_succession import END, GO, PREPARED, REFUSED, Pretender, ask, carry, record

ANY_BYTES = b"\xff"
CLANG = pytest.mark.skipif(
    shutil.which("clang") is None, reason="clang, which brings libFuzzer, is not installed"
)


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


def said(kind: int, descriptors: int, body: bytes) -> bytes:
    """Return a record of a hand-over as the target wants it: its struct said, then the body."""
    return struct.pack("<HBBI", len(body), kind, 0, descriptors) + body


def hand_over(machine: Machine) -> list[bytes]:
    """Return all that an espd with a tunnel says to its successor, up to GO."""
    carry(machine, machine.client, "raw")
    pretender = Pretender(machine.path)
    pretender.say(ask())
    pretender.say(record(PREPARED))
    records = []
    kind = 0
    while kind != END:
        kind, descriptors, body = pretender.hear_whole()
        assert kind, "espd hung up"
        records.append(said(kind, descriptors, body))
    pretender.say(record(REFUSED, b"enough".ljust(p.REASON_BYTES, b"\0")))
    pretender.close()
    machine.says = "espd: not handed over: enough\n"
    return [*records, said(GO, 0, b"")]


def fuzz(name: str, corpus: Iterable[bytes], directory: Path, *options: str) -> str:
    """Run a target with these seeds; return what it says."""
    program = make(name, build=BUILD / "fuzz", source=ESPD) / name
    inputs = directory / "corpus"
    inputs.mkdir()
    for number, seed in enumerate(corpus):
        (inputs / str(number)).write_bytes(seed)
    done = subprocess.run(
        [program, "-seed=1", *options, inputs],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@CLANG
def test_nothing_that_is_said_breaks_espd(tmp_path: Path) -> None:
    assert "Done 4000 runs" in fuzz("fuzz_control", seeds(), tmp_path, "-runs=4000", "-max_len=6000")


@CLANG
@pytest.mark.netns
def test_nothing_that_the_last_one_says_breaks_the_next_one(tmp_path: Path, shipped: Path) -> None:
    with fresh_network_namespace(*OURS), running(shipped, tmp_path) as machine:
        whole = hand_over(machine)

    corpus = [b"".join(whole), b"".join(whole[:-1]), *(b"".join(whole[:i]) for i in range(1, len(whole), 4))]
    assert "Done 800 runs" in fuzz("fuzz_succession", corpus, tmp_path, "-runs=800", "-max_len=32000")
