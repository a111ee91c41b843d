"""The outline of an IKE_SA_INIT request, read for less than a full parse costs (RFC 7296 §2.6).

While a flood has to be asked for cookies, all that matters of a request is its SPI, its nonce and its cookie.
This file finds them in the bytes without making a record of anything else and without an exception, and
writes the answer that asks for a cookie. Whatever passes is parsed in full afterwards, by `message`.
"""

import struct
from typing import Final, NamedTuple

from gateway.ike.wire.header import (
    HEADER_BYTES,
    HEADER_LAYOUT,
    MAJOR_VERSION,
    NO_SPI,
    ExchangeType,
    HeaderFlag,
)
from gateway.ike.wire.message import GENERIC_HEADER
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NONCE_BYTES, PayloadType

MAX_PASSED: Final = 24
"""So many payloads are looked at for the nonce; honest requests have it among the first five."""

_NOTIFY: Final = struct.Struct(">BBH")
_ANSWER: Final = struct.Struct(">8s8sBBBBIIBBHBBH")
_NOTIFY_HEAD_BYTES: Final = 8

_VERSION: Final = MAJOR_VERSION << 4
_INIT: Final = int(ExchangeType.IKE_SA_INIT)
_INITIATOR: Final = int(HeaderFlag.INITIATOR)
_RESPONSE: Final = int(HeaderFlag.RESPONSE)
_NONCE: Final = int(PayloadType.NONCE)
_NOTIFICATION: Final = int(PayloadType.NOTIFY)
_COOKIE: Final = int(NotifyType.COOKIE)


class FirstRequest(NamedTuple):
    """What a cookie depends on."""

    spi_i: bytes
    nonce_i: bytes
    cookie: bytes
    """Empty if there is none before the nonce: RFC 7296 §2.6 wants it to be the first payload."""


def is_first_request(datagram: bytes) -> bool:
    """Tell whether the header is one of an IKE_SA_INIT request of an initiator; nothing else is checked."""
    return (
        len(datagram) >= HEADER_BYTES
        and datagram[18] == _INIT
        and datagram[17] & 0xF0 == _VERSION
        and datagram[19] & _RESPONSE == 0
    )


def outline(datagram: bytes) -> FirstRequest | None:
    """Return what a cookie depends on; None if this is no well-formed request as far as that.

    Args:
        datagram: One of which `is_first_request` holds.
    """
    spi_i, spi_r, payload_type, _, _, flags, message_id, length = HEADER_LAYOUT.unpack_from(datagram)
    end = len(datagram)
    if length != end or message_id or spi_r != NO_SPI or not flags & _INITIATOR:
        return None
    position, cookie = HEADER_BYTES, b""
    for _ in range(MAX_PASSED):
        if position + 4 > end:
            return None
        following, _, size = GENERIC_HEADER.unpack_from(datagram, position)
        after = position + size
        if size < 4 or after > end:
            return None
        if payload_type == _NONCE:
            nonce_i = datagram[position + 4 : after]
            return FirstRequest(spi_i, nonce_i, cookie) if len(nonce_i) in NONCE_BYTES else None
        if payload_type == _NOTIFICATION and size > _NOTIFY_HEAD_BYTES and not cookie:
            _, spi_bytes, notify_type = _NOTIFY.unpack_from(datagram, position + 4)
            if notify_type == _COOKIE and not spi_bytes:
                cookie = datagram[position + _NOTIFY_HEAD_BYTES : after]
        payload_type, position = following, after
    return None


def encode_cookie_answer(spi_i: bytes, cookie: bytes) -> bytes:
    """Return the response HDR(SPIi, 0), N(COOKIE) to an IKE_SA_INIT request (RFC 7296 §2.6)."""
    notify_bytes = _NOTIFY_HEAD_BYTES + len(cookie)
    return (
        _ANSWER.pack(
            *(spi_i, NO_SPI, _NOTIFICATION, _VERSION, _INIT, _RESPONSE, 0, HEADER_BYTES + notify_bytes),
            *(0, 0, notify_bytes, 0, 0, _COOKIE),
        )
        + cookie
    )
