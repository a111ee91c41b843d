"""CREATE_CHILD_SA that replaces the IKE SA, both roles, and collisions (RFC 7296 §1.3.2, §2.8.2, §2.18).

```
 HDR, SK { SA, Ni, KEi }  -->
                          <--  HDR, SK { SA, Nr, KEr }
 HDR, SK { D(IKE) }       -->                            on the old IKE SA
                          <--  HDR, SK { }
```

The successor inherits every Child SA and all that waits for its turn; Message IDs begin at 0 again. When
both sides rekey at once, the successor with the lowest of the four nonces is deleted by whoever made it,
and the other side deletes the old IKE SA.
"""

from dataclasses import dataclass

from gateway.ike.crypto.kex import KeyExchange, generate
from gateway.ike.crypto.keymat import derive_rekeyed_ike_keys
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.errors import PeerError
from gateway.ike.events import Failure, FailureReason, IkeSaRekeyed
from gateway.ike.timers import Timer
from gateway.ike.v2.create_child_sa import failure_of, rekey_answer, temporary_failure_wait_s
from gateway.ike.v2.exchange import (
    Adopt,
    ChildRejected,
    Denied,
    IkeSaGone,
    Plan,
    PlanKind,
    Received,
    SendResponse,
    Steps,
    request,
)
from gateway.ike.v2.ike_sa import IkeSa, Rival
from gateway.ike.v2.states import (
    REKEY_OUTCOMES,
    Contest,
    IkeSaState,
    IkeSaTrigger,
    RekeyAnswer,
    RekeyOutcome,
    rekey_contest,
)
from gateway.ike.wire.header import NO_SPI, SPI_BYTES, ExchangeType
from gateway.ike.wire.notify import NotifyType, encode_ke_method, parse_ke_method
from gateway.ike.wire.payloads import (
    DeletePayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    error_notify,
    find_notify,
    find_payload,
    get_payload,
)
from gateway.ike.wire.sa_payload import wire_proposal, wire_proposals
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.proposal import (
    Proposal,
    ProtocolId,
    explain_mismatch,
    format_proposals,
    is_acceptable_answer,
    ke_methods,
    select_offer,
)
from gateway.ipsec.secret import Secret

MAX_BACKOFF_DOUBLINGS = 6
REPLACED = Failure(reason=FailureReason.REPLACED, detail="the IKE SA was rekeyed")
REDUNDANT = Failure(
    reason=FailureReason.REPLACED, detail="both sides rekeyed the IKE SA at once; the other successor stays"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What a rekey agreed on."""

    proposal: Proposal
    spi_i: bytes
    spi_r: bytes
    nonce_i: bytes
    nonce_r: bytes
    shared_secret: Secret

    @property
    def nonces(self) -> tuple[bytes, bytes]:
        """Return both nonces."""
        return self.nonce_i, self.nonce_r


# --- initiator ----------------------------------------------------------------------------------


def initiate(ike_sa: IkeSa) -> Steps[None]:
    """Replace the IKE SA.

    Raises:
        IkeSaGone: It is replaced, and the old one deleted.
    """
    ike_sa.follow(IkeSaTrigger.REKEY_STARTED)
    try:
        terms = yield from _negotiate(ike_sa)
    except (PeerError, Denied) as error:
        _rekey_failed(ike_sa, failure_of(error))
        return
    made = _make(ike_sa, terms, is_initiator=True)
    is_settled = ike_sa.state is not IkeSaState.REKEYING
    rival, rival_sa = _take_rival(ike_sa)
    match REKEY_OUTCOMES[RekeyAnswer.MADE, _contest(terms, rival, is_settled=is_settled)]:
        case RekeyOutcome.DELETE_OURS:
            made.plan(Plan(kind=PlanKind.DELETE_IKE, failure=REDUNDANT), first=True)
            ike_sa.newborn = made
            yield Adopt()
            if rival_sa is not None:
                _await_peer(ike_sa, rival_sa)
            return
        case _:
            ike_sa.newborn = made
            yield Adopt()
            hand_over(ike_sa, made)
    if rival_sa is not None:
        # The peer has to see all four nonces too, or what it made stays here as an orphan: so the old IKE SA
        # goes when the redundant one does, which shows that our response has come (`Runner.end`).
        rival_sa.set_timer(Timer.IKE_LINGER, ike_sa.context.now + ike_sa.context.options.delete_grace_s)
        return
    yield from request(ExchangeType.INFORMATIONAL, [DeletePayload(ProtocolId.IKE)])
    raise IkeSaGone(REPLACED)


def _contest(terms: _Terms, rival: Rival | None, *, is_settled: bool) -> Contest:
    """Tell whether the peer rekeyed the IKE SA too, and who wins.

    Settled it is where the peer asked for something in its successor: it saw all four nonces, or our request
    came too late.
    """
    if is_settled:
        return Contest.SETTLED
    return Contest.NONE if rival is None else rekey_contest(terms.nonces, rival.nonces)


def _negotiate(ike_sa: IkeSa) -> Steps[_Terms]:
    proposals = ike_sa.offered_proposals
    method = ke_methods(proposals)[0] if ike_sa.proposal is None else ike_sa.proposal.ke
    if method not in ke_methods(proposals):
        method = ke_methods(proposals)[0]
    spi_i, nonce_i, tried = ike_sa.context.new_ike_spi(), ike_sa.context.new_nonce(), {method}
    while True:
        ours = generate(method, ike_sa.context.entropy)
        # HDR, SK {SA, Ni, KEi}
        response = yield from request(
            ExchangeType.CREATE_CHILD_SA,
            [
                SaPayload(wire_proposals(proposals, spi_i)),
                NoncePayload(nonce_i),
                KePayload(ours.method, ours.public),
            ],
        )
        other = _other_method(response.payloads, proposals, tried)
        if other is None:
            return _check_answer(ike_sa, response, ours, spi_i, nonce_i)
        tried.add(other)
        method = other


def _other_method(
    payloads: tuple[Payload, ...], proposals: tuple[Proposal, ...], tried: set[Ke]
) -> Ke | None:
    notify = find_notify(payloads, NotifyType.INVALID_KE_PAYLOAD)
    if notify is None:
        return None
    try:
        method = parse_ke_method(notify.data)
    except PeerError:
        return None
    return Ke(method) if method in ke_methods(proposals) and method not in tried else None


def _check_answer(
    ike_sa: IkeSa, response: Received, ours: KeyExchange, spi_i: bytes, nonce_i: bytes
) -> _Terms:
    payloads, offered = response.payloads, ike_sa.offered_proposals
    sa = find_payload(payloads, SaPayload)
    if sa is None:
        raise _refused(payloads, offered)
    wire = sa.proposals[0]
    proposal = wire.proposal
    if len(sa.proposals) != 1 or proposal is None or not is_acceptable_answer(proposal, offered):
        raise PeerError(f"the peer chose an IKE proposal that we did not offer: {proposal}")
    if len(wire.spi) != SPI_BYTES or wire.spi == NO_SPI:
        raise PeerError(f"the SPI of the new IKE SA is 0x{wire.spi.hex()}")
    ke = get_payload(payloads, KePayload)
    if not ke.method == proposal.ke == ours.method:
        raise PeerError(f"the peer answered with key exchange method {ke.method} to {proposal}")
    return _Terms(
        proposal=proposal,
        spi_i=spi_i,
        spi_r=wire.spi,
        nonce_i=nonce_i,
        nonce_r=get_payload(payloads, NoncePayload).data,
        shared_secret=ours.compute(ke.data),
    )


def _refused(payloads: tuple[Payload, ...], offered: tuple[Proposal, ...]) -> ChildRejected:
    notify = error_notify(payloads)
    name = "a response without SA" if notify is None else notify.name
    texts = format_proposals(offered)
    return ChildRejected(
        Failure(
            reason=FailureReason.NO_PROPOSAL_CHOSEN
            if name == NotifyType.NO_PROPOSAL_CHOSEN.name
            else FailureReason.PEER_NOTIFY,
            detail=f"the peer refused to rekey the IKE SA with {name}; we offered {texts}",
            notify="" if notify is None else name,
            offered=texts,
        )
    )


def _rekey_failed(ike_sa: IkeSa, failure: Failure) -> None:
    _, rival_sa = _take_rival(ike_sa)
    contest = Contest.NONE if rival_sa is None else Contest.SETTLED
    outcome = REKEY_OUTCOMES[rekey_answer(failure), contest]
    if outcome is RekeyOutcome.AWAIT_PEER and rival_sa is not None:
        _await_peer(ike_sa, rival_sa)
        return
    if ike_sa.state is not IkeSaState.REKEYING:
        return
    ike_sa.follow(IkeSaTrigger.REKEY_FAILED)
    attempt = ike_sa.rekey_attempts.get(0, 0)
    ike_sa.rekey_attempts[0] = attempt + 1
    if outcome is RekeyOutcome.RETRY_SOON:
        wait_s = temporary_failure_wait_s(ike_sa, attempt)
    else:
        wait_s = ike_sa.context.options.rekey_retry_s * 2.0 ** min(attempt, MAX_BACKOFF_DOUBLINGS)
    ike_sa.set_timer(Timer.IKE_REKEY, ike_sa.context.now + wait_s)
    if outcome is RekeyOutcome.ANEW_OR_LATER:
        ike_sa.set_timer(Timer.IKE_REAUTH, ike_sa.context.now)


# --- responder ----------------------------------------------------------------------------------


def respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    """Answer a request to replace the IKE SA that collides with nothing, or with our own rekey only."""
    try:
        terms, answer = _choose(ike_sa, received)
    except PeerError as error:
        yield SendResponse(
            payloads=[NotifyPayload(error.notify or NotifyType.NO_PROPOSAL_CHOSEN, error.data)]
        )
        return
    made = _make(ike_sa, terms, is_initiator=False)
    ike_sa.newborn = made
    yield Adopt()
    yield SendResponse(payloads=answer)
    if ike_sa.state is IkeSaState.REKEYING:
        ike_sa.rival, ike_sa.rival_sa = Rival(made.id, terms.nonces), made
        made.predecessor = ike_sa
    else:
        _await_peer(ike_sa, made)


def _choose(ike_sa: IkeSa, received: Received) -> tuple[_Terms, list[Payload]]:
    payloads = received.payloads
    usable = [
        (wire, p) for wire in get_payload(payloads, SaPayload).proposals if (p := wire.proposal) is not None
    ]
    offered, configured = [proposal for _, proposal in usable], ike_sa.offered_proposals
    selection = select_offer(offered, configured)
    if selection is None:
        raise PeerError(explain_mismatch(offered, configured), NotifyType.NO_PROPOSAL_CHOSEN)
    wire, proposal = usable[selection.index][0], selection.proposal
    if len(wire.spi) != SPI_BYTES or wire.spi == NO_SPI:
        raise PeerError(f"the SPI of the new IKE SA is 0x{wire.spi.hex()}", NotifyType.INVALID_SYNTAX)
    ke = get_payload(payloads, KePayload)
    if ke.method != proposal.ke:
        raise PeerError(
            f"KE payload is of method {ke.method}, {proposal.ke.name} is wanted",
            NotifyType.INVALID_KE_PAYLOAD,
            encode_ke_method(proposal.ke),
        )
    ours = generate(proposal.ke, ike_sa.context.entropy)
    terms = _Terms(
        proposal=proposal,
        spi_i=wire.spi,
        spi_r=ike_sa.context.new_ike_spi(),
        nonce_i=get_payload(payloads, NoncePayload).data,
        nonce_r=ike_sa.context.new_nonce(),
        shared_secret=ours.compute(ke.data),
    )
    # HDR, SK {SA, Nr, KEr}
    answer: list[Payload] = [
        SaPayload((wire_proposal(proposal, wire.number, terms.spi_r),)),
        NoncePayload(terms.nonce_r),
        KePayload(ours.method, ours.public),
    ]
    return terms, answer


# --- both ---------------------------------------------------------------------------------------


def _make(old: IkeSa, terms: _Terms, *, is_initiator: bool) -> IkeSa:
    """Return the successor, established, with nothing handed over yet."""
    assert old.proposal is not None
    assert old.keys is not None
    made = IkeSa(
        old.context,
        connection=old.connection,
        is_initiator=is_initiator,
        spi_i=terms.spi_i,
        spi_r=terms.spi_r,
        path=old.path,
    )
    made.is_successor = True
    made.local_id, made.remote_id, made.nat = old.local_id, old.remote_id, old.nat
    made.remote_certificates = old.remote_certificates
    made.max_packet_bytes = old.max_packet_bytes
    made.nonce_i, made.nonce_r = terms.nonces
    keys = derive_rekeyed_ike_keys(
        IkeSuite.of(terms.proposal),
        old_prf=old.proposal.prf,
        old_sk_d=old.keys.sk_d,
        shared_secret=terms.shared_secret,
        nonce_i=terms.nonce_i,
        nonce_r=terms.nonce_r,
        spi_i=terms.spi_i,
        spi_r=terms.spi_r,
    )
    terms.shared_secret.wipe()
    made.adopt_keys(terms.proposal, keys)
    made.establish(IkeSaTrigger.INHERITED)
    return made


def _take_rival(ike_sa: IkeSa) -> tuple[Rival | None, IkeSa | None]:
    """Return what the peer's half of a collision made, if it is still there."""
    rival, rival_sa = ike_sa.rival, ike_sa.rival_sa
    ike_sa.rival = ike_sa.rival_sa = None
    if rival_sa is None or rival_sa.state is IkeSaState.DELETED:
        return None, None
    return rival, rival_sa


def _await_peer(ike_sa: IkeSa, successor: IkeSa) -> None:
    """Let the peer's successor take over; the peer deletes the old IKE SA, or we do it later."""
    hand_over(ike_sa, successor)
    ike_sa.set_timer(Timer.IKE_LINGER, ike_sa.context.now + ike_sa.context.options.delete_grace_s)


def take_over(ike_sa: IkeSa) -> None:
    """Let the peer's successor take over now that the peer asks for something in it: it stays.

    While our own rekey is unanswered nobody told us; the peer knows, or it would have begun with a DELETE.
    """
    old, ike_sa.predecessor = ike_sa.predecessor, None
    if old is None or old.rival_sa is not ike_sa or old.state is not IkeSaState.REKEYING:
        return
    old.rival = old.rival_sa = None
    _await_peer(old, ike_sa)


def peer_deleted(ike_sa: IkeSa) -> None:
    """Take the peer's DELETE of an IKE SA that we are rekeying: forget our request (RFC 7296 §2.25.2)."""
    _, rival_sa = _take_rival(ike_sa)
    if rival_sa is not None:
        hand_over(ike_sa, rival_sa)


def hand_over(old: IkeSa, new: IkeSa) -> None:
    """Give everything the old IKE SA cares for to its successor, and tell it."""
    old.follow(IkeSaTrigger.REPLACED)
    for timer in (Timer.IKE_REKEY, Timer.IKE_EXPIRE, Timer.LIVENESS, Timer.KEEPALIVE):
        old.cancel_timer(timer)
    for child_sa in old.children.values():
        new.add_child(child_sa)
    old.children = {}
    for task in old.background:
        # What is still being installed belongs to the Child SAs, not to the IKE SA that negotiated them.
        task.ike_sa = new
    new.background += old.background
    old.background = []
    new.rivals, new.settled = old.rivals, old.settled
    old.rivals, old.settled = {}, set()
    new.rekey_attempts = {number: n for number, n in old.rekey_attempts.items() if number}
    for plan in old.plans:
        if _outlives_rekey(plan):
            new.plan(plan)
    old.plans.clear()
    for subject, plan in old.delayed.items():
        deadline = old.timer_deadline(Timer.PAUSE, subject)
        old.cancel_timer(Timer.PAUSE, subject)
        new.delayed[subject] = plan
        new.set_timer(Timer.PAUSE, deadline or old.context.now, subject)
    old.delayed = {}
    old.successor, new.predecessor = new, None
    new.is_told = True
    old.context.emit(IkeSaRekeyed(old=old.info(), new=new.info()))


def _outlives_rekey(plan: Plan) -> bool:
    """Tell whether what was asked of the old IKE SA is for its successor to do."""
    if plan.kind is PlanKind.DELETE_IKE:
        return plan.failure is not None and plan.failure.reason is FailureReason.DELETED_BY_OPERATOR
    return plan.kind not in (PlanKind.REKEY_IKE, PlanKind.LIVENESS)
