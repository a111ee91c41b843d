"""Compile the ordered SPD into the maps that XDP programs search (`ebpf/include/gw_spd.h`), and publish it.

The first entry that matches decides (RFC 4301 §4.4.1), but a longest-prefix match finds the narrowest. So a
remote prefix gets, as its class, all entries whose remote prefix holds it; and every local prefix among those
gets, in the SPD's order, all of them whose local prefix holds it: up to the first that asks for nothing more.

An SPD is published as a generation of its own, beside the one in force: its rules, leaves and remote prefixes
are written, and one store of a word puts all of it in force. What the SPD before had is only removed at the
next publication, after every program that may have begun with it has ended.
"""

import mmap
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from gateway.host.bpf.abi import (
    SPD_GENERATION,
    SPD_LEAF_RULES,
    SPD_LOCAL4,
    SPD_LOCAL6,
    SPD_REMOTE4,
    SPD_REMOTE6,
    SPD_RULES,
    NumberedPrefix4,
    NumberedPrefix6,
    RemoteClass,
    SpdAction,
    SpdLeaf,
    SpdRule,
    View,
    Word,
)
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.grace import wait_for_running_programs
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
_NUMBER_BITS: Final = 32
_HALF_OF_CLASSES: Final = 1 << 31
_MAX_GENERATION: Final = (1 << 32) - 1
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
    inbound: Mapping[str, int] = _NOTHING,
) -> SpdTables:
    """Compile an SPD. Remote prefixes that have the same rules share a class.

    Args:
        policies: All of them; they are put in order here.
        offloaded: By the name of a policy: the number of the SA by which a NIC protects what goes out.
        inbound: By the name of a policy: the number of the SA by which a NIC decrypts what comes in.

    Where more rules hold for one pair of prefixes than a leaf can have, the leaf has the first of them, and
    what none of those matches is undecided: a matter of the stack and the engine.
    """
    ordered = sorted(policies, key=lambda policy: (policy.priority, policy.name))
    entries: list[_Entry] = []
    shapes: dict[tuple[IpNetwork, SpdRule], int] = {}
    for policy in ordered:
        sas = offloaded.get(policy.name, 0), inbound.get(policy.name, 0)
        entries += _entries(policy, sas, len(entries), shapes)
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
                leaves[classes[key], local] = _leaf(by_local.covering(local), rules)
        remotes[remote] = classes[key]
    return SpdTables(remotes, leaves, tuple(rules.rules))


def _entries(
    policy: Policy,
    sas: tuple[int, int],
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
                offloaded_sa=sas[0],
                inbound_sa=sas[1],
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


def _leaf(entries: Sequence[_Entry], pool: _RulePool) -> SpdLeaf:
    rules: list[SpdRule] = []
    last = SpdLeaf()
    for entry in entries:
        rule = entry.rule
        if entry.takes_everything:
            last = SpdLeaf(action=rule.action, offloaded_sa=rule.offloaded_sa, inbound_sa=rule.inbound_sa)
            break
        if len(rules) == SPD_LEAF_RULES:
            last = SpdLeaf(action=SpdAction.UNDECIDED)
            break
        rules.append(rule)
    return replace(last, first_rule=pool.place(tuple(rules)) if rules else 0, rule_count=len(rules))


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
        self._generation = maps[SPD_GENERATION.name]
        self._half = maps[SPD_RULES.name].spec.max_entries // 2

    def publish(self, tables: SpdTables) -> None:
        """Put a compiled SPD in force, all of it at once.

        Blocks for about 20 ms, most of it for programs that may have begun with the SPD of before the one in
        force.

        Raises:
            SpdUnsupportedError: It has too many rules; the SPD of before stays in force.
            KernelRefusedError: A map is full; the SPD of before stays in force.
        """
        if len(tables.rules) > self._half:
            raise SpdUnsupportedError(f"the SPD has {len(tables.rules)} rules: XDP has room for {self._half}")
        current = _generation_of(self._generation)
        # A number that no other life used: what a CPU remembers of those is not to be taken for this one.
        new = _generation_after(current) if current else secrets.randbelow(_MAX_GENERATION) + 1
        base = self._half * (new % 2)
        first_class = _HALF_OF_CLASSES * (new % 2)
        wait_for_running_programs()
        self._remove_all_but(current)
        try:
            _set_in_batches(self._rules, {Word(base + at): rule for at, rule in enumerate(tables.rules)})
            self._write_leaves(tables, base, first_class)
            self._write_remotes(tables, new, first_class)
        except BpfError:
            self._remove_all_but(current)
            raise
        _put_in_force(self._generation, new)

    def _write_leaves(self, tables: SpdTables, base: int, first_class: int) -> None:
        pending: dict[int, dict[object, SpdLeaf]] = {4: {}, 6: {}}
        for (remote_class, network), leaf in tables.leaves.items():
            moved = replace(leaf, first_rule=base + leaf.first_rule) if leaf.rule_count else leaf
            pending[network.version][_numbered(first_class + remote_class, network)] = moved
        for version, entries in pending.items():
            _set_in_batches(self._leaves[version], entries)

    def _write_remotes(self, tables: SpdTables, generation: int, first_class: int) -> None:
        pending: dict[int, dict[object, RemoteClass]] = {4: {}, 6: {}}
        for network, remote_class in tables.remotes.items():
            pending[network.version][_numbered(generation, network)] = RemoteClass(first_class + remote_class)
        for version, entries in pending.items():
            _set_in_batches(self._remotes[version], entries)

    def _remove_all_but(self, generation: int) -> None:
        """Remove what is not of the SPD in force."""
        for remotes in self._remotes.values():
            remotes.delete_many([key for key, _ in remotes.items() if key.number != generation])
        in_use = generation % 2 if generation else None
        for leaves in self._leaves.values():
            leaves.delete_many(
                [key for key, _ in leaves.items() if (key.number >= _HALF_OF_CLASSES) != in_use]
            )


def _generation_of(number: Map) -> int:
    found = number.lookup(bytes(4))
    assert found is not None, "an array has all of its entries"
    return int.from_bytes(found, sys.byteorder)


def _put_in_force(number: Map, generation: int) -> None:
    """Store the generation as one word: a call to the kernel could copy it octet by octet."""
    with (
        mmap.mmap(number.fd, mmap.PAGESIZE) as memory,
        memoryview(memory) as octets,
        octets.cast("I") as words,
    ):
        words[0] = generation


def _generation_after(current: int) -> int:
    """Return the next: odd where this one is even, since each has the other half of rules and classes."""
    return 2 if current == _MAX_GENERATION else current + 1


def _set_in_batches(view: View[K, V], entries: Mapping[K, V]) -> None:
    items = list(entries.items())
    for start in range(0, len(items), _BATCH):
        view.set_many(dict(items[start : start + _BATCH]))


def _numbered(number: int, network: IpNetwork) -> NumberedPrefix4 | NumberedPrefix6:
    bits = _NUMBER_BITS + network.prefixlen
    if isinstance(network, IPv4Network):
        return NumberedPrefix4(prefix_bits=bits, number=number, address=network.network_address)
    return NumberedPrefix6(prefix_bits=bits, number=number, address=network.network_address)
