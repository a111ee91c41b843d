"""The SAD of the software datapath (RFC 4301 §4.4.2): what is installed, and how packets find it."""

from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.datapath.spent_keys import SpentKeys
from gateway.datapath.spi_reservations import SpiReservations
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.esp.flow import SelectorSet
from gateway.esp.inbound import InboundSa
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, SaId, SecurityAssociation, Spi

MAX_SAS: Final = 100_000


InboundCore = InboundSa | AhInboundSa
OutboundCore = OutboundSa | AhOutboundSa


@dataclass(slots=True, kw_only=True, eq=False)
class InboundEntry:
    """One inbound SA."""

    sa: SecurityAssociation
    core: InboundCore
    generation: int
    timers: list[TimerHandle] = field(default_factory=list)
    peer: tuple[bytes, int]
    """Source address and port in force, for the old end of a mapping change."""


@dataclass(slots=True, kw_only=True, eq=False)
class OutboundEntry:
    """One outbound SA."""

    sa: SecurityAssociation
    core: OutboundCore
    generation: int
    selectors: SelectorSet
    timers: list[TimerHandle] = field(default_factory=list)
    path_mtu: int | None = None
    mtu: int = 1280
    """Largest inner packet that goes out in one piece."""
    learnt_mtu: int = 0
    """Of the path, by what a router said about AH over IPv6; believed up to `learnt_until`, in seconds."""
    learnt_until: float = 0.0


Entry = InboundEntry | OutboundEntry


class Sad:
    """Everything installed, by name, by SPI and by what it serves.

    Args:
        entropy: Returns that many unpredictable bytes.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entries: dict[SaId, Entry] = {}
        self.inbound: dict[tuple[IpsecProtocol, int, bytes], InboundEntry] = {}
        """By protocol, SPI and packed destination (RFC 4301 §4.1)."""
        self._serving: dict[tuple[str, str], list[OutboundEntry]] = {}
        self._taken: Counter[Spi] = Counter()
        self.reservations = SpiReservations(entropy, self._taken.__contains__)
        self.keys = SpentKeys(entropy(32))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def get(self, sa_id: SaId) -> Entry | None:
        """Return an entry, if it is there."""
        return self._entries.get(sa_id)

    def outbound(self, protocol: IpsecProtocol, destination: IpAddress, spi: int) -> OutboundEntry | None:
        """Return the outbound SA that sends such packets, if it is there."""
        entry = self._entries.get(SaId(f"out:{protocol.name.lower()}:{destination}:{spi:08x}"))
        return entry if isinstance(entry, OutboundEntry) else None

    def serving(self, connection: str, child: str) -> tuple[OutboundEntry, ...]:
        """Return the outbound SAs of a (connection, child), newest first."""
        return tuple(reversed(self._serving.get((connection, child), ())))

    def add(self, entry: Entry) -> None:
        """Add an entry whose name is free; an outbound one takes over what it serves."""
        sa = entry.sa
        self._entries[sa.sa_id] = entry
        if isinstance(entry, InboundEntry):
            self.inbound[sa.protocol, sa.spi, sa.destination.packed] = entry
            self._taken[sa.spi] += 1
            self.reservations.use(sa.spi)
            return
        self._serving.setdefault((sa.connection, sa.child), []).append(entry)

    def remove(self, sa_id: SaId) -> Entry | None:
        """Remove an entry and return it; its timers are stopped."""
        entry = self._entries.pop(sa_id, None)
        if entry is None:
            return None
        for timer in entry.timers:
            timer.cancel()
        sa = entry.sa
        if isinstance(entry, InboundEntry):
            self.inbound.pop((sa.protocol, sa.spi, sa.destination.packed), None)
            self._taken[sa.spi] -= 1
            if not self._taken[sa.spi]:
                del self._taken[sa.spi]
            return entry
        self.stop_serving(entry)
        self.keys.retire(self.keys.fingerprint(sa))
        return entry

    def stop_serving(self, entry: OutboundEntry) -> None:
        """Let no more packets find an outbound SA: it expired, or is about to be removed."""
        names = entry.sa.connection, entry.sa.child
        others = [other for other in self._serving.get(names, ()) if other is not entry]
        if others:
            self._serving[names] = others
        else:
            self._serving.pop(names, None)

    def partner(self, inbound: SecurityAssociation) -> OutboundEntry | None:
        """Return the outbound SA of the same Child SA."""
        for entry in self.serving(inbound.connection, inbound.child):
            if entry.sa.child_sa_id == inbound.child_sa_id and entry.sa.direction is Direction.OUTBOUND:
                return entry
        return None
