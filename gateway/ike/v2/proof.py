"""How each side proves who it is in IKE_AUTH: CERT, CERTREQ and AUTH (RFC 7296 §2.15, §3.6 to §3.8).

Each side has a method of its own. What needs secrets or the state of the world is asked of the shell, and
waited for: a pre-shared key, a signature by our private key (which may live anywhere), and the judgement on
the peer's certificates (chain, time, names, revocation). The signature itself is verified here, with the key
that the shell found trustworthy, over octets that only we know.

Whatever is wrong, the peer is told AUTHENTICATION_FAILED and no more; the operator, which check it was.
"""

from dataclasses import dataclass
from typing import Final

from gateway.ike.crypto.certificate import Check
from gateway.ike.crypto.signature import KeyProblem, read_public_key, read_rsa_public_key
from gateway.ike.errors import PeerError
from gateway.ike.events import Failure, FailureReason
from gateway.ike.v2.authentication import (
    AuthenticationInput,
    Signing,
    choose_signing,
    compute_psk_auth,
    is_of_method,
    signature_auth,
    signed_octets,
    verify_psk_auth,
    verify_signature_auth,
)
from gateway.ike.v2.exchange import Denied, IkeSaGone, Steps, find_psk, sign, trust
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    AuthenticationMethod,
    AuthPayload,
    CertificateEncoding,
    CertPayload,
    CertreqPayload,
    Payload,
    all_payloads,
)
from gateway.ipsec.authentication import (
    FACTS,
    Authentication,
    AuthMethod,
    OwnCertificate,
    PublicKey,
)
from gateway.ipsec.connection import Connection
from gateway.ipsec.identity import Identity
from gateway.ipsec.secret import Secret

MAX_CERT_PAYLOADS: Final = 10
"""A chain has two or three; a stranger's message could hold thousands."""
MAX_CERT_BYTES: Final = 16384
"""Longest certificate that is looked at."""
MAX_AUTHORITIES: Final = 64
"""So many certification authorities are named in a CERTREQ, so that IKE_SA_INIT stays small."""
KEY_HASH_BYTES: Final = 20


class Unproven(PeerError):
    """We cannot prove who we are, or the peer has not; the peer is told AUTHENTICATION_FAILED.

    Attributes:
        reason: What the operator is told.
    """

    def __init__(self, detail: str, reason: FailureReason = FailureReason.AUTHENTICATION_FAILED) -> None:
        super().__init__(detail, NotifyType.AUTHENTICATION_FAILED)
        self.reason = reason


# --- what both sides tell of themselves ---------------------------------------------------------


def announced_hashes(connections: tuple[Connection, ...]) -> tuple[int, ...]:
    """Return the hashes of SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4): those of every signature we accept.

    Nothing where no side of these connections signs.
    """
    if not any(c.local.auth.signs or c.remote.auth.signs for c in connections):
        return ()
    return tuple(sorted({FACTS[s].hash for c in connections for s in c.remote.auth.accepted}))


def certificate_requests(connections: tuple[Connection, ...]) -> list[Payload]:
    """Return the CERTREQ payloads that say whom we believe (RFC 7296 §3.7, RFC 7670 §3)."""
    remotes = [connection.remote.auth for connection in connections]
    hashes = dict.fromkeys(authority.key_hash for remote in remotes for authority in remote.authorities)
    requests: list[Payload] = []
    if hashes:
        data = b"".join(list(hashes)[:MAX_AUTHORITIES])
        requests.append(CertreqPayload(CertificateEncoding.X509_SIGNATURE, data))
    if any(remote.method is AuthMethod.PUBLIC_KEY for remote in remotes):
        requests.append(CertreqPayload(CertificateEncoding.RAW_PUBLIC_KEY, b""))
    return requests


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the peer's CERTREQ payloads ask for."""

    authorities: frozenset[bytes] = frozenset()
    """Key hashes of the certification authorities that it believes."""
    raw_public_key: bool = False


def read_wishes(payloads: tuple[Payload, ...]) -> Wishes:
    """Return what the CERTREQ payloads of a message ask for; encodings that we do not speak are skipped."""
    authorities: set[bytes] = set()
    raw_public_key = False
    for payload in all_payloads(payloads, CertreqPayload):
        if payload.encoding == CertificateEncoding.X509_SIGNATURE:
            whole = len(payload.data) - len(payload.data) % KEY_HASH_BYTES
            authorities.update(payload.data[i : i + KEY_HASH_BYTES] for i in range(0, whole, KEY_HASH_BYTES))
        elif payload.encoding == CertificateEncoding.RAW_PUBLIC_KEY:
            raw_public_key = True
    return Wishes(frozenset(authorities), raw_public_key)


# --- our own proof ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What goes into our message."""

    auth: AuthPayload
    certificates: tuple[CertPayload, ...] = ()
    psk: Secret | None = None
    """The key that was used, which the peer's proof mostly needs too."""


def prove(
    ike_sa: IkeSa,
    given: AuthenticationInput,
    remote_id: Identity,
    wishes: Wishes,
    *,
    psk: Secret | None = None,
) -> Steps[Proof]:
    """Make our AUTH, with the certificates that go with it.

    Args:
        ike_sa: The IKE SA.
        given: What our AUTH covers.
        remote_id: Who the peer is, or should be.
        wishes: What the peer asked for.
        psk: The key of this pair of identities, where it is at hand.

    Raises:
        Unproven: We have no key, or none that the peer could verify.
    """
    assert ike_sa.prf is not None
    own = ike_sa.connection.local.auth
    if own.method is AuthMethod.PSK:
        if psk is None:
            psk = yield from find_key(ike_sa, remote_id)
        mac = compute_psk_auth(ike_sa.prf, psk, given)
        return Proof(auth=AuthPayload(AuthenticationMethod.SHARED_KEY_MIC, mac), psk=psk)
    key, signing, certificates = _choose_key(own, ike_sa.peer_hashes, wishes)
    octets = signed_octets(ike_sa.prf, given)
    try:
        signature = yield from sign(ike_sa.connection.name, key, signing.scheme, octets)
    except Denied as denied:
        detail = f"we cannot sign as {ike_sa.local_id}: {denied.reason}: {denied}"
        raise Unproven(detail, FailureReason.NO_CREDENTIAL) from None
    return Proof(auth=signature_auth(signing, key.kind, signature), certificates=certificates)


def _choose_key(
    own: Authentication, peer_hashes: tuple[int, ...] | None, wishes: Wishes
) -> tuple[PublicKey, Signing, tuple[CertPayload, ...]]:
    """Choose the key to sign with and the CERT payloads that show it.

    A certificate under an authority that the peer named wins (RFC 7296 §3.7), then the order of the
    configuration; what the peer could not verify is passed over.
    """
    asked = sorted(
        own.certificates, key=lambda certificate: wishes.authorities.isdisjoint(certificate.authorities)
    )
    for certificate in asked:
        signing = choose_signing(certificate.public_key.kind, own.signatures, peer_hashes)
        if signing is not None:
            return certificate.public_key, signing, _cert_payloads(certificate)
    for key in own.public_keys:
        signing = choose_signing(key.kind, own.signatures, peer_hashes)
        if signing is not None:
            raw = CertPayload(CertificateEncoding.RAW_PUBLIC_KEY, key.der)
            return key, signing, (raw,) if wishes.raw_public_key else ()
    raise Unproven(_cannot_sign(own, peer_hashes), FailureReason.NO_CREDENTIAL)


def _cert_payloads(certificate: OwnCertificate) -> tuple[CertPayload, ...]:
    return tuple(CertPayload(CertificateEncoding.X509_SIGNATURE, der) for der in certificate.chain)


def _cannot_sign(own: Authentication, peer_hashes: tuple[int, ...] | None) -> str:
    keys = [*(certificate.public_key for certificate in own.certificates), *own.public_keys]
    kinds = ", ".join(dict.fromkeys(key.kind.value for key in keys)) or "no"
    schemes = ", ".join(scheme.value for scheme in own.accepted)
    if peer_hashes is None:
        return (
            f"the peer announced no hashes (RFC 7427), so that our {kinds} key cannot sign as configured "
            f"({schemes}); RSA without them means rsa-pkcs1-sha1"
        )
    hashes = ", ".join(str(number) for number in peer_hashes) or "none"
    return f"the peer verifies only the hashes {hashes} (RFC 7427 §7); our {kinds} key has {schemes}"


def find_key(ike_sa: IkeSa, remote_id: Identity) -> Steps[Secret]:
    """Return the pre-shared key of our identity and another.

    Raises:
        Unproven: There is none.
    """
    assert ike_sa.local_id is not None
    try:
        return (yield from find_psk(ike_sa.connection.name, ike_sa.local_id, remote_id))
    except Denied as denied:
        detail = f"no pre-shared key for {ike_sa.local_id} and {remote_id}: {denied.reason}: {denied}"
        raise Unproven(detail, FailureReason.NO_CREDENTIAL) from None


# --- the peer's proof ---------------------------------------------------------------------------


def believe(
    ike_sa: IkeSa,
    payloads: tuple[Payload, ...],
    auth: AuthPayload,
    given: AuthenticationInput,
    *,
    remote_id: Identity,
    psk: Secret | None = None,
) -> Steps[None]:
    """Check the peer's AUTH against its identity.

    Args:
        ike_sa: The IKE SA, its connection already chosen.
        payloads: Of the message that AUTH came in: its CERT payloads are looked at.
        auth: The AUTH payload.
        given: What the peer's AUTH covers.
        remote_id: Who the peer says it is.
        psk: The key of this pair of identities, where it is at hand.

    Raises:
        PeerError: It proves nothing, or not by the method that is configured.
    """
    assert ike_sa.prf is not None
    expected = ike_sa.connection.remote.auth
    if not is_of_method(auth.method, expected.method):
        raise Unproven(
            f"the peer authenticates by method {auth.method}, a {_EXPECTED[expected.method]} is configured"
        )
    if expected.method is AuthMethod.PSK:
        if psk is None:
            psk = yield from find_key(ike_sa, remote_id)
        verify_psk_auth(ike_sa.prf, psk, given, auth.data)
        return
    certificates, public_keys = _presented(payloads)
    try:
        keys = yield from trust(ike_sa.connection.name, remote_id, certificates, public_keys)
    except Denied as denied:
        raise Unproven(f"{denied.reason}: {denied}") from None
    verify_signature_auth(keys, expected.accepted, auth, signed_octets(ike_sa.prf, given))
    if expected.method is AuthMethod.CERTIFICATE:
        ike_sa.remote_certificates = certificates


def review(ike_sa: IkeSa) -> Steps[None]:
    """Ask again whether the certificates are to be believed that the peer proved itself with.

    Raises:
        IkeSaGone: One of them is revoked. Whatever else is the matter with them by now (a CRL that is out of
            date, say) is for the next authentication to find.
    """
    assert ike_sa.remote_id is not None
    try:
        yield from trust(ike_sa.connection.name, ike_sa.remote_id, ike_sa.remote_certificates, ())
    except Denied as denied:
        if denied.reason == Check.REVOKED.value:
            detail = f"the peer is not believed any more: {denied.reason}: {denied}"
            failure = Failure(reason=FailureReason.AUTHENTICATION_FAILED, detail=detail)
            raise IkeSaGone(failure, is_told=True) from None


_EXPECTED: Final = {
    AuthMethod.PSK: "pre-shared key",
    AuthMethod.CERTIFICATE: "signature with a certificate",
    AuthMethod.PUBLIC_KEY: "signature with a known public key",
}


def _presented(payloads: tuple[Payload, ...]) -> tuple[tuple[bytes, ...], tuple[PublicKey, ...]]:
    """Return the certificates and raw public keys of a message, in its order.

    Raises:
        Unproven: They are too many, too long, or a raw key is none.
    """
    found = all_payloads(payloads, CertPayload)
    if len(found) > MAX_CERT_PAYLOADS:
        raise Unproven(f"the peer sent {len(found)} CERT payloads; at most {MAX_CERT_PAYLOADS} are looked at")
    certificates: list[bytes] = []
    keys: list[PublicKey] = []
    for payload in found:
        if len(payload.data) > MAX_CERT_BYTES:
            size = len(payload.data)
            raise Unproven(f"the peer sent a CERT payload of {size} bytes; at most {MAX_CERT_BYTES} are read")
        try:
            if payload.encoding == CertificateEncoding.X509_SIGNATURE:
                certificates.append(payload.data)
            elif payload.encoding == CertificateEncoding.RAW_PUBLIC_KEY:
                keys.append(read_public_key(payload.data))
            elif payload.encoding == CertificateEncoding.RAW_RSA_KEY:
                keys.append(read_rsa_public_key(payload.data))
        except KeyProblem as problem:
            raise Unproven(f"the peer's raw public key {problem}") from None
    return tuple(certificates), tuple(keys)
