import asyncio
import logging

import pytest

from gateway.controller.datapath_link import DatapathLink
from gateway.controller.tasks import Tasks
from gateway.datapath.backend import BadSpi, Capabilities, DatapathEvent
from gateway.ipsec.sa import Spi
from tests.fakes.datapath import FakeDatapath
from tests.fakes.records import HERE, THERE
from tests.fakes.virtual_loop import pass_time


def bad_spi(number: int) -> BadSpi:
    return BadSpi(spi=Spi(number), source=THERE, destination=HERE)


async def test_a_mistake_of_ours_in_one_event_costs_the_stream_and_not_the_datapath(
    caplog: pytest.LogCaptureFixture,
) -> None:
    datapath, seen, lost = FakeDatapath(), list[DatapathEvent](), list[str]()

    async def meet(_: Capabilities) -> None: ...

    def on_event(event: DatapathEvent) -> None:
        seen.append(event)
        if len(seen) == 1:
            raise ZeroDivisionError

    link = DatapathLink(datapath, meet, on_event, lost.append)
    running = asyncio.create_task(link.run())
    assert await link.is_met(1)

    datapath.emit(bad_spi(1))
    await pass_time(5)
    datapath.emit(bad_spi(2))
    await pass_time(1)

    assert seen == [bad_spi(1), bad_spi(2)]
    assert lost == ["internal error (ZeroDivisionError): the log has the details"]
    assert await link.is_met(0)
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    running.cancel()


async def test_a_task_that_fails_is_told_of_at_once_and_one_that_is_given_up_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ZeroDivisionError

    tasks.spawn(fail(), "fails")
    given_up = tasks.spawn(pass_time(60), "waits")
    await tasks.settle(1)
    await tasks.cancel()

    assert given_up.cancelled()
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.ERROR, "task_failed")]
