"""Streams of events as both services offer them."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from gateway.datapath.watch import Watch

E = TypeVar("E")
R = TypeVar("R")


async def watch(stream: Watch[E], hello: R, write: Callable[[E], R]) -> AsyncGenerator[R, None]:
    """Yield `hello`, which says that none will be missed from now on, then every event as `write` makes it.

    However this ends, the stream is closed before it has ended: a datapath keeps SAs for those who watch,
    and events pile up for a watcher that nobody reads.
    """
    waiting = asyncio.ensure_future(anext(stream))
    try:
        # A generator subscribes when it first runs: let it, before saying that the watch is in place.
        await asyncio.sleep(0)
        yield hello
        while True:
            try:
                event = await waiting
            except StopAsyncIteration:
                return
            yield write(event)
            waiting = asyncio.ensure_future(anext(stream))
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.aclose()
