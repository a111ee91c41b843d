"""IKE_AUTH with pre-shared keys, both roles, and the first Child SA (RFC 7296 §1.2, §2.15, §2.21.2, §4).

```
 HDR, SK { IDi, [N(INITIAL_CONTACT)], [IDr], AUTH, [N(USE_TRANSPORT_MODE)], SAi2, TSi, TSr }  -->
                          <--  HDR, SK { IDr, AUTH, [N(USE_TRANSPORT_MODE)], SAr2, TSi, TSr }
           or             <--  HDR, SK { IDr, AUTH, N(error) }        the IKE SA is up, the Child SA is not
           or             <--  HDR, SK { N(AUTHENTICATION_FAILED) }
```

A responder that lacks the key says AUTHENTICATION_FAILED like one whose key is another: a stranger learns
nothing about which identities exist. Its operator is told everything.
"""

from gateway.ike.errors import PeerError
from gateway.ike.events import Failure, FailureReason
from gateway.ike.timers import Timer
from gateway.ike.v2.authentication import AuthenticationInput, compute_psk_auth, verify_psk_auth
from gateway.ike.v2.child_negotiation import (
    ChildNonces,
    Offer,
    answer_payloads,
    check_answer,
    choose,
    make_child_sa,
    make_offer,
)
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.create_child_sa import (
    child_of,
    delete_spi,
    failure_of,
    finish_as_responder,
    install_inbound,
    install_outbound,
    rejection_notify,
)
from gateway.ike.v2.exchange import (
    ChildRefusedByPeer,
    Denied,
    Established,
    IkeSaGone,
    Received,
    SendResponse,
    Steps,
    allocate_spi,
    find_psk,
    request,
)
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.states import IkeSaTrigger
from gateway.ike.v2.window import Backoff, RequestWindow
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    AuthenticationMethod,
    AuthPayload,
    IdiPayload,
    IdrPayload,
    NotifyPayload,
    Payload,
    SaPayload,
    error_notify,
    find_notify,
    find_payload,
)
from gateway.ipsec.connection import Child, Connection
from gateway.ipsec.identity import Identity, IdType, address_identity, match_rank
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.secret import Secret

_WITH_PATTERNS = (IdType.FQDN, IdType.RFC822_ADDR, IdType.DER_ASN1_DN)


# --- identities ---------------------------------------------------------------------------------


def own_identity(connection: Connection, address: IpAddress) -> Identity:
    """Return who we say we are: what is configured, else our address."""
    return exact(connection.local.id) or address_identity(address)


def exact(identity: Identity | None) -> Identity | None:
    """Return a configured identity that names one peer; None for one that stands for many."""
    if identity is None or identity.type is IdType.ANY:
        return None
    if identity.type in _WITH_PATTERNS and b"*" in identity.data:
        return None
    return identity


def _received_identity(payload: IdiPayload | IdrPayload) -> Identity:
    identity = payload.identity
    if identity.type is IdType.ANY:
        raise PeerError("identification type 0 is reserved", NotifyType.AUTHENTICATION_FAILED)
    return identity


# --- AUTH ---------------------------------------------------------------------------------------


def _signed_by_initiator(ike_sa: IkeSa, idi: IdiPayload) -> AuthenticationInput:
    assert ike_sa.keys is not None
    return AuthenticationInput(
        message=ike_sa.init_request, peer_nonce=ike_sa.nonce_r, id_body=idi.body, sk_p=ike_sa.keys.sk_pi
    )


def _signed_by_responder(ike_sa: IkeSa, idr: IdrPayload) -> AuthenticationInput:
    assert ike_sa.keys is not None
    return AuthenticationInput(
        message=ike_sa.init_response, peer_nonce=ike_sa.nonce_i, id_body=idr.body, sk_p=ike_sa.keys.sk_pr
    )


def _auth_payload(ike_sa: IkeSa, psk: Secret, given: AuthenticationInput) -> AuthPayload:
    assert ike_sa.prf is not None
    return AuthPayload(AuthenticationMethod.SHARED_KEY_MIC, compute_psk_auth(ike_sa.prf, psk, given))


def _verify(ike_sa: IkeSa, auth: AuthPayload, psk: Secret, given: AuthenticationInput) -> None:
    """Check the peer's AUTH.

    Raises:
        PeerError: It is not what our key gives, or of a method that is not configured.
    """
    assert ike_sa.prf is not None
    if auth.method != AuthenticationMethod.SHARED_KEY_MIC:
        raise PeerError(
            f"the peer authenticates by method {auth.method}, a pre-shared key is configured",
            NotifyType.AUTHENTICATION_FAILED,
        )
    verify_psk_auth(ike_sa.prf, psk, given, auth.data)


# --- initiator ----------------------------------------------------------------------------------


def initiate(ike_sa: IkeSa, child: Child) -> Steps[None]:
    """Authenticate both sides and make the first Child SA.

    Raises:
        IkeSaGone: Authentication failed; a Child SA that fails is told and leaves the IKE SA up.
    """
    connection = ike_sa.connection
    ike_sa.local_id = own_identity(connection, ike_sa.path.local)
    expected_id = exact(connection.remote.id)
    psk_id = expected_id or address_identity(ike_sa.path.remote)
    psk = yield from _psk_or_gone(ike_sa, psk_id)
    try:
        spi_in = yield from allocate_spi(connection.name, child.name)
    except Denied as denied:
        # Without an SPI there is no SAi2, and RFC 6023 is not spoken.
        raise IkeSaGone(denied.failure()) from None
    offer = make_offer(ike_sa, child, spi_in, with_ke=False)
    idi = IdiPayload.of(ike_sa.local_id)
    # HDR, SK {IDi, [N(INITIAL_CONTACT)], [IDr], AUTH, [N(USE_TRANSPORT_MODE)], SAi2, TSi, TSr}
    payloads: list[Payload] = [idi]
    if ike_sa.context.options.send_initial_contact and not _knows_peer(ike_sa):
        payloads.append(NotifyPayload(NotifyType.INITIAL_CONTACT))
    if expected_id is not None:
        payloads.append(IdrPayload.of(expected_id))
    payloads += [
        _auth_payload(ike_sa, psk, _signed_by_initiator(ike_sa, idi)),
        *offer.mode_notify(),
        offer.sa_payload(),
        *offer.ts_payloads(),
    ]
    response = yield from request(ExchangeType.IKE_AUTH, payloads)
    yield from _authenticate_responder(ike_sa, response, psk, psk_id)
    ike_sa.establish()
    yield Established()
    yield from _first_child_as_initiator(ike_sa, offer, response)


def _knows_peer(ike_sa: IkeSa) -> bool:
    return ike_sa.context.authenticated[ike_sa.connection.name] > 0


def _psk_or_gone(ike_sa: IkeSa, remote_id: Identity) -> Steps[Secret]:
    assert ike_sa.local_id is not None
    try:
        return (yield from find_psk(ike_sa.connection.name, ike_sa.local_id, remote_id))
    except Denied as denied:
        raise IkeSaGone(_no_credential(denied, ike_sa.local_id, remote_id)) from None


def _no_credential(denied: Denied, local_id: Identity, remote_id: Identity) -> Failure:
    return Failure(
        reason=FailureReason.NO_CREDENTIAL,
        detail=f"no pre-shared key for {local_id} and {remote_id}: {denied.reason}: {denied}",
    )


def _authenticate_responder(ike_sa: IkeSa, response: Received, psk: Secret, psk_id: Identity) -> Steps[None]:
    """Believe the responder, or say so and end.

    Raises:
        IkeSaGone: It refused us, or we refuse it.
    """
    auth, idr = find_payload(response.payloads, AuthPayload), find_payload(response.payloads, IdrPayload)
    if auth is None or idr is None:
        raise IkeSaGone(_refused(ike_sa, response))
    try:
        remote_id = _received_identity(idr)
        if not match_rank(ike_sa.connection.remote.id, remote_id):
            raise PeerError(
                f"the peer is {remote_id}, {ike_sa.connection.remote.id} is configured",
                NotifyType.AUTHENTICATION_FAILED,
            )
        if ike_sa.connection.remote.id is None or remote_id == psk_id:
            peer_psk = psk
        else:
            peer_psk = yield from _psk_or_gone(ike_sa, remote_id)
        _verify(ike_sa, auth, peer_psk, _signed_by_responder(ike_sa, idr))
    except (PeerError, IkeSaGone) as error:
        failure = error.failure if isinstance(error, IkeSaGone) else _distrust(error)
        # The responder believes in this IKE SA; it learns by a request of its own (RFC 7296 §2.21.2).
        yield from request(ExchangeType.INFORMATIONAL, [NotifyPayload(NotifyType.AUTHENTICATION_FAILED)])
        raise IkeSaGone(failure) from None
    ike_sa.remote_id = remote_id


def _distrust(error: PeerError) -> Failure:
    is_auth = error.notify == NotifyType.AUTHENTICATION_FAILED
    return Failure(
        reason=FailureReason.AUTHENTICATION_FAILED if is_auth else FailureReason.INVALID_SYNTAX,
        detail=f"the responder could not be authenticated: {error}",
        notify=NotifyType.AUTHENTICATION_FAILED.name,
    )


def _refused(ike_sa: IkeSa, response: Received) -> Failure:
    notify = error_notify(response.payloads)
    if notify is None:
        return Failure(
            reason=FailureReason.INVALID_SYNTAX, detail="the IKE_AUTH response authenticates nobody"
        )
    remote_id = ike_sa.connection.remote.id
    reasons: dict[int, FailureReason] = {
        NotifyType.AUTHENTICATION_FAILED: FailureReason.AUTHENTICATION_FAILED,
        NotifyType.INVALID_SYNTAX: FailureReason.INVALID_SYNTAX,
        NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD: FailureReason.UNSUPPORTED_CRITICAL_PAYLOAD,
    }
    return Failure(
        reason=reasons.get(notify.notify_type, FailureReason.PEER_NOTIFY),
        detail=f"the peer refused us with {notify.name}: we are {ike_sa.local_id}, "
        f"we want {'any peer' if remote_id is None else remote_id}; compare identities and pre-shared keys",
        notify=notify.name,
    )


def _first_child_as_initiator(ike_sa: IkeSa, offer: Offer, response: Received) -> Steps[None]:
    child_sa: ChildSa | None = None
    try:
        agreement = check_answer(offer, response.payloads, with_ke=False)
        child_sa = make_child_sa(
            ike_sa,
            agreement,
            spi_in=offer.spi_in,
            nonces=ChildNonces(nonce_i=ike_sa.nonce_i, nonce_r=ike_sa.nonce_r),
            shared_secret=None,
            is_initiator=True,
        )
        yield from install_inbound(ike_sa, child_sa)
        yield from install_outbound(ike_sa, child_sa)
    except ChildRefusedByPeer as error:
        ike_sa.child_failed(offer.child.name, error.failure)
    except (PeerError, Denied, IkeSaGone) as error:
        failure = failure_of(error)
        if child_sa is not None and child_sa.child_sa_id in ike_sa.children:
            ike_sa.end_child(child_sa, failure)
        ike_sa.child_failed(offer.child.name, failure)
        # The responder has this Child SA; take it away again.
        yield from delete_spi(offer.spi_in)
    else:
        ike_sa.child_established(child_sa)


# --- responder ----------------------------------------------------------------------------------


def respond(ike_sa: IkeSa, received: Received) -> Steps[None]:
    """Authenticate the initiator and ourselves, and make the first Child SA.

    Raises:
        IkeSaGone: Authentication failed; the peer was told by then.
    """
    ike_sa.follow(IkeSaTrigger.AUTH_RECEIVED)
    idi = find_payload(received.payloads, IdiPayload)
    auth = find_payload(received.payloads, AuthPayload)
    try:
        if idi is None or auth is None:
            raise PeerError(
                "the initiator sent no AUTH: it wants EAP, a pre-shared key is configured",
                NotifyType.AUTHENTICATION_FAILED,
            )
        psk = yield from _authenticate_initiator(ike_sa, received, idi, auth)
    except (PeerError, Denied) as error:
        failure = _refusal(ike_sa, error)
        yield SendResponse(payloads=[NotifyPayload(NotifyType[failure.notify])])
        raise IkeSaGone(failure) from None
    ike_sa.cancel_timer(Timer.HALF_OPEN)
    ike_sa.had_initial_contact = find_notify(received.payloads, NotifyType.INITIAL_CONTACT) is not None
    assert ike_sa.local_id is not None
    idr = IdrPayload.of(ike_sa.local_id)
    # HDR, SK {IDr, AUTH, [N(USE_TRANSPORT_MODE)], SAr2, TSi, TSr}
    payloads: list[Payload] = [idr, _auth_payload(ike_sa, psk, _signed_by_responder(ike_sa, idr))]
    child_sa: ChildSa | None = None
    rejection: PeerError | Denied | None = None
    if find_payload(received.payloads, SaPayload) is not None:
        try:
            child_sa, child_payloads = yield from _first_child_as_responder(ike_sa, received)
            payloads += child_payloads
        except (PeerError, Denied) as error:
            rejection = error
            payloads.append(rejection_notify(error, in_auth=True))
    ike_sa.establish()
    yield Established()
    yield SendResponse(payloads=payloads)
    if rejection is not None:
        ike_sa.child_failed(child_of(rejection), failure_of(rejection))
    if child_sa is not None:
        yield from finish_as_responder(ike_sa, child_sa)


def _refusal(ike_sa: IkeSa, error: PeerError | Denied) -> Failure:
    """Return what the operator is told; `notify` is what the peer is told."""
    if isinstance(error, Denied):
        assert ike_sa.local_id is not None
        assert ike_sa.remote_id is not None
        failure = _no_credential(error, ike_sa.local_id, ike_sa.remote_id)
        return Failure(
            reason=failure.reason, detail=failure.detail, notify=NotifyType.AUTHENTICATION_FAILED.name
        )
    if error.notify == NotifyType.INVALID_SYNTAX:
        return Failure(
            reason=FailureReason.INVALID_SYNTAX, detail=str(error), notify=NotifyType.INVALID_SYNTAX.name
        )
    who = "" if ike_sa.remote_id is None else f" from {ike_sa.remote_id}"
    reason = FailureReason.NO_CONNECTION if isinstance(error, _NoConnection) else None
    return Failure(
        reason=reason or FailureReason.AUTHENTICATION_FAILED,
        detail=f"IKE_AUTH{who} refused: {error}",
        notify=NotifyType.AUTHENTICATION_FAILED.name,
        offered=getattr(error, "offered", ""),
        configured=getattr(error, "configured", ""),
    )


class _NoConnection(PeerError):
    """No connection has these identities; the peer is told AUTHENTICATION_FAILED.

    Attributes:
        offered: The identities the peer brought.
        configured: Those that would have been taken.
    """

    def __init__(self, offered: str, configured: str) -> None:
        super().__init__(
            f"no connection fits: peer brought {offered}; configured: {configured}",
            NotifyType.AUTHENTICATION_FAILED,
        )
        self.offered = offered
        self.configured = configured


def _authenticate_initiator(
    ike_sa: IkeSa, received: Received, idi: IdiPayload, auth: AuthPayload
) -> Steps[Secret]:
    """Choose the connection by the identities and check AUTH; return the key for our own AUTH.

    Raises:
        PeerError: No connection has these identities, or the key is another.
        Denied: There is no key.
    """
    remote_id = _received_identity(idi)
    wanted = find_payload(received.payloads, IdrPayload)
    wanted_id = None if wanted is None else _received_identity(wanted)
    connection = _choose_connection(ike_sa, remote_id, wanted_id)
    _take_connection(ike_sa, connection)
    ike_sa.local_id = own_identity(connection, ike_sa.path.local)
    ike_sa.remote_id = remote_id
    psk = yield from find_psk(connection.name, ike_sa.local_id, remote_id)
    _verify(ike_sa, auth, psk, _signed_by_initiator(ike_sa, idi))
    return psk


def _choose_connection(ike_sa: IkeSa, remote_id: Identity, wanted_id: Identity | None) -> Connection:
    """Return the candidate whose identities fit best; earlier ones win a draw.

    Raises:
        _NoConnection: None fits.
    """
    best: Connection | None = None
    best_rank = 0
    for candidate in ike_sa.candidates:
        own = own_identity(candidate, ike_sa.path.local)
        rank = match_rank(candidate.remote.id, remote_id)
        if wanted_id is not None and not match_rank(own, wanted_id):
            rank = 0
        if rank > best_rank:
            best, best_rank = candidate, rank
    if best is not None:
        return best
    offered = f"{remote_id} for {'any identity' if wanted_id is None else wanted_id}"
    configured = "; ".join(
        f"{c.name}: {c.remote.id or 'any'} for {own_identity(c, ike_sa.path.local)}"
        for c in ike_sa.candidates
    )
    raise _NoConnection(offered, configured)


def _take_connection(ike_sa: IkeSa, connection: Connection) -> None:
    if connection is not ike_sa.connection:
        ike_sa.connection = connection
        ike_sa.requests = RequestWindow(Backoff.of(connection.ike))
    ike_sa.candidates = (connection,)


def _first_child_as_responder(ike_sa: IkeSa, received: Received) -> Steps[tuple[ChildSa, list[Payload]]]:
    agreement = choose(ike_sa, received.payloads, ike_sa.connection.children, with_ke=False)
    spi_in = yield from allocate_spi(ike_sa.connection.name, agreement.child.name)
    child_sa = make_child_sa(
        ike_sa,
        agreement,
        spi_in=spi_in,
        nonces=ChildNonces(nonce_i=ike_sa.nonce_i, nonce_r=ike_sa.nonce_r),
        shared_secret=None,
        is_initiator=False,
    )
    try:
        yield from install_inbound(ike_sa, child_sa)
    except Denied as denied:
        ike_sa.end_child(child_sa, denied.failure())
        raise
    mode, sa, selectors = answer_payloads(agreement, spi_in)
    return child_sa, [*mode, sa, *selectors]
