"""CREATE_CHILD_SA for a new Child SA, both roles (RFC 7296 §1.3.1, §2.25).

```
 HDR, SK { [N(USE_TRANSPORT_MODE)], SA, Ni, [KEi], TSi, TSr }  -->
                                    <--  HDR, SK { [N(USE_TRANSPORT_MODE)], SA, Nr, [KEr], TSi, TSr }
```

Rekeying a Child SA (`rekey_child_sa.py`) is this exchange with a REKEY_SA in front and more to say at the
end; `offer_child` and `answer_offer` serve both. What is installed when: the responder's inbound SA before
its answer leaves; the initiator's inbound, then outbound SA when the answer came; the responder's outbound
SA last.
"""

from dataclasses import dataclass, replace

from gateway.ike.crypto.kex import generate
from gateway.ike.errors import PeerError
from gateway.ike.events import ChildSaId, Failure, FailureReason
from gateway.ike.v2.child_negotiation import (
    Agreement,
    ChildNonces,
    Offer,
    answer_payloads,
    check_answer,
    choose,
    encode_spi,
    make_child_sa,
    make_offer,
    offer_beside,
)
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.exchange import (
    AwaitTakeover,
    ChildRefusedByPeer,
    ChildRejected,
    Denied,
    IkeSaGone,
    Plan,
    PlanKind,
    Received,
    SendResponse,
    Steps,
    allocate_spi,
    install,
    refusal_notify,
    request,
)
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.resources import assign
from gateway.ike.v2.states import ChildSaState, RekeyAnswer
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType, parse_ke_method
from gateway.ike.wire.payloads import (
    DeletePayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    find_notify,
    find_payload,
    get_payload,
)
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.connection import Child
from gateway.ipsec.proposal import ProtocolId, ke_methods
from gateway.ipsec.sa import SaId, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret

WITHDRAWN = Failure(
    reason=FailureReason.DELETED_BY_PEER, detail="the peer deleted the Child SA before we heard of it"
)
MAX_TEMPORARY_FAILURES = 8
"""After so many TEMPORARY_FAILUREs in a row a new Child SA is given up (RFC 7296 §2.25 names no number)."""


# --- installing ---------------------------------------------------------------------------------


def install_inbound(ike_sa: IkeSa, child_sa: ChildSa, replaces: SaId | None = None) -> Steps[None]:
    """Have the inbound SA carried.

    Raises:
        Denied: It is not, or the Child SA was deleted meanwhile.
    """
    sa = child_sa.pair.inbound
    yield from install(sa, replaces)
    _check_alive(ike_sa, child_sa, sa)
    child_sa.is_inbound_installed = True


def install_outbound(ike_sa: IkeSa, child_sa: ChildSa, replaces: SaId | None = None) -> Steps[None]:
    """Have the outbound SA carried: from here on traffic leaves on it.

    Raises:
        Denied: It is not, or the Child SA was deleted meanwhile.
    """
    sa = child_sa.pair.outbound
    yield from install(sa, replaces)
    _check_alive(ike_sa, child_sa, sa)
    child_sa.is_outbound_installed = True


def _check_alive(ike_sa: IkeSa, child_sa: ChildSa, sa: SecurityAssociation) -> None:
    if child_sa.state in (ChildSaState.DELETING, ChildSaState.DELETED):
        ike_sa.context.remove_sas((sa.sa_id,))
        raise Denied("GONE", "the Child SA was deleted while it was being installed")


def finish_as_responder(ike_sa: IkeSa, child_sa: ChildSa) -> Steps[None]:
    """Install the outbound SA of a new Child SA after our answer has left, and its time has come."""
    try:
        yield AwaitTakeover(child_sa=child_sa)
        if child_sa.state is not ChildSaState.CREATING:
            return
        yield from install_outbound(ike_sa, child_sa)
    except (Denied, IkeSaGone) as error:
        abandon_child(ike_sa.heir(), child_sa, failure_of(error))
        return
    ike_sa.heir().child_established(child_sa)


def abandon_child(ike_sa: IkeSa, child_sa: ChildSa, failure: Failure) -> None:
    """Give up a Child SA that the peer has: tell it, and delete it with the peer."""
    if child_sa.child_sa_id not in ike_sa.children:
        return
    ike_sa.child_failed(child_sa.parameters.child.name, failure, child_sa.replaces)
    ike_sa.plan(
        Plan(kind=PlanKind.DELETE_CHILD, child_sa_id=child_sa.child_sa_id, failure=failure), first=True
    )


# --- initiator ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A Child SA for one CPU, beside the one for all (RFC 9611)."""

    child_sa: ChildSa
    """The one for all."""
    cpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What CREATE_CHILD_SA made: agreed on and derived, with nothing installed yet."""

    child_sa: ChildSa
    nonces: ChildNonces


def initiate(ike_sa: IkeSa, child: Child, attempt: int, first: Beside | None = None) -> Steps[None]:
    """Make a new Child SA, perhaps for a CPU beside the one for all; tell what became of it."""
    cpu = None if first is None else first.cpu
    try:
        made = yield from offer_child(ike_sa, child, beside=first)
    except ChildRefusedByPeer as error:
        notify = error.failure.notify
        if notify == NotifyType.TEMPORARY_FAILURE.name and attempt < MAX_TEMPORARY_FAILURES:
            retry = Plan(kind=PlanKind.NEW_CHILD, child=child.name, cpu=cpu, attempt=attempt + 1)
            ike_sa.delay(retry, temporary_failure_wait_s(ike_sa, attempt))
            return
        if first is not None and notify in _ENOUGH:
            first.child_sa.peer_has_enough = True
        ike_sa.child_failed(child.name, error.failure, cpu=cpu)
        return
    except (PeerError, Denied, IkeSaGone) as error:
        ike_sa.child_failed(child.name, failure_of(error), cpu=cpu)
        return
    yield from complete(ike_sa, made)


_ENOUGH = frozenset({NotifyType.TS_MAX_QUEUE.name, NotifyType.NO_ADDITIONAL_SAS.name})
"""What a peer says that wants no more Child SAs (RFC 9611 §5.2, RFC 7296 §1.3.1)."""


def rekey_answer(failure: Failure) -> RekeyAnswer:
    """Return what a rekey that failed was answered with, as the table of outcomes wants it."""
    return _REKEY_ANSWERS.get(failure.notify, RekeyAnswer.REFUSED)


_REKEY_ANSWERS = {
    NotifyType.TEMPORARY_FAILURE.name: RekeyAnswer.TEMPORARY_FAILURE,
    NotifyType.CHILD_SA_NOT_FOUND.name: RekeyAnswer.CHILD_SA_NOT_FOUND,
    NotifyType.NO_ADDITIONAL_SAS.name: RekeyAnswer.NO_ADDITIONAL_SAS,
}


def temporary_failure_wait_s(ike_sa: IkeSa, attempt: int) -> float:
    """Return how long to wait before asking again, longer each time and never in step with the peer."""
    return (
        ike_sa.context.options.temporary_failure_retry_s
        * 2.0 ** min(attempt, 5)
        * (0.5 + ike_sa.context.draw())
    )


def offer_child(
    ike_sa: IkeSa, child: Child, replaced: ChildSa | None = None, beside: Beside | None = None
) -> Steps[Made]:
    """Negotiate a Child SA as initiator, again with another key exchange method if the peer wants one.

    Raises:
        ChildRefusedByPeer: The peer made none.
        PeerError: Its answer was no good; it was deleted again.
        Denied: There is no SPI.
        IkeSaGone: The IKE SA ended.
    """
    spi_in = yield from allocate_spi(ike_sa.connection.name, child.name)
    offer = _in_place(make_offer(ike_sa, child, spi_in, with_ke=True), replaced, beside)
    ike_sa.early_deletes.clear()
    tried: set[Ke] = set()
    while True:
        nonce_i = ike_sa.context.new_nonce()
        response = yield from request(
            ExchangeType.CREATE_CHILD_SA, _request_payloads(offer, nonce_i, replaced)
        )
        method = _other_method(offer, response.payloads, tried)
        if method is None:
            break
        if replaced is not None and replaced.child_sa_id not in ike_sa.children:
            raise ChildRefusedByPeer(WITHDRAWN)
        offer = make_offer(ike_sa, child, spi_in, with_ke=True, ke_method=method)
        offer = _in_place(offer, replaced, beside)
    try:
        return _derive(ike_sa, offer, response, nonce_i, replaced)
    except ChildRefusedByPeer:
        raise
    except PeerError:
        # The peer has installed what we refuse (RFC 7296 §1.4.1).
        yield from delete_spi(spi_in, offer.protocol)
        raise


def _in_place(offer: Offer, replaced: ChildSa | None, beside: Beside | None) -> Offer:
    """Return the offer of a Child SA that is made for the CPU of another one, or beside one (RFC 9611 §3)."""
    if beside is not None:
        return offer_beside(offer, beside.child_sa, beside.cpu)
    if replaced is not None:
        return replace(offer, resource=replaced.parameters.resource, is_first=False)
    return offer


def delete_spi(spi_in: Spi, protocol: ProtocolId) -> Steps[None]:
    """Have the peer delete a Child SA of which we keep nothing."""
    yield from request(ExchangeType.INFORMATIONAL, [DeletePayload(protocol, (encode_spi(spi_in),))])


def _request_payloads(offer: Offer, nonce_i: bytes, replaced: ChildSa | None) -> list[Payload]:
    # HDR, SK {[N(REKEY_SA)], [N(USE_TRANSPORT_MODE)], [N(SA_RESOURCE_INFO)], SA, Ni, [KEi], TSi, TSr}
    payloads: list[Payload] = []
    if replaced is not None:
        payloads.append(
            NotifyPayload(NotifyType.REKEY_SA, protocol=replaced.protocol, spi=encode_spi(replaced.spi_in))
        )
    payloads += [*offer.notifies(), offer.sa_payload(), NoncePayload(nonce_i)]
    if offer.key_exchange is not None:
        payloads.append(KePayload(offer.key_exchange.method, offer.key_exchange.public))
    return [*payloads, *offer.ts_payloads()]


def _other_method(offer: Offer, payloads: tuple[Payload, ...], tried: set[Ke]) -> Ke | None:
    """Return the key exchange method an INVALID_KE_PAYLOAD asks for, if it is ours and was not tried."""
    notify = find_notify(payloads, NotifyType.INVALID_KE_PAYLOAD)
    if notify is None or offer.key_exchange is None:
        return None
    tried.add(offer.key_exchange.method)
    try:
        method = parse_ke_method(notify.data)
    except PeerError:
        return None
    if method not in ke_methods(offer.proposals) or method in tried:
        return None
    return Ke(method)


def _derive(
    ike_sa: IkeSa, offer: Offer, response: Received, nonce_i: bytes, replaced: ChildSa | None
) -> Made:
    agreement = check_answer(offer, response.payloads, with_ke=True)
    if (offer.protocol, encode_spi(agreement.spi_out)) in ike_sa.early_deletes:
        # The response was repeated for us; the peer's DELETE of what it tells of came before it.
        raise ChildRefusedByPeer(WITHDRAWN)
    nonces = ChildNonces(nonce_i=nonce_i, nonce_r=get_payload(response.payloads, NoncePayload).data)
    shared_secret = _agree_key(offer, agreement, find_payload(response.payloads, KePayload))
    child_sa = make_child_sa(
        ike_sa,
        agreement,
        spi_in=offer.spi_in,
        nonces=nonces,
        shared_secret=shared_secret,
        is_initiator=True,
        replaces=None if replaced is None else replaced.child_sa_id,
    )
    return Made(child_sa=child_sa, nonces=nonces)


def _agree_key(offer: Offer, agreement: Agreement, ke: KePayload | None) -> Secret | None:
    if agreement.proposal.ke is Ke.NONE:
        return None
    ours = offer.key_exchange
    if ke is None or ours is None or not ke.method == ours.method == agreement.proposal.ke:
        came = "no KE payload" if ke is None else f"a KE payload of method {ke.method}"
        raise PeerError(f"the peer chose {agreement.proposal} and sent {came}", NotifyType.INVALID_SYNTAX)
    return ours.compute(ke.data)


def complete(ike_sa: IkeSa, made: Made) -> Steps[None]:
    """Install both directions of a new Child SA as initiator and tell it; on refusal delete it again."""
    child_sa = made.child_sa
    try:
        yield from install_inbound(ike_sa, child_sa)
        yield from install_outbound(ike_sa, child_sa)
    except (Denied, IkeSaGone) as error:
        abandon_child(ike_sa, child_sa, failure_of(error))
        return
    ike_sa.child_established(child_sa)


def failure_of(error: PeerError | Denied | IkeSaGone) -> Failure:
    """Return what is told of an error that ended a Child SA's making."""
    if isinstance(error, ChildRejected | IkeSaGone):
        return error.failure
    if isinstance(error, Denied):
        return error.failure()
    return Failure(reason=FailureReason.INVALID_SYNTAX, detail=str(error))


def child_of(error: PeerError | Denied) -> str:
    """Return the configured Child that an error is about, as far as it is known."""
    return error.child if isinstance(error, ChildRejected) else ""


# --- responder ----------------------------------------------------------------------------------


def respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    """Answer a request for a new Child SA."""
    limit = ike_sa.context.options.child_limit
    if len(ike_sa.children) >= limit:
        yield SendResponse(payloads=[NotifyPayload(NotifyType.NO_ADDITIONAL_SAS)])
        return
    try:
        answered = yield from answer_offer(ike_sa, received, ike_sa.connection.children)
    except (PeerError, Denied) as error:
        yield SendResponse(payloads=[rejection_notify(error)])
        ike_sa.child_failed(child_of(error), failure_of(error))
        return
    yield SendResponse(payloads=answered.payloads)
    yield from finish_as_responder(ike_sa, answered.child_sa)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A Child SA as responder: its inbound SA is installed, the answer is ready to leave."""

    child_sa: ChildSa
    nonces: ChildNonces
    payloads: list[Payload]


def answer_offer(
    ike_sa: IkeSa, received: Received, children: tuple[Child, ...], replaces: ChildSaId | None = None
) -> Steps[Answered]:
    """Choose, derive and install inbound, as responder of CREATE_CHILD_SA.

    Raises:
        PeerError: The offer is refused; carries the notify.
        Denied: The datapath refused.
    """
    payloads = received.payloads
    agreement = choose(ike_sa, payloads, children, with_ke=True)
    old = None if replaces is None else ike_sa.children.get(replaces)
    if old is not None:
        agreement = replace(agreement, resource=old.parameters.resource)
    else:
        agreement = with_resource(ike_sa, agreement, payloads)
    nonce_i = get_payload(payloads, NoncePayload).data
    spi_in = yield from allocate_spi(ike_sa.connection.name, agreement.child.name)
    nonces = ChildNonces(nonce_i=nonce_i, nonce_r=ike_sa.context.new_nonce())
    mode, sa, selectors = answer_payloads(agreement, spi_in, payloads)
    # HDR, SK {[N(USE_TRANSPORT_MODE)], [N(SA_RESOURCE_INFO)], SA, Nr, [KEr], TSi, TSr}
    answer: list[Payload] = [*mode, sa, NoncePayload(nonces.nonce_r)]
    shared_secret: Secret | None = None
    if agreement.proposal.ke is not Ke.NONE:
        key_exchange = generate(agreement.proposal.ke, ike_sa.context.entropy)
        shared_secret = key_exchange.compute(get_payload(payloads, KePayload).data)
        answer.append(KePayload(key_exchange.method, key_exchange.public))
    child_sa = make_child_sa(
        ike_sa,
        agreement,
        spi_in=spi_in,
        nonces=nonces,
        shared_secret=shared_secret,
        is_initiator=False,
        replaces=replaces,
    )
    try:
        yield from install_inbound(ike_sa, child_sa)
    except Denied as denied:
        if child_sa.child_sa_id in ike_sa.children:
            ike_sa.end_child(child_sa, denied.failure())
        raise
    return Answered(child_sa=child_sa, nonces=nonces, payloads=[*answer, *selectors])


def with_resource(ike_sa: IkeSa, agreement: Agreement, payloads: tuple[Payload, ...]) -> Agreement:
    """Return what was agreed on with the CPU that it is for, if it is one of several (RFC 9611).

    Raises:
        ChildRejected: There are enough, or it is unlike the others.
    """
    try:
        resource = assign(
            ike_sa,
            agreement.child,
            payloads,
            (agreement.proposal, agreement.mode, agreement.local_ts, agreement.remote_ts),
        )
    except ChildRejected as rejection:
        rejection.child = agreement.child.name
        raise
    return replace(agreement, resource=resource)


def rejection_notify(error: PeerError | Denied, *, in_auth: bool = False) -> NotifyPayload:
    """Return what the peer is told when its Child SA is refused."""
    if isinstance(error, Denied):
        return NotifyPayload(refusal_notify(error, in_auth=in_auth))
    return NotifyPayload(error.notify or NotifyType.NO_PROPOSAL_CHOSEN, error.data)
