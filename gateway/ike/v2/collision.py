"""Where exchanges of both sides collide: what we are doing, as the tables of `states.py` want it.

The tables decide (RFC 7296 §2.25); here is only read off which row it is.
"""

from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.states import (
    CHILD_SA_COLLISIONS,
    IKE_SA_COLLISIONS,
    ChildSaState,
    ChildSituation,
    IkeSaState,
    IkeSituation,
    PeerRequest,
    Reply,
)

_IKE_SITUATIONS: dict[IkeSaState, IkeSituation] = {
    IkeSaState.REKEYING: IkeSituation.REKEYING,
    IkeSaState.REKEYED: IkeSituation.CLOSING,
    IkeSaState.DELETING: IkeSituation.CLOSING,
}
_CHILD_SITUATIONS: dict[ChildSaState, ChildSituation] = {
    ChildSaState.CREATING: ChildSituation.CREATING,
    ChildSaState.INSTALLED: ChildSituation.CARRYING,
    ChildSaState.REKEYING: ChildSituation.REKEYING,
    ChildSaState.REKEYED: ChildSituation.REPLACED,
    ChildSaState.DELETING: ChildSituation.CLOSING,
    ChildSaState.DELETED: ChildSituation.UNKNOWN,
}


def ike_situation(ike_sa: IkeSa) -> IkeSituation:
    """Return what we are doing with an authenticated IKE SA."""
    if ike_sa.state is IkeSaState.REKEYING and ike_sa.rival_sa is not None:
        return IkeSituation.CONTESTED
    idle = IkeSituation.CHILD_WORK if ike_sa.has_child_work else IkeSituation.IDLE
    return _IKE_SITUATIONS.get(ike_sa.state, idle)


def child_situation(ike_sa: IkeSa, child_sa: ChildSa | None) -> ChildSituation:
    """Return what we are doing with a Child SA of this IKE SA; None is one that we do not know."""
    if child_sa is None:
        return ChildSituation.UNHEARD if ike_sa.has_child_work else ChildSituation.UNKNOWN
    if child_sa.child_sa_id in ike_sa.settled:
        return ChildSituation.ANSWERED
    if child_sa.child_sa_id in ike_sa.rivals:
        return ChildSituation.CONTESTED
    situation = _CHILD_SITUATIONS[child_sa.state]
    if situation is ChildSituation.CARRYING and find_redundant(ike_sa, child_sa) is not None:
        return ChildSituation.WINNER
    return situation


def find_redundant(ike_sa: IkeSa, winner: ChildSa) -> ChildSa | None:
    """Return the successor of the peer's that lost against this one, while it is there."""
    if winner.replaces is None:
        return None
    for child_sa in ike_sa.children.values():
        is_rival = child_sa is not winner and child_sa.replaces == winner.replaces
        if is_rival and child_sa.state is ChildSaState.CREATING and child_sa.is_inbound_installed:
            return child_sa
    return None


def reply_in(ike_sa: IkeSa, asked: PeerRequest) -> Reply:
    """Return how this IKE SA answers a request of the peer's."""
    return IKE_SA_COLLISIONS[ike_situation(ike_sa), asked]


def reply_about(ike_sa: IkeSa, child_sa: ChildSa | None, asked: PeerRequest) -> Reply:
    """Return how a request that names a Child SA is answered where the IKE SA answers as usual."""
    return CHILD_SA_COLLISIONS[child_situation(ike_sa, child_sa), asked]
