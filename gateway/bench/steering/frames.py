"""Frames for XDP programs to look at: Ethernet, IP, and what a next layer begins with."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

IpAddress = IPv4Address | IPv6Address

IPSEC: Final = 50
UDP: Final = 17
_MACS: Final = bytes.fromhex("020000000001 020000000002")
_UDP_HEADER: Final = struct.pack(">HHHH", 1025, 1024, 26, 0)
_PAYLOAD: Final = bytes(18)
_HOPS: Final = 64


def frame(source: IpAddress, destination: IpAddress, protocol: int, upper: bytes = _UDP_HEADER) -> bytes:
    """Return a frame. Checksums are zero: nobody who decides where it goes looks at them."""
    content = upper + _PAYLOAD
    if source.version == 4:
        ethertype = 0x0800
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, _HOPS, protocol, 0)
    else:
        ethertype = 0x86DD
        header = struct.pack(">IHBB", 6 << 28, len(content), protocol, _HOPS)
    link = _MACS + struct.pack(">H", ethertype)
    return link + header + source.packed + destination.packed + content
