"""SPD entries as espd wants them: which SA carries what, as tunnels. Pure.

An entry of ours names a (connection, child), which the newest outbound SA that permits a packet serves. One
of espd's names a tunnel, which has an SA or none. Where the newest SA permits all that the entry matches,
that is one entry and one tunnel, and a rekey changes no more than the tunnel's SA. An SA that was narrowed
(RFC 7296 §2.9) gets an entry and a tunnel of its own before it.

espd has room for so many selectors in an entry; longer lists are several entries in a row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.datapath.engine.records import MAX_SELECTORS
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

Selectors = tuple[TrafficSelector, ...]
_HALF: Final = MAX_SELECTORS // 2


class Carrier(NamedTuple):
    """One outbound SA."""

    cookie: int
    local_ts: Selectors
    remote_ts: Selectors


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEntry:
    """One SPD entry of espd."""

    policy: str
    """Name of the entry of ours."""
    action: Action
    acquire: bool
    tunnel: str
    """Of PROTECT: the key of its tunnel; empty otherwise."""
    local_ts: Selectors
    remote_ts: Selectors
    interface_id: int = 0
    """Of the tunnel interface whose traffic it is about; 0: of all others."""


class Wanted(NamedTuple):
    """What espd shall have."""

    entries: tuple[EngineEntry, ...]
    """In the order in which they are searched."""
    tunnels: dict[str, int]
    """The SA of each tunnel; 0: none."""


def compile_spd(policies: Iterable[Policy], outbound: Callable[[Policy], Sequence[Carrier]]) -> Wanted:
    """Return what an ordered SPD is in espd.

    Args:
        policies: In order.
        outbound: Returns the outbound SAs that serve an entry, the newest first.
    """
    entries: list[EngineEntry] = []
    tunnels: dict[str, int] = {}
    for policy in policies:
        if policy.action is not Action.PROTECT:
            entries += _entries(policy, "", policy.local_ts, policy.remote_ts)
            continue
        base = 0
        for carrier in outbound(policy):
            if _permits_all(carrier, policy):
                base = carrier.cookie
                break
            local_ts = _meet(policy.local_ts, carrier.local_ts)
            remote_ts = _meet(policy.remote_ts, carrier.remote_ts)
            key = f"{policy.name} {' '.join(map(str, local_ts))} === {' '.join(map(str, remote_ts))}"
            if local_ts and remote_ts and key not in tunnels:
                tunnels[key] = carrier.cookie
                entries += _entries(policy, key, local_ts, remote_ts)
        tunnels[policy.name] = base
        entries += _entries(policy, policy.name, policy.local_ts, policy.remote_ts)
    return Wanted(tuple(entries), tunnels)


def _permits_all(carrier: Carrier, policy: Policy) -> bool:
    """Say whether an SA permits everything that an entry matches."""
    sides = ((policy.local_ts, carrier.local_ts), (policy.remote_ts, carrier.remote_ts))
    return all(any(ts.is_subset(other) for other in theirs) for ours, theirs in sides for ts in ours)


def _meet(ours: Selectors, theirs: Selectors) -> Selectors:
    found = (one.intersect(other) for one in ours for other in theirs)
    return tuple(dict.fromkeys(common for common in found if common is not None))


def _entries(policy: Policy, tunnel: str, local_ts: Selectors, remote_ts: Selectors) -> Iterator[EngineEntry]:
    for local, remote in _portions(local_ts, remote_ts):
        yield EngineEntry(
            policy=policy.name,
            action=policy.action,
            acquire=policy.acquire,
            tunnel=tunnel,
            local_ts=local,
            remote_ts=remote,
            interface_id=policy.interface_id,
        )


def _portions(local_ts: Selectors, remote_ts: Selectors) -> Iterator[tuple[Selectors, Selectors]]:
    """Return lists that together match the same, each pair small enough for one entry."""
    if len(local_ts) + len(remote_ts) <= MAX_SELECTORS:
        yield local_ts, remote_ts
        return
    for i in range(0, len(local_ts), _HALF):
        for j in range(0, len(remote_ts), _HALF):
            yield local_ts[i : i + _HALF], remote_ts[j : j + _HALF]
