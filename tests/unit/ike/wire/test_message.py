"""Headers and whole messages."""

import pytest

from gateway.ike.errors import InvalidSyntax, LocalError, PeerError
from gateway.ike.wire.header import (
    HEADER_BYTES,
    NO_SPI,
    ExchangeType,
    HeaderFlag,
    IkeHeader,
    parse_header,
)
from gateway.ike.wire.message import (
    MAX_PAYLOADS,
    EncryptedFragment,
    EncryptedPayload,
    encode_encrypted_head,
    encode_message,
    encode_payloads,
    parse_message,
    parse_payloads,
)
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    KePayload,
    NoncePayload,
    NotifyPayload,
    PayloadType,
    UnknownPayload,
    VendorIdPayload,
)

HEADER = IkeHeader.build(
    spi_i=b"initiatr",
    spi_r=NO_SPI,
    exchange_type=ExchangeType.IKE_SA_INIT,
    is_initiator=True,
    is_response=False,
    message_id=0,
)
PAYLOADS = (
    KePayload(31, bytes(32)),
    NoncePayload(bytes(32)),
    NotifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP, bytes(20)),
    UnknownPayload(77, False, b"skip me"),
    UnknownPayload(78, True, b"mind me"),
)


def test_message_both_ways():
    datagram = encode_message(HEADER, PAYLOADS)

    message = parse_message(datagram)

    assert message.payloads == PAYLOADS
    assert message.datagram == datagram
    assert message.protected is None
    assert message.header.length == len(datagram)
    assert message.header.next_payload == PayloadType.KE
    assert (message.header.spi_i, message.header.spi_r) == (b"initiatr", NO_SPI)


def test_header_bytes_are_those_of_rfc_7296_figure_4():
    header = IkeHeader.build(
        spi_i=bytes(range(8)),
        spi_r=bytes(range(8, 16)),
        exchange_type=ExchangeType.INFORMATIONAL,
        is_initiator=False,
        is_response=True,
        message_id=0x01020304,
    )

    assert encode_message(header, ()).hex() == "000102030405060708090a0b0c0d0e0f00202520010203040000001c"


def test_flags_tell_role_and_direction():
    header = parse_header(encode_message(HEADER, ()))

    assert header.is_request
    assert not header.is_response
    assert header.from_initiator
    assert header.flags == HeaderFlag.INITIATOR


def test_unknown_flag_bits_are_ignored():
    datagram = bytearray(encode_message(HEADER, PAYLOADS))
    datagram[19] |= 0xC7

    assert parse_message(bytes(datagram)).header.is_request


def test_minor_version_is_ignored_and_major_version_is_not():
    datagram = bytearray(encode_message(HEADER, PAYLOADS))
    datagram[17] = 0x2F
    assert parse_message(bytes(datagram)).header.minor_version == 15

    datagram[17] = 0x30
    with pytest.raises(PeerError, match="major version is 3") as caught:
        parse_message(bytes(datagram))
    assert caught.value.notify == NotifyType.INVALID_MAJOR_VERSION


@pytest.mark.parametrize("length", [0, 27, 28, 100, 0xFFFFFFFF])
def test_header_length_other_than_the_datagram_s_is_invalid_syntax(length):
    datagram = bytearray(encode_message(HEADER, PAYLOADS))
    datagram[24:28] = length.to_bytes(4, "big")

    with pytest.raises(InvalidSyntax, match="IKE header says"):
        parse_message(bytes(datagram))


def test_every_truncation_is_invalid_syntax_even_with_the_length_adapted():
    datagram = encode_message(HEADER, PAYLOADS)

    for size in range(len(datagram)):
        cut = bytearray(datagram[:size])
        with pytest.raises(InvalidSyntax):
            parse_message(bytes(cut))
        if size >= HEADER_BYTES:
            cut[24:28] = size.to_bytes(4, "big")
            with pytest.raises(InvalidSyntax):
                parse_message(bytes(cut))


@pytest.mark.parametrize("lie", [0, 1, 3, 4, 0xFFFF])
def test_payload_length_lies_are_invalid_syntax(lie):
    datagram = bytearray(encode_message(HEADER, PAYLOADS))
    datagram[30:32] = lie.to_bytes(2, "big")

    with pytest.raises(InvalidSyntax):
        parse_message(bytes(datagram))


def test_bytes_after_the_last_payload_are_invalid_syntax():
    datagram = bytearray(encode_message(HEADER, (NoncePayload(bytes(16)),)) + b"more")
    datagram[24:28] = len(datagram).to_bytes(4, "big")

    with pytest.raises(InvalidSyntax, match="4 bytes too many"):
        parse_message(bytes(datagram))


def test_more_payloads_than_any_honest_message_has_are_invalid_syntax():
    fine = encode_message(HEADER, (VendorIdPayload(b""),) * MAX_PAYLOADS)
    assert len(parse_message(fine).payloads) == MAX_PAYLOADS

    too_many = encode_message(HEADER, (VendorIdPayload(b""),) * (MAX_PAYLOADS + 1))
    with pytest.raises(InvalidSyntax, match="more than 256 payloads"):
        parse_message(too_many)


def protected(body, *, fragment=None, first_payload=PayloadType.IDI):
    head = encode_encrypted_head(HEADER, first_payload=first_payload, body_bytes=len(body), fragment=fragment)
    return head + body


def test_encrypted_payload_stays_closed_and_knows_its_associated_data():
    datagram = protected(b"IV ciphertext ICV")

    message = parse_message(datagram)

    assert message.payloads == ()
    assert message.protected == EncryptedPayload(
        offset=28, first_payload=PayloadType.IDI, body=b"IV ciphertext ICV"
    )
    assert datagram[: message.protected.associated_bytes] == datagram[:32]


def test_fragment_stays_closed_and_covers_its_numbers():
    datagram = protected(b"part", fragment=(2, 3), first_payload=0)

    message = parse_message(datagram)

    assert message.protected == EncryptedFragment(offset=28, first_payload=0, number=2, total=3, body=b"part")
    assert message.protected.associated_bytes == 36


def test_payloads_before_the_encrypted_one_are_kept_apart():
    clear = encode_payloads((VendorIdPayload(b"v"),))
    whole = bytearray(protected(b"body"))
    datagram = whole[:28] + clear + whole[28:]
    datagram[16] = PayloadType.VENDOR_ID
    datagram[28] = PayloadType.SK
    datagram[24:28] = len(datagram).to_bytes(4, "big")

    message = parse_message(bytes(datagram))

    assert message.payloads == (VendorIdPayload(b"v"),)
    assert message.protected.offset == 28 + len(clear)


def test_encrypted_payload_must_be_the_last():
    datagram = bytearray(protected(b"body") + encode_payloads((VendorIdPayload(b"v"),)))
    datagram[24:28] = len(datagram).to_bytes(4, "big")

    with pytest.raises(InvalidSyntax, match="too many"):
        parse_message(bytes(datagram))


@pytest.mark.parametrize("fragment", [(0, 1), (2, 1), (1, 0)])
def test_impossible_fragment_numbers_are_invalid_syntax(fragment):
    with pytest.raises(InvalidSyntax, match="fragment"):
        parse_message(protected(b"part", fragment=fragment))


@pytest.mark.parametrize("inner", [PayloadType.SK, PayloadType.SKF])
def test_encrypted_payload_inside_an_encrypted_payload_is_invalid_syntax(inner):
    with pytest.raises(InvalidSyntax, match="inside"):
        parse_payloads(inner, b"\0\0\0\4")


def test_inner_chain_both_ways():
    assert parse_payloads(PayloadType.KE, encode_payloads(PAYLOADS)) == PAYLOADS
    assert parse_payloads(PayloadType.NONE, b"") == ()


def test_wrong_spi_size_is_our_mistake():
    header = IkeHeader(spi_i=b"short", exchange_type=34, flags=0, message_id=0)

    with pytest.raises(LocalError, match="SPI is 8 bytes"):
        encode_message(header, ())


def test_encrypted_payload_that_does_not_fit_its_length_field_is_our_mistake():
    with pytest.raises(LocalError, match="length field"):
        encode_encrypted_head(HEADER, first_payload=0, body_bytes=65535)
