"""The guard: nftables rules that keep protected traffic from crossing this machine in clear.

They stand while every process of ours is dead. One table `inet ipsecgw_TAG` holds:

    postrouting (base)  what may leave in clear anyway, then a jump to every `out_N`
    input, forward      what may come in clear anyway, then a jump to every `in_N`
    prerouting          the mark on IKE, ESP and AH for us, where strict reverse path filtering needs it
    out_N, in_N         the SPD of the agent's N-th life, in order: BYPASS returns, PROTECT and DISCARD drop

A new agent adds a chain of its own, and takes the chains of its former lives away only when it knows that it
has every policy (`keep_previous=False`). Until then a packet must pass all of them. Each change is one
transaction of `nft -j -f -`: there is no moment without rules, and named counters keep their values.

Packets of ours carry the mark. Packets that cross the tunnel device were, or will be, protected. The guard
sees addresses before source NAT and after destination NAT, as the SPD does.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.host.errors import HostError
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import ANY_PROTOCOL, TrafficSelector

#: One expression, statement or command of libnftables-json(5).
Json = dict[str, Any]

CLEAR_INBOUND: Final = "clear_inbound"
CLEAR_OUTBOUND: Final = "clear_outbound"
DISCARDED: Final = "discarded"
_COUNTERS: Final = (CLEAR_INBOUND, CLEAR_OUTBOUND, DISCARDED)

_BEFORE_SOURCE_NAT: Final = -200
_BEFORE_FILTER: Final = -10
_AFTER_DESTINATION_NAT: Final = -90

_ICMP: Final = 1
_ICMPV6: Final = 58
_MOBILITY: Final = 135
_ESP: Final = 50
_AH: Final = 51
_IPSEC_PROTOCOLS: Final = (_ESP, _AH)
# Neighbour discovery (RFC 4861 §4) and multicast listener discovery (RFC 2710 §3, RFC 3810 §5): an IPv6 link
# is dead without them, and no IPsec peer can do them for us. The hop limits are those that never cross a
# router: nothing else goes out under their name.
_NEIGHBOUR_DISCOVERY: Final = (133, 134, 135, 136, 137)
_NEIGHBOUR_DISCOVERY_HOP_LIMIT: Final = 255
_LISTENER_DISCOVERY: Final = (130, 131, 132, 143)
_LISTENER_DISCOVERY_HOP_LIMIT: Final = 1
_FRAGMENT_HEADER: Final = 44
# Extension headers that may stand before the next layer protocol in what is fragmented: hop-by-hop
# options, routing, destination options.
_BEFORE_NEXT_LAYER: Final = (0, 43, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What the guard of one agent needs to know beside the SPD."""

    tag: str
    """Ends the table's name: letters, digits and underscores."""
    tunnel_device: str
    mark: int
    """Of what we send ourselves, protected: it may leave."""
    arrival_mark: int
    """Put on IKE, ESP and AH for us, so that strict reverse path filtering looks for the way they came, and
    not into the tunnel device. No exemption goes with it."""
    udp_ports: tuple[int, ...] = (500, 4500)
    """IKE and UDP-encapsulated ESP come in on these."""

    @property
    def table(self) -> str:
        """Return the name of the table."""
        return f"ipsecgw_{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardCounters:
    """Packets that the guard dropped since its table was made."""

    clear_inbound: int = 0
    clear_outbound: int = 0
    discarded: int = 0


async def run_nft(*arguments: str, commands: Sequence[Json] | None = None) -> str:
    """Run nft(8), with a list of JSON commands as one transaction, and return what it printed.

    Raises:
        HostError: nft is missing, or refused.
    """
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise HostError("the program nft is missing: install the package nftables")
    stdin = b"" if commands is None else json.dumps({"nftables": list(commands)}).encode()
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate(stdin)
    if process.returncode != 0:
        text = stderr.decode(errors="replace").strip()
        if "Operation not permitted" in text:
            text = "it needs CAP_NET_ADMIN: run the agent as root"
        raise HostError(f"nft refused the guard rules: {text}")
    return stdout.decode()


async def find_lives(guard: Guard) -> tuple[int, ...]:
    """Return the numbers of the lives whose chains are in the guard's table, oldest first."""
    listing = json.loads(await run_nft("-j", "list", "chains", "inet"))
    lives = set()
    for item in listing["nftables"]:
        chain = item.get("chain", {})
        prefix, _, number = str(chain.get("name", "")).partition("_")
        if chain.get("table") == guard.table and prefix == "out" and number.isdigit():
            lives.add(int(number))
    return tuple(sorted(lives))


async def apply_guard(
    guard: Guard, policies: Sequence[Policy], *, life: int, previous: Sequence[int] = ()
) -> None:
    """Make the chains of `life` say what `policies` say, atomically.

    Args:
        guard: The table.
        policies: The whole SPD, in the order in which it is searched.
        life: The number of our own chains.
        previous: Lives whose chains stay in force; the chains of any other life are removed.
    """
    stale = [number for number in await find_lives(guard) if number != life and number not in previous]
    await run_nft("-j", "-f", "-", commands=guard_commands(guard, policies, (*previous, life), stale))


async def mark_arp(guard: Guard) -> bool:
    """Put the arrival mark on ARP requests too; return whether this kernel can.

    Strict reverse path filtering also looks at who asks for our link address.
    """
    table = {"family": "arp", "table": guard.table}
    chain = table | {"name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    mark = {"mangle": {"key": _meta("mark"), "value": guard.arrival_mark}}
    commands: list[Json] = [
        {"add": {"table": {"family": "arp", "name": guard.table}}},
        {"add": {"chain": chain}},
        {"flush": {"chain": table | {"name": "input"}}},
        {"add": {"rule": table | {"chain": "input", "expr": [mark]}}},
    ]
    try:
        await run_nft("-j", "-f", "-", commands=commands)
    except HostError:
        return False
    return True


async def remove_guard(guard: Guard) -> None:
    """Remove everything: for an operator who ends protection, and for tests."""
    await _remove_table("inet", guard)
    with contextlib.suppress(HostError):  # a kernel without nftables for ARP
        await _remove_table("arp", guard)


async def _remove_table(family: str, guard: Guard) -> None:
    table = {"family": family, "name": guard.table}
    await run_nft("-j", "-f", "-", commands=[{"add": {"table": table}}, {"delete": {"table": table}}])


async def read_counters(guard: Guard) -> GuardCounters:
    """Return what the guard dropped; zeros while there is no table."""
    try:
        listing = json.loads(await run_nft("-j", "list", "counters", "table", "inet", guard.table))
    except HostError:
        return GuardCounters()
    found = {
        item["counter"]["name"]: int(item["counter"]["packets"])
        for item in listing["nftables"]
        if "counter" in item
    }
    return GuardCounters(
        clear_inbound=found.get(CLEAR_INBOUND, 0),
        clear_outbound=found.get(CLEAR_OUTBOUND, 0),
        discarded=found.get(DISCARDED, 0),
    )


def guard_commands(
    guard: Guard, policies: Sequence[Policy], lives: Sequence[int], stale: Sequence[int] = ()
) -> list[Json]:
    """Return the transaction: the last of `lives` gets the rules of `policies`, `stale` ones are deleted."""
    own = lives[-1]
    commands: list[Json] = [{"add": {"table": {"family": "inet", "name": guard.table}}}]
    commands += [{"add": {"counter": _named(guard, name)}} for name in _COUNTERS]
    for number in lives:
        commands += [{"add": {"chain": _named(guard, f"{way}_{number}")}} for way in ("out", "in")]
    for name, (priority, exemptions, way) in {
        "postrouting": (_BEFORE_SOURCE_NAT, _outbound_exemptions(guard), "out"),
        "input": (_BEFORE_FILTER, _input_exemptions(guard), "in"),
        "forward": (_BEFORE_FILTER, _forward_exemptions(guard), "in"),
    }.items():
        base = _named(guard, name) | {"type": "filter", "hook": name, "prio": priority, "policy": "accept"}
        commands.append({"add": {"chain": base}})
        commands.append({"flush": {"chain": _named(guard, name)}})
        commands += [_rule(guard, name, [*matches, {"accept": None}]) for matches in exemptions]
        commands += [_rule(guard, name, [{"jump": {"target": f"{way}_{number}"}}]) for number in lives]
    commands += _mark_arrivals(guard)
    for way in ("out", "in"):
        chain = f"{way}_{own}"
        commands.append({"flush": {"chain": _named(guard, chain)}})
        for policy in policies:
            commands += [_rule(guard, chain, rule) for rule in _policy_rules(policy, is_inbound=way == "in")]
    for number in stale:
        for way in ("out", "in"):
            commands.append({"flush": {"chain": _named(guard, f"{way}_{number}")}})
            commands.append({"delete": {"chain": _named(guard, f"{way}_{number}")}})
    return commands


def _named(guard: Guard, name: str) -> Json:
    return {"family": "inet", "table": guard.table, "name": name}


def _rule(guard: Guard, chain: str, expressions: list[Json]) -> Json:
    return {"add": {"rule": {"family": "inet", "table": guard.table, "chain": chain, "expr": expressions}}}


# --- what needs no protection ---------------------------------------------------------------------


def _outbound_exemptions(guard: Guard) -> list[list[Json]]:
    return [
        [_equals(_meta("oifname"), guard.tunnel_device)],
        [_equals(_meta("oifname"), "lo")],
        [_equals(_meta("mark"), guard.mark)],
        *_link_icmpv6(),
    ]


def _input_exemptions(guard: Guard) -> list[list[Json]]:
    ports = {"set": list(guard.udp_ports)}
    return [
        [_equals(_meta("iifname"), guard.tunnel_device)],
        [_equals(_meta("iifname"), "lo")],
        *_ipsec(),
        [_equals(_payload("udp", "dport"), ports)],
        *_link_icmpv6(),
        # ICMP errors about what we sent ourselves teach the path MTU of the outer path (RFC 4301 §8.2.1). The
        # offending packet is quoted after 8 octets: its header length, its protocol, its source port.
        [_icmp_error(_ICMP), _equals(_th(136, 8), {"set": list(_IPSEC_PROTOCOLS)})],
        [
            _icmp_error(_ICMP),
            _equals(_th(64, 8), 0x45),
            _equals(_th(136, 8), 17),
            _equals(_th(224, 16), ports),
        ],
        [_icmp_error(_ICMPV6), _equals(_th(112, 8), {"set": list(_IPSEC_PROTOCOLS)})],
        [_icmp_error(_ICMPV6), _equals(_th(112, 8), 17), _equals(_th(384, 16), ports)],
    ]


def _forward_exemptions(guard: Guard) -> list[list[Json]]:
    return [
        [_equals(_meta("iifname"), guard.tunnel_device)],
        # On its way into the tunnel: with selectors as wide as 0.0.0.0/0 both directions match.
        [_equals(_meta("oifname"), guard.tunnel_device)],
    ]


def _mark_arrivals(guard: Guard) -> list[Json]:
    name = "prerouting"
    base = _named(guard, name) | {
        "type": "filter",
        "hook": name,
        "prio": _AFTER_DESTINATION_NAT,
        "policy": "accept",
    }
    for_us = _equals({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    mark = {"mangle": {"key": _meta("mark"), "value": guard.arrival_mark}}
    ours = (*_ipsec(), [_equals(_payload("udp", "dport"), {"set": list(guard.udp_ports)})])
    return [
        {"add": {"chain": base}},
        {"flush": {"chain": _named(guard, name)}},
        *(_rule(guard, name, [*matches, for_us, mark]) for matches in ours),
    ]


def _ipsec() -> list[list[Json]]:
    """Match ESP and AH.

    For nftables AH of IPv6 is an extension header, so that `meta l4proto` names what is behind it. It is
    found as the first header, or behind one other: a Fragment header, or one that each hop must see.
    """
    next_header, one_further = _payload("ip6", "nexthdr"), _nh(320, 8)
    before = {"set": [*_BEFORE_NEXT_LAYER, _FRAGMENT_HEADER]}
    return [
        [_equals(_meta("l4proto"), {"set": list(_IPSEC_PROTOCOLS)})],
        [_equals(next_header, _AH)],
        [_equals(next_header, before), _equals(one_further, _AH)],
    ]


def _link_icmpv6() -> list[list[Json]]:
    icmp_type, hop_limit = _payload("icmpv6", "type"), _payload("ip6", "hoplimit")
    multicast = {"prefix": {"addr": "ff00::", "len": 8}}
    return [
        [
            _equals(icmp_type, {"set": list(_NEIGHBOUR_DISCOVERY)}),
            _equals(hop_limit, _NEIGHBOUR_DISCOVERY_HOP_LIMIT),
        ],
        [
            _equals(icmp_type, {"set": list(_LISTENER_DISCOVERY)}),
            _equals(hop_limit, _LISTENER_DISCOVERY_HOP_LIMIT),
            _equals(_payload("ip6", "daddr"), multicast),
        ],
    ]


def _icmp_error(protocol: int) -> Json:
    if protocol == _ICMP:
        return _equals(_payload("icmp", "type"), {"set": [3, 11, 12]})
    return _equals(_payload("icmpv6", "type"), {"set": [1, 2, 3, 4]})


# --- the SPD --------------------------------------------------------------------------------------


def _policy_rules(policy: Policy, *, is_inbound: bool) -> Iterable[list[Json]]:
    verdict = _verdict(policy.action, is_inbound=is_inbound)
    for local in policy.local_ts:
        for remote in policy.remote_ts:
            if local.start.version != remote.start.version or not _protocols_meet(local, remote):
                continue
            source, destination = (remote, local) if is_inbound else (local, remote)
            matches = _addresses(source, "saddr") + _addresses(destination, "daddr")
            if not matches:
                matches.append(_equals(_meta("nfproto"), "ipv4" if source.start.version == 4 else "ipv6"))
            protocol = local.protocol or remote.protocol
            if protocol and source.version == 6 and policy.action is not Action.BYPASS:
                yield [*matches, _later_fragment(6), _hidden_protocol(), *verdict]
            if protocol:
                matches.append(_equals(_meta("l4proto"), protocol))
            ports = _ports(protocol, source, destination)
            if ports is not None:
                yield [*matches, *ports, *verdict]
            if not is_inbound and ports == []:
                yield [*_icmp_about(local, remote, protocol), *verdict]
            elif not is_inbound and policy.action is not Action.BYPASS:
                yield [*_icmp_about(local, remote, ANY_PROTOCOL), *verdict]
            if ports != [] and policy.action is not Action.BYPASS:
                # Only the first fragment has ports: the others need protection if any packet may.
                yield [*matches, _later_fragment(source.start.version), *verdict]


def _icmp_about(local: TrafficSelector, remote: TrafficSelector, protocol: int) -> list[Json]:
    """Match ICMP errors, of whatever source, that quote what came out of the tunnel.

    A router answers from the address it has towards the sender, which the selectors need not hold; the packet
    it quotes was protected on its way here, and must not leave in clear.
    """
    is_v4 = local.version == 4
    matches = [*_addresses(remote, "daddr"), _icmp_error(_ICMP if is_v4 else _ICMPV6)]
    if local.prefixes()[0].prefixlen:
        quoted_destination = _th(192, 32) if is_v4 else _th(256, 128)
        # Numbers of 128 bits do not fit JSON; nft reads them as text.
        right = hex(int(local.start))
        matches.append(
            _equals(quoted_destination, right if local.is_host else {"range": [right, hex(int(local.end))]})
        )
    if protocol:
        matches.append(_equals(_th(136, 8) if is_v4 else _th(112, 8), protocol))
    return matches


def _verdict(action: Action, *, is_inbound: bool) -> list[Json]:
    if action is Action.BYPASS:
        return [{"return": None}]
    if action is Action.DISCARD:
        return [{"counter": DISCARDED}, {"drop": None}]
    return [{"counter": CLEAR_INBOUND if is_inbound else CLEAR_OUTBOUND}, {"drop": None}]


def _protocols_meet(local: TrafficSelector, remote: TrafficSelector) -> bool:
    return ANY_PROTOCOL in (local.protocol, remote.protocol) or local.protocol == remote.protocol


def _addresses(selector: TrafficSelector, field: str) -> list[Json]:
    prefixes = selector.prefixes()
    if prefixes[0].prefixlen == 0:
        return []
    right: str | Json = {"range": [str(selector.start), str(selector.end)]}
    if selector.is_host:
        right = str(selector.start)
    elif len(prefixes) == 1:
        right = {"prefix": {"addr": str(prefixes[0].network_address), "len": prefixes[0].prefixlen}}
    return [_equals(_payload("ip" if selector.version == 4 else "ip6", field), right)]


def _ports(protocol: int, source: TrafficSelector, destination: TrafficSelector) -> list[Json] | None:
    """Return the matches on ports; none needed is an empty list, none possible (OPAQUE) is `None`."""
    matches: list[Json] = []
    for selector, field in ((source, "sport"), (destination, "dport")):
        if selector.has_any_port:
            continue
        if selector.is_opaque:
            return None
        first, last = selector.start_port, selector.end_port
        left = _payload("th", field)
        if protocol in (_ICMP, _ICMPV6):
            left = _th(0, 16)
        elif protocol == _MOBILITY:
            # The type alone is the high octet of the selector (RFC 4301 §4.4.1.1).
            left, first, last = _th(16, 8), first >> 8, last >> 8
        matches.append(_equals(left, first if first == last else {"range": [first, last]}))
    return matches


def _later_fragment(version: int) -> Json:
    if version == 4:
        offset: Json = {"&": [_payload("ip", "frag-off"), 0x1FFF]}
    else:
        offset = {"exthdr": {"name": "frag", "field": "frag-off"}}
    return {"match": {"op": "!=", "left": offset, "right": 0}}


def _hidden_protocol() -> Json:
    """Match fragments that do not say which protocol they belong to: only the first one does."""
    return _equals({"exthdr": {"name": "frag", "field": "nexthdr"}}, {"set": list(_BEFORE_NEXT_LAYER)})


def _equals(left: Json, right: object) -> Json:
    return {"match": {"op": "==", "left": left, "right": right}}


def _meta(key: str) -> Json:
    return {"meta": {"key": key}}


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _nh(offset_bits: int, length_bits: int) -> Json:
    return {"payload": {"base": "nh", "offset": offset_bits, "len": length_bits}}


def _th(offset_bits: int, length_bits: int) -> Json:
    return {"payload": {"base": "th", "offset": offset_bits, "len": length_bits}}
