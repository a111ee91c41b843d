"""Protected packets that come in fragments (RFC 8200 §4.5): put together before they are opened."""

from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Raw

from gateway.esp.packet import PROTOCOL_FRAGMENT
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import SecurityAssociation, UdpEncapsulation
from tests.espd.machine import INNER, PORT, Machine, inbound, load_pair, open_raw, open_tun, outbound, sealer

LONG = bytes(range(250)) * 6
NOT_ECT, ECT, CE = 0, 2, 3
"""ECN fields (RFC 3168 §5)."""


def pieces(
    packet: bytes, cuts: list[int], identification: int = 7, ecns: list[int] | None = None
) -> list[bytes]:
    """Return an IPv6 packet in fragments that begin behind its header and at `cuts`."""
    body, made = packet[40:], []
    ends = [*cuts, len(body)]
    for number, (begin, end) in enumerate(zip([0, *cuts], ends, strict=True)):
        head = bytes((packet[6], 0)) + (begin | (end < len(body))).to_bytes(2, "big")
        head += identification.to_bytes(4, "big")
        traffic_class = ecns[number] if ecns else 0
        first = bytes((0x60, traffic_class << 4)) + packet[2:4]
        length = (len(head) + end - begin).to_bytes(2, "big")
        made.append(first + length + bytes((PROTOCOL_FRAGMENT,)) + packet[7:40] + head + body[begin:end])
    return made


@pytest.fixture
def receiving(machine: Machine) -> SecurityAssociation:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    sa = inbound(6)
    load_pair(client, outbound(6), sa)
    return sa


def datagram(data: bytes = LONG) -> bytes:
    """Return what is for a program of the machine."""
    return bytes(IP(src=INNER[4][1], dst=INNER[4][0]) / UDP(sport=PORT, dport=PORT) / Raw(data))


def sealed(sa: SecurityAssociation) -> bytes:
    """Return what the peer sends: a datagram to a program of the machine."""
    return sealer(sa).seal(datagram(), 0.0)


@pytest.mark.parametrize(
    "order",
    [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]],
    ids=lambda order: "".join(map(str, order)),
)
def test_fragments_in_any_order_are_one_packet(
    machine: Machine, receiving: SecurityAssociation, order: list[int]
) -> None:
    program = machine.program()
    cut = pieces(sealed(receiving), [640, 1200])

    for number in order:
        machine.peer.put(cut[number])

    assert program.recv(4096) == LONG
    machine.client.await_drops({})


def test_one_that_is_whole_in_one_fragment_is_taken(machine: Machine, receiving: SecurityAssociation) -> None:
    """An atomic fragment (RFC 6946)."""
    program = machine.program()
    (piece,) = pieces(sealer(receiving).seal(datagram(b"whole"), 0.0), [])

    machine.peer.put(piece)

    assert program.recv(4096) == b"whole"


def test_several_at_once_do_not_mix(machine: Machine, receiving: SecurityAssociation) -> None:
    program = machine.program()
    core = sealer(receiving)
    inner = datagram()
    cut = [pieces(core.seal(inner, 0.0), [800], identification=number) for number in range(5)]

    for first, _ in cut:
        machine.peer.put(first)
    for _, last in cut:
        machine.peer.put(last)

    for _ in range(5):
        assert program.recv(4096) == LONG
    machine.client.await_drops({})


def shifted(piece: bytes, by: int) -> bytes:
    """Return a fragment that says it is of another place."""
    at = int.from_bytes(piece[42:44], "big") + by
    return piece[:42] + at.to_bytes(2, "big") + piece[44:]


REFUSED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "overlap": lambda cut: [cut[0], shifted(cut[1], -8)],
    "the same twice": lambda cut: [cut[0], cut[0]],
    "two ends": lambda cut: [cut[2], shifted(cut[2], 8)],
    "behind the end": lambda cut: [shifted(cut[1], 8192), cut[2]],
    "a middle of no whole units": lambda cut: [
        cut[1][:-1][:4] + (len(cut[1]) - 41).to_bytes(2, "big") + cut[1][6:-1]
    ],
    "too long": lambda cut: [shifted(cut[1], 30000)],
}


@pytest.mark.parametrize("case", REFUSED)
def test_fragments_that_contradict_each_other_are_dropped(
    machine: Machine, receiving: SecurityAssociation, case: str
) -> None:
    cut = pieces(sealed(receiving), [640, 1200])

    for piece in REFUSED[case](cut):
        machine.peer.put(piece)

    machine.client.await_drops({DropReason.FRAGMENT: 1})


def test_congestion_that_one_fragment_met_is_told_and_contradictions_are_dropped(
    machine: Machine, receiving: SecurityAssociation
) -> None:
    """RFC 3168 §5.3: the fields of all fragments count together."""
    for piece in pieces(sealed(receiving), [640], ecns=[NOT_ECT, CE]):
        machine.peer.put(piece)
    machine.client.await_drops({DropReason.FRAGMENT: 1})


def test_more_than_there_is_room_for_make_the_oldest_go(
    machine: Machine, receiving: SecurityAssociation
) -> None:
    program = machine.program()
    core = sealer(receiving)
    inner = datagram()
    cut = [pieces(core.seal(inner, 0.0), [800], identification=number) for number in range(17)]

    for first, _ in cut:
        machine.peer.put(first)
    for _, last in cut[1:]:
        machine.peer.put(last)

    for _ in range(16):
        assert program.recv(4096) == LONG
    machine.client.await_drops({DropReason.FRAGMENT: 1})


def test_esp_in_udp_may_be_in_fragments(machine: Machine) -> None:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    ports = UdpEncapsulation(source_port=4500, destination_port=4500)
    sa = inbound(6, encapsulation=ports)
    load_pair(client, outbound(6, encapsulation=ports), sa)
    program = machine.program()

    for piece in pieces(sealed(sa), [640]):
        machine.peer.put(piece)

    assert program.recv(4096) == LONG


def test_those_of_ipv4_are_put_together_by_the_kernel(machine: Machine) -> None:
    """Also where the same frames are on their way out of another device of this machine."""
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    sa = inbound()
    load_pair(client, outbound(), sa)
    program = machine.program()
    packet = IP(sealer(sa).seal(datagram(), 0.0))
    packet.flags = 0
    del packet.chksum

    for piece in fragment(packet, 800):
        machine.peer.put(bytes(piece))

    assert program.recv(4096) == LONG
    client.await_drops({})
