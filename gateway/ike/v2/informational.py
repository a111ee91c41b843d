"""INFORMATIONAL, both roles: deletes, liveness, errors (RFC 7296 §1.4, §2.4, §2.21, §2.25).

```
 HDR, SK { [N+], [D+] }  -->
                         <--  HDR, SK { [D+] }
```

Whoever sends a DELETE stops sending on the outbound SA first, and whoever receives one stops before it
answers, so that nothing is on its way when the inbound SA goes.

What is about to carry the traffic of a Child SA that the peer deletes is installed before the answer
(`takeover.py`).

A DELETE names the SAs its sender receives on; the answer names the other halves, except of those whose
deletion we asked for ourselves meanwhile (§1.4.1).
"""

from typing import Final

from gateway.ike.events import Failure, FailureReason
from gateway.ike.v2 import rekey_child_sa, rekey_ike_sa
from gateway.ike.v2.child_negotiation import encode_spi
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.collision import reply_about, reply_in
from gateway.ike.v2.create_child_sa import delete_spi
from gateway.ike.v2.exchange import IkeSaGone, LetTakeOver, Received, SendResponse, Steps, request
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.states import ChildSaState, ChildSaTrigger, IkeSaTrigger, PeerRequest, Reply
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import DeletePayload, NotifyPayload, Payload, all_payloads
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import Spi

MAX_EARLY_DELETES: Final = 64
_FATAL = {
    NotifyType.AUTHENTICATION_FAILED: FailureReason.AUTHENTICATION_FAILED,
    NotifyType.INVALID_SYNTAX: FailureReason.INVALID_SYNTAX,
}


# --- initiator ----------------------------------------------------------------------------------


def check_liveness() -> Steps[None]:
    """Send an empty request: whoever answers lives (RFC 7296 §2.4)."""
    yield from request(ExchangeType.INFORMATIONAL, [])


def report_invalid_spi(spi: Spi) -> Steps[None]:
    """Tell the peer that its ESP has an SPI we do not know (RFC 7296 §1.5); whoever answers lives."""
    notify = NotifyPayload(NotifyType.INVALID_SPI, encode_spi(spi))
    yield from request(ExchangeType.INFORMATIONAL, [notify])


def delete_child(ike_sa: IkeSa, child_sa: ChildSa, failure: Failure) -> Steps[None]:
    """Delete a Child SA with the peer, and say why."""
    if child_sa.state is ChildSaState.REKEYED:
        yield from rekey_child_sa.delete_replaced(ike_sa, child_sa, failure)
        return
    child_sa.follow(ChildSaTrigger.DELETE_SENT)
    ike_sa.stop_sending(child_sa)
    has_twin = ike_sa.find_twin(child_sa) is not None
    yield from delete_spi(child_sa.spi_in, child_sa.protocol)
    if child_sa.child_sa_id in ike_sa.children:
        rekey_child_sa.take_back(ike_sa, child_sa)
        ike_sa.end_child(child_sa, failure, has_twin=has_twin)


def delete_ike(ike_sa: IkeSa, failure: Failure) -> Steps[None]:
    """Delete an IKE SA with the peer.

    Raises:
        IkeSaGone: It is done.
    """
    ike_sa.follow(IkeSaTrigger.DELETE_SENT)
    for child_sa in ike_sa.children.values():
        ike_sa.stop_sending(child_sa)
    yield from request(ExchangeType.INFORMATIONAL, [DeletePayload(ProtocolId.IKE)])
    raise IkeSaGone(failure)


# --- responder ----------------------------------------------------------------------------------


def respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    """Answer whatever the peer says.

    Raises:
        IkeSaGone: It said that the IKE SA ends.
    """
    for notify in all_payloads(received.payloads, NotifyPayload):
        if notify.notify_type in _FATAL:
            yield SendResponse(payloads=[])
            raise IkeSaGone(_fatal(notify))
    deletes = all_payloads(received.payloads, DeletePayload)
    if going := _going(ike_sa, received):
        yield LetTakeOver(child_sas=going)
    if ends_ike_sa(received):
        if reply_in(ike_sa, PeerRequest.DELETE_IKE) is Reply.SUCCESSOR_TAKES_OVER:
            rekey_ike_sa.peer_deleted(ike_sa)
        yield SendResponse(payloads=[])
        raise IkeSaGone(Failure(reason=FailureReason.DELETED_BY_PEER, detail="the peer deleted the IKE SA"))
    answered: dict[ProtocolId, list[bytes]] = {ProtocolId.ESP: [], ProtocolId.AH: []}
    for protocol, spi in ((delete.protocol, spi) for delete in deletes for spi in delete.spis):
        child_sa = ike_sa.find_outbound(spi, protocol)
        match reply_about(ike_sa, child_sa, PeerRequest.DELETE_CHILD):
            case Reply.WITHOUT_DELETE:
                continue
            case Reply.REMEMBER:
                _note_early_delete(ike_sa, protocol, spi)
            case _:
                assert child_sa is not None
                answered[child_sa.protocol].append(encode_spi(child_sa.spi_in))
                yield from rekey_child_sa.peer_deleted(ike_sa, child_sa)
    payloads: list[Payload] = [DeletePayload(p, tuple(spis)) for p, spis in answered.items() if spis]
    yield SendResponse(payloads=payloads)


def _going(ike_sa: IkeSa, received: Received) -> tuple[ChildSa, ...]:
    """Return the Child SAs that a request ends."""
    if ends_ike_sa(received):
        return tuple(ike_sa.children.values())
    deletes = all_payloads(received.payloads, DeletePayload)
    named = (ike_sa.find_outbound(spi, delete.protocol) for delete in deletes for spi in delete.spis)
    return tuple(child_sa for child_sa in named if child_sa is not None)


def ends_ike_sa(received: Received) -> bool:
    """Tell whether a request is the DELETE of the IKE SA it came in."""
    deletes = all_payloads(received.payloads, DeletePayload)
    return any(delete.protocol == ProtocolId.IKE for delete in deletes)


def _note_early_delete(ike_sa: IkeSa, protocol: int, spi: bytes) -> None:
    """Remember an SPI that the peer may have made for a request of ours whose response was lost."""
    if len(ike_sa.early_deletes) < MAX_EARLY_DELETES:
        ike_sa.early_deletes.add((protocol, spi))


def _fatal(notify: NotifyPayload) -> Failure:
    return Failure(
        reason=_FATAL[NotifyType(notify.notify_type)],
        detail=f"the peer ended the IKE SA with {notify.name}",
        notify=notify.name,
    )
