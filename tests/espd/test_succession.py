"""A new espd takes the place of the one that runs: nothing is lost or doubled, and no number is used again.

What is said between both is hw/espd/src/succession.h. Here are also those who do not keep to it.
"""

import contextlib
import socket
import struct
import subprocess
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.records import REASONS
from gateway.ipsec.drop_reason import DropReason
from tests.conformance.namespace import fresh_network_namespace
from tests.espd.client import PATIENCE_S, Client, configuration
from tests.espd.machine import (
    IN,
    INNER,
    LOCAL,
    OURS,
    OUT,
    OUTSIDE,
    POLICY,
    PORT,
    REMOTE,
    TUN,
    TUNNEL,
    Machine,
    inbound,
    load_pair,
    open_outer,
    open_packet,
    open_raw,
    open_tun,
    opener,
    outbound,
    running,
    sealer,
)
from tests.espd.test_traffic import udp
from tests.espd.test_xdp import LAN, SENDING, make_router
from tests.unit.esp.samples import ip_packet

pytestmark = pytest.mark.netns

OUTSIDES = {"raw": open_raw, "packet": open_packet}
MAGIC, VERSION = 0x4F485347, 2
ASK, REFUSED, BEGIN, POOL, MESSAGE, PREPARED, END, READY, GO = 1, 2, 3, 4, 5, 6, 12, 13, 14
NOT_TAKEN_OVER = 3
CARRIES_ON = "; the espd that runs carries on\n"


@pytest.fixture
def old(shipped: Path, tmp_path: Path) -> Iterator[Machine]:
    with fresh_network_namespace(*OURS), running(shipped, tmp_path) as machine:
        yield machine


@contextlib.contextmanager
def successor(program: Path, path: Path) -> Iterator[Client]:
    """Run an espd that takes over from the one at a socket; return a connection to it."""
    command = [program, "--socket", path, "--take-over"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line == f"espd: ready at {path}\n", line
            client = Client(path)
            yield client
            client.close()
            process.terminate()
            assert (process.wait(PATIENCE_S), process.stderr.read()) == (0, "")
        finally:
            process.kill()


def carry(machine: Machine, client: Client, outside: str, **sizes: int) -> None:
    """Have a machine protect what its programs say."""
    client.hello()
    client.configure(**sizes)
    open_tun(client, queues=sizes.get("workers", 1))
    OUTSIDES[outside](client)
    load_pair(client, outbound(), inbound())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("outside", OUTSIDES)
def test_the_next_one_goes_on_where_the_last_one_was(
    old: Machine, shipped: Path, outside: str, workers: int
) -> None:
    client = old.client
    carry(old, client, outside, workers=workers)
    opened_by, seals, program = opener(outbound()), sealer(inbound()), old.program()
    inner = ip_packet(4, udp(b"good"), protocol=17, addresses={4: INNER[4][::-1]})
    program.sendto(b"before", (INNER[4][1], PORT))
    assert open_outer(opened_by, old.peer.take(50)).endswith(b"before")
    first = seals.seal(inner, 0.0)
    for packet in (first, first):
        old.peer.put(packet)
    assert program.recv(100) == b"good"
    client.await_drops({DropReason.REPLAY: 1})
    life, before = client.hello(), client.counters()

    with successor(shipped, old.path) as new:
        assert old.wait() == 0
        now = new.hello()
        assert (bytes(now.life), now.started_ns, now.sas) == (bytes(life.life), life.started_ns, 2)
        assert (now.process, now.workers) != (life.process, 0)

        # A number that was sent, or was seen, is never taken for a new one.
        program.sendto(b"after", (INNER[4][1], PORT))
        assert open_outer(opened_by, old.peer.take(50)).endswith(b"after")
        assert new.read_sa(OUT).usage.sequence == 2
        for packet in (first, seals.seal(inner, 0.0)):
            old.peer.put(packet)
        assert program.recv(100) == b"good"
        new.await_drops({DropReason.REPLAY: 2})
        counted = new.read_sa(IN).usage
        assert (counted.packets, list(counted.drops)[REASONS.index(DropReason.REPLAY)]) == (2, 2)
        after = new.counters()
        assert (after.sealed, after.opened) == (before.sealed + 1, before.opened + 1)
        assert new.read_device(TUN).received_packets >= 2

        # The SAs can be taken out and others put in, as before.
        new.remove_sa(OUT)
        new.add_sa(outbound(), 9)
        new.set_tunnel(TUNNEL, [9])
        program.sendto(b"rekeyed", (INNER[4][1], PORT))
        assert open_outer(opener(outbound()), old.peer.take(50)).endswith(b"rekeyed")


def test_three_in_a_row_have_the_same_sas(old: Machine, shipped: Path) -> None:
    carry(old, old.client, "raw")
    opened_by, program = opener(outbound()), old.program()

    with ExitStack() as stack:
        for number in range(3):
            program.sendto(bytes([number]), (INNER[4][1], PORT))
            assert open_outer(opened_by, old.peer.take(50))[-1] == number
            new = stack.enter_context(successor(shipped, old.path)) if number == 2 else None
            if new is None:
                process = subprocess.Popen(
                    [shipped, "--socket", old.path, "--take-over"], stderr=subprocess.PIPE, text=True
                )
                stack.enter_context(process)
                assert process.stderr is not None
                assert process.stderr.readline() == f"espd: ready at {old.path}\n"
            else:
                assert new.hello().sas == 2
                assert new.read_sa(OUT).usage.sequence == 3


def protect_without_an_sa(client: Client) -> None:
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL, acquire=True)
    client.commit()


def test_packets_that_wait_for_an_sa_go_on_waiting(old: Machine, shipped: Path) -> None:
    client = old.client
    protect_without_an_sa(client)
    program = old.program()
    for number in range(3):
        program.sendto(bytes([number]), (INNER[4][1], PORT))
    assert isinstance(client.next_event(), p.AcquireEvent)
    while client.read_device(TUN).received_packets < 3:
        pass

    with successor(shipped, old.path) as new:
        new.hello()
        new.add_sa(outbound(), OUT)
        new.set_tunnel(TUNNEL, [OUT])
        opened_by = opener(outbound())
        assert [open_outer(opened_by, old.peer.take(50))[-1] for _ in range(3)] == [0, 1, 2]


def test_events_that_nobody_heard_yet_are_told_by_the_next_one(old: Machine, shipped: Path) -> None:
    protect_without_an_sa(old.client)
    old.client.close()
    old.program().sendto(b"x", (INNER[4][1], PORT))

    with successor(shipped, old.path) as new:
        new.hello()
        event = new.next_event()

    assert isinstance(event, p.AcquireEvent)
    assert event.policy == POLICY


@pytest.mark.parametrize("send", SENDING, ids=lambda kind: kind.name.lower())
def test_frames_in_the_rings_of_af_xdp_are_neither_lost_nor_doubled(
    shipped: Path, tmp_path: Path, send: p.IoKind
) -> None:
    """Packets come all the time, while three espd in a row take over."""
    total, source, destination = 6000, *INNER[4]
    with fresh_network_namespace(*OURS), ExitStack() as stack:
        router = make_router(stack, shipped, tmp_path, send, 1)
        load_pair(router.client, outbound(), inbound(), path_mtu=1500)
        opened_by, seen = opener(outbound()), []
        router.peer.make_room()

        def listen() -> None:
            while len(seen) < total:
                inner = IP(open_outer(opened_by, router.peer.take(50)))
                seen.append(int.from_bytes(bytes(inner[UDP].payload)[:4]))

        done = threading.Event()

        def speak() -> None:
            frame = bytearray(
                bytes(IP(src=source, dst=destination) / UDP(sport=1, dport=2, chksum=0) / bytes(4))
            )
            for number in range(total):
                frame[-4:] = number.to_bytes(4)
                router.host.put(bytes(frame))
                done.wait(0.0003)

        threads = [threading.Thread(target=work) for work in (listen, speak)]
        for thread in threads:
            thread.start()
        lives = [stack.enter_context(taking_over(shipped, tmp_path / "espd.sock")) for _ in range(3)]
        for thread in threads:
            thread.join(60)

        assert router.peer.missed() == 0
        assert sorted(seen) == list(range(total))
        client = Client(tmp_path / "espd.sock")
        assert client.hello().process == lives[-1]
        for device in (LAN, OUTSIDE):
            said = client.read_device(device)
            assert (said.receive_lost, said.send_lost, said.send_refused) == (0, 0, 0)
            assert said.send_method == send
        client.close()


@contextlib.contextmanager
def taking_over(program: Path, path: Path) -> Iterator[int]:
    """Run an espd that takes over, and return its process; it may be gone at the end."""
    with subprocess.Popen(
        [program, "--socket", path, "--take-over"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"espd: ready at {path}\n"
            yield process.pid
        finally:
            process.kill()


# --- who does not keep to it ----------------------------------------------------------------------


def record(kind: int, body: bytes = b"", *, descriptors: int = 0, magic: int = MAGIC) -> bytes:
    """Return a record; `descriptors` is the mask of those that come with it."""
    return struct.pack("<IIII", magic, kind, 16 + len(body), descriptors) + body


def ask(version: int = VERSION, control: int = p.VERSION, reasons: int = len(REASONS)) -> bytes:
    """Return the first word of a successor."""
    return record(ASK, struct.pack("<IIII", version, control, reasons, 0))


class Pretender:
    """Somebody who asks espd for everything, and goes on as the test says."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))

    def say(self, data: bytes) -> None:
        self._socket.send(data)

    def hear(self) -> tuple[int, bytes]:
        """Return the next record's kind and body; kind 0 when espd has hung up."""
        kind, _, body = self.hear_whole()
        return kind, body

    def hear_whole(self) -> tuple[int, int, bytes]:
        """Return the next record's kind, the mask of its descriptors, and its body."""
        data, rights, *_ = self._socket.recvmsg(1 << 20, 4096)
        for _level, _type, packed in rights:
            descriptors = array("i")
            descriptors.frombytes(packed)
            for descriptor in descriptors:
                socket.close(descriptor)
        if not data:
            return 0, 0, b""
        magic, kind, size, mask = struct.unpack_from("<IIII", data)
        assert (magic, size) == (MAGIC, len(data))
        return kind, mask, data[16:]

    def hear_until(self, wanted: int) -> None:
        """Hear everything up to a record."""
        while (kind := self.hear()[0]) != wanted:
            assert kind, "espd hung up"

    def close(self) -> None:
        self._socket.close()


def assert_carries(machine: Machine) -> None:
    """Check that espd sends and receives, on the first connection."""
    program = machine.program()
    before = machine.client.read_sa(OUT).usage.sequence
    program.sendto(b"still here", (INNER[4][1], PORT))
    assert open_outer(opener(outbound()), machine.peer.take(50)).endswith(b"still here")
    assert machine.client.read_sa(OUT).usage.sequence == before + 1
    program.close()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (ask(version=VERSION + 1), b"it tells its state in another version"),
        (ask(control=p.VERSION + 1), b"it speaks another version with agents"),
        (ask(reasons=len(REASONS) + 1), b"it knows other drop reasons"),
    ],
    ids=["state", "control", "reasons"],
)
def test_who_would_not_understand_is_told_why_and_the_old_one_carries_on(
    old: Machine, asked: bytes, reason: bytes
) -> None:
    carry(old, old.client, "raw")
    pretender = Pretender(old.path)

    pretender.say(asked)

    kind, said = pretender.hear()
    assert (kind, said.rstrip(b"\0")) == (REFUSED, reason)
    assert pretender.hear() == (0, b"")
    assert_carries(old)
    old.says = f"espd: not handed over: {reason.decode()}\n"
    pretender.close()


def leave(pretender: Pretender) -> None:
    pretender.close()


def refuse(pretender: Pretender) -> None:
    pretender.say(record(REFUSED, b"not this".ljust(p.REASON_BYTES, b"\0")))


def talk_nonsense(pretender: Pretender) -> None:
    pretender.say(b"nonsense")


def say_nothing(pretender: Pretender) -> None:
    while pretender.hear()[0]:
        pass


def speak_out_of_turn(pretender: Pretender) -> None:
    pretender.say(record(GO))


@pytest.mark.parametrize("is_prepared", [False, True], ids=["at-first", "at-the-last"])
@pytest.mark.parametrize(
    ("misbehave", "complaint"),
    [
        (leave, "the other espd (is gone|takes nothing more)"),
        (refuse, "not this"),
        (talk_nonsense, "the other espd does not speak of a hand-over"),
        (say_nothing, "the other espd says nothing"),
        (speak_out_of_turn, "the other espd speaks out of turn"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whoever_breaks_it_off_the_old_one_carries_on(
    old: Machine, misbehave: Callable[[Pretender], None], complaint: str, is_prepared: bool
) -> None:
    carry(old, old.client, "packet")
    pretender = Pretender(old.path)
    pretender.say(ask())
    if is_prepared:
        pretender.say(record(PREPARED))
        pretender.hear_until(END)

    misbehave(pretender)

    assert_carries(old)
    old.says = f"espd: not handed over: {complaint}\n"
    pretender.close()


def begin(pools: int, *, descriptors: int = 1) -> bytes:
    return record(BEGIN, bytes(16) + struct.pack("<QII", 1, pools, 0), descriptors=descriptors)


def told(message: p.RequestMessage, kind: p.MessageType) -> bytes:
    """Return a message of the agent's, as one espd tells it the next."""
    p.stamp(message, kind, 0)
    return record(MESSAGE, bytes(message))


def pool(worker: int = 0, *, descriptors: int = 1) -> bytes:
    return record(POOL, struct.pack("<II", worker, 0), descriptors=descriptors)


NOT_OURS = "a message is not what its type promises"
SPEECHES: dict[str, tuple[list[bytes], str]] = {
    "nothing": ([], "the other espd is gone"),
    "another-magic": ([record(BEGIN, bytes(32), magic=1)], "the other espd does not speak of a hand-over"),
    "truncated": ([record(BEGIN, bytes(20))], "the other espd speaks out of turn"),
    "too-short": ([b"GSHO"], "the other espd does not speak of a hand-over"),
    "no-descriptor": ([begin(0, descriptors=0)], "the control socket is missing"),
    "a-lie-about-descriptors": ([begin(0, descriptors=3)], "the other espd does not speak of a hand-over"),
    "too-many-workers": ([begin(p.MAX_WORKERS + 1)], "the control socket is missing"),
    "another-worker": ([begin(1), pool(1)], "the memory of a worker is missing"),
    "out-of-turn": ([begin(1), pool(), record(GO)], "the other espd speaks out of turn"),
    "no-message": ([begin(1), pool(), record(MESSAGE, b"x")], "the other espd speaks out of turn"),
    "bad-message": ([begin(1), pool(), record(MESSAGE, bytes(16))], NOT_OURS),
    "not-for-this": ([begin(1), pool(), told(p.Plain(), p.MessageType.SHUT_DOWN)], NOT_OURS),
    "before-configure": ([begin(1), pool(), told(p.Plain(), p.MessageType.COMMIT)], "CONFIGURE comes first"),
    "other-workers": (
        [begin(1), pool(), told(configuration(workers=2), p.MessageType.CONFIGURE)],
        "there are pools for other workers",
    ),
    "memory-that-is-none": (
        [begin(1), pool(), told(configuration(), p.MessageType.CONFIGURE)],
        "a worker could not be started",
    ),
    "refusal": ([record(REFUSED, b"later".ljust(p.REASON_BYTES, b"\0"))], "later"),
    "refusal-cut-short": ([record(REFUSED, b"x")], ""),
}


@pytest.mark.parametrize("speech", SPEECHES)
def test_the_next_one_believes_nothing_that_it_cannot_check(
    shipped: Path, sanitized: Path, tmp_path: Path, speech: str
) -> None:
    records, why = SPEECHES[speech]
    for program in (shipped, sanitized):
        path = tmp_path / f"{program.parent.name}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            listener.listen()
            process = subprocess.Popen(
                [program, "--socket", path, "--take-over"], stderr=subprocess.PIPE, text=True
            )
            with process, listener.accept()[0] as connection, socket.socket() as given:
                for said in records:
                    mask = struct.unpack_from("<IIII", said.ljust(16, b"\0"))[3]
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [given.fileno()]))]
                    connection.sendmsg([said], rights if mask else [])
                connection.shutdown(socket.SHUT_WR)
                _, complaint = process.communicate(timeout=PATIENCE_S)

        assert process.returncode == NOT_TAKEN_OVER
        assert complaint == f"espd: not taken over: {why}{CARRIES_ON}"
