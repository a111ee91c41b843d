"""All legal transitions of IKE SAs and Child SAs, as tables (RFC 7296 §1, §2.8, §2.25).

Code that changes a state asks `next_ike_state` or `next_child_state`; there are no `if state ==` chains
elsewhere. What a state permits (which requests it takes, whether it carries traffic) is in the tables
too. `docs/ike-states.md` is made from them by `docs/generate_states.py`.
"""

from enum import Enum

from gateway.ike.errors import LocalError


class IkeSaState(Enum):
    """Where an IKE SA is in its life; the value is its name in the API."""

    CONNECTING = "connecting"
    """Initiator: IKE_SA_INIT is under way."""
    HALF_OPEN = "half_open"
    """Responder: IKE_SA_INIT was answered, nobody is authenticated."""
    AUTHENTICATING = "authenticating"
    """IKE_AUTH is under way; nothing is believed yet."""
    ESTABLISHED = "established"
    """Both sides are authenticated."""
    REKEYING = "rekeying"
    """Established, and a CREATE_CHILD_SA exchange of ours or the peer's is making its successor."""
    REKEYED = "rekeyed"
    """A successor took over the Child SAs; only the DELETE is left."""
    DELETING = "deleting"
    """Our DELETE is under way."""
    DELETED = "deleted"
    """Ended; only its last response is repeated for a while."""


class IkeSaTrigger(Enum):
    """What moves an IKE SA on."""

    INIT_DONE = "IKE_SA_INIT answered"
    AUTH_RECEIVED = "IKE_AUTH request received"
    AUTHENTICATED = "both sides authenticated"
    INHERITED = "made by an IKE rekey"
    REKEY_STARTED = "rekey started"
    REKEY_FAILED = "rekey failed"
    REPLACED = "successor took over"
    DELETE_SENT = "DELETE sent"
    GONE = "DELETE received or answered, timeout, or fatal error"


class ChildSaState(Enum):
    """Where a Child SA is in its life; the value is its name in the API."""

    CREATING = "creating"
    """Negotiated or being negotiated; not both directions are installed."""
    INSTALLED = "installed"
    """Both directions are at the datapath."""
    REKEYING = "rekeying"
    """Installed, and a CREATE_CHILD_SA exchange is making its successor."""
    REKEYED = "rekeyed"
    """A successor exists; this one only drains."""
    DELETING = "deleting"
    """Our DELETE is under way."""
    DELETED = "deleted"
    """Ended; its inbound SA may still decrypt packets in flight for a while."""


class ChildSaTrigger(Enum):
    """What moves a Child SA on."""

    BOTH_INSTALLED = "both directions installed"
    REKEY_STARTED = "rekey started"
    REKEY_FAILED = "rekey failed"
    REPLACED = "successor exists"
    SUCCESSOR_GONE = "successor taken back"
    DELETE_SENT = "DELETE sent"
    GONE = "DELETE received or answered, refused, expired, or IKE SA gone"


_I = IkeSaState
_IT = IkeSaTrigger
IKE_SA_TRANSITIONS: dict[tuple[IkeSaState, IkeSaTrigger], IkeSaState] = {
    (_I.CONNECTING, _IT.INIT_DONE): _I.AUTHENTICATING,
    (_I.CONNECTING, _IT.INHERITED): _I.ESTABLISHED,
    (_I.CONNECTING, _IT.GONE): _I.DELETED,
    (_I.HALF_OPEN, _IT.AUTH_RECEIVED): _I.AUTHENTICATING,
    (_I.HALF_OPEN, _IT.INHERITED): _I.ESTABLISHED,
    (_I.HALF_OPEN, _IT.GONE): _I.DELETED,
    (_I.AUTHENTICATING, _IT.AUTHENTICATED): _I.ESTABLISHED,
    (_I.AUTHENTICATING, _IT.GONE): _I.DELETED,
    (_I.ESTABLISHED, _IT.REKEY_STARTED): _I.REKEYING,
    (_I.ESTABLISHED, _IT.REPLACED): _I.REKEYED,
    (_I.ESTABLISHED, _IT.DELETE_SENT): _I.DELETING,
    (_I.ESTABLISHED, _IT.GONE): _I.DELETED,
    (_I.REKEYING, _IT.REKEY_FAILED): _I.ESTABLISHED,
    (_I.REKEYING, _IT.REPLACED): _I.REKEYED,
    (_I.REKEYING, _IT.DELETE_SENT): _I.DELETING,
    (_I.REKEYING, _IT.GONE): _I.DELETED,
    (_I.REKEYED, _IT.DELETE_SENT): _I.DELETING,
    (_I.REKEYED, _IT.GONE): _I.DELETED,
    (_I.DELETING, _IT.GONE): _I.DELETED,
}

_C = ChildSaState
_CT = ChildSaTrigger
CHILD_SA_TRANSITIONS: dict[tuple[ChildSaState, ChildSaTrigger], ChildSaState] = {
    (_C.CREATING, _CT.BOTH_INSTALLED): _C.INSTALLED,
    (_C.CREATING, _CT.DELETE_SENT): _C.DELETING,
    (_C.CREATING, _CT.GONE): _C.DELETED,
    (_C.INSTALLED, _CT.REKEY_STARTED): _C.REKEYING,
    (_C.INSTALLED, _CT.REPLACED): _C.REKEYED,
    (_C.INSTALLED, _CT.DELETE_SENT): _C.DELETING,
    (_C.INSTALLED, _CT.GONE): _C.DELETED,
    (_C.REKEYING, _CT.REKEY_FAILED): _C.INSTALLED,
    (_C.REKEYING, _CT.REPLACED): _C.REKEYED,
    (_C.REKEYING, _CT.DELETE_SENT): _C.DELETING,
    (_C.REKEYING, _CT.GONE): _C.DELETED,
    (_C.REKEYED, _CT.SUCCESSOR_GONE): _C.INSTALLED,
    (_C.REKEYED, _CT.DELETE_SENT): _C.DELETING,
    (_C.REKEYED, _CT.GONE): _C.DELETED,
    (_C.DELETING, _CT.GONE): _C.DELETED,
}

#: IKE SAs whose peer is authenticated: they answer every exchange but IKE_SA_INIT and IKE_AUTH.
AUTHENTICATED_STATES = frozenset({_I.ESTABLISHED, _I.REKEYING, _I.REKEYED, _I.DELETING})
#: IKE SAs that may start or serve new Child SAs.
SERVING_STATES = frozenset({_I.ESTABLISHED, _I.REKEYING})
#: Child SAs that carry the traffic of their policy.
CARRYING_STATES = frozenset({_C.INSTALLED, _C.REKEYING})


def next_ike_state(state: IkeSaState, trigger: IkeSaTrigger) -> IkeSaState:
    """Return the state that `trigger` leads to.

    Raises:
        LocalError: The table has no such transition.
    """
    new = IKE_SA_TRANSITIONS.get((state, trigger))
    if new is None:
        raise LocalError(f"an IKE SA that is {state.value} cannot follow {trigger.value!r}")
    return new


def next_child_state(state: ChildSaState, trigger: ChildSaTrigger) -> ChildSaState:
    """Return the state that `trigger` leads to.

    Raises:
        LocalError: The table has no such transition.
    """
    new = CHILD_SA_TRANSITIONS.get((state, trigger))
    if new is None:
        raise LocalError(f"a Child SA that is {state.value} cannot follow {trigger.value!r}")
    return new
