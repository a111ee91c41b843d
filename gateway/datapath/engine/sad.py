"""The SAs that espd has of us, and how its messages find them. Their keys are there only."""

import hashlib
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason, SaCounters
from gateway.ipsec.sa import MIN_SPI, Direction, IpAddress, SaId, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret

RESERVATION_S: Final = 300.0
_MAX_SPENT: Final = 200_000
_TRIES: Final = 200
"""Random numbers that are tried for one SPI before the table is said to be full."""


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """One SA in espd."""

    sa: SecurityAssociation
    """Without keys."""
    fingerprint: bytes
    """Of the keys; see `Sad.fingerprint`."""
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
        self._entropy = entropy
        self._mask = (1 << inbound_bits) - 1
        self._held: dict[SaId, Held] = {}
        self._by_cookie: dict[int, Held] = {}
        self._serving: dict[tuple[str, str], dict[SaId, Held]] = {}
        self._places: Counter[int] = Counter()
        self._reserved: dict[Spi, float] = {}
        self._spent: dict[bytes, None] = {}
        self._next_cookie = int.from_bytes(entropy(4), "big") << 24 | 1
        self.fingerprint_key = entropy(32)

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
            self._reserved.pop(held.sa.spi, None)
        else:
            self._spent[held.fingerprint] = None

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

    # --- SPIs -------------------------------------------------------------------------------------

    def reserve(self, count: int, now: float) -> tuple[Spi, ...]:
        """Reserve SPIs whose places are free, and that nobody was given in the last minutes.

        Raises:
            DatapathError: TABLE_FULL: too few places are.
        """
        self._reserved = {spi: until for spi, until in self._reserved.items() if until > now}
        places = {spi & self._mask for spi in self._reserved}
        spis: list[Spi] = []
        for _ in range(count):
            spi = self._free_spi(places)
            places.add(spi & self._mask)
            spis.append(spi)
        self._reserved |= dict.fromkeys(spis, now + RESERVATION_S)
        return tuple(spis)

    def _free_spi(self, reserved_places: set[int]) -> Spi:
        for _ in range(_TRIES):
            spi = Spi(int.from_bytes(self._entropy(4), "big"))
            place = spi & self._mask
            if spi >= MIN_SPI and place not in self._places and place not in reserved_places:
                return spi
        raise DatapathError(ErrorReason.TABLE_FULL, f"espd's {self._mask + 1} places for SAs are taken")

    def is_reserved(self, spi: int) -> bool:
        """Tell whether an SPI was reserved for an inbound SA that is not there yet."""
        return spi in self._reserved

    # --- keys -------------------------------------------------------------------------------------

    def fingerprint(self, sa: SecurityAssociation) -> bytes:
        """Return what tells keys apart without keeping them.

        It is of the key that IVs belong to: another integrity key beside it makes no IV new. The keys are
        random, and longer than what anybody could try; so it tells nothing of them, even with
        `fingerprint_key`, which the journal has beside it.
        """
        digest = hashlib.blake2b(key=self.fingerprint_key, digest_size=16)
        digest.update((sa.encryption_key if len(sa.encryption_key) else sa.integrity_key).reveal())
        return digest.digest()

    def check_key(self, fingerprint: bytes) -> None:
        """Check that no outbound SA ever had a key: sequence numbers, and so IVs, begin anew.

        Raises:
            DatapathError: SPI_IN_USE: one had (RFC 4106 §2).
        """
        if fingerprint in self._spent:
            raise DatapathError(
                ErrorReason.SPI_IN_USE,
                "an outbound SA had this key before: sending with it again would repeat its IVs",
            )
        while len(self._spent) > len(self._held) + _MAX_SPENT:
            del self._spent[next(iter(self._spent))]

    def unspend(self, fingerprint: bytes) -> None:
        """Forget a key that nothing was sent with."""
        self._spent.pop(fingerprint, None)


def without_keys(sa: SecurityAssociation) -> SecurityAssociation:
    """Return an SA as it is kept here."""
    return replace(sa, encryption_key=Secret(b""), integrity_key=Secret(b""))
