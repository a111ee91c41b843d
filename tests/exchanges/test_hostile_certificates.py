"""What must not authenticate: altered proofs, certificates that are not good enough, floods of them.

In every case the peer learns AUTHENTICATION_FAILED and nothing more, and the operator which check it was, of
which certificate, and what was found (RFC 7296 §2.21.2, RFC 4945).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from gateway.ike.events import FailureReason, IkeSaEstablished, Signed, TrustRequest
from gateway.ike.v2 import proof
from gateway.ike.wire.payloads import (
    AuthenticationMethod,
    AuthPayload,
    CertPayload,
    Payload,
)
from gateway.ipsec.authentication import SignatureScheme
from tests.exchanges.signing import (
    CA,
    OTHER_CA,
    SUB_CA,
    WHOLE,
    alter_request,
    alter_response,
    certified,
    failure_of,
    gateway_of,
)
from tests.fakes.pair import Asked, Pair
from tests.fakes.pki import DAY, Issued, crl, crl_point, issue, name_of, trusting, with_certificate, with_keys
from tests.fakes.tap import flip

Change = Callable[[list[Payload]], list[Payload]]


def with_auth(change: Callable[[AuthPayload], AuthPayload]) -> Change:
    return lambda payloads: [change(p) if isinstance(p, AuthPayload) else p for p in payloads]


def with_certs(certificates: Sequence[CertPayload]) -> Change:
    def change(payloads: list[Payload]) -> list[Payload]:
        rest = [payload for payload in payloads if not isinstance(payload, CertPayload)]
        return [rest[0], *certificates, *rest[1:]]

    return change


def data(change: Callable[[bytes], bytes]) -> Change:
    return with_auth(lambda auth: replace(auth, data=change(auth.data)))


def method(number: int) -> Change:
    return with_auth(lambda auth: replace(auth, method=number))


# --- altered proofs -----------------------------------------------------------------------------

#: ECDSA with SHA-384 instead of SHA-256: the last octet of the OID, after the length octet and 11 octets.
ALTERED = {
    "signature": (data(lambda octets: flip(octets, len(octets) - 1)), "is not by the ECDSA P-256 key"),
    "hash OID": (data(lambda octets: flip(octets, 12)), "is not by the ECDSA P-256 key"),
    "unknown OID": (data(lambda octets: flip(octets, 8)), "is none that is spoken here"),
    "length of the AlgorithmIdentifier": (
        data(lambda octets: flip(octets, 0)),
        "is none that is spoken here",
    ),
    "AlgorithmIdentifier cut short": (data(lambda octets: octets[:6]), "cut short"),
    "no signature": (data(lambda octets: octets[: 1 + octets[0]]), "cut short"),
    "signature cut short": (data(lambda octets: octets[:-9]), "is not by the ECDSA P-256 key"),
    "nothing at all": (data(lambda octets: b""), "cut short"),
    "zeros": (data(lambda octets: bytes(len(octets))), "is none that is spoken here"),
    "PSS of nothing": (
        data(lambda octets: bytes.fromhex("0f300d06092a864886f70d01010a3000") + b"x"),
        "is none",
    ),
    "NULL parameters": (
        data(lambda octets: bytes.fromhex("0e300c06082a8648ce3d0403020500") + octets[13:]),
        "is none that is spoken here",
    ),
    "method 1": (method(AuthenticationMethod.RSA_SIGNATURE), "the key is ECDSA P-256"),
    "method 9": (method(AuthenticationMethod.ECDSA_SHA256_P256), "wants 64 (RFC 4754 §7)"),
    "method 10": (method(AuthenticationMethod.ECDSA_SHA384_P384), "the key is ECDSA P-256"),
    "shared key": (method(AuthenticationMethod.SHARED_KEY_MIC), "authenticates by method 2"),
    "DSS": (method(AuthenticationMethod.DSS_SIGNATURE), "authenticates by method 3"),
    "NULL authentication": (method(AuthenticationMethod.NULL_AUTHENTICATION), "authenticates by method 13"),
    "no such method": (method(200), "authenticates by method 200"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_proof_of_the_initiator_is_refused(case: str) -> None:
    change, text = ALTERED[case]
    pair = certified()

    alter_request(pair, change)

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    failure = failure_of(pair.bob)
    assert failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert text in failure.detail
    assert not pair.bob.events(IkeSaEstablished)
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_proof_of_the_responder_is_refused(case: str) -> None:
    change, text = ALTERED[case]
    pair = certified()

    alter_response(pair, change)

    assert pair.story()[-2:] == [
        "INFORMATIONAL SK {N(AUTHENTICATION_FAILED)} -->",
        "<-- INFORMATIONAL SK {}",
    ]
    assert text in failure_of(pair.alice).detail
    assert not pair.alice.events(IkeSaEstablished)
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


def test_the_proof_of_another_ike_sa_is_worth_nothing() -> None:
    # RFC 7296 §2.15: the peer's fresh nonce is signed, so that an AUTH payload cannot be replayed.
    first = certified()
    first.establish()
    replayed = next(
        payload
        for payload in first.tap.open(first.sent(first.alice)[-1].data).payloads
        if isinstance(payload, AuthPayload)
    )
    second = certified()
    second.bob.restart()  # with other nonces

    alter_request(second, with_auth(lambda auth: replayed))

    assert "is not by the ECDSA P-256 key" in failure_of(second.bob).detail


def test_the_initiators_own_proof_sent_back_to_it_is_worth_nothing() -> None:
    # Reflection: Bob has no key, and sends Alice's own certificate, identity and AUTH back.
    pair = certified(alice_trusts=trusting(CA), both={"remote_id": None})
    seen: list[Payload] = []

    def reflect(payloads: list[Payload]) -> list[Payload]:
        request = pair.tap.open(pair.sent(pair.alice)[-1].data).payloads
        seen.extend(p for p in request if isinstance(p, AuthPayload | CertPayload))
        idr = next(p for p in payloads if type(p).__name__ == "IdrPayload")
        idi = next(p for p in request if type(p).__name__ == "IdiPayload")
        rest = [p for p in payloads[1:] if not isinstance(p, AuthPayload | CertPayload)]
        certificate, auth = seen
        return [replace(idr, data=idi.data), certificate, auth, *rest]

    alter_response(pair, reflect)

    assert "is not by the ECDSA P-256 key" in failure_of(pair.alice).detail


# --- certificates that are not good enough ------------------------------------------------------

REVOKED = gateway_of("alice", extensions=[crl_point()])
NOT_A_CA = issue("Not a CA", CA, is_ca=False)
IMPOSTOR_CA = issue("CA", kind="p384")


def bad(alice: Sequence[Issued], code: str, *texts: str, **changes: Any) -> Any:
    return alice, code, texts, changes


BAD = {
    "expired": bad(
        [gateway_of("alice", ends=-DAY / 2)], "CERTIFICATE_EXPIRED", "expired on 2029-12-31 12:00:00Z"
    ),
    "not yet valid": bad([gateway_of("alice", starts=DAY)], "CERTIFICATE_NOT_YET_VALID", "before 2030-01-02"),
    "another's name": bad(
        [gateway_of("mallory")],
        "CERTIFICATE_IDENTITY",
        "does not confirm alice.example",
        "fqdn:mallory.example",
    ),
    "the name as CN only": bad(
        [issue("alice.example", CA)], "CERTIFICATE_IDENTITY", "does not confirm alice.example"
    ),
    "a wildcard": bad([gateway_of("alice", names=["*.example"])], "CERTIFICATE_IDENTITY", "fqdn:*.example"),
    "revoked": bad(
        [REVOKED],
        "CERTIFICATE_REVOKED",
        "was revoked on 2029-12-31",
        "keyCompromise",
        crls=[crl(CA, REVOKED, reason=x509.ReasonFlags.key_compromise)],
    ),
    "a CRL is missing": bad(
        [REVOKED], "CERTIFICATE_REVOCATION_UNKNOWN", "there is no CRL of O=Test, CN=CA", "http://crl.example/"
    ),
    "wrong purpose": bad(
        [gateway_of("alice", purposes=["1.3.6.1.5.5.7.3.3"])],
        "CERTIFICATE_EXTENDED_KEY_USAGE",
        "1.3.6.1.5.5.7.3.3",
    ),
    "may not sign": bad(
        [gateway_of("alice", usage={"key_encipherment": True})], "CERTIFICATE_KEY_USAGE", "digitalSignature"
    ),
    "unknown authority": bad(
        [gateway_of("alice", OTHER_CA)], "CERTIFICATE_NO_TRUSTED_ISSUER", "its issuer O=Test, CN=Other CA"
    ),
    "an authority of the same name": bad(
        [gateway_of("alice", IMPOSTOR_CA), IMPOSTOR_CA],
        "CERTIFICATE_SIGNATURE",
        "is not signed by the key of",
    ),
    "an end entity as authority": bad(
        [gateway_of("alice", NOT_A_CA), NOT_A_CA], "CERTIFICATE_NOT_A_CA", "CN=Not a CA", "basicConstraints"
    ),
    "an intermediate that is missing": bad(
        [gateway_of("alice", SUB_CA)], "CERTIFICATE_NO_TRUSTED_ISSUER", "Sub CA"
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_certificate_that_is_not_good_enough_is_refused_and_the_operator_told_why(case: str) -> None:
    chain, code, texts, changes = BAD[case]
    pair = certified(alice=chain, **changes)
    if code in ("CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID"):
        # Alice's own shell would not sign; a hostile one does.
        pair.alice.credentials._check_own_certificates = lambda connection, key: None  # type: ignore[method-assign]

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    failure = failure_of(pair.bob)
    assert failure.reason is FailureReason.AUTHENTICATION_FAILED
    assert failure.notify == "AUTHENTICATION_FAILED"
    assert code in failure.detail
    for text in texts:
        assert text in failure.detail
    if code != "CERTIFICATE_NO_TRUSTED_ISSUER":
        assert "(serial " in failure.detail
    # What Alice is told is nothing of that.
    assert code not in failure_of(pair.alice).detail
    pair.run_for(60.0)
    pair.check(children=0, ike_sas=0)


def test_the_responders_certificate_is_judged_alike() -> None:
    pair = certified(bob=[gateway_of("mallory")])

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-2] == "INFORMATIONAL SK {N(AUTHENTICATION_FAILED)} -->"
    assert "does not confirm bob.example" in failure_of(pair.alice).detail


def test_we_do_not_sign_with_a_certificate_of_ours_that_is_out_of_date() -> None:
    pair = certified(alice=[gateway_of("alice", ends=-1.0)])

    pair.alice.initiate()
    pair.settle()

    failure = failure_of(pair.alice)
    assert failure.reason is FailureReason.NO_CREDENTIAL
    assert "our own certificate O=Test, CN=alice" in failure.detail
    assert len(pair.story()) == 2


def test_a_certificate_of_another_key_than_the_signing_one_is_refused() -> None:
    # Mallory shows Alice's certificate, which anyone can have, and signs with a key of her own.
    pair = certified(alice=[gateway_of("alice")])
    mallory = issue("mallory")

    def sign(request: Any) -> Any:
        return Signed(mallory.private.sign(request.scheme, request.octets))

    pair.alice.credentials.sign = sign  # type: ignore[method-assign]
    pair.alice.initiate()
    pair.settle()

    assert "is not by the ECDSA P-256 key" in failure_of(pair.bob).detail


# --- strange CERT payloads ----------------------------------------------------------------------

ALICE = gateway_of("alice")
STRANGE = {
    "none at all": ([], "sent no X.509 certificate"),
    "garbage": ([CertPayload(4, b"\x30\x82\x01\x00garbage")], "is malformed"),
    "nothing": ([CertPayload(4, b"")], "is malformed"),
    "cut short": ([CertPayload(4, ALICE.der[:-20])], "is malformed"),
    "with something behind": ([CertPayload(4, ALICE.der + b"\0")], "is malformed"),
    "of an encoding that is not spoken": ([CertPayload(7, ALICE.der)], "sent no X.509 certificate"),
    "hash and URL": ([CertPayload(12, bytes(20) + b"http://x.example/")], "sent no X.509 certificate"),
    "a raw key instead": ([CertPayload(15, ALICE.public.der)], "sent no X.509 certificate"),
    "a raw key that is none": ([CertPayload(15, b"key")], "raw public key is not a public key"),
    "a raw RSA key that is none": ([CertPayload(11, b"key")], "raw public key is not a public key"),
    "many": ([CertPayload(4, ALICE.der)] * 11, "11 CERT payloads; at most 10"),
    "long": ([CertPayload(4, ALICE.der + bytes(20000))], "CERT payload of 20"),
    "a chain of garbage": ([CertPayload(4, bytes(100)), CertPayload(4, ALICE.der)], "is malformed"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_cert_payloads_are_refused(case: str) -> None:
    payloads, text = STRANGE[case]
    pair = certified(alice=[ALICE])

    alter_request(pair, with_certs(payloads))

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    assert text in failure_of(pair.bob).detail


def test_garbage_behind_a_good_certificate_does_no_harm() -> None:
    pair = certified(alice=[ALICE])

    alter_request(
        pair, with_certs([CertPayload(4, ALICE.der), CertPayload(4, bytes(50)), CertPayload(9, b"x")])
    )

    assert len(pair.bob.events(IkeSaEstablished)) == 1


def test_too_many_cert_payloads_are_not_even_given_to_the_shell() -> None:
    pair = certified(alice=[ALICE])

    alter_request(pair, with_certs([CertPayload(4, ALICE.der)] * (proof.MAX_CERT_PAYLOADS + 1)))

    assert not [e for e in pair.log if isinstance(e, Asked) and isinstance(e.request, TrustRequest)]


# --- raw public keys ----------------------------------------------------------------------------


def raw(alice: Issued, known: Issued) -> Pair:
    pair = Pair(
        alice={"local_auth": with_keys(alice.public)},
        bob={"remote_auth": with_keys(known.public)},
        both={"ike_options": WHOLE},
    )
    pair.alice.hold(alice.private)
    pair.bob.hold()
    return pair


def test_a_raw_public_key_that_is_not_known_is_refused() -> None:
    pair = raw(issue("mallory"), ALICE)

    pair.alice.initiate()
    pair.settle()

    detail = failure_of(pair.bob).detail
    assert "PUBLIC_KEY_UNKNOWN" in detail
    assert "alice.example showed the key ECDSA P-256 SHA-256" in detail
    assert "known of it is ECDSA P-256 SHA-256" in detail


def test_showing_the_known_key_is_not_enough_one_must_have_it() -> None:
    pair = raw(issue("mallory"), ALICE)

    alter_request(pair, with_certs([CertPayload(15, ALICE.public.der)]))

    assert "is not by the ECDSA P-256 key" in failure_of(pair.bob).detail


def test_a_certificate_may_carry_the_known_key_and_nothing_else_of_it_counts() -> None:
    # Expired, of an unknown authority, for another name: the key is what is known.
    odd = gateway_of("whoever", OTHER_CA, ends=-DAY / 2, key=ALICE.key)
    pair = raw(ALICE, ALICE)

    alter_request(pair, with_certs([CertPayload(4, odd.der)]))

    assert len(pair.bob.events(IkeSaEstablished)) == 1


def test_a_scheme_that_is_not_accepted_is_refused_however_good_the_signature() -> None:
    pair = certified(
        alice=[gateway_of("alice", kind="rsa")],
        alice_signs={"signatures": (SignatureScheme.RSA_PKCS1_SHA256,)},
        bob_trusts=trusting(CA, signatures=(SignatureScheme.RSA_PSS_SHA256, SignatureScheme.RSA_PSS_SHA384)),
    )

    pair.alice.initiate()
    pair.settle()

    detail = failure_of(pair.bob).detail
    assert "the signature is rsa-pkcs1-sha256; accepted are rsa-pss-sha256, rsa-pss-sha384" in detail


def test_a_name_with_a_star_as_subject_is_no_pattern() -> None:
    # A CA that certifies `CN=*` certifies that name, not everybody's.
    star = issue(name_of("CN=*"), CA)
    pair = Pair(
        alice={"local_auth": with_certificate((star,))},
        bob={"remote_id": None, "remote_auth": trusting(CA)},
        both={"ike_options": WHOLE},
    )
    pair.alice.hold(star.private)
    pair.bob.hold()

    pair.alice.initiate()
    pair.settle()

    assert "CERTIFICATE_IDENTITY" in failure_of(pair.bob).detail
