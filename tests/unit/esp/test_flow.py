"""Selectors of a packet and what they match (RFC 4301 §4.4.1.1, §5.2, §7)."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from gateway.esp.errors import PacketDropped
from gateway.esp.flow import Flow, SelectorSet, parse_flow
from gateway.ipsec.drop_reason import DropReason
from tests.unit.esp.samples import INNER, ip_packet, selectors

V4 = {"src": INNER[4][0], "dst": INNER[4][1]}
V6 = {"src": INNER[6][0], "dst": INNER[6][1]}
MOBILITY_BINDING_UPDATE = bytes((59, 0, 5, 0, 0, 0, 0, 0))


def ports(packet: Any) -> tuple[int | None, int | None, int | None]:
    flow = parse_flow(bytes(packet))
    return flow.protocol, flow.source_port, flow.destination_port


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (IP(**V4) / TCP(sport=1000, dport=443), (6, 1000, 443)),
        (IP(**V4) / UDP(sport=65535, dport=53), (17, 65535, 53)),
        (IP(**V4) / SCTP(sport=7, dport=9), (132, 7, 9)),
        (IP(**V4, proto=33) / Raw(b"\x00\x07\x00\x09"), (33, 7, 9)),
        (IP(**V4, proto=136) / Raw(b"\x00\x07\x00\x09"), (136, 7, 9)),
        (IP(**V4, proto=47) / Raw(b"\x00\x07\x00\x09"), (47, None, None)),
        (IP(**V4) / ICMP(type=3, code=4), (1, 0x0304, 0x0304)),
        (IP(**V4, options=b"\x94\x04\0\0") / UDP(sport=1, dport=2), (17, 1, 2)),
        (IPv6(**V6) / TCP(sport=1000, dport=443), (6, 1000, 443)),
        (IPv6(**V6) / ICMPv6EchoRequest(), (58, 0x8000, 0x8000)),
        (IPv6(**V6) / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2), (17, 1, 2)),
        (IPv6(**V6) / IPv6ExtHdrRouting(addresses=["::1"]) / UDP(sport=1, dport=2), (17, 1, 2)),
        (
            IPv6(**V6)
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / UDP(sport=1, dport=2),
            (17, 1, 2),
        ),
        # For the SPD, AH is a next layer protocol and not an extension header.
        (IPv6(**V6) / AH(nh=17, icv=bytes(12), payloadlen=4) / UDP(sport=1, dport=2), (51, None, None)),
        (IPv6(**V6, nh=135) / Raw(MOBILITY_BINDING_UPDATE), (135, 0x0500, 0x0500)),
        (IPv6(**V6, nh=59), (59, None, None)),
        (IPv6(**V6, nh=50) / Raw(bytes(20)), (50, None, None)),
        (IPv6(**V6) / IPv6ExtHdrFragment(offset=0, m=0) / UDP(sport=1, dport=2), (17, 1, 2)),
    ],
    ids=lambda value: value.summary()[:60] if hasattr(value, "summary") else "",
)
def test_parse_flow_finds_protocol_and_ports(packet: Any, expected: tuple[int | None, ...]) -> None:
    assert ports(packet) == expected


def test_parse_flow_finds_addresses_and_offsets() -> None:
    flow = parse_flow(bytes(IPv6(**V6) / IPv6ExtHdrHopByHop() / UDP()))

    assert flow.source_address == ip_address(INNER[6][0])
    assert flow.destination_address == ip_address(INNER[6][1])
    assert (flow.version, flow.transport_offset) == (6, 48)
    assert not flow.is_fragment
    assert flow.is_first_fragment


@pytest.mark.parametrize(
    ("packet", "protocol", "has_ports", "is_first"),
    [
        (IP(**V4, flags="MF") / UDP(sport=1, dport=2), 17, True, True),
        (IP(**V4, frag=1, flags="MF", proto=17) / Raw(bytes(8)), 17, False, False),
        (IP(**V4, frag=1, proto=17) / Raw(bytes(8)), 17, False, False),
        (IPv6(**V6) / IPv6ExtHdrFragment(m=1) / UDP(sport=1, dport=2), 17, True, True),
        (IPv6(**V6) / IPv6ExtHdrFragment(offset=1, nh=17) / Raw(bytes(8)), 17, False, False),
        # What follows is not known: the fragmentable part begins with another extension header.
        (IPv6(**V6) / IPv6ExtHdrFragment(offset=1, nh=60) / Raw(bytes(8)), None, False, False),
    ],
)
def test_parse_flow_of_fragments(packet: Any, protocol: int | None, has_ports: bool, is_first: bool) -> None:
    flow = parse_flow(bytes(packet))

    assert flow.is_fragment
    assert (flow.protocol, flow.is_first_fragment) == (protocol, is_first)
    assert (flow.source_port is not None, flow.destination_port is not None) == (has_ports, has_ports)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", DropReason.MALFORMED),
        (b"\x00" * 40, DropReason.MALFORMED),
        (b"\x45" + bytes(18), DropReason.MALFORMED),
        (b"\x44" + bytes(40), DropReason.MALFORMED),
        (b"\x4f" + bytes(40), DropReason.MALFORMED),
        (b"\x60" + bytes(38), DropReason.MALFORMED),
        (bytes(IPv6(**V6, nh=0)), DropReason.MALFORMED),
        (bytes(IPv6(**V6, nh=60) / Raw(bytes(7))), DropReason.MALFORMED),
        (bytes(IPv6(**V6, nh=60) / Raw(bytes((17, 200)) + bytes(6))), DropReason.MALFORMED),
        (bytes(IP(**V4, proto=6) / Raw(bytes(3))), DropReason.MALFORMED),
        (bytes(IP(**V4, proto=1) / Raw(bytes(1))), DropReason.MALFORMED),
        (bytes(IP(**V4, proto=6, flags="MF") / Raw(bytes(3))), DropReason.FRAGMENT),
        (bytes(IPv6(**V6) / IPv6ExtHdrFragment(m=1, nh=6) / Raw(bytes(3))), DropReason.FRAGMENT),
        (bytes(IPv6(**V6, nh=60) / Raw(bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 11)), DropReason.UNSUPPORTED),
    ],
)
def test_parse_flow_drops_what_it_cannot_read(packet: bytes, reason: DropReason) -> None:
    with pytest.raises(PacketDropped) as dropped:
        parse_flow(packet)

    assert dropped.value.reason is reason


def test_an_atomic_fragment_is_a_whole_packet() -> None:
    # RFC 6946
    flow = parse_flow(bytes(IPv6(**V6) / IPv6ExtHdrFragment(offset=0, m=0) / UDP(sport=1, dport=2)))

    assert not flow.is_fragment
    assert flow.is_first_fragment


@given(st.sampled_from([b"", b"\x45", b"\x46", b"\x60"]), st.binary(max_size=150))
def test_any_bytes_are_parsed_or_dropped(start: bytes, packet: bytes) -> None:
    try:
        flow = parse_flow(start + packet)
    except PacketDropped:
        return
    assert flow.version in {4, 6}


# --- matching -------------------------------------------------------------------------------------


def flow_of(packet: Any) -> Flow:
    return parse_flow(bytes(packet))


TCP_443 = flow_of(IP(**V4) / TCP(sport=1000, dport=443))
LATER_FRAGMENT = flow_of(IP(**V4, frag=5, proto=6) / Raw(bytes(8)))
FIRST_FRAGMENT = flow_of(IP(**V4, flags="MF") / TCP(sport=1000, dport=443))
ECHO_REQUEST = flow_of(IP(**V4) / ICMP(type=8, code=0))
ECHO_REPLY = flow_of(IP(**V4) / ICMP(type=0, code=0))
GRE = flow_of(IP(**V4, proto=47) / Raw(bytes(8)))
HIDDEN = flow_of(IPv6(**V6) / IPv6ExtHdrFragment(offset=1, nh=60) / Raw(bytes(8)))


@pytest.mark.parametrize(
    ("local", "remote", "flow", "expected"),
    [
        ("10.1.0.0/16", "10.2.0.0/16", TCP_443, True),
        ("10.2.0.0/16", "10.1.0.0/16", TCP_443, False),
        ("10.1.0.1", "10.2.0.1", TCP_443, True),
        ("10.1.0.2-10.1.0.9", "0.0.0.0/0", TCP_443, False),
        ("::/0", "::/0", TCP_443, False),
        ("10.1.0.0/16[tcp]", "10.2.0.0/16[tcp/443]", TCP_443, True),
        ("10.1.0.0/16[tcp/443]", "10.2.0.0/16[tcp]", TCP_443, False),
        ("10.1.0.0/16[tcp/1000-2000]", "10.2.0.0/16[tcp/400-500]", TCP_443, True),
        ("10.1.0.0/16[udp]", "10.2.0.0/16", TCP_443, False),
        ("10.1.0.0/16[icmp]", "10.2.0.0/16[icmp]", TCP_443, False),
        ("10.1.0.0/16[tcp]", "10.2.0.0/16[tcp/443]", FIRST_FRAGMENT, True),
        # Only ANY and OPAQUE fit a fragment that shows no ports (RFC 4301 §4.4.1.1, §7.2).
        ("10.1.0.0/16[tcp]", "10.2.0.0/16[tcp/443]", LATER_FRAGMENT, False),
        ("10.1.0.0/16[tcp]", "10.2.0.0/16[tcp]", LATER_FRAGMENT, True),
        ("10.1.0.0/16[tcp/opaque]", "10.2.0.0/16[tcp/opaque]", LATER_FRAGMENT, True),
        ("10.1.0.0/16[tcp/opaque]", "10.2.0.0/16[tcp/opaque]", FIRST_FRAGMENT, False),
        ("10.1.0.0/16[icmp/8]", "10.2.0.0/16[icmp/8]", ECHO_REQUEST, True),
        ("10.1.0.0/16[icmp/8]", "10.2.0.0/16[icmp]", ECHO_REQUEST, True),
        ("10.1.0.0/16[icmp/8]", "10.2.0.0/16[icmp]", ECHO_REPLY, False),
        ("10.1.0.0/16[gre]", "10.2.0.0/16[gre]", GRE, True),
        ("::/0", "::/0", HIDDEN, True),
        ("::/0[udp]", "::/0[udp]", HIDDEN, False),
    ],
)
def test_selectors_permit_outbound(local: str, remote: str, flow: Flow, expected: bool) -> None:
    chosen = SelectorSet(selectors(local), selectors(remote))

    assert chosen.permits_outbound(flow) is expected
    # The same packet coming in, with the sides exchanged.
    assert SelectorSet(selectors(remote), selectors(local)).permits_inbound(flow) is expected


def test_any_pair_of_a_list_of_selectors_matches() -> None:
    chosen = SelectorSet(selectors("192.0.2.0/24", "10.1.0.0/16"), selectors("::/0", "10.2.0.0/16"))

    assert chosen.permits_outbound(TCP_443)
    assert not chosen.permits_inbound(TCP_443)


def test_no_selectors_permit_nothing() -> None:
    chosen = SelectorSet((), ())

    assert not chosen.permits_outbound(TCP_443)
    assert not chosen.permits_inbound(TCP_443)


def test_ranges_end_where_they_say() -> None:
    chosen = SelectorSet(selectors("10.1.0.1-10.1.0.3"), selectors("0.0.0.0/0"))

    def permitted(source: str) -> bool:
        return chosen.permits_outbound(parse_flow(ip_packet(4, addresses={4: (source, INNER[4][1])})))

    assert [permitted(f"10.1.0.{n}") for n in range(5)] == [False, True, True, True, False]
