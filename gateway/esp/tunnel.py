"""Outer IP headers: build them, and take from them what the inner packet must know.

DSCP, DF, TTL and ECN follow RFC 4301 §5.1.2 with RFC 6040 (normal mode) for ECN. The constant parts of a
header are put together once per SA, with their checksum; per packet only the rest is filled in.
"""

from collections.abc import Callable
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from gateway.esp.checksum import finish_checksum, ones_sum, update_checksum
from gateway.esp.errors import PacketDropped
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    PROTOCOL_ESP,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_UDP,
    UDP_HEADER_BYTES,
)
from gateway.esp.udp_encap import make_udp_header
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpAddress, UdpEncapsulation

OUTER_TTL: Final = 64
"""The outer TTL is ours, not a copy (RFC 4301 §5.1.2.1, note 2)."""
_DF: Final = 0x4000
_ECN: Final = 0x03
_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")

BuildOuter = Callable[[bytes, int, bool, int], bytes]
"""(ESP or AH packet, TOS, DF, identification) -> the outer IP packet; IPv6 has no use for the last two."""


class DfPolicy(Enum):
    """What the outer DF bit becomes (RFC 4301 §8.1)."""

    COPY = "copy"
    """As the inner packet has it; IPv6 inside counts as set, because routers do not fragment it either."""
    SET = "set"
    CLEAR = "clear"


class Inner(NamedTuple):
    """What the outer header takes from the inner one."""

    next_header: int
    tos: int
    """TOS or traffic class: DSCP and ECN."""
    is_df: bool


def inspect_inner(packet: bytes) -> Inner:
    """Return what tunnel encapsulation must know of an IP packet.

    Raises:
        PacketDropped: MALFORMED.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= IPV4_HEADER_BYTES:
        return Inner(PROTOCOL_IPV4, packet[1], bool(packet[6] & 0x40))
    if version == 6 and len(packet) >= IPV6_HEADER_BYTES:
        return Inner(PROTOCOL_IPV6, (packet[0] << 4 | packet[1] >> 4) & 0xFF, True)
    raise PacketDropped(DropReason.MALFORMED, f"{len(packet)} bytes of IP version {version}")


# --- building -------------------------------------------------------------------------------------


def make_outer(
    source: IpAddress,
    destination: IpAddress,
    encapsulation: UdpEncapsulation | None,
    ttl: int = OUTER_TTL,
    *,
    protocol: int = PROTOCOL_ESP,
) -> BuildOuter:
    """Return the callable that puts the outer headers of one SA before an ESP packet, or an AH one."""
    protocol = PROTOCOL_UDP if encapsulation else protocol
    make = _make_ipv4 if source.version == 4 else _make_ipv6
    return make(source.packed, destination.packed, encapsulation, ttl, protocol)


def _make_ipv4(
    source: bytes, destination: bytes, udp: UdpEncapsulation | None, ttl: int, protocol: int
) -> BuildOuter:
    constant_sum = ones_sum(_IPV4.pack(0x45, 0, 0, 0, 0, ttl, protocol, 0, source, destination))
    overhead = IPV4_HEADER_BYTES + (UDP_HEADER_BYTES if udp else 0)
    pack = _IPV4.pack

    def header(esp: bytes, tos: int, is_df: bool, identification: int) -> bytes:
        length = overhead + len(esp)
        flags = _DF if is_df else 0
        checksum = finish_checksum(constant_sum + tos + length + identification + flags)
        return pack(0x45, tos, length, identification, flags, ttl, protocol, checksum, source, destination)

    if udp is None:

        def build(esp: bytes, tos: int, is_df: bool, identification: int) -> bytes:
            return header(esp, tos, is_df, identification) + esp

        return build

    def build_udp(esp: bytes, tos: int, is_df: bool, identification: int) -> bytes:
        return header(esp, tos, is_df, identification) + make_udp_header(udp, esp) + esp

    return build_udp


def _make_ipv6(
    source: bytes, destination: bytes, udp: UdpEncapsulation | None, hop_limit: int, protocol: int
) -> BuildOuter:
    pack = _IPV6.pack
    if udp is None:

        def build(esp: bytes, tos: int, is_df: bool, identification: int) -> bytes:  # noqa: ARG001  IPv4's
            first = 6 << 28 | tos << 20
            return pack(first, len(esp), protocol, hop_limit, source, destination) + esp

        return build

    addresses = source + destination

    def build_udp(esp: bytes, tos: int, is_df: bool, identification: int) -> bytes:  # noqa: ARG001  IPv4's
        first = 6 << 28 | tos << 20
        ip_header = pack(first, UDP_HEADER_BYTES + len(esp), protocol, hop_limit, source, destination)
        return ip_header + make_udp_header(udp, esp, addresses) + esp

    return build_udp


def make_bare_header(source: bytes, destination: bytes, tos: int, ttl: int) -> bytes:
    """Return an IP header of which length, protocol and checksum are still to be filled in."""
    if len(source) == 4:
        return _IPV4.pack(0x45, tos, 0, 0, 0, ttl, 0, 0, source, destination)
    return _IPV6.pack(6 << 28 | tos << 20, 0, 0, ttl, source, destination)


# --- taking off -----------------------------------------------------------------------------------

_NOT_ECT, _ECT_1, _ECT_0, _CE = range(4)
_DROP: Final = None
ECN_DECAPSULATION: Final[tuple[tuple[int | None, ...], ...]] = (
    # outer: Not-ECT    ECT(1)    ECT(0)    CE            inner:
    (_NOT_ECT, _NOT_ECT, _NOT_ECT, _DROP),  # Not-ECT
    (_ECT_1, _ECT_1, _ECT_1, _CE),  # ECT(1)
    (_ECT_0, _ECT_1, _ECT_0, _CE),  # ECT(0)
    (_CE, _CE, _CE, _CE),  # CE
)
"""What the ECN field of the inner packet becomes: RFC 6040 figure 4, indexed [inner][outer] by code point."""


def decapsulate(payload: bytes, next_header: int, outer_tos: int) -> bytes:
    """Return the inner packet of tunnel mode: TFC padding cut off, ECN of both headers combined.

    The inner DSCP stays as it is (RFC 4301 §5.1.2.1), and so does the TTL: whoever forwards the packet counts
    that hop.

    Raises:
        PacketDropped: MODE_MISMATCH, MALFORMED, UNSUPPORTED or ECN_ILLEGAL.
    """
    if next_header == PROTOCOL_IPV4:
        return _combine_ecn_ipv4(_trim_ipv4(payload), outer_tos & _ECN)
    if next_header == PROTOCOL_IPV6:
        return _combine_ecn_ipv6(_trim_ipv6(payload), outer_tos & _ECN)
    raise PacketDropped(DropReason.MODE_MISMATCH, f"next header {next_header} in tunnel mode")


def _trim_ipv4(payload: bytes) -> bytes:
    if len(payload) < IPV4_HEADER_BYTES or payload[0] >> 4 != 4:
        raise PacketDropped(DropReason.MALFORMED, "next header 4 and no IPv4 packet")
    header_bytes = (payload[0] & 0x0F) * 4
    length = payload[2] << 8 | payload[3]
    if not IPV4_HEADER_BYTES <= header_bytes <= length <= len(payload):
        raise PacketDropped(
            DropReason.MALFORMED, f"IPv4 header {header_bytes}, total length {length}, {len(payload)} bytes"
        )
    return payload if length == len(payload) else payload[:length]


def _trim_ipv6(payload: bytes) -> bytes:
    if len(payload) < IPV6_HEADER_BYTES or payload[0] >> 4 != 6:
        raise PacketDropped(DropReason.MALFORMED, "next header 41 and no IPv6 packet")
    length = IPV6_HEADER_BYTES + (payload[4] << 8 | payload[5])
    if length > len(payload):
        raise PacketDropped(DropReason.MALFORMED, f"IPv6 length {length}, {len(payload)} bytes")
    return payload if length == len(payload) else payload[:length]


def _combined(inner: int, outer: int) -> int:
    combined = ECN_DECAPSULATION[inner][outer]
    if combined is None:
        raise PacketDropped(DropReason.ECN_ILLEGAL, "CE outside, Not-ECT inside")
    return combined


def _combine_ecn_ipv4(packet: bytes, outer: int) -> bytes:
    inner = packet[1] & _ECN
    ecn = _combined(inner, outer)
    if ecn == inner:
        return packet
    tos = packet[1] & ~_ECN | ecn
    checksum = update_checksum(packet[10] << 8 | packet[11], packet[0] << 8 | packet[1], packet[0] << 8 | tos)
    return packet[:1] + bytes((tos,)) + packet[2:10] + checksum.to_bytes(2, "big") + packet[12:]


def _combine_ecn_ipv6(packet: bytes, outer: int) -> bytes:
    inner = packet[1] >> 4 & _ECN
    ecn = _combined(inner, outer)
    if ecn == inner:
        return packet
    return packet[:1] + bytes((packet[1] & 0xCF | ecn << 4,)) + packet[2:]


def decrement_ttl(packet: bytes) -> bytes:
    """Return the packet one hop further: TTL or hop limit less one.

    RFC 4301 §5.1.2.1 note 2 has a gateway do this to the inner header when it forwards. Behind a forwarding
    kernel (a TUN device) it is done already.

    Raises:
        PacketDropped: TTL_EXPIRED or MALFORMED.
    """
    inspect_inner(packet)
    field = 8 if packet[0] >> 4 == 4 else 7
    ttl = packet[field]
    if ttl <= 1:
        raise PacketDropped(DropReason.TTL_EXPIRED, f"TTL is {ttl}")
    shorter = packet[:field] + bytes((ttl - 1,)) + packet[field + 1 :]
    if field == 7:
        return shorter
    checksum = update_checksum(packet[10] << 8 | packet[11], ttl << 8 | packet[9], (ttl - 1) << 8 | packet[9])
    return shorter[:10] + checksum.to_bytes(2, "big") + shorter[12:]
