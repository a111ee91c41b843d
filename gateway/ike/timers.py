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
    CHILD_SPREAD = "child_spread"
    """Beside this Child SA for all CPUs those of single CPUs are to be asked for (RFC 9611)."""
    CHILD_SWITCH = "child_switch"
    """The peer has surely installed its side of a rekeyed Child SA: send on it."""
    CHILD_LINGER = "child_linger"
    """The peer should have deleted this Child SA (replaced or redundant) by now; we do it."""
    REMOVE_INBOUND = "remove_inbound"
    """Packets in flight on a replaced inbound SA have arrived or are lost."""

    # Members are singletons: their identity will do, and Python code over their names need not run.
    __hash__ = object.__hash__


class TimerKey(NamedTuple):
    """One running timer: whose, which, and of what part of the owner (a Child SA, a request; 0 for none)."""

    owner: int
    timer: Timer
    subject: int = 0


_Entry = tuple[float, int, TimerKey]
"""A deadline, the number of its setting (which keeps those of one time in order), and what is due."""


class TimerTable:
    """Deadlines by key; each key has at most one."""

    __slots__ = ("_by_owner", "_heap", "_running", "_serial")

    def __init__(self) -> None:
        self._by_owner: dict[int, dict[TimerKey, _Entry]] = {}
        self._running = 0
        """How many entries there are in all."""
        self._heap: list[_Entry] = []
        """The same entries, and stale ones: those that were cancelled or moved meanwhile."""
        self._serial = 0

    def __len__(self) -> int:
        """Return how many timers run."""
        return self._running

    def __contains__(self, key: TimerKey) -> bool:
        """Tell whether this timer runs."""
        return self._find(key) is not None

    def set(self, key: TimerKey, deadline: float) -> None:
        """Start or move a timer."""
        if len(self._heap) > 64 and len(self._heap) > 4 * self._running:
            self._compact()
        self._serial += 1
        entry = (deadline, self._serial, key)
        owned = self._by_owner.get(key.owner)
        if owned is None:
            owned = self._by_owner[key.owner] = {}
        if key not in owned:
            self._running += 1
        owned[key] = entry
        heappush(self._heap, entry)

    def cancel(self, key: TimerKey) -> None:
        """Stop a timer; one that does not run is fine."""
        owned = self._by_owner.get(key.owner)
        if owned is None or owned.pop(key, None) is None:
            return
        self._running -= 1
        if not owned:
            del self._by_owner[key.owner]

    def cancel_owner(self, owner: int) -> None:
        """Stop every timer of an owner that is gone."""
        self._running -= len(self._by_owner.pop(owner, ()))

    def deadline(self, key: TimerKey) -> float | None:
        """Return when a timer is due; None if it does not run."""
        entry = self._find(key)
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
        self.cancel(key)
        return key

    def _find(self, key: TimerKey) -> _Entry | None:
        owned = self._by_owner.get(key.owner)
        return None if owned is None else owned.get(key)

    def _drop_stale(self) -> None:
        while self._heap:
            entry = self._heap[0]
            if self._find(entry[2]) is entry:
                return
            heappop(self._heap)

    def _compact(self) -> None:
        self._heap = [entry for owned in self._by_owner.values() for entry in owned.values()]
        heapify(self._heap)
