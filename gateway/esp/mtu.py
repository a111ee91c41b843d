"""How much an SA adds, what still fits, and the TCP MSS that follows (RFC 4301 §8, RFC 4459)."""

from typing import Final

from gateway.esp import ah
from gateway.esp.checksum import update_checksum
from gateway.esp.errors import PacketDropped
from gateway.esp.flow import parse_flow
from gateway.esp.packet import (
    HEADER_BYTES,
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    PROTOCOL_TCP,
    TRAILER_BYTES,
    UDP_HEADER_BYTES,
)
from gateway.esp.transform import layout
from gateway.ipsec.sa import IpsecProtocol, Mode, SecurityAssociation

_TCP_HEADER_BYTES: Final = 20
_TCP_CHECKSUM: Final = 16
_SYN: Final = 0x02
_END_OF_OPTIONS, _NO_OPERATION, _MSS = 0, 1, 2


def outer_bytes(sa: SecurityAssociation) -> int:
    """Return the size of the headers before the SPI: IP, and UDP where it is encapsulated."""
    ip = IPV4_HEADER_BYTES if sa.destination.version == 4 else IPV6_HEADER_BYTES
    return ip + (UDP_HEADER_BYTES if sa.encapsulation else 0)


def max_overhead(sa: SecurityAssociation) -> int:
    """Return the most bytes a packet can grow by: headers, IV, ICV, trailer and the longest padding."""
    own_header = 0 if sa.mode is Mode.TUNNEL else outer_bytes(sa) - _udp_bytes(sa)
    if sa.protocol is IpsecProtocol.AH:
        return outer_bytes(sa) - own_header + ah.header_bytes(sa)
    esp = layout(sa)
    return outer_bytes(sa) - own_header + esp.overhead_bytes + esp.alignment_bytes - 1


def effective_mtu(sa: SecurityAssociation, path_mtu: int) -> int:
    """Return the largest IP packet, header included, that this SA carries in one outer packet of `path_mtu`.

    Of ESP payload and trailer fill whole alignment units, so this is not just the MTU less a constant. 0 when
    nothing fits. In transport mode the packet is taken to have no IPv4 options or extension headers; with
    some, and a block cipher, up to one block less may fit.
    """
    payload = _payload_room(sa, path_mtu - outer_bytes(sa))
    if payload <= 0:
        return 0
    if sa.mode is Mode.TUNNEL:
        return payload
    return payload + outer_bytes(sa) - _udp_bytes(sa)


def _payload_room(sa: SecurityAssociation, room: int) -> int:
    """Return how much payload ESP or AH takes into so many bytes behind the outer header."""
    if sa.protocol is IpsecProtocol.AH:
        return room - ah.header_bytes(sa)
    esp = layout(sa)
    room -= HEADER_BYTES + esp.iv_bytes + esp.icv_bytes
    return room - room % esp.alignment_bytes - TRAILER_BYTES


def tcp_mss(mtu: int, version: int) -> int:
    """Return the TCP MSS whose segments, without options, fit into `mtu` (RFC 9293 §3.7.1)."""
    ip = IPV4_HEADER_BYTES if version == 4 else IPV6_HEADER_BYTES
    return max(mtu - ip - _TCP_HEADER_BYTES, 1)


def clamp_mss(packet: bytes, mtu: int) -> bytes:
    """Return the packet with the MSS option of a TCP SYN lowered so that segments fit into `mtu`.

    Any other packet, also a malformed one, comes back as it is: the very same object. An MSS that is small
    enough stays; one that is absent is not added, since its default of 536 or 1220 is small.

    Args:
        packet: An IP packet, in either direction of the tunnel.
        mtu: Effective MTU of the SA.
    """
    if not _may_be_tcp(packet):
        return packet
    try:
        flow = parse_flow(packet)
    except PacketDropped:
        return packet
    if flow.protocol != PROTOCOL_TCP or not flow.is_first_fragment:
        return packet
    value = _find_mss(packet, flow.transport_offset)
    mss = tcp_mss(mtu, flow.version)
    if value is None or (packet[value] << 8 | packet[value + 1]) <= mss:
        return packet
    clamped = bytearray(packet)
    _lower_mss(clamped, flow.transport_offset, value, mss)
    return bytes(clamped)


def _may_be_tcp(packet: bytes) -> bool:
    """Return whether a closer look is worth it: cheap, for every packet that is forwarded."""
    if len(packet) < IPV4_HEADER_BYTES + _TCP_HEADER_BYTES:
        return False
    # Over IPv6, extension headers may come first.
    return packet[0] >> 4 == 6 or packet[9] == PROTOCOL_TCP


def _find_mss(packet: bytes, tcp: int) -> int | None:
    """Return the offset of the value of the MSS option of a SYN; `tcp` is the offset of the TCP header."""
    if len(packet) < tcp + _TCP_HEADER_BYTES or not packet[tcp + 13] & _SYN:
        return None
    end = tcp + (packet[tcp + 12] >> 4) * 4
    if end > len(packet):
        return None
    at = tcp + _TCP_HEADER_BYTES
    while at < end:
        kind = packet[at]
        if kind == _END_OF_OPTIONS:
            return None
        if kind == _NO_OPERATION:
            at += 1
            continue
        length = packet[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return None
        if kind == _MSS:
            return at + 2 if length == 4 else None
        at += length
    return None


def _lower_mss(packet: bytearray, tcp: int, value: int, mss: int) -> None:
    """Write the MSS in place and mend the TCP checksum (RFC 1624)."""
    checksum_field = tcp + _TCP_CHECKSUM
    checksum = packet[checksum_field] << 8 | packet[checksum_field + 1]
    # The value may lie across two 16-bit words of the sum; then the words are those around it.
    first = value - ((value - tcp) & 1)
    last = value + 2 + ((value - tcp) & 1)
    before = bytes(packet[first:last])
    packet[value : value + 2] = mss.to_bytes(2, "big")
    after = bytes(packet[first:last])
    for at in range(0, len(before), 2):
        old, new = before[at : at + 2], after[at : at + 2]
        checksum = update_checksum(checksum, int.from_bytes(old, "big"), int.from_bytes(new, "big"))
    packet[checksum_field : checksum_field + 2] = checksum.to_bytes(2, "big")


def _udp_bytes(sa: SecurityAssociation) -> int:
    return UDP_HEADER_BYTES if sa.encapsulation else 0
