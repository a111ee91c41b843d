"""Overhead, effective MTU and MSS clamping, measured against what is really sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.packet import Raw

from gateway.esp.mtu import clamp_mss, effective_mtu, max_overhead, tcp_mss
from gateway.ipsec.sa import Direction, Mode
from tests.unit.esp.samples import (
    BY_NAME,
    ENCAPSULATION,
    INNER,
    OUTER,
    SUITES,
    Suite,
    association,
    ip_packet,
    outbound,
)


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize(
    ("mode", "outer"), [(Mode.TUNNEL, 4), (Mode.TUNNEL, 6), (Mode.TRANSPORT, 4), (Mode.TRANSPORT, 6)]
)
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_effective_mtu_is_the_largest_packet_that_fits(
    suite: Suite, mode: Mode, outer: int, udp: bool
) -> None:
    changes: dict[str, Any] = {"mode": mode, "outer": outer, "encapsulation": ENCAPSULATION if udp else None}
    sender = outbound(suite, **changes)
    overhead = max_overhead(sender.sa)
    header = 20 if outer == 4 else 40
    for path_mtu in range(576, 576 + 17):
        fits = sender.effective_mtu(path_mtu)

        def outer_length(size: int) -> int:
            addresses = INNER if mode is Mode.TUNNEL else OUTER
            return len(sender.seal(ip_packet(outer, bytes(size - header), addresses=addresses), 0.0))

        assert outer_length(fits) <= path_mtu < outer_length(fits + 1)
        assert outer_length(fits) - fits <= overhead
        assert path_mtu - fits <= overhead


@pytest.mark.parametrize(
    ("suite", "changes", "expected"),
    [
        # 1500 - 20 (IPv4) - 8 (ESP) - 8 (IV) - 16 (ICV) = 1448, less the trailer of 2.
        ("aes256gcm16", {}, 1446),
        ("aes256gcm16", {"encapsulation": ENCAPSULATION}, 1438),
        ("aes256gcm16", {"outer": 6}, 1426),
        ("aes256gcm16", {"mode": Mode.TRANSPORT}, 1466),
        # 1500 - 20 - 8 - 16 - 16 = 1440 = 90 blocks, less the trailer of 2.
        ("aes256-sha256", {}, 1438),
        # 1500 - 20 - 8 - 16 - 32 = 1424 = 89 blocks.
        ("aes256-sha512", {}, 1422),
    ],
)
def test_effective_mtu_of_ethernet(suite: str, changes: dict[str, Any], expected: int) -> None:
    assert effective_mtu(association(Direction.OUTBOUND, BY_NAME[suite], **changes), 1500) == expected


@pytest.mark.parametrize("path_mtu", [0, 20, 53, 54])
def test_nothing_fits_a_tiny_path(path_mtu: int) -> None:
    assert effective_mtu(association(Direction.OUTBOUND), path_mtu) == 0


def test_tcp_mss_leaves_room_for_the_headers() -> None:
    assert tcp_mss(1446, 4) == 1406
    assert tcp_mss(1426, 6) == 1366
    assert tcp_mss(10, 4) == 1


# --- clamping -------------------------------------------------------------------------------------

V4 = {"src": INNER[4][0], "dst": INNER[4][1]}
V6 = {"src": INNER[6][0], "dst": INNER[6][1]}


def syn(ip: Any, options: list[Any], flags: str = "S", data: bytes = b"") -> bytes:
    return bytes(ip / TCP(sport=1000, dport=80, flags=flags, options=options) / Raw(data))


def with_right_checksum(packet: bytes) -> bytes:
    parsed = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    del parsed[TCP].chksum
    return bytes(parsed)


OPTIONS = [
    pytest.param([("MSS", 1460)], id="alone"),
    pytest.param([("NOP", None), ("MSS", 1460), ("NOP", None)], id="at an odd offset"),
    pytest.param([("SAckOK", b""), ("Timestamp", (1, 0)), ("MSS", 1460)], id="last"),
    pytest.param([("NOP", None), ("NOP", None), ("NOP", None), ("MSS", 0xFFFF), ("WScale", 7)], id="huge"),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize("data", [b"", b"odd"])
@pytest.mark.parametrize(
    "ip",
    [
        pytest.param(IP(**V4), id="v4"),
        pytest.param(IP(**V4, options=b"\x94\x04\0\0"), id="v4 with options"),
        pytest.param(IPv6(**V6), id="v6"),
        pytest.param(IPv6(**V6) / IPv6ExtHdrHopByHop(), id="v6 with hop-by-hop"),
    ],
)
def test_mss_is_lowered_and_the_checksum_stays_right(ip: Any, options: Any, flags: str, data: bytes) -> None:
    packet = syn(ip, options, flags, data)

    clamped = clamp_mss(packet, 1300)

    parsed = (IP if packet[0] >> 4 == 4 else IPv6)(clamped)
    assert dict(parsed[TCP].options)["MSS"] == (1260 if packet[0] >> 4 == 4 else 1240)
    assert clamped == with_right_checksum(clamped)
    assert len(clamped) == len(packet)
    assert sum(a != b for a, b in zip(packet, clamped, strict=True)) <= 4


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(syn(IP(**V4), [("MSS", 1260)]), id="small enough"),
        pytest.param(syn(IP(**V4), []), id="no option"),
        pytest.param(syn(IP(**V4), [("MSS", 1460)], "A"), id="not a SYN"),
        pytest.param(bytes(IP(**V4) / UDP() / Raw(bytes(40))), id="UDP"),
        pytest.param(bytes(IPv6(**V6) / UDP() / Raw(bytes(40))), id="UDP over IPv6"),
        pytest.param(syn(IP(**V4, frag=1), [("MSS", 1460)]), id="a later fragment"),
        pytest.param(syn(IP(**V4), [("EOL", None), ("MSS", 1460)]), id="after the end of options"),
        pytest.param(syn(IP(**V4), [("MSS", 1460)])[:43], id="truncated options"),
        pytest.param(syn(IP(**V4), [("MSS", 1460)])[:39], id="truncated header"),
        pytest.param(b"\x60" + bytes(60), id="broken IPv6"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_other_packets_come_back_as_they_are(packet: bytes) -> None:
    assert clamp_mss(packet, 1300) is packet


@pytest.mark.parametrize(
    "option", [b"\x02\x03\x05\xb4", b"\x02\x00\x05\xb4", b"\x05\x01\x02\x04", b"\x01\x01\x01\x02"]
)
def test_broken_options_are_left_alone(option: bytes) -> None:
    packet = bytearray(syn(IP(**V4), [("MSS", 1460)]))
    packet[40:44] = option

    assert clamp_mss(bytes(packet), 1300) == packet


@given(st.binary(max_size=60), st.integers(0, 2000))
def test_any_tcp_options_are_survived(options: bytes, mtu: int) -> None:
    header = bytearray(bytes(TCP(flags="S")))
    header[12] = 0xF0
    for version in (4, 6):
        packet = ip_packet(version, bytes(header) + options, protocol=6)
        assert len(clamp_mss(packet, mtu)) == len(packet)
