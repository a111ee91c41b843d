"""Certificates for measurements: an authority, one certificate for the responder, one for each initiator.

All initiators share a key, since making keys is not what is measured, but each has a certificate of its own,
so that no responder has seen it before.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from gateway.ike.crypto.certificate import read_certificate
from gateway.ike.crypto.chain import TrustStore
from gateway.ike.crypto.signature import PrivateKey, key_hash
from gateway.ike.events import Signed, SignRequest, Trusted, TrustRequest
from gateway.ipsec.authentication import Authentication, AuthMethod, Authority, OwnCertificate
from gateway.ipsec.secret import Secret

RESPONDER: Final = "responder.bench"
AUTHORITY: Final = "authority.bench"
_SITES: Final = "sites.bench"

_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_Public = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_PKCS8: Final = serialization.PrivateFormat.PKCS8
_DER: Final = serialization.Encoding.DER
_PEM: Final = serialization.Encoding.PEM


def _new_rsa() -> _Key:
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


def _new_ecdsa() -> _Key:
    return ec.generate_private_key(ec.SECP256R1())


KINDS: Final = {
    "rsa3072": _new_rsa,
    "ecdsa256": _new_ecdsa,
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
"""The kinds of keys, by the names that suites have for them."""


@dataclass(frozen=True, slots=True)
class Pki:
    """The authority and the responder with key and certificate, and the initiators' key, in one directory."""

    directory: Path

    @classmethod
    def make(cls, kind: str, directory: Path) -> "Pki":
        """Make keys and certificates of one kind, valid for a day."""
        directory.mkdir(parents=True)
        authority = KINDS[kind]()
        for name in (AUTHORITY, RESPONDER, _SITES):
            key = authority if name == AUTHORITY else KINDS[kind]()
            certificate = _certificate(name, key.public_key(), authority)
            (directory / f"{name}.pem").write_bytes(certificate.public_bytes(_PEM))
            secret = key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption())
            (directory / f"{name}.key").write_bytes(secret)
        return cls(directory)

    def own(self, name: str) -> Authentication:
        """Return how the side with this name proves who it is; an initiator gets a new certificate."""
        if name == RESPONDER:
            certificate = self._der(name)
        else:
            key, authority = self._key(_SITES), self._key(AUTHORITY)
            certificate = _certificate(name, key.public_key(), authority).public_bytes(_DER)
        return Authentication(
            method=AuthMethod.CERTIFICATE,
            certificates=(
                OwnCertificate(
                    chain=(certificate,),
                    public_key=read_certificate(certificate).public_key,
                    authorities=(self._authority().key_hash,),
                ),
            ),
        )

    def peer(self) -> Authentication:
        """Return what a side expects of the other."""
        return Authentication(method=AuthMethod.CERTIFICATE, authorities=(self._authority(),))

    def credentials(self) -> "PkiCredentials":
        """Read everything into memory: what answers the requests of a core."""
        anchor = read_certificate(self._der(AUTHORITY))
        keys = [
            PrivateKey.load(Secret((self.directory / f"{name}.key").read_bytes()))
            for name in (RESPONDER, _SITES)
        ]
        return PkiCredentials({key.public.der: key for key in keys}, TrustStore(anchors=(anchor,)))

    def _authority(self) -> Authority:
        certificate = self._der(AUTHORITY)
        return Authority(
            certificate=certificate, key_hash=key_hash(read_certificate(certificate).public_key.der)
        )

    def _key(self, name: str) -> _Key:
        key = serialization.load_pem_private_key((self.directory / f"{name}.key").read_bytes(), None)
        assert isinstance(key, _Key)
        return key

    def _der(self, name: str) -> bytes:
        pem = (self.directory / f"{name}.pem").read_bytes()
        return x509.load_pem_x509_certificate(pem).public_bytes(_DER)


@dataclass(frozen=True, slots=True)
class PkiCredentials:
    """Private keys by their public halves, and whom both ends believe."""

    keys: dict[bytes, PrivateKey]
    store: TrustStore

    def sign(self, request: SignRequest) -> Signed:
        """Sign as the core asks."""
        return Signed(self.keys[request.public_key.der].sign(request.scheme, request.octets))

    def trust(self, request: TrustRequest) -> Trusted:
        """Judge the peer's certificate.

        Raises:
            CertificateProblem: It is not to be believed.
        """
        return Trusted((self.store.believe(request.certificates, request.remote_id, time.time()),))


def _certificate(name: str, key: _Public, authority: _Key) -> x509.Certificate:
    now = datetime.now(UTC)
    is_authority = name == AUTHORITY
    algorithm = None if isinstance(authority, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(AUTHORITY))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(authority, algorithm)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
