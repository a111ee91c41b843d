"""The SAD of the software datapath (RFC 4301 §4.4.2): what is installed, and how packets find it."""

import hashlib
from asyncio import TimerHandle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.esp.flow import SelectorSet
from gateway.esp.inbound import InboundSa
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.sa import MIN_SPI, Direction, IpAddress, IpsecProtocol, SaId, SecurityAssociation, Spi

RESERVATION_S: Final = 300.0
MAX_SAS: Final = 100_000
_MAX_RETIRED: Final = 200_000


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
        self._entropy = entropy
        self._entries: dict[SaId, Entry] = {}
        self.inbound: dict[tuple[IpsecProtocol, int, bytes], InboundEntry] = {}
        """By protocol, SPI and packed destination (RFC 4301 §4.1)."""
        self._serving: dict[tuple[str, str], list[OutboundEntry]] = {}
        self._reserved: dict[Spi, float] = {}
        self._fingerprint_key = entropy(32)
        self._live_keys: set[bytes] = set()
        self._retired: dict[bytes, int] = {}

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

    # --- SPIs -------------------------------------------------------------------------------------

    def reserve(self, count: int, now: float) -> tuple[Spi, ...]:
        """Reserve SPIs that no inbound SA has, of ESP or AH, and nobody else was given."""
        self._reserved = {spi: until for spi, until in self._reserved.items() if until > now}
        taken = {entry.sa.spi for entry in self.inbound.values()}
        spis: list[Spi] = []
        while len(spis) < count:
            spi = Spi(int.from_bytes(self._entropy(4), "big"))
            if spi >= MIN_SPI and spi not in taken and spi not in self._reserved:
                self._reserved[spi] = now + RESERVATION_S
                spis.append(spi)
        return tuple(spis)

    def is_reserved(self, spi: int) -> bool:
        """Tell whether an SPI was reserved for an inbound SA that is not there yet."""
        return spi in self._reserved

    # --- SAs --------------------------------------------------------------------------------------

    def next_sequence(self, sa: SecurityAssociation) -> int:
        """Return the first number an outbound SA may send: a key never starts over in this process.

        Raises:
            DatapathError: Another outbound SA sends with this very key.
        """
        fingerprint = self._fingerprint(sa)
        if fingerprint in self._live_keys:
            raise DatapathError(
                ErrorReason.SPI_IN_USE, "another outbound SA has the same key: both would send the same IVs"
            )
        return self._retired.get(fingerprint, 0) + 1

    def add(self, entry: Entry) -> None:
        """Add an entry whose name is free; an outbound one takes over what it serves."""
        sa = entry.sa
        self._entries[sa.sa_id] = entry
        self._reserved.pop(sa.spi, None)
        if isinstance(entry, InboundEntry):
            self.inbound[sa.protocol, sa.spi, sa.destination.packed] = entry
            return
        self._live_keys.add(self._fingerprint(sa))
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
            return entry
        self.stop_serving(entry)
        fingerprint = self._fingerprint(sa)
        self._live_keys.discard(fingerprint)
        self._retired[fingerprint] = entry.core.sequence
        if len(self._retired) > _MAX_RETIRED:
            del self._retired[next(iter(self._retired))]
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

    def _fingerprint(self, sa: SecurityAssociation) -> bytes:
        """Return what tells keys apart without keeping them; worthless outside this process."""
        digest = hashlib.blake2b(key=self._fingerprint_key, digest_size=16)
        digest.update(sa.encryption_key.reveal())
        if not len(sa.encryption_key):
            digest.update(sa.integrity_key.reveal())
        return digest.digest()
