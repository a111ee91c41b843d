"""The recent events of this controller, numbered, and the watchers who follow them."""

from collections import deque
from collections.abc import Callable

from gateway.controller.facade import ControlError, ControlErrorReason, ControlEvent, WatchedEvent
from gateway.datapath.watch import EventQueue, Watch

#: Events kept for watchers that come back.
KEPT_EVENTS = 4096
#: Events that may wait for one watcher before it is cut off.
WATCHER_BACKLOG = 2048


class History:
    """A ring of numbered events.

    Args:
        wall_clock: Unix time.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._events: deque[ControlEvent] = deque(maxlen=KEPT_EVENTS)
        self._last = 0
        self._watchers: set[EventQueue[ControlEvent]] = set()

    def record(self, event: WatchedEvent) -> None:
        """Number an event, keep it, and tell every watcher."""
        self._last += 1
        numbered = ControlEvent(sequence=self._last, at=self._wall_clock(), event=event)
        self._events.append(numbered)
        for watcher in tuple(self._watchers):
            if watcher.is_full:
                watcher.end(
                    ControlError(
                        ControlErrorReason.SLOW_WATCHER,
                        f"more than {WATCHER_BACKLOG} events wait to be read; list again, then watch again",
                    )
                )
            else:
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
        watcher = EventQueue(WATCHER_BACKLOG, self._watchers.discard, missed)
        self._watchers.add(watcher)
        return watcher

    def close(self) -> None:
        """End every stream."""
        for watcher in tuple(self._watchers):
            watcher.end(ControlError(ControlErrorReason.SHUTTING_DOWN, "the controller is shutting down"))
