"""Certification authorities, certificates and CRLs for tests, made by the cryptography library.

Keys are made once for each name, so that a test run makes few. Times are around `NOW`, not the time of the
day: tests give it to whatever judges.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from gateway.ike.crypto.signature import PrivateKey, key_hash, public_key_of
from gateway.ipsec.authentication import Authentication, AuthMethod, Authority, OwnCertificate, PublicKey
from gateway.ipsec.secret import Secret

NOW = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
"""The wall clock of tests with certificates."""
DAY = 86400.0

KINDS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}
#: The kinds that may sign.
GOOD_KINDS = ("rsa", "p256", "p384", "p521", "ed25519", "ed448")

SIGNING = {"digital_signature": True}
CERT_SIGN = {"key_cert_sign": True, "crl_sign": True}


@cache
def key_of(kind: str, name: str) -> Any:
    """Return the private key of this kind that goes by a name."""
    return KINDS[kind]()


@dataclass(frozen=True, eq=False)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def private(self) -> PrivateKey:
        return PrivateKey.load(Secret(self.key_pem))

    @property
    def public(self) -> PublicKey:
        return public_key_of(self.key.public_key())


def name_of(text: str) -> x509.Name:
    """Return `CN=text` under one organization; or whatever attributes `text` has as `OU=a/CN=b`."""
    oids = {"CN": NameOID.COMMON_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME, "E": NameOID.EMAIL_ADDRESS}
    parts = [part.split("=", 1) for part in text.split("/")] if "=" in text else [["CN", text]]
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test")
    return x509.Name([organization, *(x509.NameAttribute(oids[kind], value) for kind, value in parts)])


def alternative(text: str) -> x509.GeneralName:
    """Return a subjectAltName: an address, a mailbox, a URI or a host."""
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    return x509.RFC822Name(text) if "@" in text else x509.DNSName(text)


def issue(
    subject: str | x509.Name,
    issuer: Issued | None = None,
    *,
    kind: str = "p256",
    names: Iterable[str] = (),
    is_ca: bool | None = None,
    path_length: int | None = None,
    usage: dict[str, bool] | None = None,
    purposes: Sequence[str] = (),
    starts: float = -DAY,
    ends: float = 365 * DAY,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    hash_: hashes.HashAlgorithm | None = None,
    key: Any = None,
    serial: int | None = None,
) -> Issued:
    """Issue a certificate; without an issuer it is self-signed and an authority.

    Args:
        subject: Name, as `name_of` reads it.
        issuer: Who signs.
        kind: Of its key, a key of `KINDS`.
        names: Of subjectAltName.
        is_ca: basicConstraints; None: what an issuer says, and absent for an end entity.
        path_length: pathLenConstraint.
        usage: Bits of keyUsage; None: what fits.
        purposes: OIDs of extendedKeyUsage.
        starts: Seconds from `NOW`.
        ends: Seconds from `NOW`.
        extensions: More of them, each with its critical bit.
        hash_: Of the signature.
        key: Instead of one made here.
        serial: Instead of a random one.
    """
    name = name_of(subject) if isinstance(subject, str) else subject
    key = key_of(kind, str(subject)) if key is None else key
    signer = key if issuer is None else issuer.key
    ca = issuer is None if is_ca is None else is_ca
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_date(starts))
        .not_valid_after(_date(ends))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if ca or is_ca is not None:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True
        )
    bits = (CERT_SIGN if ca else SIGNING) if usage is None else usage
    if bits:
        builder = builder.add_extension(_key_usage(bits), critical=True)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([alternative(text) for text in names]), critical=False
        )
    if purposes:
        oids = [x509.ObjectIdentifier(oid) for oid in purposes]
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
    if issuer is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Issued(builder.sign(signer, _hash_for(signer, hash_)), key)


def crl(
    issuer: Issued,
    *revoked: Issued,
    starts: float = -DAY,
    ends: float = 30 * DAY,
    reason: x509.ReasonFlags | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    signer: Any = None,
) -> bytes:
    """Return the DER of a CRL that revokes certificates; times in seconds from `NOW`."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_date(starts))
        .next_update(_date(ends))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
        entry = entry.revocation_date(_date(starts))
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if signer is None else signer
    return builder.sign(signer, _hash_for(signer, None)).public_bytes(serialization.Encoding.DER)


def crl_point(uri: str = "http://crl.example/ca.crl") -> tuple[x509.ExtensionType, bool]:
    """Return a cRLDistributionPoints extension."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(uri)], None, None, None)
    return x509.CRLDistributionPoints([point]), False


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)


def _hash_for(key: Any, wanted: hashes.HashAlgorithm | None) -> hashes.HashAlgorithm | None:
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    return wanted or hashes.SHA256()


def _key_usage(bits: dict[str, bool]) -> x509.KeyUsage:
    usage = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    return x509.KeyUsage(**usage | bits)


# --- as a connection has them -------------------------------------------------------------------


def with_certificate(
    *chains: Sequence[Issued], above: Iterable[Issued] = (), **changes: Any
) -> Authentication:
    """Return how a local side authenticates with certificates, each with what is sent along."""
    own = [
        OwnCertificate(
            chain=tuple(one.der for one in chain),
            public_key=chain[0].public,
            authorities=tuple(key_hash(one.public.der) for one in (*chain[1:], *above)),
        )
        for chain in chains
    ]
    return Authentication(method=AuthMethod.CERTIFICATE, certificates=tuple(own), **changes)


def trusting(*authorities: Issued, **changes: Any) -> Authentication:
    """Return how a remote side is believed that has certificates of these authorities."""
    found = [Authority(certificate=one.der, key_hash=key_hash(one.public.der)) for one in authorities]
    return Authentication(method=AuthMethod.CERTIFICATE, authorities=tuple(found), **changes)


def with_keys(*keys: PublicKey, **changes: Any) -> Authentication:
    """Return how a side authenticates with raw public keys."""
    return Authentication(method=AuthMethod.PUBLIC_KEY, public_keys=tuple(keys), **changes)
