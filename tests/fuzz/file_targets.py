"""Fuzz targets of everything else that is read: configuration, names, certificates; what `inspect` reads."""

import contextlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gateway.api.config_error import ConfigError
from gateway.api.config_file import parse_config
from gateway.ike.crypto.certificate import CertificateProblem, name_text, read_certificate
from gateway.ike.crypto.chain import TrustStore
from gateway.ike.crypto.revocation import read_crl
from gateway.ike.crypto.signature import (
    KeyProblem,
    SignatureProblem,
    parse_digital_signature,
    read_public_key,
)
from gateway.ipsec import distinguished_name
from gateway.ipsec.algorithms import ProtocolId
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.proposal import check_strength, format_proposal, parse_proposal
from tests.fuzz.inspect_targets import INSPECT_TARGETS
from tests.fuzz.target import Target, scratch

ROOT = Path(__file__).parents[2]


# --- what operators write -----------------------------------------------------------------------


def text_of(data):
    return data.decode("utf-8", "replace")


def run_proposal(data):
    """What is read is written so that it reads the same."""
    for protocol in ProtocolId:
        for implemented_only in (True, False):
            with contextlib.suppress(VocabularyError):
                proposal = parse_proposal(text_of(data), protocol, implemented_only=implemented_only)
                again = parse_proposal(format_proposal(proposal), protocol, implemented_only=False)
                assert again == proposal
                check_strength(proposal, [str(transform) for transform in proposal.transforms])


def run_identity(data):
    with contextlib.suppress(VocabularyError):
        identity = parse_identity(text_of(data))
        assert parse_identity(str(identity)).type is identity.type
    with contextlib.suppress(ValueError):
        distinguished_name.decode_text(data)
    name_text(data)


def run_config(data):
    with contextlib.suppress(ConfigError):
        parse_config(text_of(data), "fuzz.yaml", scratch())


def configurations():
    page = (ROOT / "docs" / "configuration.md").read_text()
    yield from (block.split("```")[0].encode() for block in page.split("```yaml\n")[1:])
    yield b"connections: [{name: a, children: [{name: b, esp: {proposals: [aes256gcm16-x25519]}}]}]"


# --- certificates -------------------------------------------------------------------------------


def run_certificate(data):
    with contextlib.suppress(CertificateProblem):
        assert str(read_certificate(data))
    with contextlib.suppress(CertificateProblem):
        read_crl(data)
    with contextlib.suppress(KeyProblem):
        read_public_key(data)
    with contextlib.suppress(SignatureProblem):
        parse_digital_signature(data)


START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
DER = serialization.Encoding.DER
SIGNER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LEAF_KEY = ec.derive_private_key(7, ec.SECP256R1())


def issue(name, key, *extensions):
    """Return a certificate signed by `SIGNER`, the same at every run."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 77, START, END)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(SIGNER, None).public_bytes(DER)


@cache
def authority():
    return issue("authority", SIGNER, x509.BasicConstraints(ca=True, path_length=1))


@cache
def leaf():
    names = x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.RFC822Name("a@example")])
    return issue("leaf", LEAF_KEY, names, x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]))


def certificates():
    yield from (authority(), leaf())
    yield issue("bare", LEAF_KEY)
    yield issue("constrained", SIGNER, x509.NameConstraints([x509.DNSName("example")], None))
    for key in (SIGNER, LEAF_KEY):
        yield key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    revoked = x509.RevokedCertificateBuilder(77, START).build()
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    crl = x509.CertificateRevocationListBuilder(issuer, START, END, [], [revoked])
    yield crl.sign(SIGNER, None).public_bytes(DER)
    yield b"\x0c\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02" + bytes(70)


def parts_of(data):
    """Return the certificates of an input: each after its length in two bytes."""
    at, parts = 0, []
    while at + 2 < len(data):
        size = int.from_bytes(data[at : at + 2])
        parts.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return tuple(parts)


def run_chain(data):
    """Nobody is believed but who has the leaf's key, whatever is sent along."""
    identity = parse_identity("a.example")
    genuine = TrustStore(anchors=(read_certificate(authority()),))
    parts = parts_of(data)
    with contextlib.suppress(CertificateProblem):
        assert genuine.believe(parts, identity, AT) == read_certificate(leaf()).public_key
    with contextlib.suppress(CertificateProblem):
        # Where what was sent last is trusted, the checks behind the signature are reached too.
        careless = TrustStore(anchors=(read_certificate(parts[-1]),)) if parts else genuine
        assert careless.believe(parts, identity, AT)


def chains():
    for sent in ((leaf(),), (leaf(), authority()), (authority(), leaf()), tuple(certificates())[:4]):
        yield b"".join(len(part).to_bytes(2) + part for part in sent)


def identities():
    yield from (b"alice@example.com", b"C=DE, O=Example, CN=gw", b"%any", b"keyid:#0102", b"2001:db8::1")
    yield distinguished_name.encode("C=DE, O=Example+OU=x, CN=gw")


def proposals():
    yield from (
        b"aes256gcm16-aes128gcm16-prfsha384-x25519-ke1_mlkem768",
        b"aes256-sha256-modp2048",
        b"3des-md5-modp1024",
        b"null-sha256-esn-noesn",
        b"encr(1026/256)-integ(2)-prf(9)-ke(31)",
        b"chacha20poly1305-prfaescmac-ecp512bp",
    )


FILE_TARGETS = (
    *INSPECT_TARGETS,
    Target("proposal", proposals, run_proposal, 200),
    Target("identity", identities, run_identity, 300),
    Target("config", configurations, run_config),
    Target("certificate", certificates, run_certificate, 2000),
    Target("certificate_chain", chains, run_chain, 3000),
)
