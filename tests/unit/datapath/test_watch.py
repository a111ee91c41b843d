import asyncio

import pytest

from gateway.datapath.watch import EventQueue


class Lost(Exception):
    pass


async def test_an_ended_stream_gives_what_waits_and_then_ends_for_ever() -> None:
    forgotten: list[EventQueue[int]] = []
    stream = EventQueue(2, forgotten.append, missed=[1, 2])
    stream.put(3)
    assert not stream.is_full
    stream.put(4)
    assert stream.is_full

    stream.end(Lost())
    stream.end()

    assert [await anext(stream) for _ in range(4)] == [1, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(Lost):
            await anext(stream)
    assert forgotten == [stream]


async def test_leaving_ends_who_waits_and_drops_what_waits() -> None:
    stream = EventQueue[int](2, lambda _: None)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    stream.put(1)
    await stream.aclose()

    with pytest.raises(StopAsyncIteration):
        await waiting
