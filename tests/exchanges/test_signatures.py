"""IKE_AUTH with signatures: certificates, raw public keys, one method a side (RFC 7296 §2.15, RFC 7427)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.ike.crypto.signature import parse_digital_signature
from gateway.ike.events import IkeSaEstablished, TrustRequest
from gateway.ike.v2 import ike_sa_init
from gateway.ike.wire.notify import NotifyType, parse_signature_hashes
from gateway.ike.wire.payloads import (
    AuthenticationMethod,
    AuthPayload,
    CertificateEncoding,
    CertPayload,
    CertreqPayload,
    all_payloads,
    find_payload,
)
from gateway.ipsec.authentication import PSK_AUTHENTICATION, Authentication, SignatureHash, SignatureScheme
from gateway.ipsec.connection import Fragmentation
from gateway.ipsec.identity import parse_identity
from tests.exchanges.signing import CA, OTHER_CA, SUB_CA, WHOLE, certified, gateway_of, last
from tests.fakes.pair import Asked, Pair, alice_connection, bob_connection
from tests.fakes.pki import GOOD_KINDS, Issued, issue, trusting, with_certificate, with_keys


def auth_of(pair: Pair, host: Any) -> AuthPayload:
    auth = find_payload(last(pair, host).payloads, AuthPayload)
    assert auth is not None
    return auth


# --- every kind of key --------------------------------------------------------------------------


def test_certificates_authenticate_both_sides() -> None:
    pair = certified()

    pair.establish()

    assert pair.story() == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr, CERTREQ}",
        "IKE_AUTH SK {IDi, CERT, CERTREQ, IDr, AUTH, SAi2, TSi, TSr} -->",
        "<-- IKE_AUTH SK {IDr, CERT, AUTH, SAr2, TSi, TSr}",
    ]
    for host, peer in ((pair.alice, "bob.example"), (pair.bob, "alice.example")):
        (established,) = host.events(IkeSaEstablished)
        assert str(established.ike_sa.remote_id) == peer


@pytest.mark.parametrize("kind", [*GOOD_KINDS, "rsa3072"])
def test_every_kind_of_key_signs_in_both_roles(kind: str) -> None:
    pair = certified(alice=[gateway_of("alice", kind=kind)], bob=[gateway_of("bob", kind=kind)])

    pair.establish()

    for host in pair.hosts:
        assert auth_of(pair, host).method == AuthenticationMethod.DIGITAL_SIGNATURE


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        *[("rsa", scheme) for scheme in SignatureScheme if scheme.value.startswith("rsa")],
        *[("p384", scheme) for scheme in SignatureScheme if scheme.value.startswith("ecdsa")],
        ("ed25519", SignatureScheme.ED25519),
        ("ed448", SignatureScheme.ED448),
    ],
)
def test_each_scheme_is_used_where_it_is_the_only_one(kind: str, scheme: SignatureScheme) -> None:
    only = {"signatures": (scheme,)}
    pair = certified(
        alice=[gateway_of("alice", kind=kind)],
        bob=[gateway_of("bob", kind=kind)],
        alice_trusts=trusting(CA, **only),
        bob_trusts=trusting(CA, **only),
        alice_signs=only,
        bob_signs=only,
    )

    pair.establish()

    for host in pair.hosts:
        assert parse_digital_signature(auth_of(pair, host).data).scheme is scheme


def test_what_is_announced_is_what_is_accepted() -> None:
    # RFC 7427 §4: hashes that the *receiver* of a signature can verify.
    accepted = (SignatureScheme.ED25519, SignatureScheme.ECDSA_SHA512)
    pair = certified(alice_trusts=trusting(CA, signatures=accepted))

    pair.establish()

    request, response = (pair.tap.open(pair.sent(host)[0].data) for host in pair.hosts)
    ours = request.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    theirs = response.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    assert ours is not None
    assert theirs is not None
    assert parse_signature_hashes(ours.data) == (SignatureHash.SHA2_512, SignatureHash.IDENTITY)
    assert parse_signature_hashes(theirs.data) == (2, 3, 4, 5)
    # So Bob signs with his P-256 key and SHA-512, although SHA-256 is what goes with it.
    assert parse_digital_signature(auth_of(pair, pair.bob).data).scheme is SignatureScheme.ECDSA_SHA512
    assert parse_digital_signature(auth_of(pair, pair.alice).data).scheme is SignatureScheme.ECDSA_SHA256


# --- peers that do not speak RFC 7427 -----------------------------------------------------------


@pytest.fixture
def without_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says SIGNATURE_HASH_ALGORITHMS."""
    monkeypatch.setattr(ike_sa_init, "_hash_notifies", lambda connections: [])


@pytest.mark.usefixtures("without_hashes")
@pytest.mark.parametrize(
    ("kind", "method", "octets"),
    [
        ("p256", AuthenticationMethod.ECDSA_SHA256_P256, 64),
        ("p384", AuthenticationMethod.ECDSA_SHA384_P384, 96),
        ("p521", AuthenticationMethod.ECDSA_SHA512_P521, 132),
    ],
)
def test_ecdsa_has_its_own_methods_without_rfc_7427(
    kind: str, method: AuthenticationMethod, octets: int
) -> None:
    # RFC 4754 §7: r and s, each of a fixed length.
    pair = certified(alice=[gateway_of("alice", kind=kind)], bob=[gateway_of("bob", kind=kind)])

    pair.establish()

    for host in pair.hosts:
        auth = auth_of(pair, host)
        assert (auth.method, len(auth.data)) == (method, octets)


@pytest.mark.usefixtures("without_hashes")
def test_rsa_without_rfc_7427_means_sha1_and_only_by_name() -> None:
    # RFC 7296 §3.8, method 1; RFC 8247 §3.2: MUST NOT.
    rsa = {"alice": [gateway_of("alice", kind="rsa")], "bob": [gateway_of("bob", kind="rsa")]}
    weak = {"signatures": (SignatureScheme.RSA_PKCS1_SHA1,)}
    pair = certified(**rsa)

    pair.alice.initiate()
    pair.settle()

    (failed,) = pair.alice.events()[-1:]
    assert "the peer announced no hashes (RFC 7427)" in failed.failure.detail
    assert "rsa-pkcs1-sha1" in failed.failure.detail
    assert pair.story()[-1].startswith("<-- IKE_SA_INIT")

    trusts = trusting(CA, **weak)
    pair = certified(**rsa, alice_signs=weak, bob_signs=weak, alice_trusts=trusts, bob_trusts=trusts)
    pair.establish()
    assert auth_of(pair, pair.alice).method == AuthenticationMethod.RSA_SIGNATURE


@pytest.mark.usefixtures("without_hashes")
@pytest.mark.parametrize("kind", ["ed25519", "ed448"])
def test_eddsa_has_no_way_without_rfc_7427(kind: str) -> None:
    pair = certified(alice=[gateway_of("alice", kind=kind)])

    pair.alice.initiate()
    pair.settle()

    (failed,) = pair.alice.events()[-1:]
    assert failed.failure.reason.value == "no_credential"


def test_a_peer_that_verifies_no_hash_of_ours_is_told_nothing() -> None:
    pair = certified(
        alice=[gateway_of("alice", kind="ed25519")],
        bob_trusts=trusting(CA, signatures=(SignatureScheme.ECDSA_SHA256,)),
    )

    pair.alice.initiate()
    pair.settle()

    (failed,) = pair.alice.events()[-1:]
    assert "the peer verifies only the hashes 2 (RFC 7427 §7)" in failed.failure.detail
    assert len(pair.story()) == 2


# --- one method a side --------------------------------------------------------------------------

ALICE, BOB = gateway_of("alice"), gateway_of("bob", kind="ed25519")
PROVES: dict[str, Callable[[Issued], Authentication]] = {
    "psk": lambda one: PSK_AUTHENTICATION,
    "certificate": lambda one: with_certificate((one,), above=(CA,)),
    "public key": lambda one: with_keys(one.public),
}
BELIEVES: dict[str, Callable[[Issued], Authentication]] = {
    "psk": lambda one: PSK_AUTHENTICATION,
    "certificate": lambda one: trusting(CA),
    "public key": lambda one: with_keys(one.public),
}


@pytest.mark.parametrize("initiator", PROVES)
@pytest.mark.parametrize("responder", PROVES)
def test_each_side_has_its_own_method(initiator: str, responder: str) -> None:
    pair = Pair(
        alice={"local_auth": PROVES[initiator](ALICE), "remote_auth": BELIEVES[responder](BOB)},
        bob={"local_auth": PROVES[responder](BOB), "remote_auth": BELIEVES[initiator](ALICE)},
        both={"ike_options": WHOLE},
    )
    pair.alice.hold(ALICE.private)
    pair.bob.hold(BOB.private)

    pair.establish()

    methods = {"psk": AuthenticationMethod.SHARED_KEY_MIC}
    for host, method in ((pair.alice, initiator), (pair.bob, responder)):
        assert auth_of(pair, host).method == methods.get(method, AuthenticationMethod.DIGITAL_SIGNATURE)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [("psk", "certificate"), ("psk", "public key"), ("certificate", "psk"), ("public key", "psk")],
)
def test_another_method_than_the_configured_one_is_refused(shown: str, wanted: str) -> None:
    pair = Pair(
        alice={"local_auth": PROVES[shown](ALICE), "remote_auth": BELIEVES["certificate"](BOB)},
        bob={"local_auth": PROVES["certificate"](BOB), "remote_auth": BELIEVES[wanted](ALICE)},
        both={"ike_options": WHOLE},
    )
    pair.alice.hold(ALICE.private)
    pair.bob.hold(BOB.private)

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    (failed,) = pair.bob.events()[-1:]
    assert "the peer authenticates by method" in failed.failure.detail


def test_of_connections_with_the_same_identity_the_one_with_the_right_method_is_taken() -> None:
    bob = [
        bob_connection(name="by-key", ike_options=WHOLE),
        bob_connection(
            name="by-certificate",
            ike_options=WHOLE,
            local_auth=PROVES["certificate"](BOB),
            remote_auth=trusting(CA),
        ),
    ]
    alice = alice_connection(
        ike_options=WHOLE, local_auth=PROVES["certificate"](ALICE), remote_auth=trusting(CA)
    )
    pair = Pair(alice=[alice], bob=bob)
    pair.alice.hold(ALICE.private)
    pair.bob.hold(BOB.private)

    pair.alice.initiate()
    pair.settle()

    assert pair.bob.ike_sa.connection == "by-certificate"


def test_an_entry_of_its_own_wins_over_one_for_many_whatever_the_method() -> None:
    # A peer that has a pre-shared key of its own cannot choose the door for everybody instead.
    bob = [
        bob_connection(
            name="for-all",
            remote_id=None,
            ike_options=WHOLE,
            local_auth=PROVES["certificate"](BOB),
            remote_auth=trusting(CA),
        ),
        bob_connection(name="for-alice", ike_options=WHOLE),
    ]
    alice = alice_connection(
        ike_options=WHOLE, local_auth=PROVES["certificate"](ALICE), remote_auth=trusting(CA)
    )
    pair = Pair(alice=[alice], bob=bob)
    pair.alice.hold(ALICE.private)
    pair.bob.hold(BOB.private)

    pair.alice.initiate()
    pair.settle()

    assert pair.story()[-1] == "<-- IKE_AUTH SK {N(AUTHENTICATION_FAILED)}"
    assert pair.bob.ike_sas == ()


# --- CERT and CERTREQ ---------------------------------------------------------------------------


def test_certreq_names_authorities_by_the_sha1_of_their_keys() -> None:
    # RFC 7296 §3.7.
    pair = certified(alice_trusts=trusting(CA, OTHER_CA))

    pair.establish()

    request = find_payload(last(pair, pair.alice).payloads, CertreqPayload)
    assert request is not None
    assert request.encoding == CertificateEncoding.X509_SIGNATURE
    ids = [one.certificate.extensions for one in (CA, OTHER_CA)]
    assert len(request.data) == 20 * len(ids)
    assert request.data[:20] == with_certificate((ALICE,), above=(CA,)).certificates[0].authorities[0]


def test_intermediate_authorities_are_sent_along() -> None:
    chain = [gateway_of("alice", SUB_CA), SUB_CA]
    pair = certified(alice=chain)

    pair.establish()

    certificates = all_payloads(last(pair, pair.alice).payloads, CertPayload)
    assert [one.data for one in certificates] == [one.der for one in chain]


def test_intermediate_authorities_may_be_configured_where_the_peer_sends_none() -> None:
    alone = [gateway_of("alice", SUB_CA)]
    assert_refused = certified(alice=alone)
    assert_refused.alice.initiate()
    assert_refused.settle()
    assert assert_refused.bob.ike_sas == ()

    pair = certified(alice=alone, bob_trusts=trusting(CA, intermediates=(SUB_CA.der,)))

    pair.establish()


@pytest.mark.parametrize(("trusted", "taken"), [(CA, 0), (OTHER_CA, 1)])
def test_the_certificate_is_chosen_by_the_authority_that_the_peer_names(trusted: Issued, taken: int) -> None:
    mine = [gateway_of("alice"), gateway_of("alice", OTHER_CA)]
    alice_auth = with_certificate((mine[0],), (mine[1],))
    authorities = [with_certificate((mine[0],), above=(CA,)), with_certificate((mine[1],), above=(OTHER_CA,))]
    alice_auth = replace(
        alice_auth, certificates=tuple(authentication.certificates[0] for authentication in authorities)
    )
    pair = Pair(
        alice={"local_auth": alice_auth, "remote_auth": trusting(CA)},
        bob={"local_auth": with_certificate((gateway_of("bob"),)), "remote_auth": trusting(trusted)},
        both={"ike_options": WHOLE},
    )
    pair.alice.hold(mine[0].private)
    pair.bob.hold(gateway_of("bob").private)

    pair.establish()

    sent = find_payload(last(pair, pair.alice).payloads, CertPayload)
    assert sent is not None
    assert sent.data == mine[taken].der


def test_raw_public_keys_are_sent_where_the_peer_asks_for_them() -> None:
    # RFC 7670 §3: CERTREQ with encoding 15 and no authority.
    pair = Pair(
        alice={"local_auth": with_keys(ALICE.public), "remote_auth": with_keys(BOB.public)},
        bob={"local_auth": with_keys(BOB.public), "remote_auth": with_keys(ALICE.public)},
    )
    pair.alice.hold(ALICE.private)
    pair.bob.hold(BOB.private)

    pair.establish()

    payloads = last(pair, pair.alice).payloads
    asked, sent = find_payload(payloads, CertreqPayload), find_payload(payloads, CertPayload)
    assert (asked, sent) == (CertreqPayload(15, b""), CertPayload(15, ALICE.public.der))


def test_one_of_several_known_keys_will_do_as_when_a_peer_changes_its_key() -> None:
    new = issue("alice's next key", kind="ed448")
    pair = Pair(
        alice={"local_auth": with_keys(new.public)},
        bob={"remote_auth": with_keys(ALICE.public, new.public)},
    )
    pair.alice.hold(new.private)
    pair.bob.hold()

    pair.establish()


@pytest.mark.parametrize(
    ("identity", "changes"),
    [
        ("O=Test, CN=alice", {"names": []}),
        ("192.0.2.1", {"names": ["192.0.2.1"]}),
        ("2001:db8::1", {"names": ["2001:db8::1"]}),
        ("Alice@Example.org", {"names": ["alice@example.org"]}),
        ("ALICE.example", {"names": ["other.example", "alice.example"]}),
    ],
)
def test_every_type_of_identity_is_confirmed_by_the_certificate(identity: str, changes: Any) -> None:
    # RFC 4945 §3.1.
    alice = issue("alice", CA, **changes)
    pair = Pair(
        alice={
            "local_id": parse_identity(identity),
            "local_auth": with_certificate((alice,)),
        },
        bob={"remote_id": None, "remote_auth": trusting(CA)},
    )
    pair.alice.hold(alice.private)
    pair.bob.hold()

    pair.establish()

    (established,) = pair.bob.events(IkeSaEstablished)
    assert established.ike_sa.remote_id == parse_identity(identity)


# --- large messages -----------------------------------------------------------------------------


def test_large_certificates_come_in_fragments() -> None:
    chain = [gateway_of("alice", SUB_CA, kind="rsa"), SUB_CA]
    pair = certified(alice=chain, both={"ike_options": {"fragmentation": Fragmentation.YES}})

    pair.establish()

    asked = [entry.request for entry in pair.log if isinstance(entry, Asked) and entry.host == "bob"]
    (trust,) = [request for request in asked if isinstance(request, TrustRequest)]
    assert trust.certificates == tuple(one.der for one in chain)
    assert sum("SKF" in line for line in pair.story()) >= 2
