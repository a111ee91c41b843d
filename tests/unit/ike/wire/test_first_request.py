"""The outline of an IKE_SA_INIT request against the full parser, which is its oracle."""

import random
from dataclasses import replace

import pytest

from gateway.ike.errors import PeerError
from gateway.ike.wire.first_request import encode_cookie_answer, is_first_request, outline
from gateway.ike.wire.header import ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    KePayload,
    NoncePayload,
    NotifyPayload,
    VendorIdPayload,
    find_notify,
    get_payload,
)

SPI_I = bytes.fromhex("00000000000000a1")
NONCE = NoncePayload(bytes(range(32)))
COOKIE = NotifyPayload(NotifyType.COOKIE, b"a cookie")
KE = KePayload(31, bytes(32))
HEADER = IkeHeader(
    spi_i=SPI_I, exchange_type=ExchangeType.IKE_SA_INIT, flags=HeaderFlag.INITIATOR, message_id=0
)


def request(*payloads, **changes):
    return encode_message(replace(HEADER, **changes), payloads)


def test_it_finds_what_a_cookie_depends_on():
    assert outline(request(COOKIE, KE, NONCE)) == (SPI_I, NONCE.data, b"a cookie")
    assert outline(request(KE, NONCE)) == (SPI_I, NONCE.data, b"")


def test_a_cookie_behind_the_nonce_is_none():
    # RFC 7296 §2.6: the COOKIE notification is the first payload.
    assert outline(request(KE, NONCE, COOKIE)) == (SPI_I, NONCE.data, b"")


@pytest.mark.parametrize(
    ("changes", "is_first"),
    [
        ({}, True),
        ({"exchange_type": ExchangeType.IKE_AUTH}, False),
        ({"flags": HeaderFlag.INITIATOR | HeaderFlag.RESPONSE}, False),
        ({"major_version": 3}, False),
    ],
)
def test_only_an_ike_sa_init_request_of_our_version_is_a_first_request(changes, is_first):
    assert is_first_request(request(NONCE, **changes)) is is_first


@pytest.mark.parametrize(
    "changes", [{"spi_r": bytes(7) + b"\x01"}, {"message_id": 1}, {"flags": HeaderFlag(0)}]
)
def test_a_header_that_no_initiator_sends_has_no_outline(changes):
    assert outline(request(KE, NONCE, **changes)) is None


@pytest.mark.parametrize("size", [15, 257])
def test_a_nonce_of_a_wrong_length_has_no_outline(size):
    # RFC 7296 §3.9: 16 to 256 octets.
    data = bytearray(request(KE, NoncePayload(bytes(256)), VendorIdPayload(b"")))
    nonce_at = 28 + 4 + 4 + 32
    if size == 15:
        data = data[: nonce_at + 4 + 15]
        data[nonce_at + 2 : nonce_at + 4] = (4 + 15).to_bytes(2)
    else:
        data[nonce_at + 2 : nonce_at + 4] = (4 + 257).to_bytes(2)
    data[24:28] = len(data).to_bytes(4)

    assert outline(bytes(data)) is None


def test_no_end_of_payloads_before_the_nonce_is_looked_at():
    assert outline(request(*[VendorIdPayload(b"v")] * 23, NONCE)) is not None
    assert outline(request(*[VendorIdPayload(b"v")] * 24, NONCE)) is None


def test_every_truncation_and_every_length_lie_is_refused_without_an_exception():
    whole = request(COOKIE, KE, NONCE)
    for size in range(28, len(whole)):
        assert outline(whole[:size]) is None
    for offset in (28, 28 + 16, 28 + 16 + 40):
        for lie in (0, 3, 0xFFFF):
            data = bytearray(whole)
            data[offset + 2 : offset + 4] = lie.to_bytes(2)
            assert outline(bytes(data)) is None


def test_whatever_the_full_parser_takes_has_the_same_outline():
    rng = random.Random(7296)
    whole = request(COOKIE, KE, NONCE)
    agreed = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randint(0, 2)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if not is_first_request(bytes(data)):
            continue
        found = outline(bytes(data))
        try:
            message = parse_message(bytes(data))
            nonce = get_payload(message.payloads, NoncePayload).data
        except PeerError:
            continue
        if found is None:
            header = message.header
            assert header.message_id or any(header.spi_r) or not header.from_initiator
            continue
        agreed += 1
        cookie = find_notify(message.payloads, NotifyType.COOKIE)
        assert (found.spi_i, found.nonce_i) == (message.header.spi_i, nonce)
        if cookie is not None and not cookie.spi:
            assert found.cookie == cookie.data
    assert agreed > 500


def test_the_answer_is_what_the_general_encoder_makes():
    cookie = bytes(range(33))
    header = IkeHeader(
        spi_i=SPI_I, exchange_type=ExchangeType.IKE_SA_INIT, flags=HeaderFlag.RESPONSE, message_id=0
    )

    answer = encode_cookie_answer(SPI_I, cookie)

    assert answer == encode_message(header, [NotifyPayload(NotifyType.COOKIE, cookie)])
