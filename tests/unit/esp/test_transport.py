"""Transport mode: where ESP goes, what comes back, NAT and checksums (RFC 4303 §3.1.1, RFC 3948 §3.1.2)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

from gateway.esp.errors import PacketDropped
from gateway.esp.inbound import parse_outer
from gateway.esp.transport import fix_transport_checksum, split, with_payload
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Mode
from tests.unit.esp.samples import ENCAPSULATION, OUTER, inbound, ip_packet, outbound, outer_header, selectors

V4 = {"src": OUTER[4][0], "dst": OUTER[4][1]}
V6 = {"src": OUTER[6][0], "dst": OUTER[6][1]}


def drop_of(action: Any, *args: Any) -> DropReason:
    with pytest.raises(PacketDropped) as dropped:
        action(*args)
    return dropped.value.reason


@pytest.mark.parametrize(
    ("before", "after", "outside"),
    [
        ([], [], []),
        ([IPv6ExtHdrHopByHop], [], [0]),
        ([IPv6ExtHdrRouting], [], [43]),
        ([], [IPv6ExtHdrDestOpt], []),
        ([IPv6ExtHdrHopByHop], [IPv6ExtHdrDestOpt], [0]),
        ([IPv6ExtHdrDestOpt, IPv6ExtHdrRouting], [], [60, 43]),
        ([IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting], [IPv6ExtHdrDestOpt], [0, 60, 43]),
    ],
)
def test_esp_goes_after_the_headers_that_routers_read(before: Any, after: Any, outside: list[int]) -> None:
    headers = IPv6(**V6)
    for header in before + after:
        headers /= header()
    packet = bytes(headers / UDP(sport=1, dport=2) / Raw(b"data"))

    header, next_header, payload = split(packet)

    assert header + payload == packet
    assert len(header) == 40 + 8 * len(before)
    assert next_header == (60 if after else 17)
    found, at = [], 6
    for n in range(len(before)):
        found.append(header[at])
        at = 40 + 8 * n
    assert found == outside


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (IP(**V4, flags="MF") / UDP(), DropReason.FRAGMENT),
        (IP(**V4, frag=3) / Raw(bytes(8)), DropReason.FRAGMENT),
        (IPv6(**V6) / IPv6ExtHdrFragment(m=1) / UDP(), DropReason.FRAGMENT),
        (IPv6(**V6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(m=1) / UDP(), DropReason.FRAGMENT),
        (IPv6(**V6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1) / UDP(), DropReason.FRAGMENT),
        (IPv6(**V6, nh=0), DropReason.MALFORMED),
        (IPv6(**V6, nh=60) / Raw(bytes((17, 9, 0, 0, 0, 0, 0, 0))), DropReason.MALFORMED),
        (Raw(b"\x4f" + bytes(30)), DropReason.MALFORMED),
        (Raw(b"\x45" + bytes(18)), DropReason.MALFORMED),
        (Raw(b"\x60" + bytes(38)), DropReason.MALFORMED),
        (Raw(b"\x50" + bytes(60)), DropReason.MALFORMED),
        (Raw(b""), DropReason.MALFORMED),
    ],
)
def test_fragments_and_nonsense_are_dropped_outbound(packet: Any, reason: DropReason) -> None:
    assert drop_of(split, bytes(packet)) is reason


def test_packet_of_the_other_family_is_dropped() -> None:
    assert drop_of(outbound(mode=Mode.TRANSPORT).seal, ip_packet(6), 0.0) is DropReason.MODE_MISMATCH


def test_the_ip_header_stays_as_it_is() -> None:
    packet = bytes(IP(**V4, tos=0xB9, id=77, flags="DF", ttl=3, proto=253) / Raw(b"data"))

    sealed = outbound(mode=Mode.TRANSPORT).seal(packet, 0.0)
    told = outbound(mode=Mode.TRANSPORT, copy_dscp=False).seal_payload(packet, 0.0)

    outer = IP(sealed)
    assert (outer.tos, outer.id, str(outer.flags), outer.ttl, outer.proto) == (0xB9, 77, "DF", 3, 50)
    assert (told.tos, told.is_df, told.ttl) == (0xB9, True, 3)


def test_seal_payload_drops_what_the_kernel_would_lose() -> None:
    options = bytes(IP(**V4, options=b"\x94\x04\0\0") / UDP())
    extension = bytes(IPv6(**V6) / IPv6ExtHdrHopByHop() / UDP())

    assert drop_of(outbound(mode=Mode.TRANSPORT).seal_payload, options, 0.0) is DropReason.UNSUPPORTED
    sender = outbound(mode=Mode.TRANSPORT, outer=6)
    assert drop_of(sender.seal_payload, extension, 0.0) is DropReason.UNSUPPORTED
    assert sender.usage.drops == {DropReason.UNSUPPORTED: 1}


@pytest.mark.parametrize("version", [4, 6])
def test_without_the_outer_header_one_is_made(version: int) -> None:
    packet = ip_packet(version, b"data", tos=0x23, ttl=9, addresses=OUTER)
    sealed = outbound(mode=Mode.TRANSPORT, outer=version).seal_payload(packet, 0.0)

    facts = outer_header(version, tos=0x23, ttl=9)

    assert inbound(mode=Mode.TRANSPORT, outer=version).open(sealed.payload, facts, 0.0).packet == packet


def test_selectors_see_the_rebuilt_packet() -> None:
    http_only = {"local_ts": selectors("192.0.2.2[tcp/80]"), "remote_ts": selectors("192.0.2.1[tcp]")}
    sender, receiver = outbound(mode=Mode.TRANSPORT), inbound(mode=Mode.TRANSPORT, **http_only)
    web, other = (bytes(IP(**V4) / TCP(sport=1000, dport=port)) for port in (80, 81))

    def pass_on(packet: bytes) -> bytes:
        header, esp = parse_outer(sender.seal(packet, 0.0))
        return receiver.open(esp, header, 0.0).packet

    assert pass_on(web) == web
    assert drop_of(pass_on, other) is DropReason.SELECTOR_MISMATCH


# --- NAT ------------------------------------------------------------------------------------------


def through_nat(packet: Any, version: int) -> bytes:
    """Send a packet through transport mode in UDP and a NAT that changes the source; return what arrives."""
    sender = outbound(mode=Mode.TRANSPORT, outer=version, encapsulation=ENCAPSULATION)
    receiver = inbound(mode=Mode.TRANSPORT, outer=version, encapsulation=ENCAPSULATION)
    sealed = (IP if version == 4 else IPv6)(sender.seal(bytes(packet), 0.0))
    sealed.src = "198.51.100.9" if version == 4 else "2001:db8:99::9"
    sealed[UDP].sport = 31000
    if version == 4:
        del sealed.chksum
    header, esp = parse_outer(bytes(sealed))
    return receiver.open(esp, header, 0.0).packet


def recomputed(packet: bytes, version: int) -> bytes:
    """Return the packet with every checksum as scapy computes it."""
    parsed = (IP if version == 4 else IPv6)(packet)
    del parsed[TCP if TCP in parsed else UDP].chksum
    if version == 4:
        del parsed.chksum
    return bytes(parsed)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("layer", [TCP, UDP])
@pytest.mark.parametrize("size", [0, 1, 2, 100, 101])
def test_tcp_and_udp_checksums_are_right_behind_a_nat(version: int, layer: Any, size: int) -> None:
    ip = IP(**V4) if version == 4 else IPv6(**V6)
    packet = ip / layer(sport=1000, dport=2000) / Raw(bytes(range(size)))

    arrived = through_nat(packet, version)

    assert arrived == recomputed(arrived, version)
    assert arrived[len(arrived) - size :] == bytes(range(size))


def test_udp_without_checksum_stays_without() -> None:
    arrived = through_nat(IP(**V4) / UDP(sport=1000, dport=2000, chksum=0) / Raw(b"data"), 4)

    assert arrived[26:28] == b"\0\0"


@pytest.mark.parametrize("version", [4, 6])
def test_udp_checksum_that_comes_to_zero_is_all_ones(version: int) -> None:
    ip = IP(**V4) if version == 4 else IPv6(**V6)
    offset = 20 if version == 4 else 40
    zeros = bytes(ip / UDP(sport=1, dport=2) / Raw(bytes(2)))
    checksum = zeros[offset + 6 : offset + 8]
    packet = zeros[:-2] + checksum

    fixed = fix_transport_checksum(packet, 17, offset)

    assert fixed[offset + 6 : offset + 8] == b"\xff\xff"


def test_other_protocols_are_left_alone_behind_a_nat() -> None:
    arrived = through_nat(IP(**V4, proto=132) / Raw(bytes(range(40))), 4)

    assert arrived[20:] == bytes(range(40))


def test_truncated_tcp_header_is_left_to_the_selector_check() -> None:
    short = ip_packet(4, bytes(17), protocol=6)

    assert fix_transport_checksum(short, 6, 20) == short


@pytest.mark.parametrize("version", [4, 6])
def test_lengths_that_do_not_fit_are_dropped(version: int) -> None:
    header = ip_packet(version)

    assert drop_of(with_payload, header, 17, bytes(65536)) is DropReason.TOO_BIG


def test_broken_extension_header_of_the_outer_packet_is_dropped() -> None:
    header = bytes(IPv6(**V6, nh=0)) + bytes((50, 1, 0, 0, 0, 0, 0, 0))

    assert drop_of(with_payload, header, 17, b"") is DropReason.MALFORMED
    assert drop_of(with_payload, header[:44], 17, b"") is DropReason.MALFORMED


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45", b"\x60"]))
def test_any_bytes_are_split_or_dropped(packet: bytes, start: bytes) -> None:
    try:
        header, protocol, payload = split(start + packet)
    except PacketDropped:
        return
    assert header + payload == start + packet
    assert 0 <= protocol <= 255
