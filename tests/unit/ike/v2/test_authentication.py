"""What AUTH covers and the pre-shared key's AUTH (RFC 7296 §2.15), against the formula written out."""

import hashlib
import hmac
from dataclasses import replace

import pytest

from gateway.ike.errors import PeerError
from gateway.ike.v2.authentication import (
    AuthenticationInput,
    compute_psk_auth,
    signed_octets,
    verify_psk_auth,
)
from gateway.ipsec.secret import Secret

GIVEN = AuthenticationInput(
    message=b"IKE_SA_INIT request, header and all",
    peer_nonce=b"n" * 32,
    id_body=b"\x02\x00\x00\x00paris.example",
    sk_p=Secret(b"p" * 32),
)
PSK = Secret(b"correct horse battery staple")


def sha256(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def test_the_signed_octets_are_message_peer_nonce_and_the_maced_id():
    maced_id = hmac.new(b"p" * 32, b"\x02\x00\x00\x00paris.example", hashlib.sha256).digest()

    expected = b"IKE_SA_INIT request, header and all" + b"n" * 32 + maced_id
    assert signed_octets(sha256, GIVEN) == expected


def test_psk_auth_is_the_prf_keyed_with_the_padded_secret():
    inner = hmac.new(b"correct horse battery staple", b"Key Pad for IKEv2", hashlib.sha256).digest()
    octets = signed_octets(sha256, GIVEN)

    expected = hmac.new(inner, octets, hashlib.sha256).digest()

    assert compute_psk_auth(sha256, PSK, GIVEN) == expected


def test_the_right_key_verifies():
    verify_psk_auth(sha256, PSK, GIVEN, compute_psk_auth(sha256, PSK, GIVEN))


@pytest.mark.parametrize(
    "given",
    [
        replace(GIVEN, message=GIVEN.message + b"\x00"),
        replace(GIVEN, peer_nonce=b"m" * 32),
        replace(GIVEN, id_body=b"\x02\x00\x00\x01paris.example"),
        replace(GIVEN, id_body=b"\x03\x00\x00\x00paris.example"),
        replace(GIVEN, sk_p=Secret(b"q" * 32)),
    ],
)
def test_everything_that_is_covered_counts(given):
    auth = compute_psk_auth(sha256, PSK, GIVEN)

    with pytest.raises(PeerError) as caught:
        verify_psk_auth(sha256, PSK, given, auth)
    assert caught.value.notify == 24  # AUTHENTICATION_FAILED, RFC 7296 §3.10.1


@pytest.mark.parametrize("received", [b"", b"\x00" * 32, b"short"])
def test_a_wrong_auth_is_refused_without_a_word_about_the_key(received):
    with pytest.raises(PeerError) as caught:
        verify_psk_auth(sha256, PSK, GIVEN, received)
    assert "horse" not in str(caught.value)


def test_another_key_is_refused():
    with pytest.raises(PeerError):
        verify_psk_auth(sha256, Secret(b"wrong"), GIVEN, compute_psk_auth(sha256, PSK, GIVEN))
