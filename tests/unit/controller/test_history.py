import asyncio

import pytest

from gateway.controller.facade import ControlError, ControlErrorReason, DatapathAvailability
from gateway.controller.history import KEPT_EVENTS, WATCHER_BACKLOG, History


def event(number: int) -> DatapathAvailability:
    return DatapathAvailability(available=True, detail=str(number))


@pytest.fixture
def history() -> History:
    return History(lambda: 1.5)


async def test_events_are_numbered_from_one_and_dated(history: History) -> None:
    stream = history.watch()
    history.record(event(1))
    history.record(event(2))

    first, second = await anext(stream), await anext(stream)

    assert [(first.sequence, first.at), (second.sequence, second.at)] == [(1, 1.5), (2, 1.5)]


async def test_a_watcher_that_comes_back_gets_what_it_missed_first(history: History) -> None:
    for number in range(1, 6):
        history.record(event(number))
    stream = history.watch(after_sequence=3)
    history.record(event(6))

    assert [(await anext(stream)).sequence for _ in range(3)] == [4, 5, 6]


@pytest.mark.parametrize("after", [KEPT_EVENTS + 100, 4])
async def test_what_is_not_kept_or_never_was_is_said(history: History, after: int) -> None:
    for number in range(KEPT_EVENTS + 10):
        history.record(event(number))

    with pytest.raises(ControlError) as refused:
        history.watch(after_sequence=after)

    assert refused.value.reason is ControlErrorReason.HISTORY_LOST


async def test_a_slow_watcher_is_cut_off_and_others_are_not(history: History) -> None:
    slow, quick = history.watch(), history.watch()
    for number in range(WATCHER_BACKLOG + 1):
        history.record(event(number))
        await anext(quick)

    for _ in range(WATCHER_BACKLOG):
        await anext(slow)
    with pytest.raises(ControlError) as ended:
        await anext(slow)

    assert ended.value.reason is ControlErrorReason.SLOW_WATCHER
    history.record(event(0))
    assert (await anext(quick)).sequence == WATCHER_BACKLOG + 2


async def test_closing_ends_every_stream_with_the_reason(history: History) -> None:
    stream = history.watch()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    history.close()

    with pytest.raises(ControlError) as ended:
        await waiting
    assert ended.value.reason is ControlErrorReason.SHUTTING_DOWN
