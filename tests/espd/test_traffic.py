"""Packets through espd, sealed and opened by the peer with `gateway.esp`."""

from itertools import product

import pytest

from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import UdpEncapsulation
from tests.espd.machine import (
    IN,
    INNER,
    OUT,
    PORT,
    Machine,
    inbound,
    load_pair,
    open_outer,
    open_packet,
    open_raw,
    open_tun,
    opener,
    outbound,
    sealer,
)
from tests.unit.esp.samples import ip_packet

ENCAPSULATION = UdpEncapsulation(source_port=4500, destination_port=4500)
OUTSIDES = {"raw": open_raw, "packet": open_packet}
SHAPES = [
    pytest.param(inner, outer, udp, id=f"v{inner}-in-v{outer}{'-udp' if udp else ''}")
    for inner, outer, udp in product((4, 6), (4, 6), (None, ENCAPSULATION))
]


def udp(payload: bytes, port: int = PORT) -> bytes:
    """Return a UDP datagram without a checksum, which only IPv4 allows, or with its own."""
    return port.to_bytes(2) * 2 + (8 + len(payload)).to_bytes(2) + b"\0\0" + payload


@pytest.mark.parametrize("outside", OUTSIDES)
@pytest.mark.parametrize(("inner", "outer", "encapsulation"), SHAPES)
def test_packets_go_through_both_ways(
    machine: Machine, outside: str, inner: int, outer: int, encapsulation: UdpEncapsulation | None
) -> None:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    OUTSIDES[outside](client)
    out, into = outbound(outer, encapsulation=encapsulation), inbound(outer, encapsulation=encapsulation)
    load_pair(client, out, into)
    program = machine.program(inner)

    # Out: what the program says arrives at the peer, sealed.
    program.sendto(b"to the peer", (INNER[inner][1], PORT))
    protocol = 17 if encapsulation else 50
    packet = open_outer(opener(out), machine.peer.take(protocol))
    assert packet.endswith(b"to the peer")

    # In: the answer, addresses and ports turned round, arrives at the program.
    version = packet[0] >> 4
    ends = 12 if version == 4 else 8
    size = 4 if version == 4 else 16
    answer = packet[:ends] + packet[ends + size : ends + 2 * size] + packet[ends : ends + size]
    machine.peer.put(sealer(into).seal(answer + packet[ends + 2 * size :], 0.0))
    assert program.recvfrom(100)[0] == b"to the peer"

    counters = client.counters()
    assert (counters.sealed, counters.opened, counters.slow_path) == (1, 1, 1)
    assert client.read_sa(OUT).usage.packets == client.read_sa(IN).usage.packets == 1


def test_what_is_wrong_is_dropped_and_counted(machine: Machine) -> None:
    client = machine.client
    client.hello()
    client.configure()
    open_tun(client)
    open_raw(client)
    out, into = outbound(), inbound()
    load_pair(client, out, into)
    program = machine.program()
    seals = sealer(into)
    # The last word has the checksum of no UDP: of IPv4 that is allowed.
    inner = ip_packet(4, udp(b"good"), protocol=17, addresses={4: INNER[4][::-1]})
    first = seals.seal(inner, 0.0)
    forged = bytearray(seals.seal(inner, 0.0))
    forged[-1] ^= 1
    strange = bytearray(seals.seal(inner, 0.0))
    strange[20:24] = (0x1002).to_bytes(4)
    elsewhere = seals.seal(
        ip_packet(4, udp(b"x"), protocol=17, addresses={4: ("10.3.0.1", INNER[4][0])}), 0.0
    )

    for packet in (first, first, bytes(forged), bytes(strange), elsewhere, seals.seal(inner, 0.0)):
        machine.peer.put(packet)

    assert [program.recv(100), program.recv(100)] == [b"good", b"good"]
    client.await_drops(
        {
            DropReason.REPLAY: 1,
            DropReason.INTEGRITY: 1,
            DropReason.UNKNOWN_SPI: 1,
            DropReason.SELECTOR_MISMATCH: 1,
        }
    )
    event = client.next_event()
    assert (event.spi, event.protocol) == (0x1002, 50)
