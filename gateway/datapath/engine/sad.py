"""The SAs that espd has of us, and how its messages find them. Their keys are there only."""

from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gateway.datapath.backend import SaCounters
from gateway.datapath.spent_keys import SpentKeys
from gateway.datapath.spi_reservations import SpiReservations
from gateway.ipsec.sa import Direction, IpAddress, SaId, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """One SA in espd."""

    sa: SecurityAssociation
    """Without keys."""
    fingerprint: bytes
    """Of the key; see `SpentKeys`."""
    cookie: int
    """Its name there."""
    generation: int
    installed_at: float
    """By the monotonic clock of this machine, in seconds."""
    peer: tuple[IpAddress, int]
    """Where an outbound SA sends to, and an inbound one's packets come from: address, and port of UDP."""
    sequence_limit: int = 0
    """Outbound: no number from here on is reserved."""
    path_mtu: int = 0
    """Outbound: of the outer packet; 0: not known."""
    mtu: int | None = None
    """Outbound: the largest packet that fits into one piece."""
    timers: list[TimerHandle] = field(default_factory=list)
    is_expired: bool = False
    final: SaCounters | None = None
    """Of one that has expired and is not in espd any more: what it had counted."""

    @property
    def is_inbound(self) -> bool:
        """Whether it is of packets to us."""
        return self.sa.direction is Direction.INBOUND

    @property
    def serves(self) -> tuple[str, str]:
        """Return the (connection, child) it serves."""
        return self.sa.connection, self.sa.child


class Sad:
    """Every SA of ours, by its name, by its cookie and by what it serves.

    Args:
        entropy: Returns that many unpredictable bytes.
        inbound_bits: So many low bits of an SPI are its place in espd's table.
    """

    def __init__(self, entropy: Callable[[int], bytes], inbound_bits: int) -> None:
        self._mask = (1 << inbound_bits) - 1
        self._held: dict[SaId, Held] = {}
        self._by_cookie: dict[int, Held] = {}
        self._serving: dict[tuple[str, str], dict[SaId, Held]] = {}
        self._places: Counter[int] = Counter()
        self.reservations = SpiReservations(entropy, self._is_taken, table_bits=inbound_bits)
        self.keys = SpentKeys(entropy(32))
        """The journal has its `fingerprint_key` beside fingerprints."""
        self._next_cookie = int.from_bytes(entropy(4), "big") << 24 | 1

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def get(self, sa_id: SaId) -> Held | None:
        """Return an SA by our name, if it is there."""
        return self._held.get(sa_id)

    def of_cookie(self, cookie: int) -> Held | None:
        """Return an SA by espd's name, if it is there."""
        return self._by_cookie.get(cookie)

    def new_cookie(self) -> int:
        """Return a name for espd that no SA ever had: another agent began to count elsewhere."""
        self._next_cookie += 1
        return self._next_cookie

    def add(self, held: Held) -> None:
        """Add an SA."""
        self._held[held.sa.sa_id] = held
        self._by_cookie[held.cookie] = held
        self._serving.setdefault(held.serves, {})[held.sa.sa_id] = held
        if held.is_inbound:
            self._places[held.sa.spi & self._mask] += 1
            self.reservations.use(held.sa.spi)
        else:
            self.keys.adopt(held.fingerprint)

    def remove(self, sa_id: SaId) -> Held | None:
        """Remove an SA and return it, if it was there; its timers are stopped."""
        held = self._held.pop(sa_id, None)
        if held is None:
            return None
        for timer in held.timers:
            timer.cancel()
        self._by_cookie.pop(held.cookie, None)
        serving = self._serving[held.serves]
        del serving[sa_id]
        if not serving:
            del self._serving[held.serves]
        if held.is_inbound:
            place = held.sa.spi & self._mask
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]
        else:
            self.keys.retire(held.fingerprint)
        return held

    def outbound(self, connection: str, child: str) -> tuple[Held, ...]:
        """Return the outbound SAs that carry packets of a (connection, child), the newest first."""
        there = self._serving.get((connection, child), {}).values()
        return tuple(reversed([held for held in there if not held.is_inbound and not held.is_expired]))

    def partner(self, held: Held) -> Held | None:
        """Return the other direction of the same Child SA, if it is there."""
        for other in reversed(self._serving.get(held.serves, {}).values()):
            is_same = other.sa.child_sa_id == held.sa.child_sa_id
            if is_same and other.sa.direction is not held.sa.direction:
                return other
        return None

    def _is_taken(self, spi: Spi) -> bool:
        return spi & self._mask in self._places


def without_keys(sa: SecurityAssociation) -> SecurityAssociation:
    """Return an SA as it is kept here."""
    return replace(sa, encryption_key=Secret(b""), integrity_key=Secret(b""))
