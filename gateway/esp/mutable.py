"""What the ICV of AH covers of the headers before it: mutable fields zeroed, predictable ones predicted.

RFC 4302 §3.3.3.1 and Appendix A. Where a source route or a routing header is still to be followed, the sender
authenticates what the receiver will see: the last address as destination, and the list as the hops leave it.

```
 IPv4:  version, IHL |(TOS)| length | identification |(flags, offset)|(TTL)| protocol |(checksum)|
        source | destination* | options
 IPv6:  version |(class, flow label)| length | next header |(hop limit)|
        source | destination* | extension headers
```
In parentheses: zero in the ICV. With a star: predicted. An IPv4 option is covered whole or is zero whole; of
an IPv6 option that may change en route the data is zero, type and length are covered.
"""

from collections.abc import Iterator
from typing import Final

from gateway.esp.errors import PacketDropped
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    PROTOCOL_DESTINATION_OPTIONS,
    PROTOCOL_FRAGMENT,
    PROTOCOL_HOP_BY_HOP,
    PROTOCOL_ROUTING,
)
from gateway.ipsec.drop_reason import DropReason

_NEXT_HEADER_FIELD: Final = 6
_MAX_EXTENSION_HEADERS: Final = 10

# IPv4 options by their type octet: copied flag, class and number (RFC 791 §3.1).
_END_OF_OPTIONS: Final = 0
_NO_OPERATION: Final = 1
_LOOSE_SOURCE_ROUTE: Final = 131
_STRICT_SOURCE_ROUTE: Final = 137
IMMUTABLE_IPV4_OPTIONS: Final = frozenset(
    {
        _END_OF_OPTIONS,
        _NO_OPERATION,
        130,  # Security (RFC 1108)
        133,  # Extended Security (RFC 1108)
        134,  # Commercial Security
        148,  # Router Alert (RFC 2113)
        149,  # Sender Directed Multi-Destination Delivery (RFC 1770)
    }
)
"""Covered whole. All others are zero: those RFC 4302 Appendix A1 calls mutable, and any that it lacks."""
_SOURCE_ROUTES: Final = frozenset({_LOOSE_SOURCE_ROUTE, _STRICT_SOURCE_ROUTE})
_COPIED: Final = 0x80
_ADDRESS_BYTES_V4: Final = 4
_SHORTEST_SOURCE_ROUTE: Final = 7
"""Type, length, pointer and one address."""

# IPv6 options (RFC 8200 §4.2).
_PAD_1: Final = 0
_MAY_CHANGE: Final = 0x20
_ADDRESS_BYTES_V6: Final = 16
_PREDICTABLE_ROUTING: Final = frozenset({0, 2})
"""Source route (RFC 2460 §4.4; deprecated, so that nobody follows it) and Mobile IPv6 (RFC 6275 §6.4)."""


def outbound_cover(header: bytes) -> bytes:
    """Return what the ICV covers of the headers of a packet that we send.

    Args:
        header: IPv4 header with options, or IPv6 header with extension headers, up to AH; lengths and
            protocol as they go out.

    Raises:
        PacketDropped: MALFORMED or UNSUPPORTED.
    """
    return _cover_ipv4(header, sending=True) if header[0] >> 4 == 4 else _cover_ipv6(header, sending=True)


def inbound_cover(header: bytes) -> bytes:
    """Return what the ICV covers of the headers of a packet that reached its destination.

    Raises:
        PacketDropped: MALFORMED, UNSUPPORTED, or FRAGMENT (RFC 4302 §3.4.1).
    """
    if header[0] >> 4 == 4:
        if header[6] & 0x3F or header[7]:
            raise PacketDropped(DropReason.FRAGMENT, "a fragment that should have been reassembled before AH")
        return _cover_ipv4(header, sending=False)
    return _cover_ipv6(header, sending=False)


# --- IPv4 (RFC 4302 §3.3.3.1.1, Appendix A1) --------------------------------------------------------


def _cover_ipv4(header: bytes, *, sending: bool) -> bytes:
    destination, options = header[16:20], b""
    for kind, option in ipv4_options(header):
        if sending and kind in _SOURCE_ROUTES:
            destination = _last_hop(option) or destination
        options += option if kind in IMMUTABLE_IPV4_OPTIONS else bytes(len(option))
    # Version and IHL, (TOS), length, identification, (flags, offset, TTL), protocol, (checksum), source.
    fixed = header[:1] + b"\0" + header[2:6] + b"\0\0\0" + header[9:10] + b"\0\0" + header[12:16]
    return fixed + destination + options


def ipv4_options(header: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of each option; what follows the End of Options List comes with it.

    Raises:
        PacketDropped: MALFORMED.
    """
    at = IPV4_HEADER_BYTES
    while at < len(header):
        kind = header[at]
        if kind == _END_OF_OPTIONS:
            yield kind, header[at:]
            return
        length = 1 if kind == _NO_OPERATION else header[at + 1] if at + 1 < len(header) else 0
        if (kind != _NO_OPERATION and length < 2) or at + length > len(header):
            raise PacketDropped(DropReason.MALFORMED, f"IPv4 option {kind} has the length {length}")
        yield kind, header[at : at + length]
        at += length


def without_uncopied_options(header: bytes) -> bytes:
    """Return the IPv4 header of a fragment other than the first: options that are not copied become NOPs."""
    options = b"".join(
        option if kind & _COPIED or kind == _END_OF_OPTIONS else bytes((_NO_OPERATION,)) * len(option)
        for kind, option in ipv4_options(header)
    )
    return header[:IPV4_HEADER_BYTES] + options


def _last_hop(option: bytes) -> bytes | None:
    """Return where a source route ends; `None` where it was followed to its end already (RFC 791 §3.1)."""
    if len(option) < _SHORTEST_SOURCE_ROUTE:
        raise PacketDropped(DropReason.MALFORMED, f"source route of {len(option)} bytes")
    pointer = option[2]
    return None if pointer > len(option) else option[-_ADDRESS_BYTES_V4:]


# --- IPv6 (RFC 4302 §3.3.3.1.2, Appendix A2) --------------------------------------------------------


def _cover_ipv6(header: bytes, *, sending: bool) -> bytes:
    destination, extensions = header[24:40], b""
    for kind, extension in ipv6_extension_headers(header):
        if kind == PROTOCOL_ROUTING:
            covered, destination = _routing(extension, destination, sending=sending)
        else:
            covered = _options(extension)
        extensions += covered
    # Version, (class, flow label), length, next header, (hop limit), source.
    return b"\x60\0\0\0" + header[4:7] + b"\0" + header[8:24] + destination + extensions


def ipv6_extension_headers(header: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of each extension header of a chain that ends where `header` does.

    Raises:
        PacketDropped: MALFORMED, FRAGMENT, or UNSUPPORTED: none that may stand before AH (RFC 4302 §3.1.1).
    """
    kind, at = header[_NEXT_HEADER_FIELD], IPV6_HEADER_BYTES
    for _ in range(_MAX_EXTENSION_HEADERS):
        if at == len(header):
            return
        if kind == PROTOCOL_FRAGMENT:
            raise PacketDropped(DropReason.FRAGMENT, "a fragment that should have been reassembled before AH")
        if kind not in (PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_DESTINATION_OPTIONS):
            raise PacketDropped(DropReason.UNSUPPORTED, f"extension header {kind} before AH")
        length = (header[at + 1] + 1) * 8 if at + 8 <= len(header) else 0
        if not length or at + length > len(header):
            raise PacketDropped(DropReason.MALFORMED, f"extension header {kind} is truncated")
        yield kind, header[at : at + length]
        kind, at = header[at], at + length
    if at != len(header):
        raise PacketDropped(DropReason.UNSUPPORTED, f"more than {_MAX_EXTENSION_HEADERS} extension headers")


def _options(extension: bytes) -> bytes:
    """Zero the data of each option whose third-highest bit says that it may change (RFC 8200 §4.2)."""
    covered, at = bytearray(extension), 2
    while at < len(extension):
        if extension[at] == _PAD_1:
            at += 1
            continue
        data = at + 2
        end = data + extension[at + 1] if data <= len(extension) else data
        if end > len(extension):
            raise PacketDropped(DropReason.MALFORMED, f"IPv6 option {extension[at]:#x} is truncated")
        if extension[at] & _MAY_CHANGE:
            covered[data:end] = bytes(end - data)
        at = end
    return bytes(covered)


def _routing(extension: bytes, destination: bytes, *, sending: bool) -> tuple[bytes, bytes]:
    """Return a routing header, and the destination, as both are on arrival (RFC 4302 §3.3.3.1.2).

    Each hop swaps the destination with its entry of the list and counts the segments left down.
    """
    kind, segments_left = extension[2], extension[3]
    if kind not in _PREDICTABLE_ROUTING:
        raise PacketDropped(DropReason.UNSUPPORTED, f"routing header of type {kind} under AH")
    addresses = [extension[at : at + _ADDRESS_BYTES_V6] for at in range(8, len(extension), _ADDRESS_BYTES_V6)]
    if any(len(address) < _ADDRESS_BYTES_V6 for address in addresses) or segments_left > len(addresses):
        raise PacketDropped(
            DropReason.MALFORMED,
            f"routing header with {segments_left} segments left in {len(extension)} bytes",
        )
    if not sending:
        if segments_left:
            raise PacketDropped(
                DropReason.MALFORMED, f"routing header has {segments_left} segments left here"
            )
        return extension, destination
    for hop in range(len(addresses) - segments_left, len(addresses)):
        addresses[hop], destination = destination, addresses[hop]
    return extension[:3] + b"\0" + extension[4:8] + b"".join(addresses), destination
