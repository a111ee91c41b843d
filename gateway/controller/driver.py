"""The pump between the sans-IO core and the world: input, drain everything, re-arm the one timer.

After every input or command the driver drains the core until it has nothing more to say: datagrams
leave first (an answer must not wait for what our event handlers do), then requests are handed on,
then events. A handler may call back into the driver; its input is taken at once and drained by the
loop that is already running, so that events are always seen in the order in which they happened.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from gateway.ike.endpoint import Endpoint
from gateway.ike.events import Event, Request, RequestId, Result
from gateway.ike.path import Path

T = TypeVar("T")


class Handler(Protocol):
    """Takes what the core hands out."""

    def on_request(self, request: Request) -> None:
        """Begin to answer a request; `Driver.resolve` follows, now or later."""

    def on_event(self, event: Event) -> None:
        """Take note of an event."""


class Command(Protocol):
    """Runs a command at the core (`Driver.command`), for those who need no more of the driver."""

    def __call__(self, act: Callable[[Endpoint, float], T], /) -> T:
        """Run `act` with the core and the time, then drain the core."""


class Driver:
    """Owns the core and its one timer; everything happens in one asyncio loop.

    Args:
        endpoint: The core.
        send: Sends one datagram; never blocks and never raises.
        handler: Takes requests and events.
        clock: Monotonic seconds; the loop's own time by default.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        send: Callable[[Path, bytes], None],
        handler: Handler,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._send = send
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._clock = clock if clock is not None else self._loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: float | None = None
        self._draining = False
        self._stopped = False

    @property
    def endpoint(self) -> Endpoint:
        """The core, for its getters only; commands go through `command`."""
        return self._endpoint

    def now(self) -> float:
        """Return the core's time."""
        return self._clock()

    def receive(self, datagram: bytes, path: Path) -> None:
        """Hand one received datagram to the core."""
        self.command(lambda endpoint, now: endpoint.receive(datagram, path, now))

    def resolve(self, request_id: RequestId, result: Result) -> None:
        """Answer a request of the core."""
        self.command(lambda endpoint, now: endpoint.resolve(request_id, result, now))

    def command(self, act: Callable[[Endpoint, float], T]) -> T:
        """Run one input or command, then drain the core; what `act` raises comes back after the draining."""
        try:
            return act(self._endpoint, self._clock())
        finally:
            self._drain()

    def stop(self) -> None:
        """Cancel the timer; nothing is driven any more."""
        self._stopped = True
        self._disarm()

    def _drain(self) -> None:
        if self._draining or self._stopped:
            return
        self._draining = True
        try:
            while self._drain_once():
                pass
        finally:
            self._draining = False
            self._arm()

    def _drain_once(self) -> bool:
        """Drain each queue once; return whether there was anything, since handlers may cause more."""
        datagrams = self._endpoint.datagrams()
        for path, datagram in datagrams:
            self._send(path, datagram)
        requests = self._endpoint.requests()
        for request in requests:
            self._handler.on_request(request)
        events = self._endpoint.events()
        for event in events:
            self._handler.on_event(event)
        return bool(datagrams or requests or events)

    def _arm(self) -> None:
        deadline = self._endpoint.next_deadline()
        if deadline == self._armed_for or self._stopped:
            return
        self._disarm()
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._tick)
            self._armed_for = deadline

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._armed_for = None

    def _tick(self) -> None:
        self._timer = self._armed_for = None
        self.command(lambda endpoint, now: endpoint.tick(now))
