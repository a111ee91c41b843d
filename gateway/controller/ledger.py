"""Which connection changed when: what a watcher needs to know the present, however often it looks.

Every touch of a connection gives it the next revision. A watcher holds one number, the revision up to which
it knows everything; what it still has to be told are the connections with a higher one, each once, in its
present state. So nobody needs a queue: a watcher that reads slowly is told less often and misses nothing,
and a thousand of them cost a number each. They look together, at most every so often, so that what they are
told can be made once for all. What was removed is remembered as such for a while; who looks again later than
that begins from the beginning, and is told so. Revisions are of one life of a controller.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaRekeyed,
    Event,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    PathChanged,
)

KEPT_REMOVALS: Final = 65_536
"""Removed connections that are remembered."""
SETTLE_S: Final = 0.02
"""Watchers look this long after a touch, so that many touches in a row are one look..."""
SETTLE_EACH_S: Final = 0.0005
"""... and longer for each of them, up to a second: telling everybody takes its time."""
LONGEST_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a watcher has to be told."""

    names: tuple[str, ...]
    """Those that are there, the longest unchanged first."""
    removed: tuple[str, ...]
    upto: int
    """The revision that is known when all of this is."""


class Ledger:
    """Revisions of connections.

    Args:
        life: Names the life of this controller, and never comes again.
        clock: Seconds; the core's.
    """

    def __init__(self, life: str, clock: Callable[[], float]) -> None:
        self.life = life
        self._clock = clock
        self._last = 0
        self._settled = 0
        #: By name, lowest revision first: revision and time of the last touch.
        self._there: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._removed: OrderedDict[str, int] = OrderedDict()
        #: Up to here removals may have been forgotten.
        self._floor = 0
        self._looked_up: tuple[int, Changes] | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def last(self) -> int:
        """The revision of the last touch."""
        return self._last

    @property
    def settled(self) -> int:
        """The revision up to which watchers may look."""
        return self._settled

    def touch(self, name: str) -> None:
        """Something about a connection changed, or it is new."""
        self.touch_together((name,))

    def touch_together(self, names: Iterable[str]) -> None:
        """Something about each of these changed at one time, or they are new."""
        now = self._clock()
        for name in names:
            self._last += 1
            self._removed.pop(name, None)
            self._there[name] = (self._last, now)
            self._there.move_to_end(name)
        self._settle_soon()

    def touch_all(self) -> None:
        """Something about every connection changed."""
        self.touch_together(tuple(self._there))

    def touch_if_there(self, name: str) -> None:
        """Something about a connection changed, if it is still configured."""
        if name in self._there:
            self.touch(name)

    def remove(self, name: str) -> None:
        """A connection is gone."""
        self._last += 1
        self._there.pop(name, None)
        self._removed[name] = self._last
        self._removed.move_to_end(name)
        while len(self._removed) > KEPT_REMOVALS:
            _, self._floor = self._removed.popitem(last=False)
        self._settle_soon()

    def revision_of(self, name: str) -> int:
        """Return the revision of a connection's last touch; 0 where there is none."""
        return self._there.get(name, (0, 0.0))[0]

    def touched_at(self, name: str) -> float:
        """Return when a connection was touched last, by the clock."""
        return self._there.get(name, (0, 0.0))[1]

    def can_resume(self, revision: int) -> bool:
        """Say whether everything since a revision of this life can be told."""
        return self._floor <= revision <= self._last

    def since(self, revision: int, upto: int | None = None) -> Changes:
        """Return what changed after a revision; with 0, everything that is there.

        Args:
            revision: What is known.
            upto: The revision that is known then, where it is not the last. What changed after it may be in
                the answer too, in its present state, so that what always changes is not always left out.
        """
        upto = self._last if upto is None else upto
        if self._looked_up is not None and self._looked_up[0] == revision and self._looked_up[1].upto == upto:
            # A thousand watchers ask the same at about the same time.
            return self._looked_up[1]
        names: list[str] = []
        for name, (touched, _) in reversed(self._there.items()):
            if touched <= revision:
                break
            names.append(name)
        removed: list[str] = []
        for name, gone in reversed(self._removed.items()) if revision else ():
            if gone <= revision:
                break
            removed.append(name)
        changes = Changes(names=tuple(reversed(names)), removed=tuple(reversed(removed)), upto=upto)
        self._looked_up = (revision, changes)
        return changes

    def settle(self) -> None:
        """Let everybody look at everything now."""
        if self._settling is not None:
            self._settling.cancel()
        self._settling = None
        self._settled = self._last
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_beyond(self, revision: int) -> None:
        """Return when there is something to look at after a revision."""
        while self._settled <= revision:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            self._settle_soon()
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def _settle_soon(self) -> None:
        if self._settling is None and self._waiters and self._last > self._settled:
            wait_s = min(LONGEST_S, max(SETTLE_S, SETTLE_EACH_S * len(self._waiters)))
            self._settling = asyncio.get_running_loop().call_later(wait_s, self.settle)


def connection_of(event: Event) -> str:
    """Return the connection that an event of the core is about; empty where its status is as before."""
    match event:
        case IkeSaEstablished(ike_sa=ike_sa) | IkeSaFailed(ike_sa=ike_sa) | IkeSaDeleted(ike_sa=ike_sa):
            return ike_sa.connection
        case IkeSaRekeyed(new=ike_sa) | PathChanged(ike_sa=ike_sa):
            return ike_sa.connection
        case ChildSaEstablished(child_sa=child_sa) | ChildSaDeleted(child_sa=child_sa):
            return child_sa.connection
        case ChildSaRekeyed(new=child_sa):
            return child_sa.connection
        case ChildSaFailed(connection=connection):
            return connection
        case _:
            return ""
