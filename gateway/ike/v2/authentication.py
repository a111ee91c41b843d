"""What the AUTH payload covers, and every way of filling and checking it (RFC 7296 §2.15).

```
SignedOctets(initiator) = RealMessage1 | NonceRData | prf(SK_pi, IDi')
SignedOctets(responder) = RealMessage2 | NonceIData | prf(SK_pr, IDr')
AUTH, method 2          = prf( prf(Shared Secret, "Key Pad for IKEv2"), SignedOctets )
AUTH, all others        = a signature of SignedOctets (`gateway.ike.crypto.signature`)
```

RealMessage is the sender's own IKE_SA_INIT message, whole and as sent (the last one, with cookie and the
accepted KE, when there were several); the nonce is the *other* side's; ID' is the ID payload without its
generic header.

Signing, method 14 (RFC 7427) is what we use when the peer announced hashes. Without, ECDSA has the methods
9, 10 and 11 (RFC 4754), where the curve gives the hash; RSA has method 1, which means SHA-1 in practice and
is used only where `rsa-pkcs1-sha1` is allowed by name. Accepting, method 1 is taken with every hash that the
connection accepts for RSASSA-PKCS1-v1_5 (RFC 7296 §3.8).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from gateway.ike.crypto.prf import PrfFunction
from gateway.ike.crypto.signature import (
    DigitalSignature,
    SignatureProblem,
    encode_digital_signature,
    from_raw_ecdsa,
    parse_digital_signature,
    to_raw_ecdsa,
    verify,
)
from gateway.ike.errors import PeerError
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import AuthenticationMethod, AuthPayload
from gateway.ipsec.authentication import (
    FACTS,
    AuthMethod,
    KeyKind,
    PublicKey,
    SignatureScheme,
    schemes_for,
)
from gateway.ipsec.secret import Secret

KEY_PAD: Final = b"Key Pad for IKEv2"
"""17 ASCII octets without a terminator (RFC 7296 §2.15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationInput:
    """Everything one side's AUTH payload depends on, apart from its credential."""

    message: bytes
    """That side's IKE_SA_INIT message, header included."""
    peer_nonce: bytes
    """The other side's nonce, without payload header."""
    id_body: bytes
    """That side's ID payload after the generic header: type, three RESERVED octets as sent, data."""
    sk_p: Secret
    """SK_pi for the initiator's AUTH, SK_pr for the responder's."""


def signed_octets(prf: PrfFunction, given: AuthenticationInput) -> bytes:
    """Return what a signature covers and a shared-key MAC is computed over."""
    return given.message + given.peer_nonce + prf(given.sk_p.reveal(), given.id_body)


def is_of_method(number: int, method: AuthMethod) -> bool:
    """Tell whether an authentication method on the wire is one of those that `method` means."""
    is_shared_key = number == AuthenticationMethod.SHARED_KEY_MIC
    return is_shared_key if method is AuthMethod.PSK else number in _SIGNATURE_METHODS


# --- pre-shared keys ----------------------------------------------------------------------------


def compute_psk_auth(prf: PrfFunction, psk: Secret, given: AuthenticationInput) -> bytes:
    """Return the Authentication Data of a Shared Key Message Integrity Code (method 2)."""
    return prf(prf(psk.reveal(), KEY_PAD), signed_octets(prf, given))


def verify_psk_auth(prf: PrfFunction, psk: Secret, given: AuthenticationInput, received: bytes) -> None:
    """Check the peer's Authentication Data in constant time.

    Raises:
        PeerError: It is not what this key gives; carries AUTHENTICATION_FAILED.
    """
    if not compare_digest(compute_psk_auth(prf, psk, given), received):
        raise PeerError("the AUTH payload does not fit our pre-shared key", NotifyType.AUTHENTICATION_FAILED)


# --- signatures ---------------------------------------------------------------------------------

_ECDSA_METHODS: Final[Mapping[int, tuple[KeyKind, SignatureScheme]]] = {
    AuthenticationMethod.ECDSA_SHA256_P256: (KeyKind.P256, SignatureScheme.ECDSA_SHA256),
    AuthenticationMethod.ECDSA_SHA384_P384: (KeyKind.P384, SignatureScheme.ECDSA_SHA384),
    AuthenticationMethod.ECDSA_SHA512_P521: (KeyKind.P521, SignatureScheme.ECDSA_SHA512),
}
_SIGNATURE_METHODS: Final = frozenset(
    {AuthenticationMethod.RSA_SIGNATURE, AuthenticationMethod.DIGITAL_SIGNATURE, *_ECDSA_METHODS}
)
_METHOD_1_SCHEMES: Final = (
    SignatureScheme.RSA_PKCS1_SHA1,
    SignatureScheme.RSA_PKCS1_SHA256,
    SignatureScheme.RSA_PKCS1_SHA384,
    SignatureScheme.RSA_PKCS1_SHA512,
)


@dataclass(frozen=True, slots=True)
class Signing:
    """How we sign: the number of the authentication method, and the scheme."""

    method: AuthenticationMethod
    scheme: SignatureScheme


def choose_signing(
    kind: KeyKind, configured: tuple[SignatureScheme, ...], peer_hashes: tuple[int, ...] | None
) -> Signing | None:
    """Return how to sign with a key of this kind, or None if the peer could not verify it.

    Args:
        kind: Of our key.
        configured: In order of preference; empty means the defaults.
        peer_hashes: What the peer announced (RFC 7427 §4); None if it announced nothing.
    """
    schemes = schemes_for(kind, configured)
    if peer_hashes is not None:
        for scheme in schemes:
            if FACTS[scheme].hash in peer_hashes:
                return Signing(AuthenticationMethod.DIGITAL_SIGNATURE, scheme)
        return None
    for number, (curve, scheme) in _ECDSA_METHODS.items():
        if curve is kind and scheme in schemes:
            return Signing(AuthenticationMethod(number), scheme)
    if SignatureScheme.RSA_PKCS1_SHA1 in schemes:
        return Signing(AuthenticationMethod.RSA_SIGNATURE, SignatureScheme.RSA_PKCS1_SHA1)
    return None


def signature_auth(signing: Signing, kind: KeyKind, signature: bytes) -> AuthPayload:
    """Return the AUTH payload of a signature in the form that method 14 carries."""
    if signing.method is AuthenticationMethod.DIGITAL_SIGNATURE:
        data = encode_digital_signature(DigitalSignature(signing.scheme, signature))
    elif signing.method is AuthenticationMethod.RSA_SIGNATURE:
        data = signature
    else:
        data = to_raw_ecdsa(signature, kind)
    return AuthPayload(signing.method, data)


def verify_signature_auth(
    keys: tuple[PublicKey, ...], accepted: tuple[SignatureScheme, ...], auth: AuthPayload, octets: bytes
) -> None:
    """Check that one of the peer's keys signed these octets, in a way that we accept.

    Raises:
        PeerError: None did; carries AUTHENTICATION_FAILED.
    """
    problems: list[str] = []
    for key in keys:
        try:
            for found in _signatures(auth, key, accepted):
                try:
                    verify(key, found.scheme, found.signature, octets)
                except SignatureProblem as problem:
                    problems.append(str(problem))
                else:
                    return
        except SignatureProblem as problem:
            problems.append(str(problem))
    why = "; ".join(dict.fromkeys(problems)) or "no key of the peer's can have made it"
    raise PeerError(f"the AUTH payload does not verify: {why}", NotifyType.AUTHENTICATION_FAILED)


def _signatures(
    auth: AuthPayload, key: PublicKey, accepted: tuple[SignatureScheme, ...]
) -> Iterator[DigitalSignature]:
    """Yield what an AUTH payload may mean, if it was made with this key.

    Raises:
        SignatureProblem: It means nothing that we accept.
    """
    if auth.method == AuthenticationMethod.DIGITAL_SIGNATURE:
        found = parse_digital_signature(auth.data)
        _check_accepted(found.scheme, accepted)
        yield found
    elif auth.method in _ECDSA_METHODS:
        curve, scheme = _ECDSA_METHODS[auth.method]
        _check_accepted(scheme, accepted)
        if key.kind is not curve:
            raise SignatureProblem(f"method {auth.method} is {curve.value}, the key is {key.kind.value}")
        yield DigitalSignature(scheme, from_raw_ecdsa(auth.data, curve))
    else:
        schemes = [scheme for scheme in _METHOD_1_SCHEMES if scheme in accepted]
        if not schemes:
            raise SignatureProblem("method 1 is RSASSA-PKCS1-v1_5, which is not accepted here")
        for scheme in schemes:
            yield DigitalSignature(scheme, auth.data)


def _check_accepted(scheme: SignatureScheme, accepted: tuple[SignatureScheme, ...]) -> None:
    if scheme not in accepted:
        raise SignatureProblem(
            f"the signature is {scheme.value}; accepted are {', '.join(s.value for s in accepted)}"
        )
