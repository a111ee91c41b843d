"""IKE SAs without a Child SA (RFC 6023).

The responder says in IKE_SA_INIT that it can do without SAi2, TSi and TSr in IKE_AUTH; the initiator leaves
them out or not. What comes later is made by CREATE_CHILD_SA, with a key exchange of its own where the
proposals have one.
"""

from gateway.ike.errors import InvalidSyntax
from gateway.ike.events import Failure, FailureReason
from gateway.ike.v2.child_negotiation import check_nat
from gateway.ike.v2.exchange import ChildRejected, IkeSaGone
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, Payload, SaPayload, find_notify, find_payload
from gateway.ipsec.connection import Child, Childless, Connection
from gateway.ipsec.policy import Action
from gateway.ipsec.proposal import ProtocolId


def support_notify(candidates: tuple[Connection, ...]) -> list[Payload]:
    """Return [N(CHILDLESS_IKEV2_SUPPORTED)] of a responder's IKE_SA_INIT response (RFC 6023 §3)."""
    if all(candidate.ike.childless is Childless.NEVER for candidate in candidates):
        return []
    return [NotifyPayload(NotifyType.CHILDLESS_IKEV2_SUPPORTED)]


def note_support(ike_sa: IkeSa, payloads: tuple[Payload, ...]) -> None:
    """Take note of what the responder can do."""
    ike_sa.can_be_childless = find_notify(payloads, NotifyType.CHILDLESS_IKEV2_SUPPORTED) is not None


def first_child(ike_sa: IkeSa, child: Child | None) -> Child | None:
    """Return the Child that IKE_AUTH is to make; None: the IKE SA comes up childless.

    Args:
        ike_sa: Ours, after IKE_SA_INIT.
        child: What is wanted, if anything.

    Raises:
        IkeSaGone: It must be childless and the peer cannot do that, or the Child is for AH behind a NAT.
    """
    wish = ike_sa.connection.ike.childless
    if wish is Childless.FORCE or (child is None and wish is Childless.ALLOW and ike_sa.can_be_childless):
        if ike_sa.can_be_childless:
            return None
        raise IkeSaGone(
            Failure(
                reason=FailureReason.PEER_NOTIFY,
                detail="childless is forced, and the peer does not say CHILDLESS_IKEV2_SUPPORTED",
            )
        )
    if child is not None:
        return _unless_nat_forbids(ike_sa, child)
    can_ah = not ike_sa.nat.is_present
    protected = (
        c
        for c in ike_sa.connection.children
        if c.action is Action.PROTECT and (can_ah or c.protocol is not ProtocolId.AH)
    )
    found = next(protected, None)
    if found is None:
        detail = "there is no Child to start, and the peer does not say CHILDLESS_IKEV2_SUPPORTED"
        raise IkeSaGone(Failure(reason=FailureReason.PEER_NOTIFY, detail=detail))
    return found


def _unless_nat_forbids(ike_sa: IkeSa, child: Child) -> Child | None:
    """Return a Child, or None for one of AH behind a NAT: tried and told once the IKE SA is up.

    Raises:
        IkeSaGone: There would be nothing to put into IKE_AUTH.
    """
    try:
        check_nat(ike_sa, child)
    except ChildRejected as error:
        if ike_sa.can_be_childless and ike_sa.connection.ike.childless is not Childless.NEVER:
            return None
        raise IkeSaGone(error.failure) from None
    return child


def check_without_child(ike_sa: IkeSa, payloads: tuple[Payload, ...]) -> None:
    """Check, as responder, that IKE_AUTH may be without a Child SA where it is.

    Raises:
        InvalidSyntax: The operator does not want that.
    """
    if find_payload(payloads, SaPayload) is None and ike_sa.connection.ike.childless is Childless.NEVER:
        raise InvalidSyntax("IKE_AUTH without a Child SA, and childless is never")


def check_first_child(ike_sa: IkeSa) -> None:
    """Check, as responder, that IKE_AUTH may make a Child SA.

    Raises:
        ChildRejected: The operator wants every Child SA to be made by CREATE_CHILD_SA; the IKE SA is fine.
    """
    if ike_sa.connection.ike.childless is not Childless.FORCE:
        return
    failure = Failure(
        reason=FailureReason.PEER_NOTIFY,
        detail="the peer wants a Child SA in IKE_AUTH, and childless is forced",
        notify=NotifyType.NO_ADDITIONAL_SAS.name,
    )
    raise ChildRejected(failure, NotifyType.NO_ADDITIONAL_SAS)
