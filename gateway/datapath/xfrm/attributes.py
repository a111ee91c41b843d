"""The values of attributes to records and back: the table `ATTRIBUTES` has all of them."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final

from gateway.datapath.xfrm import layouts
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import XfrmDecodeError, XfrmEncodeError
from gateway.datapath.xfrm.layouts import Fields
from gateway.datapath.xfrm.messages import XfrmMessage
from gateway.datapath.xfrm.numbers import (
    EncapsulationType,
    Mode,
    OffloadFlag,
    PolicyType,
    SaDirection,
    SaExtraFlag,
    Share,
)
from gateway.datapath.xfrm.structs import (
    encode_address,
    encode_policy_info,
    encode_sa_info,
    encode_usage,
    one_family,
    parse_address,
    parse_address_or_none,
    parse_number,
    parse_policy_info,
    parse_prefixes,
    parse_sa_info,
    parse_usage,
    prefix_length,
)

_NAME_BYTES: Final = 64
"""Of an algorithm, with the zero byte at its end."""
_SEC_CTX_EXTTYPE: Final = 8
"""XFRMA_SEC_CTX, which the kernel and iproute2 repeat inside."""
_WORD_BITS: Final = 32


def _parse_name(data: bytes) -> str:
    name, zero, _ = data.partition(b"\0")
    if not zero or not name.isascii():
        raise XfrmDecodeError("the name of an algorithm is not ASCII with a zero byte at its end")
    return name.decode()


def _encode_name(name: str) -> bytes:
    if not name.isascii() or len(name) >= _NAME_BYTES or "\0" in name:
        raise XfrmEncodeError(f"{name!r} is no name of an algorithm: ASCII, less than {_NAME_BYTES} bytes")
    return name.encode()


def _check_key_bits(value: Fields) -> None:
    if value["alg_key_len"] % 8:
        raise XfrmDecodeError(f"a key of {value['alg_key_len']} bits is not one of whole bytes")


def _parse_algorithm(value: Fields, _family: int) -> r.Algorithm:
    _check_key_bits(value)
    return r.Algorithm(name=_parse_name(value["alg_name"]), key=value["alg_key"])


def _encode_algorithm(algorithm: r.Algorithm) -> Fields:
    return {
        "alg_name": _encode_name(algorithm.name),
        "alg_key_len": 8 * len(algorithm.key),
        "alg_key": algorithm.key,
    }


def _parse_integrity(value: Fields, _family: int) -> r.AuthAlgorithm:
    _check_key_bits(value)
    return r.AuthAlgorithm(
        name=_parse_name(value["alg_name"]), key=value["alg_key"], icv_bits=value["alg_trunc_len"]
    )


def _encode_integrity(algorithm: r.AuthAlgorithm) -> Fields:
    return {
        "alg_name": _encode_name(algorithm.name),
        "alg_key_len": 8 * len(algorithm.key),
        "alg_trunc_len": algorithm.icv_bits,
        "alg_key": algorithm.key,
    }


def _parse_aead(value: Fields, _family: int) -> r.AeadAlgorithm:
    _check_key_bits(value)
    return r.AeadAlgorithm(
        name=_parse_name(value["alg_name"]), key=value["alg_key"], icv_bits=value["alg_icv_len"]
    )


def _encode_aead(algorithm: r.AeadAlgorithm) -> Fields:
    return {
        "alg_name": _encode_name(algorithm.name),
        "alg_key_len": 8 * len(algorithm.key),
        "alg_icv_len": algorithm.icv_bits,
        "alg_key": algorithm.key,
    }


def _parse_encapsulation(value: Fields, family: int) -> r.Encapsulation:
    return r.Encapsulation(
        type=parse_number(EncapsulationType, value["encap_type"]),
        source_port=value["encap_sport"],
        destination_port=value["encap_dport"],
        original_address=parse_address(value["encap_oa"], family) if any(value["encap_oa"]) else None,
    )


def _encode_encapsulation(encapsulation: r.Encapsulation) -> Fields:
    return {
        "encap_type": encapsulation.type,
        "encap_sport": encapsulation.source_port,
        "encap_dport": encapsulation.destination_port,
        "encap_oa": encode_address(encapsulation.original_address),
    }


def _parse_template(value: Fields) -> r.Template:
    family = value["family"]
    return r.Template(
        source=parse_address_or_none(value["saddr"], family),
        destination=parse_address_or_none(value["id"]["daddr"], family),
        protocol=value["id"]["proto"],
        spi=value["id"]["spi"],
        mode=parse_number(Mode, value["mode"]),
        reqid=value["reqid"],
        share=parse_number(Share, value["share"]),
        is_optional=bool(value["optional"]),
        authentication_algorithms=value["aalgos"],
        encryption_algorithms=value["ealgos"],
        compression_algorithms=value["calgos"],
    )


def _encode_template(template: r.Template) -> Fields:
    return {
        "id": {
            "daddr": encode_address(template.destination),
            "spi": template.spi,
            "proto": template.protocol,
        },
        "family": one_family(template.source, template.destination),
        "saddr": encode_address(template.source),
        "reqid": template.reqid,
        "mode": template.mode,
        "share": template.share,
        "optional": template.is_optional,
        "aalgos": template.authentication_algorithms,
        "ealgos": template.encryption_algorithms,
        "calgos": template.compression_algorithms,
    }


def _parse_security_context(value: Fields, _family: int) -> r.SecurityContext:
    return r.SecurityContext(context=value["ctx_str"], algorithm=value["ctx_alg"], domain=value["ctx_doi"])


def _encode_security_context(context: r.SecurityContext) -> Fields:
    return {
        "len": layouts.XfrmUserSecCtx.size() + len(context.context),
        "exttype": _SEC_CTX_EXTTYPE,
        "ctx_alg": context.algorithm,
        "ctx_doi": context.domain,
        "ctx_len": len(context.context),
        "ctx_str": context.context,
    }


def _parse_replay(value: Fields, _family: int) -> r.ReplayState:
    return r.ReplayState(outbound=value["oseq"], inbound=value["seq"], bitmap=value["bitmap"])


def _encode_replay(replay: r.ReplayState) -> Fields:
    return {"oseq": replay.outbound, "seq": replay.inbound, "bitmap": replay.bitmap}


def _parse_replay_esn(value: Fields, _family: int) -> r.ReplayStateEsn:
    return r.ReplayStateEsn(
        window_packets=value["replay_window"],
        outbound=value["oseq"],
        outbound_high=value["oseq_hi"],
        inbound=value["seq"],
        inbound_high=value["seq_hi"],
        bitmap=value["bmp"],
    )


def _encode_replay_esn(replay: r.ReplayStateEsn) -> Fields:
    return {
        "bmp_len": len(replay.bitmap) or -(-replay.window_packets // _WORD_BITS),
        "oseq": replay.outbound,
        "seq": replay.inbound,
        "oseq_hi": replay.outbound_high,
        "seq_hi": replay.inbound_high,
        "replay_window": replay.window_packets,
        "bmp": replay.bitmap,
    }


def _parse_migration(value: Fields) -> r.Migration:
    old, new = value["old_family"], value["new_family"]
    return r.Migration(
        old_source=parse_address(value["old_saddr"], old),
        old_destination=parse_address(value["old_daddr"], old),
        new_source=parse_address(value["new_saddr"], new),
        new_destination=parse_address(value["new_daddr"], new),
        protocol=value["proto"],
        mode=parse_number(Mode, value["mode"]),
        reqid=value["reqid"],
    )


def _encode_migration(migration: r.Migration) -> Fields:
    return {
        "old_daddr": encode_address(migration.old_destination),
        "old_saddr": encode_address(migration.old_source),
        "new_daddr": encode_address(migration.new_destination),
        "new_saddr": encode_address(migration.new_source),
        "proto": migration.protocol,
        "mode": migration.mode,
        "reqid": migration.reqid,
        "old_family": one_family(migration.old_source, migration.old_destination),
        "new_family": one_family(migration.new_source, migration.new_destination),
    }


def _parse_km_address(value: Fields, _family: int) -> r.KmAddress:
    return r.KmAddress(
        local=parse_address(value["local"], value["family"]),
        remote=parse_address(value["remote"], value["family"]),
    )


def _encode_km_address(addresses: r.KmAddress) -> Fields:
    return {
        "local": encode_address(addresses.local),
        "remote": encode_address(addresses.remote),
        "family": one_family(addresses.local, addresses.remote),
    }


def _parse_address_filter(value: Fields, _family: int) -> r.AddressFilter:
    source, destination = parse_prefixes(
        value["family"], (value["saddr"], value["splen"]), (value["daddr"], value["dplen"])
    )
    return r.AddressFilter(source=source, destination=destination)


def _encode_address_filter(wanted: r.AddressFilter) -> Fields:
    return {
        "saddr": encode_address(wanted.source),
        "daddr": encode_address(wanted.destination),
        "family": one_family(wanted.source, wanted.destination),
        "splen": prefix_length(wanted.source),
        "dplen": prefix_length(wanted.destination),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeCodec:
    """How one field of `Attributes` is written."""

    name: str
    """Of the attribute, as `<linux/xfrm.h>` spells it."""
    decode: Callable[[Any, int], object]
    """From pyroute2's value and the address family of the body."""
    encode: Callable[[Any], object]
    """To pyroute2's value."""


def _plain(name: str, *, bits: int = 32) -> AttributeCodec:
    def encode(value: int) -> int:
        if not 0 <= value < 1 << bits:
            raise XfrmEncodeError(f"{name} is {value}, which is not of {bits} bits")
        return value

    return AttributeCodec(name=name, decode=lambda value, _: value, encode=encode)


def _flags(name: str, kind: Callable[[int], int]) -> AttributeCodec:
    return AttributeCodec(name=name, decode=lambda value, _: kind(value), encode=int)


def _enum(name: str, kind: type[IntEnum]) -> AttributeCodec:
    return AttributeCodec(name=name, decode=lambda value, _: parse_number(kind, value), encode=int)


#: By field of `Attributes`. They are written in the order of its fields; the kernel takes any.
ATTRIBUTES: Final[dict[str, AttributeCodec]] = {
    "authentication": AttributeCodec(
        name="XFRMA_ALG_AUTH", decode=_parse_algorithm, encode=_encode_algorithm
    ),
    "encryption": AttributeCodec(name="XFRMA_ALG_CRYPT", decode=_parse_algorithm, encode=_encode_algorithm),
    "compression": AttributeCodec(name="XFRMA_ALG_COMP", decode=_parse_algorithm, encode=_encode_algorithm),
    "encapsulation": AttributeCodec(
        name="XFRMA_ENCAP", decode=_parse_encapsulation, encode=_encode_encapsulation
    ),
    "templates": AttributeCodec(
        name="XFRMA_TMPL",
        decode=lambda value, _: tuple(map(_parse_template, value)),
        encode=lambda templates: list(map(_encode_template, templates)),
    ),
    "sa": AttributeCodec(
        name="XFRMA_SA", decode=lambda value, _: parse_sa_info(value), encode=encode_sa_info
    ),
    "policy": AttributeCodec(
        name="XFRMA_POLICY", decode=lambda value, _: parse_policy_info(value), encode=encode_policy_info
    ),
    "security_context": AttributeCodec(
        name="XFRMA_SEC_CTX", decode=_parse_security_context, encode=_encode_security_context
    ),
    "usage": AttributeCodec(
        name="XFRMA_LTIME_VAL", decode=lambda value, _: parse_usage(value), encode=encode_usage
    ),
    "replay": AttributeCodec(name="XFRMA_REPLAY_VAL", decode=_parse_replay, encode=_encode_replay),
    "replay_threshold": _plain("XFRMA_REPLAY_THRESH"),
    "timer_threshold_ds": _plain("XFRMA_ETIMER_THRESH"),
    "source": AttributeCodec(name="XFRMA_SRCADDR", decode=parse_address, encode=encode_address),
    "care_of_address": AttributeCodec(name="XFRMA_COADDR", decode=parse_address, encode=encode_address),
    "last_used_s": _plain("XFRMA_LASTUSED", bits=64),
    "policy_type": AttributeCodec(
        name="XFRMA_POLICY_TYPE",
        decode=lambda value, _: parse_number(PolicyType, value["type"]),
        encode=lambda kind: {"type": kind},
    ),
    "migrations": AttributeCodec(
        name="XFRMA_MIGRATE",
        decode=lambda value, _: tuple(map(_parse_migration, value)),
        encode=lambda migrations: list(map(_encode_migration, migrations)),
    ),
    "aead": AttributeCodec(name="XFRMA_ALG_AEAD", decode=_parse_aead, encode=_encode_aead),
    "km_address": AttributeCodec(name="XFRMA_KMADDRESS", decode=_parse_km_address, encode=_encode_km_address),
    "integrity": AttributeCodec(
        name="XFRMA_ALG_AUTH_TRUNC", decode=_parse_integrity, encode=_encode_integrity
    ),
    "mark": AttributeCodec(
        name="XFRMA_MARK",
        decode=lambda value, _: r.Mark(value=value["v"], mask=value["m"]),
        encode=lambda mark: {"v": mark.value, "m": mark.mask},
    ),
    "tfc_padding_bytes": _plain("XFRMA_TFCPAD"),
    "replay_esn": AttributeCodec(
        name="XFRMA_REPLAY_ESN_VAL", decode=_parse_replay_esn, encode=_encode_replay_esn
    ),
    "extra_flags": _flags("XFRMA_SA_EXTRA_FLAGS", SaExtraFlag),
    "protocol": _plain("XFRMA_PROTO", bits=8),
    "address_filter": AttributeCodec(
        name="XFRMA_ADDRESS_FILTER", decode=_parse_address_filter, encode=_encode_address_filter
    ),
    "offload": AttributeCodec(
        name="XFRMA_OFFLOAD_DEV",
        decode=lambda value, _: r.Offload(link=value["ifindex"], flags=OffloadFlag(value["flags"])),
        encode=lambda offload: {"ifindex": offload.link, "flags": offload.flags},
    ),
    "set_mark": _plain("XFRMA_SET_MARK"),
    "set_mark_mask": _plain("XFRMA_SET_MARK_MASK"),
    "if_id": _plain("XFRMA_IF_ID"),
    "mapping_threshold_s": _plain("XFRMA_MTIMER_THRESH"),
    "direction": _enum("XFRMA_SA_DIR", SaDirection),
    "nat_keepalive_s": _plain("XFRMA_NAT_KEEPALIVE_INTERVAL"),
    "cpu": _plain("XFRMA_SA_PCPU"),
    "iptfs_drop_time_us": _plain("XFRMA_IPTFS_DROP_TIME"),
    "iptfs_reorder_window_packets": _plain("XFRMA_IPTFS_REORDER_WINDOW", bits=16),
    "iptfs_dont_fragment": AttributeCodec(
        name="XFRMA_IPTFS_DONT_FRAG", decode=lambda *_: True, encode=lambda _: True
    ),
    "iptfs_init_delay_us": _plain("XFRMA_IPTFS_INIT_DELAY"),
    "iptfs_max_queue_bytes": _plain("XFRMA_IPTFS_MAX_QSIZE"),
    "iptfs_packet_bytes": _plain("XFRMA_IPTFS_PKT_SIZE"),
}

_FIELDS: Final = {codec.name: field for field, codec in ATTRIBUTES.items()}


def decode_attributes(message: XfrmMessage, family: int) -> r.Attributes:
    """Return the attributes of a message whose body is of this address family."""
    found: dict[str, Any] = {}
    for name, value in message["attrs"]:
        field = _FIELDS.get(name)
        if field is None:
            continue
        try:
            found[field] = ATTRIBUTES[field].decode(value, family)
        except XfrmDecodeError as error:
            raise XfrmDecodeError(f"{name}: {error}") from None
    return r.Attributes(**found)


def encode_attributes(attributes: r.Attributes) -> list[tuple[str, object]]:
    """Return the attributes there are as pyroute2 wants them: name and value."""
    written = []
    for field in fields(attributes):
        value = getattr(attributes, field.name)
        if value is not None and value is not False:
            codec = ATTRIBUTES[field.name]
            written.append((codec.name, codec.encode(value)))
    return written
