"""Signatures: public keys, private keys, and the encodings of the AUTH payload's signature methods.

```
 method 14 (RFC 7427 §3)   | length | AlgorithmIdentifier, DER (length octets) | signature |
 method 1 (RFC 7296 §3.8)  | RSASSA-PKCS1-v1_5 signature |
 methods 9, 10, 11 (RFC 4754 §7) | r | s |, each as long as the order of the curve
```

An AlgorithmIdentifier is not interpreted: it is one of the byte strings of a table, or it is refused. So
there is nothing in unauthenticated bytes that could choose parameters for us.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.ike.errors import IkeError
from gateway.ipsec.authentication import FACTS, KeyKind, PublicKey, SignatureHash, SignatureScheme
from gateway.ipsec.secret import Secret

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Longer keys cost a stranger nothing and us much."""
MAX_RSA_EXPONENT_BITS: Final = 64
MAX_PUBLIC_KEY_BYTES: Final = 2048
"""An RSA-8192 key has 1062."""


class KeyProblem(IkeError):
    """A key cannot be read, is of a kind we do not know, or is too weak; the text says which."""


class SignatureProblem(IkeError):
    """A signature is not what the key gives, or its encoding is not one of ours."""


# --- public keys --------------------------------------------------------------------------------

LibraryKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
_Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_CURVES: Final[Mapping[str, KeyKind]] = {
    "secp256r1": KeyKind.P256,
    "secp384r1": KeyKind.P384,
    "secp521r1": KeyKind.P521,
}


@lru_cache(maxsize=256)
def read_public_key(der: bytes) -> PublicKey:
    """Return the public key of a SubjectPublicKeyInfo.

    Raises:
        KeyProblem: It cannot be read, or is none that may sign here.
    """
    if len(der) > MAX_PUBLIC_KEY_BYTES:
        raise KeyProblem(f"a public key of {len(der)} bytes; at most {MAX_PUBLIC_KEY_BYTES} are looked at")
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyProblem("is not a public key (SubjectPublicKeyInfo) of a kind we know") from None
    return public_key_of(key)


def read_rsa_public_key(der: bytes) -> PublicKey:
    """Return the public key of a PKCS #1 RSAPublicKey, the form of CERT encoding 11 (RFC 4306 §3.6).

    Raises:
        KeyProblem: It is none, or too weak.
    """
    # RSAPublicKey as the BIT STRING of a SubjectPublicKeyInfo with rsaEncryption and NULL.
    bits = _tlv(0x03, b"\0" + der)
    return read_public_key(_tlv(0x30, _tlv(0x30, _oid("1.2.840.113549.1.1.1") + _NULL) + bits))


def public_key_of(key: object) -> PublicKey:
    """Return our record of a public key of the library.

    Raises:
        KeyProblem: It is none that may sign here.
    """
    if isinstance(key, rsa.RSAPublicKey):
        _check_rsa(key)
        kind = KeyKind.RSA
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise KeyProblem(f"the key is on the curve {key.curve.name}; P-256, P-384 or P-521 is wanted")
        kind = _CURVES[key.curve.name]
    elif isinstance(key, ed25519.Ed25519PublicKey):
        kind = KeyKind.ED25519
    elif isinstance(key, ed448.Ed448PublicKey):
        kind = KeyKind.ED448
    else:
        raise KeyProblem("the key is neither RSA, ECDSA, Ed25519 nor Ed448")
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(der, kind)


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeyProblem(
            f"the RSA key has {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are taken (RFC 8247 §3.2)"
        )
    exponent = key.public_numbers().e
    if exponent.bit_length() > MAX_RSA_EXPONENT_BITS:
        raise KeyProblem(f"the RSA key has a public exponent of {exponent.bit_length()} bits")


def key_hash(public_key_der: bytes) -> bytes:
    """Return what CERTREQ names a certification authority by: SHA-1 of its key (RFC 7296 §3.7)."""
    return hashlib.sha1(public_key_der, usedforsecurity=False).digest()


@lru_cache(maxsize=256)
def load_public_key(der: bytes) -> LibraryKey:
    """Return the library's object for a key that `public_key_of` has seen."""
    key = serialization.load_der_public_key(der)
    assert isinstance(key, LibraryKey)
    return key


# --- private keys -------------------------------------------------------------------------------


class PrivateKey:
    """A private key that signs; it never prints and never leaves this object."""

    __slots__ = ("_key", "public")

    def __init__(self, key: _Private) -> None:
        self._key = key
        self.public = public_key_of(key.public_key())

    @classmethod
    def load(cls, data: Secret, passphrase: Secret | None = None) -> "PrivateKey":
        """Read a private key: PEM or DER; PKCS #8, PKCS #1, SEC 1, or OpenSSH's own.

        Raises:
            KeyProblem: It is none, is of another kind, is too weak, or the passphrase is missing or wrong.
        """
        password = None if passphrase is None else passphrase.reveal()
        material = data.reveal()
        if b"-----BEGIN CERTIFICATE-----" in material:
            raise KeyProblem("is a certificate; the private key is expected here")
        try:
            key = _loader(material)(material, password)
        except TypeError:
            if password is None:
                raise KeyProblem("is encrypted; give its passphrase: {file: PATH} too") from None
            raise KeyProblem("is not encrypted; leave its passphrase out") from None
        except UnsupportedAlgorithm:
            raise KeyProblem("is of a kind, or encrypted in a way, that is not supported") from None
        except ValueError:
            # The library does not tell a wrong passphrase from a broken key in every case.
            what = (
                "is no private key in PEM or DER"
                if password is None
                else "cannot be read: is the passphrase right?"
            )
            raise KeyProblem(what) from None
        if not isinstance(key, _Private):
            raise KeyProblem("is neither an RSA, ECDSA, Ed25519 nor Ed448 key")
        return cls(key)

    def sign(self, scheme: SignatureScheme, octets: bytes) -> bytes:
        """Return the signature, in the form that method 14 carries.

        Raises:
            KeyProblem: The scheme is not for this kind of key.
        """
        if self.public.kind not in FACTS[scheme].kinds:
            raise KeyProblem(f"{scheme.value} is not for {self.public.kind.value} keys")
        match self._key:
            case rsa.RSAPrivateKey():
                return self._key.sign(octets, _padding(scheme), _hash(scheme))
            case ec.EllipticCurvePrivateKey():
                return self._key.sign(octets, ec.ECDSA(_hash(scheme)))
            case _:
                return self._key.sign(octets)

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.kind.value})"

    def __reduce__(self) -> str:
        raise TypeError("a PrivateKey is not pickled or copied; pass the object itself")


def _loader(material: bytes) -> Callable[[bytes, bytes | None], object]:
    if material.lstrip().startswith(b"-----BEGIN OPENSSH"):
        return serialization.load_ssh_private_key
    if b"-----BEGIN" in material:
        return serialization.load_pem_private_key
    return serialization.load_der_private_key


# --- verification -------------------------------------------------------------------------------

_HASHES: Final[Mapping[SignatureHash, Callable[[], hashes.HashAlgorithm]]] = {
    SignatureHash.SHA1: hashes.SHA1,
    SignatureHash.SHA2_256: hashes.SHA256,
    SignatureHash.SHA2_384: hashes.SHA384,
    SignatureHash.SHA2_512: hashes.SHA512,
}
_PSS: Final = frozenset(
    {SignatureScheme.RSA_PSS_SHA256, SignatureScheme.RSA_PSS_SHA384, SignatureScheme.RSA_PSS_SHA512}
)


def _hash(scheme: SignatureScheme) -> hashes.HashAlgorithm:
    return _HASHES[FACTS[scheme].hash]()


def _padding(scheme: SignatureScheme) -> padding.AsymmetricPadding:
    if scheme not in _PSS:
        return padding.PKCS1v15()
    algorithm = _hash(scheme)
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)


def verify(key: PublicKey, scheme: SignatureScheme, signature: bytes, octets: bytes) -> None:
    """Check a signature in the form that method 14 carries.

    Raises:
        SignatureProblem: It is not of this key, or the scheme is not for this kind of key.
    """
    if key.kind not in FACTS[scheme].kinds:
        raise SignatureProblem(f"the signature is {scheme.value}, the key is {key.kind.value}")
    loaded = load_public_key(key.der)
    try:
        match loaded:
            case rsa.RSAPublicKey():
                loaded.verify(signature, octets, _padding(scheme), _hash(scheme))
            case ec.EllipticCurvePublicKey():
                loaded.verify(signature, octets, ec.ECDSA(_hash(scheme)))
            case _:
                loaded.verify(signature, octets)
    except InvalidSignature:
        raise SignatureProblem(f"the {scheme.value} signature is not by the {key.kind.value} key") from None


# --- method 14: AlgorithmIdentifiers ------------------------------------------------------------


def _tlv(tag: int, contents: bytes) -> bytes:
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + contents


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    contents = bytearray()
    for arc in (first * 40 + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(arc & 0x7F | 0x80)
        contents += bytes(reversed(digits))
    return _tlv(0x06, bytes(contents))


_NULL: Final = b"\x05\x00"
_HASH_OIDS: Final = {
    SignatureHash.SHA2_256: ("2.16.840.1.101.3.4.2.1", 32),
    SignatureHash.SHA2_384: ("2.16.840.1.101.3.4.2.2", 48),
    SignatureHash.SHA2_512: ("2.16.840.1.101.3.4.2.3", 64),
}
_PLAIN_OIDS: Final = {
    SignatureScheme.RSA_PKCS1_SHA1: "1.2.840.113549.1.1.5",
    SignatureScheme.RSA_PKCS1_SHA256: "1.2.840.113549.1.1.11",
    SignatureScheme.RSA_PKCS1_SHA384: "1.2.840.113549.1.1.12",
    SignatureScheme.RSA_PKCS1_SHA512: "1.2.840.113549.1.1.13",
    SignatureScheme.ECDSA_SHA256: "1.2.840.10045.4.3.2",
    SignatureScheme.ECDSA_SHA384: "1.2.840.10045.4.3.3",
    SignatureScheme.ECDSA_SHA512: "1.2.840.10045.4.3.4",
    SignatureScheme.ED25519: "1.3.101.112",
    SignatureScheme.ED448: "1.3.101.113",
}


def _pss_identifier(scheme: SignatureScheme, hash_parameters: bytes, mgf_parameters: bytes) -> bytes:
    """Return id-RSASSA-PSS with all its parameters (RFC 4055 §3.1, RFC 7427 A.4.3).

    The trailer field has its default value, which DER leaves out.
    """
    oid, salt_bytes = _HASH_OIDS[FACTS[scheme].hash]
    mgf = _tlv(0x30, _oid("1.2.840.113549.1.1.8") + _tlv(0x30, _oid(oid) + mgf_parameters))
    parameters = (
        _tlv(0xA0, _tlv(0x30, _oid(oid) + hash_parameters))
        + _tlv(0xA1, mgf)
        + _tlv(0xA2, _tlv(0x02, bytes((salt_bytes,))))
    )
    return _tlv(0x30, _oid("1.2.840.113549.1.1.10") + _tlv(0x30, parameters))


def _identifiers(scheme: SignatureScheme) -> tuple[bytes, ...]:
    """Return every DER AlgorithmIdentifier that means this scheme; the first is the one we send.

    With RSA and SHA-2, parameters are NULL, and absent ones mean the same (RFC 4055 §2.1, §5). ECDSA and
    EdDSA have none (RFC 5758 §3.2, RFC 8410 §3).
    """
    if scheme in _PSS:
        choices = (_NULL, b"")
        return tuple(_pss_identifier(scheme, a, b) for a in choices for b in choices)
    oid = _oid(_PLAIN_OIDS[scheme])
    if KeyKind.RSA in FACTS[scheme].kinds:
        return _tlv(0x30, oid + _NULL), _tlv(0x30, oid)
    return (_tlv(0x30, oid),)


_SENT: Final = {scheme: _identifiers(scheme)[0] for scheme in SignatureScheme}
_KNOWN: Final = {identifier: scheme for scheme in SignatureScheme for identifier in _identifiers(scheme)}


@dataclass(frozen=True, slots=True)
class DigitalSignature:
    """The Authentication Data of method 14."""

    scheme: SignatureScheme
    signature: bytes


def encode_digital_signature(given: DigitalSignature) -> bytes:
    """Return the Authentication Data of method 14 (RFC 7427 §3)."""
    identifier = _SENT[given.scheme]
    return bytes((len(identifier),)) + identifier + given.signature


def parse_digital_signature(data: bytes) -> DigitalSignature:
    """Read the Authentication Data of method 14 (RFC 7427 §3).

    Raises:
        SignatureProblem: It is cut short, or its AlgorithmIdentifier is none of ours, to the byte.
    """
    size = data[0] if data else 0
    identifier, signature = data[1 : 1 + size], data[1 + size :]
    if not data or len(identifier) < size or not signature:
        raise SignatureProblem(f"the digital signature is cut short: {len(data)} bytes (RFC 7427 §3)")
    scheme = _KNOWN.get(identifier)
    if scheme is None:
        raise SignatureProblem(f"the signature algorithm {identifier.hex()} is none that is spoken here")
    return DigitalSignature(scheme, signature)


# --- methods 9, 10, 11: r and s -----------------------------------------------------------------

_ORDER_BYTES: Final = {KeyKind.P256: 32, KeyKind.P384: 48, KeyKind.P521: 66}


def to_raw_ecdsa(signature: bytes, kind: KeyKind) -> bytes:
    """Return an ECDSA-Sig-Value as r and s, one behind the other (RFC 4754 §7)."""
    size = _ORDER_BYTES[kind]
    r, s = decode_dss_signature(signature)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def from_raw_ecdsa(data: bytes, kind: KeyKind) -> bytes:
    """Return r and s as an ECDSA-Sig-Value.

    Raises:
        SignatureProblem: They are not as long as the curve wants.
    """
    size = _ORDER_BYTES[kind]
    if len(data) != 2 * size:
        raise SignatureProblem(
            f"the signature has {len(data)} bytes, {kind.value} wants {2 * size} (RFC 4754 §7)"
        )
    return encode_dss_signature(int.from_bytes(data[:size], "big"), int.from_bytes(data[size:], "big"))
