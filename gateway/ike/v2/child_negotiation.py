"""Agreeing on one Child SA: the same in IKE_AUTH and CREATE_CHILD_SA (RFC 7296 §1.2, §1.3.1, §2.7, §2.9).

Offers, choices and checks of answers, without any state: what comes out is an `Agreement`, or a
`ChildRejected` that says what differed. Whose turn it is and what is installed when is for the exchanges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gateway.ike.crypto.kex import KeyExchange, generate
from gateway.ike.crypto.keymat import derive_child_keymat
from gateway.ike.errors import InvalidSyntax
from gateway.ike.events import ChildSaId, Failure, FailureReason
from gateway.ike.v2.child_sa import ChildSa, ChildSaParameters, Origin, Resource, child_lifetime, make_pair
from gateway.ike.v2.exchange import ChildRefusedByPeer, ChildRejected
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.resources import FOR_ALL, cpus_of, proposals_like, resource_notify, says_resource
from gateway.ike.wire.notify import NotifyType, encode_ke_method
from gateway.ike.wire.payloads import (
    KePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    TsiPayload,
    TsrPayload,
    find_notify,
    find_payload,
    get_payload,
)
from gateway.ike.wire.sa_payload import WireProposal, wire_proposal, wire_proposals
from gateway.ipsec.algorithms import KE, Ke, TransformType
from gateway.ipsec.connection import Child
from gateway.ipsec.policy import Action
from gateway.ipsec.proposal import (
    Proposal,
    ProtocolId,
    default_proposals,
    explain_mismatch,
    format_proposals,
    is_acceptable_answer,
    ke_methods,
    select_offer,
)
from gateway.ipsec.sa import MAX_SPI, MIN_SPI, Mode, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import (
    TrafficSelector,
    TsUnacceptable,
    format_selectors,
    is_narrowing,
    narrow,
)

Selectors = tuple[TrafficSelector, ...]
SPI_BYTES = 4


# --- what both sides do -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What both sides agreed on for one Child SA."""

    child: Child
    proposal: Proposal
    mode: Mode
    spi_out: Spi
    local_ts: Selectors
    remote_ts: Selectors
    number: int = 1
    """Of the proposal that was chosen."""
    resource: Resource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildNonces:
    """The nonces KEYMAT is made from: of IKE_SA_INIT for the first Child SA, else of the exchange."""

    nonce_i: bytes
    nonce_r: bytes


def child_proposals(child: Child, *, with_ke: bool) -> tuple[Proposal, ...]:
    """Return the proposals of a Child; in IKE_AUTH without key exchange methods (RFC 7296 §1.2)."""
    proposals = child.proposals or default_proposals(child.protocol)
    return proposals if with_ke else _without_ke(proposals)


@lru_cache(maxsize=64)
def _without_ke(proposals: tuple[Proposal, ...]) -> tuple[Proposal, ...]:
    kept = (TransformType.ENCR, TransformType.INTEG, TransformType.SN)
    stripped = (Proposal(p.protocol, tuple(t for t in p.transforms if t.type in kept)) for p in proposals)
    return tuple(dict.fromkeys(stripped))


def configured_selectors(ike_sa: IkeSa, child: Child) -> tuple[Selectors, Selectors]:
    """Return local and remote selectors; an empty side means the IKE SA's own address there.

    That is the address of IKE_SA_INIT: whoever derived keys from that exchange was there. Where later
    messages come from is what their sender wrote, and no peer is to choose whose packets we protect.
    """
    place = ike_sa.init_path
    return (
        child.local_ts or (TrafficSelector.from_prefix(place.local),),
        child.remote_ts or (TrafficSelector.from_prefix(place.remote),),
    )


def make_child_sa(
    ike_sa: IkeSa,
    agreement: Agreement,
    *,
    spi_in: Spi,
    nonces: ChildNonces,
    shared_secret: Secret | None,
    is_initiator: bool,
    replaces: ChildSaId | None = None,
) -> ChildSa:
    """Derive the keys of an agreed Child SA and make its record; the IKE SA takes it into care.

    Args:
        ike_sa: Whose SK_d the keys come from.
        agreement: What was agreed.
        spi_in: The inbound SPI.
        nonces: Of the exchange.
        shared_secret: Of the key exchange in CREATE_CHILD_SA, if there was one.
        is_initiator: Whether we initiated that exchange.
        replaces: The Child SA it takes over from.
    """
    assert ike_sa.proposal is not None
    assert ike_sa.keys is not None
    proposal = agreement.proposal
    keys = derive_child_keymat(
        ike_sa.proposal.prf,
        ike_sa.keys.sk_d,
        encr=proposal.encr,
        key_bits=proposal.key_bits,
        integ=proposal.integ,
        nonce_i=nonces.nonce_i,
        nonce_r=nonces.nonce_r,
        shared_secret=shared_secret,
    )
    context = ike_sa.context
    parameters = ChildSaParameters(
        child_sa_id=context.new_child_sa_id(),
        connection=ike_sa.connection.name,
        child=agreement.child,
        proposal=proposal,
        mode=agreement.mode,
        spi_in=spi_in,
        spi_out=agreement.spi_out,
        local_ts=agreement.local_ts,
        remote_ts=agreement.remote_ts,
        path=ike_sa.path,
        is_encapsulated=ike_sa.nat.is_present,
        lifetime=child_lifetime(agreement.child, esn=proposal.esn, draw=context.draw()),
        resource=agreement.resource,
    )
    old = None if replaces is None else ike_sa.children.get(replaces)
    made_here = Origin(is_ours=is_initiator, lowest_nonce=min(nonces.nonce_i, nonces.nonce_r))
    child_sa = ChildSa(
        ike_sa_id=ike_sa.id,
        parameters=parameters,
        pair=make_pair(parameters, keys, is_initiator=is_initiator),
        origin=made_here if old is None else old.origin,
        replaces=replaces,
    )
    ike_sa.add_child(child_sa)
    return child_sa


def check_nat(ike_sa: IkeSa, child: Child) -> None:
    """Check that no NAT is in the way of what a Child wants.

    The ICV of AH covers the addresses, and it has no UDP encapsulation (RFC 4302 §3.3.3, RFC 3948 §1).

    Raises:
        ChildRejected: NO_PROPOSAL_CHOSEN: the Child is for AH, and packets would have to be in UDP.
    """
    if child.protocol is not ProtocolId.AH or not ike_sa.nat.is_present:
        return
    detail = (
        f"Child {child.name!r} is for AH, which cannot cross a NAT, and there is one (or UDP encapsulation "
        "is forced); use esp instead, with null encryption if nothing need be hidden"
    )
    failure = Failure(
        reason=FailureReason.NO_PROPOSAL_CHOSEN,
        detail=detail,
        notify=NotifyType.NO_PROPOSAL_CHOSEN.name,
        configured=format_proposals(child.proposals),
    )
    raise ChildRejected(failure, NotifyType.NO_PROPOSAL_CHOSEN, child=child.name)


def parse_spi(spi: bytes) -> Spi:
    """Return an ESP or AH SPI of the peer.

    Raises:
        InvalidSyntax: It has not 4 bytes, or is one of the reserved numbers (RFC 4303 §2.1).
    """
    number = int.from_bytes(spi, "big")
    if len(spi) != SPI_BYTES or not MIN_SPI <= number <= MAX_SPI:
        raise InvalidSyntax(
            f"an ESP or AH SPI has {SPI_BYTES} bytes and is {MIN_SPI} or more, got 0x{spi.hex()}"
        )
    return Spi(number)


def encode_spi(spi: Spi) -> bytes:
    """Return an SPI as it stands in proposals, REKEY_SA and DELETE."""
    return spi.to_bytes(SPI_BYTES, "big")


# --- initiator ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What we propose for one Child SA."""

    child: Child
    proposals: tuple[Proposal, ...]
    spi_in: Spi
    local_ts: Selectors
    remote_ts: Selectors
    mode: Mode
    key_exchange: KeyExchange | None = None
    """Our half, where the first proposal has a key exchange method (PFS)."""
    resource: Resource | None = None
    is_first: bool = False
    """Whether the peer has to say SA_RESOURCE_INFO too, or there will be no others beside it."""

    @property
    def protocol(self) -> ProtocolId:
        """Return ESP or AH."""
        return self.child.protocol

    def notifies(self) -> list[Payload]:
        """Return [N(USE_TRANSPORT_MODE)] (RFC 7296 §1.3.1), [N(SA_RESOURCE_INFO)] (RFC 9611 §3)."""
        mode: list[Payload] = []
        if self.mode is Mode.TRANSPORT:
            mode.append(NotifyPayload(NotifyType.USE_TRANSPORT_MODE))
        return [*mode, *resource_notify(self.resource)]

    def sa_payload(self) -> SaPayload:
        """Return SA with our SPI in every proposal."""
        return SaPayload(wire_proposals(self.proposals, encode_spi(self.spi_in)))

    def ts_payloads(self) -> list[Payload]:
        """Return TSi, TSr."""
        return [TsiPayload(self.local_ts), TsrPayload(self.remote_ts)]


def make_offer(
    ike_sa: IkeSa, child: Child, spi_in: Spi, *, with_ke: bool, ke_method: Ke | None = None
) -> Offer:
    """Return what we propose for a Child.

    Transport mode is not asked for through a NAT: the selectors of RFC 7296 §2.23.1 would have to be
    rewritten on the way; tunnel mode between the same addresses carries the same traffic. Nor is it for other
    hosts than the two that speak: that is what tunnels are for (RFC 4301 §4.1).

    Args:
        ike_sa: The IKE SA it is negotiated in.
        child: What is wanted.
        spi_in: Our inbound SPI.
        with_ke: Whether the exchange can hold a KE payload.
        ke_method: The method the peer asked for; None: our first.

    Raises:
        ChildRejected: AH through a NAT.
    """
    check_nat(ike_sa, child)
    proposals = child_proposals(child, with_ke=with_ke)
    key_exchange = None
    if with_ke:
        methods = ke_methods(proposals)
        if methods:
            key_exchange = generate(ke_method or methods[0], ike_sa.context.entropy)
    local_ts, remote_ts = configured_selectors(ike_sa, child)
    return Offer(
        child=child,
        proposals=proposals,
        spi_in=spi_in,
        local_ts=local_ts,
        remote_ts=remote_ts,
        mode=child.mode if may_be_transport(ike_sa, local_ts, remote_ts) else Mode.TUNNEL,
        key_exchange=key_exchange,
        resource=FOR_ALL if cpus_of(ike_sa, child) else None,
        is_first=True,
    )


def offer_beside(offer: Offer, first: ChildSa, cpu: int) -> Offer:
    """Return the offer of a Child SA for a CPU: exactly like the one for all, beside it (RFC 9611 §3)."""
    given = first.parameters
    return replace(
        offer,
        proposals=proposals_like(given.proposal, offer.proposals),
        local_ts=given.local_ts,
        remote_ts=given.remote_ts,
        mode=given.mode,
        resource=Resource(cpu=cpu),
        is_first=False,
    )


def check_answer(offer: Offer, payloads: tuple[Payload, ...], *, with_ke: bool) -> Agreement:
    """Return what the peer made of our offer.

    The answer must be one of our proposals, and selectors nowhere wider than ours (RFC 7296 §2.7, §2.9).

    Raises:
        ChildRejected: The peer refused, or its answer is not one.
    """
    sa = find_payload(payloads, SaPayload)
    tsi, tsr = find_payload(payloads, TsiPayload), find_payload(payloads, TsrPayload)
    if sa is None or tsi is None or tsr is None:
        raise refused_by_peer(offer, payloads)
    wire, proposal = _single_proposal(sa)
    if proposal is None or not is_acceptable_answer(proposal, offer.proposals, ignore_ke=not with_ke):
        raise ChildRejected(
            Failure(
                reason=FailureReason.NO_PROPOSAL_CHOSEN,
                detail=f"the peer chose an {offer.protocol.name} proposal that we did not offer",
                offered=format_proposals(offer.proposals),
                configured="" if proposal is None else str(proposal),
            ),
            NotifyType.NO_PROPOSAL_CHOSEN,
        )
    if not (is_narrowing(tsi.selectors, offer.local_ts) and is_narrowing(tsr.selectors, offer.remote_ts)):
        raise ChildRejected(
            Failure(
                reason=FailureReason.TS_UNACCEPTABLE,
                detail="the peer answered with traffic selectors that are no part of ours",
                offered=_both(offer.local_ts, offer.remote_ts),
                configured=_both(tsi.selectors, tsr.selectors),
            ),
            NotifyType.TS_UNACCEPTABLE,
        )
    use_transport = find_notify(payloads, NotifyType.USE_TRANSPORT_MODE) is not None
    if use_transport and offer.mode is Mode.TUNNEL:
        raise ChildRejected(
            Failure(
                reason=FailureReason.INVALID_SYNTAX,
                detail="the peer answered with transport mode, which we did not ask for",
            )
        )
    # A responder may decline transport mode (RFC 7296 §1.3.1). Tunnel mode protects the same traffic between
    # the same hosts, so that it is better than nothing; `ChildSaInfo` says which one it is.
    return Agreement(
        child=offer.child,
        proposal=proposal,
        mode=Mode.TRANSPORT if use_transport else Mode.TUNNEL,
        spi_out=parse_spi(wire.spi),
        local_ts=tsi.selectors,
        remote_ts=tsr.selectors,
        resource=offer.resource if says_resource(payloads) or not offer.is_first else None,
    )


def refused_by_peer(offer: Offer, payloads: tuple[Payload, ...]) -> ChildRefusedByPeer:
    """Return what is told of a response that has no Child SA in it."""
    notify = next((p for p in payloads if isinstance(p, NotifyPayload) and p.is_error), None)
    if notify is None:
        failure = Failure(
            reason=FailureReason.INVALID_SYNTAX, detail="the response holds neither a Child SA nor an error"
        )
        return ChildRefusedByPeer(failure)
    reasons: dict[int, FailureReason] = {
        NotifyType.NO_PROPOSAL_CHOSEN: FailureReason.NO_PROPOSAL_CHOSEN,
        NotifyType.TS_UNACCEPTABLE: FailureReason.TS_UNACCEPTABLE,
        NotifyType.INVALID_KE_PAYLOAD: FailureReason.INVALID_KE_PAYLOAD,
    }
    selectors = notify.notify_type in (NotifyType.TS_UNACCEPTABLE, NotifyType.SINGLE_PAIR_REQUIRED)
    offered = _both(offer.local_ts, offer.remote_ts) if selectors else format_proposals(offer.proposals)
    failure = Failure(
        reason=reasons.get(notify.notify_type, FailureReason.PEER_NOTIFY),
        detail=f"the peer refused Child SA {offer.child.name!r} with {notify.name}; we offered {offered}",
        notify=notify.name,
        offered=offered,
    )
    return ChildRefusedByPeer(failure)


# --- responder ----------------------------------------------------------------------------------


def choose(
    ike_sa: IkeSa, payloads: tuple[Payload, ...], children: Sequence[Child], *, with_ke: bool
) -> Agreement:
    """Return what we make of the peer's offer: the first Child that fits selectors and proposals.

    Raises:
        ChildRejected: None fits; carries TS_UNACCEPTABLE, NO_PROPOSAL_CHOSEN or INVALID_KE_PAYLOAD, and
            for the operator what differed.
        InvalidSyntax: The offer is malformed.
    """
    tsi, tsr = get_payload(payloads, TsiPayload), get_payload(payloads, TsrPayload)
    rejection: ChildRejected | None = None
    for child in children:
        if child.action is not Action.PROTECT:
            continue
        try:
            local_ts, remote_ts = _narrow_both(ike_sa, child, tsr.selectors, tsi.selectors)
            return _choose_proposal(ike_sa, payloads, child, local_ts, remote_ts, with_ke=with_ke)
        except ChildRejected as error:
            # A Child whose selectors fit tells more about the mistake than one whose do not.
            if rejection is None or error.notify != NotifyType.TS_UNACCEPTABLE:
                rejection = error
                rejection.child = child.name
    if rejection is None:
        raise ChildRejected(
            Failure(
                reason=FailureReason.TS_UNACCEPTABLE,
                detail=f"connection {ike_sa.connection.name!r} has no Child to protect traffic with",
                notify=NotifyType.TS_UNACCEPTABLE.name,
                offered=_both(tsr.selectors, tsi.selectors),
            ),
            NotifyType.TS_UNACCEPTABLE,
        )
    raise rejection


def answer_payloads(
    agreement: Agreement, spi_in: Spi, asked: tuple[Payload, ...]
) -> tuple[list[Payload], SaPayload, list[Payload]]:
    """Return [N(USE_TRANSPORT_MODE)], [N(SA_RESOURCE_INFO)]; SA; TSi, TSr of a responder's answer."""
    mode: list[Payload] = []
    if agreement.mode is Mode.TRANSPORT:
        mode.append(NotifyPayload(NotifyType.USE_TRANSPORT_MODE))
    if says_resource(asked):
        mode += resource_notify(agreement.resource)
    sa = SaPayload((wire_proposal(agreement.proposal, agreement.number, encode_spi(spi_in)),))
    return mode, sa, [TsiPayload(agreement.remote_ts), TsrPayload(agreement.local_ts)]


def _narrow_both(
    ike_sa: IkeSa, child: Child, offered_local: Selectors, offered_remote: Selectors
) -> tuple[Selectors, Selectors]:
    local_ts, remote_ts = configured_selectors(ike_sa, child)
    try:
        return narrow(offered_local, local_ts), narrow(offered_remote, remote_ts)
    except TsUnacceptable:
        offered, configured = _both(offered_local, offered_remote), _both(local_ts, remote_ts)
        raise ChildRejected(
            Failure(
                reason=FailureReason.TS_UNACCEPTABLE,
                detail=f"no traffic selectors in common with Child {child.name!r}: "
                f"peer offered {offered}; configured {configured}",
                notify=NotifyType.TS_UNACCEPTABLE.name,
                offered=offered,
                configured=configured,
            ),
            NotifyType.TS_UNACCEPTABLE,
        ) from None


def _choose_proposal(
    ike_sa: IkeSa,
    payloads: tuple[Payload, ...],
    child: Child,
    local_ts: Selectors,
    remote_ts: Selectors,
    *,
    with_ke: bool,
) -> Agreement:
    sa = get_payload(payloads, SaPayload)
    # A proposal that must be refused whole stays in the list as one that matches nothing.
    usable = [(wire, proposal) for wire in sa.proposals if (proposal := wire.proposal) is not None]
    offered = [proposal for _, proposal in usable]
    configured = child_proposals(child, with_ke=with_ke)
    if any(proposal.protocol is child.protocol for proposal in offered):
        check_nat(ike_sa, child)
    selection = select_offer(offered, configured, ignore_ke=not with_ke)
    if selection is None:
        theirs, ours = format_proposals(offered), format_proposals(configured)
        difference = explain_mismatch(offered, configured, ignore_ke=not with_ke)
        raise ChildRejected(
            Failure(
                reason=FailureReason.NO_PROPOSAL_CHOSEN,
                detail=f"peer offered {theirs}; configured: {ours}; {difference}",
                notify=NotifyType.NO_PROPOSAL_CHOSEN.name,
                offered=theirs,
                configured=ours,
            ),
            NotifyType.NO_PROPOSAL_CHOSEN,
        )
    wire = usable[selection.index][0]
    proposal = selection.proposal
    if with_ke:
        proposal = _settle_ke(payloads, offered[selection.index], configured, proposal)
    asked = find_notify(payloads, NotifyType.USE_TRANSPORT_MODE) is not None
    transport = asked and child.mode is Mode.TRANSPORT and may_be_transport(ike_sa, local_ts, remote_ts)
    return Agreement(
        child=child,
        proposal=proposal,
        mode=Mode.TRANSPORT if transport else Mode.TUNNEL,
        spi_out=parse_spi(wire.spi),
        local_ts=local_ts,
        remote_ts=remote_ts,
        number=wire.number,
    )


def _settle_ke(
    payloads: tuple[Payload, ...], offer: Proposal, configured: Sequence[Proposal], chosen: Proposal
) -> Proposal:
    """Return the choice with the method of the KE payload where that is acceptable too.

    That saves a round trip: the initiator guessed a method, and any that both sides allow will do.

    Raises:
        ChildRejected: INVALID_KE_PAYLOAD, with the method we want.
    """
    ke = find_payload(payloads, KePayload)
    if ke is not None and ke.method != chosen.ke:
        guessed = Proposal(
            offer.protocol,
            tuple(t for t in offer.transforms if t.type is not TransformType.KE or t.id == ke.method),
        )
        better = select_offer([guessed], configured)
        if better is not None and better.proposal.ke == ke.method:
            return better.proposal
    if chosen.ke is Ke.NONE or (ke is not None and ke.method == chosen.ke):
        return chosen
    came = "no KE payload" if ke is None else f"a KE payload of {_ke_name(ke.method)}"
    raise ChildRejected(
        Failure(
            reason=FailureReason.INVALID_KE_PAYLOAD,
            detail=f"{came} came; we want {chosen.ke.name}",
            notify=NotifyType.INVALID_KE_PAYLOAD.name,
        ),
        NotifyType.INVALID_KE_PAYLOAD,
        encode_ke_method(chosen.ke),
    )


def may_be_transport(ike_sa: IkeSa, local_ts: Selectors, remote_ts: Selectors) -> bool:
    """Tell whether transport mode can carry this: selectors that hold nothing but both ends, and no NAT.

    The outer addresses are those of the packets then. With wider selectors a peer could speak for hosts whose
    packets we would in turn send past it.
    """
    ours, theirs = ike_sa.path.local, ike_sa.path.remote
    return (
        not ike_sa.nat.is_present
        and all(ts.start == ts.end == ours for ts in local_ts)
        and all(ts.start == ts.end == theirs for ts in remote_ts)
    )


def _single_proposal(sa: SaPayload) -> tuple[WireProposal, Proposal | None]:
    first = sa.proposals[0]
    return first, first.proposal if len(sa.proposals) == 1 else None


def _both(local_ts: Sequence[TrafficSelector], remote_ts: Sequence[TrafficSelector]) -> str:
    return f"{format_selectors(local_ts)} === {format_selectors(remote_ts)}"


def _ke_name(method: int) -> str:
    return KE[Ke(method)].keyword if method in KE else str(method)
