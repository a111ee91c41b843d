"""When both sides authenticate each other anew (RFC 7296 §2.8.3, RFC 4478).

IKEv2 has no exchange for that: a new IKE SA is made beside the old one, with Child SAs of its own, and then
the old one is deleted (`uniqueness.py` does the last part). Rekeys renew keys, not trust, so that the clock
of this file goes on through all of them.

Who initiated the IKE SA begins. The other side tells how long it has time, by AUTH_LIFETIME, and begins
itself, where it knows how, only if the time is half over its end. In any case the IKE SA ends after `over_s`.
"""

from gateway.ike.errors import LocalError, PeerError
from gateway.ike.path import IKE_PORT, Path
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.wire.notify import NotifyType, parse_seconds
from gateway.ike.wire.payloads import NotifyPayload, Payload, find_notify
from gateway.ipsec.sa import IpAddress

_IN_TIME = 0.9
"""Of the time that a peer gives, so much is used at most: an authentication takes some round trips."""
_MIN_LIFETIME_S = 30
"""A peer that gives less does not get us to do nothing else."""


def lifetime_notify(ike_sa: IkeSa) -> list[Payload]:
    """Return [N(AUTH_LIFETIME)] of a responder's IKE_AUTH response (RFC 4478 §3)."""
    seconds = int(ike_sa.connection.ike.reauth_s)
    return [NotifyPayload(NotifyType.AUTH_LIFETIME, seconds.to_bytes(4))] if seconds else []


def start_clock(ike_sa: IkeSa) -> None:
    """Plan the next authentication of an IKE SA that is authenticated now."""
    options, now = ike_sa.connection.ike, ike_sa.context.now
    if options.reauth_s <= 0:
        return
    until = now + options.reauth_s + options.over_s
    if ike_sa.is_initiator:
        at: float | None = now + options.reauth_s * (1.0 - options.jitter * ike_sa.context.draw())
    else:
        at = until - options.over_s / 2 if ike_sa.connection.remote.is_known else None
    ike_sa.limit_authentication(at, until)


def take_lifetime(ike_sa: IkeSa, payloads: tuple[Payload, ...]) -> None:
    """Authenticate anew before the time that the peer gives is over, if it gives any (RFC 4478 §3)."""
    notify = find_notify(payloads, NotifyType.AUTH_LIFETIME)
    if notify is None:
        return
    try:
        seconds = parse_seconds(notify.data)
    except PeerError:
        return
    jitter = ike_sa.connection.ike.jitter * ike_sa.context.draw()
    at = ike_sa.context.now + max(seconds, _MIN_LIFETIME_S) * _IN_TIME * (1.0 - jitter)
    if ike_sa.reauth_at is None or at < ike_sa.reauth_at:
        ike_sa.limit_authentication(at, ike_sa.authentic_until)


def new_path(ike_sa: IkeSa, local: IpAddress | None, remote: IpAddress | None) -> Path:
    """Return where the new IKE SA begins: where the peer is, unless the shell knows better.

    Raises:
        LocalError: The peer cannot be reached from here: it has to begin.
    """
    ours, theirs = local or ike_sa.path.local, remote or ike_sa.path.remote
    is_known = ike_sa.is_initiator or theirs in ike_sa.connection.remote.addresses
    if ike_sa.nat.remote and remote is None and not is_known:
        raise LocalError("the peer is behind a NAT: it has to authenticate anew itself")
    return Path(ours, IKE_PORT, theirs, IKE_PORT)
