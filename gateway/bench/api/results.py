"""What `ipsecgw bench api` measures, as records."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What applying to an empty controller, again, and listing took. Rates are connections per second."""

    rate: float
    first_tenth: float
    last_tenth: float
    cpu_us: float
    """CPU time of the controller for each connection, in microseconds."""
    again_s: float
    """All of it once more, unchanged."""
    first_list_s: float
    list_s: float
    """Any later list."""
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one kind of call takes, in milliseconds."""

    name: str
    p50_ms: float
    p99_ms: float
    worst_ms: float

    @classmethod
    def of(cls, name: str, times_s: Sequence[float]) -> "Call":
        """Return the figures of some calls."""
        ordered = sorted(1000 * taken for taken in times_s)
        return cls(
            name=name,
            p50_ms=ordered[len(ordered) // 2],
            p99_ms=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
            worst_ms=ordered[-1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """What many watchers of a busy controller were told."""

    watchers: int
    changes_per_s: float
    """Of connections: each is told to every watcher, several at once where they come faster."""
    messages_per_s: float
    """To all watchers together."""
    resident_before: int
    """Bytes of the controller, with all watchers in place."""
    resident_after: int
    wrong: int
    """Watchers whose view is not what is listed in the end."""
