"""From the core's requests to datapath calls, and what the datapath reports back to the core.

The order at a rekey is the core's (`InstallRequest`, RFC 7296 §2.8): new inbound, then new outbound, which
takes over at that moment, then `RemoveSas` of the old outbound, and of the old inbound after the DELETE.
This room keeps that order because the core waits for each answer, and adds what a datapath that may
be slow or gone needs:

- An inbound SA is asked for again until the deadline; that is idempotent.
- An outbound SA is asked for once, with the whole deadline. After a lost connection nobody knows whether it
  was installed and sent, and a datapath that restarted meanwhile would begin at sequence number 1 with
  the same key: the same IVs again. So it counts as refused, and the core negotiates a new one.
- A removal is asked for until it succeeds; it never holds up the core.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from gateway.controller.spi_pool import SpiPool
from gateway.controller.tasks import Tasks
from gateway.datapath.backend import (
    Datapath,
    DatapathError,
    ErrorReason,
    InstalledSa,
    ItemResult,
    SaCounters,
)
from gateway.ike.events import Installed, InstallRequest, Refused, RequestId, Result, SpiAllocated, SpiRequest
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

#: What may pass by itself: worth another attempt.
_TRANSIENT = frozenset({ErrorReason.UNAVAILABLE})

DEADLINE_S: Final = 12.0
"""For everything that one request of the core takes; it stays below the core's own deadline."""
ATTEMPT_S: Final = 4.0
RETRY_S: Final = 0.25
REMOVAL_RETRY_S: Final = 1.0


class SaBinding:
    """Carries out the core's wishes at the datapath and remembers what this controller has installed there.

    Args:
        datapath: Where the SAs go.
        pool: Reserved inbound SPIs.
        resolve: Gives the core its answer.
        removed: Told what an SA had counted when it was removed; nothing where nobody knows.
    """

    def __init__(
        self,
        datapath: Datapath,
        pool: SpiPool,
        resolve: Callable[[RequestId, Result], None],
        removed: Callable[[SecurityAssociation, SaCounters | None], None],
    ) -> None:
        self._datapath = datapath
        self._pool = pool
        self._resolve = resolve
        self._removed = removed
        self._installed: dict[SaId, InstalledSa] = {}
        self._removals: dict[SaId, None] = {}
        self._removal_task: asyncio.Task[None] | None = None
        self._tasks = Tasks()
        #: Given with everything that is installed; the controller sets it when it meets its datapath.
        self.generation = 0

    # --- requests of the core -------------------------------------------------------------------

    def request_spi(self, request: SpiRequest) -> None:
        """Answer at once from the pool, or as soon as the datapath has reserved one."""
        spi = self._pool.take_now()
        if spi is not None:
            self._resolve(request.request_id, SpiAllocated(spi))
        else:
            self._tasks.spawn(self._allocate(request), "allocate-spi")

    def install(self, request: InstallRequest) -> None:
        """Install one direction and answer with what the datapath said."""
        self._tasks.spawn(self._install(request), f"install-{request.sa.sa_id}")

    def remove(self, sa_ids: Iterable[SaId]) -> None:
        """Remove SAs, as soon and as often as it takes."""
        for sa_id in sa_ids:
            self._removals[sa_id] = None
        if self._removals and (self._removal_task is None or self._removal_task.done()):
            self._removal_task = self._tasks.spawn(self._remove_all(), "remove-sas")

    # --- what this controller has there -----------------------------------------------------------

    def installed(self, sa_id: SaId) -> InstalledSa | None:
        """Return an SA that this controller installed and did not remove, as it landed."""
        return self._installed.get(sa_id)

    def all_installed(self) -> tuple[SaId, ...]:
        """Return what this controller installed and did not remove."""
        return tuple(self._installed)

    def installed_sas(self) -> tuple[SecurityAssociation, ...]:
        """Return what this controller installed and did not remove, whole."""
        return tuple(held.sa for held in self._installed.values())

    def missing_from(self, present: Iterable[InstalledSa]) -> tuple[SaId, ...]:
        """Return what should be at the datapath but is not among `present`."""
        there = {item.sa.sa_id for item in present}
        return tuple(sa_id for sa_id in self._installed if sa_id not in there)

    def note_placement(self, sa_id: SaId, engine: Engine, reason: str) -> None:
        """Remember that the datapath moved an SA."""
        known = self._installed.get(sa_id)
        if known is not None and known.placement is not engine:
            self._installed[sa_id] = InstalledSa(
                sa=known.sa, placement=engine, placement_reason=reason, generation=known.generation
            )

    def forget_lost(self, sa_ids: Iterable[SaId]) -> tuple[SecurityAssociation, ...]:
        """Forget SAs that the datapath lost; return those that were ours and still wanted."""
        lost = []
        for sa_id in sa_ids:
            known = self._installed.pop(sa_id, None)
            if known is None:
                continue
            self._removed(known.sa, None)
            if sa_id not in self._removals:
                lost.append(known.sa)
        return tuple(lost)

    async def settle(self, timeout_s: float) -> None:
        """Wait until everything asked for is done, at most `timeout_s`."""
        await self._tasks.settle(timeout_s)

    async def close(self) -> None:
        """Give up whatever is under way."""
        await self._tasks.cancel()

    # --- the work -----------------------------------------------------------------------------------

    async def _allocate(self, request: SpiRequest) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + DEADLINE_S
        while True:
            try:
                spi = await self._pool.take()
            except (DatapathError, TimeoutError) as error:
                if loop.time() + RETRY_S >= give_up_at:
                    self._resolve(request.request_id, _refusal(error))
                    return
                await asyncio.sleep(RETRY_S)
            else:
                self._resolve(request.request_id, SpiAllocated(spi))
                return

    async def _install(self, request: InstallRequest) -> None:
        sa = request.sa
        try:
            if sa.direction is Direction.INBOUND:
                answer = await self._install_inbound(sa)
            else:
                async with asyncio.timeout(DEADLINE_S):
                    (answer,) = await self._datapath.install_sas([sa], self.generation)
        except (DatapathError, TimeoutError) as error:
            # It may have arrived all the same. Nobody will ask for it any more.
            self.remove([sa.sa_id])
            self._resolve(request.request_id, _refusal(error))
            return
        if answer.error is not None:
            self._resolve(request.request_id, _refusal(answer.error))
            return
        self._installed[sa.sa_id] = InstalledSa(
            sa=sa,
            placement=answer.placement or Engine.SOFTWARE,
            placement_reason=answer.placement_reason,
            refusals=answer.refusals,
            generation=self.generation,
        )
        self._resolve(request.request_id, Installed())

    async def _install_inbound(self, sa: SecurityAssociation) -> ItemResult:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + DEADLINE_S
        while True:
            try:
                async with asyncio.timeout(min(ATTEMPT_S, give_up_at - loop.time())):
                    (answer,) = await self._datapath.install_sas([sa], self.generation)
            except (DatapathError, TimeoutError) as error:
                transient = isinstance(error, TimeoutError) or error.reason in _TRANSIENT
                if not transient or loop.time() + RETRY_S >= give_up_at:
                    raise
                _log.debug("install_retried", sa_id=sa.sa_id, connection=sa.connection, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return answer

    async def _remove_all(self) -> None:
        while self._removals:
            batch = tuple(self._removals)
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    answers = await self._datapath.remove_sas(batch)
            except (DatapathError, TimeoutError) as error:
                _log.debug("removal_retried", sas=len(batch), error=str(error))
                await asyncio.sleep(REMOVAL_RETRY_S)
                continue
            for sa_id, answer in zip(batch, answers, strict=True):
                self._removals.pop(sa_id, None)
                known = self._installed.pop(sa_id, None)
                if known is not None:
                    self._removed(known.sa, answer.counters)
                if answer.error is not None:
                    _log.warning("sa_not_removed", sa_id=sa_id, error=str(answer.error))


def _refusal(error: DatapathError | TimeoutError) -> Refused:
    if isinstance(error, DatapathError):
        return Refused(error.reason.value, str(error))
    return Refused(
        ErrorReason.UNAVAILABLE.value, "the datapath did not answer in time; is its agent running?"
    )
