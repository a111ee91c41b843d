"""The bytes of every payload: bodies to records and back, the generic header's C bit (RFC 7296 §3.2–3.16)."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.buffer import Reader, Writer
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
from gateway.ike.wire.sa_payload import parse_proposals, write_proposals
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.selectors import TrafficSelector

_CRITICAL: Final = 0x80
_TS_IPV4: Final = 7
_TS_IPV6: Final = 8
_TS_ADDRESS: Final[dict[int, type[IPv4Address] | type[IPv6Address]]] = {
    _TS_IPV4: IPv4Address,
    _TS_IPV6: IPv6Address,
}


# --- reading ------------------------------------------------------------------------------------


def parse_payload(payload_type: int, critical: bool, reader: Reader) -> Payload:
    """Read the body of one payload, to the end of `reader`.

    Raises:
        InvalidSyntax: A length, count or value that RFC 7296 does not allow.
    """
    parser = _PARSERS.get(payload_type)
    if parser is None:
        return UnknownPayload(payload_type, critical, reader.rest())
    payload = parser(reader)
    reader.finish()
    return payload


def _parse_sa(reader: Reader) -> SaPayload:
    return SaPayload(parse_proposals(reader))


def _parse_ke(reader: Reader) -> KePayload:
    method = reader.u16()
    reader.skip(2)
    return KePayload(method, reader.rest())


def _parse_idi(reader: Reader) -> IdiPayload:
    id_type = reader.u8()
    reserved = reader.take(3)
    return IdiPayload(id_type, reader.rest(), reserved)


def _parse_idr(reader: Reader) -> IdrPayload:
    id_type = reader.u8()
    reserved = reader.take(3)
    return IdrPayload(id_type, reader.rest(), reserved)


def _parse_cert(reader: Reader) -> CertPayload:
    return CertPayload(reader.u8(), reader.rest())


def _parse_certreq(reader: Reader) -> CertreqPayload:
    return CertreqPayload(reader.u8(), reader.rest())


def _parse_auth(reader: Reader) -> AuthPayload:
    method = reader.u8()
    reader.skip(3)
    return AuthPayload(method, reader.rest())


def _parse_nonce(reader: Reader) -> NoncePayload:
    if reader.remaining not in NONCE_BYTES:
        raise InvalidSyntax(f"nonce is {reader.remaining} bytes, RFC 7296 §3.9 wants 16 to 256")
    return NoncePayload(reader.rest())


def _parse_notify(reader: Reader) -> NotifyPayload:
    protocol = reader.u8()
    spi_size = reader.u8()
    notify_type = reader.u16()
    spi = reader.take(spi_size)
    return NotifyPayload(notify_type, reader.rest(), protocol, spi)


def _parse_delete(reader: Reader) -> DeletePayload:
    protocol = reader.u8()
    spi_size = reader.u8()
    count = reader.u16()
    wanted = 0 if protocol == ProtocolId.IKE else 4
    if spi_size != wanted or (protocol == ProtocolId.IKE and count):
        raise InvalidSyntax(f"delete: {count} SPIs of {spi_size} bytes for protocol {protocol}")
    return DeletePayload(protocol, tuple(reader.take(spi_size) for _ in range(count)))


def _parse_vendor_id(reader: Reader) -> VendorIdPayload:
    return VendorIdPayload(reader.rest())


def _parse_selectors(reader: Reader) -> tuple[tuple[TrafficSelector, ...], tuple[OtherSelector, ...]]:
    count = reader.u8()
    reader.skip(3)
    if count == 0:
        raise InvalidSyntax("a TS payload holds no traffic selector")
    selectors: list[TrafficSelector] = []
    others: list[OtherSelector] = []
    for _ in range(count):
        ts_type = reader.u8()
        protocol = reader.u8()
        body = reader.sub(reader.u16() - 4, "traffic selector")
        family = _TS_ADDRESS.get(ts_type)
        if family is None:
            others.append(OtherSelector(ts_type, protocol.to_bytes(1, "big") + body.rest()))
            continue
        selectors.append(_parse_selector(body, protocol, family))
    return tuple(selectors), tuple(others)


def _parse_selector(
    reader: Reader, protocol: int, family: type[IPv4Address] | type[IPv6Address]
) -> TrafficSelector:
    start_port = reader.u16()
    end_port = reader.u16()
    size = 4 if family is IPv4Address else 16
    start = family(reader.take(size))
    end = family(reader.take(size))
    reader.finish()
    try:
        return TrafficSelector(start, end, protocol, start_port, end_port)
    except VocabularyError as error:
        raise InvalidSyntax(f"traffic selector: {error}") from None


def _parse_tsi(reader: Reader) -> TsiPayload:
    return TsiPayload(*_parse_selectors(reader))


def _parse_tsr(reader: Reader) -> TsrPayload:
    return TsrPayload(*_parse_selectors(reader))


def _parse_cp(reader: Reader) -> CpPayload:
    cfg_type = reader.u8()
    reader.skip(3)
    attributes = []
    while reader.remaining:
        attribute_type = reader.u16() & 0x7FFF
        attributes.append(ConfigurationAttribute(attribute_type, reader.take(reader.u16())))
    return CpPayload(cfg_type, tuple(attributes))


def _parse_eap(reader: Reader) -> EapPayload:
    if reader.remaining < 4:
        raise InvalidSyntax(f"EAP message is {reader.remaining} bytes, RFC 3748 §4 wants at least 4")
    return EapPayload(reader.rest())


_PARSERS: Final[dict[int, Callable[[Reader], Payload]]] = {
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


def write_payload(writer: Writer, payload: Payload) -> None:
    """Append the body of one payload, without the generic header."""
    match payload:
        case SaPayload():
            write_proposals(writer, payload.proposals)
        case KePayload():
            writer.u16(payload.method)
            writer.zeros(2)
            writer.raw(payload.data)
        case IdiPayload() | IdrPayload():
            writer.raw(payload.body)
        case CertPayload() | CertreqPayload():
            writer.u8(payload.encoding)
            writer.raw(payload.data)
        case AuthPayload():
            writer.u8(payload.method)
            writer.zeros(3)
            writer.raw(payload.data)
        case NoncePayload():
            if len(payload.data) not in NONCE_BYTES:
                raise LocalError(f"nonce is {len(payload.data)} bytes, RFC 7296 §3.9 wants 16 to 256")
            writer.raw(payload.data)
        case NotifyPayload():
            writer.u8(payload.protocol)
            writer.u8(len(payload.spi))
            writer.u16(payload.notify_type)
            writer.raw(payload.spi)
            writer.raw(payload.data)
        case DeletePayload():
            writer.u8(payload.protocol)
            writer.u8(0 if payload.protocol == ProtocolId.IKE else 4)
            writer.u16(len(payload.spis))
            writer.raw(b"".join(payload.spis))
        case VendorIdPayload():
            writer.raw(payload.data)
        case TsiPayload() | TsrPayload():
            _write_selectors(writer, payload.selectors, payload.others)
        case CpPayload():
            writer.u8(payload.cfg_type)
            writer.zeros(3)
            for attribute in payload.attributes:
                writer.u16(attribute.type)
                writer.u16(len(attribute.value))
                writer.raw(attribute.value)
        case EapPayload():
            writer.raw(payload.message)
        case UnknownPayload():
            writer.raw(payload.body)


def _write_selectors(
    writer: Writer, selectors: tuple[TrafficSelector, ...], others: tuple[OtherSelector, ...]
) -> None:
    writer.u8(len(selectors) + len(others))
    writer.zeros(3)
    for selector in selectors:
        writer.u8(_TS_IPV4 if isinstance(selector.start, IPv4Address) else _TS_IPV6)
        writer.u8(selector.protocol)
        writer.u16(8 + 2 * len(selector.start.packed))
        writer.u16(selector.start_port)
        writer.u16(selector.end_port)
        writer.raw(selector.start.packed)
        writer.raw(selector.end.packed)
    for other in others:
        writer.u8(other.type)
        writer.raw(other.data[:1])
        writer.u16(3 + len(other.data))
        writer.raw(other.data[1:])


def is_critical_bit(octet: int) -> bool:
    """Tell whether the C bit is set in the second byte of a generic payload header (§3.2)."""
    return bool(octet & _CRITICAL)


def critical_octet(payload: Payload) -> int:
    """Return the second byte of the generic payload header: no C bit for the types of RFC 7296 (§2.5)."""
    return _CRITICAL if isinstance(payload, UnknownPayload) and payload.critical else 0
