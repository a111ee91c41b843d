"""Certificate revocation lists, from files: reading, and what they say of a certificate (RFC 5280 §5, §6.3).

Only complete CRLs by the issuer itself are used: delta CRLs, indirect ones, and those for some reasons only
are refused when they are read, because a certificate that is not in them may be revoked all the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from gateway.ike.crypto.certificate import (
    LIBRARY_ERRORS,
    Certificate,
    CertificateProblem,
    Check,
    name_text,
    time_text,
)
from gateway.ike.crypto.signature import load_public_key
from gateway.ipsec.authentication import Revocation

MAX_CRL_BYTES: Final = 8 << 20

SIGNATURE_ALGORITHMS: Final = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.RSASSA_PSS,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
        SignatureAlgorithmOID.ED448,
    }
)
"""Of certificates and CRLs; MD5 and SHA-1 are not among them."""
_HASHES: Final = frozenset({"sha256", "sha384", "sha512"})
_KNOWN_CRITICAL: Final = frozenset(
    {ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER}
)


def is_strong(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Say whether the signature algorithm of a certificate or CRL is one that is believed."""
    if signed.signature_algorithm_oid not in SIGNATURE_ALGORITHMS:
        return False
    if signed.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return True
    try:
        algorithm = signed.signature_hash_algorithm
    except LIBRARY_ERRORS:
        return False
    return algorithm is not None and algorithm.name in _HASHES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crl:
    """One CRL, read; its signature is checked when it is used."""

    issuer: bytes
    """DER of the name."""
    this_update: float
    """Unix time."""
    next_update: float
    """Unix time."""
    scope: x509.IssuingDistributionPoint | None
    library: x509.CertificateRevocationList

    def __str__(self) -> str:
        return f"CRL of {name_text(self.issuer)} from {time_text(self.this_update)}"


def read_crl(der: bytes) -> Crl:
    """Read one CRL.

    Raises:
        CertificateProblem: MALFORMED; or CRL when it is of a kind that cannot be used.
    """
    if len(der) > MAX_CRL_BYTES:
        raise CertificateProblem(Check.CRL, f"a CRL of {len(der)} bytes; at most {MAX_CRL_BYTES} are read")
    try:
        return _read(x509.load_der_x509_crl(der))
    except LIBRARY_ERRORS as error:
        raise CertificateProblem(Check.MALFORMED, f"is no CRL: {error}") from None


def _read(library: x509.CertificateRevocationList) -> Crl:
    issuer = library.issuer.public_bytes()
    shown = f"the CRL of {name_text(issuer)}"
    for extension in library.extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            raise CertificateProblem(Check.CRL, f"{shown} is a delta CRL; give the complete one")
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            oid = extension.oid.dotted_string
            raise CertificateProblem(Check.CRL, f"{shown} has a critical extension that is unknown: {oid}")
    scope = _scope(library)
    if scope is not None and (
        scope.indirect_crl
        or scope.only_some_reasons
        or scope.only_contains_attribute_certs
        or scope.relative_name is not None
    ):
        raise CertificateProblem(
            Check.CRL,
            f"{shown} is indirect, or for some reasons or attribute certificates only; give a full one",
        )
    if library.next_update_utc is None:
        raise CertificateProblem(
            Check.CRL, f"{shown} does not say when the next one comes (RFC 5280 §5.1.2.5)"
        )
    if not is_strong(library):
        raise CertificateProblem(Check.SIGNATURE_ALGORITHM, f"{shown} is signed with a weak algorithm")
    return Crl(
        issuer=issuer,
        this_update=library.last_update_utc.timestamp(),
        next_update=library.next_update_utc.timestamp(),
        scope=scope,
        library=library,
    )


def _scope(library: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    try:
        return library.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return None


def check_revocation(
    certificate: Certificate, issuer: Certificate, crls: Iterable[Crl], policy: Revocation, at: float
) -> None:
    """Check that a certificate is not revoked, as far as CRLs and policy tell.

    The newest CRL of the issuer that covers the certificate counts. One that is out of date still revokes; it
    just acquits nobody.

    Args:
        certificate: Below the trust anchor.
        issuer: Who signed it; already believed.
        crls: All that there are.
        policy: What a missing or stale CRL means.
        at: Unix time.

    Raises:
        CertificateProblem: REVOKED or REVOCATION_UNKNOWN.
    """
    of_issuer = [crl for crl in crls if crl.issuer == issuer.subject and _covers(crl, certificate)]
    may_sign = issuer.key_usage is None or issuer.key_usage.crl_sign
    signed = [crl for crl in of_issuer if may_sign and _verifies(crl, issuer.public_key.der)]
    newest = max(signed, key=lambda crl: crl.this_update, default=None)
    if newest is not None:
        _check_entry(newest, certificate)
        if newest.this_update <= at <= newest.next_update:
            return
    is_needed = policy is Revocation.STRICT or (
        policy is Revocation.IFURI and certificate.says_where_it_is_revoked
    )
    if not is_needed:
        return
    if newest is not None and newest.this_update > at:
        why = f"the {newest} is not valid before then; it is {time_text(at)}"
    elif newest is not None:
        why = f"the {newest} was to be renewed by {time_text(newest.next_update)}; it is {time_text(at)}"
    elif of_issuer:
        why = f"the CRL of {name_text(issuer.subject)} is not signed by its key, or that may not sign CRLs"
    else:
        where = f", as from {certificate.crl_uris[0][:200]}" if certificate.crl_uris else ""
        why = f"there is no CRL of {name_text(issuer.subject)}; give one in crls{where}"
    raise CertificateProblem(
        Check.REVOCATION_UNKNOWN, f"{certificate}: revocation is {policy.value}, but {why}"
    )


def _covers(crl: Crl, certificate: Certificate) -> bool:
    """Say whether a CRL is about certificates like this one (RFC 5280 §6.3.3 (b))."""
    scope = crl.scope
    if scope is None:
        return True
    if (scope.only_contains_user_certs and certificate.is_ca) or (
        scope.only_contains_ca_certs and not certificate.is_ca
    ):
        return False
    names = {name.value for name in scope.full_name or () if isinstance(name, x509.UniformResourceIdentifier)}
    return scope.full_name is None or not names.isdisjoint(certificate.crl_uris)


@lru_cache(maxsize=256)
def _verifies(crl: Crl, public_key_der: bytes) -> bool:
    """Check the signature of a CRL, once: it may have megabytes."""
    try:
        return crl.library.is_signature_valid(load_public_key(public_key_der))
    except LIBRARY_ERRORS:
        return False


def _check_entry(crl: Crl, certificate: Certificate) -> None:
    entry = crl.library.get_revoked_certificate_by_serial_number(certificate.serial)
    if entry is None:
        return
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (x509.ExtensionNotFound, *LIBRARY_ERRORS):
        reason = "no reason given"
    when = time_text(entry.revocation_date_utc.timestamp())
    raise CertificateProblem(Check.REVOKED, f"{certificate} was revoked on {when} ({reason}), says the {crl}")
