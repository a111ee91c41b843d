"""All legal transitions of IKE SAs and Child SAs, as tables (RFC 7296 §1, §2.8, §2.25).

Code that changes a state asks `next_ike_state` or `next_child_state`; there are no `if state ==` chains
elsewhere. What a state permits (which requests it takes, whether it carries traffic) is in the tables
too, and so are the answers where exchanges of both sides collide. `docs/ike-states.md` is made from them by
`docs/generate_states.py`.

States and triggers hash by identity, which is what members of an enum are compared by: the tables are asked
all the time, and Python code over the members' names would run each time.
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

    __hash__ = object.__hash__


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

    __hash__ = object.__hash__


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

    __hash__ = object.__hash__


class ChildSaTrigger(Enum):
    """What moves a Child SA on."""

    BOTH_INSTALLED = "both directions installed"
    REKEY_STARTED = "rekey started"
    REKEY_FAILED = "rekey failed"
    REPLACED = "successor exists"
    SUCCESSOR_GONE = "successor taken back"
    DELETE_SENT = "DELETE sent"
    GONE = "DELETE received or answered, refused, expired, or IKE SA gone"

    __hash__ = object.__hash__


# --- transitions --------------------------------------------------------------------------------

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


# --- collisions: what the peer's request is answered with ---------------------------------------


class PeerRequest(Enum):
    """What a request of the peer's asks for, as far as it can collide with something of ours."""

    NEW_CHILD = "create a Child SA"
    REKEY_CHILD = "rekey a Child SA"
    DELETE_CHILD = "close a Child SA"
    REKEY_IKE = "rekey the IKE SA"
    DELETE_IKE = "close the IKE SA"
    OTHER = "anything else"


class IkeSituation(Enum):
    """What we are doing with the IKE SA that a request came in."""

    IDLE = "nothing of these"
    CHILD_WORK = "creating, rekeying or closing a Child SA"
    REKEYING = "rekeying the IKE SA"
    CONTESTED = "rekeying the IKE SA, and the peer's rekey of it was answered"
    CLOSING = "closing the IKE SA, or it has a successor"


class ChildSituation(Enum):
    """What we are doing with the Child SA that a request names."""

    UNKNOWN = "there is none"
    UNHEARD = "there is none, but a request of ours that may have made it is unanswered"
    CREATING = "installing it"
    CARRYING = "nothing"
    REKEYING = "rekeying it"
    CONTESTED = "rekeying it, and the peer's rekey of it was answered"
    ANSWERED = "rekeying it, and the peer agreed"
    REPLACED = "it has a successor of the peer's making"
    WINNER = "nothing; it won against the peer's successor, which is still there"
    CLOSING = "closing it"


class Reply(Enum):
    """How a request is answered."""

    AS_USUAL = "as usual"
    NONCES_DECIDE = "as usual; of two successors the nonces decide"
    FORGET_OURS = "as usual; what we were doing is forgotten"
    SUCCESSOR_TAKES_OVER = "as usual; the successor takes over"
    WITHOUT_DELETE = "without a Delete payload"
    REMEMBER = "without a Delete payload; the SPI is remembered until our request is answered"
    TEMPORARY_FAILURE = "N(TEMPORARY_FAILURE)"
    CHILD_SA_NOT_FOUND = "N(CHILD_SA_NOT_FOUND)"


_P, _S, _CS, _R = PeerRequest, IkeSituation, ChildSituation, Reply
#: By IKE SA (RFC 7296 §2.25.2, and the last rule of §2.25.1). AS_USUAL of what names a Child SA means:
#: `CHILD_SA_COLLISIONS` says how.
IKE_SA_COLLISIONS: dict[tuple[IkeSituation, PeerRequest], Reply] = {
    (_S.IDLE, _P.NEW_CHILD): _R.AS_USUAL,
    (_S.IDLE, _P.REKEY_CHILD): _R.AS_USUAL,
    (_S.IDLE, _P.DELETE_CHILD): _R.AS_USUAL,
    (_S.IDLE, _P.REKEY_IKE): _R.AS_USUAL,
    (_S.IDLE, _P.DELETE_IKE): _R.AS_USUAL,
    (_S.IDLE, _P.OTHER): _R.AS_USUAL,
    (_S.CHILD_WORK, _P.NEW_CHILD): _R.AS_USUAL,
    (_S.CHILD_WORK, _P.REKEY_CHILD): _R.AS_USUAL,
    (_S.CHILD_WORK, _P.DELETE_CHILD): _R.AS_USUAL,
    (_S.CHILD_WORK, _P.REKEY_IKE): _R.TEMPORARY_FAILURE,
    (_S.CHILD_WORK, _P.DELETE_IKE): _R.FORGET_OURS,
    (_S.CHILD_WORK, _P.OTHER): _R.AS_USUAL,
    (_S.REKEYING, _P.NEW_CHILD): _R.TEMPORARY_FAILURE,
    (_S.REKEYING, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_S.REKEYING, _P.DELETE_CHILD): _R.AS_USUAL,
    (_S.REKEYING, _P.REKEY_IKE): _R.NONCES_DECIDE,
    (_S.REKEYING, _P.DELETE_IKE): _R.FORGET_OURS,
    (_S.REKEYING, _P.OTHER): _R.AS_USUAL,
    (_S.CONTESTED, _P.NEW_CHILD): _R.TEMPORARY_FAILURE,
    (_S.CONTESTED, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_S.CONTESTED, _P.DELETE_CHILD): _R.AS_USUAL,
    (_S.CONTESTED, _P.REKEY_IKE): _R.TEMPORARY_FAILURE,
    (_S.CONTESTED, _P.DELETE_IKE): _R.SUCCESSOR_TAKES_OVER,
    (_S.CONTESTED, _P.OTHER): _R.AS_USUAL,
    (_S.CLOSING, _P.NEW_CHILD): _R.TEMPORARY_FAILURE,
    (_S.CLOSING, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_S.CLOSING, _P.DELETE_CHILD): _R.AS_USUAL,
    (_S.CLOSING, _P.REKEY_IKE): _R.TEMPORARY_FAILURE,
    (_S.CLOSING, _P.DELETE_IKE): _R.FORGET_OURS,
    (_S.CLOSING, _P.OTHER): _R.AS_USUAL,
}

#: By Child SA (RFC 7296 §2.25.1, §1.4.1).
CHILD_SA_COLLISIONS: dict[tuple[ChildSituation, PeerRequest], Reply] = {
    (_CS.UNKNOWN, _P.REKEY_CHILD): _R.CHILD_SA_NOT_FOUND,
    (_CS.UNKNOWN, _P.DELETE_CHILD): _R.WITHOUT_DELETE,
    # What our request made may be what the peer names: the response is late, the peer need not know.
    (_CS.UNHEARD, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_CS.UNHEARD, _P.DELETE_CHILD): _R.REMEMBER,
    (_CS.CREATING, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_CS.CREATING, _P.DELETE_CHILD): _R.FORGET_OURS,
    (_CS.CARRYING, _P.REKEY_CHILD): _R.AS_USUAL,
    (_CS.CARRYING, _P.DELETE_CHILD): _R.AS_USUAL,
    (_CS.REKEYING, _P.REKEY_CHILD): _R.NONCES_DECIDE,
    (_CS.REKEYING, _P.DELETE_CHILD): _R.AS_USUAL,
    (_CS.CONTESTED, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_CS.CONTESTED, _P.DELETE_CHILD): _R.SUCCESSOR_TAKES_OVER,
    # The peer has agreed to our successor, so that this request is older than its answer, or a mistake.
    (_CS.ANSWERED, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_CS.ANSWERED, _P.DELETE_CHILD): _R.AS_USUAL,
    (_CS.REPLACED, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_CS.REPLACED, _P.DELETE_CHILD): _R.SUCCESSOR_TAKES_OVER,
    (_CS.WINNER, _P.REKEY_CHILD): _R.AS_USUAL,
    # A peer that deletes the wrong one of two keeps its own.
    (_CS.WINNER, _P.DELETE_CHILD): _R.SUCCESSOR_TAKES_OVER,
    (_CS.CLOSING, _P.REKEY_CHILD): _R.TEMPORARY_FAILURE,
    (_CS.CLOSING, _P.DELETE_CHILD): _R.WITHOUT_DELETE,
}


# --- collisions: what becomes of our own rekey --------------------------------------------------


class RekeyAnswer(Enum):
    """What the peer answered to our rekey of a Child SA or of the IKE SA."""

    MADE = "a successor"
    TEMPORARY_FAILURE = "N(TEMPORARY_FAILURE)"
    CHILD_SA_NOT_FOUND = "N(CHILD_SA_NOT_FOUND)"
    NO_ADDITIONAL_SAS = "N(NO_ADDITIONAL_SAS)"
    REFUSED = "any other error, or our datapath refuses"


class Contest(Enum):
    """Whether the peer rekeyed the same SA while our request was under way, and who wins (§2.8.1, §2.8.2)."""

    NONE = "it did not"
    OURS_LOWEST = "it did; the lowest of the four nonces is in our exchange"
    THEIRS_LOWEST = "it did; the lowest of the four nonces is in its exchange"
    SETTLED = "it did, and only its successor is left"


class RekeyOutcome(Enum):
    """What we do then."""

    TAKE_OVER = "our successor takes over; we delete the old SA"
    DELETE_OURS = "we delete our successor; the peer's takes over, the peer deletes the old SA"
    AWAIT_PEER = "the peer's successor takes over; the peer deletes the old SA"
    RETRY_SOON = "ask again after a few seconds"
    RETRY_LATER = "tell the operator, ask again later"
    ANEW_OR_LATER = "an IKE SA is authenticated anew; for a Child SA tell the operator, ask again later"
    MAKE_ANEW = "end it, and make a new one"


_A, _K, _O = RekeyAnswer, Contest, RekeyOutcome
REKEY_OUTCOMES: dict[tuple[RekeyAnswer, Contest], RekeyOutcome] = {
    (_A.MADE, _K.NONE): _O.TAKE_OVER,
    (_A.MADE, _K.OURS_LOWEST): _O.DELETE_OURS,
    (_A.MADE, _K.THEIRS_LOWEST): _O.TAKE_OVER,
    (_A.MADE, _K.SETTLED): _O.DELETE_OURS,
    (_A.TEMPORARY_FAILURE, _K.NONE): _O.RETRY_SOON,
    (_A.CHILD_SA_NOT_FOUND, _K.NONE): _O.MAKE_ANEW,
    # A minimal implementation cannot rekey: the IKE SA has to be made anew (RFC 7296 §4).
    (_A.NO_ADDITIONAL_SAS, _K.NONE): _O.ANEW_OR_LATER,
    (_A.REFUSED, _K.NONE): _O.RETRY_LATER,
    # Without a successor of ours there are no four nonces: the peer's stays (RFC 7296 §2.8.1).
    (_A.TEMPORARY_FAILURE, _K.SETTLED): _O.AWAIT_PEER,
    (_A.CHILD_SA_NOT_FOUND, _K.SETTLED): _O.AWAIT_PEER,
    (_A.NO_ADDITIONAL_SAS, _K.SETTLED): _O.AWAIT_PEER,
    (_A.REFUSED, _K.SETTLED): _O.AWAIT_PEER,
}


def rekey_contest(ours: tuple[bytes, bytes], theirs: tuple[bytes, bytes]) -> Contest:
    """Tell who wins a simultaneous rekey, by the nonces Ni and Nr of both exchanges.

    Nonces are compared octet by octet from the first on; the shorter of two that agree so far is the lower
    one (RFC 7296 §2.8.1): as Python compares bytes.
    """
    return Contest.OURS_LOWEST if min(ours) < min(theirs) else Contest.THEIRS_LOWEST
