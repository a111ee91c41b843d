"""The selectors of one packet, and whether an SA's traffic selectors permit it (RFC 4301 §4.4.1.1, §5.2, §7).

For ICMP and the Mobility Header there is one "port": type * 256 + code, and MH type * 256. It is both the
source and the destination port here, so that a selector pair may name it on either side.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from gateway.esp.errors import PacketDropped
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    PROTOCOL_DCCP,
    PROTOCOL_DESTINATION_OPTIONS,
    PROTOCOL_FRAGMENT,
    PROTOCOL_HOP_BY_HOP,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_MOBILITY,
    PROTOCOL_ROUTING,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    PROTOCOL_UDP_LITE,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import ANY_PROTOCOL, MAX_PORT, TrafficSelector

_PORTS: Final = frozenset((PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_DCCP, PROTOCOL_SCTP, PROTOCOL_UDP_LITE))
_ICMP: Final = frozenset((PROTOCOL_ICMP, PROTOCOL_ICMPV6))
_EXTENSIONS: Final = frozenset(
    (PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_FRAGMENT, PROTOCOL_DESTINATION_OPTIONS)
)
"""What is skipped to find the next layer protocol; AH and ESP are such protocols (RFC 4301 §4.4.1.1)."""
_MAX_EXTENSION_HEADERS: Final = 10
"""More is nothing but work for us; RFC 8883 §1 gives nodes the right to such a limit."""
_OPAQUE: Final = (MAX_PORT, 0)
"""OPAQUE in a traffic selector: start port 65535, end port 0 (RFC 7296 §3.13.1)."""


class Flow(NamedTuple):
    """The selectors of one packet. Addresses are plain numbers, to be quick to compare."""

    version: int
    source: int
    destination: int
    protocol: int | None
    """The next layer protocol; `None` where a fragment hides it."""
    source_port: int | None
    """`None` where there is none: another protocol, or a fragment other than the first."""
    destination_port: int | None
    is_fragment: bool
    """Part of a datagram, the first part included."""
    is_first_fragment: bool
    """Starts at offset 0 of its datagram; true for a whole one."""
    transport_offset: int
    """Where the next layer header starts, in bytes."""

    @property
    def source_address(self) -> IpAddress:
        """Return the source as an address."""
        return _address(self.version, self.source)

    @property
    def destination_address(self) -> IpAddress:
        """Return the destination as an address."""
        return _address(self.version, self.destination)


def _address(version: int, number: int) -> IpAddress:
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def parse_flow(packet: bytes) -> Flow:
    """Return the selectors of an IP packet.

    Raises:
        PacketDropped: MALFORMED, UNSUPPORTED (too many extension headers), or FRAGMENT: a first fragment too
            small to show its ports (RFC 4301 §7).
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _parse_ipv4(packet)
    if version == 6:
        return _parse_ipv6(packet)
    raise PacketDropped(DropReason.MALFORMED, f"IP version is {version}, expected 4 or 6")


def _parse_ipv4(packet: bytes) -> Flow:
    header_bytes = (packet[0] & 0x0F) * 4
    if header_bytes < IPV4_HEADER_BYTES or len(packet) < header_bytes:
        raise PacketDropped(DropReason.MALFORMED, f"IPv4 header of {header_bytes} in {len(packet)} bytes")
    fragment = (packet[6] & 0x3F) << 8 | packet[7]
    is_first = not fragment & 0x1FFF
    source_port, destination_port = _parse_ports(packet, packet[9], header_bytes, is_first, fragment != 0)
    return Flow(
        4,
        int.from_bytes(packet[12:16], "big"),
        int.from_bytes(packet[16:20], "big"),
        packet[9],
        source_port,
        destination_port,
        fragment != 0,
        is_first,
        header_bytes,
    )


def _parse_ipv6(packet: bytes) -> Flow:
    if len(packet) < IPV6_HEADER_BYTES:
        raise PacketDropped(DropReason.MALFORMED, f"IPv6 header in {len(packet)} bytes")
    protocol: int | None = packet[6]
    offset = IPV6_HEADER_BYTES
    is_fragment = False
    is_first = True
    headers = 0
    while protocol in _EXTENSIONS and is_first:
        headers += 1
        if headers > _MAX_EXTENSION_HEADERS:
            raise PacketDropped(
                DropReason.UNSUPPORTED, f"more than {_MAX_EXTENSION_HEADERS} extension headers"
            )
        if len(packet) < offset + 8:
            raise PacketDropped(DropReason.MALFORMED, f"extension header {protocol} is truncated")
        if protocol == PROTOCOL_FRAGMENT:
            fragment = packet[offset + 2] << 8 | packet[offset + 3]
            # An atomic fragment, offset 0 and no more to come, is a whole packet (RFC 6946).
            is_fragment = is_fragment or fragment & 0xFFF9 != 0
            is_first = not fragment & 0xFFF8
            length = 8
        else:
            length = (packet[offset + 1] + 1) * 8
        protocol = packet[offset]
        offset += length
    if not is_first and protocol in _EXTENSIONS:
        protocol = None
    source_port, destination_port = _parse_ports(packet, protocol, offset, is_first, is_fragment)
    return Flow(
        6,
        int.from_bytes(packet[8:24], "big"),
        int.from_bytes(packet[24:40], "big"),
        protocol,
        source_port,
        destination_port,
        is_fragment,
        is_first,
        offset,
    )


def _parse_ports(
    packet: bytes, protocol: int | None, offset: int, is_first: bool, is_fragment: bool
) -> tuple[int | None, int | None]:
    """Return source and destination port, or type and code, where the packet shows them."""
    if not is_first:
        return None, None
    if protocol in _PORTS:
        needed = 4
    elif protocol in _ICMP:
        needed = 2
    elif protocol == PROTOCOL_MOBILITY:
        needed = 3
    else:
        return None, None
    if len(packet) < offset + needed:
        reason = DropReason.FRAGMENT if is_fragment else DropReason.MALFORMED
        raise PacketDropped(reason, f"protocol {protocol} shows {len(packet) - offset} bytes, no ports")
    if needed == 4:
        return packet[offset] << 8 | packet[offset + 1], packet[offset + 2] << 8 | packet[offset + 3]
    if needed == 2:
        type_and_code = packet[offset] << 8 | packet[offset + 1]
        return type_and_code, type_and_code
    mobility_type = packet[offset + 2] << 8
    return mobility_type, mobility_type


class _Range(NamedTuple):
    """A traffic selector in numbers."""

    version: int
    start: int
    end: int
    protocol: int
    start_port: int
    end_port: int

    def permits(self, version: int, address: int, protocol: int | None, port: int | None) -> bool:
        if version != self.version or not self.start <= address <= self.end:
            return False
        if self.protocol not in (ANY_PROTOCOL, protocol):
            return False
        if self.start_port == 0 and self.end_port == MAX_PORT:
            return True  # ANY includes OPAQUE (RFC 4301 §4.4.1.1)
        if port is None:
            return (self.start_port, self.end_port) == _OPAQUE
        return self.start_port <= port <= self.end_port


class SelectorSet:
    """The selectors of an SA or SPD entry, made ready for the packet path."""

    __slots__ = ("_local", "_remote")

    def __init__(self, local_ts: Iterable[TrafficSelector], remote_ts: Iterable[TrafficSelector]) -> None:
        self._local = _ranges(local_ts)
        self._remote = _ranges(remote_ts)

    def permits_outbound(self, flow: Flow) -> bool:
        """Return whether a packet from us to the peer's side matches."""
        return _permits(self._local, self._remote, flow)

    def permits_inbound(self, flow: Flow) -> bool:
        """Return whether a packet from the peer's side to us matches."""
        return _permits(self._remote, self._local, flow)

    def names_protocol(self, protocol: int) -> bool:
        """Return whether some selector is for exactly this protocol."""
        return any(selector.protocol == protocol for selector in self._local + self._remote)


def _ranges(selectors: Iterable[TrafficSelector]) -> tuple[_Range, ...]:
    return tuple(
        _Range(ts.start.version, int(ts.start), int(ts.end), ts.protocol, ts.start_port, ts.end_port)
        for ts in selectors
    )


def _permits(sources: tuple[_Range, ...], destinations: tuple[_Range, ...], flow: Flow) -> bool:
    version, source, destination, protocol, source_port, destination_port = flow[:6]
    for selector in sources:
        if selector.permits(version, source, protocol, source_port):
            break
    else:
        return False
    for selector in destinations:
        if selector.permits(version, destination, protocol, destination_port):
            return True
    return False
