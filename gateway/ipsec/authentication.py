"""How a side proves who it is: methods, signature schemes, and the public half of its credentials.

Nothing secret is here: private keys, pre-shared keys and CRLs are the shell's (`CredentialRequest`,
`SignRequest`, `TrustRequest` in `gateway.ike.events`). What is here is part of a `Connection`, so that a
connection whose certificates changed is another connection.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from gateway.ipsec.errors import VocabularyError


class AuthMethod(Enum):
    """How one side proves who it is."""

    PSK = "psk"
    """Shared Key Message Integrity Code (RFC 7296 §2.15)."""
    CERTIFICATE = "certificate"
    """A signature by the key of an X.509 certificate (RFC 7296 §3.6, RFC 4945)."""
    PUBLIC_KEY = "public_key"
    """A signature by a key that the other side knows (RFC 7670)."""


class Revocation(Enum):
    """What a missing, stale or unreadable CRL means; a certificate that one revokes is always refused."""

    STRICT = "strict"
    """Every certificate below the trust anchor needs a current CRL."""
    IFURI = "ifuri"
    """Every certificate that says where its CRL or its OCSP responder is needs a current CRL."""
    RELAXED = "relaxed"
    """None needs one."""


class KeyKind(Enum):
    """The kinds of public keys that sign here; the value is how people call them."""

    RSA = "RSA"
    P256 = "ECDSA P-256"
    P384 = "ECDSA P-384"
    P521 = "ECDSA P-521"
    ED25519 = "Ed25519"
    ED448 = "Ed448"


class SignatureHash(IntEnum):
    """IKEv2 Hash Algorithms, for SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7, RFC 8420 §2)."""

    SHA1 = 1
    SHA2_256 = 2
    SHA2_384 = 3
    SHA2_512 = 4
    IDENTITY = 5
    """None: the scheme takes the message whole (EdDSA)."""
    STREEBOG_256 = 6
    STREEBOG_512 = 7


class SignatureScheme(Enum):
    """One way to sign; the value is its keyword in the configuration."""

    RSA_PSS_SHA256 = "rsa-pss-sha256"
    RSA_PSS_SHA384 = "rsa-pss-sha384"
    RSA_PSS_SHA512 = "rsa-pss-sha512"
    RSA_PKCS1_SHA256 = "rsa-pkcs1-sha256"
    RSA_PKCS1_SHA384 = "rsa-pkcs1-sha384"
    RSA_PKCS1_SHA512 = "rsa-pkcs1-sha512"
    ECDSA_SHA256 = "ecdsa-sha256"
    ECDSA_SHA384 = "ecdsa-sha384"
    ECDSA_SHA512 = "ecdsa-sha512"
    ED25519 = "ed25519"
    ED448 = "ed448"
    RSA_PKCS1_SHA1 = "rsa-pkcs1-sha1"
    """Weak (RFC 8247 §3.2: MUST NOT): only where it is allowed by name."""


_RSA: Final = frozenset({KeyKind.RSA})
_ECDSA: Final = frozenset({KeyKind.P256, KeyKind.P384, KeyKind.P521})


@dataclass(frozen=True, slots=True)
class SchemeFacts:
    """What a scheme needs."""

    kinds: frozenset[KeyKind]
    hash: SignatureHash


FACTS: Final[Mapping[SignatureScheme, SchemeFacts]] = {
    SignatureScheme.RSA_PSS_SHA256: SchemeFacts(_RSA, SignatureHash.SHA2_256),
    SignatureScheme.RSA_PSS_SHA384: SchemeFacts(_RSA, SignatureHash.SHA2_384),
    SignatureScheme.RSA_PSS_SHA512: SchemeFacts(_RSA, SignatureHash.SHA2_512),
    SignatureScheme.RSA_PKCS1_SHA256: SchemeFacts(_RSA, SignatureHash.SHA2_256),
    SignatureScheme.RSA_PKCS1_SHA384: SchemeFacts(_RSA, SignatureHash.SHA2_384),
    SignatureScheme.RSA_PKCS1_SHA512: SchemeFacts(_RSA, SignatureHash.SHA2_512),
    SignatureScheme.RSA_PKCS1_SHA1: SchemeFacts(_RSA, SignatureHash.SHA1),
    SignatureScheme.ECDSA_SHA256: SchemeFacts(_ECDSA, SignatureHash.SHA2_256),
    SignatureScheme.ECDSA_SHA384: SchemeFacts(_ECDSA, SignatureHash.SHA2_384),
    SignatureScheme.ECDSA_SHA512: SchemeFacts(_ECDSA, SignatureHash.SHA2_512),
    SignatureScheme.ED25519: SchemeFacts(frozenset({KeyKind.ED25519}), SignatureHash.IDENTITY),
    SignatureScheme.ED448: SchemeFacts(frozenset({KeyKind.ED448}), SignatureHash.IDENTITY),
}

WEAK_SCHEMES: Final = frozenset({SignatureScheme.RSA_PKCS1_SHA1})

DEFAULT_SCHEMES: Final = tuple(scheme for scheme in SignatureScheme if scheme not in WEAK_SCHEMES)
"""Accepted where nothing is configured. RSASSA-PSS comes first, as RFC 8247 §3.2 has it."""

_CURVE_SCHEME: Final = {
    KeyKind.P256: SignatureScheme.ECDSA_SHA256,
    KeyKind.P384: SignatureScheme.ECDSA_SHA384,
    KeyKind.P521: SignatureScheme.ECDSA_SHA512,
}
"""The hash whose strength is that of the curve comes first (RFC 4754 §1)."""


def parse_scheme(text: str, allow_weak: Iterable[str]) -> SignatureScheme:
    """Return the scheme of a keyword.

    Raises:
        VocabularyError: There is none, or it is weak and `allow_weak` does not name it.
    """
    try:
        scheme = SignatureScheme(text.lower())
    except ValueError:
        known = ", ".join(scheme.value for scheme in SignatureScheme)
        raise VocabularyError(f"'{text}' is no signature scheme; known are {known}", column=0) from None
    if scheme in WEAK_SCHEMES and scheme.value not in allow_weak:
        raise VocabularyError(
            f"{scheme.value} is weak (RFC 8247 §3.2: MUST NOT); leave it out, or name it in allow_weak",
            column=0,
        )
    return scheme


def schemes_for(kind: KeyKind, configured: tuple[SignatureScheme, ...]) -> tuple[SignatureScheme, ...]:
    """Return the schemes that a key can sign with, the best first; nothing configured means the defaults."""
    fitting = tuple(s for s in configured or DEFAULT_SCHEMES if kind in FACTS[s].kinds)
    best = _CURVE_SCHEME.get(kind)
    if configured or best is None:
        return fitting
    return (best, *(scheme for scheme in fitting if scheme is not best))


# --- public credentials -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that may sign: strong enough, and of a kind we know."""

    der: bytes
    """SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)."""
    kind: KeyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """A certificate that we present, with what leads from it towards a trust anchor."""

    chain: tuple[bytes, ...]
    """DER, the end entity first; what follows is sent along."""
    roots: tuple[bytes, ...] = ()
    """DER of self-signed authorities that were configured with it: known, and not sent."""
    public_key: PublicKey
    """Of the end entity: the shell has its private key."""
    authorities: tuple[bytes, ...] = ()
    """Key hashes (RFC 7296 §3.7) of the certification authorities above it, as far as they are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A certification authority that the peer's certificate may come from: a trust anchor."""

    certificate: bytes
    """DER."""
    key_hash: bytes
    """SHA-1 of its SubjectPublicKeyInfo, 20 bytes: what CERTREQ names it by (RFC 7296 §3.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How one side proves who it is; a field that its method does not need is empty."""

    method: AuthMethod = AuthMethod.PSK
    signatures: tuple[SignatureScheme, ...] = ()
    """As local, what we sign with, in order of preference; as remote, what we accept. Empty: the defaults."""
    certificates: tuple[OwnCertificate, ...] = ()
    """Local, `CERTIFICATE`: one of these, whichever the peer asks for, else the first."""
    public_keys: tuple[PublicKey, ...] = ()
    """`PUBLIC_KEY`: our own one as local; as remote, those that the peer may have."""
    authorities: tuple[Authority, ...] = ()
    """Remote, `CERTIFICATE`: the trust anchors."""
    intermediates: tuple[bytes, ...] = ()
    """Remote, `CERTIFICATE`: DER of certificates that may help to build the chain, trusted for nothing."""
    revocation: Revocation = Revocation.IFURI
    """Remote, `CERTIFICATE`."""

    @property
    def signs(self) -> bool:
        """Tell whether this side signs, so that hashes are to be negotiated (RFC 7427 §4)."""
        return self.method is not AuthMethod.PSK

    @property
    def accepted(self) -> tuple[SignatureScheme, ...]:
        """Return the schemes that may be used, the defaults where none is configured."""
        return self.signatures or DEFAULT_SCHEMES


PSK_AUTHENTICATION: Final = Authentication()
