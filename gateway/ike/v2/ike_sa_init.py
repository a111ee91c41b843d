"""IKE_SA_INIT, both roles: algorithms, key exchange, nonces, NAT detection (RFC 7296 §1.2, §2.6, §2.7).

```
 HDR, SAi1, KEi, Ni, N(NAT_DETECTION_*)  -->
                                         <--  HDR, SAr1, KEr, Nr, N(NAT_DETECTION_*)
                              or         <--  HDR, N(COOKIE) | N(INVALID_KE_PAYLOAD) | N(error)
```

Nothing here is authenticated until IKE_AUTH signs it. An initiator therefore takes an error notify as a
hint only: it keeps its request outstanding for `ERROR_GRACE_S` more, takes a good response if one comes,
and fails with the hint if none does. That is quick enough for an operator's typing mistake, and an attacker
who can only guess or replay cannot make a connection fail. Each key exchange method is tried at most once,
and only if we offered it, so that INVALID_KE_PAYLOAD cannot make us go round in circles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.ike.crypto.kex import KeyExchange, generate
from gateway.ike.crypto.keymat import derive_ike_keys
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.errors import PeerError
from gateway.ike.events import Failure, FailureReason, IkeSaFailed
from gateway.ike.path import Path
from gateway.ike.v2.childless import note_support, support_notify
from gateway.ike.v2.context import Context
from gateway.ike.v2.exchange import AwaitResponse, IkeSaGone, Received, SendRequest, Steps
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.nat import detect, detection_to_send, floated
from gateway.ike.v2.proof import announced_hashes, certificate_requests
from gateway.ike.v2.states import IkeSaTrigger
from gateway.ike.wire.header import NO_SPI, ExchangeType
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import (
    NotifyType,
    encode_ke_method,
    encode_signature_hashes,
    parse_ke_method,
    parse_signature_hashes,
)
from gateway.ike.wire.payloads import (
    CertreqPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    VendorIdPayload,
    all_payloads,
    error_notify,
    find_notify,
    get_payload,
)
from gateway.ike.wire.sa_payload import wire_proposal, wire_proposals
from gateway.ipsec.algorithms import Ke, TransformType
from gateway.ipsec.connection import Connection, Fragmentation
from gateway.ipsec.proposal import (
    Proposal,
    ProtocolId,
    Selection,
    default_proposals,
    explain_mismatch,
    format_proposals,
    is_acceptable_answer,
    ke_methods,
    select_offer,
)
from gateway.ipsec.secret import Secret

ERROR_GRACE_S: Final = 2.0
"""How long after an unauthenticated error notify a better response is waited for, in seconds."""
MAX_COOKIES: Final = 3
"""How often a request is repeated with a new cookie; a secret that rotates meanwhile needs one more."""
COOKIE_BYTES: Final = range(1, 65)
"""RFC 7296 §2.6."""
_FRAGMENTATION: Final = NotifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)


# --- initiator ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Attempt:
    """What the next request is made of."""

    proposals: tuple[Proposal, ...]
    key_exchange: KeyExchange
    tried: set[Ke] = field(default_factory=set)
    cookie: bytes = b""
    cookies: int = 0


def initiate(ike_sa: IkeSa) -> Steps[None]:
    """Make an IKE SA that nobody authenticated yet; on return its keys are there.

    Raises:
        IkeSaGone: It cannot be made.
    """
    proposals = ike_sa.offered_proposals
    methods = ke_methods(proposals)
    if not methods:
        raise IkeSaGone(
            Failure(
                reason=FailureReason.NO_PROPOSAL_CHOSEN,
                detail=f"no key exchange method in {format_proposals(proposals)}",
            )
        )
    ike_sa.nonce_i = ike_sa.context.new_nonce()
    attempt = _Attempt(proposals, generate(methods[0], ike_sa.context.entropy), {methods[0]})
    answer = yield _request(ike_sa, attempt, is_restart=False)
    while True:
        if not isinstance(answer, Received):
            assert ike_sa.suspicion is not None
            raise IkeSaGone(ike_sa.suspicion)
        if _wants_another_request(ike_sa, attempt, answer):
            answer = yield _request(ike_sa, attempt, is_restart=True)
            continue
        try:
            _accept(ike_sa, attempt, answer)
        except PeerError as error:
            ike_sa.suspicion = _suspicion(attempt, answer, error)
            answer = yield AwaitResponse(grace_s=ERROR_GRACE_S)
            continue
        return


def _request(ike_sa: IkeSa, attempt: _Attempt, *, is_restart: bool) -> SendRequest:
    options = ike_sa.context.options
    # HDR, [N(COOKIE)], SAi1, KEi, Ni, N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP),
    #      [N(IKEV2_FRAGMENTATION_SUPPORTED)], [N(SIGNATURE_HASH_ALGORITHMS)], [V]
    payloads: list[Payload] = []
    if attempt.cookie:
        payloads.append(NotifyPayload(NotifyType.COOKIE, attempt.cookie))
    payloads += [
        SaPayload(wire_proposals(attempt.proposals)),
        KePayload(attempt.key_exchange.method, attempt.key_exchange.public),
        NoncePayload(ike_sa.nonce_i),
        *_nat_notifies(ike_sa, ike_sa.spi_i, NO_SPI),
    ]
    if ike_sa.connection.ike.fragmentation is Fragmentation.YES:
        payloads.append(_FRAGMENTATION)
    payloads += _hash_notifies((ike_sa.connection,))
    if options.vendor_id is not None:
        payloads.append(VendorIdPayload(options.vendor_id))
    return SendRequest(exchange_type=ExchangeType.IKE_SA_INIT, payloads=payloads, is_restart=is_restart)


def _wants_another_request(ike_sa: IkeSa, attempt: _Attempt, response: Received) -> bool:
    """Take a COOKIE or an INVALID_KE_PAYLOAD into the next attempt; say whether there is one to make."""
    cookie = find_notify(response.payloads, NotifyType.COOKIE)
    if cookie is not None and len(cookie.data) in COOKIE_BYTES and cookie.data != attempt.cookie:
        attempt.cookies += 1
        attempt.cookie = cookie.data
        return attempt.cookies <= MAX_COOKIES
    invalid_ke = find_notify(response.payloads, NotifyType.INVALID_KE_PAYLOAD)
    if invalid_ke is None:
        return False
    try:
        wanted = parse_ke_method(invalid_ke.data)
    except PeerError:
        return False
    if wanted not in ke_methods(attempt.proposals) or Ke(wanted) in attempt.tried:
        return False
    attempt.tried.add(Ke(wanted))
    attempt.key_exchange = generate(Ke(wanted), ike_sa.context.entropy)
    return True


def _suspicion(attempt: _Attempt, response: Received, error: PeerError) -> Failure:
    """Return what an operator is told if nothing better than this response comes."""
    notify = error_notify(response.payloads)
    if notify is None:
        return Failure(reason=FailureReason.INVALID_SYNTAX, detail=f"IKE_SA_INIT response: {error}")
    reasons: dict[int, FailureReason] = {
        NotifyType.NO_PROPOSAL_CHOSEN: FailureReason.NO_PROPOSAL_CHOSEN,
        NotifyType.INVALID_KE_PAYLOAD: FailureReason.INVALID_KE_PAYLOAD,
    }
    offered = format_proposals(attempt.proposals)
    return Failure(
        reason=reasons.get(notify.notify_type, FailureReason.PEER_NOTIFY),
        detail=f"the peer refused IKE_SA_INIT with {notify.name}; we offered {offered}",
        notify=notify.name,
        offered=offered,
    )


def _accept(ike_sa: IkeSa, attempt: _Attempt, response: Received) -> None:
    """Check everything, then take it.

    Raises:
        PeerError: The response is no good.
    """
    payloads = response.payloads
    header = parse_message(response.datagram).header
    if header.spi_r == NO_SPI:
        raise PeerError("the response holds no responder SPI")
    sa, ke = get_payload(payloads, SaPayload), get_payload(payloads, KePayload)
    nonce_r = get_payload(payloads, NoncePayload).data
    proposal = sa.proposals[0].proposal
    if len(sa.proposals) != 1 or proposal is None or not is_acceptable_answer(proposal, attempt.proposals):
        chosen = "several proposals" if len(sa.proposals) != 1 else str(proposal)
        raise PeerError(f"the peer chose {chosen}, we offered {format_proposals(attempt.proposals)}")
    if not ke.method == proposal.ke == attempt.key_exchange.method:
        raise PeerError(f"the peer answered with key exchange method {ke.method} to {proposal}")
    shared_secret = attempt.key_exchange.compute(ke.data)
    ike_sa.nat = detect(
        spi_i=header.spi_i,
        spi_r=header.spi_r,
        path=response.path,
        sources=_notify_data(payloads, NotifyType.NAT_DETECTION_SOURCE_IP),
        destinations=_notify_data(payloads, NotifyType.NAT_DETECTION_DESTINATION_IP),
        force_encapsulation=ike_sa.connection.ike.encapsulation,
    )
    _agree_on_fragmentation(ike_sa, payloads)
    peer_hashes = _peer_hashes(payloads)
    outstanding = ike_sa.requests.complete(0)
    ike_sa.arm_retransmission()
    ike_sa.init_request = outstanding.datagrams[0]
    ike_sa.init_response = response.datagram
    ike_sa.spi_r, ike_sa.nonce_r = header.spi_r, nonce_r
    ike_sa.peer_hashes, ike_sa.peer_wishes = peer_hashes, all_payloads(payloads, CertreqPayload)
    note_support(ike_sa, payloads)
    ike_sa.suspicion = None
    if ike_sa.nat.is_present:
        ike_sa.path = floated(ike_sa.path)
    ike_sa.follow(IkeSaTrigger.INIT_DONE)
    _derive(ike_sa, proposal, shared_secret)


# --- responder ----------------------------------------------------------------------------------


def answer(context: Context, candidates: Sequence[Connection], request: Received, spi_i: bytes) -> IkeSa:
    """Make a half-open IKE SA from a request; the response is its `init_response`.

    `candidates` are the connections that fit the addresses, the most specific first. The first whose
    proposals have something in common with the offer is taken; IKE_AUTH may still choose another of them.

    Raises:
        PeerError: There is none, or the request is no good: answer with its notify, keep nothing.
    """
    payloads = request.payloads
    sa, ke = get_payload(payloads, SaPayload), get_payload(payloads, KePayload)
    usable = [(wire, proposal) for wire in sa.proposals if (proposal := wire.proposal) is not None]
    offered = [proposal for _, proposal in usable]
    fitting = [(c, s) for c in candidates if (s := _select(offered, c, ke.method)) is not None]
    if not fitting:
        raise _no_proposal(context, candidates, offered, request.path, spi_i)
    connection, selection = fitting[0]
    proposal = selection.proposal
    if proposal.ke != ke.method:
        raise PeerError(
            f"KE payload is of method {ke.method}, {proposal.ke.name} is wanted",
            NotifyType.INVALID_KE_PAYLOAD,
            encode_ke_method(proposal.ke),
        )
    key_exchange = generate(proposal.ke, context.entropy)
    shared_secret = key_exchange.compute(ke.data)
    ike_sa = IkeSa(
        context,
        connection=connection,
        is_initiator=False,
        spi_i=spi_i,
        spi_r=context.new_ike_spi(),
        path=request.path,
    )
    ike_sa.candidates = tuple(c for c, s in fitting if s.proposal == proposal)
    ike_sa.nat = detect(
        spi_i=spi_i,
        spi_r=NO_SPI,
        path=request.path,
        sources=_notify_data(payloads, NotifyType.NAT_DETECTION_SOURCE_IP),
        destinations=_notify_data(payloads, NotifyType.NAT_DETECTION_DESTINATION_IP),
        force_encapsulation=connection.ike.encapsulation,
    )
    _agree_on_fragmentation(ike_sa, payloads)
    ike_sa.peer_hashes = _peer_hashes(payloads)
    ike_sa.nonce_i = get_payload(payloads, NoncePayload).data
    ike_sa.nonce_r = context.new_nonce()
    wire, _ = usable[selection.index]
    header = ike_sa.header(ExchangeType.IKE_SA_INIT, 0, is_response=True)
    sar1 = SaPayload((wire_proposal(proposal, wire.number),))
    ike_sa.init_request = request.datagram
    ike_sa.init_response = encode_message(header, _response_payloads(ike_sa, sar1, key_exchange))
    ike_sa.responses.accept(0)
    ike_sa.responses.respond(0, (ike_sa.init_response,))
    _derive(ike_sa, proposal, shared_secret)
    return ike_sa


def _response_payloads(ike_sa: IkeSa, sar1: SaPayload, key_exchange: KeyExchange) -> list[Payload]:
    # HDR, SAr1, KEr, Nr, N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP),
    #      [CERTREQ+], [N(IKEV2_FRAGMENTATION_SUPPORTED)], [N(SIGNATURE_HASH_ALGORITHMS)],
    #      [N(CHILDLESS_IKEV2_SUPPORTED)], [V]
    payloads: list[Payload] = [
        sar1,
        KePayload(key_exchange.method, key_exchange.public),
        NoncePayload(ike_sa.nonce_r),
        *certificate_requests(ike_sa.candidates),
    ]
    if ike_sa.nat.is_supported:
        payloads += _nat_notifies(ike_sa, ike_sa.spi_i, ike_sa.spi_r)
    if ike_sa.max_packet_bytes is not None:
        payloads.append(_FRAGMENTATION)
    if ike_sa.peer_hashes is not None:
        payloads += _hash_notifies(ike_sa.candidates)
    payloads += support_notify(ike_sa.candidates)
    vendor_id = ike_sa.context.options.vendor_id
    return payloads if vendor_id is None else [*payloads, VendorIdPayload(vendor_id)]


def _select(offered: Sequence[Proposal], connection: Connection, guessed: int) -> Selection | None:
    """Choose a proposal; of several key exchange methods both sides allow, the one the KE payload is of."""
    configured = connection.ike.proposals or default_proposals(ProtocolId.IKE)
    best = select_offer(offered, configured)
    if best is None or best.proposal.ke == guessed:
        return best
    same_method = [
        Proposal(
            p.protocol, tuple(t for t in p.transforms if t.type is not TransformType.KE or t.id == guessed)
        )
        for p in offered
    ]
    better = select_offer(same_method, configured)
    return better if better is not None and better.index == best.index else best


def _no_proposal(
    context: Context, candidates: Sequence[Connection], offered: Sequence[Proposal], path: Path, spi_i: bytes
) -> PeerError:
    """Tell the operator exactly what differed, and return what the peer is told."""
    connection = candidates[0]
    configured = tuple(
        dict.fromkeys(p for c in candidates for p in c.ike.proposals or default_proposals(ProtocolId.IKE))
    )
    theirs, ours = format_proposals(offered), format_proposals(configured)
    ike_sa = IkeSa(context, connection=connection, is_initiator=False, spi_i=spi_i, path=path)
    ike_sa.follow(IkeSaTrigger.GONE)
    difference = explain_mismatch(offered, configured)
    context.emit(
        IkeSaFailed(
            ike_sa=ike_sa.info(),
            failure=Failure(
                reason=FailureReason.NO_PROPOSAL_CHOSEN,
                detail=f"peer offered {theirs}; configured: {ours}; {difference}",
                notify=NotifyType.NO_PROPOSAL_CHOSEN.name,
                offered=theirs,
                configured=ours,
            ),
        )
    )
    return PeerError(difference, NotifyType.NO_PROPOSAL_CHOSEN)


# --- both ---------------------------------------------------------------------------------------


def _derive(ike_sa: IkeSa, proposal: Proposal, shared_secret: Secret) -> None:
    keys = derive_ike_keys(
        IkeSuite.of(proposal),
        shared_secret=shared_secret,
        nonce_i=ike_sa.nonce_i,
        nonce_r=ike_sa.nonce_r,
        spi_i=ike_sa.spi_i,
        spi_r=ike_sa.spi_r,
    )
    shared_secret.wipe()
    ike_sa.adopt_keys(proposal, keys)


def _agree_on_fragmentation(ike_sa: IkeSa, payloads: tuple[Payload, ...]) -> None:
    """Use IKE fragmentation if we want it and the peer says that it can (RFC 7383 §2.3)."""
    options = ike_sa.connection.ike
    is_wanted = options.fragmentation is Fragmentation.YES
    if is_wanted and find_notify(payloads, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is not None:
        ike_sa.max_packet_bytes = options.fragment_packet_bytes


def _hash_notifies(connections: tuple[Connection, ...]) -> list[Payload]:
    """Return N(SIGNATURE_HASH_ALGORITHMS) where a side of the connections signs (RFC 7427 §4)."""
    hashes = announced_hashes(connections)
    if not hashes:
        return []
    return [NotifyPayload(NotifyType.SIGNATURE_HASH_ALGORITHMS, encode_signature_hashes(hashes))]


def _peer_hashes(payloads: tuple[Payload, ...]) -> tuple[int, ...] | None:
    """Return the hashes that the peer verifies signatures with; None if it does not speak RFC 7427.

    Raises:
        InvalidSyntax: The notify is malformed.
    """
    notify = find_notify(payloads, NotifyType.SIGNATURE_HASH_ALGORITHMS)
    return None if notify is None else parse_signature_hashes(notify.data)


def _nat_notifies(ike_sa: IkeSa, spi_i: bytes, spi_r: bytes) -> list[Payload]:
    hashes = detection_to_send(
        spi_i, spi_r, ike_sa.path, force_encapsulation=ike_sa.connection.ike.encapsulation
    )
    return [
        NotifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP, hashes.source),
        NotifyPayload(NotifyType.NAT_DETECTION_DESTINATION_IP, hashes.destination),
    ]


def _notify_data(payloads: tuple[Payload, ...], notify_type: NotifyType) -> list[bytes]:
    return [n.data for n in all_payloads(payloads, NotifyPayload) if n.notify_type == notify_type]
