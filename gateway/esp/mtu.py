"""How much an SA adds, what still fits, and the TCP MSS that follows (RFC 4301 §8, RFC 4459)."""

from typing import Final

from gateway.esp.packet import (
    HEADER_BYTES,
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    TRAILER_BYTES,
    UDP_HEADER_BYTES,
)
from gateway.esp.transform import layout
from gateway.ipsec.sa import Mode, SecurityAssociation

_TCP_HEADER_BYTES: Final = 20


def outer_bytes(sa: SecurityAssociation) -> int:
    """Return the size of the headers before the SPI: IP, and UDP where it is encapsulated."""
    ip = IPV4_HEADER_BYTES if sa.destination.version == 4 else IPV6_HEADER_BYTES
    return ip + (UDP_HEADER_BYTES if sa.encapsulation else 0)


def max_overhead(sa: SecurityAssociation) -> int:
    """Return the most bytes a packet can grow by: headers, IV, ICV, trailer and the longest padding."""
    esp = layout(sa)
    own_header = 0 if sa.mode is Mode.TUNNEL else outer_bytes(sa) - _udp_bytes(sa)
    return outer_bytes(sa) - own_header + esp.overhead_bytes + esp.alignment_bytes - 1


def effective_mtu(sa: SecurityAssociation, path_mtu: int) -> int:
    """Return the largest IP packet, header included, that this SA carries in one outer packet of `path_mtu`.

    Payload and trailer fill whole alignment units, so this is not just the MTU less a constant. 0 when
    nothing fits. In transport mode the packet is taken to have no IPv4 options or extension headers; with
    some, and a block cipher, up to one block less may fit.
    """
    esp = layout(sa)
    room = path_mtu - outer_bytes(sa) - HEADER_BYTES - esp.iv_bytes - esp.icv_bytes
    payload = room - room % esp.alignment_bytes - TRAILER_BYTES
    if payload <= 0:
        return 0
    if sa.mode is Mode.TUNNEL:
        return payload
    return payload + outer_bytes(sa) - _udp_bytes(sa)


def tcp_mss(mtu: int, version: int) -> int:
    """Return the TCP MSS whose segments, without options, fit into `mtu` (RFC 9293 §3.7.1)."""
    ip = IPV4_HEADER_BYTES if version == 4 else IPV6_HEADER_BYTES
    return max(mtu - ip - _TCP_HEADER_BYTES, 1)


def _udp_bytes(sa: SecurityAssociation) -> int:
    return UDP_HEADER_BYTES if sa.encapsulation else 0
