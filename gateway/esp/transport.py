"""Transport mode: where ESP goes into an IP packet, and how the packet is made whole again (RFC 4303 §3.1.1).

```
   IPv4:  | IP, options | ESP | TCP | data | trailer | ICV |
   IPv6:  | IP | hop-by-hop, destination*, routing | ESP | destination | TCP | data | trailer | ICV |
```
Destination options go outside only where a routing header follows (*: they are for the hops on the way);
those for the final destination go inside, where they are protected.
"""

from collections.abc import Sequence
from typing import Final

from gateway.esp.checksum import internet_checksum, ones_sum
from gateway.esp.errors import PacketDropped
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    MAX_IP_PACKET_BYTES,
    PROTOCOL_DESTINATION_OPTIONS,
    PROTOCOL_FRAGMENT,
    PROTOCOL_HOP_BY_HOP,
    PROTOCOL_ROUTING,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)
from gateway.ipsec.drop_reason import DropReason

_NEXT_HEADER_FIELD: Final = 6
"""Its offset in the IPv6 header; in an extension header it is the first byte."""
_CHECKSUM_FIELD: Final = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}
_MAX_EXTENSION_HEADERS: Final = 10


def split(packet: bytes) -> tuple[bytes, int, bytes]:
    """Return the headers that stay outside, the next header, and the payload that ESP protects.

    Raises:
        PacketDropped: MALFORMED, or FRAGMENT: transport mode takes whole datagrams only (RFC 4303 §3.3.4).
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _split_ipv4(packet)
    if version == 6:
        return _split_ipv6(packet)
    raise PacketDropped(DropReason.MALFORMED, f"IP version is {version}, expected 4 or 6")


def _split_ipv4(packet: bytes) -> tuple[bytes, int, bytes]:
    header_bytes = (packet[0] & 0x0F) * 4
    if len(packet) < IPV4_HEADER_BYTES or not IPV4_HEADER_BYTES <= header_bytes <= len(packet):
        raise PacketDropped(DropReason.MALFORMED, f"IPv4 header of {header_bytes} in {len(packet)} bytes")
    if packet[6] & 0x3F or packet[7]:
        raise PacketDropped(DropReason.FRAGMENT, "a fragment on a transport mode SA")
    return packet[:header_bytes], packet[9], packet[header_bytes:]


def _split_ipv6(packet: bytes) -> tuple[bytes, int, bytes]:
    if len(packet) < IPV6_HEADER_BYTES:
        raise PacketDropped(DropReason.MALFORMED, f"IPv6 header in {len(packet)} bytes")
    end, next_header, _ = _walk_outer_headers(packet)
    if next_header == PROTOCOL_FRAGMENT:
        raise PacketDropped(DropReason.FRAGMENT, "a fragment on a transport mode SA")
    return packet[:end], next_header, packet[end:]


def _walk_outer_headers(packet: bytes) -> tuple[int, int, int]:
    """Return where ESP goes: offset, the next header found there, and the offset of the field naming it."""
    offset, field = IPV6_HEADER_BYTES, _NEXT_HEADER_FIELD
    end, end_field = offset, field
    next_header = packet[field]
    for _ in range(_MAX_EXTENSION_HEADERS):
        if next_header not in (PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_DESTINATION_OPTIONS):
            break
        if len(packet) < offset + 8:
            raise PacketDropped(DropReason.MALFORMED, f"extension header {next_header} is truncated")
        is_outside = next_header != PROTOCOL_DESTINATION_OPTIONS
        field = offset
        offset += (packet[offset + 1] + 1) * 8
        if offset > len(packet):
            raise PacketDropped(DropReason.MALFORMED, f"extension header {next_header} is truncated")
        if is_outside:
            end, end_field = offset, field
        next_header = packet[field]
    if next_header == PROTOCOL_FRAGMENT:
        return offset, next_header, field
    return end, packet[end_field], end_field


def with_payload(header: bytes, protocol: int, payload: bytes) -> bytes:
    """Return the packet of `header` with another protocol and payload; lengths and checksum are made to fit.

    Args:
        header: An IPv4 header with its options, or an IPv6 header with its extension headers.

    Raises:
        PacketDropped: TOO_BIG.
    """
    if header[0] >> 4 == 4:
        length = len(header) + len(payload)
        _check_length(length)
        head = header[:2] + length.to_bytes(2, "big") + header[4:9] + bytes((protocol, 0, 0)) + header[12:]
        return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + payload
    length = len(header) - IPV6_HEADER_BYTES + len(payload)
    _check_length(length)
    field = _last_next_header_field(header)
    head = header[:4] + length.to_bytes(2, "big") + header[6:]
    return head[:field] + bytes((protocol,)) + head[field + 1 :] + payload


def join_ipv6_headers(
    bare: bytes, extensions: Sequence[tuple[int, bytes]], protocol: int, payload_bytes: int
) -> bytes:
    """Return the IPv6 header and extension headers of a packet of which the kernel showed only the parts.

    The Next Header fields are made to fit: where the kernel took a Fragment header away, they may still name
    that, and AH was computed without it (RFC 4302 §3.3.4).

    Args:
        bare: An IPv6 header whose length and next header are still to be filled in.
        extensions: Next header number and bytes of each, in their order.
        protocol: What follows them.
        payload_bytes: Length of that.
    """
    followers = [*(number for number, _ in extensions), protocol]
    chain = b"".join(
        bytes((follower,)) + extension[1:]
        for (_, extension), follower in zip(extensions, followers[1:], strict=True)
    )
    length = len(chain) + payload_bytes
    return bare[:4] + length.to_bytes(2, "big") + bytes((followers[0],)) + bare[7:] + chain


def _check_length(length: int) -> None:
    if length > MAX_IP_PACKET_BYTES:
        raise PacketDropped(DropReason.TOO_BIG, f"{length} bytes do not fit an IP length field")


def _last_next_header_field(header: bytes) -> int:
    """Return the offset of the Next Header field of the last header in an IPv6 header chain."""
    offset, field = IPV6_HEADER_BYTES, _NEXT_HEADER_FIELD
    while offset < len(header):
        field = offset
        if offset + 8 > len(header):
            raise PacketDropped(DropReason.MALFORMED, "extension header is truncated")
        offset += (header[offset + 1] + 1) * 8
    if offset != len(header):
        raise PacketDropped(DropReason.MALFORMED, "extension header is truncated")
    return field


def fix_transport_checksum(packet: bytes, protocol: int, offset: int) -> bytes:
    """Return the packet with its TCP or UDP checksum computed anew, after a NAT changed the IP addresses.

    Of the choices of RFC 3948 §3.1.2 this is the one that needs neither the peer's original address nor a
    promise from TCP: the ICV has already proved that the payload is what the peer sent. A UDP checksum of
    zero (none, IPv4) stays zero.
    """
    field = _CHECKSUM_FIELD.get(protocol)
    if field is None or len(packet) < offset + field + 2:
        return packet
    at = offset + field
    if protocol == PROTOCOL_UDP and packet[at : at + 2] == b"\0\0":
        return packet
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    pseudo_sum = ones_sum(addresses) + protocol + len(packet) - offset
    cleared = packet[offset:at] + b"\0\0" + packet[at + 2 :]
    checksum = internet_checksum(cleared, pseudo_sum)
    if protocol == PROTOCOL_UDP:
        checksum = checksum or 0xFFFF
    return packet[:at] + checksum.to_bytes(2, "big") + packet[at + 2 :]
