"""Every IKE SA of an endpoint, and what is left of those that ended (RFC 7296 §1.4.1, §2.1)."""

from gateway.ike.events import ChildSaId, IkeSaId
from gateway.ike.timers import Timer
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.states import SERVING_STATES, IkeSaState
from gateway.ipsec.identity import Identity

GHOST_S = 30.0
"""How long the last answer of an IKE SA that ended is repeated for a peer that did not get it, in seconds."""
MAX_GHOSTS = 256

_PeerPair = tuple[str, Identity | None, Identity | None]


class IkeSaTable:
    """The IKE SAs by number and by our SPI.

    One that ended stays as a *ghost* for a while, found by its SPI only: it repeats its last answer.
    """

    __slots__ = ("_by_connection", "_by_number", "_by_pair", "_by_spi", "_context", "_ghosts", "_names")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_number: dict[IkeSaId, IkeSa] = {}
        self._by_spi: dict[bytes, IkeSa] = {}
        self._by_connection: dict[str, dict[IkeSaId, IkeSa]] = {}
        self._names: dict[IkeSaId, str] = {}
        """Under which connection each is kept: knowing the identities, a responder may choose another."""
        self._by_pair: dict[_PeerPair, dict[IkeSaId, IkeSa]] = {}
        self._ghosts: dict[IkeSaId, IkeSa] = {}

    # --- getters ----------------------------------------------------------------------------------

    def all(self) -> tuple[IkeSa, ...]:
        """Return every IKE SA, oldest first."""
        return tuple(self._by_number.values())

    def of_connection(self, name: str) -> tuple[IkeSa, ...]:
        """Return the IKE SAs of one connection; a half-open one counts for the likeliest."""
        return tuple(self._by_connection.get(name, {}).values())

    def half_open(self) -> tuple[IkeSa, ...]:
        """Return the IKE SAs that answered an IKE_SA_INIT request and have not got a valid IKE_AUTH yet."""
        found = (self._by_number.get(number) for number in self._context.half_open.members())
        return tuple(sa for sa in found if sa is not None and sa.state is IkeSaState.HALF_OPEN)

    def find(self, number: int) -> IkeSa | None:
        """Return an IKE SA by its number."""
        return self._by_number.get(IkeSaId(number))

    def find_by_spi(self, spi: bytes) -> IkeSa | None:
        """Return the IKE SA (or what is left of one) whose SPI on our side this is."""
        return self._by_spi.get(spi)

    def find_child(self, child_sa_id: ChildSaId) -> tuple[IkeSa, ChildSa] | None:
        """Return a Child SA and the IKE SA that has it."""
        owner = self._context.child_owners.get(child_sa_id)
        ike_sa = None if owner is None else self._by_number.get(owner)
        child_sa = None if ike_sa is None else ike_sa.children.get(child_sa_id)
        return None if ike_sa is None or child_sa is None else (ike_sa, child_sa)

    def same_pair(self, ike_sa: IkeSa) -> list[IkeSa]:
        """Return the other IKE SAs in use with the same connection and identities."""
        known = self._by_pair.get(_peer_pair(ike_sa), {})
        return [other for other in known.values() if other is not ike_sa and other.state in SERVING_STATES]

    def has_twin(self, ike_sa: IkeSa, child_sa: ChildSa) -> bool:
        """Tell whether another IKE SA to the same peer carries the traffic of a Child SA."""
        return any(other.find_twin(child_sa) is not None for other in self.same_pair(ike_sa))

    # --- commands ---------------------------------------------------------------------------------

    def add(self, ike_sa: IkeSa) -> None:
        """Take an IKE SA into care."""
        self._by_number[ike_sa.id] = ike_sa
        self._by_spi[ike_sa.local_spi] = ike_sa
        self._file(ike_sa)

    def note_authenticated(self, ike_sa: IkeSa) -> None:
        """Note that both sides of an IKE SA are authenticated, and who they are."""
        self._by_pair.setdefault(_peer_pair(ike_sa), {})[ike_sa.id] = ike_sa
        if self._names.get(ike_sa.id) != ike_sa.connection.name:
            self._unfile(ike_sa)
            self._file(ike_sa)
        self._context.authenticated[ike_sa.connection.name] += 1

    def remove(self, ike_sa: IkeSa, *, as_ghost: bool) -> None:
        """Let go of an IKE SA that ended, at once or after its last answer was repeated long enough."""
        self._by_number.pop(ike_sa.id, None)
        self._unfile(ike_sa)
        known = self._by_pair.get(_peer_pair(ike_sa), {})
        if known.pop(ike_sa.id, None) is not None:
            self._context.authenticated[ike_sa.connection.name] -= 1
            if not known:
                del self._by_pair[_peer_pair(ike_sa)]
        if not as_ghost:
            self._forget(ike_sa)
            return
        while len(self._ghosts) >= MAX_GHOSTS:
            self._forget(next(iter(self._ghosts.values())))
        self._ghosts[ike_sa.id] = ike_sa
        ike_sa.set_timer(Timer.IKE_LINGER, self._context.now + GHOST_S)

    def forget_ghost(self, number: int) -> None:
        """Forget the ghost with this number, if there is one."""
        ghost = self._ghosts.get(IkeSaId(number))
        if ghost is not None:
            self._forget(ghost)

    def _file(self, ike_sa: IkeSa) -> None:
        name = ike_sa.connection.name
        self._names[ike_sa.id] = name
        self._by_connection.setdefault(name, {})[ike_sa.id] = ike_sa

    def _unfile(self, ike_sa: IkeSa) -> None:
        name = self._names.pop(ike_sa.id, "")
        filed = self._by_connection.get(name, {})
        filed.pop(ike_sa.id, None)
        if not filed:
            self._by_connection.pop(name, None)

    def _forget(self, ike_sa: IkeSa) -> None:
        self._ghosts.pop(ike_sa.id, None)
        if self._by_spi.get(ike_sa.local_spi) is ike_sa:
            del self._by_spi[ike_sa.local_spi]
        self._context.timers.cancel_owner(ike_sa.id)


def _peer_pair(ike_sa: IkeSa) -> _PeerPair:
    return ike_sa.connection.name, ike_sa.local_id, ike_sa.remote_id
