"""Streams of events: what a watcher sees of one, and the queue behind it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, Protocol, Self, TypeVar

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


class Watch(Protocol[E_co]):
    """A stream of events since it was asked for. Whoever reads it closes it: until then events are kept."""

    def __aiter__(self) -> AsyncIterator[E_co]:
        """Return itself."""

    async def __anext__(self) -> E_co:
        """Return the next event."""

    async def aclose(self) -> None:
        """Leave; the iterator must not be waited for then."""


class EventQueue(Generic[E]):
    """A `Watch` that somebody fills, and bounds by looking at `is_full` first.

    Args:
        limit: How many events may wait.
        forget: Called with the queue when it ends: nothing is put into it any more.
        missed: Events that wait from the beginning, beside those that `limit` is for.
    """

    def __init__(
        self, limit: int, forget: "Callable[[EventQueue[E]], None]", missed: Iterable[E] = ()
    ) -> None:
        self._waiting = deque(missed)
        self._limit = len(self._waiting) + limit
        self._forget = forget
        self._wake = asyncio.Event()
        self._has_ended = False
        self._error: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether as many events wait as may."""
        return len(self._waiting) >= self._limit

    def put(self, event: E) -> None:
        """Add an event."""
        self._waiting.append(event)
        self._wake.set()

    def end(self, error: Exception | None = None) -> None:
        """End the stream behind what waits; `error` is raised there."""
        if self._has_ended:
            return
        self._has_ended = True
        self._error = error
        self._wake.set()
        self._forget(self)

    async def aclose(self) -> None:
        """Leave, without what waits."""
        self._waiting.clear()
        self.end()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> E:
        """Return the next event."""
        while not self._waiting:
            if self._has_ended:
                raise StopAsyncIteration if self._error is None else self._error
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()
