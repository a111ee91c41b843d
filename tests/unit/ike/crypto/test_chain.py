"""Which certificates are believed (RFC 5280 §6, RFC 4945 §5): chains made here, and by OpenSSL."""

import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from gateway.ike.crypto.certificate import (
    CertificateProblem,
    Check,
    read_certificate,
    split_certificates,
)
from gateway.ike.crypto.chain import MAX_SIGNATURES, TrustStore, _Search, verify_certificate
from gateway.ike.crypto.revocation import read_crl
from gateway.ike.crypto.signature import key_hash
from gateway.ipsec.authentication import KeyKind, Revocation
from gateway.ipsec.identity import Identity, IdType, parse_identity
from tests.fakes.pki import CERT_SIGN, DAY, GOOD_KINDS, NOW, Issued, crl, crl_point, issue, key_of, name_of

ROOT = issue("Root")
SUB = issue("Sub", ROOT, is_ca=True)
PEER = parse_identity("peer.example")


def peer(issuer: Issued = ROOT, **changes: Any) -> Issued:
    return issue("peer", issuer, **{"names": ["peer.example"]} | changes)


def store(
    *anchors: Issued,
    crls: Iterable[bytes] = (),
    intermediates: Iterable[Issued] = (),
    revocation: Revocation = Revocation.IFURI,
) -> TrustStore:
    return TrustStore(
        anchors=tuple(read_certificate(one.der) for one in anchors or (ROOT,)),
        intermediates=tuple(read_certificate(one.der) for one in intermediates),
        crls=tuple(read_crl(der) for der in crls),
        revocation=revocation,
    )


def believe(trust: TrustStore, *sent: Issued, identity: Identity = PEER, at: float = NOW) -> KeyKind:
    return trust.believe(tuple(one.der for one in sent), identity, at).kind


def refused(check: Check, trust: TrustStore, *sent: Issued, **changes: Any) -> str:
    with pytest.raises(CertificateProblem) as problem:
        believe(trust, *sent, **changes)
    assert problem.value.check is check, str(problem.value)
    return str(problem.value)


# --- chains -------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", GOOD_KINDS)
@pytest.mark.parametrize("kind", GOOD_KINDS)
def test_every_kind_of_key_signs_and_is_signed(signer: str, kind: str) -> None:
    root = issue("Root", kind=signer)

    assert believe(store(root), peer(root, kind=kind)) is not None


def test_a_chain_is_found_whatever_its_order_and_with_strangers_in_between() -> None:
    lower = issue("Lower", SUB, is_ca=True)
    stranger = issue("Stranger")

    believe(store(), peer(lower), stranger, SUB, lower)
    believe(store(), peer(lower), ROOT, lower, lower, SUB)
    believe(store(intermediates=[SUB]), peer(lower), lower)


def test_an_intermediate_authority_may_be_what_is_trusted() -> None:
    believe(store(SUB), peer(SUB))
    refused(Check.NO_ISSUER, store(SUB), peer(ROOT))


def test_the_way_over_a_good_cross_certificate_is_found_behind_a_bad_one() -> None:
    old_root = issue("Old Root")
    expired = issue("Sub", old_root, is_ca=True, ends=-1.0, key=SUB.key)
    cross = issue("Sub", ROOT, is_ca=True, key=SUB.key)

    believe(store(ROOT, old_root), peer(SUB), expired, cross)


def test_a_missing_issuer_is_named() -> None:
    text = refused(Check.NO_ISSUER, store(), peer(SUB))

    assert "its issuer O=Test, CN=Sub is neither trusted nor sent; trusted: O=Test, CN=Root" in text


def test_an_authority_of_the_same_name_with_another_key_signs_nothing() -> None:
    impostor = issue("Root", key=key_of("p256", "impostor"))

    text = refused(Check.SIGNATURE, store(), peer(impostor))

    assert "certificate O=Test, CN=peer (serial" in text
    assert "is not signed by the key of certificate O=Test, CN=Root" in text


def test_a_changed_certificate_is_not_signed() -> None:
    good = peer().der
    position = good.index(b"peer.example")
    changed = good[:position] + b"pear" + good[position + 4 :]

    with pytest.raises(CertificateProblem) as problem:
        store().believe((changed,), parse_identity("pear.example"), NOW)

    assert problem.value.check is Check.SIGNATURE


def test_a_self_signed_end_entity_is_believed_only_where_it_is_trusted() -> None:
    own = issue("peer", names=["peer.example"], is_ca=True, usage=CERT_SIGN | {"digital_signature": True})

    believe(store(own), own)
    refused(Check.NO_ISSUER, store(), own)


def test_many_ways_up_cost_a_bounded_number_of_signatures() -> None:
    # Ten authorities of one name and key that issue each other: factorially many ways.
    key = key_of("p256", "loop")
    first = issue("Loop", key=key)
    loops = [issue("Loop", first, key=key, is_ca=True) for _ in range(9)]
    search = _Search(store(), tuple(read_certificate(one.der) for one in loops), NOW)

    with pytest.raises(CertificateProblem) as problem:
        search.believe(read_certificate(peer(first).der))

    assert problem.value.check is Check.PATH_LENGTH
    assert search.signatures == MAX_SIGNATURES


# --- what is remembered --------------------------------------------------------------------------


def test_a_signature_in_a_chain_is_verified_once() -> None:
    sent = (peer(SUB), SUB)
    verify_certificate.cache_clear()

    for _ in range(3):
        believe(store(), *sent)

    assert verify_certificate.cache_info().misses == 2


def test_a_signature_that_failed_is_not_taken_for_good_later() -> None:
    other = issue("Root", key=key_of("p256", "other"))
    leaf = peer()

    for _ in range(2):
        refused(Check.SIGNATURE, store(other), leaf)
        believe(store(), leaf)


def test_everything_but_signatures_is_judged_anew_each_time() -> None:
    leaf = peer(SUB)
    sent = (leaf, SUB)
    believe(store(), *sent)

    refused(Check.EXPIRED, store(), *sent, at=NOW + 100 * 365 * DAY)
    refused(Check.REVOKED, store(crls=[crl(SUB, leaf)]), *sent)
    refused(Check.REVOKED, store(crls=[crl(ROOT, SUB)]), *sent)
    refused(Check.NO_ISSUER, store(issue("Elsewhere")), *sent)
    refused(Check.IDENTITY, store(), *sent, identity=parse_identity("pear.example"))
    believe(store(), *sent)


def test_long_certificates_are_read_but_not_remembered() -> None:
    short, long = peer().der, peer(names=["peer.example", *(f"{n:060}.example" for n in range(100))]).der

    assert read_certificate(short) is read_certificate(short)
    assert read_certificate(long) is not read_certificate(long)
    assert read_certificate(long).serial == read_certificate(long).serial


# --- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "check"),
    [
        (NOW - DAY - 1, Check.NOT_YET_VALID),
        (NOW - DAY, None),
        (NOW + DAY, None),
        (NOW + DAY + 1, Check.EXPIRED),
    ],
)
def test_the_first_and_the_last_second_are_valid(at: float, check: Check | None) -> None:
    root = issue("Root", starts=-2 * DAY)
    one = peer(root, ends=DAY)
    if check is None:
        believe(store(root), one, at=at)
    else:
        assert "it is 20" in refused(check, store(root), one, at=at)


@pytest.mark.parametrize("which", ["root", "sub"])
def test_every_certificate_of_the_chain_must_be_in_time(which: str) -> None:
    root = issue("Root", ends=-1.0 if which == "root" else DAY)
    sub = issue("Sub", root, is_ca=True, ends=-1.0 if which == "sub" else DAY)

    text = refused(Check.EXPIRED, store(root), peer(sub), sub)

    assert f"CN={which.capitalize()}" in text


# --- authorities --------------------------------------------------------------------------------


def test_an_end_entity_cannot_issue() -> None:
    other = issue("other", ROOT, is_ca=False)

    assert "basicConstraints" in refused(Check.NOT_A_CA, store(), peer(other), other)


def test_an_authority_without_basic_constraints_is_none_even_where_it_is_trusted() -> None:
    bare = issue("Bare", ROOT, usage=CERT_SIGN)

    refused(Check.NOT_A_CA, store(bare), peer(bare))


def test_an_authority_must_be_allowed_to_sign_certificates() -> None:
    silent = issue("Silent", ROOT, is_ca=True, usage={"crl_sign": True})

    refused(Check.KEY_USAGE, store(), peer(silent), silent)


@pytest.mark.parametrize(("allowed", "is_good"), [(0, False), (1, True)])
def test_the_path_length_counts_the_authorities_below(allowed: int, is_good: bool) -> None:
    # RFC 5280 §4.2.1.9: non-self-issued intermediate certificates that may follow.
    root = issue("Root", path_length=allowed)
    sub = issue("Sub", root, is_ca=True)

    if is_good:
        believe(store(root), peer(sub), sub)
    else:
        assert "allows 0 authorities below it, there are 1" in refused(
            Check.PATH_LENGTH, store(root), peer(sub), sub
        )


def test_a_self_issued_certificate_does_not_count_for_the_path_length() -> None:
    root = issue("Root", path_length=0)
    renewed = issue("Root", root, is_ca=True, key=key_of("p256", "renewed"))

    believe(store(root), peer(renewed), renewed)


def test_a_stronger_hash_in_the_chain_is_as_good() -> None:
    root = issue("Root", kind="rsa")
    sub = issue("Sub", root, is_ca=True, hash_=hashes.SHA512())

    believe(store(root), peer(sub), sub)


@pytest.mark.parametrize("kind", ["rsa1024", "k256"])
def test_weak_keys_are_refused(kind: str) -> None:
    assert "peer (serial" in refused(Check.KEY, store(), peer(kind=kind))


def test_a_critical_extension_that_is_unknown_is_refused() -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")

    assert "1.3.6.1.4.1.99999.1" in refused(
        Check.CRITICAL_EXTENSION, store(), peer(extensions=[(strange, True)])
    )
    believe(store(), peer(extensions=[(strange, False)]))


def test_policies_are_not_required_but_their_constraints_cannot_be_kept() -> None:
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])
    constraints = x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None)

    believe(store(), peer(extensions=[(policies, True)]))
    refused(Check.CRITICAL_EXTENSION, store(), peer(extensions=[(constraints, True)]))


# --- the end entity (RFC 4945 §5.1.3) -----------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "is_good"),
    [
        ({"digital_signature": True}, True),
        ({"content_commitment": True}, True),
        ({"key_encipherment": True}, False),
        ({"key_agreement": True}, False),
        ({}, True),
    ],
)
def test_the_key_usage_must_let_it_sign(usage: dict[str, bool], is_good: bool) -> None:
    # RFC 4945 §5.1.3.2: digitalSignature or nonRepudiation; without the extension anything goes.
    if is_good:
        believe(store(), peer(usage=usage))
    else:
        refused(Check.KEY_USAGE, store(), peer(usage=usage))


@pytest.mark.parametrize(
    ("purposes", "is_good"),
    [
        ([], True),
        (["1.3.6.1.5.5.7.3.17"], True),
        (["2.5.29.37.0"], True),
        (["1.3.6.1.5.5.8.2.2"], True),
        (["1.3.6.1.5.5.7.3.1"], True),
        (["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.4"], True),
        (["1.3.6.1.5.5.7.3.4"], False),
        (["1.3.6.1.5.5.7.3.3", "1.3.6.1.5.5.7.3.9"], False),
        (["1.3.6.1.5.5.7.3.5"], False),
    ],
)
def test_the_extended_key_usage_must_be_for_ike(purposes: list[str], is_good: bool) -> None:
    if is_good:
        believe(store(), peer(purposes=purposes))
    else:
        refused(Check.EXTENDED_KEY_USAGE, store(), peer(purposes=purposes))


# --- identities (RFC 4945 §3.1) -----------------------------------------------------------------

NAMED = issue(
    "OU=Gateways/CN=peer",
    ROOT,
    names=[
        "peer.example",
        "second.example",
        "192.0.2.1",
        "2001:db8::1",
        "peer@example.org",
        "http://peer.example/",
    ],
)
SKI = x509.SubjectKeyIdentifier.from_public_key(NAMED.key.public_key()).digest


@pytest.mark.parametrize(
    "text",
    [
        *("peer.example", "PEER.Example", "second.example", "192.0.2.1", "2001:db8::1", "peer@example.org"),
        *("Peer@Example.ORG", "O=Test, OU=Gateways, CN=peer", "O=test, OU=GATEWAYS, CN=Peer"),
    ],
)
def test_an_identity_in_the_certificate_is_confirmed(text: str) -> None:
    believe(store(), NAMED, identity=parse_identity(text))


def test_a_key_id_is_the_subject_key_identifier_or_the_sha1_of_the_key() -> None:
    # RFC 5280 §4.2.1.2 method (1), and what CERTREQ names keys by (RFC 7296 §3.7).
    for key_id in (SKI, key_hash(NAMED.public.der)):
        believe(store(), NAMED, identity=Identity(IdType.KEY_ID, key_id))


@pytest.mark.parametrize(
    "text",
    [
        *("other.example", "peer.example.", "a.peer.example", "example", "*.example", "*"),
        *(
            "192.0.2.2",
            "0.0.0.1",
            "2001:db8::2",
            "other@example.org",
            "peer@example.com",
            "@peer.example.org",
        ),
        *("O=Test, CN=peer", "CN=peer", "O=Test, OU=Gateways, CN=*", "O=Test, OU=Gateways, CN=peer, CN=peer"),
        *("keyid:peer.example", "keyid:#00", "fqdn:192.0.2.1", "fqdn:peer@example.org", "email:peer.example"),
    ],
)
def test_an_identity_that_is_not_in_the_certificate_is_not(text: str) -> None:
    identity = Identity(IdType.FQDN, text.encode()) if text in ("*", "*.example") else parse_identity(text)

    message = refused(Check.IDENTITY, store(), NAMED, identity=identity)

    assert "it names fqdn:peer.example, fqdn:second.example, address:192.0.2.1" in message


@pytest.mark.parametrize(
    "identity",
    [
        Identity(IdType.DER_ASN1_DN, b""),
        Identity(IdType.DER_ASN1_DN, b"\x30\x00"),
        Identity(IdType.DER_ASN1_DN, b"\x30\x05junk!"),
        Identity(IdType.KEY_ID, b""),
        Identity(IdType.FQDN, b""),
        Identity(IdType.DER_ASN1_GN, b"\x82\x0cpeer.example"),
        Identity(IdType.NULL, b""),
    ],
)
def test_empty_and_strange_identities_are_confirmed_by_nothing(identity: Identity) -> None:
    nameless = issue(x509.Name([]), ROOT, names=["peer.example"])

    refused(Check.IDENTITY, store(), nameless, identity=identity)


# --- name constraints (RFC 5280 §4.2.1.10) ------------------------------------------------------


def constrained(
    permitted: Iterable[x509.GeneralName] = (), excluded: Iterable[x509.GeneralName] = ()
) -> Issued:
    constraints = x509.NameConstraints(list(permitted) or None, list(excluded) or None)
    return issue("Constrained", ROOT, is_ca=True, extensions=[(constraints, True)])


def network(text: str) -> x509.GeneralName:
    return x509.IPAddress(ip_network(text))


DNS, MAIL, DIRECTORY, URI = x509.DNSName, x509.RFC822Name, x509.DirectoryName, x509.UniformResourceIdentifier
CONSTRAINTS = [
    ([DNS("example")], [], ["peer.example"], True),
    ([DNS("peer.example")], [], ["peer.example"], True),
    ([DNS("eer.example")], [], ["peer.example"], False),
    ([DNS("other.example")], [], ["peer.example"], False),
    ([DNS("EXAMPLE")], [], ["peer.example"], True),
    ([DNS(".example")], [], ["peer.example"], True),
    ([DNS("other.example"), DNS("example")], [], ["peer.example"], True),
    ([DNS("example")], [], ["peer.example", "peer.other"], False),
    ([], [DNS("peer.example")], ["peer.example"], False),
    ([], [DNS("other.example")], ["peer.example"], True),
    ([DNS("example")], [DNS("peer.example")], ["peer.example"], False),
    ([network("192.0.2.0/24")], [], ["peer.example", "192.0.2.1"], True),
    ([network("192.0.2.0/24")], [], ["peer.example", "198.51.100.1"], False),
    ([network("192.0.2.0/24")], [], ["peer.example", "2001:db8::1"], False),
    ([], [network("2001:db8::/32")], ["peer.example", "2001:db8::1"], False),
    ([], [network("192.0.2.0/24")], ["peer.example", "2001:db8::1"], True),
    ([MAIL("example.org")], [], ["peer.example", "peer@example.org"], True),
    ([MAIL(".example.org")], [], ["peer.example", "peer@example.org"], False),
    ([MAIL(".example.org")], [], ["peer.example", "peer@sub.example.org"], True),
    ([MAIL("peer@example.org")], [], ["peer.example", "other@example.org"], False),
    (
        [DIRECTORY(x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "TEST")]))],
        [],
        ["peer.example"],
        True,
    ),
    ([DIRECTORY(name_of("Other"))], [], ["peer.example"], False),
    ([], [DIRECTORY(name_of("peer"))], ["peer.example"], False),
    # A form that we do not compare: refused where it is mentioned and occurs.
    ([URI("example.org")], [], ["peer.example", "http://peer.example/"], False),
    ([], [URI("example.org")], ["peer.example", "http://peer.example/"], False),
    ([URI("example.org")], [], ["peer.example"], True),
]


@pytest.mark.parametrize(("permitted", "excluded", "names", "is_good"), CONSTRAINTS)
def test_an_authority_cannot_name_more_than_it_may(
    permitted: list[x509.GeneralName], excluded: list[x509.GeneralName], names: list[str], is_good: bool
) -> None:
    authority = constrained(permitted, excluded)
    one = peer(authority, names=names)

    if is_good:
        believe(store(), one, authority)
    else:
        text = refused(Check.NAME_CONSTRAINTS, store(), one, authority)
        assert "CN=Constrained" in text


def test_constraints_bind_everything_below_and_those_of_a_trust_anchor_too() -> None:
    authority = constrained([DNS("other.example")])
    below = issue("Below", authority, is_ca=True)

    refused(Check.NAME_CONSTRAINTS, store(), peer(below), below, authority)
    refused(Check.NAME_CONSTRAINTS, store(authority), peer(authority))


def test_an_address_in_the_subject_counts_where_no_other_is() -> None:
    # RFC 5280 §4.2.1.10: the emailAddress attribute of the subject.
    authority = constrained([MAIL("example.org")])
    one = issue("CN=peer/E=peer@elsewhere.example", authority, names=["peer.example"])

    refused(Check.NAME_CONSTRAINTS, store(), one, authority)


# --- revocation (RFC 5280 §5, §6.3) -------------------------------------------------------------

POLICIES = list(Revocation)
PLAIN, POINTED = peer(), peer(extensions=[crl_point()])
SUB_POINTED = issue("Sub", ROOT, is_ca=True, extensions=[crl_point()])
STALE = {"starts": -3 * DAY, "ends": -DAY}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dates", [{}, STALE], ids=["current", "stale"])
def test_a_revoked_certificate_is_refused_by_every_policy(
    policy: Revocation, dates: dict[str, float]
) -> None:
    lists = [crl(ROOT, PLAIN, reason=x509.ReasonFlags.superseded, **dates)]

    text = refused(Check.REVOKED, store(crls=lists, revocation=policy), PLAIN)

    assert "was revoked on" in text
    assert "(superseded), says the CRL of O=Test, CN=Root from" in text


@pytest.mark.parametrize("policy", POLICIES)
def test_a_current_crl_acquits(policy: Revocation) -> None:
    trust = store(crls=[crl(ROOT, peer())], revocation=policy)

    believe(trust, PLAIN)
    believe(trust, POINTED)


#: What there is of CRLs, the certificate, and which policies are content with that.
MISSING = {
    "none": ([], PLAIN, {Revocation.IFURI, Revocation.RELAXED}),
    "none, and it says where": ([], POINTED, {Revocation.RELAXED}),
    "stale": ([crl(ROOT, **STALE)], POINTED, {Revocation.RELAXED}),
    "not yet": ([crl(ROOT, starts=DAY)], POINTED, {Revocation.RELAXED}),
    "of another authority": ([crl(issue("Other"))], POINTED, {Revocation.RELAXED}),
    "forged": ([crl(ROOT, signer=key_of("p256", "forger"))], POINTED, {Revocation.RELAXED}),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", MISSING)
def test_what_a_missing_crl_means_is_the_policys_business(case: str, policy: Revocation) -> None:
    lists, one, content = MISSING[case]
    trust = store(crls=lists, revocation=policy)

    if policy in content:
        believe(trust, one)
    else:
        text = refused(Check.REVOCATION_UNKNOWN, trust, one)
        assert f"revocation is {policy.value}, but" in text


def test_strict_wants_a_crl_of_every_issuer_in_the_chain() -> None:
    one = peer(SUB)

    text = refused(Check.REVOCATION_UNKNOWN, store(crls=[crl(SUB)], revocation=Revocation.STRICT), one, SUB)
    assert "certificate O=Test, CN=Sub" in text
    believe(store(crls=[crl(SUB), crl(ROOT)], revocation=Revocation.STRICT), one, SUB)


def test_a_revoked_intermediate_authority_takes_everything_below_with_it() -> None:
    assert "CN=Sub (serial" in refused(Check.REVOKED, store(crls=[crl(ROOT, SUB)]), peer(SUB), SUB)


def test_a_forged_crl_cannot_revoke() -> None:
    forged = crl(ROOT, PLAIN, signer=key_of("p256", "forger"))

    believe(store(crls=[forged], revocation=Revocation.RELAXED), PLAIN)


def test_the_newest_crl_counts_as_when_a_hold_was_lifted() -> None:
    old = crl(ROOT, PLAIN, starts=-2 * DAY, reason=x509.ReasonFlags.certificate_hold)
    new = crl(ROOT, starts=-DAY)

    believe(store(crls=[old, new], revocation=Revocation.STRICT), PLAIN)
    refused(Check.REVOKED, store(crls=[old]), PLAIN)


def test_an_authority_that_may_not_sign_crls_has_none() -> None:
    silent = issue("Silent", usage={"key_cert_sign": True})

    refused(
        Check.REVOCATION_UNKNOWN, store(silent, crls=[crl(silent)]), peer(silent, extensions=[crl_point()])
    )


def scope(**changes: Any) -> tuple[x509.ExtensionType, bool]:
    fields: dict[str, Any] = dict.fromkeys(
        ("full_name", "relative_name", "only_some_reasons")
    ) | dict.fromkeys(
        (
            "only_contains_user_certs",
            "only_contains_ca_certs",
            "indirect_crl",
            "only_contains_attribute_certs",
        ),
        False,
    )
    return x509.IssuingDistributionPoint(**fields | changes), True


@pytest.mark.parametrize(
    "extension",
    [
        (x509.DeltaCRLIndicator(1), True),
        scope(indirect_crl=True),
        scope(only_contains_attribute_certs=True),
        scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})),
    ],
)
def test_partial_crls_are_refused_when_they_are_read(extension: Any) -> None:
    with pytest.raises(CertificateProblem) as problem:
        read_crl(crl(ROOT, extensions=[extension]))

    assert problem.value.check is Check.CRL


def test_a_crl_for_authorities_says_nothing_of_end_entities() -> None:
    of_authorities = crl(ROOT, extensions=[scope(only_contains_ca_certs=True)])
    of_users = crl(ROOT, extensions=[scope(only_contains_user_certs=True)])

    refused(Check.REVOCATION_UNKNOWN, store(crls=[of_authorities]), POINTED)
    believe(store(crls=[of_users]), POINTED)


def test_a_crl_of_another_distribution_point_says_nothing() -> None:
    def of(uri: str) -> bytes:
        return crl(ROOT, extensions=[scope(full_name=[x509.UniformResourceIdentifier(uri)])])

    believe(store(crls=[of("http://crl.example/ca.crl")]), POINTED)
    refused(Check.REVOCATION_UNKNOWN, store(crls=[of("http://crl.example/other.crl")]), POINTED)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30\x00", b"garbage", ROOT.der],
    ids=["nothing", "an empty sequence", "garbage", "a certificate"],
)
def test_what_is_no_crl_is_refused(data: bytes) -> None:
    with pytest.raises(CertificateProblem):
        read_crl(data)


# --- malformed certificates ---------------------------------------------------------------------


def test_every_truncation_of_a_certificate_is_malformed() -> None:
    der = peer().der

    for size in range(len(der)):
        with pytest.raises(CertificateProblem):
            read_certificate(der[:size])


def test_no_changed_octet_of_what_is_signed_is_believed() -> None:
    one, trust = peer(), store()
    signed = one.certificate.tbs_certificate_bytes
    for position in range(len(one.der)):
        changed = bytearray(one.der)
        changed[position] ^= 1
        try:
            trust.believe((bytes(changed),), PEER, NOW)
        except CertificateProblem:
            continue
        # The count of unused bits of the signature, where the last bit is 0: nothing that is signed.
        assert signed in bytes(changed)
        assert x509.load_der_x509_certificate(bytes(changed)).tbs_certificate_bytes == signed


# --- OpenSSL as the issuer ----------------------------------------------------------------------


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_by_openssl(folder: Path, *, digest: str, algorithm: list[str]) -> tuple[bytes, bytes]:
    """Return an authority and an end entity for peer.example, DER, both by OpenSSL's command line."""
    openssl(
        folder,
        *("req", "-x509", "-newkey", *algorithm, "-nodes", "-keyout", "ca.key", "-out", "ca.pem"),
        *(digest, "-days", "30", "-subj", "/O=OpenSSL/CN=CA", "-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl(
        folder,
        *("req", "-new", "-newkey", *algorithm, "-nodes", "-keyout", "peer.key", "-out", "peer.csr"),
        *("-subj", "/O=OpenSSL/CN=peer", "-addext", "subjectAltName=DNS:peer.example"),
    )
    openssl(
        folder,
        *("x509", "-req", "-in", "peer.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy"),
        *("-out", "peer.pem", "-days", "30", digest),
    )
    return tuple(split_certificates((folder / name).read_bytes())[0] for name in ("ca.pem", "peer.pem"))  # type: ignore[return-value]


ALGORITHMS = {
    "rsa": ["rsa:2048"],
    "p384": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ed25519": ["ed25519"],
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_certificates_by_openssl_are_believed(tmp_path: Path, name: str) -> None:
    root, one = make_by_openssl(tmp_path, digest="-sha256", algorithm=ALGORITHMS[name])
    trust = TrustStore(anchors=(read_certificate(root),))

    trust.believe((one,), PEER, datetime.now(UTC).timestamp())


def test_a_sha1_signature_by_openssl_is_refused(tmp_path: Path) -> None:
    root, one = make_by_openssl(tmp_path, digest="-sha1", algorithm=ALGORITHMS["rsa"])
    trust = TrustStore(anchors=(read_certificate(root),))

    with pytest.raises(CertificateProblem) as problem:
        trust.believe((one,), PEER, datetime.now(UTC).timestamp())

    assert problem.value.check is Check.SIGNATURE_ALGORITHM
    assert "1.2.840.113549.1.1.5, weak or unknown; SHA-2 is wanted" in str(problem.value)


def test_openssl_agrees_about_a_chain_of_ours(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    (tmp_path / "sub.pem").write_bytes(SUB.pem)
    (tmp_path / "peer.pem").write_bytes(peer(SUB).pem)

    openssl(
        tmp_path,
        *("verify", "-attime", str(int(NOW)), "-CAfile", "root.pem", "-untrusted", "sub.pem", "peer.pem"),
    )


def test_pem_bundles_are_split_in_order() -> None:
    chain = [peer(SUB), SUB]

    assert split_certificates(b"".join(one.pem for one in chain)) == tuple(one.der for one in chain)
    assert split_certificates(SUB.der) == (SUB.der,)
    assert SUB.certificate.public_bytes(serialization.Encoding.DER) == SUB.der
