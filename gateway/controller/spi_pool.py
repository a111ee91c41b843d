"""Inbound SPIs reserved at the datapath ahead of need, so that no exchange waits for a round trip."""

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.datapath.backend import Datapath, DatapathError
from gateway.ipsec.sa import Spi
from gateway.observe.logs import get_logger

_log = get_logger(__name__)


class SpiPool:
    """A short queue of reserved SPIs that is filled again behind the back of those who take.

    Args:
        datapath: Reserves the SPIs.
        clock: Monotonic seconds.
        batch: How many are reserved at a time.
        keep_s: How long a reserved SPI is offered; a datapath lets unused ones lapse after some minutes.
        timeout_s: Deadline of one reservation.
    """

    def __init__(
        self,
        datapath: Datapath,
        clock: Callable[[], float],
        *,
        batch: int = 16,
        keep_s: float = 60.0,
        timeout_s: float = 5.0,
    ) -> None:
        self._datapath = datapath
        self._clock = clock
        self._batch = batch
        self._keep_s = keep_s
        self._timeout_s = timeout_s
        self._spis: deque[tuple[float, Spi]] = deque()
        self._refill: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many SPIs are at hand."""
        return len(self._spis)

    async def fill(self) -> None:
        """Reserve one batch now.

        Raises:
            DatapathError: The datapath refused or does not answer.
            TimeoutError: It took too long.
        """
        async with asyncio.timeout(self._timeout_s):
            spis = await self._datapath.allocate_spis(self._batch)
        reserved_at = self._clock()
        self._spis.extend((reserved_at, spi) for spi in spis)

    def take_now(self) -> Spi | None:
        """Return a fresh reserved SPI if there is one at hand, and order more when few are left."""
        oldest_good = self._clock() - self._keep_s
        while self._spis and self._spis[0][0] < oldest_good:
            self._spis.popleft()
        spi = self._spis.popleft()[1] if self._spis else None
        if len(self._spis) < self._batch // 2:
            self._order()
        return spi

    async def take(self) -> Spi:
        """Return a reserved SPI, asking the datapath where none is at hand.

        Raises:
            DatapathError: The datapath refused or does not answer.
            TimeoutError: It took too long.
        """
        spi = self.take_now()
        if spi is not None:
            return spi
        async with asyncio.timeout(self._timeout_s):
            return (await self._datapath.allocate_spis(1))[0]

    def forget(self) -> None:
        """Forget all reservations: the datapath that made them is gone."""
        self._spis.clear()

    async def close(self) -> None:
        """Stop filling."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)

    def _order(self) -> None:
        if self._refill is None or self._refill.done():
            self._refill = asyncio.create_task(self._fill_quietly(), name="spi-pool")

    async def _fill_quietly(self) -> None:
        try:
            await self.fill()
        except (DatapathError, TimeoutError) as error:
            _log.debug("spi_pool_not_filled", error=str(error))
