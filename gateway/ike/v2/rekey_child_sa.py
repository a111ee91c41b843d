"""CREATE_CHILD_SA that replaces a Child SA, both roles, and collisions (RFC 7296 §1.3.3, §2.8, §2.25.1).

```
 HDR, SK { N(REKEY_SA), SA, Ni, [KEi], TSi, TSr }  -->
                                               <--  HDR, SK { SA, Nr, [KEr], TSi, TSr }
 HDR, SK { D(old) }                            -->
                                               <--  HDR, SK { D(old) }
```

No packet is lost, because nobody sends on an SA before the other side can receive on it:

- Initiator: new inbound, new outbound (which takes over from the old), DELETE of the old.
- Responder: new inbound, answer; new outbound when the peer shows that it is ready: by traffic on the new
  SA, by the DELETE of the old, or by `outbound_switch_s` having passed; then the answer to the DELETE.
- Both: the old inbound SA goes some seconds after the DELETE.

When both sides rekey the same Child SA at once there are two successors. Of the four nonces the lowest
decides: whoever made the successor with it deletes that successor, and the other side deletes the old
Child SA. A request that comes when ours was already answered is refused with TEMPORARY_FAILURE: the peer
has agreed to our successor by then.
"""

from gateway.ike.errors import PeerError
from gateway.ike.events import ChildSaRekeyed, Failure, FailureReason
from gateway.ike.timers import Timer, TimerKey
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.collision import find_redundant, reply_about
from gateway.ike.v2.create_child_sa import (
    Made,
    abandon_child,
    answer_offer,
    delete_spi,
    failure_of,
    install_inbound,
    install_outbound,
    offer_child,
    rejection_notify,
    rekey_answer,
    temporary_failure_wait_s,
)
from gateway.ike.v2.exchange import Denied, IkeSaGone, Plan, PlanKind, Received, SendResponse, Steps
from gateway.ike.v2.ike_sa import IkeSa, Rival
from gateway.ike.v2.states import (
    CARRYING_STATES,
    REKEY_OUTCOMES,
    ChildSaState,
    ChildSaTrigger,
    Contest,
    PeerRequest,
    RekeyAnswer,
    RekeyOutcome,
    Reply,
    rekey_contest,
)
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, find_notify
from gateway.ipsec.proposal import ProtocolId

REPLACED = Failure(reason=FailureReason.REPLACED, detail="the Child SA was rekeyed")
MAX_BACKOFF_DOUBLINGS = 6


# --- initiator ----------------------------------------------------------------------------------


def initiate(ike_sa: IkeSa, old: ChildSa) -> Steps[None]:
    """Replace a Child SA; tell what became of it."""
    old.follow(ChildSaTrigger.REKEY_STARTED)
    try:
        made = yield from offer_child(ike_sa, ike_sa.configured(old), old)
    except (PeerError, Denied, IkeSaGone) as error:
        _rekey_failed(ike_sa, old, failure_of(error))
        return
    rival = ike_sa.rivals.pop(old.child_sa_id, None)
    outcome = REKEY_OUTCOMES[RekeyAnswer.MADE, _contest(ike_sa, old, made, rival)]
    if outcome is RekeyOutcome.DELETE_OURS and rival is not None:
        yield from _lose(ike_sa, old, made, rival)
        return
    redundant = None if rival is None else _child(ike_sa, rival.successor)
    if redundant is not None:
        ike_sa.set_child_timer(Timer.CHILD_LINGER, redundant, ike_sa.context.options.delete_grace_s)
    yield from _take_over(ike_sa, old, made)


def _contest(ike_sa: IkeSa, old: ChildSa, made: Made, rival: Rival | None) -> Contest:
    """Tell whether the peer rekeyed the Child SA too, and who wins; settled where it deleted the old one."""
    if rival is None:
        return Contest.NONE
    if old.child_sa_id not in ike_sa.children:
        return Contest.SETTLED
    return rekey_contest((made.nonces.nonce_i, made.nonces.nonce_r), rival.nonces)


def _child(ike_sa: IkeSa, number: int) -> ChildSa | None:
    return next((c for c in ike_sa.children.values() if c.child_sa_id == number), None)


def _take_over(ike_sa: IkeSa, old: ChildSa, made: Made) -> Steps[None]:
    child_sa = made.child_sa
    ike_sa.settled.add(old.child_sa_id)
    try:
        yield from install_inbound(ike_sa, child_sa)
        replaces = old.pair.outbound.sa_id if old.is_outbound_installed else None
        yield from install_outbound(ike_sa, child_sa, replaces)
    except (Denied, IkeSaGone) as error:
        ike_sa.settled.discard(old.child_sa_id)
        _rekey_failed(ike_sa, old, failure_of(error))
        if child_sa.child_sa_id in ike_sa.children:
            ike_sa.end_child(child_sa, failure_of(error))
            yield from delete_spi(child_sa.spi_in, child_sa.protocol)
        return
    ike_sa.settled.discard(old.child_sa_id)
    if old.child_sa_id not in ike_sa.children:
        ike_sa.child_established(child_sa)
        return
    ike_sa.child_established(child_sa, replaced=old)
    yield from delete_replaced(ike_sa, old)


def delete_replaced(ike_sa: IkeSa, old: ChildSa, failure: Failure = REPLACED) -> Steps[None]:
    """Delete a Child SA that has a successor, with the peer; packets in flight still arrive."""
    old.follow(ChildSaTrigger.DELETE_SENT)
    ike_sa.stop_sending(old)
    yield from delete_spi(old.spi_in, old.protocol)
    if old.child_sa_id not in ike_sa.children:
        return
    ike_sa.end_child(old, failure, has_twin=True)
    successor = _made_for(ike_sa, old)
    if successor is not None and ike_sa.find_twin(old) is None:
        # It came to its end before the peer took over with the successor: there is no other to send on.
        yield from switch_outbound(ike_sa, successor)


def take_back(ike_sa: IkeSa, successor: ChildSa) -> None:
    """Go on with the Child SA that a successor was made for, when we delete that one before it carried."""
    old = None if successor.replaces is None else ike_sa.children.get(successor.replaces)
    if old is None or old.state is not ChildSaState.REKEYED or successor.established_at is not None:
        return
    _go_on(ike_sa, old)


def _go_on(ike_sa: IkeSa, old: ChildSa) -> None:
    """Go on with a Child SA whose successor is gone, and rekey it again later."""
    old.follow(ChildSaTrigger.SUCCESSOR_GONE)
    ike_sa.context.timers.cancel(TimerKey(old.child_sa_id, Timer.CHILD_LINGER))
    attempt = ike_sa.rekey_attempts.get(old.child_sa_id, 0)
    ike_sa.rekey_attempts[old.child_sa_id] = attempt + 1
    ike_sa.set_child_timer(Timer.CHILD_REKEY, old, _retry_wait_s(ike_sa, attempt))


def _retry_wait_s(ike_sa: IkeSa, attempt: int) -> float:
    return ike_sa.context.options.rekey_retry_s * 2.0 ** min(attempt, MAX_BACKOFF_DOUBLINGS)


def _lose(ike_sa: IkeSa, old: ChildSa, made: Made, rival: Rival) -> Steps[None]:
    """Delete the successor we made; the peer's takes over."""
    failure = Failure(reason=FailureReason.REPLACED, detail="both sides rekeyed at once; the peer's stays")
    if made.child_sa.child_sa_id in ike_sa.children:
        ike_sa.end_child(made.child_sa, failure)
    _await_peer(ike_sa, old, rival)
    yield from delete_spi(made.child_sa.spi_in, made.child_sa.protocol)


def _await_peer(ike_sa: IkeSa, old: ChildSa, rival: Rival) -> None:
    """Leave the rest of the rekey to the peer, whose exchange made the surviving successor."""
    successor = _child(ike_sa, rival.successor)
    if old.child_sa_id in ike_sa.children and old.state in CARRYING_STATES:
        if successor is None:
            old.follow(ChildSaTrigger.REKEY_FAILED)
            return
        old.follow(ChildSaTrigger.REPLACED)
        ike_sa.set_child_timer(Timer.CHILD_LINGER, old, ike_sa.context.options.delete_grace_s)
    if successor is not None and not successor.is_outbound_installed:
        ike_sa.set_child_timer(Timer.CHILD_SWITCH, successor, ike_sa.context.options.outbound_switch_s)


def _rekey_failed(ike_sa: IkeSa, old: ChildSa, failure: Failure) -> None:
    rival = ike_sa.rivals.pop(old.child_sa_id, None)
    contest = Contest.NONE if rival is None else Contest.SETTLED
    outcome = REKEY_OUTCOMES[rekey_answer(failure), contest]
    if outcome is RekeyOutcome.AWAIT_PEER and rival is not None:
        _await_peer(ike_sa, old, rival)
        return
    if old.state is not ChildSaState.REKEYING:
        return
    name = old.parameters.child.name
    if outcome is RekeyOutcome.MAKE_ANEW:
        # The peer does not have it; what we have is a hole (RFC 7296 §2.25.1).
        ike_sa.end_child(old, failure)
        ike_sa.plan(Plan(kind=PlanKind.NEW_CHILD, child=name))
        return
    old.follow(ChildSaTrigger.REKEY_FAILED)
    attempt = ike_sa.rekey_attempts.get(old.child_sa_id, 0)
    ike_sa.rekey_attempts[old.child_sa_id] = attempt + 1
    if outcome is RekeyOutcome.RETRY_SOON:
        wait_s = temporary_failure_wait_s(ike_sa, attempt)
    else:
        wait_s = _retry_wait_s(ike_sa, attempt)
        ike_sa.child_failed(name, failure, replaces=old.child_sa_id)
    ike_sa.set_child_timer(Timer.CHILD_REKEY, old, wait_s)


# --- responder ----------------------------------------------------------------------------------


def respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    """Answer a request to replace a Child SA."""
    rekey = find_notify(received.payloads, NotifyType.REKEY_SA)
    assert rekey is not None
    old = _find_old(ike_sa, rekey)
    reply = reply_about(ike_sa, old, PeerRequest.REKEY_CHILD)
    if reply is Reply.CHILD_SA_NOT_FOUND:
        notify = NotifyPayload(NotifyType.CHILD_SA_NOT_FOUND, protocol=rekey.protocol, spi=rekey.spi)
        yield SendResponse(payloads=[notify])
        return
    if old is None or reply not in _AGREEING or _is_crowded(ike_sa):
        yield SendResponse(payloads=[NotifyPayload(NotifyType.TEMPORARY_FAILURE)])
        return
    try:
        answered = yield from answer_offer(
            ike_sa, received, (ike_sa.configured(old),), replaces=old.child_sa_id
        )
    except (PeerError, Denied) as error:
        yield SendResponse(payloads=[rejection_notify(error)])
        ike_sa.child_failed(old.parameters.child.name, failure_of(error), replaces=old.child_sa_id)
        return
    successor = answered.child_sa
    if reply_about(ike_sa, old, PeerRequest.REKEY_CHILD) not in _AGREEING:
        # While the datapath was busy our own rekey was answered, or the old one ended.
        failure = Failure(reason=FailureReason.REPLACED, detail="another rekey was faster")
        ike_sa.end_child(successor, failure)
        yield SendResponse(payloads=[NotifyPayload(NotifyType.TEMPORARY_FAILURE)])
        return
    nonces = (answered.nonces.nonce_i, answered.nonces.nonce_r)
    rival = Rival(successor.child_sa_id, nonces)
    if old.state is ChildSaState.REKEYING:
        ike_sa.rivals[old.child_sa_id] = rival
    else:
        _await_peer(ike_sa, old, rival)
    yield SendResponse(payloads=answered.payloads)


def _find_old(ike_sa: IkeSa, rekey: NotifyPayload) -> ChildSa | None:
    """Return the Child SA that REKEY_SA names: by the SPI its sender receives with (RFC 7296 §1.3.3)."""
    if rekey.protocol not in (ProtocolId.ESP, ProtocolId.AH):
        return None
    return ike_sa.find_outbound(rekey.spi, rekey.protocol)


_AGREEING = frozenset({Reply.AS_USUAL, Reply.NONCES_DECIDE})


def _is_crowded(ike_sa: IkeSa) -> bool:
    """Tell whether a peer that rekeys and never deletes has enough; what it left is deleted after a while.

    Each of the Child SAs it may have can be old and new at once.
    """
    return len(ike_sa.children) >= 2 * ike_sa.context.options.child_limit


def switch_outbound(ike_sa: IkeSa, child_sa: ChildSa) -> Steps[None]:
    """Send on the successor the peer made, now that it surely receives on it."""
    if child_sa.is_outbound_installed or child_sa.state is not ChildSaState.CREATING:
        return
    ike_sa.context.timers.cancel(TimerKey(child_sa.child_sa_id, Timer.CHILD_SWITCH))
    old = None if child_sa.replaces is None else ike_sa.children.get(child_sa.replaces)
    try:
        yield from install_outbound(ike_sa, child_sa, None if old is None else old.pair.outbound.sa_id)
    except (Denied, IkeSaGone) as error:
        abandon_child(ike_sa.heir(), child_sa, failure_of(error))
        return
    if child_sa.state is ChildSaState.CREATING:
        ike_sa.heir().child_established(child_sa, replaced=old)


def is_ready_to_switch(ike_sa: IkeSa, child_sa: ChildSa) -> bool:
    """Tell whether a Child SA is a successor the peer made, waiting for its outbound SA.

    While our own rekey of the same Child SA is unanswered nobody knows which successor stays.
    """
    return (
        child_sa.state is ChildSaState.CREATING
        and child_sa.is_inbound_installed
        and not child_sa.is_outbound_installed
        and child_sa.replaces is not None
        and child_sa.replaces not in ike_sa.rivals
        and TimerKey(child_sa.child_sa_id, Timer.CHILD_SWITCH) in ike_sa.context.timers
    )


def peer_deleted(ike_sa: IkeSa, child_sa: ChildSa) -> Steps[None]:
    """Take the peer's DELETE of a Child SA: its successor takes over first, where there is one."""
    number = child_sa.child_sa_id
    successor = _successor_of_peer(ike_sa, child_sa)
    if successor is None:
        is_in_vain = _peer_takes_back(ike_sa, child_sa)
        failure = Failure(reason=FailureReason.DELETED_BY_PEER, detail="the peer deleted the Child SA")
        has_twin = not is_in_vain and ike_sa.find_twin(child_sa) is not None
        ike_sa.end_child(child_sa, failure, has_twin=has_twin)
        return
    if child_sa.state in CARRYING_STATES:
        child_sa.follow(ChildSaTrigger.REPLACED)
    yield from switch_outbound(ike_sa, successor)
    if number not in ike_sa.children:
        return
    if successor.is_outbound_installed:
        ike_sa.drain_child(child_sa)
        return
    detail = "the peer deleted the Child SA, and our datapath refused its successor"
    ike_sa.end_child(child_sa, Failure(reason=FailureReason.DATAPATH_REFUSED, detail=detail))


def _successor_of_peer(ike_sa: IkeSa, child_sa: ChildSa) -> ChildSa | None:
    """Return what the peer made of a Child SA that it deletes now."""
    if reply_about(ike_sa, child_sa, PeerRequest.DELETE_CHILD) is not Reply.SUCCESSOR_TAKES_OVER:
        return None
    rival = ike_sa.rivals.get(child_sa.child_sa_id)
    if rival is not None:
        return _child(ike_sa, rival.successor)
    redundant = find_redundant(ike_sa, child_sa)
    if redundant is not None:
        redundant.replaces = child_sa.child_sa_id
        ike_sa.context.timers.cancel(TimerKey(redundant.child_sa_id, Timer.CHILD_LINGER))
        return redundant
    return _made_for(ike_sa, child_sa)


def relatives(ike_sa: IkeSa, child_sa: ChildSa) -> list[ChildSa]:
    """Return what a Child SA was made to replace, and what was made to replace it, as far as it is there."""
    number = child_sa.child_sa_id
    return [c for c in ike_sa.children.values() if c.replaces == number or c.child_sa_id == child_sa.replaces]


def _made_for(ike_sa: IkeSa, old: ChildSa) -> ChildSa | None:
    return next((c for c in ike_sa.children.values() if c.replaces == old.child_sa_id), None)


def _peer_takes_back(ike_sa: IkeSa, successor: ChildSa) -> bool:
    """See to what a successor was made for, when the peer deletes it.

    In a collision that was the peer's half, and ours stays. Otherwise the peer made it in vain (its datapath
    refused it): the old Child SA, which it has not deleted, goes on; tell whether that is so.
    """
    for number, rival in list(ike_sa.rivals.items()):
        if rival.successor == successor.child_sa_id:
            del ike_sa.rivals[number]
    old = None if successor.replaces is None else ike_sa.children.get(successor.replaces)
    if old is None or old.state is not ChildSaState.REKEYED:
        return False
    _go_on(ike_sa, old)
    if successor.state in CARRYING_STATES:
        successor.follow(ChildSaTrigger.REPLACED)
        ike_sa.context.told.discard(successor.child_sa_id)
        ike_sa.context.told.add(old.child_sa_id)
        ike_sa.context.emit(ChildSaRekeyed(old=successor.info(), new=old.info()))
    return True
