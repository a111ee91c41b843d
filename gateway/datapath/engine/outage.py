"""What an end of espd cost, for the log: how long its traffic stood, and what was dropped meanwhile.

XDP and the guard in the kernel count what comes while there is no espd, and the next espd what comes before
it has SAs. Nobody counts what was in the rings and the memory of the one that ended, nor what came to its
sockets while the kernel had not closed them yet: the number is a lower bound.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from gateway.datapath.engine.sad import Held
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, SecurityAssociation
from gateway.ipsec.selectors import TrafficSelector

_Carried = tuple[str, str, tuple[TrafficSelector, ...]]
"""What an SA carries, and the one that replaces it too: (connection, child) and where to."""


class Outage:
    """From the end of an espd until there are SAs again for everything that it carried.

    Args:
        since: When it ended, monotonic.
    """

    def __init__(self, since: float) -> None:
        self._since = since
        self._drops: Counter[DropReason] | None = None
        self._standing: set[_Carried] = set()

    @property
    def is_over(self) -> bool:
        """Whether everything is carried again."""
        return not self._standing

    def begin_counting(self, drops: Mapping[DropReason, int], with_espd: Mapping[DropReason, int]) -> None:
        """Note what is not of this outage; of an espd that ends in an outage nothing new is.

        Args:
            drops: What has been counted outside of espd by now.
            with_espd: What XDP had counted when there was an espd for sure. Most of the time nobody drops
                for want of an espd while there is one: what was counted so since then came between its end
                and now.
        """
        if self._drops is None:
            self._drops = Counter(drops)
            self._drops[DropReason.NO_ENGINE] = with_espd.get(DropReason.NO_ENGINE, 0)

    def lose(self, lost: Iterable[Held]) -> None:
        """Note SAs that ended with it: what they sent stands."""
        self._standing |= _carried(held.sa for held in lost)

    def carry(self, installed: Iterable[SecurityAssociation]) -> None:
        """Note new SAs: what they are for stands no more."""
        self._standing -= _carried(installed)

    def cost(self, drops: Mapping[DropReason, int], now: float) -> dict[str, float | int | str]:
        """Return the fields of a log line: seconds, packets that were counted as dropped, and why.

        Args:
            drops: What has been counted by now, in the new espd too.
            now: When it was over, monotonic.
        """
        since = Counter(drops) - (self._drops or Counter())
        return {
            "seconds": round(now - self._since, 3),
            "dropped_at_least": since.total(),
            "reasons": ", ".join(f"{reason.value} {count}" for reason, count in since.most_common()),
        }


def _carried(sas: Iterable[SecurityAssociation]) -> set[_Carried]:
    return {(sa.connection, sa.child, sa.remote_ts) for sa in sas if sa.direction is Direction.OUTBOUND}
