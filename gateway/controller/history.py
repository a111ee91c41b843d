"""The recent events of this controller, numbered, and the watchers who follow them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Self

from gateway.controller.facade import ControlError, ControlErrorReason, ControlEvent, WatchedEvent
from gateway.datapath.backend import Watch

#: Events kept for watchers that come back.
KEPT_EVENTS = 4096
#: Events that may wait for one watcher before it is cut off.
WATCHER_BACKLOG = 2048


class _Watcher:
    """One stream; it ends with the `ControlError` that says why."""

    def __init__(self, forget: "Callable[[_Watcher], None]", missed: Iterable[ControlEvent]) -> None:
        self._queue: asyncio.Queue[ControlEvent | ControlError] = asyncio.Queue()
        self._forget = forget
        for event in missed:
            self._queue.put_nowait(event)
        self._limit = self._queue.qsize() + WATCHER_BACKLOG

    def put(self, event: ControlEvent) -> None:
        if self._queue.qsize() >= self._limit:
            self.end(
                ControlError(
                    ControlErrorReason.SLOW_WATCHER,
                    f"more than {WATCHER_BACKLOG} events wait to be read; list again, then watch again",
                )
            )
            return
        self._queue.put_nowait(event)

    def end(self, error: ControlError) -> None:
        self._forget(self)
        self._queue.put_nowait(error)

    async def aclose(self) -> None:
        """Leave; async generators are closed the same way."""
        self._forget(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ControlEvent:
        try:
            item = await self._queue.get()
        except asyncio.CancelledError:
            self._forget(self)
            raise
        if isinstance(item, ControlError):
            raise item
        return item


class History:
    """A ring of numbered events.

    Args:
        wall_clock: Unix time.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._events: deque[ControlEvent] = deque(maxlen=KEPT_EVENTS)
        self._last = 0
        self._watchers: set[_Watcher] = set()

    def record(self, event: WatchedEvent) -> None:
        """Number an event, keep it, and tell every watcher."""
        self._last += 1
        numbered = ControlEvent(sequence=self._last, at=self._wall_clock(), event=event)
        self._events.append(numbered)
        for watcher in tuple(self._watchers):
            watcher.put(numbered)

    def watch(self, after_sequence: int | None = None) -> Watch[ControlEvent]:
        """Return a stream from now on, or from the event after `after_sequence`.

        Raises:
            ControlError: HISTORY_LOST, when that event is no longer kept or never was.
        """
        missed: list[ControlEvent] = []
        if after_sequence is not None:
            oldest = self._events[0].sequence if self._events else self._last + 1
            if after_sequence > self._last or after_sequence + 1 < oldest:
                raise ControlError(
                    ControlErrorReason.HISTORY_LOST,
                    f"events after {after_sequence} are not kept (there are {oldest} to {self._last}); "
                    "list again, then watch from now",
                )
            missed = [event for event in self._events if event.sequence > after_sequence]
        watcher = _Watcher(self._watchers.discard, missed)
        self._watchers.add(watcher)
        return watcher

    def close(self) -> None:
        """End every stream."""
        for watcher in tuple(self._watchers):
            watcher.end(ControlError(ControlErrorReason.SHUTTING_DOWN, "the controller is shutting down"))
