"""The controller's bond with its datapath: meet it, follow its events, notice its end, meet it again.

A datapath that restarts is met again like a new one: policies first, then the SAs that are missing
(`gateway.controller.controller`). The end is noticed by the event stream, or by the agent's hand-over
socket, whichever tells first. A datapath that does not do what it is told, though its events still come,
counts as lost too: meeting it again puts everything in force, in the right order.
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.datapath.backend import Capabilities, Datapath, DatapathError, DatapathEvent
from gateway.datapath.watch import Watch
from gateway.ipsec.errors import GatewayError
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 2.0
RETRY_GROWTH = 1.25
"""Each wait is so much longer than the one before: that adds a quarter to the time a datapath is away."""
CALL_TIMEOUT_S = 5.0


def failure_text(error: Exception) -> str:
    """Return what is wrong with a datapath of which a call failed; a timeout has no text of its own."""
    return str(error) or "the datapath did not answer in time"


class DatapathLink:
    """Keeps one datapath in view.

    Args:
        datapath: The datapath, here or far away.
        meet: Called with its capabilities each time it (re)appears; what it raises counts as not met.
        on_event: Takes each datapath event.
        on_lost: Called when a datapath that was met is gone, with the reason.
    """

    def __init__(
        self,
        datapath: Datapath,
        meet: Callable[[Capabilities], Awaitable[None]],
        on_event: Callable[[DatapathEvent], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._datapath = datapath
        self._meet = meet
        self._on_event = on_event
        self._on_lost = on_lost
        self._interrupted = asyncio.Event()
        self._interruption = ""
        self._met = asyncio.Event()
        #: What the datapath can do; None while it is away.
        self.capabilities: Capabilities | None = None
        #: What is wrong, while it is away.
        self.problem = "the datapath was not reached yet"

    def interrupt(self, reason: str) -> None:
        """Say that the datapath is gone, or failed to do something: it counts as lost when this returns."""
        self._interruption = reason
        self._interrupted.set()
        if self.capabilities is not None:
            self._lose(reason)

    async def is_met(self, patience_s: float) -> bool:
        """Say whether the datapath is there, waiting up to `patience_s` for it to come."""
        try:
            async with asyncio.timeout(patience_s):
                await self._met.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Keep the datapath in view until cancelled."""
        wait = FIRST_RETRY_S
        while True:
            self._interrupted.clear()
            stream = self._datapath.events()
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    capabilities = await self._datapath.capabilities()
                await self._meet(capabilities)
                self.capabilities, self.problem = capabilities, ""
                self._met.set()
                wait = FIRST_RETRY_S
                reason = await self._follow(stream)
            except (GatewayError, OSError, TimeoutError) as error:
                reason = failure_text(error)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave us without a datapath
                _log.error("datapath_link_failed", exception=error)
                reason = f"internal error ({type(error).__name__}): the log has the details"
            finally:
                await stream.aclose()
            self._lose(reason)
            await asyncio.sleep(wait)
            wait = min(LONGEST_RETRY_S, wait * RETRY_GROWTH)

    def _lose(self, reason: str) -> None:
        was_there = self.capabilities is not None
        if reason != self.problem or was_there:
            _log.warning("datapath_unavailable", reason=reason)
        self.capabilities, self.problem = None, reason
        self._met.clear()
        if was_there:
            self._on_lost(reason)

    async def _follow(self, stream: Watch[DatapathEvent]) -> str:
        """Hand on events until the stream ends or breaks; return why it did."""

        async def read() -> None:
            async for event in stream:
                self._on_event(event)

        reading = asyncio.create_task(read(), name="datapath-events")
        interruption = asyncio.create_task(self._interrupted.wait(), name="datapath-interruption")
        try:
            await asyncio.wait((reading, interruption), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                error = reading.exception()
                if isinstance(error, DatapathError):
                    return str(error)
                if error is not None:
                    raise error
                return "the datapath ended the event stream"
            return self._interruption
        finally:
            reading.cancel()
            interruption.cancel()
            await asyncio.gather(reading, interruption, return_exceptions=True)
