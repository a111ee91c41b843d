"""The IKE header: SPIs, version, exchange type, flags, Message ID, length (RFC 7296 §3.1)."""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.buffer import pack

HEADER_BYTES: Final = 28
SPI_BYTES: Final = 8
HEADER_LAYOUT: Final = struct.Struct("!8s8sBBBBII")
"""SPIs, next payload, version, exchange type, flags, Message ID, length."""
NO_SPI: Final = bytes(SPI_BYTES)
"""The responder's SPI before it has chosen one."""
MAJOR_VERSION: Final = 2
NON_ESP_MARKER: Final = bytes(4)
"""What precedes an IKE message on port 4500 (RFC 3948 §2.2); the shell strips and adds it."""


class ExchangeType(IntEnum):
    """IKEv2 Exchange Types (IANA)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_SESSION_RESUME = 38
    GSA_AUTH = 39
    GSA_REGISTRATION = 40
    GSA_REKEY = 41
    GSA_INBAND_REKEY = 42
    IKE_INTERMEDIATE = 43
    IKE_FOLLOWUP_KE = 44


class HeaderFlag(IntFlag):
    """Flags of the IKE header; the other bits are sent as zero and ignored on receipt."""

    INITIATOR = 0x08
    """Set by the original initiator of the IKE SA."""
    VERSION = 0x10
    """The sender could speak a higher major version."""
    RESPONSE = 0x20


# Plain numbers: testing the bits of an IntFlag runs Python code.
_INITIATOR: Final = int(HeaderFlag.INITIATOR)
_RESPONSE: Final = int(HeaderFlag.RESPONSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeHeader:
    """The header of one message. `next_payload` and `length` are filled in by the encoder."""

    spi_i: bytes
    spi_r: bytes = NO_SPI
    exchange_type: int
    """An `ExchangeType`, or a number it does not know."""
    flags: int
    """`HeaderFlag` bits, the unknown ones included as they came."""
    message_id: int
    next_payload: int = 0
    major_version: int = MAJOR_VERSION
    minor_version: int = 0
    length: int = 0

    @property
    def is_response(self) -> bool:
        """Tell a response from a request (the R flag)."""
        return bool(self.flags & _RESPONSE)

    @property
    def is_request(self) -> bool:
        """Tell a request from a response (the R flag)."""
        return not self.flags & _RESPONSE

    @property
    def from_initiator(self) -> bool:
        """Whether the original initiator of the IKE SA sent it (the I flag)."""
        return bool(self.flags & _INITIATOR)

    @classmethod
    def build(
        cls,
        *,
        spi_i: bytes,
        spi_r: bytes,
        exchange_type: ExchangeType,
        is_initiator: bool,
        is_response: bool,
        message_id: int,
    ) -> "IkeHeader":
        """Return the header of a message we send as `is_initiator` of the IKE SA."""
        flags = (_INITIATOR if is_initiator else 0) | (_RESPONSE if is_response else 0)
        return cls(spi_i=spi_i, spi_r=spi_r, exchange_type=exchange_type, flags=flags, message_id=message_id)


def parse_header(datagram: bytes) -> IkeHeader:
    """Read the first 28 bytes of a message, of any major version.

    The caller checks `major_version` (RFC 7296 §2.5) and that `length` is the datagram's.

    Raises:
        InvalidSyntax: The datagram is shorter than a header.
    """
    if len(datagram) < HEADER_BYTES:
        raise InvalidSyntax(f"datagram is {len(datagram)} bytes, an IKE header has {HEADER_BYTES}")
    (
        spi_i,
        spi_r,
        next_payload,
        version,
        exchange_type,
        flags,
        message_id,
        length,
    ) = HEADER_LAYOUT.unpack_from(datagram)
    return IkeHeader(
        spi_i=spi_i,
        spi_r=spi_r,
        next_payload=next_payload,
        major_version=version >> 4,
        minor_version=version & 0x0F,
        exchange_type=exchange_type,
        flags=flags,
        message_id=message_id,
        length=length,
    )


def encode_header(header: IkeHeader, *, next_payload: int, length: int) -> bytes:
    """Return the header as it goes out, with the type of the first payload and the length of the message."""
    if len(header.spi_i) != SPI_BYTES or len(header.spi_r) != SPI_BYTES:
        raise LocalError(f"an IKE SPI is {SPI_BYTES} bytes, got {len(header.spi_i)} and {len(header.spi_r)}")
    return pack(
        HEADER_LAYOUT,
        header.spi_i,
        header.spi_r,
        next_payload,
        header.major_version << 4 | header.minor_version,
        header.exchange_type,
        header.flags,
        header.message_id,
        length,
    )
