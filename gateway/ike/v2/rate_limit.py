"""How often something may be done because of what strangers send (RFC 7296 §2.21.4).

A token bucket for everybody together, and a pause for each place (`half_open.narrowest`), so that the answers
of one are not used up by another as long as there are any. Memory is bounded: of too many places the
one that was served longest ago is forgotten.
"""

from typing import Final

from gateway.ike.v2.half_open import narrowest
from gateway.ipsec.sa import IpAddress

MAX_PLACES: Final = 1024


class TokenBucket:
    """So many a second, and no more than that at once after a rest.

    Args:
        per_s: How many.
    """

    __slots__ = ("_last", "_per_s", "_tokens")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._last = 0.0

    def has_one(self, now: float) -> bool:
        """Say whether there is one to take."""
        self._tokens = min(self._per_s, self._tokens + (now - self._last) * self._per_s)
        self._last = now
        return self._tokens >= 1.0

    def take(self, now: float) -> bool:
        """Take one; say whether there was one."""
        if not self.has_one(now):
            return False
        self._tokens -= 1.0
        return True


class RateLimit:
    """See module.

    Args:
        per_s: How many a second, for all together; also how many at once after a rest.
        pause_s: How long one place waits after it was served, in seconds.
    """

    __slots__ = ("_bucket", "_pause_s", "_served")

    def __init__(self, *, per_s: float, pause_s: float) -> None:
        self._bucket = TokenBucket(per_s)
        self._pause_s = pause_s
        self._served: dict[tuple[int, int], float] = {}

    def allows(self, address: IpAddress, now: float) -> bool:
        """Say whether it may be done for this address now; if so, count it."""
        place = narrowest(address)
        served_at = self._served.get(place)
        if served_at is not None and now - served_at < self._pause_s:
            return False
        if not self._bucket.take(now):
            return False
        self._served.pop(place, None)
        if len(self._served) >= MAX_PLACES:
            del self._served[next(iter(self._served))]
        self._served[place] = now
        return True
