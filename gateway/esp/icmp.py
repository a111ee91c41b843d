"""ICMP errors: those a security gateway sends about packets it could not carry, and one that it reads.

Only the messages are made here (RFC 792, RFC 1812, RFC 4443); how many are sent is the caller's to limit.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from gateway.esp.checksum import internet_checksum, ones_sum
from gateway.esp.errors import PacketDropped
from gateway.esp.flow import Flow, parse_flow
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    PROTOCOL_AH,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
)
from gateway.esp.transport import with_payload
from gateway.esp.tunnel import make_bare_header
from gateway.ipsec.sa import IpAddress

IPV6_MIN_MTU: Final = 1280
_ICMP_HEADER_BYTES: Final = 8
_IPV4_ERROR_BYTES: Final = 576
"""The longest error message over IPv4, IP header included (RFC 1812 §4.3.2.3)."""
_TTL: Final = 64
_INTERNETWORK_CONTROL: Final = 0xC0
"""TOS of ICMPv4 errors (RFC 1812 §4.3.2.5)."""
_ICMPV4_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
_ICMPV6_REDIRECT: Final = 137

_FRAGMENTATION_NEEDED: Final = (3, 4)
_ADMINISTRATIVELY_PROHIBITED: Final = (3, 13)
_TIME_EXCEEDED: Final = (11, 0)
_V6_PACKET_TOO_BIG: Final = (2, 0)
_V6_PROHIBITED: Final = (1, 1)
_V6_TIME_EXCEEDED: Final = (3, 0)


class TooBig(NamedTuple):
    """What a router said of an AH packet: unauthenticated, but who has not seen it does not know its SPI."""

    mtu: int
    source: IpAddress
    destination: IpAddress
    spi: int


def parse_too_big_about_ah(message: bytes) -> TooBig | None:
    """Return what an ICMPv6 message tells of the path MTU of an AH SA (RFC 4443 §3.2, RFC 4301 §8.2.1).

    Args:
        message: From the ICMPv6 header on, its checksum verified.

    Returns:
        `None` for any other message, and one that does not quote as far as the SPI.
    """
    if tuple(message[:2]) != _V6_PACKET_TOO_BIG:
        return None
    quoted = message[_ICMP_HEADER_BYTES:]
    try:
        flow = parse_flow(quoted)
    except PacketDropped:
        return None
    spi = quoted[flow.transport_offset + 4 : flow.transport_offset + 8]
    if flow.version != 6 or flow.protocol != PROTOCOL_AH or not flow.is_first_fragment or len(spi) < 4:
        return None
    mtu = int.from_bytes(message[4:8], "big")
    return TooBig(mtu, flow.source_address, flow.destination_address, int.from_bytes(spi, "big"))


def too_big(packet: bytes, mtu: int, source: IpAddress) -> bytes | None:
    """Return "fragmentation needed" (RFC 1191 §4) or "packet too big" (RFC 4443 §3.2) about a packet.

    Args:
        packet: The packet that did not fit, from its IP header on.
        mtu: The largest packet that does fit. An IPv6 sender is never told less than 1280 bytes: it need not
            go lower, and below that the outer packet has to be fragmented (RFC 8200 §5).
        source: Our address towards the sender, of the packet's family.

    Returns:
        A whole IP packet, or `None` where no ICMP error may be sent.
    """
    if source.version == 4:
        return _error(packet, _FRAGMENTATION_NEEDED, min(mtu, 0xFFFF), source)
    return _error(packet, _V6_PACKET_TOO_BIG, max(mtu, IPV6_MIN_MTU), source)


def time_exceeded(packet: bytes, source: IpAddress) -> bytes | None:
    """Return "time exceeded in transit" about a packet whose TTL or hop limit ran out; see `too_big`."""
    return _error(packet, _TIME_EXCEEDED if source.version == 4 else _V6_TIME_EXCEEDED, 0, source)


def prohibited(packet: bytes, source: IpAddress) -> bytes | None:
    """Return "communication administratively prohibited" about a discarded packet; see `too_big`."""
    return _error(packet, _ADMINISTRATIVELY_PROHIBITED if source.version == 4 else _V6_PROHIBITED, 0, source)


def _error(packet: bytes, type_and_code: tuple[int, int], rest: int, source: IpAddress) -> bytes | None:
    try:
        flow = parse_flow(packet)
    except PacketDropped:
        return None  # nothing to answer: we cannot even read whom (RFC 1812 §4.3.2.7)
    if flow.version != source.version or not _may_answer(packet, flow, type_and_code):
        return None
    message = bytes(type_and_code) + b"\0\0" + rest.to_bytes(4, "big")
    destination = flow.source_address.packed
    if flow.version == 4:
        message += packet[: _IPV4_ERROR_BYTES - IPV4_HEADER_BYTES - _ICMP_HEADER_BYTES]
        header = make_bare_header(source.packed, destination, _INTERNETWORK_CONTROL, _TTL)
        return with_payload(header, PROTOCOL_ICMP, _checksummed(message, 0))
    message += packet[: IPV6_MIN_MTU - IPV6_HEADER_BYTES - _ICMP_HEADER_BYTES]
    header = make_bare_header(source.packed, destination, 0, _TTL)
    pseudo_sum = ones_sum(source.packed + destination) + len(message) + PROTOCOL_ICMPV6
    return with_payload(header, PROTOCOL_ICMPV6, _checksummed(message, pseudo_sum))


def _checksummed(message: bytes, pseudo_sum: int) -> bytes:
    return message[:2] + internet_checksum(message, pseudo_sum).to_bytes(2, "big") + message[4:]


def _may_answer(packet: bytes, flow: Flow, type_and_code: tuple[int, int]) -> bool:
    """Return whether an ICMP error may be sent about this packet (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e))."""
    if not flow.is_first_fragment or not _is_one_host(flow.source_address):
        return False
    destination = flow.destination_address
    if isinstance(destination, IPv4Address):
        if destination.is_multicast or destination == IPv4Address("255.255.255.255"):
            return False
    elif destination.is_multicast and type_and_code != _V6_PACKET_TOO_BIG:
        return False
    if flow.protocol == PROTOCOL_ICMP and flow.version == 4:
        return packet[flow.transport_offset] not in _ICMPV4_ERRORS
    if flow.protocol == PROTOCOL_ICMPV6 and flow.version == 6:
        icmp_type = packet[flow.transport_offset]
        return icmp_type >= 128 and icmp_type != _ICMPV6_REDIRECT
    return True


def _is_one_host(address: IpAddress) -> bool:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return False
    return isinstance(address, IPv6Address) or not (address.is_reserved or int(address) >> 24 == 0)
