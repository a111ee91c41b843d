"""Notify message types by their IANA names, and the codecs of their data (RFC 7296 §3.10)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.ike.errors import InvalidSyntax
from gateway.ike.wire.buffer import Reader
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.authentication import SignatureHash

FIRST_STATUS: Final = 16384
"""Types below are errors, the others status (RFC 7296 §3.10.1)."""
_HASH: Final = struct.Struct("!H")
"""One of SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4)."""


class NotifyType(IntEnum):
    """IKEv2 Notify Message Types, errors and status (IANA)."""

    # --- errors
    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    UNACCEPTABLE_ADDRESSES = 40
    UNEXPECTED_NAT_DETECTED = 41
    USE_ASSIGNED_HOA = 42
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    INVALID_GROUP_ID = 45
    AUTHORIZATION_FAILED = 46
    STATE_NOT_FOUND = 47
    TS_MAX_QUEUE = 48
    REGISTRATION_FAILED = 49
    # --- status
    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    UPDATE_SA_ADDRESSES = 16400
    COOKIE2 = 16401
    NO_NATS_ALLOWED = 16402
    AUTH_LIFETIME = 16403
    MULTIPLE_AUTH_SUPPORTED = 16404
    ANOTHER_AUTH_FOLLOWS = 16405
    REDIRECT_SUPPORTED = 16406
    REDIRECT = 16407
    REDIRECTED_FROM = 16408
    TICKET_LT_OPAQUE = 16409
    TICKET_REQUEST = 16410
    TICKET_ACK = 16411
    TICKET_NACK = 16412
    TICKET_OPAQUE = 16413
    LINK_ID = 16414
    USE_WESP_MODE = 16415
    ROHC_SUPPORTED = 16416
    EAP_ONLY_AUTHENTICATION = 16417
    CHILDLESS_IKEV2_SUPPORTED = 16418
    QUICK_CRASH_DETECTION = 16419
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421
    IKEV2_MESSAGE_ID_SYNC = 16422
    IPSEC_REPLAY_COUNTER_SYNC = 16423
    SECURE_PASSWORD_METHODS = 16424
    PSK_PERSIST = 16425
    PSK_CONFIRM = 16426
    ERX_SUPPORTED = 16427
    IFOM_CAPABILITY = 16428
    GROUP_SENDER = 16429
    IKEV2_FRAGMENTATION_SUPPORTED = 16430
    SIGNATURE_HASH_ALGORITHMS = 16431
    CLONE_IKE_SA_SUPPORTED = 16432
    CLONE_IKE_SA = 16433
    PUZZLE = 16434
    USE_PPK = 16435
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438
    IP4_ALLOWED = 16439
    IP6_ALLOWED = 16440
    ADDITIONAL_KEY_EXCHANGE = 16441
    USE_AGGFRAG = 16442
    SUPPORTED_AUTH_METHODS = 16443
    SA_RESOURCE_INFO = 16444
    USE_PPK_INT = 16445
    PPK_IDENTITY_KEY = 16446
    IKE_SA_INIT_FULL_TRANSCRIPT_AUTH = 16447


def is_error(notify_type: int) -> bool:
    """Tell error types from status types, the unknown ones too (RFC 7296 §3.10.1)."""
    return notify_type < FIRST_STATUS


def notify_name(notify_type: int) -> str:
    """Return the IANA name of a type, or its number with the kind (`ERROR_8192`, `STATUS_40960`)."""
    try:
        return NotifyType(notify_type).name
    except ValueError:
        return f"{'ERROR' if is_error(notify_type) else 'STATUS'}_{notify_type}"


# --- data codecs. Each parse_x raises InvalidSyntax for data that cannot be what its type says.


def encode_ke_method(method: int) -> bytes:
    """Encode the data of INVALID_KE_PAYLOAD: the key exchange method wanted instead (RFC 7296 §1.3)."""
    return method.to_bytes(2, "big")


def parse_ke_method(data: bytes) -> int:
    """Return the method an INVALID_KE_PAYLOAD asks for."""
    reader = Reader(data, "INVALID_KE_PAYLOAD data")
    method = reader.u16()
    reader.finish()
    return method


def parse_window_size(data: bytes) -> int:
    """Return the number of outstanding requests a SET_WINDOW_SIZE allows; never 0 (RFC 7296 §2.3)."""
    reader = Reader(data, "SET_WINDOW_SIZE data")
    size = reader.u32()
    reader.finish()
    if size == 0:
        raise InvalidSyntax("SET_WINDOW_SIZE is 0")
    return size


def encode_signature_hashes(hashes: tuple[int, ...]) -> bytes:
    """Encode the data of SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4)."""
    return b"".join(number.to_bytes(2, "big") for number in hashes)


def parse_signature_hashes(data: bytes) -> tuple[int, ...]:
    """Return the hash algorithm numbers offered, the unknown ones too."""
    if len(data) % _HASH.size:
        raise InvalidSyntax(f"SIGNATURE_HASH_ALGORITHMS data: {len(data)} bytes are no whole numbers")
    return tuple([number for (number,) in _HASH.iter_unpack(data)])


def parse_ipcomp(data: bytes) -> tuple[int, int]:
    """Return the CPI and transform ID of an IPCOMP_SUPPORTED (RFC 7296 §3.10.1)."""
    reader = Reader(data, "IPCOMP_SUPPORTED data")
    cpi, transform_id = reader.u16(), reader.u8()
    reader.finish()
    return cpi, transform_id


def parse_seconds(data: bytes) -> int:
    """Return the seconds of an AUTH_LIFETIME (RFC 4478 §3)."""
    reader = Reader(data, "AUTH_LIFETIME data")
    seconds = reader.u32()
    reader.finish()
    return seconds


def encode_address(address: IPv4Address | IPv6Address) -> bytes:
    """Encode the data of ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS (RFC 4555 §4.2.2)."""
    return address.packed


def parse_address(data: bytes) -> IPv4Address | IPv6Address:
    """Return the address of an ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS."""
    if len(data) == 4:
        return IPv4Address(data)
    if len(data) == 16:
        return IPv6Address(data)
    raise InvalidSyntax(f"an address has 4 or 16 bytes, this one {len(data)}")


@dataclass(frozen=True, slots=True)
class PpkIdentity:
    """The data of PPK_IDENTITY: what kind of PPK_ID, and the PPK_ID (RFC 8784 §5.1)."""

    type: int
    """1 opaque, 2 fixed."""
    ppk_id: bytes


def encode_ppk_identity(identity: PpkIdentity) -> bytes:
    """Encode the data of PPK_IDENTITY."""
    return identity.type.to_bytes(1, "big") + identity.ppk_id


def parse_ppk_identity(data: bytes) -> PpkIdentity:
    """Return the PPK_ID of a PPK_IDENTITY."""
    reader = Reader(data, "PPK_IDENTITY data")
    return PpkIdentity(type=reader.u8(), ppk_id=reader.rest())


def describe_data(notify_type: int, data: bytes) -> str:
    """Return the data of a notify as a human reads it; hexadecimal where no codec knows the type."""
    try:
        return _describe(notify_type, data)
    except InvalidSyntax as error:
        return f"{data.hex()} ({error})"


def _describe(notify_type: int, data: bytes) -> str:
    match notify_type:
        case NotifyType.INVALID_KE_PAYLOAD:
            return _enum_name(Ke, parse_ke_method(data))
        case NotifyType.SET_WINDOW_SIZE:
            return str(parse_window_size(data))
        case NotifyType.SIGNATURE_HASH_ALGORITHMS:
            return ", ".join(_enum_name(SignatureHash, number) for number in parse_signature_hashes(data))
        case NotifyType.AUTH_LIFETIME:
            return f"{parse_seconds(data)} s"
        case NotifyType.ADDITIONAL_IP4_ADDRESS | NotifyType.ADDITIONAL_IP6_ADDRESS:
            return str(parse_address(data))
        case NotifyType.IPCOMP_SUPPORTED:
            cpi, transform_id = parse_ipcomp(data)
            return f"CPI {cpi:04x}, transform {transform_id}"
        case NotifyType.PPK_IDENTITY:
            identity = parse_ppk_identity(data)
            return f"type {identity.type}, {identity.ppk_id.decode('utf-8', 'backslashreplace')!r}"
    return data.hex()


def _enum_name(enumeration: type[IntEnum], number: int) -> str:
    try:
        return enumeration(number).name
    except ValueError:
        return str(number)
