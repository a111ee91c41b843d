"""Whole messages and chains of payloads, to and from bytes (RFC 7296 §3.1, §3.2, §3.14).

Parsing says what the bytes are: unknown payloads are kept, the Encrypted payload stays closed. What a
message may hold is checked by `rules`; opening and sealing is done by `protected`. `Message.datagram`
keeps exactly the bytes that came: those of IKE_SA_INIT are signed in AUTH (§2.15).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ike.errors import InvalidSyntax, LocalError, PeerError
from gateway.ike.wire.buffer import Reader, pack
from gateway.ike.wire.header import (
    HEADER_BYTES,
    MAJOR_VERSION,
    IkeHeader,
    encode_header,
    parse_header,
)
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payload_codec import critical_octet, encode_payload, is_critical_bit, parse_payload
from gateway.ike.wire.payloads import Payload, PayloadType

GENERIC_HEADER: Final = struct.Struct("!BBH")
"""Next payload, C bit, length (RFC 7296 §3.2)."""
GENERIC_HEADER_BYTES: Final = GENERIC_HEADER.size
_FRAGMENT_HEADER: Final = struct.Struct("!HH")
"""Fragment Number and Total Fragments (RFC 7383 §2.5)."""
FRAGMENT_HEADER_BYTES: Final = _FRAGMENT_HEADER.size
MAX_PAYLOADS: Final = 256
"""More than any honest message holds; bounds the work a stranger's 64 KiB can cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedPayload:
    """SK as it came: everything after the generic header still closed (§3.14)."""

    offset: int
    """Where its generic header starts in the datagram; what precedes the body is authenticated only."""
    first_payload: int
    """Type of the first payload inside."""
    body: bytes
    """IV, ciphertext, ICV."""

    @property
    def associated_bytes(self) -> int:
        """Return how many bytes of the datagram are associated data (RFC 5282 §5.1)."""
        return self.offset + GENERIC_HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedFragment:
    """SKF as it came (RFC 7383 §2.5)."""

    offset: int
    first_payload: int
    """Type of the first payload inside the whole message in fragment 1, else 0."""
    number: int
    """From 1."""
    total: int
    body: bytes

    @property
    def associated_bytes(self) -> int:
        """Return how many bytes of the datagram are associated data (RFC 7383 §2.5)."""
        return self.offset + GENERIC_HEADER_BYTES + FRAGMENT_HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as it came."""

    header: IkeHeader
    payloads: tuple[Payload, ...]
    """The payloads outside SK or SKF."""
    protected: EncryptedPayload | EncryptedFragment | None
    datagram: bytes
    """Exactly the bytes that came, the non-ESP marker excluded."""


def parse_message(datagram: bytes, header: IkeHeader | None = None) -> Message:
    """Take a datagram apart as far as is possible without keys.

    Args:
        datagram: All of it.
        header: Its header, where that was read already.

    Raises:
        PeerError: INVALID_MAJOR_VERSION for a version other than 2 (§2.5), else INVALID_SYNTAX.
    """
    if header is None:
        header = parse_header(datagram)
    if header.major_version != MAJOR_VERSION:
        raise PeerError(
            f"IKE major version is {header.major_version}, we speak {MAJOR_VERSION}",
            NotifyType.INVALID_MAJOR_VERSION,
        )
    if header.length != len(datagram):
        raise InvalidSyntax(f"IKE header says {header.length} bytes, the datagram has {len(datagram)}")
    payloads: list[Payload] = []
    protected: EncryptedPayload | EncryptedFragment | None = None
    reader = Reader(datagram, "IKE message", HEADER_BYTES)
    payload_type = header.next_payload
    while payload_type != PayloadType.NONE:
        if payload_type in (PayloadType.SK, PayloadType.SKF):
            protected = _parse_protected(payload_type, reader)
            break
        payload_type = _parse_one(payload_type, reader, payloads)
    reader.finish()
    return Message(header=header, payloads=tuple(payloads), protected=protected, datagram=datagram)


def parse_payloads(first_payload: int, data: bytes) -> tuple[Payload, ...]:
    """Read a chain of payloads: the plaintext of an SK payload, padding removed.

    Raises:
        InvalidSyntax: The chain is broken, or holds another Encrypted payload.
    """
    payloads: list[Payload] = []
    reader = Reader(data, "payload chain")
    payload_type = first_payload
    while payload_type != PayloadType.NONE:
        if payload_type in (PayloadType.SK, PayloadType.SKF):
            raise InvalidSyntax("an Encrypted payload stands inside an Encrypted payload")
        payload_type = _parse_one(payload_type, reader, payloads)
    reader.finish()
    return tuple(payloads)


def _parse_one(payload_type: int, reader: Reader, payloads: list[Payload]) -> int:
    """Read one payload with its generic header; return the type of the next one."""
    if len(payloads) == MAX_PAYLOADS:
        raise InvalidSyntax(f"more than {MAX_PAYLOADS} payloads in one message")
    next_payload, octet, length = reader.unpack(GENERIC_HEADER)
    body = reader.take(length - GENERIC_HEADER_BYTES)
    payloads.append(parse_payload(payload_type, is_critical_bit(octet), body))
    following: int = next_payload
    return following


def _parse_protected(payload_type: int, reader: Reader) -> EncryptedPayload | EncryptedFragment:
    offset = reader.position
    first_payload, _, length = reader.unpack(GENERIC_HEADER)
    body = reader.sub(length - GENERIC_HEADER_BYTES, "Encrypted payload")
    # SK and SKF are the last payload of a message (§3.14).
    reader.finish()
    if payload_type == PayloadType.SK:
        return EncryptedPayload(offset=offset, first_payload=first_payload, body=body.rest())
    number, total = body.unpack(_FRAGMENT_HEADER)
    if not 1 <= number <= total:
        raise InvalidSyntax(f"fragment {number} of {total}")
    return EncryptedFragment(
        offset=offset, first_payload=first_payload, number=number, total=total, body=body.rest()
    )


# --- writing ------------------------------------------------------------------------------------


def encode_message(header: IkeHeader, payloads: Sequence[Payload]) -> bytes:
    """Return an unprotected message; the header's next payload and length are filled in."""
    chain = encode_payloads(payloads)
    length = HEADER_BYTES + len(chain)
    return encode_header(header, next_payload=first_type(payloads), length=length) + chain


def encode_payloads(payloads: Sequence[Payload]) -> bytes:
    """Return a chain of payloads: the plaintext of an SK payload, without padding."""
    parts: list[bytes] = []
    following: int = PayloadType.NONE
    # Backwards, since the generic header of each names the type of the one behind it.
    for payload in reversed(payloads):
        body = encode_payload(payload)
        parts.append(body)
        length = GENERIC_HEADER_BYTES + len(body)
        parts.append(pack(GENERIC_HEADER, following, critical_octet(payload), length))
        following = payload.type
    parts.reverse()
    return b"".join(parts)


def first_type(payloads: Sequence[Payload]) -> int:
    """Return the type of the first payload, as the thing before it announces it; 0 for none."""
    return payloads[0].type if payloads else PayloadType.NONE


def encode_encrypted_head(
    header: IkeHeader, *, first_payload: int, body_bytes: int, fragment: tuple[int, int] | None = None
) -> bytes:
    """Return everything of a protected message that precedes the IV: its associated data.

    Args:
        header: Next payload and length are filled in.
        first_payload: Type of the first payload inside.
        body_bytes: Length of IV, ciphertext and ICV together.
        fragment: Number and total of an SKF payload; None for SK.
    """
    payload_type = PayloadType.SK if fragment is None else PayloadType.SKF
    payload_bytes = GENERIC_HEADER_BYTES + (0 if fragment is None else FRAGMENT_HEADER_BYTES) + body_bytes
    if payload_bytes > 0xFFFF:
        raise LocalError(f"an Encrypted payload of {payload_bytes} bytes does not fit into its length field")
    head = encode_header(header, next_payload=payload_type, length=HEADER_BYTES + payload_bytes)
    head += pack(GENERIC_HEADER, first_payload, 0, payload_bytes)
    return head if fragment is None else head + pack(_FRAGMENT_HEADER, *fragment)
