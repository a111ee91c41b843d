"""Notify types and the codecs of their data."""

from ipaddress import ip_address

import pytest

from gateway.ike.errors import InvalidSyntax
from gateway.ike.wire import notify
from gateway.ike.wire.notify import NotifyType, PpkIdentity, describe_data


def test_data_codecs_are_inverse():
    assert notify.parse_ke_method(notify.encode_ke_method(19)) == 19
    assert notify.parse_window_size(bytes.fromhex("00000005")) == 5
    assert notify.parse_signature_hashes(notify.encode_signature_hashes((2, 3, 5))) == (2, 3, 5)
    assert notify.parse_ipcomp(bytes.fromhex("123402")) == (0x1234, 2)
    assert notify.parse_seconds(bytes.fromhex("00000e10")) == 3600
    for text in ("192.0.2.1", "2001:db8::1"):
        address = ip_address(text)
        assert notify.parse_address(notify.encode_address(address)) == address
    identity = PpkIdentity(2, b"ppk@example")
    assert notify.parse_ppk_identity(notify.encode_ppk_identity(identity)) == identity


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (notify.parse_ke_method, b"\0"),
        (notify.parse_ke_method, b"\0\x13\0"),
        (notify.parse_window_size, b"\0\0\0"),
        (notify.parse_window_size, bytes(4)),
        (notify.parse_signature_hashes, b"\0\2\0"),
        (notify.parse_ipcomp, b"\0\0"),
        (notify.parse_seconds, b""),
        (notify.parse_address, bytes(5)),
        (notify.parse_ppk_identity, b""),
    ],
)
def test_data_of_wrong_length_is_invalid_syntax(parse, data):
    with pytest.raises(InvalidSyntax):
        parse(data)


@pytest.mark.parametrize(
    ("notify_type", "data", "text"),
    [
        (NotifyType.INVALID_KE_PAYLOAD, b"\0\x13", "ECP_256"),
        (NotifyType.INVALID_KE_PAYLOAD, b"\0\xff", "255"),
        (NotifyType.SET_WINDOW_SIZE, b"\0\0\0\x0a", "10"),
        (NotifyType.SIGNATURE_HASH_ALGORITHMS, b"\0\2\0\5", "SHA2_256, IDENTITY"),
        (NotifyType.AUTH_LIFETIME, b"\0\0\x0e\x10", "3600 s"),
        (NotifyType.ADDITIONAL_IP4_ADDRESS, b"\xc0\0\2\1", "192.0.2.1"),
        (NotifyType.IPCOMP_SUPPORTED, b"\x12\x34\2", "CPI 1234, transform 2"),
        (NotifyType.PPK_IDENTITY, b"\2ppk", "type 2, 'ppk'"),
        (NotifyType.COOKIE, b"\xca\xfe", "cafe"),
        (NotifyType.SET_WINDOW_SIZE, b"\0", "00 (SET_WINDOW_SIZE data: 4 bytes wanted, 1 left)"),
    ],
)
def test_data_is_described_for_humans(notify_type, data, text):
    assert describe_data(notify_type, data) == text


def test_numbers_that_protocols_rely_on_are_iana_s():
    assert NotifyType.INVALID_SYNTAX == 7
    assert NotifyType.NO_PROPOSAL_CHOSEN == 14
    assert NotifyType.INVALID_KE_PAYLOAD == 17
    assert NotifyType.AUTHENTICATION_FAILED == 24
    assert NotifyType.TS_UNACCEPTABLE == 38
    assert NotifyType.TEMPORARY_FAILURE == 43
    assert NotifyType.CHILD_SA_NOT_FOUND == 44
    assert NotifyType.NAT_DETECTION_SOURCE_IP == 16388
    assert NotifyType.COOKIE == 16390
    assert NotifyType.REKEY_SA == 16393
    assert NotifyType.IKEV2_FRAGMENTATION_SUPPORTED == 16430
