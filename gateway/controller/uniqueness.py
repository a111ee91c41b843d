"""Which of several IKE SAs with one peer should go: the peer restarted, and did not say INITIAL_CONTACT.

A peer that adopts its SAs after a restart says no INITIAL_CONTACT (docs/architecture), and another
implementation may never say it. What is left here of its former life would only end with the next
liveness check, so the newest IKE SA wins: as soon as it has stood for a while and carries every Child SA
of the older one, the older one is deleted. Both ends starting at once is the core's business, and
settled well before.
"""

from collections import defaultdict
from collections.abc import Sequence

from gateway.ike.events import ChildSaInfo, IkeSaId, IkeSaInfo
from gateway.ike.v2.states import CARRYING_STATES, SERVING_STATES

#: How long the newer IKE SA has stood before the older one goes: longer than the core takes to settle two
#: that were begun at once (`EndpointOptions.duplicate_grace_s`).
SETTLE_S = 10.0

#: An older IKE SA is compared with so many of the newest: a peer that makes them without end must not make us
#: compare each with each.
MAX_COMPARED = 8

_SERVING = frozenset(state.value for state in SERVING_STATES)
_CARRYING = frozenset(state.value for state in CARRYING_STATES)


def is_carrying(child_sa: ChildSaInfo) -> bool:
    """Say whether a Child SA carries the traffic of its policy."""
    return child_sa.state in _CARRYING


def is_serving(ike_sa: IkeSaInfo) -> bool:
    """Say whether an IKE SA is authenticated and neither replaced nor on its way out."""
    return ike_sa.state in _SERVING


def superseded_ike_sas(
    ike_sas: Sequence[IkeSaInfo], child_sas: Sequence[ChildSaInfo], now: float
) -> tuple[IkeSaId, ...]:
    """Return the IKE SAs that a newer one with the same identities has taken the place of."""
    children: dict[IkeSaId, set[str]] = defaultdict(set)
    for child_sa in child_sas:
        if is_carrying(child_sa):
            children[child_sa.ike_sa_id].add(child_sa.child)
    groups: dict[object, list[IkeSaInfo]] = defaultdict(list)
    for ike_sa in ike_sas:
        if is_serving(ike_sa) and ike_sa.established_at is not None:
            groups[ike_sa.connection, ike_sa.local_id, ike_sa.remote_id].append(ike_sa)
    superseded: set[IkeSaId] = set()
    for group in groups.values():
        in_order = sorted(group, key=lambda sa: (sa.established_at or 0.0, sa.ike_sa_id))
        standing = [sa for sa in in_order if now - (sa.established_at or 0.0) >= SETTLE_S]
        newest = standing[-MAX_COMPARED:]
        for newer in newest:
            for older in in_order:
                if older is newer:
                    break
                if children[older.ike_sa_id] <= children[newer.ike_sa_id]:
                    superseded.add(older.ike_sa_id)
    return tuple(sorted(superseded))
