"""Identities: text form, DNs in DER, matching."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.ipsec import distinguished_name as dn
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.identity import (
    ANY_IDENTITY,
    EXACT,
    Identity,
    IdType,
    match_rank,
    matches,
    parse_identity,
)

PARSED = [
    ("192.0.2.1", IdType.IPV4_ADDR, b"\xc0\x00\x02\x01"),
    ("2001:db8::1", IdType.IPV6_ADDR, bytes.fromhex("20010db8000000000000000000000001")),
    ("gw-paris.example", IdType.FQDN, b"gw-paris.example"),
    ("user@gw.example", IdType.RFC822_ADDR, b"user@gw.example"),
    ("@gw.example", IdType.FQDN, b"gw.example"),
    ("@@user", IdType.RFC822_ADDR, b"user"),
    ("@#0aFf", IdType.KEY_ID, b"\x0a\xff"),
    ("keyid:tunnel 1", IdType.KEY_ID, b"tunnel 1"),
    ("keyid:#0102", IdType.KEY_ID, b"\x01\x02"),
    ("a:b", IdType.KEY_ID, b"a:b"),
    ("fqdn:192.0.2.1", IdType.FQDN, b"192.0.2.1"),
    ("dns:gw", IdType.FQDN, b"gw"),
    ("email:user", IdType.RFC822_ADDR, b"user"),
    ("rfc822:user", IdType.RFC822_ADDR, b"user"),
    ("ipv4:192.0.2.1", IdType.IPV4_ADDR, b"\xc0\x00\x02\x01"),
    ("ipv6:::1", IdType.IPV6_ADDR, bytes(15) + b"\x01"),
    ("asn1gn:#8203", IdType.DER_ASN1_GN, b"\x82\x03"),
    ("null:", IdType.NULL, b""),
    ("%any", IdType.ANY, b""),
    ("0.0.0.0", IdType.ANY, b""),
    ("*", IdType.ANY, b""),
    ("*.example.org", IdType.FQDN, b"*.example.org"),
]


@pytest.mark.parametrize(("text", "type_", "data"), PARSED, ids=[p[0] for p in PARSED])
def test_parse(text, type_, data):
    identity = parse_identity(text)

    assert identity == Identity(type_, data)
    assert parse_identity(str(identity)) == identity


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("", 0, "empty"),
        ("ipv4:2001:db8::1", 5, "not an IPv4"),
        ("ipv6:192.0.2.1", 5, "not an IPv6"),
        ("@#0g", 2, "hex"),
        ("keyid:#123", 7, "hex"),
        ("fqdn:", 5, "missing"),
        ("null:x", 5, "no value"),
        ("asn1gn:foo", 7, "hex digits of its DER"),
        ("C=FR, BAR=x", 5, "not an attribute type"),
        ("C=FR, x", 5, "TYPE=value"),
        ("asn1dn:CN", 7, "TYPE=value"),
        ('CN="x', 0, "not closed"),
        ("CN=x\\", 0, "backslash"),
        ("CN=\\ff", 0, "UTF-8"),
    ],
)
def test_bad_text_is_refused_with_its_place(text, column, hint):
    with pytest.raises(VocabularyError, match=hint) as caught:
        parse_identity(text)

    assert caught.value.column == column


@given(st.sampled_from([t for t in IdType if t is not IdType.ANY]), st.binary(max_size=40))
def test_whatever_a_peer_sends_has_a_text_that_reads_back(type_, data):
    identity = Identity(type_, data)

    assert match_rank(parse_identity(str(identity)), identity) == EXACT
    assert str(identity).isprintable()


@given(st.text(max_size=40))
def test_any_text_is_an_identity_or_a_vocabulary_error(text):
    try:
        identity = parse_identity(text)
    except VocabularyError:
        return
    assert parse_identity(str(identity)) == identity


# --- distinguished names ------------------------------------------------------------------------


def name(*attributes) -> bytes:
    """Encode a DN with `cryptography` (the second source), value types chosen by its rules."""
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes]).public_bytes()


def printable(oid, value):
    return x509.NameAttribute(oid, value, x509.name._ASN1Type.PrintableString)


def test_der_is_that_of_another_encoder():
    ours = parse_identity("C=FR, O=Exämple, CN=gw.paris, E=root@example.org, DC=example").data

    theirs = x509.Name(
        [
            printable(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Exämple"),
            printable(NameOID.COMMON_NAME, "gw.paris"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "root@example.org"),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
        ]
    ).public_bytes()
    assert ours == theirs


def test_long_values_and_multi_valued_rdns_are_those_of_another_encoder():
    long_unit = "x" * 60
    units = ", ".join(f"OU={long_unit}" for _ in range(5))
    ours = parse_identity(f"{units}, CN=gw+UID=7").data

    theirs = x509.Name(
        [x509.RelativeDistinguishedName([printable(NameOID.ORGANIZATIONAL_UNIT_NAME, long_unit)])] * 5
        + [
            x509.RelativeDistinguishedName(
                [printable(NameOID.COMMON_NAME, "gw"), printable(NameOID.USER_ID, "7")]
            )
        ]
    ).public_bytes()
    assert ours == theirs


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/C=FR/O=Example/CN=gw", "C=FR, O=Example, CN=gw"),
        ("cn=gw,o=A\\, B", "CN=gw, O=A\\, B"),
        ('O="A, B", CN=gw', "O=A\\, B, CN=gw"),
        ("2.5.4.3=gw", "CN=gw"),
        ("1.2.3.4=gw", "1.2.3.4=gw"),
        ("emailAddress=a@b.c", "E=a@b.c"),
        ("O=\\c3\\a4", "O=ä"),
        ("O=a\\\\b", "O=a\\\\b"),
        ("CN=#0c0161", "CN=a"),
        ("CN=#04020102", "CN=#04020102"),
        ("asn1dn:CN=a", "CN=a"),
    ],
)
def test_dn_text(text, written):
    identity = parse_identity(text)

    assert identity.type is IdType.DER_ASN1_DN
    assert str(identity) == written
    assert match_rank(parse_identity(written), identity) == EXACT


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["C", "O", "OU", "CN", "E", "UID", "1.3.6.1.4.1.55555.7"]), st.text(max_size=12)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_value_survives_escaping(attributes):
    escaped = [(t, "".join(f"\\{octet:02x}" for octet in value.encode())) for t, value in attributes]
    identity = parse_identity(", ".join(f"{t}={value}" for t, value in escaped))

    assert parse_identity(str(identity)) == identity
    assert [a.text() for rdn in dn.decode(identity.data) for a in rdn] == [v for _, v in attributes]


@given(st.binary(max_size=60))
def test_decoder_takes_any_bytes(data):
    try:
        rdns = dn.decode(data)
    except ValueError:
        return
    assert all(rdns)


# --- matching -----------------------------------------------------------------------------------

MATCHES = [
    ("%any", "gw.example", 1),
    ("gw.example", "gw.example", EXACT),
    ("GW.Example", "gw.exAMPLE", EXACT),
    ("gw.example", "gw2.example", 0),
    ("*.example", "gw.example", 10),
    ("*.example", "a.b.example", 10),
    ("*.example", ".example", 0),
    ("*.example", "example", 0),
    ("*.example", "gw.example.org", 0),
    ("*.example", "email:gw.example", 0),
    ("*@example.org", "user@example.org", 14),
    ("*@example.org", "user@evil.org", 0),
    ("gw.example", "*.example", 0),
    ("192.0.2.1", "192.0.2.1", EXACT),
    ("192.0.2.1", "192.0.2.2", 0),
    ("192.0.2.1", "fqdn:192.0.2.1", 0),
    ("keyid:A", "keyid:A", EXACT),
    ("keyid:A", "keyid:a", 0),
    ("C=FR, O=Example, CN=gw", "C=FR, O=Example, CN=gw", EXACT),
    ("C=FR, O=Example, CN=gw", "C=FR,  O=example,CN=GW", EXACT),
    ("C=FR, O=An  Example, CN=gw", "C=FR, O=an example, CN=gw", EXACT),
    ("C=FR, O=Example, CN=*", "C=FR, O=Example, CN=gw", EXACT - 1),
    ("C=FR, O=*, CN=*", "C=FR, O=Example, CN=gw", EXACT - 2),
    ("C=FR, CN=*", "C=FR, O=Example, CN=gw", 0),
    ("C=FR, O=Example, CN=gw", "O=Example, C=FR, CN=gw", 0),
    ("C=FR, CN=gw", "C=FR, CN=*", 0),
    ("CN=gw", "asn1dn:#3003", 0),
]


@pytest.mark.parametrize(("configured", "received", "rank"), MATCHES)
def test_match_rank(configured, received, rank):
    pattern, identity = parse_identity(configured), parse_identity(received)

    assert match_rank(pattern, identity) == rank
    assert matches(pattern, identity) is (rank > 0)


def test_no_configured_identity_is_any():
    assert matches(None, parse_identity("gw.example"))
    assert match_rank(None, ANY_IDENTITY) == 1


def test_string_types_of_a_dn_do_not_matter():
    utf8 = name((NameOID.COMMON_NAME, "gw"))
    assert utf8 != parse_identity("CN=gw").data

    assert match_rank(parse_identity("CN=gw"), Identity(IdType.DER_ASN1_DN, utf8)) == EXACT


def test_narrower_patterns_rank_higher():
    received = parse_identity("gw.paris.example.org")
    ranks = [match_rank(parse_identity(p), received) for p in
             ["%any", "*.org", "*.example.org", "*.paris.example.org", "gw.paris.example.org"]]  # fmt: skip

    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
