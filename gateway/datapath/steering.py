"""How protected traffic finds the tunnel device, and nothing else does.

Policy rules carry the selectors, one rule for each pair of a local and a remote prefix, with protocol and
ports where a rule can say them; so traffic of other sources, or to other ports, is never touched. They lead
into a table of ours, which knows one route per remote prefix into the tunnel device and, for when that is
gone, the same prefix as unreachable:

    pref B       from all fwmark MARK, CLEAR   goto END    what we send ourselves, protected or not; and,
                                                           for the reverse path filter, ESP that came in
    pref B       from all iif TUN              goto END    what we have just decrypted
    pref B       from all to fe80::/10         goto END    stays on its link
    pref B+1...  from LOCAL to REMOTE          lookup T    PROTECT, in the order of the SPD
                 from LOCAL to REMOTE          goto END    BYPASS
    pref END     nop
    table T      REMOTE dev TUN src HINT
                 unreachable REMOTE metric max

A packet of this machine that has no source address yet cannot match LOCAL. It gets rules of its own where one
of our addresses is inside LOCAL: IPv4 by `from 0.0.0.0/32`, IPv6 by a rule that looks at the source which the
kernel would choose; the hint of the route then makes that address the source. Selectors that contain the
peer's own address, or everything, need no more than the mark.

DISCARD needs no steering: the guard (`gateway.host.nftables`) drops it. Where a rule cannot say what a
selector says (ICMP types, OPAQUE ports) it is wider, and the forwarder sends on what was not meant.

The alternative, one wide rule and re-injection of everything else from user space, was not taken: it makes
foreign traffic depend on this process.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.host.network import IpNetwork, Route, Rule, RuleAction
from gateway.ipsec.mark import Mark
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import TrafficSelector

MAX_RULES: Final = 2000
"""The kernel walks the rules one by one for each routing decision."""
PREFERENCE_SPAN: Final = MAX_RULES + 1
"""From the first rule's preference to that of the last."""

TUNNEL_METRIC: Final = 100
UNREACHABLE_METRIC: Final = 4278198272
"""As high as the kernel's own unreachable default of IPv6."""

_PROTOCOLS_WITH_PORTS: Final = frozenset({6, 17, 33, 132})
"""Those whose ports the kernel looks at in a rule."""
_UNSPECIFIED_SOURCE: Final = IPv4Network("0.0.0.0/32")
_LINK_LOCAL_V6: Final = IPv6Network("fe80::/10")


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringOptions:
    """Numbers that must not collide with another user of policy routing."""

    table: int
    first_preference: int
    marks: tuple[int, ...]
    """Of everything we send ourselves."""
    tunnel_device: str

    @property
    def last_preference(self) -> int:
        """Return the preference of the rule at which the others' rules go on."""
        return self.first_preference + PREFERENCE_SPAN


def frame_rules(options: SteeringOptions, versions: Iterable[int]) -> Iterator[Rule]:
    """Return the rules that are there whatever the SPD says."""
    first, last = options.first_preference, options.last_preference
    for version in versions:
        yield Rule(version=version, priority=last, action=RuleAction.NOP)
        for mark in options.marks:
            yield Rule(version=version, priority=first, action=RuleAction.GOTO, goto=last, mark=mark)
        yield Rule(
            version=version,
            priority=first,
            action=RuleAction.GOTO,
            goto=last,
            input_link=options.tunnel_device,
        )
        if version == 6:
            yield Rule(
                version=version,
                priority=first,
                action=RuleAction.GOTO,
                goto=last,
                destination=_LINK_LOCAL_V6,
            )


def policy_rules(
    policies: Sequence[Policy], options: SteeringOptions, local_addresses: Iterable[IpAddress]
) -> tuple[Rule, ...]:
    """Return the rules of an ordered SPD.

    Raises:
        DatapathError: They are too many.
    """
    addresses = tuple(local_addresses)
    rules: list[Rule] = []
    for policy in policies:
        if policy.action is Action.DISCARD:
            continue
        for local, remote in pairs(policy):
            for rule in _pair_rules(policy, local, remote, options, addresses):
                if len(rules) >= MAX_RULES - 1:
                    raise DatapathError(
                        ErrorReason.TABLE_FULL, f"the selectors of the SPD need more than {MAX_RULES} rules"
                    )
                rules.append(replace(rule, priority=options.first_preference + 1 + len(rules)))
    return tuple(rules)


def policy_routes(
    policies: Sequence[Policy],
    options: SteeringOptions,
    *,
    link: int,
    hints: dict[IpNetwork, IpAddress],
) -> tuple[Route, ...]:
    """Return the routes of an SPD: each remote prefix into the tunnel device, and unreachable without it."""
    routes: dict[tuple[IpNetwork, bool], Route] = {}
    for prefix in remote_prefixes(policies):
        routes[prefix, True] = Route(
            destination=prefix,
            table=options.table,
            metric=TUNNEL_METRIC,
            link=link,
            source_hint=hints.get(prefix),
        )
        routes[prefix, False] = Route(destination=prefix, table=options.table, metric=UNREACHABLE_METRIC)
    return tuple(routes.values())


def remote_prefixes(policies: Sequence[Policy]) -> tuple[IpNetwork, ...]:
    """Return the remote prefixes of every PROTECT policy, each once."""
    return tuple(locals_by_remote_prefix(policies))


def locals_by_remote_prefix(policies: Sequence[Policy]) -> dict[IpNetwork, list[TrafficSelector]]:
    """Return each remote prefix of PROTECT policies with its local selectors, in the order of the SPD."""
    found: dict[IpNetwork, list[TrafficSelector]] = {}
    for policy in policies:
        if policy.action is Action.PROTECT:
            for local, remote in pairs(policy):
                for prefix in remote.prefixes():
                    found.setdefault(prefix, []).append(local)
    return found


def check_policy(policy: Policy) -> None:
    """Check that an SPD entry matches something.

    Raises:
        DatapathError: It makes no sense here.
    """
    if not policy.name:
        raise DatapathError(ErrorReason.POLICY_CONFLICT, "a policy needs a name")
    check_no_marks(policy.mark_in, policy.mark_out)
    if not any(pairs(policy)):
        raise DatapathError(
            ErrorReason.ADDRESS_FAMILY,
            "no local and remote selector of one family and protocol: this policy matches no packet",
        )


def check_no_marks(*marks: Mark | None) -> None:
    """Check that nothing depends on marks of packets, which are seen in the kernel only.

    Raises:
        DatapathError: MODE_UNSUPPORTED: something does.
    """
    for mark in marks:
        if mark is not None:
            raise DatapathError(
                ErrorReason.MODE_UNSUPPORTED,
                f"mark {mark}: packets are told by their mark in the kernel only (placement kernel)",
            )


def pairs(policy: Policy) -> Iterator[tuple[TrafficSelector, TrafficSelector]]:
    """Return each pair of a local and a remote selector that some packet can match."""
    for local in policy.local_ts:
        for remote in policy.remote_ts:
            protocols = {local.protocol, remote.protocol} - {0}
            if local.version == remote.version and len(protocols) <= 1:
                yield local, remote


def _pair_rules(
    policy: Policy,
    local: TrafficSelector,
    remote: TrafficSelector,
    options: SteeringOptions,
    addresses: Sequence[IpAddress],
) -> Iterator[Rule]:
    """Return the rules of one pair, their preference not yet set."""
    is_bypass = policy.action is Action.BYPASS
    protocol = local.protocol or remote.protocol
    has_ports = protocol in _PROTOCOLS_WITH_PORTS and not (local.is_opaque or remote.is_opaque)
    if is_bypass and not has_ports and not (local.has_any_port and remote.has_any_port):
        return  # a rule would be wider than the selectors; the forwarder knows better
    for source in local.prefixes():
        holds_local = any(address in source for address in addresses if address.version == source.version)
        for destination in remote.prefixes():
            rule = Rule(
                version=source.version,
                priority=0,
                action=RuleAction.GOTO if is_bypass else RuleAction.TABLE,
                table=0 if is_bypass else options.table,
                goto=options.last_preference if is_bypass else 0,
                source=source if source.prefixlen else None,
                destination=destination if destination.prefixlen else None,
                ip_protocol=protocol,
                source_ports=_rule_ports(local) if has_ports else None,
                destination_ports=_rule_ports(remote) if has_ports else None,
                finds_source=bool(holds_local and source.version == 6 and source.prefixlen and not is_bypass),
            )
            yield rule
            if holds_local and source.version == 4 and source.prefixlen:
                yield replace(rule, source=_UNSPECIFIED_SOURCE)


def _rule_ports(selector: TrafficSelector) -> tuple[int, int] | None:
    """Return the ports as a rule can say them: the kernel takes 1 to 65534 as the ends of a range."""
    first, last = max(selector.start_port, 1), min(selector.end_port, 65534)
    return None if selector.has_any_port or first > last else (first, last)
