"""IKE messages: what is told of the good ones is in test_captures; here are the odd ones."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ike.crypto.keymat import derive_ike_keys
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    ConfigurationAttribute,
    CpPayload,
    NotifyPayload,
    UnknownPayload,
    VendorIdPayload,
)
from gateway.ike.wire.protected import SkProtection
from gateway.inspect.describe import describe_payload, format_description
from gateway.inspect.ike import IkeInspector
from gateway.inspect.keys import read_keys
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.secret import Secret

HEADER = IkeHeader.build(
    spi_i=b"initiatr",
    spi_r=b"respondr",
    exchange_type=ExchangeType.INFORMATIONAL,
    is_initiator=True,
    is_response=False,
    message_id=5,
)
PAYLOADS = (NotifyPayload(NotifyType.COOKIE, b"c" * 700),)


def protection(shared=b"shared"):
    suite = IkeSuite.of(parse_proposal("aes128gcm16-prfsha256-x25519", ProtocolId.IKE))
    keys = derive_ike_keys(
        suite,
        shared_secret=Secret(shared),
        nonce_i=bytes(16),
        nonce_r=bytes(16),
        spi_i=HEADER.spi_i,
        spi_r=HEADER.spi_r,
    )
    return keys, SkProtection(suite, keys, is_initiator=True, entropy=lambda size: bytes(size))


def inspector(tmp_path, *all_keys):
    path = tmp_path / "ikev2_decryption_table"
    path.write_text(
        "".join(
            f"{HEADER.spi_i.hex()},{HEADER.spi_r.hex()},{keys.sk_ei.reveal().hex()},"
            f'{keys.sk_er.reveal().hex()},"AES-GCM-128 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"\n'
            for keys in all_keys
        )
    )
    return IkeInspector(read_keys(path).ike)


def test_without_a_key_a_protected_message_is_told_and_no_failure():
    _, sk = protection()

    findings = IkeInspector([]).inspect(sk.seal(HEADER, PAYLOADS))

    assert (findings.is_protected, findings.is_decrypted, findings.has_failed) == (True, False, False)
    assert findings.note == "no key for these SPIs"


def test_wrong_key_for_the_spis_is_a_failure(tmp_path):
    _, sk = protection()
    wrong, _ = protection(b"other")

    findings = inspector(tmp_path, wrong).inspect(sk.seal(HEADER, PAYLOADS))

    assert (findings.is_decrypted, findings.has_failed) == (False, True)
    assert "does not open with the key for its SPIs" in findings.problem


def test_of_two_keys_for_the_spis_one_must_fit(tmp_path):
    keys, sk = protection()
    wrong, _ = protection(b"other")

    findings = inspector(tmp_path, wrong, keys).inspect(sk.seal(HEADER, PAYLOADS))

    assert (findings.is_verified, findings.has_failed, findings.problem) == (True, False, "")


def test_fragments_in_any_order_and_repeated_are_one_message(tmp_path):
    keys, sk = protection()
    fragments = sk.seal_fragments(HEADER, PAYLOADS, 300)
    reader = inspector(tmp_path, keys)

    findings = [reader.inspect(datagram) for datagram in (fragments[0], *reversed(fragments), fragments[0])]

    assert all(found.is_verified for found in findings)
    # In the order 1, n ... 2, 1, 1: number 2 completes it, what comes again adds nothing.
    complete = [bool(found.inner) for found in findings]
    assert complete.index(True) == len(fragments) - 1
    assert complete.count(True) == 1
    assert findings[0].fragment == (1, len(fragments))


def test_authentic_nonsense_inside_is_a_failure(tmp_path):
    keys, sk = protection()
    first_payload_wrong = sk._sealer._seal(HEADER, 33, b"\0\0\0\5\xff", None)

    findings = inspector(tmp_path, keys).inspect(first_payload_wrong)

    assert (findings.is_decrypted, findings.is_verified, findings.has_failed) == (True, True, True)
    assert findings.problem


@pytest.mark.parametrize(
    ("version", "exchange", "flags", "told", "note"),
    [
        (1, 2, 0, "Identity Protection (Main Mode)", "IKEv1, header only"),
        (1, 32, 1, "Quick Mode", "IKEv1, header only, not decrypted"),
        (1, 99, 0, "99", "IKEv1, header only"),
        (3, 34, 0, "", "IKE version 3.0, not decoded"),
    ],
)
def test_other_versions_are_told_and_no_failure(version, exchange, flags, told, note):
    header = replace(HEADER, major_version=version, exchange_type=exchange, flags=flags)

    findings = IkeInspector([]).inspect(encode_message(header, ()))

    assert (findings.exchange, findings.note, findings.problem) == (told, note, "")
    assert findings.is_protected == bool(flags)
    assert not findings.has_failed


def test_malformed_clear_message_is_a_problem_and_no_failure_of_a_key():
    findings = IkeInspector([]).inspect(encode_message(HEADER, PAYLOADS)[:-1])

    assert "the datagram has" in findings.problem
    assert not findings.has_failed


def lines(payload):
    return format_description(describe_payload(payload))


def test_payloads_of_every_kind_are_told_with_their_values():
    assert lines(UnknownPayload(200, True, b"\xca\xfe")) == ["payload 200: critical true, data cafe"]
    assert lines(VendorIdPayload(b"strongSwan"))[0].endswith("text strongSwan")
    assert lines(NotifyPayload(NotifyType.REKEY_SA, b"", 3, b"\1\2\3\4")) == [
        "N(REKEY_SA): protocol ESP, spi 01020304"
    ]
    assert lines(NotifyPayload(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, b"\x4d")) == [
        "N(UNSUPPORTED_CRITICAL_PAYLOAD): data payload type 77"
    ]
    configuration = CpPayload(
        2,
        (
            ConfigurationAttribute(1, bytes([10, 3, 0, 1])),
            ConfigurationAttribute(13, bytes([10, 0, 0, 0, 255, 0, 0, 0])),
            ConfigurationAttribute(8, bytes(15) + b"\1\x40"),
            ConfigurationAttribute(25, b"example.org"),
            ConfigurationAttribute(3),
            ConfigurationAttribute(999, b"\xff"),
        ),
    )
    assert lines(configuration) == [
        "CP: cfg_type CFG_REPLY",
        "    INTERNAL_IP4_ADDRESS 10.3.0.1",
        "    INTERNAL_IP4_SUBNET 10.0.0.0/255.0.0.0",
        "    INTERNAL_IP6_ADDRESS ::1/64",
        "    INTERNAL_DNS_DOMAIN example.org",
        "    INTERNAL_IP4_DNS",
        "    999 ff",
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 255), st.sampled_from([0x10, 0x20]))
def test_any_bytes_are_told_and_never_an_exception(body, next_payload, version):
    datagram = bytearray(encode_message(HEADER, ()) + body)
    datagram[16], datagram[17] = next_payload, version
    datagram[24:28] = len(datagram).to_bytes(4, "big")

    for data in (bytes(datagram), body):
        findings = IkeInspector([]).inspect(data)
        for described in (*findings.payloads, *findings.inner):
            assert format_description(described)
