"""Messages from bytes to records and back, by the tables `BODIES` and `attributes.ATTRIBUTES`.

Decoding ends in a `Message` or an `XfrmDecodeError`, encoding in bytes or an `XfrmEncodeError`. Attributes
that are not in the table are passed over.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from gateway.datapath.xfrm import messages, structs
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.attributes import decode_attributes, encode_attributes
from gateway.datapath.xfrm.errors import XfrmDecodeError, XfrmEncodeError
from gateway.datapath.xfrm.layouts import Fields
from gateway.datapath.xfrm.messages import XfrmMessage
from gateway.datapath.xfrm.numbers import MessageType


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyCodec:
    """How one kind of body is written."""

    record: type[r.Body]
    decode: Callable[[Fields], r.Body]
    encode: Callable[[Any], Fields]


BODIES: Final[dict[type[XfrmMessage], BodyCodec]] = {
    messages.UsersaInfo: BodyCodec(
        record=r.SaInfo, decode=structs.parse_sa_info, encode=structs.encode_sa_info
    ),
    messages.UsersaId: BodyCodec(record=r.SaId, decode=structs.parse_sa_id, encode=structs.encode_sa_id),
    messages.UserspiInfo: BodyCodec(
        record=r.SpiRange, decode=structs.parse_spi_range, encode=structs.encode_spi_range
    ),
    messages.UsersaFlush: BodyCodec(
        record=r.FlushSas,
        decode=lambda value: r.FlushSas(protocol=value["proto"]),
        encode=lambda flush: {"proto": flush.protocol},
    ),
    messages.UserpolicyInfo: BodyCodec(
        record=r.PolicyInfo, decode=structs.parse_policy_info, encode=structs.encode_policy_info
    ),
    messages.UserpolicyId: BodyCodec(
        record=r.PolicyId, decode=structs.parse_policy_id, encode=structs.encode_policy_id
    ),
    messages.NoBody: BodyCodec(record=r.Nothing, decode=lambda _: r.Nothing(), encode=lambda _: {}),
    messages.UserAcquire: BodyCodec(
        record=r.Acquire, decode=structs.parse_acquire, encode=structs.encode_acquire
    ),
    messages.UserExpire: BodyCodec(
        record=r.Expire,
        decode=lambda value: r.Expire(sa=structs.parse_sa_info(value["state"]), is_hard=bool(value["hard"])),
        encode=lambda expire: {"state": structs.encode_sa_info(expire.sa), "hard": expire.is_hard},
    ),
    messages.UserPolexpire: BodyCodec(
        record=r.PolicyExpire,
        decode=lambda value: r.PolicyExpire(
            policy=structs.parse_policy_info(value["pol"]), is_hard=bool(value["hard"])
        ),
        encode=lambda expire: {"pol": structs.encode_policy_info(expire.policy), "hard": expire.is_hard},
    ),
    messages.AeventId: BodyCodec(record=r.Aevent, decode=structs.parse_aevent, encode=structs.encode_aevent),
    messages.UserReport: BodyCodec(
        record=r.Report,
        decode=lambda value: r.Report(protocol=value["proto"], selector=structs.parse_selector(value["sel"])),
        encode=lambda report: {"proto": report.protocol, "sel": structs.encode_selector(report.selector)},
    ),
    messages.UserMapping: BodyCodec(
        record=r.Mapping, decode=structs.parse_mapping, encode=structs.encode_mapping
    ),
    messages.UserpolicyDefault: BodyCodec(
        record=r.PolicyDefaults,
        decode=structs.parse_defaults,
        encode=lambda defaults: {
            "in": defaults.inbound,
            "fwd": defaults.forward,
            "out": defaults.outbound,
        },
    ),
}


def _parse_hash_info(value: Mapping[str, int] | None, prefix: str) -> r.HashInfo | None:
    if value is None:
        return None
    return r.HashInfo(buckets=value[f"{prefix}hcnt"], most_buckets=value[f"{prefix}hmcnt"])


def _parse_threshold(value: Mapping[str, int] | None) -> r.HashThreshold | None:
    return None if value is None else r.HashThreshold(local_bits=value["lbits"], remote_bits=value["rbits"])


#: Field of `PolicyCounts`, member of `xfrmu_spdinfo`.
_POLICY_COUNTS: Final = {
    "inbound": "incnt",
    "outbound": "outcnt",
    "forward": "fwdcnt",
    "socket_inbound": "inscnt",
    "socket_outbound": "outscnt",
    "socket_forward": "fwdscnt",
}


def _parse_sad_info(message: XfrmMessage) -> r.SadInfo:
    return r.SadInfo(
        flags=message["flags"],
        sas=message.get_attr("XFRMA_SAD_CNT"),
        hash=_parse_hash_info(message.get_attr("XFRMA_SAD_HINFO"), "sad"),
    )


def _encode_sad_info(info: r.SadInfo) -> list[tuple[str, object]]:
    written: list[tuple[str, object]] = []
    if info.sas is not None:
        written.append(("XFRMA_SAD_CNT", info.sas))
    if info.hash is not None:
        written.append(
            ("XFRMA_SAD_HINFO", {"sadhcnt": info.hash.buckets, "sadhmcnt": info.hash.most_buckets})
        )
    return written


def _parse_spd_info(message: XfrmMessage) -> r.SpdInfo:
    counts = message.get_attr("XFRMA_SPD_INFO")
    return r.SpdInfo(
        flags=message["flags"],
        policies=counts
        and r.PolicyCounts(**{field: counts[member] for field, member in _POLICY_COUNTS.items()}),
        hash=_parse_hash_info(message.get_attr("XFRMA_SPD_HINFO"), "spd"),
        ipv4_threshold=_parse_threshold(message.get_attr("XFRMA_SPD_IPV4_HTHRESH")),
        ipv6_threshold=_parse_threshold(message.get_attr("XFRMA_SPD_IPV6_HTHRESH")),
    )


def _encode_spd_info(info: r.SpdInfo) -> list[tuple[str, object]]:
    written: list[tuple[str, object]] = []
    if info.policies is not None:
        counts = {member: getattr(info.policies, field) for field, member in _POLICY_COUNTS.items()}
        written.append(("XFRMA_SPD_INFO", counts))
    if info.hash is not None:
        written.append(
            ("XFRMA_SPD_HINFO", {"spdhcnt": info.hash.buckets, "spdhmcnt": info.hash.most_buckets})
        )
    for version, threshold in ((4, info.ipv4_threshold), (6, info.ipv6_threshold)):
        if threshold is not None:
            bits = {"lbits": threshold.local_bits, "rbits": threshold.remote_bits}
            written.append((f"XFRMA_SPD_IPV{version}_HTHRESH", bits))
    return written


def decode(data: bytes) -> r.Message[r.Body]:
    """Return the message that `data` begins with.

    Raises:
        XfrmDecodeError: It is no whole, well-formed message of this family.
    """
    message = messages.parse(data)
    header = message["header"]
    kind = MessageType(header["type"])
    try:
        body, attributes = _decode_parts(message)
    except XfrmDecodeError as error:
        raise XfrmDecodeError(f"XFRM_MSG_{kind.name}: {error}") from None
    return r.Message(
        type=kind,
        body=body,
        attributes=attributes,
        flags=header["flags"],
        sequence=header["sequence_number"],
        port=header["pid"],
    )


def _decode_parts(message: XfrmMessage) -> tuple[r.Body, r.Attributes]:
    if isinstance(message, messages.SadInfo):
        return _parse_sad_info(message), r.Attributes()
    if isinstance(message, messages.SpdInfo):
        return _parse_spd_info(message), r.Attributes()
    codec = BODIES[type(message)]
    hints = structs.outer_family(message) if isinstance(message, messages.UserAcquire) else {}
    body = codec.decode({**message, **hints})
    return body, decode_attributes(message, body.family)


def encode(message: r.Message[r.Body]) -> bytearray:
    """Return the bytes of a message; whoever sends one with keys wipes it afterwards.

    Raises:
        XfrmEncodeError: The body is not one of this type of message, a number does not fit its member, or
            addresses are of two families.
    """
    out = messages.message_class(message.type, message.flags)()
    try:
        fields, out["attrs"] = _encode_parts(type(out), message)
        out.update(fields)
        out["header"].update(
            type=message.type, flags=message.flags, sequence_number=message.sequence, pid=message.port
        )
        out.encode()
    except struct.error as error:
        raise XfrmEncodeError(f"XFRM_MSG_{message.type.name}: a value does not fit: {error}") from None
    return cast(bytearray, out.data)


def _encode_parts(
    kind: type[XfrmMessage], message: r.Message[r.Body]
) -> tuple[Fields, list[tuple[str, object]]]:
    """Return the members of the body, and the attributes."""
    body = message.body
    if kind is messages.SadInfo and isinstance(body, r.SadInfo):
        return {"flags": body.flags}, _encode_sad_info(body)
    if kind is messages.SpdInfo and isinstance(body, r.SpdInfo):
        return {"flags": body.flags}, _encode_spd_info(body)
    codec = BODIES.get(kind)
    if codec is None or not isinstance(body, codec.record):
        raise XfrmEncodeError(f"{type(body).__name__} is no body of XFRM_MSG_{message.type.name}")
    return codec.encode(body), encode_attributes(message.attributes)
