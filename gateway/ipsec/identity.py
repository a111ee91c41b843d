"""Identities, and how a received one matches a configured one (RFC 7296 §3.5, RFC 4301 §4.4.3).

The text form follows strongSwan's rules: an IP address, `gw.example` (FQDN), `user@example` (RFC822),
`CN=gw, O=Example` (a DN), `@gw.example` (FQDN whatever it looks like), `@#0a0b` and `keyid:text` (KEY_ID),
`%any`; or an explicit `ipv4:`, `ipv6:`, `fqdn:`, `dns:`, `email:`, `rfc822:`, `keyid:`, `asn1dn:`,
`asn1gn:` before the value, which may be `#` and hex digits.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from gateway.ipsec import distinguished_name as dn
from gateway.ipsec.errors import VocabularyError


class IdType(IntEnum):
    """ID payload types (RFC 7296 §3.5)."""

    ANY = 0
    """Ours, of configured identities only: matches every identity. Reserved by IANA, never sent."""
    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV6_ADDR = 5
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11
    NULL = 13


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity: its type and the bytes of its Identification Data.

    As configured, the data may be a pattern (`*` FQDN/RFC822 label wildcard, `%any`); see `matches`.
    Data from a peer is not validated here: malformed data equals and matches nothing but itself.
    """

    type: IdType
    data: bytes

    def __str__(self) -> str:
        """Return a text that `parse_identity` reads back to an equal identity.

        A DN may come back with other ASN.1 string types; it matches all the same (RFC 5280 §7.1).
        """
        if self.type is IdType.ANY:
            return "%any"
        text = _plain_text(self)
        if text is not None:
            for candidate in (text, f"{_PREFIX_OF[self.type]}:{text}"):
                if _reads_back(candidate, self):
                    return candidate
        return f"{_PREFIX_OF[self.type]}:#{self.data.hex()}"


ANY_IDENTITY: Final = Identity(IdType.ANY, b"")

_PREFIX_OF: Final[Mapping[IdType, str]] = {
    IdType.IPV4_ADDR: "ipv4",
    IdType.IPV6_ADDR: "ipv6",
    IdType.FQDN: "fqdn",
    IdType.RFC822_ADDR: "email",
    IdType.DER_ASN1_DN: "asn1dn",
    IdType.DER_ASN1_GN: "asn1gn",
    IdType.KEY_ID: "keyid",
    IdType.NULL: "null",
}
_TYPE_OF: Final[Mapping[str, IdType]] = {
    **{prefix: type_ for type_, prefix in _PREFIX_OF.items()},
    "dns": IdType.FQDN,
    "rfc822": IdType.RFC822_ADDR,
    "userfqdn": IdType.RFC822_ADDR,
}


def address_identity(address: IPv4Address | IPv6Address) -> Identity:
    """Return the ID_IPV4_ADDR or ID_IPV6_ADDR of an address."""
    type_ = IdType.IPV4_ADDR if address.version == 4 else IdType.IPV6_ADDR
    return Identity(type_, address.packed)


def parse_identity(text: str) -> Identity:
    """Parse an identity as strongSwan writes it.

    Raises:
        VocabularyError: The text is empty, or its value does not fit the type it names.
    """
    text = text.strip()
    if not text:
        raise VocabularyError("an identity is empty; an address, a name, a DN or %any is expected", column=0)
    if text in ("%any", "%any6", "*", "0.0.0.0", "::"):  # noqa: S104 - an identity, nothing is bound
        return ANY_IDENTITY
    prefix, colon, value = text.partition(":")
    if colon and prefix.lower() in _TYPE_OF:
        return _parse_typed(_TYPE_OF[prefix.lower()], value.strip(), len(prefix) + 1)
    if text.startswith("@#"):
        return Identity(IdType.KEY_ID, _parse_hex(text[2:], 2))
    if text.startswith("@@"):
        return _parse_typed(IdType.RFC822_ADDR, text[2:], 2)
    if text.startswith("@"):
        return _parse_typed(IdType.FQDN, text[1:], 1)
    if address := _parse_address(text):
        return address_identity(address)
    if "=" in text:
        return Identity(IdType.DER_ASN1_DN, dn.encode(text))
    if "@" in text:
        return Identity(IdType.RFC822_ADDR, text.encode())
    # What has a colon and is no address is no host name either.
    return Identity(IdType.KEY_ID if ":" in text else IdType.FQDN, text.encode())


def _parse_typed(type_: IdType, value: str, column: int) -> Identity:
    """Return the identity of a value whose type was named."""
    if value.startswith("#"):
        return Identity(type_, _parse_hex(value[1:], column + 1))
    if type_ is IdType.NULL:
        if value:
            raise VocabularyError("ID_NULL has no value (RFC 7619 §2.2)", column=column)
        return Identity(IdType.NULL, b"")
    if not value:
        raise VocabularyError(f"a value is missing after {_PREFIX_OF[type_]}:", column=column)
    if type_ in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
        address = _parse_address(value)
        if address is None or address_identity(address).type is not type_:
            family = "IPv4" if type_ is IdType.IPV4_ADDR else "IPv6"
            raise VocabularyError(f"{value!r} is not an {family} address", column=column)
        return address_identity(address)
    if type_ is IdType.DER_ASN1_DN:
        try:
            return Identity(type_, dn.encode(value))
        except VocabularyError as error:
            raise VocabularyError(str(error), column=column + (error.column or 0)) from None
    if type_ is IdType.DER_ASN1_GN:
        raise VocabularyError(
            "a general name is given as asn1gn:# and the hex digits of its DER", column=column
        )
    return Identity(type_, value.encode())


def _parse_hex(text: str, column: int) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise VocabularyError(f"{text!r} is not an even number of hex digits", column=column) from None


#: What may be an address: most identities are names, and to find that out by trying takes longer.
_ADDRESS_LIKE: Final = re.compile(r"[0-9A-Fa-f:.]+")


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    if not _ADDRESS_LIKE.fullmatch(text):
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _plain_text(identity: Identity) -> str | None:
    """Return the value as text, or `None` where it has no such form."""
    try:
        return _TEXT[identity.type](identity.data)
    except ValueError:
        return None


def _printable(data: bytes) -> str:
    text = data.decode()
    if not text.isprintable():
        raise ValueError("not printable")
    return text


def _no_text(data: bytes) -> str:
    if data:
        raise ValueError("binary")
    return ""


_TEXT: Final[Mapping[IdType, Callable[[bytes], str]]] = {
    IdType.IPV4_ADDR: lambda data: str(IPv4Address(data)),
    IdType.IPV6_ADDR: lambda data: str(IPv6Address(data)),
    IdType.FQDN: _printable,
    IdType.RFC822_ADDR: _printable,
    IdType.KEY_ID: _printable,
    IdType.DER_ASN1_DN: dn.decode_text,
    IdType.DER_ASN1_GN: _no_text,
    IdType.NULL: _no_text,
}


def _reads_back(text: str, identity: Identity) -> bool:
    try:
        parsed = parse_identity(text)
    except VocabularyError:
        return False
    if parsed.type is IdType.DER_ASN1_DN is identity.type:
        return dn.match(parsed.data, identity.data) == 0
    return parsed == identity


# --- matching -----------------------------------------------------------------------------------

EXACT: Final = 100
"""The rank of an identity that matches without any wildcard."""


def matches(configured: Identity | None, received: Identity) -> bool:
    """Say whether a received identity is the configured one or fits its pattern; `None` is `%any`."""
    return match_rank(configured, received) > 0


def match_rank(configured: Identity | None, received: Identity) -> int:
    """Return how well a received identity fits: 0 not at all, 1 `%any`, more for narrower patterns, `EXACT`.

    FQDN and RFC822 compare without case, and a configured one may begin with `*` and end with what must
    follow: `*.example.org`, `*@example.org`. DNs compare RDN by RDN (RFC 5280 §7.1), and a configured
    value `*` takes any. All else compares byte by byte. A received `*` is never a pattern.
    """
    if configured is None or configured.type is IdType.ANY:
        return 1
    if configured.type is not received.type:
        return 0
    if configured.type in (IdType.FQDN, IdType.RFC822_ADDR):
        return _rank_names(configured.data.lower(), received.data.lower())
    if configured.type is IdType.DER_ASN1_DN:
        return _rank_dns(configured.data, received.data)
    return EXACT if configured.data == received.data else 0


def _rank_names(pattern: bytes, name: bytes) -> int:
    if pattern == name:
        return EXACT
    if not pattern.startswith(b"*"):
        return 0
    suffix = pattern[1:]
    if not name.endswith(suffix) or len(name) <= len(suffix):
        return 0
    return 2 + min(len(suffix), EXACT - 4)


def _rank_dns(pattern: bytes, name: bytes) -> int:
    if pattern == name:
        return EXACT
    wildcards = dn.match(pattern, name)
    if wildcards is None:
        return 0
    return max(2, EXACT - wildcards)
