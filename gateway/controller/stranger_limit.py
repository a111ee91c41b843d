"""A bound on what an unauthenticated stranger can make us say.

Anybody who may send us IKE_SA_INIT can make IKE SAs fail at our side, and ESP with unknown SPIs arrive, as
often as packets arrive. The operator must see that it happens and why, but a flood must not fill the log or
push other events out of the history.
"""

from collections import Counter

from gateway.datapath.backend import BadSpi, DatapathEvent
from gateway.ike.events import Event, IkeSaFailed

#: One failure of this kind is told per connection in this time, and one unknown SPI.
INTERVAL_S = 5.0


class StrangerLimit:
    """Lets one failure as responder through per connection and interval, one unknown SPI; counts the rest."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}
        self.withheld: Counter[str] = Counter()
        """What was not told, by connection; unknown SPIs by the empty name."""

    def allows(self, event: Event | DatapathEvent, now: float) -> bool:
        """Whether an event is to be logged and recorded."""
        match event:
            case IkeSaFailed(ike_sa=ike_sa) if not ike_sa.is_initiator:
                connection = ike_sa.connection
            case BadSpi():
                connection = ""
            case _:
                return True
        told_at = self._told_at.get(connection)
        if told_at is not None and now - told_at < INTERVAL_S:
            self.withheld[connection] += 1
            return False
        self._told_at[connection] = now
        return True
