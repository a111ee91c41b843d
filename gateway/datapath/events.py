"""One stream of datapath events for each subscriber, from the moment it subscribed."""

from typing import Final

from gateway.datapath.backend import Acquire, BadSpi, DatapathEvent
from gateway.datapath.watch import EventQueue, Watch

MAX_WAITING: Final = 10_000
"""Events a subscriber may lag behind. Beyond it, what will be said again (acquires, bad SPIs) is left out."""


class EventHub:
    """Tell every subscriber of every event."""

    def __init__(self) -> None:
        self._streams: dict[EventQueue[DatapathEvent], None] = {}

    def subscribe(self) -> Watch[DatapathEvent]:
        """Return a new stream of events from now on."""
        stream = EventQueue[DatapathEvent](MAX_WAITING, lambda ended: self._streams.pop(ended, None))
        self._streams[stream] = None
        return stream

    def emit(self, event: DatapathEvent) -> None:
        """Tell every subscriber."""
        for stream in self._streams:
            if not (stream.is_full and isinstance(event, Acquire | BadSpi)):
                stream.put(event)

    def close(self) -> None:
        """End every stream, behind what waits in it."""
        for stream in tuple(self._streams):
            stream.end()
