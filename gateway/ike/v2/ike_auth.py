"""IKE_AUTH, both roles, and the first Child SA (RFC 7296 §1.2, §2.15, §2.21.2, §4).

```
 HDR, SK { IDi, [CERT+], [N(INITIAL_CONTACT)], [CERTREQ+], [IDr], AUTH, [N(USE_TRANSPORT_MODE)],
           SAi2, TSi, TSr }  -->
                 <--  HDR, SK { IDr, [CERT+], AUTH, [N(USE_TRANSPORT_MODE)], SAr2, TSi, TSr }
           or    <--  HDR, SK { IDr, [CERT+], AUTH, N(error) }   the IKE SA is up, the Child SA is not
           or    <--  HDR, SK { N(AUTHENTICATION_FAILED) }
```

A responder that lacks the key says AUTHENTICATION_FAILED like one whose key is another: a stranger learns
nothing about which identities exist. Its operator is told everything.
"""

from gateway.ike.errors import PeerError
from gateway.ike.events import Failure, FailureReason
from gateway.ike.timers import Timer
from gateway.ike.v2.authentication import AuthenticationInput
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
from gateway.ike.v2.childless import check_first_child, check_without_child, first_child
from gateway.ike.v2.create_child_sa import (
    child_of,
    delete_spi,
    failure_of,
    finish_as_responder,
    install_inbound,
    install_outbound,
    rejection_notify,
    with_resource,
)
from gateway.ike.v2.exchange import (
    CheckUnique,
    ChildRefusedByPeer,
    Denied,
    Established,
    IkeSaGone,
    Plan,
    PlanKind,
    Received,
    SendResponse,
    Steps,
    allocate_spi,
    request,
)
from gateway.ike.v2.identities import (
    NoConnection,
    choose_connection,
    exact,
    own_identity,
    received_identity,
)
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.proof import (
    Proof,
    Unproven,
    believe,
    certificate_requests,
    find_key,
    prove,
    read_wishes,
)
from gateway.ike.v2.reauthentication import lifetime_notify, take_lifetime
from gateway.ike.v2.states import IkeSaTrigger
from gateway.ike.v2.window import Backoff, RequestWindow
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
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
from gateway.ipsec.authentication import AuthMethod
from gateway.ipsec.connection import Child, Connection, Unique
from gateway.ipsec.identity import Identity, address_identity, match_rank
from gateway.ipsec.secret import Secret

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


# --- initiator ----------------------------------------------------------------------------------


def initiate(ike_sa: IkeSa, child: Child | None) -> Steps[None]:
    """Authenticate both sides and make the first Child SA.

    Without a Child, or where the operator wants it, the IKE SA comes up childless (RFC 6023).

    Raises:
        IkeSaGone: Authentication failed; a Child SA that fails is told and leaves the IKE SA up.
    """
    connection = ike_sa.connection
    first = first_child(ike_sa, child)
    ike_sa.local_id = own_identity(connection, ike_sa.path.local)
    expected_id = exact(connection.remote.id)
    key_id = expected_id or address_identity(ike_sa.path.remote)
    idi = IdiPayload.of(ike_sa.local_id)
    try:
        given = _signed_by_initiator(ike_sa, idi)
        proof = yield from prove(ike_sa, given, key_id, read_wishes(ike_sa.peer_wishes))
    except Unproven as error:
        raise IkeSaGone(Failure(reason=error.reason, detail=str(error))) from None
    ike_sa.peer_wishes = ()
    offer = None
    if first is not None:
        try:
            spi_in = yield from allocate_spi(connection.name, first.name)
        except Denied as denied:
            # Without an SPI there is no SAi2.
            raise IkeSaGone(denied.failure()) from None
        offer = make_offer(ike_sa, first, spi_in, with_ke=False)
    # HDR, SK {IDi, [CERT+], [N(INITIAL_CONTACT)], [CERTREQ+], [IDr], AUTH, [N(USE_TRANSPORT_MODE)],
    #          [SAi2, TSi, TSr]}
    payloads: list[Payload] = [idi, *proof.certificates]
    if _is_first_contact(ike_sa):
        payloads.append(NotifyPayload(NotifyType.INITIAL_CONTACT))
    payloads += certificate_requests((connection,))
    if expected_id is not None:
        payloads.append(IdrPayload.of(expected_id))
    payloads.append(proof.auth)
    if offer is not None:
        payloads += [*offer.notifies(), offer.sa_payload(), *offer.ts_payloads()]
    response = yield from request(ExchangeType.IKE_AUTH, payloads)
    yield from _authenticate_responder(ike_sa, response, proof.psk, key_id)
    ike_sa.establish()
    yield Established()
    take_lifetime(ike_sa, response.payloads)
    if offer is not None:
        yield from _first_child_as_initiator(ike_sa, offer, response)
    elif child is not None:
        ike_sa.plan(Plan(kind=PlanKind.NEW_CHILD, child=child.name), first=True)


def _is_first_contact(ike_sa: IkeSa) -> bool:
    """Tell whether to say INITIAL_CONTACT: no other IKE SA of ours is up with this identity (RFC 7296 §2.4).

    With an identity that others have too, nobody may say so.
    """
    is_ours_alone = ike_sa.connection.ike.unique is not Unique.NEVER
    knows_peer = ike_sa.context.authenticated[ike_sa.connection.name] > 0
    return ike_sa.context.options.send_initial_contact and is_ours_alone and not knows_peer


def _authenticate_responder(
    ike_sa: IkeSa, response: Received, psk: Secret | None, key_id: Identity
) -> Steps[None]:
    """Believe the responder, or say so and end.

    Args:
        ike_sa: The IKE SA.
        response: The IKE_AUTH response.
        psk: The key that we proved ourselves with, if it was one.
        key_id: Whose key that is.

    Raises:
        IkeSaGone: It refused us, or we refuse it.
    """
    auth, idr = find_payload(response.payloads, AuthPayload), find_payload(response.payloads, IdrPayload)
    if auth is None or idr is None:
        raise IkeSaGone(_refused(ike_sa, response))
    remote = ike_sa.connection.remote
    try:
        remote_id = received_identity(idr)
        if not match_rank(remote.id, remote_id):
            raise PeerError(
                f"the peer is {remote_id}, {remote.id} is configured", NotifyType.AUTHENTICATION_FAILED
            )
        is_its_key = remote.id is None or remote_id == key_id
        given = _signed_by_responder(ike_sa, idr)
        yield from believe(
            ike_sa, response.payloads, auth, given, remote_id=remote_id, psk=psk if is_its_key else None
        )
    except PeerError as error:
        failure = _distrust(error)
        # The responder believes in this IKE SA; it learns by a request of its own (RFC 7296 §2.21.2).
        yield from request(ExchangeType.INFORMATIONAL, [NotifyPayload(NotifyType.AUTHENTICATION_FAILED)])
        raise IkeSaGone(failure) from None
    ike_sa.remote_id = remote_id


def _distrust(error: PeerError) -> Failure:
    if isinstance(error, Unproven) and error.reason is FailureReason.NO_CREDENTIAL:
        return Failure(reason=error.reason, detail=str(error))
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
        f"we want {'any peer' if remote_id is None else remote_id}; compare identities and "
        f"{_CREDENTIALS[ike_sa.connection.local.auth.method]}",
        notify=notify.name,
    )


_CREDENTIALS = {
    AuthMethod.PSK: "pre-shared keys",
    AuthMethod.CERTIFICATE: "what the peer trusts: certification authorities, our certificate, CRLs",
    AuthMethod.PUBLIC_KEY: "public keys",
}


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
        yield from delete_spi(offer.spi_in, offer.protocol)
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
                "the initiator sent no AUTH: it wants EAP, which is not configured",
                NotifyType.AUTHENTICATION_FAILED,
            )
        idr, proof = yield from _authenticate(ike_sa, received, idi, auth)
        yield from _check_unique()
    except PeerError as error:
        failure = _refusal(ike_sa, error)
        yield SendResponse(payloads=[NotifyPayload(NotifyType[failure.notify])])
        raise IkeSaGone(failure) from None
    ike_sa.cancel_timer(Timer.HALF_OPEN)
    ike_sa.had_initial_contact = find_notify(received.payloads, NotifyType.INITIAL_CONTACT) is not None
    # HDR, SK {IDr, [CERT+], AUTH, [N(USE_TRANSPORT_MODE)], SAr2, TSi, TSr}
    payloads: list[Payload] = [idr, *proof.certificates, proof.auth]
    child_sa: ChildSa | None = None
    rejection: PeerError | Denied | None = None
    payloads += lifetime_notify(ike_sa)
    if find_payload(received.payloads, SaPayload) is not None:
        try:
            check_first_child(ike_sa)
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


def _refusal(ike_sa: IkeSa, error: PeerError) -> Failure:
    """Return what the operator is told; `notify` is what the peer is told."""
    if error.notify == NotifyType.INVALID_SYNTAX:
        return Failure(
            reason=FailureReason.INVALID_SYNTAX, detail=str(error), notify=NotifyType.INVALID_SYNTAX.name
        )
    who = "" if ike_sa.remote_id is None else f" from {ike_sa.remote_id}"
    detail = f"IKE_AUTH{who} refused: {error}"
    reason = FailureReason.AUTHENTICATION_FAILED
    if isinstance(error, NoConnection):
        reason = FailureReason.NO_CONNECTION
    elif isinstance(error, Unproven) and error.reason is FailureReason.NO_CREDENTIAL:
        reason, detail = error.reason, str(error)
    return Failure(
        reason=reason,
        detail=detail,
        notify=NotifyType.AUTHENTICATION_FAILED.name,
        offered=getattr(error, "offered", ""),
        configured=getattr(error, "configured", ""),
    )


def _authenticate(
    ike_sa: IkeSa, received: Received, idi: IdiPayload, auth: AuthPayload
) -> Steps[tuple[IdrPayload, Proof]]:
    """Choose the connection by the identities, believe the initiator, and prove who we are.

    We sign only for a peer that proved itself: a stranger cannot make us work, or sign, for nothing.

    Raises:
        PeerError: No connection has these identities, or a proof fails.
    """
    remote_id = received_identity(idi)
    wanted = find_payload(received.payloads, IdrPayload)
    wanted_id = None if wanted is None else received_identity(wanted)
    connection = choose_connection(ike_sa, remote_id, wanted_id, auth)
    _take_connection(ike_sa, connection)
    check_without_child(ike_sa, received.payloads)
    ike_sa.local_id = own_identity(connection, ike_sa.path.local)
    ike_sa.remote_id = remote_id
    psk = None
    if AuthMethod.PSK in (connection.local.auth.method, connection.remote.auth.method):
        psk = yield from find_key(ike_sa, remote_id)
    given = _signed_by_initiator(ike_sa, idi)
    yield from believe(ike_sa, received.payloads, auth, given, remote_id=remote_id, psk=psk)
    idr = IdrPayload.of(ike_sa.local_id)
    wishes = read_wishes(received.payloads)
    proof = yield from prove(ike_sa, _signed_by_responder(ike_sa, idr), remote_id, wishes, psk=psk)
    return idr, proof


def _check_unique() -> Steps[None]:
    """Refuse a peer that may not have another IKE SA.

    Raises:
        PeerError: AUTHENTICATION_FAILED.
    """
    try:
        yield CheckUnique()
    except Denied as denied:
        raise PeerError(str(denied), NotifyType.AUTHENTICATION_FAILED) from None


def _take_connection(ike_sa: IkeSa, connection: Connection) -> None:
    if connection is not ike_sa.connection:
        ike_sa.connection = connection
        ike_sa.requests = RequestWindow(Backoff.of(connection.ike))
    ike_sa.candidates = (connection,)


def _first_child_as_responder(ike_sa: IkeSa, received: Received) -> Steps[tuple[ChildSa, list[Payload]]]:
    agreement = choose(ike_sa, received.payloads, ike_sa.connection.children, with_ke=False)
    agreement = with_resource(ike_sa, agreement, received.payloads)
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
    mode, sa, selectors = answer_payloads(agreement, spi_in, received.payloads)
    return child_sa, [*mode, sa, *selectors]
