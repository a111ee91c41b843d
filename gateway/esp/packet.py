"""The layout of an ESP packet: header, IV, payload, trailer, ICV (RFC 4303 §2). Nothing about keys.

```
  0                   1                   2                   3
 |                  Security Parameters Index                    | --- header, 8 bytes
 |                      Sequence Number                          |
 |                      IV (0, 8 or 16 bytes)                    |
 |  payload data, TFC padding (tunnel mode), padding 1,2,3, ...  |
 |              ... | Pad Length | Next Header                   | --- trailer, ends on a 4-byte boundary
 |                      ICV (8 to 32 bytes)                      |
```
"""

from struct import Struct
from typing import Final, NamedTuple

from gateway.esp.errors import PacketDropped
from gateway.ipsec.drop_reason import DropReason

HEADER: Final = Struct("!II")
"""SPI and the low 32 bits of the sequence number."""
HEADER_BYTES: Final = HEADER.size
TRAILER_BYTES: Final = 2
"""Pad Length and Next Header, after the padding itself."""

PROTOCOL_HOP_BY_HOP: Final = 0
PROTOCOL_ICMP: Final = 1
PROTOCOL_IPV4: Final = 4
"""IPv4 inside a tunnel (RFC 4303 §2.6)."""
PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
PROTOCOL_DCCP: Final = 33
PROTOCOL_IPV6: Final = 41
"""IPv6 inside a tunnel."""
PROTOCOL_ROUTING: Final = 43
PROTOCOL_FRAGMENT: Final = 44
PROTOCOL_ESP: Final = 50
PROTOCOL_AH: Final = 51
PROTOCOL_ICMPV6: Final = 58
PROTOCOL_NONE: Final = 59
"""No next header: a dummy packet, made to hide traffic (RFC 4303 §2.6)."""
PROTOCOL_DESTINATION_OPTIONS: Final = 60
PROTOCOL_SCTP: Final = 132
PROTOCOL_MOBILITY: Final = 135
PROTOCOL_UDP_LITE: Final = 136

IPV4_HEADER_BYTES: Final = 20
IPV6_HEADER_BYTES: Final = 40
UDP_HEADER_BYTES: Final = 8
MAX_IP_PACKET_BYTES: Final = 65535

PADDING: Final = tuple(bytes(range(1, n + 1)) for n in range(256))
"""The default padding 1, 2, 3, ... by length (RFC 4303 §2.4)."""
_TRAILER_START: Final = tuple(padding + bytes((n,)) for n, padding in enumerate(PADDING))
_NEXT_HEADER: Final = tuple(bytes((n,)) for n in range(256))


class Layout(NamedTuple):
    """The sizes a suite gives to the variable parts of the packet, in bytes."""

    iv_bytes: int
    icv_bytes: int
    alignment_bytes: int
    """Payload, padding and trailer together are a multiple of this: the cipher's block, at least 4."""

    @property
    def overhead_bytes(self) -> int:
        """Return what ESP adds besides padding."""
        return HEADER_BYTES + self.iv_bytes + TRAILER_BYTES + self.icv_bytes


def trailer(payload_bytes: int, next_header: int, alignment_bytes: int) -> bytes:
    """Return padding, Pad Length and Next Header for a payload of that size (RFC 4303 §2.4–2.6)."""
    return _TRAILER_START[-(payload_bytes + TRAILER_BYTES) % alignment_bytes] + _NEXT_HEADER[next_header]


def strip_trailer(plaintext: bytes) -> tuple[bytes, int]:
    """Return payload data (with any TFC padding) and next header of a decrypted packet.

    Pad bytes must be 1, 2, 3, ...: the inspection that RFC 4303 §2.4 recommends.

    Raises:
        PacketDropped: PADDING.
    """
    end = len(plaintext) - TRAILER_BYTES
    if end < 0:
        raise PacketDropped(DropReason.PADDING, f"{len(plaintext)} bytes are no trailer")
    pad_length = plaintext[end]
    start = end - pad_length
    if start < 0:
        raise PacketDropped(DropReason.PADDING, f"pad length {pad_length} exceeds the payload")
    if plaintext[start:end] != PADDING[pad_length]:
        raise PacketDropped(DropReason.PADDING, "pad bytes are not 1, 2, 3, ...")
    return plaintext[:start], plaintext[end + 1]
