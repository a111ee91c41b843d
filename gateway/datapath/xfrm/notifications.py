"""What the kernel's notifications mean for us. Pure: they are told, and the caller acts.

The kernel tells of every key manager's SAs and policies; what is not ours is nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.datapath.backend import (
    Acquire,
    DatapathEvent,
    HardExpire,
    MappingChange,
    SasLost,
    SoftExpire,
)
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.installation import Whereabouts, reached_limit
from gateway.datapath.xfrm.numbers import Group, MessageType, PolicyDirection
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Key, Serves, Spd
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress, Mode, UdpEncapsulation

GROUPS: Final = (Group.ACQUIRE, Group.EXPIRE, Group.SA, Group.MAPPING)
"""What must be listened to."""
KINDS: Final = (
    MessageType.ACQUIRE,
    MessageType.EXPIRE,
    MessageType.DELSA,
    MessageType.FLUSHSA,
    MessageType.MAPPING,
)
"""What of it means anything. What the groups tell beside it, new SAs, comes with their keys."""


class Asked(NamedTuple):
    """The Child that the kernel wants an SA of, and the number by which the SA says that it is the answer.

    Until it is answered or 30 s are over (net.core.xfrm_acq_expires), the kernel does not ask again.
    """

    serves: Serves
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What follows from one notification."""

    event: DatapathEvent | None = None
    gone: Held | None = None
    """An SA that the kernel does not have any more."""
    moved: Held | None = None
    """An inbound SA whose peer sends from elsewhere now..."""
    peer: tuple[IpAddress, int] | None = None
    """... namely from here."""
    asked: Asked | None = None
    """Traffic that waits for an SA."""
    is_unsure: bool = False
    """Many SAs may be gone: compare with the kernel's list."""


_NOTHING: Final = Meaning()


def meaning_of(message: r.Message[r.Body], sad: Sad, spd: Spd) -> Meaning:
    """Return what a notification means."""
    handle = _HANDLERS.get(type(message.body))
    return _NOTHING if handle is None else handle(message, sad, spd)


def _acquire(message: r.Message[r.Acquire], _sad: Sad, spd: Spd) -> Meaning:
    body, if_id = message.body, message.attributes.if_id or 0
    entry = spd.owner(Key(PolicyDirection.OUT, body.policy.selector, if_id, message.attributes.mark))
    packet = body.selector
    if entry is None or packet.source is None or packet.destination is None:
        return _NOTHING
    if entry.policy.action is not Action.PROTECT or not entry.policy.acquire:
        return _NOTHING
    return Meaning(
        asked=Asked((entry.policy.connection, entry.policy.child), body.sequence),
        event=Acquire(
            policy=entry.policy.name,
            source=packet.source.ip,
            destination=packet.destination.ip,
            protocol=packet.protocol,
            source_port=packet.source_port,
            destination_port=packet.destination_port,
        ),
    )


def _expire(message: r.Message[r.Expire], sad: Sad, _spd: Spd) -> Meaning:
    body = message.body
    held = sad.of_kernel(body.sa.id)
    if held is None:
        return _NOTHING
    limit = reached_limit(held.sa, body.sa.usage, is_hard=body.is_hard)
    if body.is_hard:
        return Meaning(event=HardExpire(sa_id=held.sa.sa_id, spi=held.sa.spi, limit=limit), gone=held)
    return Meaning(event=SoftExpire(sa_id=held.sa.sa_id, spi=held.sa.spi, limit=limit))


def _deleted(message: r.Message[r.SaId], sad: Sad, _spd: Spd) -> Meaning:
    # What we delete ourselves is forgotten before the kernel is asked to.
    held = sad.of_kernel(message.body)
    if held is None:
        return _NOTHING
    return Meaning(
        event=SasLost(sa_ids=(held.sa.sa_id,), reason="another process deleted it in the kernel"), gone=held
    )


def _flushed(_message: r.Message[r.FlushSas], _sad: Sad, _spd: Spd) -> Meaning:
    return Meaning(is_unsure=True)


def _mapping(message: r.Message[r.Mapping], sad: Sad, _spd: Spd) -> Meaning:
    """The kernel says so of verified packets only (`esp_input_done2`), and again every few seconds."""
    body = message.body
    held = sad.of_kernel(body.id)
    if held is None or held.at.encapsulation is None:
        return _NOTHING
    old = (held.at.source, held.at.encapsulation.source_port)
    new = (body.new_source, body.new_source_port)
    if old == new:
        return _NOTHING
    event = MappingChange(sa_id=held.sa.sa_id, spi=held.sa.spi, old=old, new=new)
    return Meaning(event=event, moved=held, peer=new)


#: A message of each type has a body of its own.
_HANDLERS: Final[dict[type[r.Body], Callable[..., Meaning]]] = {
    r.Acquire: _acquire,
    r.Expire: _expire,
    r.SaId: _deleted,
    r.FlushSas: _flushed,
    r.Mapping: _mapping,
}


def from_peer_at(held: Held, peer: tuple[IpAddress, int]) -> Whereabouts:
    """Return where packets of an inbound SA come from if the peer is there."""
    address, port = peer
    there = held.at.encapsulation
    assert there is not None
    return Whereabouts(
        source=address,
        destination=held.at.destination,
        encapsulation=UdpEncapsulation(source_port=port, destination_port=there.destination_port),
    )


def to_peer_at(held: Held, peer: tuple[IpAddress, int]) -> Whereabouts | None:
    """Return where packets of an outbound SA go if the peer is there; `None` if they cannot follow it.

    In transport mode the addresses of the packets are those of the policy.
    """
    address, port = peer
    there = held.at.encapsulation
    if there is None or held.sa.mode is not Mode.TUNNEL or address.version != held.at.source.version:
        return None
    return Whereabouts(
        source=held.at.source,
        destination=address,
        encapsulation=UdpEncapsulation(source_port=there.source_port, destination_port=port),
    )
