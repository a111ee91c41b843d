"""ICMP errors about packets the gateway could not carry, parsed back by scapy."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Raw

from gateway.esp.icmp import TooBig, parse_too_big_about_ah, prohibited, time_exceeded, too_big
from tests.unit.esp.ah_samples import ah_outbound
from tests.unit.esp.samples import INNER, OUTER, SPI, ip_packet

V4 = {"src": INNER[4][0], "dst": INNER[4][1]}
V6 = {"src": INNER[6][0], "dst": INNER[6][1]}
OURS = {4: ip_address("10.1.0.254"), 6: ip_address("2001:db8:1::ff")}


def reparsed(packet: bytes | None) -> Any:
    """Return the packet as scapy reads it, after checking that scapy would have made it the same."""
    assert packet is not None
    parsed = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    again = parsed.copy()
    if IP in again and again.version == 4:
        del again.chksum, again.len, again[ICMP].chksum
    else:
        del again.plen, again.payload.cksum
    assert bytes(again) == packet
    return parsed


@pytest.mark.parametrize("size", [100, 1400])
def test_fragmentation_needed_names_the_mtu_and_quotes_the_packet(size: int) -> None:
    packet = bytes(IP(**V4, flags="DF") / TCP() / Raw(bytes(size)))

    error = reparsed(too_big(packet, 1280, OURS[4]))

    assert (error.src, error.dst, error.tos, error.ttl) == ("10.1.0.254", INNER[4][0], 0xC0, 64)
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, 1280)
    assert bytes(error)[28:] == packet[:548]
    assert len(error) <= 576


@pytest.mark.parametrize(("mtu", "told"), [(1400, 1400), (1280, 1280), (1000, 1280)])
@pytest.mark.parametrize("size", [100, 1401])
def test_packet_too_big_never_asks_for_less_than_1280(size: int, mtu: int, told: int) -> None:
    packet = bytes(IPv6(**V6) / TCP() / Raw(bytes(size)))

    error = reparsed(too_big(packet, mtu, OURS[6]))

    assert (error.src, error.dst) == ("2001:db8:1::ff", INNER[6][0])
    assert (error[ICMPv6PacketTooBig].code, error[ICMPv6PacketTooBig].mtu) == (0, told)
    assert bytes(error)[48:] == packet[:1232]
    assert len(error) <= 1280


def test_time_exceeded() -> None:
    error = reparsed(time_exceeded(bytes(IP(**V4, ttl=1) / UDP()), OURS[4]))
    assert (error[ICMP].type, error[ICMP].code) == (11, 0)

    error = reparsed(time_exceeded(bytes(IPv6(**V6, hlim=1) / UDP()), OURS[6]))
    assert error[ICMPv6TimeExceeded].code == 0


def test_prohibited() -> None:
    error = reparsed(prohibited(bytes(IP(**V4) / UDP()), OURS[4]))
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)

    error = reparsed(prohibited(bytes(IPv6(**V6) / UDP()), OURS[6]))
    assert (error.payload.type, error.payload.code) == (1, 1)


@pytest.mark.parametrize(
    "packet",
    [
        # RFC 1812 §4.3.2.7
        pytest.param(IP(**V4) / ICMP(type=3, code=4) / Raw(bytes(28)), id="ICMP error"),
        pytest.param(IP(**V4) / ICMP(type=11) / Raw(bytes(28)), id="ICMP time exceeded"),
        pytest.param(IP(src=V4["src"], dst="224.0.0.5") / UDP(), id="multicast"),
        pytest.param(IP(src=V4["src"], dst="255.255.255.255") / UDP(), id="broadcast"),
        pytest.param(IP(**V4, frag=2) / Raw(bytes(8)), id="later fragment"),
        pytest.param(IP(src="0.0.0.0", dst=V4["dst"]) / UDP(), id="source unspecified"),
        pytest.param(IP(src="0.1.2.3", dst=V4["dst"]) / UDP(), id="source on net 0"),
        pytest.param(IP(src="127.0.0.1", dst=V4["dst"]) / UDP(), id="source loopback"),
        pytest.param(IP(src="224.0.0.1", dst=V4["dst"]) / UDP(), id="source multicast"),
        pytest.param(IP(src="240.0.0.1", dst=V4["dst"]) / UDP(), id="source class E"),
        # RFC 4443 §2.4 (e)
        pytest.param(IPv6(**V6) / ICMPv6PacketTooBig(), id="ICMPv6 error"),
        pytest.param(IPv6(**V6) / ICMPv6ND_Redirect(), id="ICMPv6 redirect"),
        pytest.param(IPv6(src="::", dst=V6["dst"]) / UDP(), id="IPv6 source unspecified"),
        pytest.param(IPv6(src="ff02::1", dst=V6["dst"]) / UDP(), id="IPv6 source multicast"),
        pytest.param(IPv6(**V6) / IPv6ExtHdrFragment(offset=1) / Raw(bytes(8)), id="IPv6 later fragment"),
        pytest.param(Raw(b""), id="nothing"),
        pytest.param(Raw(b"\x45\0"), id="broken"),
    ],
)
def test_no_error_where_none_may_be_sent(packet: Any) -> None:
    data = bytes(packet)
    source = OURS[6] if data[:1] and data[0] >> 4 == 6 else OURS[4]

    assert too_big(data, 1400, source) is None
    assert time_exceeded(data, source) is None
    assert prohibited(data, source) is None


def test_multicast_over_ipv6_hears_of_packet_too_big_only() -> None:
    packet = bytes(IPv6(src=V6["src"], dst="ff0e::1") / UDP())

    assert too_big(packet, 1400, OURS[6]) is not None
    assert time_exceeded(packet, OURS[6]) is None


@pytest.mark.parametrize("packet", [IP(**V4) / ICMP(type=8), IPv6(**V6) / ICMPv6EchoRequest()])
def test_echo_requests_are_answered(packet: Any) -> None:
    data = bytes(packet)

    assert too_big(data, 1400, OURS[data[0] >> 4]) is not None


def test_source_of_the_other_family_gives_nothing() -> None:
    assert too_big(bytes(IP(**V4) / UDP()), 1400, OURS[6]) is None
    assert too_big(bytes(IPv6(**V6) / UDP()), 1400, OURS[4]) is None


@given(st.sampled_from([b"", b"\x45", b"\x60"]), st.binary(max_size=100))
def test_any_bytes_give_an_error_or_nothing(start: bytes, packet: bytes) -> None:
    for source in OURS.values():
        for make in (time_exceeded, prohibited):
            error = make(start + packet, source)
            assert error is None or len(error) <= 1280


# --- what a router says of AH -----------------------------------------------------------------------


def about_ah(mtu: int = 1300, size: int = 1200) -> bytes:
    """Return the ICMPv6 message of a router that quotes so much of an AH packet of ours."""
    sealed = ah_outbound(outer=6).seal(ip_packet(4, bytes(1300)), 0.0)
    error = IPv6(src="2001:db8::9", dst=OUTER[6][0]) / ICMPv6PacketTooBig(mtu=mtu) / Raw(sealed[:size])
    return bytes(IPv6(bytes(error)).payload)


def test_too_big_about_ah_names_the_sa_and_the_mtu() -> None:
    source, destination = map(ip_address, OUTER[6])

    assert parse_too_big_about_ah(about_ah()) == TooBig(1300, source, destination, SPI)
    assert parse_too_big_about_ah(about_ah(size=48)) == TooBig(1300, source, destination, SPI)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        about_ah(size=47),
        about_ah(size=20),
        b"\x01" + about_ah()[1:],
        about_ah()[:8] + ip_packet(4, bytes(60), protocol=51),
        about_ah()[:8] + ip_packet(6, bytes(60), protocol=50),
    ],
    ids=["nothing", "no SPI", "no header", "another type", "IPv4", "ESP"],
)
def test_what_is_not_about_ah_tells_nothing(message: bytes) -> None:
    assert parse_too_big_about_ah(message) is None


@given(st.binary(max_size=100))
def test_any_message_tells_something_or_nothing(rest: bytes) -> None:
    for start in (b"", b"\x02\0", about_ah()[:8]):
        told = parse_too_big_about_ah(start + rest)
        assert told is None or isinstance(told, TooBig)
