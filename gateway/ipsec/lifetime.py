"""Hard and soft limits of an SA in seconds, bytes and packets (RFC 4301 §4.4.2.1)."""

from dataclasses import dataclass
from typing import Final

from gateway.ipsec.errors import VocabularyError

SEQUENCE_SOFT_FRACTION: Final = 0.75
"""An SA is rekeyed at this part of its sequence numbers, whatever its lifetime (RFC 4303 §3.3.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One bound; `None` means no bound of that kind."""

    seconds: float | None = None
    bytes: int | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When to rekey (`soft`) and when to stop using the SA whatever happens (`hard`).

    The values are final: jitter was already applied by `gateway.ipsec.lifetime.jittered`.
    """

    soft: Limit = Limit()
    hard: Limit = Limit()


def jittered(limit: Limit, over: float, jitter: float, random_fraction: float) -> Lifetime:
    """Return the soft and hard lifetime that a configured soft limit means for one SA.

    The hard limit is `limit * (1 + over)`; the soft one lies between `limit * (1 - jitter)` and `limit`, so
    that the two ends, and many SAs made at once, do not rekey together (RFC 7296 §2.8). Bytes and packets
    are at least 1. A limit of 0 means none, as `None` does.

    Args:
        limit: The soft limit before jitter.
        over: What is left for a failing rekey, as a fraction of `limit`; 0 or more.
        jitter: The largest part of `limit` that may be taken off; 0 to less than 1.
        random_fraction: Drawn by the caller for this SA, in [0, 1).

    Raises:
        VocabularyError: A number is out of its range.
    """
    if over < 0:
        raise VocabularyError(f"the hard lifetime cannot lie before the soft one: over is {over}")
    if not 0 <= jitter < 1:
        raise VocabularyError(f"jitter is a fraction from 0 to less than 1, got {jitter}")
    if not 0 <= random_fraction < 1:
        raise VocabularyError(f"the random fraction is from 0 to less than 1, got {random_fraction}")
    return Lifetime(soft=_scaled(limit, 1 - jitter * random_fraction), hard=_scaled(limit, 1 + over))


def _scaled(limit: Limit, factor: float) -> Limit:
    return Limit(
        seconds=limit.seconds * factor if limit.seconds else None,
        bytes=max(1, int(limit.bytes * factor)) if limit.bytes else None,
        packets=max(1, int(limit.packets * factor)) if limit.packets else None,
    )
