"""What one SA carried and dropped, and the byte, packet and sequence limits it reached (RFC 4301 §4.4.2.1).

Lifetimes in seconds belong to the shell, which has timers. Each limit is reported exactly once.
"""

from typing import Final, NamedTuple

from gateway.esp.errors import PacketDropped
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime

_NEVER: Final = 1 << 128
SEQUENCE_SOFT_FRACTION: Final = (3, 4)
"""Rekey when this part of the sequence space is used up."""


class Expiry(NamedTuple):
    """A limit was reached."""

    is_hard: bool
    limit: str
    """`bytes`, `packets` or `sequence`."""


class Usage:
    """Counters of one SA and the limits that they run against."""

    __slots__ = (
        "_hard_bytes",
        "_marks",
        "_next_bytes",
        "_next_packets",
        "_next_sequence",
        "bytes",
        "drops",
        "expiries",
        "is_expired",
        "last_used",
        "packets",
    )

    def __init__(self, lifetime: Lifetime, last_sequence: int) -> None:
        self.packets = 0
        self.bytes = 0
        """Inner bytes: of the packets that were protected, not of ESP."""
        self.drops: dict[DropReason, int] = {}
        self.last_used: float | None = None
        """When the last packet was carried, on the clock that `now` is read from."""
        self.is_expired = False
        """Whether a hard limit was reached; the SA carries nothing any more."""
        self.expiries: list[Expiry] = []
        """Limits reached and not yet drained."""
        self._hard_bytes = _NEVER if lifetime.hard.bytes is None else lifetime.hard.bytes
        numerator, denominator = SEQUENCE_SOFT_FRACTION
        marks = [
            (lifetime.soft.packets, Expiry(False, "packets")),
            (lifetime.hard.packets, Expiry(True, "packets")),
            (lifetime.soft.bytes, Expiry(False, "bytes")),
            (lifetime.hard.bytes, Expiry(True, "bytes")),
            (last_sequence * numerator // denominator, Expiry(False, "sequence")),
            (last_sequence, Expiry(True, "sequence")),
        ]
        self._marks = [(mark, expiry) for mark, expiry in marks if mark is not None]
        self._next_packets = self._next_bytes = self._next_sequence = _NEVER
        self._set_next_marks()

    def admit(self, inner_bytes: int) -> None:
        """Refuse a packet that would take the SA beyond a hard limit.

        Raises:
            PacketDropped: SA_EXPIRED.
        """
        if self.is_expired:
            raise PacketDropped(DropReason.SA_EXPIRED, "a hard lifetime was reached")
        if self.bytes + inner_bytes > self._hard_bytes:
            self._pass(Expiry(True, "bytes"))
            raise PacketDropped(DropReason.SA_EXPIRED, f"the packet exceeds {self._hard_bytes} bytes")

    def account(self, inner_bytes: int, sequence: int, now: float) -> None:
        """Count one carried packet and note every limit that it reaches."""
        self.packets += 1
        self.bytes += inner_bytes
        self.last_used = now
        if (
            self.packets >= self._next_packets
            or self.bytes >= self._next_bytes
            or sequence >= self._next_sequence
        ):
            self._note_reached(sequence)

    def count_drop(self, reason: DropReason) -> None:
        """Count one dropped packet."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def drain(self) -> tuple[Expiry, ...]:
        """Return the limits reached since the last call, each once in the life of the SA."""
        expiries = tuple(self.expiries)
        self.expiries.clear()
        return expiries

    def _note_reached(self, sequence: int) -> None:
        reached = {"packets": self.packets, "bytes": self.bytes, "sequence": sequence}
        for mark, expiry in tuple(self._marks):
            if reached[expiry.limit] >= mark:
                self._pass(expiry)

    def _pass(self, expiry: Expiry) -> None:
        self._marks = [(mark, waiting) for mark, waiting in self._marks if waiting != expiry]
        self.expiries.append(expiry)
        # An exhausted sequence has a drop reason of its own.
        self.is_expired = self.is_expired or (expiry.is_hard and expiry.limit != "sequence")
        self._set_next_marks()

    def _set_next_marks(self) -> None:
        def lowest(limit: str) -> int:
            return min((mark for mark, expiry in self._marks if expiry.limit == limit), default=_NEVER)

        self._next_packets = lowest("packets")
        self._next_bytes = lowest("bytes")
        self._next_sequence = lowest("sequence")
