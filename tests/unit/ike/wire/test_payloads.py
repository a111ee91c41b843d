"""Known bytes of every payload, both ways; every truncation and every length lie."""

import contextlib
from ipaddress import ip_address

import pytest

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payload_codec import encode_payload, parse_payload
from gateway.ike.wire.payloads import (
    AuthPayload,
    CertPayload,
    CertreqPayload,
    ConfigurationAttribute,
    CpPayload,
    DeletePayload,
    EapPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    OtherSelector,
    PayloadType,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
    all_payloads,
    error_notify,
    find_notify,
    find_payload,
    get_payload,
)
from gateway.ike.wire.sa_payload import Attribute, WireProposal, WireTransform
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.identity import Identity, IdType
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.selectors import TrafficSelector

V4 = TrafficSelector(ip_address("10.1.0.0"), ip_address("10.1.0.255"), 6, 80, 443)
V6 = TrafficSelector(ip_address("2001:db8::"), ip_address("2001:db8::ffff"))
OPAQUE = TrafficSelector(ip_address("10.0.0.1"), ip_address("10.0.0.1"), 17, 65535, 0)

KNOWN = [
    (
        SaPayload(
            (
                WireProposal(
                    number=1,
                    protocol=1,
                    transforms=(
                        WireTransform(1, 20, (Attribute(14, 256),)),
                        WireTransform(2, 5),
                        WireTransform(4, 31),
                    ),
                ),
            )
        ),
        "00000024 01010003 0300000c 01000014 800e0100 03000008 02000005 00000008 0400001f",
    ),
    (KePayload(Ke.CURVE25519, b"\x55" * 32), "001f0000" + "55" * 32),
    (IdiPayload(2, b"gw.example"), "02000000 67772e6578616d706c65"),
    (IdrPayload(1, bytes([192, 0, 2, 1]), b"\1\2\3"), "01010203 c0000201"),
    (CertPayload(4, b"\x30\x00"), "04 3000"),
    (CertreqPayload(4, b"\xaa" * 20), "04" + "aa" * 20),
    (AuthPayload(2, b"\x11" * 32), "02000000" + "11" * 32),
    (NoncePayload(b"\x22" * 16), "22" * 16),
    (NotifyPayload(NotifyType.REKEY_SA, b"", 3, b"\1\2\3\4"), "03044009 01020304"),
    (NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, b"\x00\x13"), "00000011 0013"),
    (DeletePayload(3, (b"\0\0\1\0", b"\0\0\2\0")), "03040002 00000100 00000200"),
    (DeletePayload(1), "01000000"),
    (VendorIdPayload(b"strongSwan"), "7374726f6e675377616e"),
    (
        TsiPayload((V4, V6)),
        "02000000 07060010005001bb0a0100000a0100ff"
        " 080000280000ffff20010db800000000000000000000000020010db800000000000000000000ffff",
    ),
    (TsrPayload((OPAQUE,)), "01000000 07110010ffff00000a0000010a000001"),
    (
        TsrPayload((V4,), (OtherSelector(10, b"\0label"),)),
        "02000000 07060010005001bb0a0100000a0100ff 0a0000096c6162656c",
    ),
    (
        CpPayload(1, (ConfigurationAttribute(1), ConfigurationAttribute(3, b"\x08\x08\x08\x08"))),
        "01000000 00010000 0003000408080808",
    ),
    (EapPayload(b"\x03\x05\x00\x04"), "03050004"),
    (UnknownPayload(200, True, b"any"), "616e79"),
]
IDS = [f"{index}-{type(payload).__name__}" for index, (payload, _) in enumerate(KNOWN)]


def parse(payload_type, data, critical=False):
    return parse_payload(payload_type, critical, data)


@pytest.mark.parametrize(("payload", "octets"), KNOWN, ids=IDS)
def test_known_bytes_both_ways(payload, octets):
    data = bytes.fromhex(octets)

    assert encode_payload(payload) == data
    assert parse(payload.type, data, critical=payload == KNOWN[-1][0]) == payload


@pytest.mark.parametrize(("payload", "octets"), KNOWN, ids=IDS)
def test_every_truncation_is_shorter_or_invalid_syntax(payload, octets):
    """Where a body ends in free data, a truncation is another payload; never the same, never a crash."""
    data = bytes.fromhex(octets)
    for size in range(len(data)):
        with contextlib.suppress(InvalidSyntax):
            assert parse(payload.type, data[:size]) != payload


@pytest.mark.parametrize(("payload", "octets"), KNOWN, ids=IDS)
def test_every_changed_byte_parses_or_is_invalid_syntax(payload, octets):
    """Among these are all the lies a length, count or marker can tell."""
    data = bytes.fromhex(octets)
    for position in range(len(data)):
        for value in (0, 1, 0x7F, 0xFF, data[position] ^ 1, (data[position] + 1) & 0xFF):
            changed = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                parsed = parse(payload.type, changed)
                encode_payload(parsed)
            except InvalidSyntax:
                pass


@pytest.mark.parametrize(
    ("payload_type", "octets", "reason"),
    [
        (PayloadType.SA, "", "SA payload: 8 bytes wanted, 0 left"),
        (PayloadType.SA, "01000008 01010000", "last-substructure byte is 1"),
        (PayloadType.SA, "00000004", "SA payload: 8 bytes wanted, 4 left"),
        (PayloadType.SA, "00000007 01010000", "-1 bytes wanted"),
        (PayloadType.SA, "00000008 01010001", "proposal: 8 bytes wanted, 0 left"),
        (PayloadType.SA, "00000010 01010001 00000007 01000014", "-1 bytes wanted"),
        (PayloadType.SA, "00000010 01010002 00000008 01000014", "2 transforms announced, 1 found"),
        (PayloadType.SA, "00000018 01010001 03000008 01000014 00000008 02000005", "1 transforms announced"),
        (PayloadType.SA, "0000000c 01030400 01020304 00", "1 bytes too many"),
        (PayloadType.SA, "0000000a 01030200 0102", "SPI of protocol 3 is 2 bytes"),
        (PayloadType.SA, "00000010 01010001 02000008 01000014", "last-substructure byte is 2"),
        (PayloadType.NONCE, "22" * 15, "nonce is 15 bytes"),
        (PayloadType.NONCE, "22" * 257, "nonce is 257 bytes"),
        (PayloadType.DELETE, "01080001 0102030405060708", "delete: 1 SPIs of 8 bytes"),
        (PayloadType.DELETE, "03080001 0102030405060708", "delete: 1 SPIs of 8 bytes"),
        (PayloadType.DELETE, "03040002 00000100", "4 bytes wanted, 0 left"),
        (PayloadType.TSI, "00000000", "no traffic selector"),
        (PayloadType.TSI, "01000000 07000010 0000ffff 0a0000ff 0a000000", "upwards"),
        (PayloadType.TSI, "01000000 07000010 00020001 0a000000 0a0000ff", "upwards"),
        (PayloadType.TSI, "01000000 0700000c 0000ffff 0a000000", "4 bytes wanted, 0 left"),
        (PayloadType.EAP, "030500", "EAP message is 3 bytes"),
    ],
)
def test_broken_body_is_invalid_syntax_with_the_reason(payload_type, octets, reason):
    with pytest.raises(InvalidSyntax, match=reason) as caught:
        parse(payload_type, bytes.fromhex(octets))

    assert caught.value.notify == NotifyType.INVALID_SYNTAX


def test_reserved_bits_are_ignored_on_receipt():
    ke = bytes.fromhex("001fffff" + "55" * 32)
    auth = bytes.fromhex("02ffffff" + "11" * 4)

    assert parse(PayloadType.KE, ke) == KePayload(31, b"\x55" * 32)
    assert parse(PayloadType.AUTH, auth) == AuthPayload(2, b"\x11" * 4)


def test_configuration_attribute_keeps_15_bits_of_its_type():
    assert parse(PayloadType.CP, bytes.fromhex("01000000 80010000")).attributes[0].type == 1


def test_id_body_is_what_was_received_reserved_octets_included():
    payload = parse(PayloadType.IDI, bytes.fromhex("02aabbcc 6777"))

    assert payload.body == bytes.fromhex("02aabbcc 6777")
    assert payload.identity == Identity(IdType.FQDN, b"gw")


@pytest.mark.parametrize(
    "octets", ["00000000", "00000000 aa", "04000000 aa", "01000000 c00002", "05000000 00"]
)
def test_identity_that_no_peer_may_send_is_invalid_syntax(octets):
    """Type 0 is IANA-reserved and means `any` in our own vocabulary: it must never come from outside."""
    payload = parse(PayloadType.IDR, bytes.fromhex(octets))

    with pytest.raises(InvalidSyntax):
        _ = payload.identity


def test_identity_goes_out_as_its_payload():
    identity = Identity(IdType.RFC822_ADDR, b"ops@example.org")

    assert IdiPayload.of(identity).identity == identity
    assert encode_payload(IdrPayload.of(identity)) == b"\x03\0\0\0ops@example.org"


def test_nonce_of_wrong_length_is_never_sent():
    with pytest.raises(LocalError, match="nonce is 8 bytes"):
        encode_payload(NoncePayload(bytes(8)))


def test_looking_into_a_message():
    nonce = NoncePayload(bytes(16))
    cookie = NotifyPayload(NotifyType.COOKIE, b"c")
    refusal = NotifyPayload(NotifyType.NO_PROPOSAL_CHOSEN)
    payloads = (cookie, nonce, refusal)

    assert find_payload(payloads, NoncePayload) is nonce
    assert find_payload(payloads, KePayload) is None
    assert get_payload(payloads, NoncePayload) is nonce
    assert all_payloads(payloads, NotifyPayload) == (cookie, refusal)
    assert find_notify(payloads, NotifyType.COOKIE) is cookie
    assert find_notify(payloads, NotifyType.REKEY_SA) is None
    assert error_notify(payloads) is refusal
    assert error_notify((cookie,)) is None
    with pytest.raises(InvalidSyntax, match="Ke payload is missing"):
        get_payload(payloads, KePayload)


def test_unknown_error_types_are_errors_and_have_a_name():
    unknown_error, unknown_status = NotifyPayload(8191), NotifyPayload(40960)

    assert unknown_error.is_error
    assert unknown_error.name == "ERROR_8191"
    assert not unknown_status.is_error
    assert unknown_status.name == "STATUS_40960"
    assert NotifyPayload(NotifyType.COOKIE).name == "COOKIE"


def test_delete_of_child_sas_has_protocol_and_four_byte_spis():
    assert encode_payload(DeletePayload(ProtocolId.ESP, (b"\1\2\3\4",))).hex() == "0304000101020304"
