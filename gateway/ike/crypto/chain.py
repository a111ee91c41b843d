"""Is a certificate to be believed? From the end entity up to a trust anchor (RFC 5280 §6, RFC 4945 §5).

The chain is found by search: every certificate that has the issuer's name is tried, trust anchors first,
then what the configuration and the peer brought. What is on the way is checked at once (signature, time,
authority, path length), what concerns the whole chain at its end (name constraints, revocation). The first
chain that passes everything is believed; if none does, the problem that lay farthest up is told.

Where RFC 5280 leaves a choice, or IKE peers want another: The trust anchor too must be in time and an
authority. No certificate policy is required, so that policies are not processed; a critical extension that
would need it (policy constraints, inhibit any-policy) refuses the chain. The extended key usage of an
authority binds nobody below it. That of the end entity, where it has one, must hold id-kp-ipsecIKE or
anyExtendedKeyUsage (RFC 4945 §5.1.3.12), or what most certificates of gateways have instead: serverAuth,
clientAuth or iKEIntermediate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from gateway.ike.crypto.certificate import (
    KNOWN_CRITICAL,
    LIBRARY_ERRORS,
    Certificate,
    CertificateProblem,
    Check,
    name_text,
    read_certificate,
    time_text,
)
from gateway.ike.crypto.certificate_names import check_identity, check_name_constraints
from gateway.ike.crypto.revocation import Crl, check_revocation, is_strong
from gateway.ike.crypto.signature import load_public_key
from gateway.ipsec.authentication import PublicKey, Revocation
from gateway.ipsec.identity import Identity

MAX_CHAIN: Final = 8
"""Certificates from the end entity to the trust anchor, both included."""
MAX_SIGNATURES: Final = 32
"""So many signatures are verified for one peer, however many ways up its certificates offer."""

END_ENTITY_USAGES: Final = {
    "1.3.6.1.5.5.7.3.17": "id-kp-ipsecIKE",
    "2.5.29.37.0": "anyExtendedKeyUsage",
    "1.3.6.1.5.5.8.2.2": "iKEIntermediate",
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStore:
    """Whom one connection believes, and what is known of revocation."""

    anchors: tuple[Certificate, ...]
    intermediates: tuple[Certificate, ...] = ()
    """Help to build a chain and are trusted for nothing."""
    crls: tuple[Crl, ...] = ()
    revocation: Revocation = Revocation.IFURI

    def believe(self, certificates: tuple[bytes, ...], identity: Identity, at: float) -> PublicKey:
        """Return the public key by which the peer may prove its identity.

        Args:
            certificates: DER as the peer sent them: its own, then what may lead up from it.
            identity: Who it says it is.
            at: Unix time.

        Raises:
            CertificateProblem: It is not to be believed; the text is for the operator.
        """
        if not certificates:
            raise CertificateProblem(Check.NO_CERTIFICATE, f"{identity} sent no X.509 certificate")
        end_entity = read_certificate(certificates[0])
        # First what costs no signature.
        check_identity(end_entity, identity)
        check_end_entity(end_entity, at)
        _Search(self, readable(certificates[1:]), at).believe(end_entity)
        return end_entity.public_key


def readable(certificates: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    """Return those certificates that can be read; the others lead nowhere."""
    found = []
    for der in certificates:
        try:
            found.append(read_certificate(der))
        except CertificateProblem:
            continue
    return tuple(found)


@dataclass(slots=True)
class _Search:
    store: TrustStore
    sent: tuple[Certificate, ...]
    at: float
    signatures: int = 0
    problem: CertificateProblem | None = None
    problem_height: int = -1
    _anchors: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._anchors = frozenset(anchor.der for anchor in self.store.anchors)

    def believe(self, end_entity: Certificate) -> None:
        """Find a chain for an end entity.

        Raises:
            CertificateProblem: There is none; the one that came farthest says why.
        """
        if not self._climb((end_entity,)):
            assert self.problem is not None
            raise self.problem

    def _climb(self, chain: tuple[Certificate, ...]) -> bool:
        """Say whether a chain can be carried on to a trust anchor."""
        top = chain[-1]
        is_known = False
        for issuer in self._issuers(top):
            is_known = True
            # A trust anchor ends the way up, also one that is the end entity; others may go in circles.
            goes_in_circles = issuer in chain and issuer.der not in self._anchors
            if goes_in_circles or len(chain) >= MAX_CHAIN:
                continue
            longer = (*chain, issuer)
            try:
                self._check_signature(top, issuer)
                check_authority(issuer, self.at, below=_counted_below(chain))
                if issuer.der in self._anchors:
                    self._check_whole(longer)
                    return True
            except CertificateProblem as problem:
                self._note(problem, len(longer))
                continue
            if self._climb(longer):
                return True
        if not is_known:
            self._note(self._no_issuer(top), len(chain))
        elif self.problem is None:
            self._note(CertificateProblem(Check.PATH_LENGTH, f"{top}: its chain is too long"), len(chain))
        return False

    def _issuers(self, certificate: Certificate) -> Iterator[Certificate]:
        """Yield what may have signed a certificate: those with the named key first, then trust anchors."""
        candidates = [
            candidate
            for candidate in (*self.store.anchors, *self.store.intermediates, *self.sent)
            if candidate.subject == certificate.issuer
        ]
        wanted = certificate.issuer_key_identifier
        seen: set[bytes] = set()
        for candidate in sorted(candidates, key=lambda c: wanted is not None and c.key_identifier != wanted):
            if candidate.der not in seen:
                seen.add(candidate.der)
                yield candidate

    def _check_signature(self, certificate: Certificate, issuer: Certificate) -> None:
        if not is_strong(certificate.library):
            oid = certificate.library.signature_algorithm_oid
            raise CertificateProblem(
                Check.SIGNATURE_ALGORITHM,
                f"{certificate} is signed with {oid.dotted_string}, weak or unknown; SHA-2 is wanted",
            )
        if self.signatures >= MAX_SIGNATURES:
            raise CertificateProblem(
                Check.PATH_LENGTH, f"{certificate}: no chain within {MAX_SIGNATURES} signatures"
            )
        self.signatures += 1
        try:
            verify_certificate(certificate, issuer.public_key)
        except InvalidSignature:
            raise CertificateProblem(
                Check.SIGNATURE, f"{certificate} is not signed by the key of {issuer}"
            ) from None
        except LIBRARY_ERRORS as error:
            raise CertificateProblem(Check.SIGNATURE, f"{certificate}: {error}") from None

    def _check_whole(self, chain: tuple[Certificate, ...]) -> None:
        for height, authority in enumerate(chain):
            for depth, below in enumerate(chain[:height]):
                # Self-issued certificates may carry a key over; they name nobody new (RFC 5280 §6.1.3 (b)).
                if depth == 0 or not below.is_self_issued:
                    check_name_constraints(authority, below)
        for certificate, issuer in pairwise(chain):
            check_revocation(certificate, issuer, self.store.crls, self.store.revocation, self.at)

    def _no_issuer(self, top: Certificate) -> CertificateProblem:
        anchors = "; ".join(name_text(anchor.subject) for anchor in self.store.anchors[:5])
        return CertificateProblem(
            Check.NO_ISSUER,
            f"{top}: its issuer {name_text(top.issuer)} is neither trusted nor sent; trusted: {anchors}",
        )

    def _note(self, problem: CertificateProblem, height: int) -> None:
        if height > self.problem_height:
            self.problem, self.problem_height = problem, height


def _counted_below(chain: tuple[Certificate, ...]) -> int:
    """Return how many certificates count for the path length of the next authority (RFC 5280 §4.2.1.9)."""
    return sum(not certificate.is_self_issued for certificate in chain[1:])


@lru_cache(maxsize=256)
def verify_certificate(certificate: Certificate, key: PublicKey) -> None:
    """Check that a key signed a certificate.

    That a key did is remembered, because it stays so. Nothing else is: dates, names, revocation and who is
    trusted are looked at each time.

    Raises:
        InvalidSignature: It did not.
        TypeError: The signature is not of the key's kind; others of `LIBRARY_ERRORS` are possible too.
    """
    library = certificate.library
    algorithm, signature, signed = (
        library.signature_hash_algorithm,
        library.signature,
        library.tbs_certificate_bytes,
    )
    # RSASSA-PSS or PKCS #1 v1.5 with their parameters, or ECDSA with its hash; EdDSA has none.
    parameters = library.signature_algorithm_parameters
    match load_public_key(key.der):
        case rsa.RSAPublicKey() as loaded if isinstance(parameters, padding.AsymmetricPadding) and algorithm:
            loaded.verify(signature, signed, parameters, algorithm)
        case ec.EllipticCurvePublicKey() as loaded if isinstance(parameters, ec.ECDSA):
            loaded.verify(signature, signed, parameters)
        case (ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey()) as loaded if parameters is None:
            loaded.verify(signature, signed)
        case _:
            raise TypeError(f"its signature is not made with a key like the issuer's ({key.kind.value})")


def check_time(certificate: Certificate, at: float) -> None:
    """Check that a certificate is valid at this time.

    Raises:
        CertificateProblem: EXPIRED or NOT_YET_VALID.
    """
    if at > certificate.not_after:
        raise CertificateProblem(
            Check.EXPIRED,
            f"{certificate} expired on {time_text(certificate.not_after)}; it is {time_text(at)}",
        )
    if at < certificate.not_before:
        raise CertificateProblem(
            Check.NOT_YET_VALID,
            f"{certificate} is not valid before {time_text(certificate.not_before)}; it is {time_text(at)}",
        )


def _check_critical(certificate: Certificate) -> None:
    unknown = sorted(certificate.critical - KNOWN_CRITICAL)
    if unknown:
        raise CertificateProblem(
            Check.CRITICAL_EXTENSION, f"{certificate} has a critical extension that is unknown: {unknown[0]}"
        )


def check_authority(certificate: Certificate, at: float, *, below: int = 0) -> None:
    """Check that a certificate may issue others, with `below` intermediate ones under it.

    Raises:
        CertificateProblem: NOT_A_CA, KEY_USAGE, PATH_LENGTH, CRITICAL_EXTENSION, EXPIRED or NOT_YET_VALID.
    """
    if not certificate.is_ca:
        raise CertificateProblem(
            Check.NOT_A_CA, f"{certificate} is not a certification authority (basicConstraints: CA)"
        )
    if certificate.key_usage is not None and not certificate.key_usage.key_cert_sign:
        raise CertificateProblem(Check.KEY_USAGE, f"{certificate} may not sign certificates (keyCertSign)")
    if certificate.path_length is not None and below > certificate.path_length:
        raise CertificateProblem(
            Check.PATH_LENGTH,
            f"{certificate} allows {certificate.path_length} authorities below it, there are {below}",
        )
    _check_critical(certificate)
    check_time(certificate, at)


def check_end_entity(certificate: Certificate, at: float) -> None:
    """Check that a certificate may authenticate an IKE peer (RFC 4945 §5.1.3).

    Raises:
        CertificateProblem: KEY_USAGE, EXTENDED_KEY_USAGE, CRITICAL_EXTENSION, EXPIRED or NOT_YET_VALID.
    """
    usage = certificate.key_usage
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise CertificateProblem(
            Check.KEY_USAGE,
            f"{certificate} may not sign: its keyUsage has neither digitalSignature nor nonRepudiation",
        )
    purposes = certificate.extended_key_usage
    if purposes is not None and purposes.isdisjoint(END_ENTITY_USAGES):
        raise CertificateProblem(
            Check.EXTENDED_KEY_USAGE,
            f"{certificate} is not for IKE: its extendedKeyUsage is {', '.join(sorted(purposes)[:5])}, which "
            f"holds none of {', '.join(END_ENTITY_USAGES.values())}",
        )
    _check_critical(certificate)
    check_time(certificate, at)
