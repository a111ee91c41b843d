"""The bytes of every payload: bodies to records and back, the generic header's C bit (RFC 7296 §3.2–3.16)."""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.buffer import Reader, pack, split
from gateway.ike.wire.payloads import (
    NONCE_BYTES,
    AuthPayload,
    CertPayload,
    CertreqPayload,
    ConfigurationAttribute,
    CpPayload,
    DeletePayload,
    EapPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    OtherSelector,
    Payload,
    PayloadType,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
)
from gateway.ike.wire.sa_payload import encode_proposals, parse_proposals
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.selectors import TrafficSelector

_CRITICAL: Final = 0x80
_OCTET: Final = struct.Struct("!B")
_ID: Final = struct.Struct("!B3s")
"""ID type; RESERVED, which is signed as it came."""
_OCTET_RESERVED: Final = struct.Struct("!B3x")
"""Of AUTH, TSi, TSr and CP: a method, a count, a type; then RESERVED."""
_KE: Final = struct.Struct("!H2x")
"""Key exchange method, RESERVED."""
_NOTIFY_OR_DELETE: Final = struct.Struct("!BBH")
"""Protocol, SPI size, then notify type or number of SPIs."""
_SELECTOR: Final = struct.Struct("!BBHHH")
"""TS type, IP protocol, length of the selector, first and last port."""
_SELECTOR_HEAD: Final = struct.Struct("!BBH")
"""The part of it that selectors of every type have."""
_PORTS: Final = struct.Struct("!HH")
_ATTRIBUTE: Final = struct.Struct("!HH")
"""Type and length."""
_TS_IPV4: Final = 7
_TS_IPV6: Final = 8
_TS_ADDRESS: Final[Mapping[int, tuple[type[IPv4Address] | type[IPv6Address], int]]] = {
    _TS_IPV4: (IPv4Address, 4),
    _TS_IPV6: (IPv6Address, 16),
}
"""Family and length of the addresses, by TS type (RFC 7296 §3.13.1)."""


# --- reading ------------------------------------------------------------------------------------


def parse_payload(payload_type: int, critical: bool, body: bytes) -> Payload:
    """Read the body of one payload.

    Raises:
        InvalidSyntax: A length, count or value that RFC 7296 does not allow.
    """
    parser = _PARSERS.get(payload_type)
    return UnknownPayload(payload_type, critical, body) if parser is None else parser(body)


def _parse_sa(body: bytes) -> SaPayload:
    return SaPayload(parse_proposals(body))


def _parse_ke(body: bytes) -> KePayload:
    (method,), data = split(_KE, body, "KE payload")
    return KePayload(method, data)


def _parse_idi(body: bytes) -> IdiPayload:
    (id_type, reserved), data = split(_ID, body, "IDi payload")
    return IdiPayload(id_type, data, reserved)


def _parse_idr(body: bytes) -> IdrPayload:
    (id_type, reserved), data = split(_ID, body, "IDr payload")
    return IdrPayload(id_type, data, reserved)


def _parse_cert(body: bytes) -> CertPayload:
    (encoding,), data = split(_OCTET, body, "CERT payload")
    return CertPayload(encoding, data)


def _parse_certreq(body: bytes) -> CertreqPayload:
    (encoding,), data = split(_OCTET, body, "CERTREQ payload")
    return CertreqPayload(encoding, data)


def _parse_auth(body: bytes) -> AuthPayload:
    (method,), data = split(_OCTET_RESERVED, body, "AUTH payload")
    return AuthPayload(method, data)


def _parse_nonce(body: bytes) -> NoncePayload:
    if len(body) not in NONCE_BYTES:
        raise InvalidSyntax(f"nonce is {len(body)} bytes, RFC 7296 §3.9 wants 16 to 256")
    return NoncePayload(body)


def _parse_notify(body: bytes) -> NotifyPayload:
    (protocol, spi_size, notify_type), data = split(_NOTIFY_OR_DELETE, body, "notify")
    if not spi_size:
        return NotifyPayload(notify_type, data, protocol)
    reader = Reader(data, "notify")
    spi = reader.take(spi_size)
    return NotifyPayload(notify_type, reader.rest(), protocol, spi)


def _parse_delete(body: bytes) -> DeletePayload:
    reader = Reader(body, "delete")
    protocol, spi_size, count = reader.unpack(_NOTIFY_OR_DELETE)
    wanted = 0 if protocol == ProtocolId.IKE else 4
    if spi_size != wanted or (protocol == ProtocolId.IKE and count):
        raise InvalidSyntax(f"delete: {count} SPIs of {spi_size} bytes for protocol {protocol}")
    spis = tuple(reader.take(spi_size) for _ in range(count))
    reader.finish()
    return DeletePayload(protocol, spis)


def _parse_vendor_id(body: bytes) -> VendorIdPayload:
    return VendorIdPayload(body)


def _parse_selectors(body: bytes) -> tuple[tuple[TrafficSelector, ...], tuple[OtherSelector, ...]]:
    reader = Reader(body, "TS payload")
    (count,) = reader.unpack(_OCTET_RESERVED)
    if count == 0:
        raise InvalidSyntax("a TS payload holds no traffic selector")
    selectors: list[TrafficSelector] = []
    others: list[OtherSelector] = []
    for _ in range(count):
        ts_type, protocol, length = reader.unpack(_SELECTOR_HEAD)
        rest = reader.take(length - _SELECTOR_HEAD.size)
        if ts_type in _TS_ADDRESS:
            selectors.append(_parse_selector(ts_type, protocol, rest))
        else:
            others.append(OtherSelector(ts_type, protocol.to_bytes(1, "big") + rest))
    reader.finish()
    return tuple(selectors), tuple(others)


@lru_cache(maxsize=1024)
def _parse_selector(ts_type: int, protocol: int, body: bytes) -> TrafficSelector:
    """Read ports and addresses of one of the types in `_TS_ADDRESS`.

    What was read is remembered: the SAs of many peers share few selectors, and then they share one record of
    each. A wrong one is not, and all have one of two sizes, so that nobody can make this large.
    """
    reader = Reader(body, "traffic selector")
    start_port, end_port = reader.unpack(_PORTS)
    family, size = _TS_ADDRESS[ts_type]
    start = family(reader.take(size))
    end = family(reader.take(size))
    reader.finish()
    try:
        return TrafficSelector(start, end, protocol, start_port, end_port)
    except VocabularyError as error:
        raise InvalidSyntax(f"traffic selector: {error}") from None


def _parse_tsi(body: bytes) -> TsiPayload:
    return TsiPayload(*_parse_selectors(body))


def _parse_tsr(body: bytes) -> TsrPayload:
    return TsrPayload(*_parse_selectors(body))


def _parse_cp(body: bytes) -> CpPayload:
    reader = Reader(body, "CP payload")
    (cfg_type,) = reader.unpack(_OCTET_RESERVED)
    attributes = []
    while reader.remaining:
        attribute_type, length = reader.unpack(_ATTRIBUTE)
        attributes.append(ConfigurationAttribute(attribute_type & 0x7FFF, reader.take(length)))
    return CpPayload(cfg_type, tuple(attributes))


def _parse_eap(body: bytes) -> EapPayload:
    if len(body) < 4:
        raise InvalidSyntax(f"EAP message is {len(body)} bytes, RFC 3748 §4 wants at least 4")
    return EapPayload(body)


_PARSERS: Final[dict[int, Callable[[bytes], Payload]]] = {
    PayloadType.SA: _parse_sa,
    PayloadType.KE: _parse_ke,
    PayloadType.IDI: _parse_idi,
    PayloadType.IDR: _parse_idr,
    PayloadType.CERT: _parse_cert,
    PayloadType.CERTREQ: _parse_certreq,
    PayloadType.AUTH: _parse_auth,
    PayloadType.NONCE: _parse_nonce,
    PayloadType.NOTIFY: _parse_notify,
    PayloadType.DELETE: _parse_delete,
    PayloadType.VENDOR_ID: _parse_vendor_id,
    PayloadType.TSI: _parse_tsi,
    PayloadType.TSR: _parse_tsr,
    PayloadType.CP: _parse_cp,
    PayloadType.EAP: _parse_eap,
}


# --- writing ------------------------------------------------------------------------------------


def encode_payload(payload: Payload) -> bytes:
    """Return the body of one payload, without the generic header.

    Raises:
        LocalError: A field does not fit, or a nonce is too short or too long.
    """
    return _ENCODERS[type(payload)](payload)


def _encode_sa(payload: SaPayload) -> bytes:
    return encode_proposals(payload.proposals)


def _encode_ke(payload: KePayload) -> bytes:
    return pack(_KE, payload.method) + payload.data


def _encode_id(payload: IdiPayload | IdrPayload) -> bytes:
    return payload.body


def _encode_cert(payload: CertPayload | CertreqPayload) -> bytes:
    return pack(_OCTET, payload.encoding) + payload.data


def _encode_auth(payload: AuthPayload) -> bytes:
    return pack(_OCTET_RESERVED, payload.method) + payload.data


def _encode_nonce(payload: NoncePayload) -> bytes:
    if len(payload.data) not in NONCE_BYTES:
        raise LocalError(f"nonce is {len(payload.data)} bytes, RFC 7296 §3.9 wants 16 to 256")
    return payload.data


def _encode_notify(payload: NotifyPayload) -> bytes:
    head = pack(_NOTIFY_OR_DELETE, payload.protocol, len(payload.spi), payload.notify_type)
    return head + payload.spi + payload.data


def _encode_delete(payload: DeletePayload) -> bytes:
    spi_size = 0 if payload.protocol == ProtocolId.IKE else 4
    head = pack(_NOTIFY_OR_DELETE, payload.protocol, spi_size, len(payload.spis))
    return head + b"".join(payload.spis)


def _encode_vendor_id(payload: VendorIdPayload) -> bytes:
    return payload.data


def _encode_ts(payload: TsiPayload | TsrPayload) -> bytes:
    parts = [pack(_OCTET_RESERVED, len(payload.selectors) + len(payload.others))]
    parts += map(_encode_selector, payload.selectors)
    for other in payload.others:
        # The second octet, an IP protocol elsewhere, is the type's own.
        parts.append(pack(_SELECTOR_HEAD, other.type, other.data[0], 3 + len(other.data)) + other.data[1:])
    return b"".join(parts)


def _encode_selector(selector: TrafficSelector) -> bytes:
    addresses = selector.start.packed + selector.end.packed
    return (
        pack(
            _SELECTOR,
            _TS_IPV4 if isinstance(selector.start, IPv4Address) else _TS_IPV6,
            selector.protocol,
            _SELECTOR.size + len(addresses),
            selector.start_port,
            selector.end_port,
        )
        + addresses
    )


def _encode_cp(payload: CpPayload) -> bytes:
    attributes = (pack(_ATTRIBUTE, a.type, len(a.value)) + a.value for a in payload.attributes)
    return pack(_OCTET_RESERVED, payload.cfg_type) + b"".join(attributes)


def _encode_eap(payload: EapPayload) -> bytes:
    return payload.message


def _encode_unknown(payload: UnknownPayload) -> bytes:
    return payload.body


# Any: each takes the class that it stands beside.
_ENCODERS: Final[Mapping[type[Payload], Callable[[Any], bytes]]] = {
    SaPayload: _encode_sa,
    KePayload: _encode_ke,
    IdiPayload: _encode_id,
    IdrPayload: _encode_id,
    CertPayload: _encode_cert,
    CertreqPayload: _encode_cert,
    AuthPayload: _encode_auth,
    NoncePayload: _encode_nonce,
    NotifyPayload: _encode_notify,
    DeletePayload: _encode_delete,
    VendorIdPayload: _encode_vendor_id,
    TsiPayload: _encode_ts,
    TsrPayload: _encode_ts,
    CpPayload: _encode_cp,
    EapPayload: _encode_eap,
    UnknownPayload: _encode_unknown,
}


def is_critical_bit(octet: int) -> bool:
    """Tell whether the C bit is set in the second byte of a generic payload header (§3.2)."""
    return bool(octet & _CRITICAL)


def critical_octet(payload: Payload) -> int:
    """Return the second byte of the generic payload header: no C bit for the types of RFC 7296 (§2.5)."""
    return _CRITICAL if isinstance(payload, UnknownPayload) and payload.critical else 0
