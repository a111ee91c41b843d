"""Which SA is at which backend, on which engine, and why not on a better one. Pure bookkeeping."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.datapath.ability import NIC_ENGINES
from gateway.ipsec.placement import Engine, PlacementRefusal
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, SaId, SecurityAssociation, Spi


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSa:
    """One SA and where it is."""

    sa: SecurityAssociation
    """As it was asked for, with the operator's wish."""
    backend: str
    asked: Engine
    """What the backend was told to put it on; it is told the same when the SA is installed again."""
    engine: Engine
    """Where it is."""
    device: str = ""
    """The NIC; empty unless the engine is a NIC's."""
    refusals: tuple[PlacementRefusal, ...] = ()
    """Why no better engine, the best first."""

    @property
    def child(self) -> tuple[str, str]:
        """Return the names of what it serves."""
        return self.sa.connection, self.sa.child


class PlacedSas:
    """Every SA of this node by id, by what it serves and by inbound SPI."""

    def __init__(self) -> None:
        self._sas: dict[SaId, PlacedSa] = {}
        self._by_child: dict[tuple[str, str], dict[SaId, None]] = {}
        self._inbound: dict[tuple[IpsecProtocol, Spi, IpAddress], str] = {}
        self._spis: Counter[Spi] = Counter()
        self._used: Counter[tuple[Engine, str]] = Counter()

    def get(self, sa_id: SaId) -> PlacedSa | None:
        """Return an SA, if it is there."""
        return self._sas.get(sa_id)

    def at(self, backend: str) -> tuple[PlacedSa, ...]:
        """Return every SA at a backend."""
        return tuple(placed for placed in self._sas.values() if placed.backend == backend)

    @property
    def used(self) -> Mapping[tuple[Engine, str], int]:
        """Return how many SAs there are by engine and device."""
        return self._used

    def put(self, placed: PlacedSa) -> None:
        """Add an SA, in place of any of the same id."""
        sa = placed.sa
        self.drop(sa.sa_id)
        self._sas[sa.sa_id] = placed
        self._by_child.setdefault(placed.child, {})[sa.sa_id] = None
        self._used[placed.engine, placed.device] += 1
        if sa.direction is Direction.INBOUND:
            self._inbound[sa.protocol, sa.spi, sa.destination] = placed.backend
            self._spis[sa.spi] += 1

    def drop(self, sa_id: SaId) -> PlacedSa | None:
        """Forget an SA and return it; one that is not there is no error."""
        placed = self._sas.pop(sa_id, None)
        if placed is None:
            return None
        sa = placed.sa
        names = self._by_child[placed.child]
        del names[sa_id]
        if not names:
            del self._by_child[placed.child]
        self._used[placed.engine, placed.device] -= 1
        if sa.direction is Direction.INBOUND:
            self._inbound.pop((sa.protocol, sa.spi, sa.destination), None)
            self._spis[sa.spi] -= 1
            if not self._spis[sa.spi]:
                del self._spis[sa.spi]
        return placed

    def demote(self, sa_id: SaId, engine: Engine, refusal: PlacementRefusal) -> None:
        """Note that the backend moved an SA to another of its engines."""
        placed = self._sas[sa_id]
        others = tuple(known for known in placed.refusals if known.engine not in (engine, refusal.engine))
        device = placed.device if engine in NIC_ENGINES else ""
        self._used[placed.engine, placed.device] -= 1
        self._used[engine, device] += 1
        self._sas[sa_id] = replace(placed, engine=engine, device=device, refusals=(*others, refusal))

    def of_child(
        self, connection: str, child: str, direction: Direction | None = None
    ) -> tuple[PlacedSa, ...]:
        """Return the SAs of a (connection, child), those of one direction if it is given, oldest first."""
        found = (self._sas[sa_id] for sa_id in self._by_child.get((connection, child), ()))
        return tuple(placed for placed in found if direction in (None, placed.sa.direction))

    def partner(self, sa: SecurityAssociation) -> PlacedSa | None:
        """Return the other direction of the same Child SA."""
        for placed in self.of_child(sa.connection, sa.child):
            is_same = sa.child_sa_id != 0 and placed.sa.child_sa_id == sa.child_sa_id
            if is_same and placed.sa.direction is not sa.direction:
                return placed
        return None

    def inbound_at(self, protocol: IpsecProtocol, spi: Spi, destination: IpAddress) -> str | None:
        """Return the backend of an inbound SA, if there is one (RFC 4301 §4.1)."""
        return self._inbound.get((protocol, spi, destination))

    def taken(self, spis: Iterable[Spi]) -> frozenset[Spi]:
        """Return those SPIs that an inbound SA has."""
        return frozenset(spi for spi in spis if spi in self._spis)
