"""Payloads and packets in words: what every value of a message is, by its IANA name where it has one."""

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509

from gateway.ike.crypto.certificate import LIBRARY_ERRORS
from gateway.ike.errors import PeerError
from gateway.ike.wire.notify import NotifyType, describe_data
from gateway.ike.wire.payloads import (
    AuthenticationMethod,
    AuthPayload,
    CertificateEncoding,
    CertPayload,
    CertreqPayload,
    ConfigurationAttribute,
    ConfigurationAttributeType,
    ConfigurationType,
    CpPayload,
    DeletePayload,
    EapPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    PayloadType,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
)
from gateway.ike.wire.sa_payload import KEY_LENGTH, WireProposal, WireTransform
from gateway.inspect.packet import parse_ip
from gateway.ipsec.algorithms import ADDITIONAL_KE, Encr, Integ, Ke, Prf, Sn, TransformType
from gateway.ipsec.proposal import ProtocolId

Description = dict[str, object]
"""One payload as JSON has it: `type` first, then its values."""

_NAMES: Final = {
    PayloadType.SA: "SA",
    PayloadType.KE: "KE",
    PayloadType.IDI: "IDi",
    PayloadType.IDR: "IDr",
    PayloadType.CERT: "CERT",
    PayloadType.CERTREQ: "CERTREQ",
    PayloadType.AUTH: "AUTH",
    PayloadType.NONCE: "Nonce",
    PayloadType.NOTIFY: "N",
    PayloadType.DELETE: "D",
    PayloadType.VENDOR_ID: "V",
    PayloadType.TSI: "TSi",
    PayloadType.TSR: "TSr",
    PayloadType.CP: "CP",
    PayloadType.EAP: "EAP",
}
"""The notation of RFC 7296 §3.2."""

_TRANSFORM_IDS: Final[dict[int, tuple[str, type[IntEnum]]]] = {
    TransformType.ENCR: ("ENCR", Encr),
    TransformType.PRF: ("PRF", Prf),
    TransformType.INTEG: ("AUTH", Integ),
    TransformType.KE: ("KE", Ke),
    TransformType.SN: ("SN", Sn),
    **{kind: (kind.name, Ke) for kind in ADDITIONAL_KE},
}


def describe_payload(payload: Payload) -> Description:
    """Return one payload with all its values."""
    described: Description = {"type": _NAMES.get(PayloadType(payload.type), "")} if _is_named(payload) else {}
    match payload:
        case SaPayload():
            described["proposals"] = [_describe_proposal(proposal) for proposal in payload.proposals]
        case KePayload():
            described |= {"method": enum_name(Ke, payload.method), "bytes": len(payload.data)}
        case IdiPayload() | IdrPayload():
            described |= _describe_identity(payload)
        case CertPayload():
            described["encoding"] = enum_name(CertificateEncoding, payload.encoding)
            described |= _describe_certificate(payload)
        case CertreqPayload():
            described["encoding"] = enum_name(CertificateEncoding, payload.encoding)
            described["data"] = payload.data.hex()
        case AuthPayload():
            described["method"] = enum_name(AuthenticationMethod, payload.method)
            described["data"] = payload.data.hex()
        case NoncePayload():
            described |= {"bytes": len(payload.data), "data": payload.data.hex()}
        case NotifyPayload():
            described |= _describe_notify(payload)
        case DeletePayload():
            described["protocol"] = enum_name(ProtocolId, payload.protocol)
            described["spis"] = [spi.hex() for spi in payload.spis]
        case VendorIdPayload():
            described["data"] = payload.data.hex()
            described["text"] = _printable(payload.data)
        case TsiPayload() | TsrPayload():
            described["selectors"] = [str(selector) for selector in payload.selectors]
            if payload.others:
                described["others"] = [
                    f"TS type {other.type}: {other.data.hex()}" for other in payload.others
                ]
        case CpPayload():
            described["cfg_type"] = enum_name(ConfigurationType, payload.cfg_type)
            described["attributes"] = [_describe_attribute(attribute) for attribute in payload.attributes]
        case EapPayload():
            described |= _describe_eap(payload.message)
        case UnknownPayload():
            described = {
                "type": f"payload {payload.type}",
                "critical": payload.critical,
                "data": payload.body.hex(),
            }
    return described


def format_description(described: Description) -> list[str]:
    """Return the lines in which a human reads a payload."""
    lines = []
    values = []
    for name, value in described.items():
        if name == "type":
            continue
        if isinstance(value, list):
            lines += [f"    {item}" for item in _list_lines(value)]
        elif value not in ("", None):
            values.append(
                f"{name} {value}" if not isinstance(value, bool) else f"{name} {str(value).lower()}"
            )
    head = described["type"]
    if "notify" in described:
        # The notation of RFC 7296 §1.2: N(REKEY_SA).
        head, values = f"N({described['notify']})", values[2:]
    return [f"{head}: {', '.join(values)}".rstrip(": "), *lines]


def _list_lines(items: list[object]) -> list[str]:
    lines = []
    for item in items:
        if isinstance(item, dict):
            head = f"proposal {item['number']}: {item['protocol']}"
            spi = f" SPI {item['spi']}" if item["spi"] else ""
            lines.append(f"{head}{spi} {item['proposal']}".rstrip())
            lines.append(f"  {', '.join(item['transforms'])}")
        else:
            lines.append(str(item))
    return lines


def enum_name(enumeration: type[IntEnum], number: int) -> str:
    """Return the IANA name of a number, or the number itself."""
    try:
        return enumeration(number).name
    except ValueError:
        return str(number)


def _is_named(payload: Payload) -> bool:
    return not isinstance(payload, UnknownPayload)


def _describe_proposal(proposal: WireProposal) -> Description:
    known = proposal.proposal
    return {
        "number": proposal.number,
        "protocol": enum_name(ProtocolId, proposal.protocol),
        "spi": proposal.spi.hex(),
        "proposal": "" if known is None else str(known),
        "transforms": [_describe_transform(transform) for transform in proposal.transforms],
    }


def _describe_transform(transform: WireTransform) -> str:
    kind, ids = _TRANSFORM_IDS.get(transform.type, (f"TYPE{transform.type}", None))
    text = f"{kind}={transform.id if ids is None else enum_name(ids, transform.id)}"
    for attribute in transform.attributes:
        value = attribute.value.hex() if isinstance(attribute.value, bytes) else attribute.value
        text += f"/{value}" if attribute.type == KEY_LENGTH else f"/attribute {attribute.type}={value}"
    return text


def _describe_identity(payload: IdiPayload | IdrPayload) -> Description:
    try:
        identity = payload.identity
    except PeerError:
        return {"id_type": payload.id_type, "data": payload.data.hex()}
    return {"id_type": f"ID_{identity.type.name}", "id": str(identity)}


def _describe_certificate(payload: CertPayload) -> Description:
    if payload.encoding == CertificateEncoding.X509_SIGNATURE:
        try:
            certificate = x509.load_der_x509_certificate(payload.data)
            return {
                "bytes": len(payload.data),
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "serial": f"{certificate.serial_number:x}",
            }
        except LIBRARY_ERRORS:
            pass
    return {"bytes": len(payload.data), "data": payload.data.hex()}


def _describe_notify(payload: NotifyPayload) -> Description:
    described: Description = {"notify": payload.name, "number": payload.notify_type}
    if payload.protocol:
        described["protocol"] = enum_name(ProtocolId, payload.protocol)
    if payload.spi:
        described["spi"] = payload.spi.hex()
    if payload.data:
        described["data"] = _describe_notify_data(payload)
    return described


def _describe_notify_data(payload: NotifyPayload) -> str:
    if payload.notify_type == NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD and len(payload.data) == 1:
        return f"payload type {payload.data[0]}"
    return describe_data(payload.notify_type, payload.data)


def _describe_attribute(attribute: ConfigurationAttribute) -> str:
    name = enum_name(ConfigurationAttributeType, attribute.type)
    value = attribute.value
    if not value:
        return name
    if name.startswith("INTERNAL_IP4") and len(value) in (4, 8):
        text = "/".join(str(IPv4Address(value[start : start + 4])) for start in range(0, len(value), 4))
    elif name.startswith("INTERNAL_IP6") and len(value) in (16, 17):
        text = str(IPv6Address(value[:16])) + "".join(f"/{octet}" for octet in value[16:])
    else:
        text = _printable(value) or value.hex()
    return f"{name} {text}"


_EAP_CODES: Final = {1: "Request", 2: "Response", 3: "Success", 4: "Failure"}
_EAP_TYPES: Final = {
    1: "Identity",
    2: "Notification",
    3: "Nak",
    4: "MD5-Challenge",
    6: "GTC",
    13: "TLS",
    18: "SIM",
    21: "TTLS",
    23: "AKA",
    25: "PEAP",
    26: "MSCHAPv2",
    50: "AKA'",
    52: "PWD",
}


def _describe_eap(message: bytes) -> Description:
    """RFC 3748 §4: code, identifier, length, and in requests and responses a type."""
    described: Description = {
        "code": _EAP_CODES.get(message[0], str(message[0])),
        "identifier": message[1],
        "bytes": len(message),
    }
    if len(message) > 4:
        described["method"] = _EAP_TYPES.get(message[4], str(message[4]))
        described["data"] = _printable(message[5:]) or message[5:].hex()
    return described


def _printable(data: bytes) -> str:
    """Return the text that the bytes are, or nothing if they are not text."""
    text = data.decode("ascii", "replace")
    return text if text.isprintable() and "\ufffd" not in text else ""


# --- inner packets ------------------------------------------------------------------------------

_PROTOCOLS: Final = {
    1: "ICMP",
    2: "IGMP",
    4: "IPv4",
    6: "TCP",
    17: "UDP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    59: "no next header",
    89: "OSPF",
    132: "SCTP",
}
_ICMP: Final = {
    (1, 0): "echo reply",
    (1, 8): "echo request",
    (1, 3): "destination unreachable",
    (1, 11): "time exceeded",
    (58, 128): "echo request",
    (58, 129): "echo reply",
    (58, 1): "destination unreachable",
    (58, 2): "packet too big",
    (58, 133): "router solicitation",
    (58, 134): "router advertisement",
    (58, 135): "neighbour solicitation",
    (58, 136): "neighbour advertisement",
}
_TCP_FLAGS: Final = ((0x02, "SYN"), (0x10, "ACK"), (0x08, "PSH"), (0x01, "FIN"), (0x04, "RST"))


def protocol_name(protocol: int) -> str:
    """Return the name of an IP protocol, or its number."""
    return _PROTOCOLS.get(protocol, f"protocol {protocol}")


def describe_inner(next_header: int, data: bytes) -> str:
    """Return a line about what ESP carried: a whole IP packet in tunnel mode, else its payload."""
    if next_header in (4, 41):
        packet = parse_ip(data)
        if packet is None:
            return f"{protocol_name(next_header)}, not a packet, {len(data)} bytes"
        if packet.offset:
            upper = f"{protocol_name(packet.protocol)} fragment at {packet.offset}"
        else:
            upper = _describe_upper(packet.protocol, packet.payload)
        return f"{packet.source} > {packet.destination} {upper}, {len(data)} bytes"
    if next_header == 59:
        return f"dummy packet, {len(data)} bytes"
    return f"{_describe_upper(next_header, data)}, {len(data)} bytes"


def _describe_upper(protocol: int, data: bytes) -> str:
    name = protocol_name(protocol)
    if protocol in (1, 58) and len(data) >= 8:
        kind = _ICMP.get((protocol, data[0]), f"type {data[0]} code {data[1]}")
        if kind.startswith("echo"):
            identifier, sequence = int.from_bytes(data[4:6], "big"), int.from_bytes(data[6:8], "big")
            return f"{name} {kind} id {identifier} seq {sequence}"
        return f"{name} {kind}"
    if protocol in (6, 17, 132) and len(data) >= 4:
        ports = f"{int.from_bytes(data[:2], 'big')} > {int.from_bytes(data[2:4], 'big')}"
        if protocol == 6 and len(data) >= 14:
            flags = [flag for bit, flag in _TCP_FLAGS if data[13] & bit]
            return f"{name} {ports} [{' '.join(flags)}]"
        return f"{name} {ports}"
    return name
