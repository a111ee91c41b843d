"""The names in certificates: which identity one confirms, and what its authorities allow it to be called.

RFC 4945 §3.1 says which name must carry which identity, byte for byte or without case; a wildcard in a
certificate matches nothing here. RFC 5280 §4.2.1.10 says how an authority's name constraints bind everything
below it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from cryptography import x509

from gateway.ike.crypto.certificate import Certificate, CertificateProblem, Check, name_text
from gateway.ike.crypto.signature import key_hash
from gateway.ipsec import distinguished_name as dn
from gateway.ipsec.identity import Identity, IdType

_EMAIL_OID: Final = "1.2.840.113549.1.9.1"


# --- identities ---------------------------------------------------------------------------------


def confirms(certificate: Certificate, identity: Identity) -> bool:
    """Say whether a certificate confirms an identity (RFC 4945 §3.1)."""
    confirm = _CONFIRM.get(identity.type)
    return confirm is not None and confirm(certificate, identity.data)


def check_identity(certificate: Certificate, identity: Identity) -> None:
    """Check that a certificate confirms an identity.

    Raises:
        CertificateProblem: IDENTITY.
    """
    if not confirms(certificate, identity):
        raise CertificateProblem(
            Check.IDENTITY,
            f"{certificate} does not confirm {identity} (RFC 4945 §3.1); it names {names_text(certificate)}",
        )


def names_text(certificate: Certificate) -> str:
    """Return everything that a certificate may confirm, for a message."""
    found = [f"{_LABELS[type(name)]}:{name.value}" for name in certificate.names if type(name) in _LABELS]
    subject = f"asn1dn:{name_text(certificate.subject)}"
    return ", ".join([*found[:10], *(["..."] if len(found) > 10 else []), subject])


_LABELS: Final[Mapping[type, str]] = {
    x509.DNSName: "fqdn",
    x509.IPAddress: "address",
    x509.RFC822Name: "email",
}


def _has_address(certificate: Certificate, data: bytes) -> bool:
    address = ip_address(data)
    return any(isinstance(name, x509.IPAddress) and name.value == address for name in certificate.names)


def _has_dns_name(certificate: Certificate, data: bytes) -> bool:
    wanted = data.lower()
    return any(
        isinstance(name, x509.DNSName) and name.value.lower().encode() == wanted for name in certificate.names
    )


def _has_email(certificate: Certificate, data: bytes) -> bool:
    wanted = data.lower()
    return any(
        isinstance(name, x509.RFC822Name) and name.value.lower().encode() == wanted
        for name in certificate.names
    )


def _has_subject(certificate: Certificate, data: bytes) -> bool:
    # An empty name names nobody.
    return dn.equal(certificate.subject, data) and not dn.equal(data, _EMPTY_NAME)


def _has_key_id(certificate: Certificate, data: bytes) -> bool:
    """A key ID is the subjectKeyIdentifier, or SHA-1 of the whole key or of its bits (RFC 5280 §4.2.1.2)."""
    bits = x509.SubjectKeyIdentifier.from_public_key(certificate.library.public_key()).digest
    return data in (certificate.key_identifier, key_hash(certificate.public_key.der), bits)


_EMPTY_NAME: Final = b"\x30\x00"
_CONFIRM: Final[Mapping[IdType, Callable[[Certificate, bytes], bool]]] = {
    IdType.IPV4_ADDR: _has_address,
    IdType.IPV6_ADDR: _has_address,
    IdType.FQDN: _has_dns_name,
    IdType.RFC822_ADDR: _has_email,
    IdType.DER_ASN1_DN: _has_subject,
    IdType.KEY_ID: _has_key_id,
}


def fingerprint(public_key_der: bytes) -> str:
    """Return a short name of a public key for messages: SHA-256 of it, the first 16 bytes."""
    return f"SHA-256 {hashlib.sha256(public_key_der).hexdigest()[:32]}"


# --- name constraints ---------------------------------------------------------------------------


def check_name_constraints(authority: Certificate, below: Certificate) -> None:
    """Check the names of a certificate against the constraints of an authority above it.

    A name of a form that the constraints mention and we do not compare is refused (RFC 5280 §4.2.1.10).

    Raises:
        CertificateProblem: NAME_CONSTRAINTS.
    """
    constraints = authority.name_constraints
    if constraints is None:
        return
    for name in _constrained_names(below):
        permitted = _of_form(constraints.permitted_subtrees, name)
        excluded = _of_form(constraints.excluded_subtrees, name)
        if permitted and not any(_is_within(name, base) for base in permitted):
            problem = "is in none of the subtrees it permits"
        elif any(_is_within(name, base, otherwise=True) for base in excluded):
            problem = "is in a subtree it excludes"
        else:
            continue
        raise CertificateProblem(
            Check.NAME_CONSTRAINTS,
            f"{below}: the name {_shown(name)} {problem}, {authority} (RFC 5280 §4.2.1.10)",
        )


def _constrained_names(certificate: Certificate) -> list[x509.GeneralName]:
    names = list(certificate.names)
    if certificate.subject != _EMPTY_NAME:
        names.append(x509.DirectoryName(certificate.library.subject))
    if not any(isinstance(name, x509.RFC822Name) for name in names):
        emails = certificate.library.subject.get_attributes_for_oid(x509.ObjectIdentifier(_EMAIL_OID))
        names += [x509.RFC822Name(str(attribute.value)) for attribute in emails]
    return names


def _of_form(subtrees: Iterable[x509.GeneralName] | None, name: x509.GeneralName) -> list[x509.GeneralName]:
    return [base for base in subtrees or () if type(base) is type(name)]


def _is_within(name: x509.GeneralName, base: x509.GeneralName, *, otherwise: bool = False) -> bool:
    """Say whether a name is in a subtree; `otherwise` is the answer for forms that are not compared."""
    match name, base:
        case x509.DNSName(), x509.DNSName():
            return _is_host_within(name.value, base.value)
        case x509.RFC822Name(), x509.RFC822Name():
            return _is_email_within(name.value, base.value)
        case x509.IPAddress(), x509.IPAddress():
            return _is_address_within(name.value, base.value)
        case x509.DirectoryName(), x509.DirectoryName():
            return dn.is_below(name.value.public_bytes(), base.value.public_bytes())
    return otherwise


_Address = IPv4Address | IPv6Address | IPv4Network | IPv6Network


def _is_address_within(address: _Address, base: _Address) -> bool:
    if not isinstance(address, IPv4Address | IPv6Address) or not isinstance(base, IPv4Network | IPv6Network):
        return False
    return address.version == base.version and address in base


def _is_host_within(host: str, base: str) -> bool:
    host, base = host.lower(), base.lower()
    if not base or base.startswith("."):
        return host.endswith(base)
    return host == base or host.endswith(f".{base}")


def _is_email_within(email: str, base: str) -> bool:
    """Compare with a mailbox, a host, or (with a leading dot) every host of a domain."""
    email, base = email.lower(), base.lower()
    if "@" in base:
        return email == base
    host = email.rpartition("@")[2]
    return host.endswith(base) if base.startswith(".") else host == base


def _shown(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DirectoryName):
        return name_text(name.value.public_bytes())
    return f"{name.value}"[:200]
