"""Which exchange it is: for a plan of ours, and for a request of the peer's (RFC 7296 §1.3, §1.4, §2.25).

What is looked at is the state of the IKE SA and the outline of the request; the exchanges do the rest.
"""

from collections.abc import Callable
from dataclasses import replace

from gateway.ike.errors import PeerError
from gateway.ike.events import Failure, FailureReason
from gateway.ike.v2 import create_child_sa, ike_auth, ike_sa_init, informational, rekey_child_sa, rekey_ike_sa
from gateway.ike.v2.collision import reply_in
from gateway.ike.v2.exchange import IkeSaGone, Plan, PlanKind, Received, SendResponse, Steps
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.resources import find_fallback
from gateway.ike.v2.states import (
    AUTHENTICATED_STATES,
    SERVING_STATES,
    ChildSaState,
    IkeSaState,
    PeerRequest,
    Reply,
)
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, Payload, SaPayload, find_notify, find_payload
from gateway.ipsec.connection import Child
from gateway.ipsec.proposal import ProtocolId

# --- for what we plan ---------------------------------------------------------------------------


def bring_up(ike_sa: IkeSa, child: Child | None) -> Steps[None]:
    """Make the IKE SA and its first Child SA, if there is to be one, as initiator."""
    yield from ike_sa_init.initiate(ike_sa)
    yield from ike_auth.initiate(ike_sa, child)


def begin(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    """Return the exchange of a plan; None if there is nothing left to do."""
    exchange = _PLANS.get(plan.kind)
    return None if exchange is None else exchange(ike_sa, plan)


def _begin_new_child(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    child = next((c for c in ike_sa.connection.children if c.name == plan.child), None)
    if child is None or ike_sa.state not in SERVING_STATES:
        return None
    if plan.cpu is not None:
        first = find_fallback(ike_sa, child, plan.cpu)
        if first is None:
            return None
        beside = create_child_sa.Beside(child_sa=first, cpu=plan.cpu)
        return create_child_sa.initiate(ike_sa, child, plan.attempt, beside)
    if ike_sa.find_carrying(plan.child) is not None:
        return None
    return create_child_sa.initiate(ike_sa, child, plan.attempt)


def _begin_rekey_child(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    child_sa = None if plan.child_sa_id is None else ike_sa.children.get(plan.child_sa_id)
    if child_sa is None or child_sa.state is not ChildSaState.INSTALLED or ike_sa.state not in SERVING_STATES:
        return None
    return rekey_child_sa.initiate(ike_sa, child_sa)


def _begin_rekey_ike(ike_sa: IkeSa, _plan: Plan) -> Steps[None] | None:
    # One that nobody was told of may be the half of a collision that goes: not ours to renew.
    may = ike_sa.state is IkeSaState.ESTABLISHED and ike_sa.is_told
    return rekey_ike_sa.initiate(ike_sa) if may else None


def _begin_delete_child(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    child_sa = None if plan.child_sa_id is None else ike_sa.children.get(plan.child_sa_id)
    if child_sa is None or child_sa.state in (ChildSaState.DELETING, ChildSaState.DELETED):
        return None
    assert plan.failure is not None
    if plan.failure.reason is FailureReason.DELETED_BY_OPERATOR:
        # The operator means what a rekey made of it, or made it of, too.
        for other in rekey_child_sa.relatives(ike_sa, child_sa):
            ike_sa.plan(replace(plan, child_sa_id=other.child_sa_id))
    return informational.delete_child(ike_sa, child_sa, plan.failure)


def _begin_delete_ike(ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    assert plan.failure is not None
    return None if ike_sa.state is IkeSaState.DELETING else informational.delete_ike(ike_sa, plan.failure)


def _begin_liveness(_ike_sa: IkeSa, _plan: Plan) -> Steps[None] | None:
    return informational.check_liveness()


def _begin_invalid_spi(_ike_sa: IkeSa, plan: Plan) -> Steps[None] | None:
    assert plan.spi is not None
    return informational.report_invalid_spi(plan.spi)


_PLANS: dict[PlanKind, Callable[[IkeSa, Plan], Steps[None] | None]] = {
    PlanKind.NEW_CHILD: _begin_new_child,
    PlanKind.REKEY_CHILD: _begin_rekey_child,
    PlanKind.REKEY_IKE: _begin_rekey_ike,
    PlanKind.DELETE_CHILD: _begin_delete_child,
    PlanKind.DELETE_IKE: _begin_delete_ike,
    PlanKind.LIVENESS: _begin_liveness,
    PlanKind.INVALID_SPI: _begin_invalid_spi,
}


# --- for what the peer asks ---------------------------------------------------------------------


def is_legal(ike_sa: IkeSa, exchange_type: int) -> bool:
    """Tell whether the peer may ask for this exchange now."""
    if exchange_type == ExchangeType.IKE_AUTH:
        return ike_sa.state is IkeSaState.HALF_OPEN
    known = exchange_type in (ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL)
    return known and ike_sa.state in AUTHENTICATED_STATES


def respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    """Return the exchange that answers a request which is legal and keeps the rules."""
    if received.exchange_type == ExchangeType.IKE_AUTH:
        return ike_auth.respond(ike_sa, received)
    if ike_sa.predecessor is not None and not informational.ends_ike_sa(received):
        rekey_ike_sa.take_over(ike_sa)
    if received.exchange_type == ExchangeType.INFORMATIONAL:
        return informational.respond(ike_sa, received)
    asked = _asked_to_create(received)
    if reply_in(ike_sa, asked) is Reply.TEMPORARY_FAILURE:
        return _answer([NotifyPayload(NotifyType.TEMPORARY_FAILURE)])
    return _RESPONDERS[asked](ike_sa, received)


def _asked_to_create(received: Received) -> PeerRequest:
    """Return what a CREATE_CHILD_SA request is for (RFC 7296 §1.3)."""
    sa = find_payload(received.payloads, SaPayload)
    if sa is not None and any(proposal.protocol == ProtocolId.IKE for proposal in sa.proposals):
        return PeerRequest.REKEY_IKE
    rekey = find_notify(received.payloads, NotifyType.REKEY_SA)
    return PeerRequest.NEW_CHILD if rekey is None else PeerRequest.REKEY_CHILD


_RESPONDERS: dict[PeerRequest, Callable[[IkeSa, Received], Steps[None]]] = {
    PeerRequest.NEW_CHILD: create_child_sa.respond,
    PeerRequest.REKEY_CHILD: rekey_child_sa.respond,
    PeerRequest.REKEY_IKE: rekey_ike_sa.respond,
}


def _answer(payloads: list[Payload]) -> Steps[None]:
    yield SendResponse(payloads=payloads)


def refuse(ike_sa: IkeSa, error: PeerError) -> Steps[None]:
    """Answer an authentic request that breaks the rules.

    INVALID_SYNTAX ends the IKE SA on both sides (RFC 7296 §2.21.3), anything does in IKE_AUTH (§2.21.2).
    """
    yield SendResponse(payloads=[NotifyPayload(error.notify or NotifyType.INVALID_SYNTAX, error.data)])
    is_critical = error.notify == NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD
    if is_critical and ike_sa.state in AUTHENTICATED_STATES:
        return
    notify = NotifyType(error.notify or NotifyType.INVALID_SYNTAX)
    reason = FailureReason.UNSUPPORTED_CRITICAL_PAYLOAD if is_critical else FailureReason.INVALID_SYNTAX
    raise IkeSaGone(Failure(reason=reason, detail=f"request refused: {error}", notify=notify.name))
