"""Identities, and how a received one matches a configured one (RFC 7296 §3.5, RFC 4301 §4.4.3)."""

from dataclasses import dataclass
from enum import IntEnum


class IdType(IntEnum):
    """ID payload types (RFC 7296 §3.5)."""

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
    """

    type: IdType
    data: bytes
