"""Which of several IKE SAs or Child SAs for the same purpose should go: a pure decision both ends agree on.

Three situations leave two of a kind. Both ends initiated at once: then both keep the pair whose initiator
SPI is lower, and the initiator of the other one deletes it (the other end helps after a while, should
the peer be of another opinion). The peer restarted and did not say INITIAL_CONTACT, because it adopted
its SAs (docs/architecture): then the newest wins. Both ends made the same Child SA on one IKE SA at once:
the one with the lower SPI wins, and both may delete the other. Nothing is deleted before what stays
carries every Child SA of what goes, so no packet misses its SA.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from gateway.ike.events import ChildSaId, ChildSaInfo, IkeSaId, IkeSaInfo
from gateway.ike.v2.states import CARRYING_STATES, SERVING_STATES

#: IKE SAs that came up within this time of each other, one by each side, count as begun at once.
SIMULTANEOUS_S = 10.0

_SERVING = frozenset(state.value for state in SERVING_STATES)
_CARRYING = frozenset(state.value for state in CARRYING_STATES)


def is_carrying(child_sa: ChildSaInfo) -> bool:
    """Say whether a Child SA carries the traffic of its policy."""
    return child_sa.state in _CARRYING


def is_serving(ike_sa: IkeSaInfo) -> bool:
    """Say whether an IKE SA is authenticated and neither replaced nor on its way out."""
    return ike_sa.state in _SERVING


def superfluous_ike_sas(
    ike_sas: Sequence[IkeSaInfo], child_sas: Sequence[ChildSaInfo], now: float
) -> tuple[IkeSaId, ...]:
    """Return the IKE SAs that this side should delete."""
    children: dict[IkeSaId, set[str]] = defaultdict(set)
    for child_sa in child_sas:
        if is_carrying(child_sa):
            children[child_sa.ike_sa_id].add(child_sa.child)
    groups: dict[object, list[IkeSaInfo]] = defaultdict(list)
    for ike_sa in ike_sas:
        if is_serving(ike_sa) and ike_sa.established_at is not None:
            groups[ike_sa.connection, ike_sa.local_id, ike_sa.remote_id].append(ike_sa)
    doomed: set[IkeSaId] = set()
    for group in groups.values():
        for one, other in combinations(group, 2):
            loser, keeper, ours_to_delete = _judge(one, other, now)
            if ours_to_delete and children[loser.ike_sa_id] <= children[keeper.ike_sa_id]:
                doomed.add(loser.ike_sa_id)
    return tuple(sorted(doomed))


def _judge(one: IkeSaInfo, other: IkeSaInfo, now: float) -> tuple[IkeSaInfo, IkeSaInfo, bool]:
    """Return (loser, keeper, whether this side should delete the loser now)."""
    older, newer = sorted((one, other), key=lambda sa: (sa.established_at or 0.0, sa.ike_sa_id))
    older_at, newer_at = older.established_at or 0.0, newer.established_at or 0.0
    if older.is_initiator == newer.is_initiator or newer_at - older_at > SIMULTANEOUS_S:
        return older, newer, True
    keeper, loser = sorted((one, other), key=lambda sa: sa.spi_i)
    return loser, keeper, loser.is_initiator or now - newer_at > SIMULTANEOUS_S


def superfluous_child_sas(child_sas: Iterable[ChildSaInfo]) -> tuple[ChildSaId, ...]:
    """Return the Child SAs that have a twin on the same IKE SA which both ends prefer."""
    groups: dict[object, list[ChildSaInfo]] = defaultdict(list)
    for child_sa in child_sas:
        if is_carrying(child_sa) and child_sa.inbound is not None and child_sa.outbound is not None:
            groups[
                child_sa.ike_sa_id, child_sa.connection, child_sa.child, child_sa.local_ts, child_sa.remote_ts
            ].append(child_sa)
    doomed: list[ChildSaId] = []
    for group in groups.values():
        doomed += [child_sa.child_sa_id for child_sa in sorted(group, key=_lowest_spi)[1:]]
    return tuple(doomed)


def _lowest_spi(child_sa: ChildSaInfo) -> tuple[int, ...]:
    """Return what both ends can compare: the two SPIs in ascending order."""
    return tuple(sorted(sa.spi for sa in (child_sa.inbound, child_sa.outbound) if sa is not None))
