"""TCP and UDP through the tunnel devices of two espds: super-frames are cut, and merged again.

program ── TUN ── espd ── outside ═══ beyond ── espd ── TUN ── program
"""

import ctypes
import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.ipsec.sa import Direction, UdpEncapsulation
from tests.conformance.namespace import fresh_network_namespace
from tests.espd.client import PATIENCE_S, Client
from tests.espd.machine import (
    INNER,
    OURS,
    OUT,
    OUTER,
    OUTSIDE,
    PORT,
    TUN,
    inbound,
    ip,
    load_pair,
    open_raw,
    open_tun,
    outbound,
    running,
    turned,
)

pytestmark = pytest.mark.netns

MEGABYTES = 8
_SOL_UDP, _UDP_SEGMENT = 17, 103
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(process: int) -> Iterator[None]:
    """Run this thread, and what it starts, in the network namespace of a process."""
    with open("/proc/thread-self/ns/net") as before, open(f"/proc/{process}/ns/net") as there:
        assert _libc.setns(there.fileno(), 0) == 0
        try:
            yield
        finally:
            assert _libc.setns(before.fileno(), 0) == 0


@contextmanager
def another_namespace() -> Iterator[int]:
    """Keep a namespace with the other end of the wire in it, and return a process that lives there."""
    ours = os.readlink("/proc/thread-self/ns/net")
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        while os.readlink(f"/proc/{keeper.pid}/ns/net") == ours:
            pass
        ip("link", "set", "beyond", "netns", str(keeper.pid))
        ip("neighbour", "flush", "dev", "outside", "nud", "all")
        with inside(keeper.pid):
            for device in ("lo", "beyond"):
                ip("link", "set", device, "up")
            for version, bits in ((4, 24), (6, 64)):
                ip(
                    "address",
                    "add",
                    f"{OUTER[version][1]}/{bits}",
                    "dev",
                    "beyond",
                    *(("nodad",) * (version == 6)),
                )
        yield keeper.pid
    finally:
        keeper.kill()
        keeper.wait()


def set_up(client: Client, side: int, workers: int, outer: int = 0) -> None:
    """Configure one end; with ESP in UDP over an outer IP version, or without UDP."""
    client.hello()
    client.configure(workers=workers)
    open_tun(client, queues=workers, side=side)
    open_raw(client)
    udp = {"encapsulation": UdpEncapsulation(source_port=4500, destination_port=4500)} if outer else {}
    out, into = outbound(outer or 4, **udp), inbound(outer or 4, **udp)
    if side:
        out, into = turned(into, Direction.OUTBOUND), turned(out, Direction.INBOUND)
    load_pair(client, out, into)


@dataclass
class Pair:
    """Both ends, ours in the namespace of the test."""

    near: Client
    far: Client
    far_process: int

    def at_far_end(self, version: int, kind: int) -> socket.socket:
        """Return a bound socket of a program there."""
        with inside(self.far_process):
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
            made.settimeout(PATIENCE_S)
            made.bind((INNER[version][1], PORT))
        return made


@contextmanager
def running_pair(espd: Path, folder: Path, workers: int, outer: int = 0) -> Iterator[Pair]:
    folders = [folder / name for name in ("near", "far")]
    for made in folders:
        made.mkdir()
    with fresh_network_namespace(*OURS), another_namespace() as keeper, ExitStack() as stack:
        near = stack.enter_context(running(espd, folders[0], has_peer=False))
        set_up(near.client, 0, workers, outer)
        with inside(keeper):
            far = stack.enter_context(running(espd, folders[1], has_peer=False))
            set_up(far.client, 1, workers, outer)
        yield Pair(near.client, far.client, keeper)


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def pair(request: pytest.FixtureRequest, sanitized: Path, tmp_path: Path) -> Iterator[Pair]:
    with running_pair(sanitized, tmp_path, request.param) as pair:
        yield pair


@pytest.fixture(params=[4, 6], ids="over IPv{}".format)
def encapsulated(request: pytest.FixtureRequest, shipped: Path, tmp_path: Path) -> Iterator[Pair]:
    """With espd as it ships, which may make few system calls once it runs."""
    with running_pair(shipped, tmp_path, 1, request.param) as pair:
        yield pair


def receive_all(listener: socket.socket, digest: "hashlib._Hash") -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(PATIENCE_S)
        while data := connection.recv(1 << 16):
            digest.update(data)
        connection.sendall(digest.digest())


@pytest.mark.parametrize("version", [4, 6])
def test_a_tcp_connection_brings_what_was_sent(pair: Pair, version: int) -> None:
    block = bytes(range(256)) * 4096
    sent, received = hashlib.sha256(block * MEGABYTES), hashlib.sha256()
    with pair.at_far_end(version, socket.SOCK_STREAM) as listener:
        listener.listen()
        reader = threading.Thread(target=receive_all, args=(listener, received))
        reader.start()
        with socket.create_connection((INNER[version][1], PORT), timeout=PATIENCE_S) as connection:
            for _ in range(MEGABYTES):
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
        reader.join(PATIENCE_S)

    assert answer == received.digest() == sent.digest()
    near, far = pair.near.read_sa(OUT).usage, pair.far.read_device(TUN)
    assert near.bytes > MEGABYTES << 20
    # What one read brought was many packets: each had room in the tunnel.
    assert 1000 < near.bytes / near.packets <= 1400
    assert (far.send_lost, far.send_refused) == (0, 0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_super_datagram_is_cut_where_its_sender_says(pair: Pair, version: int) -> None:
    if version == 6 and not has_uso():
        pytest.skip("UDP segmentation of TUN devices came with Linux 6.2")
    with pair.at_far_end(version, socket.SOCK_DGRAM) as receiver:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, 1000)
            sender.sendto(bytes(range(250)) * 17, (INNER[version][1], PORT))
        pieces = [receiver.recv(2000) for _ in range(5)]

    assert [len(piece) for piece in pieces] == [1000] * 4 + [250]
    assert b"".join(pieces) == bytes(range(250)) * 17


def test_esp_in_udp_leaves_and_comes_in_bursts(encapsulated: Pair) -> None:
    block = bytes(range(256)) * 4096
    sent, received = hashlib.sha256(block * MEGABYTES), hashlib.sha256()
    with encapsulated.at_far_end(4, socket.SOCK_STREAM) as listener:
        listener.listen()
        reader = threading.Thread(target=receive_all, args=(listener, received))
        reader.start()
        with socket.create_connection((INNER[4][1], PORT), timeout=PATIENCE_S) as connection:
            for _ in range(MEGABYTES):
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
        reader.join(PATIENCE_S)

    assert answer == received.digest() == sent.digest()
    near, far = encapsulated.near.read_device(OUTSIDE), encapsulated.far.read_device(OUTSIDE)
    assert 0 < near.sent_bursts < near.sent_packets / 4
    assert 0 < far.received_supers < far.received_packets / 4
    assert (near.send_lost, near.send_refused, far.receive_lost) == (0, 0, 0)


def test_a_udp_super_datagram_in_udp_is_cut_where_its_sender_says(encapsulated: Pair) -> None:
    with encapsulated.at_far_end(4, socket.SOCK_DGRAM) as receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, 1000)
            sender.sendto(bytes(range(250)) * 17, (INNER[4][1], PORT))
        pieces = [receiver.recv(2000) for _ in range(5)]

    assert b"".join(pieces) == bytes(range(250)) * 17
    assert encapsulated.near.read_device(OUTSIDE).sent_bursts == 1


def test_without_an_agent_espd_is_in_nobodys_way_at_its_port(encapsulated: Pair) -> None:
    """The next agent makes the group of UDP 4500 anew, which wants the port free."""

    def is_taken() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            try:
                other.bind(("0.0.0.0", 4500))
            except OSError:
                return True
            return False

    before = is_taken()
    encapsulated.near.close()
    deadline = time.monotonic() + PATIENCE_S
    while is_taken():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert before


def has_uso() -> bool:
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1])) >= (6, 2)
