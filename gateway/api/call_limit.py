"""A bound on how often one client may call: a token bucket for each, all of one size."""

from dataclasses import dataclass
from typing import Final

from gateway.ipsec.errors import GatewayError

CALLS_PER_S: Final = 2000.0
BURST: Final = 4000.0
"""Calls that may come at once after a silence."""
MAX_CLIENTS: Final = 4096
"""Buckets that are kept; the fullest ones are forgotten first, which loses nothing."""


class TooManyCallsError(GatewayError):
    """A client calls more often than it may; a batch carries more with one call.

    Attributes:
        retry_after_s: When the next call is taken.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            f"more than {CALLS_PER_S:.0f} calls in a second: put more items into one call, or wait a moment"
        )
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class CallLimit:
    """Token buckets by client name."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def take(self, client: str, now: float) -> None:
        """Take one token of a client.

        Args:
            client: Its name.
            now: Monotonic seconds.

        Raises:
            TooManyCallsError: It has none left.
        """
        bucket = self._buckets.get(client)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[client] = _Bucket(BURST, now)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) * CALLS_PER_S)
        bucket.at = now
        if bucket.tokens < 1.0:
            raise TooManyCallsError((1.0 - bucket.tokens) / CALLS_PER_S)
        bucket.tokens -= 1.0

    def _make_room(self, now: float) -> None:
        if len(self._buckets) < MAX_CLIENTS:
            return
        filled = sorted(
            self._buckets, key=lambda name: -(self._buckets[name].tokens + (now - self._buckets[name].at))
        )
        for name in filled[: MAX_CLIENTS // 2]:
            del self._buckets[name]
