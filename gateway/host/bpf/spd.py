"""Compile the ordered SPD into the maps that XDP programs search (`ebpf/include/gw_spd.h`), and publish it.

The first entry that matches decides (RFC 4301 §4.4.1), but a longest-prefix match finds the narrowest. So a
remote prefix gets, as its class, all entries whose remote prefix holds it; and every local prefix among those
gets, in the SPD's order, all of them whose local prefix holds it: up to the first that asks for nothing more.

Publishing never shows a mixture: leaves of new classes are written first, then the remote prefixes are led to
them one by one. What the SPD before had is only removed at the next publication, when no packet can still be
between the two stages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from gateway.host.bpf.abi import (
    POLICY_DEVICE_DROPS_CLEAR,
    SPD_LEAF_RULES,
    SPD_LOCAL4,
    SPD_LOCAL6,
    SPD_REMOTE4,
    SPD_REMOTE6,
    SPD_RULES,
    ClassPrefix4,
    ClassPrefix6,
    Prefix4,
    Prefix6,
    RemoteClass,
    SpdAction,
    SpdLeaf,
    SpdRule,
    View,
    Word,
)
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.maps import Map
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import ANY_PROTOCOL, MAX_PORT, TrafficSelector

IpNetwork = IPv4Network | IPv6Network

K = TypeVar("K")
V = TypeVar("V")

_ACTIONS: Final = {
    Action.PROTECT: SpdAction.PROTECT,
    Action.BYPASS: SpdAction.BYPASS,
    Action.DISCARD: SpdAction.DISCARD,
}
_CLASS_BITS: Final = 32
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_BATCH: Final = 4096


class SpdUnsupportedError(BpfError):
    """The SPD does not fit the maps; what was published before stays in force."""


@dataclass(frozen=True, slots=True)
class SpdTables:
    """A compiled SPD. Classes are counted from 0, rules from the start of `rules`."""

    remotes: Mapping[IpNetwork, int]
    leaves: Mapping[tuple[int, IpNetwork], SpdLeaf]
    rules: tuple[SpdRule, ...]


class _Entry(NamedTuple):
    """One pair of prefixes of one policy."""

    order: int
    local: IpNetwork
    remote: IpNetwork
    rule: SpdRule
    shape: int
    """The same for entries that differ in their remote prefix only."""

    @property
    def takes_everything(self) -> bool:
        """Whether no packet between these prefixes gets past it."""
        ports = (self.rule.local_first, self.rule.local_last, self.rule.remote_first, self.rule.remote_last)
        return self.rule.protocol == ANY_PROTOCOL and ports == (0, MAX_PORT, 0, MAX_PORT)


def compile_spd(
    policies: Iterable[Policy],
    *,
    offloaded: Mapping[str, int] = _NOTHING,
    device_drops_clear: frozenset[str] = frozenset(),
) -> SpdTables:
    """Compile an SPD. Remote prefixes that have the same rules share a class.

    Args:
        policies: All of them; they are put in order here.
        offloaded: By the name of a policy: the number of the SA by which a NIC protects what it matches.
        device_drops_clear: Names of those that an offloading NIC enforces for what comes in.

    Raises:
        SpdUnsupportedError: More rules hold for one pair of prefixes than a leaf can have.
    """
    ordered = sorted(policies, key=lambda policy: (policy.priority, policy.name))
    entries: list[_Entry] = []
    shapes: dict[tuple[IpNetwork, SpdRule], int] = {}
    for policy in ordered:
        flags = POLICY_DEVICE_DROPS_CLEAR if policy.name in device_drops_clear else 0
        entries += _entries(policy, flags, offloaded.get(policy.name, 0), len(entries), shapes)
    remotes: dict[IpNetwork, int] = {}
    classes: dict[tuple[int, ...], int] = {}
    leaves: dict[tuple[int, IpNetwork], SpdLeaf] = {}
    rules = _RulePool()
    by_remote = _index(entries, [entry.remote for entry in entries])
    for remote in by_remote.networks:
        covering = by_remote.covering(remote)
        key = tuple(entry.shape for entry in covering)
        if key not in classes:
            classes[key] = len(classes)
            by_local = _index(covering, [entry.local for entry in covering])
            everything = _everything(remote.version)
            for local in {everything: None} | by_local.networks:
                leaves[classes[key], local] = _leaf(by_local.covering(local), rules, local, remote)
        remotes[remote] = classes[key]
    return SpdTables(remotes, leaves, tuple(rules.rules))


def _entries(
    policy: Policy,
    flags: int,
    offloaded_sa: int,
    first_order: int,
    shapes: dict[tuple[IpNetwork, SpdRule], int],
) -> list[_Entry]:
    found: list[_Entry] = []
    for local in policy.local_ts:
        for remote in policy.remote_ts:
            protocols = {local.protocol, remote.protocol} - {ANY_PROTOCOL}
            if local.version != remote.version or len(protocols) > 1:
                continue
            rule = SpdRule(
                local_first=local.start_port,
                local_last=local.end_port,
                remote_first=remote.start_port,
                remote_last=remote.end_port,
                protocol=protocols.pop() if protocols else ANY_PROTOCOL,
                action=_ACTIONS[policy.action],
                flags=flags,
                offloaded_sa=offloaded_sa,
            )
            found += [
                _Entry(
                    first_order + len(found) + place,
                    local_prefix,
                    remote_prefix,
                    rule,
                    shapes.setdefault((local_prefix, rule), len(shapes)),
                )
                for place, (local_prefix, remote_prefix) in enumerate(_pairs(local, remote))
            ]
    return found


def _pairs(local: TrafficSelector, remote: TrafficSelector) -> list[tuple[IpNetwork, IpNetwork]]:
    return [(one, other) for one in local.prefixes() for other in remote.prefixes()]


def _everything(version: int) -> IpNetwork:
    return IPv4Network("0.0.0.0/0") if version == 4 else IPv6Network("::/0")


class _Index:
    """Entries by a prefix, to find those whose prefix holds another without looking at all."""

    def __init__(self) -> None:
        #: In the order of the entries; a dict for its order.
        self.networks: dict[IpNetwork, None] = {}
        self._entries: dict[tuple[int, int, int], list[_Entry]] = {}
        self._lengths: set[tuple[int, int]] = set()

    def add(self, network: IpNetwork, entry: _Entry) -> None:
        self.networks[network] = None
        self._lengths.add((network.version, network.prefixlen))
        key = (network.version, network.prefixlen, int(network.network_address))
        self._entries.setdefault(key, []).append(entry)

    def covering(self, network: IpNetwork) -> list[_Entry]:
        """Return, in order, the entries whose prefix holds all of `network`."""
        number = int(network.network_address)
        found: list[_Entry] = []
        for version, length in self._lengths:
            if version == network.version and length <= network.prefixlen:
                hidden = network.max_prefixlen - length
                found += self._entries.get((version, length, number >> hidden << hidden), ())
        return sorted(found, key=lambda entry: entry.order)


def _index(entries: Sequence[_Entry], networks: Sequence[IpNetwork]) -> _Index:
    index = _Index()
    for entry, network in zip(entries, networks, strict=True):
        index.add(network, entry)
    return index


class _RulePool:
    """Rules of all leaves; leaves with the same rules share them."""

    def __init__(self) -> None:
        self.rules: list[SpdRule] = []
        self._places: dict[tuple[SpdRule, ...], int] = {}

    def place(self, rules: tuple[SpdRule, ...]) -> int:
        """Return where these rules begin."""
        if rules not in self._places:
            self._places[rules] = len(self.rules)
            self.rules += rules
        return self._places[rules]


def _leaf(entries: Sequence[_Entry], pool: _RulePool, local: IpNetwork, remote: IpNetwork) -> SpdLeaf:
    rules: list[SpdRule] = []
    last: SpdRule | None = None
    for entry in entries:
        if entry.takes_everything:
            last = entry.rule
            break
        rules.append(entry.rule)
    if len(rules) > SPD_LEAF_RULES:
        raise SpdUnsupportedError(
            f"{len(rules)} selectors with protocols or ports hold between {local} and {remote}: "
            f"XDP looks at {SPD_LEAF_RULES} at most"
        )
    first_rule = pool.place(tuple(rules)) if rules else 0
    if last is None:
        return SpdLeaf(first_rule=first_rule, rule_count=len(rules))
    return SpdLeaf(
        first_rule=first_rule,
        rule_count=len(rules),
        action=last.action,
        flags=last.flags,
        offloaded_sa=last.offloaded_sa,
    )


class SpdMaps:
    """The SPD's maps in the kernel: ours alone to write.

    What a former life left in pinned maps stays in force until the first publication.

    Args:
        maps: Those of an object that has the SPD's.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        # `Any`: the keys of the two families are of two types.
        self._remotes: dict[int, View[Any, RemoteClass]] = {
            4: SPD_REMOTE4.of(maps),
            6: SPD_REMOTE6.of(maps),
        }
        self._leaves: dict[int, View[Any, SpdLeaf]] = {4: SPD_LOCAL4.of(maps), 6: SPD_LOCAL6.of(maps)}
        self._rules = SPD_RULES.of(maps)
        self._half = maps[SPD_RULES.name].spec.max_entries // 2

    def publish(self, tables: SpdTables) -> None:
        """Put a compiled SPD in force.

        Raises:
            SpdUnsupportedError: It is too large; the SPD of before stays in force.
            KernelRefusedError: A map is full. The SPD of before stays in force, or, where some prefixes have
                been led to the new one already, each prefix has the old or the new one: publish again.
        """
        used = self._remove_stale()
        if len(tables.rules) > self._half:
            raise SpdUnsupportedError(f"the SPD has {len(tables.rules)} rules: XDP has room for {self._half}")
        leaves_in_force = [leaf for view in self._leaves.values() for _, leaf in view.items()]
        is_low_half_used = any(leaf.rule_count and leaf.first_rule < self._half for leaf in leaves_in_force)
        base = self._half if is_low_half_used else 0
        first_class = max(used, default=-1) + 1
        _set_in_batches(self._rules, {Word(base + at): rule for at, rule in enumerate(tables.rules)})
        self._write_leaves(tables, base, first_class)
        for version, view in self._remotes.items():
            _set_in_batches(
                view,
                {
                    _prefix(network): RemoteClass(first_class + remote_class)
                    for network, remote_class in tables.remotes.items()
                    if network.version == version
                },
            )
        wanted = {_prefix(network) for network in tables.remotes}
        for view in self._remotes.values():
            view.delete_many([key for key, _ in view.items() if key not in wanted])

    def _write_leaves(self, tables: SpdTables, base: int, first_class: int) -> None:
        pending: dict[int, dict[object, SpdLeaf]] = {4: {}, 6: {}}
        for (remote_class, network), leaf in tables.leaves.items():
            moved = replace(leaf, first_rule=base + leaf.first_rule if leaf.rule_count else 0)
            pending[network.version][_class_prefix(first_class + remote_class, network)] = moved
        for version, entries in pending.items():
            _set_in_batches(self._leaves[version], entries)

    def _remove_stale(self) -> set[int]:
        """Remove the leaves that no remote prefix leads to any more; return the classes in use."""
        used = {found.remote_class for view in self._remotes.values() for _, found in view.items()}
        for view in self._leaves.values():
            view.delete_many([key for key, _ in view.items() if key.remote_class not in used])
        return used


def _set_in_batches(view: View[K, V], entries: Mapping[K, V]) -> None:
    items = list(entries.items())
    for start in range(0, len(items), _BATCH):
        view.set_many(dict(items[start : start + _BATCH]))


def _prefix(network: IpNetwork) -> Prefix4 | Prefix6:
    if isinstance(network, IPv4Network):
        return Prefix4(prefix_bits=network.prefixlen, address=network.network_address)
    return Prefix6(prefix_bits=network.prefixlen, address=network.network_address)


def _class_prefix(remote_class: int, network: IpNetwork) -> ClassPrefix4 | ClassPrefix6:
    bits = _CLASS_BITS + network.prefixlen
    if isinstance(network, IPv4Network):
        return ClassPrefix4(prefix_bits=bits, remote_class=remote_class, address=network.network_address)
    return ClassPrefix6(prefix_bits=bits, remote_class=remote_class, address=network.network_address)
