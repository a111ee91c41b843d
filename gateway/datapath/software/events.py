"""One stream of datapath events for each subscriber, from the moment it subscribed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from gateway.datapath.backend import Acquire, BadSpi, DatapathEvent

MAX_WAITING: Final = 10_000
"""Events a subscriber may lag behind. Beyond it, what will be said again (acquires, bad SPIs) is left out."""


class EventStream(AsyncIterator[DatapathEvent]):
    """The events of one subscriber. Ends when the hub closes."""

    def __init__(self, hub: "EventHub") -> None:
        self._hub = hub
        self._waiting: deque[DatapathEvent] = deque()
        self._wake = asyncio.Event()
        self._is_closed = False

    def put(self, event: DatapathEvent) -> None:
        """Add an event."""
        if len(self._waiting) >= MAX_WAITING and isinstance(event, Acquire | BadSpi):
            return
        self._waiting.append(event)
        self._wake.set()

    def close(self) -> None:
        """End the stream after what is waiting."""
        self._is_closed = True
        self._wake.set()

    async def __anext__(self) -> DatapathEvent:
        """Return the next event."""
        while not self._waiting:
            if self._is_closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Unsubscribe."""
        self._hub.unsubscribe(self)
        self.close()


class EventHub:
    """Tell every subscriber of every event."""

    def __init__(self) -> None:
        self._streams: list[EventStream] = []

    def subscribe(self) -> EventStream:
        """Return a new stream of events from now on."""
        stream = EventStream(self)
        self._streams.append(stream)
        return stream

    def unsubscribe(self, stream: EventStream) -> None:
        """Forget a stream."""
        if stream in self._streams:
            self._streams.remove(stream)

    def emit(self, event: DatapathEvent) -> None:
        """Tell every subscriber."""
        for stream in self._streams:
            stream.put(event)

    def close(self) -> None:
        """End every stream."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()
