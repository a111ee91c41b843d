"""Every payload of IKEv2 as one frozen record (RFC 7296 §3.3–3.16).

Their bytes are read and written by `payload_codec`. A record holds what the bytes said, unknown numbers
included; whether that is acceptable is decided by `rules` and by the exchanges. The Encrypted payload (SK,
SKF) is not among them: `message` keeps it as opaque bytes, and `protected` opens it.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, TypeVar

from gateway.ike.errors import InvalidSyntax
from gateway.ike.wire.notify import NotifyType, is_error, notify_name
from gateway.ike.wire.sa_payload import WireProposal
from gateway.ipsec.identity import Identity, IdType
from gateway.ipsec.selectors import TrafficSelector


class PayloadType(IntEnum):
    """IKEv2 Payload Types (IANA), by the notation of RFC 7296 §3.2."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


class AuthenticationMethod(IntEnum):
    """IKEv2 Authentication Methods (IANA)."""

    RSA_SIGNATURE = 1
    SHARED_KEY_MIC = 2
    DSS_SIGNATURE = 3
    ECDSA_SHA256_P256 = 9
    ECDSA_SHA384_P384 = 10
    ECDSA_SHA512_P521 = 11
    GENERIC_SECURE_PASSWORD = 12
    NULL_AUTHENTICATION = 13
    DIGITAL_SIGNATURE = 14


class CertificateEncoding(IntEnum):
    """IKEv2 Certificate Encodings (IANA)."""

    PKCS7_X509 = 1
    PGP = 2
    DNS_SIGNED_KEY = 3
    X509_SIGNATURE = 4
    KERBEROS_TOKEN = 6
    CRL = 7
    ARL = 8
    SPKI = 9
    X509_ATTRIBUTE = 10
    RAW_RSA_KEY = 11
    HASH_AND_URL_X509 = 12
    HASH_AND_URL_BUNDLE = 13
    OCSP_CONTENT = 14
    RAW_PUBLIC_KEY = 15


class ConfigurationType(IntEnum):
    """CFG types of the Configuration payload (RFC 7296 §3.15)."""

    CFG_REQUEST = 1
    CFG_REPLY = 2
    CFG_SET = 3
    CFG_ACK = 4


class ConfigurationAttributeType(IntEnum):
    """IKEv2 Configuration Payload Attribute Types (IANA)."""

    INTERNAL_IP4_ADDRESS = 1
    INTERNAL_IP4_NETMASK = 2
    INTERNAL_IP4_DNS = 3
    INTERNAL_IP4_NBNS = 4
    INTERNAL_IP4_DHCP = 6
    APPLICATION_VERSION = 7
    INTERNAL_IP6_ADDRESS = 8
    INTERNAL_IP6_DNS = 10
    INTERNAL_IP6_DHCP = 12
    INTERNAL_IP4_SUBNET = 13
    SUPPORTED_ATTRIBUTES = 14
    INTERNAL_IP6_SUBNET = 15
    MIP6_HOME_PREFIX = 16
    INTERNAL_IP6_LINK = 17
    INTERNAL_IP6_PREFIX = 18
    HOME_AGENT_ADDRESS = 19
    P_CSCF_IP4_ADDRESS = 20
    P_CSCF_IP6_ADDRESS = 21
    FTT_KAT = 22
    EXTERNAL_SOURCE_IP4_NAT_INFO = 23
    TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24
    INTERNAL_DNS_DOMAIN = 25
    INTERNAL_DNSSEC_TA = 26


NONCE_BYTES: Final = range(16, 257)
"""RFC 7296 §3.9."""
_ADDRESS_ID_BYTES: Final = {IdType.IPV4_ADDR: 4, IdType.IPV6_ADDR: 16}


# --- the records --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaPayload:
    """SA: what is offered, or what was chosen (§3.3)."""

    type: ClassVar[int] = PayloadType.SA
    proposals: tuple[WireProposal, ...]


@dataclass(frozen=True, slots=True)
class KePayload:
    """KE: a public value of one key exchange method (§3.4)."""

    type: ClassVar[int] = PayloadType.KE
    method: int
    """A `gateway.ipsec.algorithms.Ke`, or a number it does not know."""
    data: bytes


@dataclass(frozen=True, slots=True)
class _IdPayload:
    """What IDi and IDr have in common (§3.5)."""

    id_type: int
    data: bytes
    reserved: bytes = bytes(3)
    """As received: it is signed with the rest (RFC 7296 §2.15, RestOfInitIDPayload)."""

    @property
    def body(self) -> bytes:
        """Return the payload without its generic header: what AUTH signs, through prf(SK_p, ·)."""
        return self.id_type.to_bytes(1, "big") + self.reserved + self.data

    @property
    def identity(self) -> Identity:
        """Return the identity in our vocabulary.

        Raises:
            InvalidSyntax: The type is unknown, or the data cannot be of this type.
        """
        try:
            id_type = IdType(self.id_type)
        except ValueError:
            id_type = IdType.ANY
        # ANY is ours, for configured identities; from a peer it is as unknown as any reserved type.
        if id_type is IdType.ANY:
            raise InvalidSyntax(f"identification type {self.id_type} is not one of RFC 7296 §3.5")
        wanted = _ADDRESS_ID_BYTES.get(id_type, len(self.data))
        if len(self.data) != wanted:
            raise InvalidSyntax(f"{id_type.name} identity is {len(self.data)} bytes, it has {wanted}")
        return Identity(id_type, self.data)


@dataclass(frozen=True, slots=True)
class IdiPayload(_IdPayload):
    """IDi: who the initiator says it is (§3.5)."""

    type: ClassVar[int] = PayloadType.IDI

    @classmethod
    def of(cls, identity: Identity) -> "IdiPayload":
        """Return the payload that carries `identity`."""
        return cls(identity.type, identity.data)


@dataclass(frozen=True, slots=True)
class IdrPayload(_IdPayload):
    """IDr: who the responder is, or who the initiator wants it to be (§3.5)."""

    type: ClassVar[int] = PayloadType.IDR

    @classmethod
    def of(cls, identity: Identity) -> "IdrPayload":
        """Return the payload that carries `identity`."""
        return cls(identity.type, identity.data)


@dataclass(frozen=True, slots=True)
class CertPayload:
    """CERT: a certificate or what stands for one (§3.6)."""

    type: ClassVar[int] = PayloadType.CERT
    encoding: int
    data: bytes


@dataclass(frozen=True, slots=True)
class CertreqPayload:
    """CERTREQ: which certification authorities are trusted (§3.7)."""

    type: ClassVar[int] = PayloadType.CERTREQ
    encoding: int
    data: bytes
    """For X.509: SHA-1 hashes of the authorities' public keys, 20 bytes each."""


@dataclass(frozen=True, slots=True)
class AuthPayload:
    """AUTH: the proof of identity (§3.8)."""

    type: ClassVar[int] = PayloadType.AUTH
    method: int
    """An `AuthenticationMethod`, or a number it does not know."""
    data: bytes


@dataclass(frozen=True, slots=True)
class NoncePayload:
    """Ni or Nr (§3.9)."""

    type: ClassVar[int] = PayloadType.NONCE
    data: bytes


@dataclass(frozen=True, slots=True)
class NotifyPayload:
    """N: an error or a status (§3.10)."""

    type: ClassVar[int] = PayloadType.NOTIFY
    notify_type: int
    """A `NotifyType`, or a number it does not know."""
    data: bytes = b""
    protocol: int = 0
    """Of the SA whose SPI is given, else 0."""
    spi: bytes = b""

    @property
    def is_error(self) -> bool:
        """Tell error from status types, the unknown ones too."""
        return is_error(self.notify_type)

    @property
    def name(self) -> str:
        """Return the IANA name of the type, or its number with the kind."""
        return notify_name(self.notify_type)


@dataclass(frozen=True, slots=True)
class DeletePayload:
    """D: the sender's inbound SAs that it has deleted (§3.11)."""

    type: ClassVar[int] = PayloadType.DELETE
    protocol: int
    spis: tuple[bytes, ...] = ()
    """4 bytes each; none for the IKE SA, which the message itself names."""


@dataclass(frozen=True, slots=True)
class VendorIdPayload:
    """V (§3.12)."""

    type: ClassVar[int] = PayloadType.VENDOR_ID
    data: bytes


@dataclass(frozen=True, slots=True)
class OtherSelector:
    """A selector of a type we do not know, kept as bytes (a security label of RFC 9478, ...)."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _TsPayload:
    """What TSi and TSr have in common (§3.13)."""

    selectors: tuple[TrafficSelector, ...]
    others: tuple[OtherSelector, ...] = ()
    """Selectors of unknown types; a narrowed answer leaves them out (RFC 7296 §2.9)."""


@dataclass(frozen=True, slots=True)
class TsiPayload(_TsPayload):
    """TSi: the initiator's end of the traffic (§3.13)."""

    type: ClassVar[int] = PayloadType.TSI


@dataclass(frozen=True, slots=True)
class TsrPayload(_TsPayload):
    """TSr: the responder's end of the traffic (§3.13)."""

    type: ClassVar[int] = PayloadType.TSR


@dataclass(frozen=True, slots=True)
class ConfigurationAttribute:
    """One attribute of a Configuration payload, its value as bytes (§3.15.1)."""

    type: int
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class CpPayload:
    """CP: addresses and the like, asked for or given (§3.15)."""

    type: ClassVar[int] = PayloadType.CP
    cfg_type: int
    attributes: tuple[ConfigurationAttribute, ...] = ()


@dataclass(frozen=True, slots=True)
class EapPayload:
    """EAP: one EAP message, as RFC 3748 has it (§3.16)."""

    type: ClassVar[int] = PayloadType.EAP
    message: bytes


@dataclass(frozen=True, slots=True)
class UnknownPayload:
    """A payload of a type we do not know; refused if it is critical, else skipped (§2.5)."""

    type: int
    critical: bool
    body: bytes


Payload = (
    SaPayload
    | KePayload
    | IdiPayload
    | IdrPayload
    | CertPayload
    | CertreqPayload
    | AuthPayload
    | NoncePayload
    | NotifyPayload
    | DeletePayload
    | VendorIdPayload
    | TsiPayload
    | TsrPayload
    | CpPayload
    | EapPayload
    | UnknownPayload
)


# --- looking into a message ---------------------------------------------------------------------

_P = TypeVar("_P", bound=Payload)


def find_payload(payloads: tuple[Payload, ...], kind: type[_P]) -> _P | None:
    """Return the first payload of this kind, or None."""
    for payload in payloads:
        if isinstance(payload, kind):
            return payload
    return None


def get_payload(payloads: tuple[Payload, ...], kind: type[_P]) -> _P:
    """Return the first payload of this kind.

    Raises:
        InvalidSyntax: There is none.
    """
    payload = find_payload(payloads, kind)
    if payload is None:
        raise InvalidSyntax(f"{kind.__name__.removesuffix('Payload')} payload is missing")
    return payload


def all_payloads(payloads: tuple[Payload, ...], kind: type[_P]) -> tuple[_P, ...]:
    """Return all payloads of this kind, in the order of the message."""
    return tuple(payload for payload in payloads if isinstance(payload, kind))


def find_notify(payloads: tuple[Payload, ...], notify_type: NotifyType) -> NotifyPayload | None:
    """Return the first notify of this type, or None."""
    for payload in payloads:
        if isinstance(payload, NotifyPayload) and payload.notify_type == notify_type:
            return payload
    return None


def error_notify(payloads: tuple[Payload, ...]) -> NotifyPayload | None:
    """Return the first notify of an error type, or None."""
    for payload in payloads:
        if isinstance(payload, NotifyPayload) and payload.is_error:
            return payload
    return None
