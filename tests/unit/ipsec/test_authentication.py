"""Signature schemes: keywords, what goes with which key, in which order (RFC 8247 §3.2, RFC 4754)."""

import pytest

from gateway.ike.v2.authentication import Signing, choose_signing, is_of_method
from gateway.ike.wire.payloads import AuthenticationMethod
from gateway.ipsec.authentication import (
    DEFAULT_SCHEMES,
    FACTS,
    WEAK_SCHEMES,
    AuthMethod,
    KeyKind,
    SignatureScheme,
    parse_scheme,
    schemes_for,
)
from gateway.ipsec.errors import VocabularyError

RFC7427 = AuthenticationMethod.DIGITAL_SIGNATURE
ALL_HASHES = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("scheme", DEFAULT_SCHEMES)
def test_every_strong_keyword_is_read_in_any_case(scheme: SignatureScheme) -> None:
    assert parse_scheme(scheme.value.upper(), ()) is scheme


@pytest.mark.parametrize("scheme", WEAK_SCHEMES)
def test_a_weak_scheme_is_read_only_where_it_is_named(scheme: SignatureScheme) -> None:
    assert parse_scheme(scheme.value, [scheme.value]) is scheme
    with pytest.raises(VocabularyError, match="MUST NOT"):
        parse_scheme(scheme.value, ["sha1"])


def test_another_word_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(VocabularyError, match=r"known are rsa-pss-sha256, .*ed448, rsa-pkcs1-sha1"):
        parse_scheme("dsa-sha256", ())


def test_every_scheme_has_its_facts() -> None:
    assert set(FACTS) == set(SignatureScheme)


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        (KeyKind.RSA, "rsa-pss-sha256"),
        (KeyKind.P256, "ecdsa-sha256"),
        (KeyKind.P384, "ecdsa-sha384"),
        (KeyKind.P521, "ecdsa-sha512"),
        (KeyKind.ED25519, "ed25519"),
        (KeyKind.ED448, "ed448"),
    ],
)
def test_the_best_scheme_of_a_key_comes_first(kind: KeyKind, first: str) -> None:
    assert schemes_for(kind, ())[0].value == first


def test_a_configured_order_is_kept() -> None:
    wanted = (SignatureScheme.ECDSA_SHA512, SignatureScheme.ED25519, SignatureScheme.ECDSA_SHA256)

    assert schemes_for(KeyKind.P256, wanted) == (wanted[0], wanted[2])


@pytest.mark.parametrize(
    ("kind", "hashes", "scheme"),
    [
        (KeyKind.P384, ALL_HASHES, "ecdsa-sha384"),
        (KeyKind.P384, (2,), "ecdsa-sha256"),
        (KeyKind.RSA, (4, 3), "rsa-pss-sha384"),
        (KeyKind.ED25519, (2, 5), "ed25519"),
        (KeyKind.ED25519, (2, 3, 4), None),
        (KeyKind.RSA, (), None),
        (KeyKind.RSA, (1,), None),
        (KeyKind.RSA, (6, 7, 1000), None),
    ],
)
def test_the_scheme_is_one_that_the_peer_can_verify(
    kind: KeyKind, hashes: tuple[int, ...], scheme: str | None
) -> None:
    signing = choose_signing(kind, (), hashes)

    assert signing == (None if scheme is None else Signing(RFC7427, SignatureScheme(scheme)))


@pytest.mark.parametrize(
    ("kind", "configured", "method"),
    [
        (KeyKind.P256, (), 9),
        (KeyKind.P384, (), 10),
        (KeyKind.P521, (), 11),
        (KeyKind.P256, (SignatureScheme.ECDSA_SHA384,), None),
        (KeyKind.RSA, (), None),
        (KeyKind.RSA, (SignatureScheme.RSA_PKCS1_SHA256,), None),
        (KeyKind.RSA, (SignatureScheme.RSA_PKCS1_SHA1,), 1),
        (KeyKind.ED25519, (), None),
    ],
)
def test_without_announced_hashes_the_older_methods_are_used_where_they_fit(
    kind: KeyKind, configured: tuple[SignatureScheme, ...], method: int | None
) -> None:
    signing = choose_signing(kind, configured, None)

    assert (None if signing is None else signing.method) == method


@pytest.mark.parametrize("number", range(16))
def test_a_method_on_the_wire_is_a_shared_key_a_signature_or_nothing(number: int) -> None:
    assert is_of_method(number, AuthMethod.PSK) is (number == 2)
    for method in (AuthMethod.CERTIFICATE, AuthMethod.PUBLIC_KEY):
        assert is_of_method(number, method) is (number in (1, 9, 10, 11, 14))
