"""The SPD as XDP is to see it beside packet offload. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gateway.datapath.xfrm.sad import Held
from gateway.datapath.xfrm.selectors import common, meet
from gateway.datapath.xfrm.spd import Entry, Serves
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import SaId
from gateway.ipsec.selectors import TrafficSelector


@dataclass(slots=True)
class XdpSpd:
    """Policies in order, and by their names the SAs that NICs have for what goes out and what comes in."""

    policies: tuple[Policy, ...] = ()
    offloaded: dict[str, SaId] = field(default_factory=dict)
    inbound: dict[str, SaId] = field(default_factory=dict)


class _Part(NamedTuple):
    """What an SA carries of an entry."""

    held: Held
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]

    def holds(self, other: "_Part") -> bool:
        """Return whether all packets of another part are of this one."""
        local_ts = common(other.local_ts, self.local_ts)
        return local_ts == other.local_ts and common(other.remote_ts, self.remote_ts) == other.remote_ts


def policies_for_xdp(
    entries: Iterable[Entry],
    held_sas: Iterable[Held],
    forwarded: Collection[SaId],
    forwarded_in: Collection[SaId] = (),
) -> XdpSpd:
    """Return the SPD in order as XDP is to see it, and by which names of its policies SAs are meant.

    As in the kernel, what an SA was negotiated for comes before the rest of its entry, the newest first.
    PROTECT without an SA leaves a packet to the stack.

    What comes in is looked up in the same order. XDP cannot tell by which of several inbound SAs a packet
    came, so the newest that is for all of a part stands for them. One that no part is of yet, as while a
    Child is rekeyed, comes behind: in its place it would hide an SA that is still sent by.

    Args:
        entries: In order.
        held_sas: All of ours, the oldest first.
        forwarded: Those outbound ones that XDP may forward to.
        forwarded_in: Those inbound ones whose packets it may forward.
    """
    outbound: dict[Serves, list[Held]] = {}
    inbound: dict[Serves, list[Held]] = {}
    for held in held_sas:
        if not held.is_inbound:
            outbound.setdefault(held.serves, []).insert(0, held)
        elif held.sa.sa_id in forwarded_in:
            inbound.setdefault(held.serves, []).insert(0, held)
    found: list[Policy] = []
    made = XdpSpd()
    for entry in entries:
        policy = entry.policy
        if policy.interface_id:
            continue
        if policy.mark_out is not None:
            # Packets get marks behind XDP: only the stack can say which are meant.
            found.append(replace(policy, action=Action.PROTECT))
            continue
        if policy.action is Action.PROTECT:
            serves = policy.connection, policy.child
            decrypted = () if policy.mark_in is not None else tuple(_parts(policy, inbound.get(serves, ())))
            for part in _all_parts(tuple(_parts(policy, outbound.get(serves, ()))), decrypted):
                sa_id = part.held.sa.sa_id
                name = f"{policy.name} {sa_id}"
                found.append(replace(policy, name=name, local_ts=part.local_ts, remote_ts=part.remote_ts))
                if sa_id in forwarded:
                    made.offloaded[name] = sa_id
                newest = next((other for other in decrypted if other.holds(part)), None)
                if newest is not None:
                    made.inbound[name] = newest.held.sa.sa_id
        found.append(policy)
    # The place in this list is the order: priorities of several parts of one entry are the same.
    made.policies = tuple(replace(policy, priority=place) for place, policy in enumerate(found))
    return made


def _parts(policy: Policy, sas: Iterable[Held]) -> Iterator[_Part]:
    for held in sas:
        local_ts = common(held.sa.local_ts, policy.local_ts)
        remote_ts = common(held.sa.remote_ts, policy.remote_ts)
        if any(True for _ in meet(local_ts, remote_ts)):
            yield _Part(held, local_ts, remote_ts)


def _all_parts(outbound: Collection[_Part], inbound: Iterable[_Part]) -> Iterator[_Part]:
    yield from outbound
    for part in inbound:
        if not any(other.holds(part) for other in outbound):
            yield part


def numbered(names: Mapping[str, SaId], numbers: Mapping[SaId, int]) -> dict[str, int]:
    """Return the numbers of SAs by the names of policies."""
    return {name: numbers[sa_id] for name, sa_id in names.items()}
