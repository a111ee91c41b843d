"""SAs that a controller before this one left at the datapath, and their orderly replacement.

Their packets flow on while the new controller negotiates anew: it says no INITIAL_CONTACT, since that would
make the peer drop them. As soon as a new Child SA stands for the same policy, the old outbound SA goes (the
new one has taken over), and the old inbound one a little later, when nothing is in flight any more.
What nobody replaces goes when the time is up. The peer keeps its side of the old IKE SA until its own
liveness check fails, or until it sees that the new one supersedes it (`gateway.controller.uniqueness`).
"""

from collections import defaultdict
from collections.abc import Iterable

from gateway.datapath.backend import InstalledSa
from gateway.ipsec.sa import Direction, SaId


class Adoption:
    """What is left to replace."""

    def __init__(self, installed: Iterable[InstalledSa]) -> None:
        self._left: dict[tuple[str, str], list[InstalledSa]] = defaultdict(list)
        for item in installed:
            self._left[item.sa.connection, item.sa.child].append(item)

    @property
    def is_over(self) -> bool:
        """Whether everything was replaced or given up."""
        return not self._left

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """The (connection, child) pairs whose SAs wait for new ones."""
        return tuple(self._left)

    def take_over(self, key: tuple[str, str]) -> tuple[tuple[SaId, ...], tuple[SaId, ...]]:
        """A new Child SA stands for `key`: return the old (outbound, inbound) SAs, which are ours no more."""
        old = self._left.pop(key, [])
        return (
            tuple(item.sa.sa_id for item in old if item.sa.direction is Direction.OUTBOUND),
            tuple(item.sa.sa_id for item in old if item.sa.direction is Direction.INBOUND),
        )

    def give_up(self) -> tuple[SaId, ...]:
        """The time is up: return everything that is left."""
        left = tuple(item.sa.sa_id for items in self._left.values() for item in items)
        self._left.clear()
        return left
