"""UDP encapsulation of ESP: what arrives on port 4500, and the header we put on (RFC 3948)."""

from enum import Enum
from struct import Struct
from typing import Final

from gateway.esp.checksum import internet_checksum, ones_sum
from gateway.esp.packet import PROTOCOL_UDP, UDP_HEADER_BYTES
from gateway.ipsec.sa import UdpEncapsulation

NON_ESP_MARKER: Final = b"\0\0\0\0"
"""Precedes IKE on port 4500, where an ESP packet has its SPI (RFC 3948 §2.2)."""
KEEPALIVE: Final = b"\xff"
"""A NAT-keepalive packet (RFC 3948 §2.3)."""
UDP_HEADER: Final = Struct("!HHHH")
"""Source port, destination port, length, checksum."""
_MIN_ESP_BYTES: Final = 8


class Payload(Enum):
    """What a datagram on port 4500 is."""

    ESP = "esp"
    IKE = "ike"
    """The non-ESP marker, to be taken off, and then an IKE message."""
    KEEPALIVE = "keepalive"
    MALFORMED = "malformed"


def classify(datagram: bytes) -> Payload:
    """Return what the payload of a UDP datagram on port 4500 is (RFC 3948 §2, §4)."""
    if len(datagram) >= _MIN_ESP_BYTES:
        return Payload.IKE if datagram.startswith(NON_ESP_MARKER) else Payload.ESP
    if datagram == KEEPALIVE:
        return Payload.KEEPALIVE
    return Payload.MALFORMED


def make_udp_header(ports: UdpEncapsulation, esp: bytes, ipv6_addresses: bytes = b"") -> bytes:
    """Return the UDP header that goes before an ESP packet.

    Args:
        ports: Source and destination port.
        esp: What follows.
        ipv6_addresses: Source and destination, packed, 32 bytes; empty for IPv4. Over IPv4 the checksum is
            sent as zero, since the ICV is stronger and a NAT need not touch it (RFC 3948 §2.1); over IPv6
            zero is not legal (RFC 8200 §8.1), so it is computed.
    """
    length = UDP_HEADER_BYTES + len(esp)
    header = UDP_HEADER.pack(ports.source_port, ports.destination_port, length, 0)
    if not ipv6_addresses:
        return header
    pseudo_sum = ones_sum(ipv6_addresses) + PROTOCOL_UDP + length
    checksum = internet_checksum(header + esp, pseudo_sum) or 0xFFFF
    return UDP_HEADER.pack(ports.source_port, ports.destination_port, length, checksum)
