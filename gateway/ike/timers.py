"""What an endpoint waits for, and the table that knows what is due next.

One table serves all IKE SAs of an endpoint: a heap with lazy deletion, so that setting, cancelling and
asking for the next deadline stay cheap with thousands of SAs. It reads no clock.
"""

from enum import Enum
from heapq import heapify, heappop, heappush
from typing import NamedTuple


class Timer(Enum):
    """Every reason for which the core wants to be woken."""

    RETRANSMIT = "retransmit"
    """Our request is unanswered (RFC 7296 §2.1)."""
    REASSEMBLY = "reassembly"
    """The rest of a fragmented message did not come (RFC 7383 §2.6)."""
    HALF_OPEN = "half_open"
    """A responder's IKE SA was not authenticated in time (RFC 7296 §2.6)."""
    REQUEST_DEADLINE = "request_deadline"
    """The shell has not resolved a request."""
    PAUSE = "pause"
    """A task asked to go on later (a retry after TEMPORARY_FAILURE, RFC 7296 §2.25)."""
    IKE_REKEY = "ike_rekey"
    """The IKE SA reached its soft lifetime (RFC 7296 §2.8)."""
    IKE_EXPIRE = "ike_expire"
    """The IKE SA reached its hard lifetime."""
    IKE_REAUTH = "ike_reauth"
    """It is time to authenticate anew (RFC 7296 §2.8.3)."""
    IKE_UNAUTHENTIC = "ike_unauthentic"
    """Nobody authenticated anew in time (RFC 4478)."""
    IKE_LINGER = "ike_linger"
    """The peer should have deleted this IKE SA (replaced or redundant) by now; we do it."""
    LIVENESS = "liveness"
    """The peer has been silent (RFC 7296 §2.4)."""
    KEEPALIVE = "keepalive"
    """The NAT in front of us wants to see a packet (RFC 3948 §4)."""
    CHILD_REKEY = "child_rekey"
    """A Child SA reached its soft lifetime."""
    CHILD_EXPIRE = "child_expire"
    """A Child SA reached its hard lifetime."""
    CHILD_SWITCH = "child_switch"
    """The peer has surely installed its side of a rekeyed Child SA: send on it."""
    CHILD_LINGER = "child_linger"
    """The peer should have deleted this Child SA (replaced or redundant) by now; we do it."""
    REMOVE_INBOUND = "remove_inbound"
    """Packets in flight on a replaced inbound SA have arrived or are lost."""


class TimerKey(NamedTuple):
    """One running timer: whose, which, and of what part of the owner (a Child SA, a request; 0 for none)."""

    owner: int
    timer: Timer
    subject: int = 0


class TimerTable:
    """Deadlines by key; each key has at most one."""

    __slots__ = ("_by_owner", "_deadlines", "_heap", "_serial")

    def __init__(self) -> None:
        self._deadlines: dict[TimerKey, tuple[float, int]] = {}
        self._by_owner: dict[int, set[TimerKey]] = {}
        self._heap: list[tuple[float, int, TimerKey]] = []
        self._serial = 0

    def __len__(self) -> int:
        """Return how many timers run."""
        return len(self._deadlines)

    def __contains__(self, key: TimerKey) -> bool:
        """Tell whether this timer runs."""
        return key in self._deadlines

    def set(self, key: TimerKey, deadline: float) -> None:
        """Start or move a timer."""
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._deadlines):
            self._compact()
        self._serial += 1
        self._deadlines[key] = (deadline, self._serial)
        self._by_owner.setdefault(key.owner, set()).add(key)
        heappush(self._heap, (deadline, self._serial, key))

    def cancel(self, key: TimerKey) -> None:
        """Stop a timer; one that does not run is fine."""
        if key in self._deadlines:
            self._remove(key)

    def cancel_owner(self, owner: int) -> None:
        """Stop every timer of an owner that is gone."""
        for key in self._by_owner.pop(owner, ()):
            del self._deadlines[key]

    def deadline(self, key: TimerKey) -> float | None:
        """Return when a timer is due; None if it does not run."""
        entry = self._deadlines.get(key)
        return None if entry is None else entry[0]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline; None if no timer runs."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> TimerKey | None:
        """Stop and return the earliest timer that is due at `now`, if there is one."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, key = heappop(self._heap)
        self._remove(key)
        return key

    def _remove(self, key: TimerKey) -> None:
        del self._deadlines[key]
        keys = self._by_owner[key.owner]
        keys.discard(key)
        if not keys:
            del self._by_owner[key.owner]

    def _drop_stale(self) -> None:
        while self._heap:
            deadline, serial, key = self._heap[0]
            if self._deadlines.get(key) == (deadline, serial):
                return
            heappop(self._heap)

    def _compact(self) -> None:
        self._heap = [(deadline, serial, key) for key, (deadline, serial) in self._deadlines.items()]
        heapify(self._heap)
