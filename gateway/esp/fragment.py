"""Fragmenting a protected packet ourselves, after protection (RFC 4303 §3.3.4, RFC 4302 §3.3.4).

ESP leaves this to the kernel, which makes the outer header. AH cannot: its ICV covers the header, the
identification of IPv4 included, so that nobody else may choose it.
"""

from struct import Struct
from typing import Final

from gateway.esp.checksum import internet_checksum
from gateway.esp.errors import PacketDropped
from gateway.esp.mutable import without_uncopied_options
from gateway.esp.packet import IPV6_HEADER_BYTES, PROTOCOL_FRAGMENT
from gateway.ipsec.drop_reason import DropReason

_UNIT_BYTES: Final = 8
"""Offsets count these."""
_MORE_FRAGMENTS: Final = 0x2000
_FRAGMENT_HEADER: Final = Struct("!BBHI")
_NEXT_HEADER_FIELD: Final = 6


def fragment(packet: bytes, at: int, mtu: int, identification: int) -> tuple[bytes, ...]:
    """Return an IP packet in pieces of at most `mtu` bytes; the packet itself where it fits.

    Args:
        packet: Whole, without DF.
        at: Where the headers end that each piece repeats: the IPv4 header, or the IPv6 header with the
            extension headers before AH.
        mtu: Bytes.
        identification: Of IPv6 pieces, 32 bits; IPv4 pieces have that of the packet.

    Raises:
        PacketDropped: TOO_BIG: not even eight bytes fit beside the headers.
    """
    if len(packet) <= mtu:
        return (packet,)
    header, payload = packet[:at], packet[at:]
    is_ipv4 = header[0] >> 4 == 4
    overhead = at if is_ipv4 else at + _FRAGMENT_HEADER.size
    room = (mtu - overhead) // _UNIT_BYTES * _UNIT_BYTES
    if room <= 0:
        raise PacketDropped(DropReason.TOO_BIG, f"nothing fits into {mtu} bytes beside {overhead} of headers")
    pieces = []
    for offset in range(0, len(payload), room):
        part = payload[offset : offset + room]
        is_last = offset + len(part) == len(payload)
        if is_ipv4:
            pieces.append(_ipv4_piece(header, part, offset, is_last=is_last))
        else:
            pieces.append(_ipv6_piece(header, part, offset, identification, is_last=is_last))
    return tuple(pieces)


def _ipv4_piece(header: bytes, part: bytes, offset: int, *, is_last: bool) -> bytes:
    """RFC 791 §3.2: offset and MF, and beyond the first piece only options that are copied."""
    if offset:
        header = without_uncopied_options(header)
    place = offset // _UNIT_BYTES | (0 if is_last else _MORE_FRAGMENTS)
    length = len(header) + len(part)
    head = header[:2] + length.to_bytes(2, "big") + header[4:6] + place.to_bytes(2, "big") + header[8:10]
    checksum = internet_checksum(head + b"\0\0" + header[12:])
    return head + checksum.to_bytes(2, "big") + header[12:] + part


def _ipv6_piece(header: bytes, part: bytes, offset: int, identification: int, *, is_last: bool) -> bytes:
    """RFC 8200 §4.5: a Fragment header behind the headers that each hop must see."""
    field = _last_next_header_field(header)
    fragment_header = _FRAGMENT_HEADER.pack(header[field], 0, offset | (not is_last), identification)
    length = len(header) - IPV6_HEADER_BYTES + len(fragment_header) + len(part)
    head = bytearray(header)
    head[4:6] = length.to_bytes(2, "big")
    head[field] = PROTOCOL_FRAGMENT
    return bytes(head) + fragment_header + part


def _last_next_header_field(header: bytes) -> int:
    offset, field = IPV6_HEADER_BYTES, _NEXT_HEADER_FIELD
    while offset < len(header):
        field = offset
        offset += (header[offset + 1] + 1) * 8
    return field
