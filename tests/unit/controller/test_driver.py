import asyncio
from typing import Any

import pytest

from gateway.controller.driver import Driver
from tests.fakes.virtual_loop import pass_time


class EndlessCore:
    """A core that wants to be woken every second, and has one event each time."""

    def __init__(self) -> None:
        self.ticks = 0
        self._pending: list[Any] = []

    def tick(self, now: float) -> None:
        self.ticks += 1
        self._pending.append(self.ticks)

    def next_deadline(self) -> float | None:
        return asyncio.get_running_loop().time() + 1.0

    def events(self) -> list[Any]:
        drained, self._pending = self._pending, []
        return drained

    def datagrams(self) -> list[Any]:
        return []

    def requests(self) -> list[Any]:
        return []


class FailingHandler:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_event(self, event: int) -> None:
        self.seen.append(event)
        if event == 1:
            raise ZeroDivisionError

    def on_request(self, request: object) -> None: ...


async def test_a_handler_that_fails_does_not_stop_the_clock_of_the_core() -> None:
    core, handler = EndlessCore(), FailingHandler()
    driver = Driver(core, lambda path, datagram: None, handler)  # type: ignore[arg-type]

    with pytest.raises(ZeroDivisionError):
        driver.command(lambda endpoint, now: endpoint.tick(now))
    await pass_time(2.5)

    assert handler.seen == [1, 2, 3]
    driver.stop()
