"""Every IKEv2 message of strongSwan's and Wireshark's captures: parsed, encoded back, opened, signed."""

import contextlib
import json

import pytest

from gateway.ike.crypto.cipher import build_cipher
from gateway.ike.crypto.prf import prf_function
from gateway.ike.errors import PeerError
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import (
    EncryptedFragment,
    EncryptedPayload,
    encode_encrypted_head,
    encode_message,
    encode_payloads,
    parse_message,
)
from gateway.ike.wire.payload_codec import encode_payload
from gateway.ike.wire.payloads import (
    AuthPayload,
    IdiPayload,
    IdrPayload,
    NoncePayload,
    find_payload,
    get_payload,
)
from gateway.ike.wire.protected import Plaintext, SkOpener, strip_padding
from gateway.ike.wire.reassembly import Reassembly
from gateway.ike.wire.rules import check_rules
from gateway.inspect.keys import read_keys
from gateway.ipsec.algorithms import Encr, Prf
from gateway.ipsec.secret import Secret
from tests.vectors.read import (
    STRONGSWAN,
    WIRESHARK,
    ike_datagrams,
    ike_table,
    ikev2_captures,
    strongswan_secrets,
)

CAPTURES = ikev2_captures()
IDS = [path.name if path.parent == WIRESHARK else path.parent.name for path in CAPTURES]
EXPECTED = json.loads((WIRESHARK / "expected_decryption.json").read_text())
PSK_SCENARIOS = ["psk-x25519-gcm256", "psk-cookie", "rsa2048-sig-frag", "eap-mschapv2"]


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_every_message_parses_and_is_encoded_back_byte_for_byte(capture):
    clear = 0
    for datagram in ike_datagrams(capture):
        message = parse_message(datagram)
        assert message.datagram == datagram
        if message.protected is None:
            assert encode_message(message.header, message.payloads) == datagram
            assert check_rules(
                message.payloads, message.header.exchange_type, is_response=message.header.is_response
            )
            clear += 1
    assert clear >= 2


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_every_truncation_of_every_message_is_invalid_syntax(capture):
    for datagram in ike_datagrams(capture):
        for size in range(len(datagram)):
            with pytest.raises(PeerError):
                parse_message(datagram[:size])


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_every_two_byte_length_lie_parses_or_is_a_peer_error(capture):
    """Any two bytes may be a length; each is set to small, large and off-by-one values."""
    for datagram in ike_datagrams(capture)[:2]:
        for position in range(16, len(datagram) - 1):
            value = int.from_bytes(datagram[position : position + 2], "big")
            for lie in {0, 3, 0xFFFF, (value + 1) & 0xFFFF, (value - 1) & 0xFFFF}:
                lied = datagram[:position] + lie.to_bytes(2, "big") + datagram[position + 2 :]
                with contextlib.suppress(PeerError):
                    parse_message(lied)


def openers(table, messages):
    """Return for each protected message the plaintext, tried under every row of its SPIs."""
    rows = ike_table(table)
    for message in messages:
        if message.protected is None:
            yield message, None
            continue
        header = message.header
        for row in rows:
            if (row[0], row[1]) != (header.spi_i.hex(), header.spi_r.hex()):
                continue
            key = Secret(bytes.fromhex(row[2] if header.from_initiator else row[3]))
            cipher = build_cipher(Encr.AES_GCM_16, key)
            try:
                yield message, (cipher, SkOpener(cipher).open(message))
                break
            except PeerError:
                continue
        else:
            pytest.fail(f"message {header} opens with no key")


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CAPTURES if path.parent != WIRESHARK))
def test_every_strongswan_message_opens_fits_the_rules_and_is_sealed_back_byte_for_byte(name):
    messages = [parse_message(datagram) for datagram in ike_datagrams(STRONGSWAN / name / "capture.pcap")]
    reassemblies = {}
    opened = 0
    for message, found in openers(STRONGSWAN / name / "responder_ikev2_decryption_table", messages):
        if found is None:
            continue
        cipher, plaintext = found
        opened += 1
        assert reseal(message, cipher) == message.datagram
        key = (message.header.spi_i, message.header.message_id, message.header.flags)
        whole = plaintext
        if isinstance(message.protected, EncryptedFragment):
            whole = reassemblies.setdefault(key, Reassembly()).add(message.protected, plaintext)
        if whole is not None:
            payloads = whole.payloads()
            assert encode_payloads(payloads) == whole.data
            exchange = message.header.exchange_type
            assert check_rules(payloads, exchange, is_response=message.header.is_response)
    assert opened == sum(message.protected is not None for message in messages)


def reseal(message, cipher):
    protected = message.protected
    numbers = None if isinstance(protected, EncryptedPayload) else (protected.number, protected.total)
    head = encode_encrypted_head(
        message.header,
        first_payload=protected.first_payload,
        body_bytes=len(protected.body),
        fragment=numbers,
    )
    iv = protected.body[: cipher.iv_bytes]
    padded = cipher.open(iv, head, protected.body[cipher.iv_bytes :])
    return head + iv + cipher.seal(iv, head, padded)


@pytest.mark.parametrize("name", PSK_SCENARIOS)
@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_octets_that_auth_signs_are_those_strongswan_signed(name, role):
    """RFC 7296 §2.15: real message | the other side's nonce | prf(SK_p, body of the ID payload)."""
    messages = [parse_message(datagram) for datagram in ike_datagrams(STRONGSWAN / name / "capture.pcap")]
    secrets = strongswan_secrets(name)
    sk_p = next(value for _, label, value in secrets if label == f"Sk_p{role[0]} secret")
    octets = [value for _, label, value in secrets if label.startswith("octets = ")]
    inits = [m for m in messages if m.header.exchange_type == ExchangeType.IKE_SA_INIT]
    # The last of each: those before were answered with COOKIE or repeated.
    request = [m for m in inits if m.header.is_request][-1]
    response = [m for m in inits if m.header.is_response][-1]
    own, other = (request, response) if role == "initiator" else (response, request)
    identity = IdiPayload(2, b"l.example") if role == "initiator" else IdrPayload(2, b"r.example")

    signed = own.datagram + get_payload(other.payloads, NoncePayload).data
    signed += prf_function(Prf.HMAC_SHA2_256)(sk_p, identity.body)

    # With EAP the responder signs first: the order of the log is not that of the roles.
    assert signed in octets


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_psk_auth_in_the_message_is_the_one_that_was_computed(role):
    name = "psk-x25519-gcm256"
    messages = [parse_message(datagram) for datagram in ike_datagrams(STRONGSWAN / name / "capture.pcap")]
    logged = [value for _, label, value in strongswan_secrets(name) if label.startswith("AUTH = ")]
    table = STRONGSWAN / name / "initiator_ikev2_decryption_table"

    auths = []
    for _, found in openers(table, messages[:4]):
        if found is not None:
            auths.append(get_payload(found[1].payloads(), AuthPayload).data)

    assert auths[role == "responder"] == logged[role == "responder"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_wireshark_capture_has_the_plaintext_that_was_expected(name):
    keys = {(key.spi_i, key.spi_r): key for key in read_keys(WIRESHARK / "ikev2_decryption_table.tmpl").ike}
    datagrams = ike_datagrams(WIRESHARK / name)
    assert len(datagrams) == len(EXPECTED[name])
    for datagram, expected in zip(datagrams, EXPECTED[name], strict=True):
        message = parse_message(datagram)
        assert message.header.length == expected["length"]
        assert message.header.message_id == expected["msgid"]
        assert [len(encode_payload(p)) for p in message.payloads] == [
            size for _, size in expected["payloads"]
        ]
        if "plaintext" not in expected:
            continue
        key = keys[message.header.spi_i, message.header.spi_r]
        opener = key.from_initiator if message.header.from_initiator else key.from_responder
        opened = opener.open(datagram[: message.protected.associated_bytes], message.protected.body)
        assert opened.is_verified == (expected["icv"] == "verified")
        data = strip_padding(opened.padded)
        assert data.hex() == expected["plaintext"]
        payloads = Plaintext(message.protected.first_payload, data).payloads()
        assert [encode_payload(p).hex() for p in payloads] == [body for _, body in expected["inner"]]
        if "auth_data" in expected:
            auth = find_payload(payloads, AuthPayload)
            assert auth.data.hex() == expected["auth_data"]
            assert auth.method == expected["auth_method"]
