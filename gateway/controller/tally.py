"""What a controller has lived through, in numbers that only grow: handshakes, ends, rekeys, traffic.

Every key is made of names from the configuration and of enumerations, never of what a peer sends, so that
memory and the metrics made from it are bounded; what strangers do counts under the empty connection name.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from gateway.datapath.backend import SaCounters
from gateway.ike.events import (
    ChildSaFailed,
    ChildSaRekeyed,
    Event,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaInfo,
    IkeSaRekeyed,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation

ESTABLISHED: Final = "established"
"""The result of a handshake that came through; the others are values of `FailureReason`."""

LATENCY_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds; the last ones are those of handshakes with retransmissions."""


@dataclass(slots=True)
class Latency:
    """How long handshakes took, counted by upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    """One for each of `LATENCY_BOUNDS_S` (so much or less, but more than the bound before), and the rest."""
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one handshake."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield (upper bound in seconds, handshakes that took at most so long), infinity last."""
        total = 0
        for bound, count in zip((*LATENCY_BOUNDS_S, float("inf")), self.counts, strict=True):
            total += count
            yield bound, total


@dataclass(slots=True)
class Carried:
    """What the SAs of one direction of a child carried, those that are gone included."""

    packets: int = 0
    bytes: int = 0
    """Inner bytes."""


ChildDirection = tuple[str, str, Direction]
"""(connection, child, direction)."""


@dataclass(slots=True)
class Tally:
    """The numbers of one controller since its start."""

    handshakes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By connection, role (`initiator` or `responder`) and result: `ESTABLISHED`, or why not."""
    latency: dict[str, Latency] = field(default_factory=dict)
    """Of handshakes that came through, by role; from the first message to both sides authenticated."""
    ike_sa_ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of established IKE SAs, by connection and reason."""
    ike_sa_rekeys: Counter[tuple[str]] = field(default_factory=Counter)
    """By connection."""
    child_sa_rekeys: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By connection and child."""
    child_sa_failures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By connection, child and reason: a Child SA did not come up, or its rekey failed."""
    carried: dict[ChildDirection, Carried] = field(default_factory=dict)
    """As of the last `on_counters`."""
    drops_of_removed: Counter[DropReason] = field(default_factory=Counter)
    """Of SAs that are gone: those that are there have theirs at the datapath."""
    _last_seen: dict[SaId, Carried] = field(default_factory=dict)

    def on_event(self, event: Event) -> None:
        """Count what the core tells."""
        match event:
            case IkeSaEstablished(ike_sa=ike_sa):
                self.handshakes[ike_sa.connection, _role(ike_sa), ESTABLISHED] += 1
                if ike_sa.established_at is not None:
                    latency = self.latency.setdefault(_role(ike_sa), Latency())
                    latency.add(ike_sa.established_at - ike_sa.began_at)
            case IkeSaFailed(ike_sa=ike_sa, failure=failure):
                self.handshakes[ike_sa.connection, _role(ike_sa), failure.reason.value] += 1
            case IkeSaDeleted(ike_sa=ike_sa, failure=failure):
                self.ike_sa_ends[ike_sa.connection, failure.reason.value] += 1
            case IkeSaRekeyed(new=new):
                self.ike_sa_rekeys[new.connection,] += 1
            case ChildSaRekeyed(new=new_child):
                self.child_sa_rekeys[new_child.connection, new_child.child] += 1
            case ChildSaFailed(connection=connection, child=child, failure=failure):
                self.child_sa_failures[connection, child, failure.reason.value] += 1
            case _:
                pass

    def on_counters(self, sas: Iterable[SecurityAssociation], counters: Mapping[SaId, SaCounters]) -> None:
        """Take over what SAs carried since they were read last.

        Args:
            sas: Those that this controller has installed.
            counters: Of the SAs at the datapath.
        """
        for sa in sas:
            counted = counters.get(sa.sa_id)
            if counted is not None:
                self._take_over(sa, counted)

    def on_removed(self, sa: SecurityAssociation, counted: SaCounters | None) -> None:
        """Take over the rest of what an SA carried that is gone, and what it dropped in its life."""
        if counted is not None:
            self._take_over(sa, counted)
            self.drops_of_removed.update(counted.drops)
        self._last_seen.pop(sa.sa_id, None)

    def _take_over(self, sa: SecurityAssociation, counted: SaCounters) -> None:
        carried = self.carried.setdefault((sa.connection, sa.child, sa.direction), Carried())
        before = self._last_seen.get(sa.sa_id, Carried())
        # A count that went back is that of an agent which began anew.
        carried.packets += counted.packets - (before.packets if counted.packets >= before.packets else 0)
        carried.bytes += counted.bytes - (before.bytes if counted.bytes >= before.bytes else 0)
        self._last_seen[sa.sa_id] = Carried(counted.packets, counted.bytes)

    def keep_only(self, connections: Collection[str]) -> None:
        """Forget the connections that are no longer configured, so that names do not pile up."""
        kept = {*connections, ""}
        _keep_only(self.handshakes, kept)
        _keep_only(self.ike_sa_ends, kept)
        _keep_only(self.ike_sa_rekeys, kept)
        _keep_only(self.child_sa_rekeys, kept)
        _keep_only(self.child_sa_failures, kept)
        _keep_only(self.carried, kept)

    def copy(self) -> "Tally":
        """Return the numbers of this moment, for a reader in another thread."""
        return Tally(
            handshakes=self.handshakes.copy(),
            latency={role: Latency(list(had.counts), had.sum_s) for role, had in self.latency.items()},
            ike_sa_ends=self.ike_sa_ends.copy(),
            ike_sa_rekeys=self.ike_sa_rekeys.copy(),
            child_sa_rekeys=self.child_sa_rekeys.copy(),
            child_sa_failures=self.child_sa_failures.copy(),
            carried={key: Carried(had.packets, had.bytes) for key, had in self.carried.items()},
            drops_of_removed=self.drops_of_removed.copy(),
        )


_Key = TypeVar("_Key", bound=tuple[Any, ...])  # names, the connection's first; and a direction


def _keep_only(keyed: dict[_Key, Any], connections: Collection[str]) -> None:
    for key in [key for key in keyed if key[0] not in connections]:
        del keyed[key]


def _role(ike_sa: IkeSaInfo) -> str:
    return "initiator" if ike_sa.is_initiator else "responder"
