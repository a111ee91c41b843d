"""The structs of message bodies: `parse_x` makes a record of their members, `encode_x` members of a record.

A record that cannot be is an `XfrmDecodeError`; one whose addresses are of two families an `XfrmEncodeError`.
"""

from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Final, TypeVar

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import XfrmDecodeError, XfrmEncodeError
from gateway.datapath.xfrm.layouts import Fields
from gateway.datapath.xfrm.messages import ADDRESS_BYTES, XfrmMessage
from gateway.datapath.xfrm.numbers import (
    INFINITE,
    AeventFlag,
    DefaultAction,
    Mode,
    PolicyAction,
    PolicyDirection,
    PolicyFlag,
    SaFlag,
    Share,
)

E = TypeVar("E", bound=IntEnum)


def parse_number(kind: type[E], value: int) -> E:
    """Return a number as a member of its enum."""
    try:
        return kind(value)
    except ValueError:
        raise XfrmDecodeError(f"{value} is no {kind.__name__} that this version knows") from None


def parse_address(data: bytes, family: int) -> r.IpAddress:
    """Return the address in an `xfrm_address_t`."""
    if family == AF_INET:
        return IPv4Address(data[:4])
    if family == AF_INET6:
        return IPv6Address(data)
    raise XfrmDecodeError(f"address family {family} is neither IPv4 nor IPv6")


def parse_address_or_none(data: bytes, family: int) -> r.IpAddress | None:
    """Return the address, `None` without a family."""
    return None if family == AF_UNSPEC else parse_address(data, family)


def encode_address(address: r.IpAddress | None) -> bytes:
    """Return an `xfrm_address_t`, all zero for `None`."""
    return b"" if address is None else address.packed.ljust(ADDRESS_BYTES, b"\0")


def _parse_prefix(family: int, data: bytes, length: int) -> r.IpPrefix:
    address = parse_address(data, family)
    if length > address.max_prefixlen:
        raise XfrmDecodeError(f"a prefix of {length} bits is longer than an IPv{address.version} address")
    return IPv4Interface((address, length)) if address.version == 4 else IPv6Interface((address, length))


def parse_prefixes(
    family: int, source: tuple[bytes, int], destination: tuple[bytes, int]
) -> tuple[r.IpPrefix | None, r.IpPrefix | None]:
    """Return two addresses with their prefix lengths, `None` for both without a family."""
    if family == AF_UNSPEC:
        return None, None
    return _parse_prefix(family, *source), _parse_prefix(family, *destination)


def prefix_length(prefix: r.IpPrefix | None) -> int:
    """Return the prefix length in bits, 0 of none."""
    return 0 if prefix is None else prefix.network.prefixlen


def one_family(*addresses: r.IpAddress | None) -> int:
    """Return the family of all these addresses; `None` has none."""
    families = {r.family_of(address) for address in addresses}
    if len(families) > 1:
        raise XfrmEncodeError(f"{', '.join(map(str, addresses))} are not of one address family")
    return families.pop()


def _parse_limit(value: int) -> int | None:
    return None if value == INFINITE else value


def parse_selector(value: Fields, outer_family: int = AF_UNSPEC) -> r.Selector:
    """Return the `Selector` in these members; one without a family may have addresses of `outer_family`."""
    family = value["family"]
    has_addresses = any(value["saddr"] + value["daddr"]) or value["prefixlen_s"] or value["prefixlen_d"]
    address_family = outer_family if family == AF_UNSPEC and has_addresses else family
    source, destination = parse_prefixes(
        address_family,
        (value["saddr"], value["prefixlen_s"]),
        (value["daddr"], value["prefixlen_d"]),
    )
    return r.Selector(
        source=source,
        destination=destination,
        protocol=value["proto"],
        source_port=value["sport"],
        source_port_mask=value["sport_mask"],
        destination_port=value["dport"],
        destination_port_mask=value["dport_mask"],
        link=value["ifindex"],
        user=value["user"],
        has_family=address_family == family,
    )


def encode_selector(selector: r.Selector) -> Fields:
    """Return the members of this `Selector`."""
    return {
        "daddr": encode_address(selector.destination),
        "saddr": encode_address(selector.source),
        "dport": selector.destination_port,
        "dport_mask": selector.destination_port_mask,
        "sport": selector.source_port,
        "sport_mask": selector.source_port_mask,
        "family": one_family(selector.source, selector.destination) if selector.has_family else AF_UNSPEC,
        "prefixlen_d": prefix_length(selector.destination),
        "prefixlen_s": prefix_length(selector.source),
        "proto": selector.protocol,
        "ifindex": selector.link,
        "user": selector.user,
    }


#: Field of `LifetimeLimits`, member of `xfrm_lifetime_cfg`.
_COUNTS: Final = (
    ("soft_bytes", "soft_byte_limit"),
    ("hard_bytes", "hard_byte_limit"),
    ("soft_packets", "soft_packet_limit"),
    ("hard_packets", "hard_packet_limit"),
)
_TIMES: Final = (
    ("soft_add_s", "soft_add_expires_seconds"),
    ("hard_add_s", "hard_add_expires_seconds"),
    ("soft_use_s", "soft_use_expires_seconds"),
    ("hard_use_s", "hard_use_expires_seconds"),
)


def parse_limits(value: Fields) -> r.LifetimeLimits:
    """Return the `LifetimeLimits` in these members."""
    counts: Fields = {name: _parse_limit(value[member]) for name, member in _COUNTS}
    times: Fields = {name: value[member] for name, member in _TIMES}
    return r.LifetimeLimits(**counts, **times)


def encode_limits(limits: r.LifetimeLimits) -> Fields:
    """Return the members of this `LifetimeLimits`."""
    counts = {member: getattr(limits, name) for name, member in _COUNTS}
    times = {member: getattr(limits, name) for name, member in _TIMES}
    return {member: INFINITE if count is None else count for member, count in counts.items()} | times


def parse_usage(value: Fields) -> r.LifetimeUsage:
    """Return the `LifetimeUsage` in these members."""
    return r.LifetimeUsage(
        bytes=value["bytes"],
        packets=value["packets"],
        add_time_s=value["add_time"],
        use_time_s=value["use_time"],
    )


def encode_usage(usage: r.LifetimeUsage) -> Fields:
    """Return the members of this `LifetimeUsage`."""
    return {
        "bytes": usage.bytes,
        "packets": usage.packets,
        "add_time": usage.add_time_s,
        "use_time": usage.use_time_s,
    }


def parse_sa_id(value: Fields) -> r.SaId:
    """Return the `SaId` in these members."""
    return r.SaId(
        destination=parse_address(value["daddr"], value["family"]), spi=value["spi"], protocol=value["proto"]
    )


def encode_sa_id(sa_id: r.SaId) -> Fields:
    """Return the members of this `SaId`."""
    return _xfrm_id_fields(sa_id) | {"family": sa_id.family}


def _xfrm_id_fields(sa_id: r.SaId) -> Fields:
    return {"daddr": encode_address(sa_id.destination), "spi": sa_id.spi, "proto": sa_id.protocol}


def parse_sa_info(value: Fields) -> r.SaInfo:
    """Return the `SaInfo` in these members."""
    family, statistics = value["family"], value["stats"]
    return r.SaInfo(
        id=parse_sa_id(value["id"] | {"family": family}),
        source=parse_address(value["saddr"], family),
        mode=parse_number(Mode, value["mode"]),
        reqid=value["reqid"],
        selector=parse_selector(value["sel"], family),
        limits=parse_limits(value["lft"]),
        usage=parse_usage(value["curlft"]),
        statistics=r.Statistics(**statistics),
        sequence=value["seq"],
        replay_window=value["replay_window"],
        flags=SaFlag(value["flags"]),
    )


def encode_sa_info(sa: r.SaInfo) -> Fields:
    """Return the members of this `SaInfo`."""
    statistics = sa.statistics
    return {
        "sel": encode_selector(sa.selector),
        "id": _xfrm_id_fields(sa.id),
        "saddr": encode_address(sa.source),
        "lft": encode_limits(sa.limits),
        "curlft": encode_usage(sa.usage),
        "stats": {
            "replay_window": statistics.replay_window,
            "replay": statistics.replay,
            "integrity_failed": statistics.integrity_failed,
        },
        "seq": sa.sequence,
        "reqid": sa.reqid,
        "family": one_family(sa.source, sa.id.destination),
        "mode": sa.mode,
        "replay_window": sa.replay_window,
        "flags": sa.flags,
    }


def parse_policy_info(value: Fields) -> r.PolicyInfo:
    """Return the `PolicyInfo` in these members."""
    return r.PolicyInfo(
        selector=parse_selector(value["sel"]),
        direction=parse_number(PolicyDirection, value["dir"]),
        action=parse_number(PolicyAction, value["action"]),
        priority=value["priority"],
        index=value["index"],
        limits=parse_limits(value["lft"]),
        usage=parse_usage(value["curlft"]),
        flags=PolicyFlag(value["flags"]),
        share=parse_number(Share, value["share"]),
    )


def encode_policy_info(policy: r.PolicyInfo) -> Fields:
    """Return the members of this `PolicyInfo`."""
    return {
        "sel": encode_selector(policy.selector),
        "lft": encode_limits(policy.limits),
        "curlft": encode_usage(policy.usage),
        "priority": policy.priority,
        "index": policy.index,
        "dir": policy.direction,
        "action": policy.action,
        "flags": policy.flags,
        "share": policy.share,
    }


def parse_policy_id(value: Fields) -> r.PolicyId:
    """Return the `PolicyId` in these members."""
    return r.PolicyId(
        direction=parse_number(PolicyDirection, value["dir"]),
        selector=parse_selector(value["sel"]),
        index=value["index"],
    )


def encode_policy_id(policy: r.PolicyId) -> Fields:
    """Return the members of this `PolicyId`."""
    return {"sel": encode_selector(policy.selector), "index": policy.index, "dir": policy.direction}


def parse_spi_range(value: Fields) -> r.SpiRange:
    """Return the `SpiRange` in these members."""
    return r.SpiRange(sa=parse_sa_info(value["info"]), lowest=value["min"], highest=value["max"])


def encode_spi_range(spis: r.SpiRange) -> Fields:
    """Return the members of this `SpiRange`."""
    return {"info": encode_sa_info(spis.sa), "min": spis.lowest, "max": spis.highest}


def parse_acquire(value: Fields) -> r.Acquire:
    """Return the `Acquire` in these members."""
    # The struct has no family of its own: that of the policy's packets stands in the selector, and the outer
    # addresses are of the same one unless a template says otherwise, which `outer_family` finds.
    family = value.get("outer_family", value["sel"]["family"])
    return r.Acquire(
        id=parse_sa_id(value["id"] | {"family": family}),
        source=parse_address(value["saddr"], family),
        selector=parse_selector(value["sel"]),
        policy=parse_policy_info(value["policy"]),
        sequence=value["seq"],
        authentication_algorithms=value["aalgos"],
        encryption_algorithms=value["ealgos"],
        compression_algorithms=value["calgos"],
    )


def encode_acquire(acquire: r.Acquire) -> Fields:
    """Return the members of this `Acquire`."""
    one_family(acquire.source, acquire.id.destination)
    return {
        "id": _xfrm_id_fields(acquire.id),
        "saddr": encode_address(acquire.source),
        "sel": encode_selector(acquire.selector),
        "policy": encode_policy_info(acquire.policy),
        "aalgos": acquire.authentication_algorithms,
        "ealgos": acquire.encryption_algorithms,
        "calgos": acquire.compression_algorithms,
        "seq": acquire.sequence,
    }


def outer_family(message: XfrmMessage) -> Fields:
    """Return the family of an ACQUIRE's outer addresses, as the template they come from has it."""
    templates = [value for name, value in message["attrs"] if name == "XFRMA_TMPL"]
    same = [
        template["family"]
        for template in (templates[-1] if templates else ())
        if template["id"]["daddr"] == message["id"]["daddr"] and template["family"] != AF_UNSPEC
    ]
    return {"outer_family": same[0]} if same else {}


def parse_aevent(value: Fields) -> r.Aevent:
    """Return the `Aevent` in these members."""
    return r.Aevent(
        id=parse_sa_id(value["sa_id"]),
        source=parse_address(value["saddr"], value["sa_id"]["family"]),
        flags=AeventFlag(value["flags"]),
        reqid=value["reqid"],
    )


def encode_aevent(event: r.Aevent) -> Fields:
    """Return the members of this `Aevent`."""
    one_family(event.source, event.id.destination)
    return {
        "sa_id": encode_sa_id(event.id),
        "saddr": encode_address(event.source),
        "flags": event.flags,
        "reqid": event.reqid,
    }


def parse_mapping(value: Fields) -> r.Mapping:
    """Return the `Mapping` in these members."""
    family = value["id"]["family"]
    return r.Mapping(
        id=parse_sa_id(value["id"]),
        old_source=parse_address(value["old_saddr"], family),
        new_source=parse_address(value["new_saddr"], family),
        old_source_port=value["old_sport"],
        new_source_port=value["new_sport"],
        reqid=value["reqid"],
    )


def encode_mapping(mapping: r.Mapping) -> Fields:
    """Return the members of this `Mapping`."""
    one_family(mapping.id.destination, mapping.old_source, mapping.new_source)
    return {
        "id": encode_sa_id(mapping.id),
        "reqid": mapping.reqid,
        "old_saddr": encode_address(mapping.old_source),
        "new_saddr": encode_address(mapping.new_source),
        "old_sport": mapping.old_source_port,
        "new_sport": mapping.new_source_port,
    }


def parse_defaults(value: Fields) -> r.PolicyDefaults:
    """Return the `PolicyDefaults` in these members."""
    return r.PolicyDefaults(
        inbound=parse_number(DefaultAction, value["in"]),
        forward=parse_number(DefaultAction, value["fwd"]),
        outbound=parse_number(DefaultAction, value["out"]),
    )
