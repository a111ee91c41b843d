"""X.509 certificates as IKE uses them: read once, strictly, into a record (RFC 5280 §4, RFC 4945 §5).

Reading judges nothing but the form: whether a certificate may be believed is decided in `chain`. Everything
the library may raise for bytes it does not like becomes a `CertificateProblem` here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from gateway.ike.crypto.signature import KeyProblem, public_key_of, read_public_key
from gateway.ike.errors import IkeError
from gateway.ipsec import distinguished_name as dn
from gateway.ipsec.authentication import PublicKey

MAX_CERTIFICATE_BYTES: Final = 16384
_MAX_REMEMBERED_BYTES: Final = 4096
"""Longer ones are read anew each time: strangers send certificates too, and are not to make us keep much."""
_TBS_UP_TO_KEY: Final = 7
"""Elements of a TBSCertificate of version 3 up to its key, from version, serial and signature on."""
_MAX_TEXT: Final = 200
"""Longest subject that is shown: it comes from a stranger."""

LIBRARY_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for malformed or strange input."""


class Check(Enum):
    """Which check a certificate or CRL did not pass; the value is a stable code for logs and tests."""

    NO_CERTIFICATE = "NO_CERTIFICATE"
    MALFORMED = "CERTIFICATE_MALFORMED"
    KEY = "CERTIFICATE_KEY"
    SIGNATURE_ALGORITHM = "CERTIFICATE_SIGNATURE_ALGORITHM"
    SIGNATURE = "CERTIFICATE_SIGNATURE"
    NO_ISSUER = "CERTIFICATE_NO_TRUSTED_ISSUER"
    NOT_YET_VALID = "CERTIFICATE_NOT_YET_VALID"
    EXPIRED = "CERTIFICATE_EXPIRED"
    NOT_A_CA = "CERTIFICATE_NOT_A_CA"
    PATH_LENGTH = "CERTIFICATE_PATH_LENGTH"
    KEY_USAGE = "CERTIFICATE_KEY_USAGE"
    EXTENDED_KEY_USAGE = "CERTIFICATE_EXTENDED_KEY_USAGE"
    CRITICAL_EXTENSION = "CERTIFICATE_CRITICAL_EXTENSION"
    NAME_CONSTRAINTS = "CERTIFICATE_NAME_CONSTRAINTS"
    IDENTITY = "CERTIFICATE_IDENTITY"
    REVOKED = "CERTIFICATE_REVOKED"
    REVOCATION_UNKNOWN = "CERTIFICATE_REVOCATION_UNKNOWN"
    CRL = "CRL_UNUSABLE"
    UNKNOWN_KEY = "PUBLIC_KEY_UNKNOWN"


class CertificateProblem(IkeError):
    """A certificate or CRL did not pass a check; the text says which one it is, and what was found.

    Attributes:
        check: Which check.
    """

    def __init__(self, check: Check, text: str) -> None:
        super().__init__(text)
        self.check = check


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """One certificate, read."""

    der: bytes
    subject: bytes
    """DER of the subject's name."""
    issuer: bytes
    """DER of the issuer's name."""
    serial: int
    not_before: float
    """Unix time."""
    not_after: float
    """Unix time; the second named is the last one in which it is valid."""
    public_key: PublicKey
    is_ca: bool
    """basicConstraints says so."""
    path_length: int | None
    """How many intermediate certificates may follow below (RFC 5280 §4.2.1.9); None: any number."""
    key_usage: x509.KeyUsage | None
    extended_key_usage: frozenset[str] | None
    """OIDs in digits; None: the extension is absent."""
    names: tuple[x509.GeneralName, ...]
    """subjectAltName."""
    name_constraints: x509.NameConstraints | None
    key_identifier: bytes | None
    """subjectKeyIdentifier."""
    issuer_key_identifier: bytes | None
    """authorityKeyIdentifier, where it names the key."""
    crl_uris: tuple[str, ...]
    """Where its CRL can be fetched, says the certificate."""
    has_ocsp: bool
    """It names an OCSP responder."""
    critical: frozenset[str]
    """OIDs of its critical extensions."""
    library: x509.Certificate
    """The library's object, for verifying signatures."""

    @property
    def is_self_issued(self) -> bool:
        """Tell whether subject and issuer are the same name (RFC 5280 §3.2)."""
        return self.subject == self.issuer

    @property
    def says_where_it_is_revoked(self) -> bool:
        """Tell whether it names a CRL or an OCSP responder."""
        return bool(self.crl_uris) or self.has_ocsp

    def __str__(self) -> str:
        return f"certificate {name_text(self.subject)} (serial {self.serial:x})"


def name_text(der: bytes) -> str:
    """Return a distinguished name for a message, cut where it is very long."""
    try:
        text = dn.decode_text(der) or "without a subject"
    except ValueError:
        text = f"#{der.hex()}"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def time_text(at: float) -> str:
    """Return a Unix time for a message, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"


# --- reading ------------------------------------------------------------------------------------

_E = TypeVar("_E", bound=x509.ExtensionType)


def read_certificate(der: bytes) -> Certificate:
    """Read one certificate.

    The last ones are remembered, for peers come back, and bring the same intermediate authorities.

    Raises:
        CertificateProblem: MALFORMED, or KEY when its key is of no use here.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateProblem(
            Check.MALFORMED, f"a certificate of {len(der)} bytes; at most {MAX_CERTIFICATE_BYTES} are read"
        )
    return _remembered(der) if len(der) <= _MAX_REMEMBERED_BYTES else _read_anew(der)


def _read_anew(der: bytes) -> Certificate:
    try:
        return _read(x509.load_der_x509_certificate(der), der)
    except LIBRARY_ERRORS as error:
        raise CertificateProblem(
            Check.MALFORMED, f"a certificate of {len(der)} bytes is malformed: {error}"
        ) from None


_remembered = lru_cache(maxsize=128)(_read_anew)


def _read(library: x509.Certificate, der: bytes) -> Certificate:
    if library.version is not x509.Version.v3:
        raise ValueError("it is not of version 3")
    serial = library.serial_number
    issuer, subject, key = _names_and_key(library.tbs_certificate_bytes)
    try:
        public_key = read_public_key(key)
    except KeyProblem as problem:
        raise CertificateProblem(
            Check.KEY, f"certificate {name_text(subject)} (serial {serial:x}): {problem}"
        ) from None
    extensions = library.extensions
    by_kind = {type(extension.value): extension.value for extension in extensions}

    def find(kind: type[_E]) -> _E | None:
        found = by_kind.get(kind)
        return found if isinstance(found, kind) else None

    constraints = find(x509.BasicConstraints)
    usage = find(x509.ExtendedKeyUsage)
    names = find(x509.SubjectAlternativeName)
    own_key = find(x509.SubjectKeyIdentifier)
    issuer_key = find(x509.AuthorityKeyIdentifier)
    return Certificate(
        der=der,
        subject=subject,
        issuer=issuer,
        serial=serial,
        not_before=library.not_valid_before_utc.timestamp(),
        not_after=library.not_valid_after_utc.timestamp(),
        public_key=public_key,
        is_ca=constraints is not None and constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        key_usage=find(x509.KeyUsage),
        extended_key_usage=None if usage is None else frozenset(oid.dotted_string for oid in usage),
        names=() if names is None else tuple(names),
        name_constraints=find(x509.NameConstraints),
        key_identifier=None if own_key is None else own_key.digest,
        issuer_key_identifier=None if issuer_key is None else issuer_key.key_identifier,
        crl_uris=distribution_uris(find(x509.CRLDistributionPoints)),
        has_ocsp=_has_ocsp(find(x509.AuthorityInformationAccess)),
        critical=frozenset(extension.oid.dotted_string for extension in extensions if extension.critical),
        library=library,
    )


def _names_and_key(tbs: bytes) -> tuple[bytes, bytes, bytes]:
    """Return issuer, subject and SubjectPublicKeyInfo of a TBSCertificate, as they stand (RFC 5280 §4.1).

    The library has checked the structure already; going by its objects would decode and encode every name.
    """
    start, _ = _element(tbs, 0)
    elements = []
    for _ in range(_TBS_UP_TO_KEY):
        _, end = _element(tbs, start)
        elements.append(tbs[start:end])
        start = end
    _version, _serial, _signature, issuer, _validity, subject, key = elements
    return issuer, subject, key


def _element(der: bytes, start: int) -> tuple[int, int]:
    """Return where the contents of a DER element begin, and where it ends."""
    first = der[start + 1]
    if first < 0x80:
        return start + 2, start + 2 + first
    contents = start + 2 + (first & 0x7F)
    return contents, contents + int.from_bytes(der[start + 2 : contents], "big")


def distribution_uris(points: x509.CRLDistributionPoints | None) -> tuple[str, ...]:
    """Return the URIs of distribution points."""
    return tuple(
        name.value
        for point in points or ()
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    )


def _has_ocsp(access: x509.AuthorityInformationAccess | None) -> bool:
    ocsp = x509.oid.AuthorityInformationAccessOID.OCSP
    return any(description.access_method == ocsp for description in access or ())


# --- files --------------------------------------------------------------------------------------


def split_certificates(material: bytes) -> tuple[bytes, ...]:
    """Return the DER of every certificate of a PEM bundle, or of the one DER certificate.

    Raises:
        CertificateProblem: MALFORMED.
    """
    return _split(material, "certificate", x509.load_pem_x509_certificates, x509.load_der_x509_certificate)


def split_crls(material: bytes) -> tuple[bytes, ...]:
    """Return the DER of the CRL in PEM or DER.

    Raises:
        CertificateProblem: MALFORMED.
    """

    def load_pem(pem: bytes) -> list[x509.CertificateRevocationList]:
        end = b"-----END X509 CRL-----"
        parts = [part + end for part in pem.split(end)[:-1]]
        return [x509.load_pem_x509_crl(part) for part in parts]

    return _split(material, "CRL", load_pem, x509.load_der_x509_crl)


def read_public_key_material(material: bytes) -> PublicKey:
    """Return the public key of a SubjectPublicKeyInfo or a certificate, each in PEM or DER.

    Raises:
        KeyProblem: It is none.
    """
    try:
        if b"-----BEGIN CERTIFICATE-----" in material:
            return public_key_of(x509.load_pem_x509_certificate(material).public_key())
        if b"PRIVATE KEY-----" in material:
            raise KeyProblem("is a private key; the peer's public key is expected here")
        if b"-----BEGIN" in material:
            return public_key_of(serialization.load_pem_public_key(material))
        return _der_public_key(material)
    except LIBRARY_ERRORS:
        raise KeyProblem("is neither a public key nor a certificate, in PEM or DER") from None


def _der_public_key(der: bytes) -> PublicKey:
    try:
        return public_key_of(serialization.load_der_public_key(der))
    except LIBRARY_ERRORS:
        return public_key_of(x509.load_der_x509_certificate(der).public_key())


_L = TypeVar("_L", x509.Certificate, x509.CertificateRevocationList)


def _split(
    material: bytes, what: str, load_pem: Callable[[bytes], list[_L]], load_der: Callable[[bytes], _L]
) -> tuple[bytes, ...]:
    try:
        loaded = load_pem(material) if b"-----BEGIN" in material else [load_der(material)]
    except LIBRARY_ERRORS:
        raise CertificateProblem(Check.MALFORMED, f"is no {what} in PEM or DER") from None
    if not loaded:
        raise CertificateProblem(Check.MALFORMED, f"holds no {what}")
    return tuple(item.public_bytes(serialization.Encoding.DER) for item in loaded)


KNOWN_CRITICAL: Final = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        # No policy is required of a chain here, so that every set of policies will do (RFC 5280 §6.1.1).
        ExtensionOID.CERTIFICATE_POLICIES,
    )
)
"""Critical extensions that are understood; any other critical one refuses the certificate (RFC 5280 §4.2)."""
