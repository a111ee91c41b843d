"""What espd makes of what is said over its socket: by its agent, by a second one, and by nobody's client."""

import ctypes
import os
import socket
import subprocess
from pathlib import Path

import pytest

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import EventKind, Refusal
from gateway.datapath.engine.records import REASONS
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.secret import Secret
from tests.conformance.namespace import fresh_network_namespace
from tests.espd.client import Client, configuration, policy_message
from tests.espd.machine import (
    IN,
    INNER,
    LOCAL,
    OUT,
    POLICY,
    PORT,
    REMOTE,
    TUN,
    TUNNEL,
    Machine,
    inbound,
    load_pair,
    open_outer,
    open_raw,
    open_tun,
    opener,
    outbound,
    running,
)


@pytest.fixture
def client(machine: Machine) -> Client:
    """A greeted and configured espd without devices."""
    machine.client.hello()
    machine.client.configure()
    return machine.client


def refusal(data: bytes, client: Client) -> int:
    """Send bytes and return the error of the answer."""
    body = client.exchange(data).body
    assert not isinstance(body, p.EventMessage)
    reply = body if isinstance(body, p.Reply) else body.reply
    return int(reply.error)


def stamped(kind: p.MessageType, message: p.RequestMessage) -> bytearray:
    p.stamp(message, kind, 99)
    return bytearray(bytes(message))


# --- order ----------------------------------------------------------------------------------------


def test_hello_comes_first_and_then_configure(machine: Machine) -> None:
    client = machine.client
    with pytest.raises(p.EspdRefused) as before_hello:
        client.commit()
    assert before_hello.value.code is p.ControlError.ORDER

    said = client.hello()
    assert (said.workers, said.sas, said.process) == (0, 0, machine.process.pid)
    assert said.methods & 1 << p.IoKind.PACKET
    with pytest.raises(p.EspdRefused) as before_configure:
        client.commit()
    assert before_configure.value.code is p.ControlError.ORDER

    client.configure(workers=2)
    client.commit()
    assert client.hello().workers == 2


def test_configure_again_is_the_same_or_refused(client: Client) -> None:
    client.configure()

    with pytest.raises(p.EspdRefused) as refused:
        client.configure(workers=2)
    assert refused.value.code is p.ControlError.ORDER


def test_an_agent_with_other_drop_reasons_is_told_so(machine: Machine) -> None:
    with pytest.raises(p.EspdRefused) as refused:
        machine.client.ask(p.MessageType.HELLO, p.Hello(drop_reasons=len(REASONS) + 1), p.HelloReply)
    assert refused.value.code is p.ControlError.VERSION


# --- malformed ------------------------------------------------------------------------------------


def test_every_request_of_a_wrong_size_is_refused_and_none_ends_espd(client: Client) -> None:
    for kind, record in p.REQUESTS.items():
        whole = stamped(kind, record())
        cut = whole[:-8]
        cut[4:8] = len(cut).to_bytes(4, "little")
        longer = whole + bytes(8)
        longer[4:8] = len(longer).to_bytes(4, "little")
        lying = bytearray(whole)
        lying[4:8] = (len(whole) + 8).to_bytes(4, "little")
        # Without its header whole a message has no number that an answer could name.
        for data in (longer, lying, *((cut,) if len(cut) >= ctypes.sizeof(p.Header) else ())):
            assert refusal(bytes(data), client) == p.ControlError.SIZE, kind

    client.commit()


def test_less_than_a_header_is_answered_too(client: Client) -> None:
    for size in (1, 8, 15):
        client._socket.send(stamped(p.MessageType.COMMIT, p.Plain())[:size])

        assert p.Reply.from_buffer_copy(client._receive()).error == p.ControlError.SIZE


def test_other_versions_and_unknown_types_are_refused(client: Client) -> None:
    data = stamped(p.MessageType.COMMIT, p.Plain())
    data[0] = p.VERSION + 1
    assert refusal(bytes(data), client) == p.ControlError.VERSION


@pytest.mark.parametrize("number", [0, 24, 0x3FFF, p.EVENT_FIRST])
def test_a_type_without_a_request_is_refused(client: Client, number: int) -> None:
    data = stamped(p.MessageType.COMMIT, p.Plain())
    data[2:4] = number.to_bytes(2, "little")
    client._socket.send(data)

    reply = p.Reply.from_buffer_copy(client._receive())

    assert reply.error == p.ControlError.TYPE


def _device(**changes: int) -> p.Device:
    fields: dict[str, int] = {"device": 5, "queues": 1, "mtu": 1500}
    return p.Device(**(fields | changes))


def _methods(*numbers: int) -> p.Device:
    device = _device()
    device.send_methods[: len(numbers)] = numbers
    return device


INVALID = {
    "device 0": (p.MessageType.DEVICE_SET, _device(device=0)),
    "a device too many": (p.MessageType.DEVICE_SET, _device(device=p.MAX_DEVICES + 1)),
    "no queues": (p.MessageType.DEVICE_SET, _device(queues=0)),
    "unknown flag": (p.MessageType.DEVICE_SET, _device(flags=1 << 9)),
    "a hole among methods": (p.MessageType.DEVICE_SET, _methods(4, 0, 4)),
    "unknown method": (p.MessageType.DEVICE_SET, _methods(7)),
    "no SA has cookie 0": (p.MessageType.SA_ADD, p.SaMessage()),
    "a long note": (p.MessageType.SA_ADD, p.SaMessage(note_bytes=257)),
    "tunnel 0": (p.MessageType.TUNNEL_SET, p.Tunnel()),
    "17 SAs": (p.MessageType.TUNNEL_SET, p.Tunnel(tunnel=1, count=17)),
    "no action": (p.MessageType.POLICY_SET, p.PolicyMessage(policy=1)),
    "protect by nothing": (p.MessageType.POLICY_SET, p.PolicyMessage(policy=1, action=1)),
    "65 selectors": (
        p.MessageType.POLICY_SET,
        p.PolicyMessage(policy=1, action=3, local_selectors=60, remote_selectors=5),
    ),
    "a selector of no family": (
        p.MessageType.POLICY_SET,
        p.PolicyMessage(policy=1, action=3, local_selectors=1),
    ),
    "a prefix too long": (
        p.MessageType.ROUTE_SET,
        p.RouteMessage(family=4, prefix_bits=33, kind=p.RouteKind.LOCAL),
    ),
    "a route to nowhere": (p.MessageType.ROUTE_SET, p.RouteMessage(family=4, kind=p.RouteKind.FORWARD)),
    "a neighbour of no family": (p.MessageType.NEIGHBOUR_SET, p.NeighbourMessage(device=1)),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_out_of_range_is_refused(client: Client, name: str) -> None:
    kind, message = INVALID[name]

    with pytest.raises(p.EspdRefused) as refused:
        client.ask(kind, message, p.reply_of(kind))
    assert refused.value.code is Refusal.INVALID


def test_what_is_not_there_is_said_not_to_be(client: Client) -> None:
    for refused_call in (
        lambda: client.remove_sa(5),
        lambda: client.read_sa(5),
        lambda: client.set_tunnel(1, [5]),
    ):
        with pytest.raises(p.EspdRefused) as refused:
            refused_call()
        assert refused.value.code is Refusal.NO_SA
    with pytest.raises(p.EspdRefused) as no_device:
        client.read_device(5)
    assert no_device.value.code is p.ControlError.NO_ENTRY


def test_a_method_that_cannot_be_opened_says_why(client: Client) -> None:
    device = _device(device=5, ifindex=4711)
    device.name = b"nosuch"
    device.send_methods[0] = p.IoKind.PACKET

    with pytest.raises(p.EspdRefused) as refused:
        client.set_device(device)

    assert refused.value.code is p.ControlError.SYSTEM
    assert "AF_PACKET" in str(refused.value)
    assert "No such device" in str(refused.value)


def test_descriptors_that_nobody_asked_for_are_closed(machine: Machine, client: Client) -> None:
    folder = f"/proc/{machine.process.pid}/fd"
    before = len(os.listdir(folder))

    for _ in range(3):
        read, write = os.pipe()
        client.ask(p.MessageType.COMMIT, p.Plain(), descriptors=[read, write])
        os.close(read)
        os.close(write)

    assert len(os.listdir(folder)) == before


# --- SAs ------------------------------------------------------------------------------------------


def test_sas_are_listed_with_their_notes_page_by_page(client: Client) -> None:
    cookies = range(1, 2 * p.SAS_LISTED + 1)
    for cookie in cookies:
        client.add_sa(inbound(spi=0x1000 + cookie), cookie, note=f"SA {cookie}".encode())

    listed = client.list_sas()

    assert [record.cookie for record in listed] == list(cookies)
    assert [bytes(record.note[: record.note_bytes]) for record in listed] == [
        f"SA {cookie}".encode() for cookie in cookies
    ]
    assert client.hello().sas == len(cookies)
    client.remove_sa(3)
    assert client.hello().sas == len(cookies) - 1


def test_neither_cookie_nor_place_is_given_twice(client: Client) -> None:
    client.add_sa(inbound(spi=0x1001), 1)

    for spi, cookie in ((0x1002, 1), (0x2001, 2)):
        with pytest.raises(p.EspdRefused) as refused:
            client.add_sa(inbound(spi=spi), cookie)
        assert refused.value.code is Refusal.TAKEN
    client.remove_sa(1)
    client.add_sa(inbound(spi=0x2001), 2)


def test_the_table_of_outbound_sas_is_full_when_it_is(machine: Machine) -> None:
    client = machine.client
    client.hello()
    client.configure(outbound_sas=2)
    for cookie in (1, 2):
        client.add_sa(outbound(), cookie)

    with pytest.raises(p.EspdRefused) as refused:
        client.add_sa(outbound(), 3)
    assert refused.value.code is p.ControlError.FULL

    client.remove_sa(1)
    client.add_sa(outbound(), 3)


def test_the_keys_of_an_sa_go_with_it_and_its_request_at_once(shipped: Path, tmp_path: Path) -> None:
    """An installed SA has it: the first round keys of AES-256 are the key, and a successor needs it."""
    key = bytes(range(100, 136))
    note = bytes(range(200, 232))
    with fresh_network_namespace("192.0.2.1/24"), running(shipped, tmp_path) as machine:
        client = machine.client
        client.hello()
        client.configure()
        client.add_sa(outbound(encryption_key=Secret(key)), 1, note=note)
        installed = read_memory(machine.process.pid)
        client.remove_sa(1)
        removed = read_memory(machine.process.pid)

    assert note in installed
    assert key in installed
    assert key[:32] not in removed


def read_memory(process: int) -> bytes:
    """Return all of a process's private memory."""
    found = []
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", 0) as memory:
        for line in maps:
            addresses, permissions, *_ = line.split()
            start, end = (int(part, 16) for part in addresses.split("-"))
            if permissions.startswith("rw") and end - start <= 64 << 20:
                memory.seek(start)
                try:
                    found.append(memory.read(end - start))
                except OSError:
                    continue
    return b"".join(found)


# --- events ---------------------------------------------------------------------------------------


def send_out(machine: Machine, count: int = 1) -> None:
    program = machine.program()
    for number in range(count):
        program.sendto(f"packet {number}".encode(), (INNER[4][1], PORT))


def test_a_packet_without_an_sa_asks_for_one_once(machine: Machine, client: Client) -> None:
    open_tun(client)
    client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
    client.commit()

    send_out(machine, 3)

    event = client.next_event()
    assert isinstance(event, p.AcquireEvent)
    assert (event.policy, event.family, event.protocol, event.destination_port) == (POLICY, 4, 17, PORT)
    assert bytes(event.destination)[:4] == bytes((10, 2, 0, 1))

    # What waited leaves as soon as there is one, in its order.
    open_raw(client)
    client.add_sa(outbound(), OUT)
    client.set_tunnel(TUNNEL, [OUT])
    opened_by = opener(outbound())
    for number in range(3):
        assert open_outer(opened_by, machine.peer.take(50)).endswith(f"packet {number}".encode())
    client.await_drops({})


def test_a_packet_that_asks_for_nothing_does_not_wait_for_long(machine: Machine, client: Client) -> None:
    open_tun(client)
    client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL, acquire=False)
    client.commit()

    send_out(machine, 3)

    client.await_drops({DropReason.NO_SA: 3})


def test_only_so_many_packets_wait(machine: Machine, client: Client) -> None:
    open_tun(client)
    client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
    client.commit()

    send_out(machine, 70)

    client.await_drops({DropReason.NO_SA: 70 - 64})


def test_nothing_is_sent_past_the_reserved_numbers(machine: Machine, client: Client) -> None:
    open_tun(client)
    open_raw(client)
    client.add_sa(outbound(), OUT, sequence_limit=4)
    client.set_tunnel(TUNNEL, [OUT])
    client.set_policy(POLICY, p.PolicyAction.PROTECT, LOCAL, REMOTE, tunnel=TUNNEL)
    client.commit()

    send_out(machine, 5)

    numbers = [machine.peer.take(50)[24:28] for _ in range(3)]
    assert numbers == [number.to_bytes(4) for number in (1, 2, 3)]
    event = client.next_event()
    assert isinstance(event, p.SaEvent)
    assert (event.event.cookie, event.spi) == (OUT, 0x2001)
    assert event.event.kinds & EventKind.RESERVE
    client.await_drops({DropReason.SEQUENCE_OVERFLOW: 2})

    client.ask(p.MessageType.SA_RESERVE, p.SaReserve(cookie=OUT, sequence_limit=100))
    machine.sockets.pop().close()
    send_out(machine)
    assert machine.peer.take(50)[24:28] == (4).to_bytes(4)
    assert client.read_sa(OUT).sequence_limit == 100


# --- whom it listens to ---------------------------------------------------------------------------


def test_packets_go_on_without_an_agent_and_the_next_one_finds_everything(
    machine: Machine, client: Client
) -> None:
    open_tun(client)
    open_raw(client)
    out, into = outbound(), inbound()
    load_pair(client, out, into)
    life = bytes(client.hello().life)
    opened_by = opener(out)
    client.close()

    send_out(machine)
    assert open_outer(opened_by, machine.peer.take(50)).endswith(b"packet 0")

    machine.client = machine.connect()
    said = machine.client.hello()
    assert (bytes(said.life), said.workers, said.sas) == (life, 1, 2)
    assert [(sa.cookie, sa.usage.sequence) for sa in machine.client.list_sas()] == [(OUT, 1), (IN, 0)]
    machine.client.configure()


def test_a_tunnel_device_that_is_set_again_stays(client: Client) -> None:
    open_tun(client)
    before = socket.if_nametoindex("tunnel")

    message = p.Device(
        device=TUN,
        name=b"tunnel",
        flags=p.DeviceFlag.CLEAR | p.DeviceFlag.SLOW_PATH | p.DeviceFlag.OFFLOAD,
        mtu=1400,
        queues=1,
    )
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.TUN
    message.address4[:] = bytes((10, 1, 0, 1))
    message.address6[:] = bytes.fromhex("fd000001" + "0" * 22 + "01")
    reply = client.set_device(message)

    assert reply.ifindex == before == socket.if_nametoindex("tunnel")
    assert (reply.receive_method, reply.send_method) == (p.IoKind.TUN, p.IoKind.TUN)


def test_who_says_hello_last_is_the_agent(machine: Machine, client: Client) -> None:
    successor = machine.connect()
    with pytest.raises(p.EspdRefused) as refused:
        successor.commit()
    assert refused.value.code is p.ControlError.ORDER
    client.commit()

    successor.hello()

    assert client.is_closed_by_espd()
    successor.commit()
    successor.close()


def test_what_was_not_committed_is_forgotten_with_the_connection(machine: Machine, client: Client) -> None:
    open_tun(client)
    client.set_policy(POLICY, p.PolicyAction.DISCARD, LOCAL, REMOTE)
    client.commit()
    client.set_policy(POLICY, p.PolicyAction.BYPASS, LOCAL, REMOTE)
    client.set_policy(POLICY + 1, p.PolicyAction.BYPASS, LOCAL, REMOTE, order=1)
    client.close()
    machine.client = machine.connect()
    machine.client.hello()
    machine.client.commit()

    send_out(machine)
    with pytest.raises(p.EspdRefused) as refused:
        machine.client.ask(p.MessageType.POLICY_REMOVE, p.PolicyName(policy=POLICY + 1))

    assert refused.value.code is p.ControlError.NO_ENTRY
    machine.client.await_drops({DropReason.POLICY_DISCARD: 1})


def test_no_second_espd_takes_the_socket(machine: Machine, sanitized: Path) -> None:
    second = subprocess.run(
        [sanitized, "--socket", machine.path], capture_output=True, text=True, check=False, timeout=60
    )

    assert second.returncode == 1
    assert "another espd listens there" in second.stderr
    machine.client.hello()


def test_it_ends_when_it_is_told_to(machine: Machine, client: Client) -> None:
    open_tun(client)
    load_pair(client, outbound(), inbound())

    client.ask(p.MessageType.SHUT_DOWN, p.Plain())

    assert machine.wait() == 0
    with pytest.raises(OSError, match="no interface with this name"):
        socket.if_nametoindex("tunnel")


def test_messages_have_the_size_that_fits_a_socket() -> None:
    assert max(ctypes.sizeof(record) for record in p.REQUESTS.values()) < 1 << 16
    assert ctypes.sizeof(configuration()) == 184
    assert ctypes.sizeof(policy_message(1, p.PolicyAction.DISCARD, LOCAL, REMOTE)) == 2608
