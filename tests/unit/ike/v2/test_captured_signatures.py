"""The AUTH payloads of a captured strongSwan exchange, its certificates in fragments, believed by us."""

import json
from datetime import UTC, datetime
from functools import cache

import pytest

from gateway.ike.crypto.certificate import read_certificate, split_certificates
from gateway.ike.crypto.chain import TrustStore
from gateway.ike.crypto.cipher import build_cipher
from gateway.ike.crypto.prf import prf_function
from gateway.ike.crypto.signature import parse_digital_signature
from gateway.ike.errors import PeerError
from gateway.ike.v2.authentication import AuthenticationInput, signed_octets, verify_signature_auth
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import EncryptedFragment, parse_message, parse_payloads
from gateway.ike.wire.notify import NotifyType, parse_signature_hashes
from gateway.ike.wire.payloads import (
    AuthPayload,
    CertPayload,
    IdiPayload,
    IdrPayload,
    NoncePayload,
    Payload,
    all_payloads,
    find_notify,
    get_payload,
)
from gateway.ipsec.algorithms import Prf
from gateway.ipsec.authentication import DEFAULT_SCHEMES, SignatureHash
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.secret import Secret
from tests.vectors.read import STRONGSWAN, ike_datagrams, strongswan_secrets

NAME = "rsa2048-sig-frag"
SUITE = parse_proposal("aes256gcm16-prfsha256-x25519", ProtocolId.IKE)
AT = datetime(2027, 1, 1, tzinfo=UTC).timestamp()


@cache
def secrets() -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for _, label, data in strongswan_secrets(NAME):
        found.setdefault(label, []).append(data)
    return found


@cache
def datagrams(exchange: ExchangeType, *, is_response: bool) -> tuple[bytes, ...]:
    """Return the messages, or fragments of one, of an exchange and direction."""
    found = []
    for datagram in ike_datagrams(STRONGSWAN / NAME / "capture.pcap"):
        header = parse_message(datagram).header
        if header.exchange_type == exchange and header.is_response is is_response:
            found.append(datagram)
    return tuple(dict.fromkeys(found))


@cache
def auth_payloads(*, is_response: bool) -> tuple[Payload, ...]:
    """Return the payloads of IKE_AUTH, its fragments opened with strongSwan's keys and put together."""
    key = secrets()["Sk_er secret" if is_response else "Sk_ei secret"][0]
    cipher = build_cipher(SUITE.encr, Secret(key), SUITE.integ, Secret(b""))
    parts: dict[int, bytes] = {}
    first = 0
    for datagram in datagrams(ExchangeType.IKE_AUTH, is_response=is_response):
        protected = parse_message(datagram).protected
        assert protected is not None
        iv, sealed = protected.body[: cipher.iv_bytes], protected.body[cipher.iv_bytes :]
        plaintext = cipher.open(iv, datagram[: protected.associated_bytes], sealed)
        number = protected.number if isinstance(protected, EncryptedFragment) else 1
        parts[number] = plaintext[: -1 - plaintext[-1]]
        if number == 1:
            first = protected.first_payload
    return parse_payloads(first, b"".join(parts[number] for number in sorted(parts)))


def covered(*, is_response: bool) -> AuthenticationInput:
    """Return what one side's AUTH covers, from the capture and strongSwan's SK_p."""
    (request,) = datagrams(ExchangeType.IKE_SA_INIT, is_response=False)
    (response,) = datagrams(ExchangeType.IKE_SA_INIT, is_response=True)
    own, other = (response, request) if is_response else (request, response)
    nonce = get_payload(parse_message(other).payloads, NoncePayload)
    payloads = auth_payloads(is_response=is_response)
    identity = get_payload(payloads, IdrPayload) if is_response else get_payload(payloads, IdiPayload)
    sk_p = secrets()["Sk_pr secret" if is_response else "Sk_pi secret"][0]
    return AuthenticationInput(message=own, peer_nonce=nonce.data, id_body=identity.body, sk_p=Secret(sk_p))


@pytest.mark.parametrize("is_response", [False, True], ids=["initiator", "responder"])
def test_the_signed_octets_are_those_that_strongswan_logged(is_response: bool) -> None:
    octets = signed_octets(prf_function(Prf.HMAC_SHA2_256), covered(is_response=is_response))

    assert octets == secrets()["octets = message + nonce + prf(Sk_px, IDx') + IntAuth"][int(is_response)]


@pytest.mark.parametrize("is_response", [False, True], ids=["initiator", "responder"])
def test_the_certificate_is_believed_and_its_signature_verifies(is_response: bool) -> None:
    scenario = json.loads((STRONGSWAN / NAME / "scenario.json").read_text())
    root = split_certificates(scenario["initiator_creds"][0][1]["data"].encode())[0]
    payloads = auth_payloads(is_response=is_response)
    identity = (
        get_payload(payloads, IdrPayload) if is_response else get_payload(payloads, IdiPayload)
    ).identity
    certificates = tuple(payload.data for payload in all_payloads(payloads, CertPayload))
    octets = signed_octets(prf_function(Prf.HMAC_SHA2_256), covered(is_response=is_response))
    auth = get_payload(payloads, AuthPayload)

    key = TrustStore(anchors=(read_certificate(root),)).believe(certificates, identity, AT)

    verify_signature_auth((key,), DEFAULT_SCHEMES, auth, octets)
    assert parse_digital_signature(auth.data).scheme.value.startswith("rsa-")
    with pytest.raises(PeerError, match="is not by the RSA key"):
        verify_signature_auth((key,), DEFAULT_SCHEMES, auth, octets + b"\0")


def test_strongswan_announced_its_hashes() -> None:
    (request,) = datagrams(ExchangeType.IKE_SA_INIT, is_response=False)
    notify = find_notify(parse_message(request).payloads, NotifyType.SIGNATURE_HASH_ALGORITHMS)

    assert notify is not None
    assert SignatureHash.SHA2_256 in parse_signature_hashes(notify.data)
