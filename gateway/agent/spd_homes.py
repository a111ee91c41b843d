"""At which backend each SPD entry is in force, and which entries must stay together.

The SPD is an ordered list (RFC 4301 §4.4.1), but a backend knows only its own part of it. So entries whose
selectors overlap, directly or through others, are a group, and a group is at one backend. Pure bookkeeping.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

K = TypeVar("K")

#: (address family, first address, prefix length): the smallest prefix that a selector lies in.
_Prefix = tuple[int, int, int]
_BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class HomedPolicy:
    """An SPD entry and where it is in force."""

    policy: Policy
    generation: int
    home: str
    """Name of the backend."""


class SpdHomes:
    """Every SPD entry by name, with an index of what its remote selectors cover."""

    def __init__(self) -> None:
        self._entries: dict[str, HomedPolicy] = {}
        self._by_child: dict[tuple[str, str], dict[str, None]] = {}
        self._by_prefix: dict[_Prefix, dict[str, None]] = {}
        self._prefixes: list[_Prefix] = []
        self._lengths: dict[int, Counter[int]] = {4: Counter(), 6: Counter()}

    def get(self, name: str) -> HomedPolicy | None:
        """Return an entry, if it is there."""
        return self._entries.get(name)

    def all(self) -> tuple[HomedPolicy, ...]:
        """Return every entry."""
        return tuple(self._entries.values())

    def put(self, entry: HomedPolicy) -> None:
        """Add an entry, in place of any of the same name."""
        policy = entry.policy
        self.drop(policy.name)
        self._entries[policy.name] = entry
        if policy.action is Action.PROTECT:
            self._by_child.setdefault((policy.connection, policy.child), {})[policy.name] = None
        for prefix in _prefixes(policy.remote_ts):
            if prefix not in self._by_prefix:
                self._by_prefix[prefix] = {}
                insort(self._prefixes, prefix)
                self._lengths[prefix[0]][prefix[2]] += 1
            self._by_prefix[prefix][policy.name] = None

    def move(self, name: str, home: str) -> None:
        """Note that an entry is in force at another backend now."""
        self._entries[name] = replace(self._entries[name], home=home)

    def drop(self, name: str) -> None:
        """Forget an entry; one that is not there is no error."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        child = (entry.policy.connection, entry.policy.child)
        _discard(self._by_child, child, name)
        for prefix in _prefixes(entry.policy.remote_ts):
            _discard(self._by_prefix, prefix, name)
            if prefix not in self._by_prefix:
                del self._prefixes[bisect_left(self._prefixes, prefix)]
                self._lengths[prefix[0]][prefix[2]] -= 1

    def of_child(self, connection: str, child: str) -> tuple[HomedPolicy, ...]:
        """Return the PROTECT entries that the SAs of a (connection, child) serve."""
        return tuple(self._entries[name] for name in self._by_child.get((connection, child), ()))

    def group(self, policies: Iterable[Policy]) -> tuple[HomedPolicy, ...]:
        """Return the entries that must be at one backend with `policies`, themselves included."""
        found: dict[str, HomedPolicy] = {}
        pending = list(policies)
        while pending:
            for name in self._overlapping(pending.pop()):
                if name not in found:
                    found[name] = self._entries[name]
                    pending.append(found[name].policy)
        return tuple(found.values())

    def _overlapping(self, policy: Policy) -> Iterator[str]:
        """Yield the entries that match a packet that `policy` matches too."""
        seen: set[str] = set()
        for prefix in _prefixes(policy.remote_ts):
            for name in self._near(prefix):
                if name not in seen:
                    seen.add(name)
                    if _overlap(policy, self._entries[name].policy):
                        yield name

    def _near(self, prefix: _Prefix) -> Iterator[str]:
        """Yield the entries with a remote prefix around or inside this one."""
        family, first, length = prefix
        bits = _BITS[family]
        for shorter, count in self._lengths[family].items():
            if count and shorter < length:
                around = (family, first >> (bits - shorter) << (bits - shorter), shorter)
                yield from self._by_prefix.get(around, ())
        end = (family, first + (1 << (bits - length)), 0)
        start = bisect_left(self._prefixes, (family, first, length))
        for index in range(start, bisect_left(self._prefixes, end)):
            yield from self._by_prefix[self._prefixes[index]]


def _discard(index: dict[K, dict[str, None]], key: K, name: str) -> None:
    """Take a name out of an index of names, and a key without names with it."""
    names = index.get(key)
    if names is not None:
        names.pop(name, None)
        if not names:
            del index[key]


def _prefixes(selectors: Iterable[TrafficSelector]) -> frozenset[_Prefix]:
    """Return the smallest prefixes that selectors lie in, each once."""
    return frozenset(_covering(ts.version, int(ts.start), int(ts.end)) for ts in selectors)


def _covering(family: int, first: int, last: int) -> _Prefix:
    host_bits = (first ^ last).bit_length()
    return family, first >> host_bits << host_bits, _BITS[family] - host_bits


def _overlap(one: Policy, other: Policy) -> bool:
    """Say whether there is a packet that both match."""
    if one.interface_id != other.interface_id:
        return False
    return any(
        mine.intersect(theirs) is not None for mine, theirs in product(one.local_ts, other.local_ts)
    ) and any(mine.intersect(theirs) is not None for mine, theirs in product(one.remote_ts, other.remote_ts))
