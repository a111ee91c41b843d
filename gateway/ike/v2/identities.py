"""Who we are, who the peer says it is, and which connection that means (RFC 7296 §3.5, RFC 4301 §4.4.3)."""

from gateway.ike.errors import PeerError
from gateway.ike.v2.authentication import is_of_method
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import AuthPayload, IdiPayload, IdrPayload
from gateway.ipsec.connection import Connection
from gateway.ipsec.identity import Identity, IdType, address_identity, match_rank
from gateway.ipsec.sa import IpAddress

_WITH_PATTERNS = (IdType.FQDN, IdType.RFC822_ADDR, IdType.DER_ASN1_DN)


class NoConnection(PeerError):
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


def received_identity(payload: IdiPayload | IdrPayload) -> Identity:
    """Return the identity of a payload of the peer's.

    Raises:
        PeerError: It is of no type that we know.
    """
    identity = payload.identity
    if identity.type is IdType.ANY:
        raise PeerError("identification type 0 is reserved", NotifyType.AUTHENTICATION_FAILED)
    return identity


def choose_connection(
    ike_sa: IkeSa, remote_id: Identity, wanted_id: Identity | None, auth: AuthPayload
) -> Connection:
    """Return the candidate whose identities fit best.

    Of those that fit equally well, one that expects the peer's kind of AUTH wins, then the earlier one. A
    narrower identity wins whatever it expects: who has an entry of its own is not measured by one for many.

    Raises:
        NoConnection: None fits.
    """
    best: Connection | None = None
    best_rank = (0, False)
    for candidate in ike_sa.candidates:
        own = own_identity(candidate, ike_sa.path.local)
        rank = match_rank(candidate.remote.id, remote_id)
        if not rank or (wanted_id is not None and not match_rank(own, wanted_id)):
            continue
        ranks = rank, is_of_method(auth.method, candidate.remote.auth.method)
        if ranks > best_rank:
            best, best_rank = candidate, ranks
    if best is not None:
        return best
    offered = f"{remote_id} for {'any identity' if wanted_id is None else wanted_id}"
    configured = "; ".join(
        f"{c.name}: {c.remote.id or 'any'} for {own_identity(c, ike_sa.path.local)}"
        for c in ike_sa.candidates
    )
    raise NoConnection(offered, configured)
