"""The datapath agent: one node's SAD and SPD in front of a backend, behind the `Datapath` protocol.

The agent adds what every backend would otherwise need of its own: idempotent batches, generations, a
fan-out of events, and the grace period. It parses no IKE and knows no gRPC.

Rules a change must keep:

- Commands run one at a time, in the order in which they came, each to its end even when the caller
  has given up meanwhile: a deadline never leaves half a batch behind.
- SAs live as long as somebody watches the event stream, plus the grace period after the last watcher
  left (a controller that restarts). An agent that was never watched keeps its SAs for ever: then
  somebody drives it by hand. Policies are never removed by the clock: no clear packet (fail closed).
  That is for the IKE controller's SAs; those of other owners (`gateway.agent.owners`) are theirs to remove.
- A watcher that does not keep up loses its stream, never single events; it then has to list again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from gateway.agent.owners import FOREIGN_GENERATION, IKE, OwnedDatapath, Owners
from gateway.agent.sad import Sad
from gateway.datapath.backend import (
    Capabilities,
    Counters,
    Datapath,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    HardExpire,
    InstalledSa,
    ItemResult,
    PlacementChange,
    SasLost,
)
from gateway.datapath.watch import EventQueue, Watch
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import IpAddress, SaId, SecurityAssociation, Spi
from gateway.observe.logs import get_logger

#: Seconds for which SAs outlive the last watcher of the event stream.
DEFAULT_GRACE_S = 120.0
#: Events that may wait for one watcher before its stream is cut.
WATCHER_BACKLOG = 4096

_log = get_logger(__name__)

T = TypeVar("T")


class Agent:
    """A `Datapath` that keeps the SAD and SPD and applies them to one backend.

    Args:
        backend: Carries the packets; owned by the agent from here on.
        fingerprint_key: Random bytes, see `Sad`.
        grace_s: How long SAs outlive the last watcher; 0 removes them at once.
    """

    def __init__(
        self, backend: Datapath, *, fingerprint_key: bytes, grace_s: float = DEFAULT_GRACE_S
    ) -> None:
        self._backend = backend
        self._grace_s = grace_s
        self._sad = Sad(fingerprint_key)
        self._owners = Owners()
        self._watchers: set[EventQueue[DatapathEvent]] = set()
        #: Watchers of other owners: no SA lives or dies by them.
        self._onlookers: set[EventQueue[DatapathEvent]] = set()
        self._commands: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._grace_timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def start(self) -> None:
        """Adopt what outlived an agent before this one, execute commands and relay the backend's events."""
        for item in await self._backend.list_sas():
            self._sad.adopt(item)
            self._owners.adopt(item)
        for policy in await self._backend.list_policies():
            self._sad.add_policy(policy)
            self._owners.adopt_policy(policy.name)
        self._tasks = [
            asyncio.create_task(self._execute_commands(), name="agent-commands"),
            asyncio.create_task(self._relay_events(self._backend.events()), name="agent-events"),
        ]

    # --- Datapath -------------------------------------------------------------------------------

    async def capabilities(self) -> Capabilities:
        """Return what the backend can do."""
        return await self._backend.capabilities()

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve inbound SPIs at the backend."""
        return await self._serially(lambda: self._backend.allocate_spis(count, destination))

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs; see `Datapath.install_sas`."""
        return await self.install_for(IKE, sas, generation)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs; the key of an outbound one is spent for good."""
        return await self.remove_for(IKE, sa_ids)

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Put SPD entries in force before returning."""
        return await self.apply_for(IKE, policies, generation)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries, and their protection with them."""
        return await self.withdraw_for(IKE, names)

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA, with its generation and what the backend knows about it."""
        carried = {item.sa.sa_id: item for item in await self._backend.list_sas()}
        listed = []
        for item in self._sad.sas():
            live = carried.get(item.sa.sa_id)
            shown = item if live is None else replace(live, generation=item.generation)
            listed.append(self._owners.shown(shown))
        return tuple(listed)

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched."""
        return self._sad.policies()

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove every SA and policy of the IKE controller's older generations; return their names."""
        return await self.reconcile_for(IKE, generation)

    async def counters(self) -> Counters:
        """Return a snapshot of all counters."""
        return await self._backend.counters()

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on; the agent lives for those who watch (see module)."""
        watcher = EventQueue[DatapathEvent](WATCHER_BACKLOG, self._watcher_left)
        self._watchers.add(watcher)
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None
            if self._sad.sas():
                _log.info("controller_back", sas=len(self._sad.sas()))
        if self._closed:
            watcher.end()
        return watcher

    # --- for any owner --------------------------------------------------------------------------

    def of_owner(self, owner: str) -> Datapath:
        """Return the datapath as somebody else than the IKE controller has it (`SharedDatapath`)."""
        return OwnedDatapath(self, owner, self._look_on)

    async def install_for(
        self, owner: str, sas: Sequence[SecurityAssociation], generation: int
    ) -> tuple[ItemResult, ...]:
        """Install SAs for an owner."""
        return await self._serially(lambda: self._install(owner, sas, generation))

    async def remove_for(self, owner: str, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs of an owner."""
        return await self._serially(lambda: self._remove(owner, sa_ids))

    async def apply_for(
        self, owner: str, policies: Sequence[Policy], generation: int
    ) -> tuple[ItemResult, ...]:
        """Put SPD entries of an owner in force before returning."""
        return await self._serially(lambda: self._apply(owner, policies, generation))

    async def withdraw_for(self, owner: str, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries of an owner, and their protection with them."""
        return await self._serially(lambda: self._withdraw(owner, names))

    async def reconcile_for(self, owner: str, generation: int) -> tuple[str, ...]:
        """Remove every SA and policy of an owner's older generations; return their names."""
        return await self._serially(lambda: self._reconcile(owner, generation))

    def _look_on(self) -> Watch[DatapathEvent]:
        """Return a stream of events whose end ends nothing else."""
        watcher = EventQueue[DatapathEvent](WATCHER_BACKLOG, self._onlookers.discard)
        self._onlookers.add(watcher)
        if self._closed:
            watcher.end()
        return watcher

    async def close(self) -> None:
        """End all streams and close the backend; the protection stays (fail closed)."""
        self._closed = True
        for watcher in (*self._watchers, *self._onlookers):
            watcher.end()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.close()

    # --- commands, one at a time ----------------------------------------------------------------

    async def _serially(self, command: Callable[[], Awaitable[T]]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await command()
            except Exception as error:  # noqa: BLE001  the caller gets it; the next command must still run
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        if self._closed:
            raise DatapathError(ErrorReason.UNAVAILABLE, "the agent is shutting down; try again")
        self._commands.put_nowait(run)
        return await done

    async def _execute_commands(self) -> None:
        while True:
            command = await self._commands.get()
            await command()

    async def _install(
        self, owner: str, sas: Sequence[SecurityAssociation], generation: int
    ) -> tuple[ItemResult, ...]:
        # What is there already goes to the backend all the same: it keeps generations too, for its reconcile.
        results: list[ItemResult | None] = []
        accepted: list[SecurityAssociation] = []
        for sa in sas:
            try:
                self._check_sa(sa.sa_id, owner)
                # It would take over the traffic of that policy.
                self._check_policy(f"{sa.connection}/{sa.child}", owner)
                self._check_generation(owner, generation)
                self._sad.admit(sa, 0 if owner else generation)
            except DatapathError as error:
                results.append(ItemResult(name=sa.sa_id, error=error))
            else:
                accepted.append(sa)
                results.append(None)
        at_backend = FOREIGN_GENERATION if owner else generation
        answers = await self._backend.install_sas(accepted, at_backend) if accepted else ()
        for sa, answer in zip(accepted, answers, strict=True):
            if answer.ok:
                engine = answer.placement or Engine.SOFTWARE
                self._sad.add_sa(sa, at_backend, answer)
                self._owners.take_sa(sa.sa_id, owner, generation)
                _log.debug(
                    "sa_installed",
                    sa_id=sa.sa_id,
                    connection=sa.connection,
                    child=sa.child,
                    engine=engine.value,
                    why_not_better=answer.placement_reason,
                )
            else:
                self._sad.give_up(sa, is_spent=answer.error is not None and answer.error.is_spent)
        return _merged(results, answers)

    async def _remove(self, owner: str, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        results = [_judged(sa_id, partial(self._check_sa, sa_id, owner)) for sa_id in sa_ids]
        ours = [sa_id for sa_id, result in zip(sa_ids, results, strict=True) if result is None]
        answers = await self._backend.remove_sas(ours) if ours else ()
        gone = [sa_id for sa_id, answer in zip(ours, answers, strict=True) if answer.ok]
        self._sad.drop_sas(gone)
        self._owners.drop(gone)
        return _merged(results, answers)

    async def _apply(self, owner: str, policies: Sequence[Policy], generation: int) -> tuple[ItemResult, ...]:
        def check(policy: Policy) -> None:
            self._check_generation(owner, generation)
            self._check_policy(policy.name, owner)

        results = [_judged(policy.name, partial(check, policy)) for policy in policies]
        accepted = [policy for policy, result in zip(policies, results, strict=True) if result is None]
        at_backend = FOREIGN_GENERATION if owner else generation
        answers = await self._backend.apply_policies(accepted, at_backend) if accepted else ()
        for policy, answer in zip(accepted, answers, strict=True):
            if answer.ok:
                self._sad.add_policy(policy)
                self._owners.take_policy(policy.name, owner, generation)
        return _merged(results, answers)

    async def _withdraw(self, owner: str, names: Sequence[str]) -> tuple[ItemResult, ...]:
        results = [_judged(name, partial(self._check_policy, name, owner)) for name in names]
        ours = [name for name, result in zip(names, results, strict=True) if result is None]
        answers = await self._backend.remove_policies(ours) if ours else ()
        gone = [name for name, answer in zip(ours, answers, strict=True) if answer.ok]
        self._sad.drop_policies(gone)
        self._owners.drop(gone)
        return _merged(results, answers)

    async def _reconcile(self, owner: str, generation: int) -> tuple[str, ...]:
        if owner != IKE:
            self._owners.check_generation(owner, generation)
            self._owners.floors[owner] = generation
            sa_ids, names = self._owners.older(owner, generation)
            answers = (*await self._remove(owner, sa_ids), *await self._withdraw(owner, names))
            return tuple(answer.name for answer in answers if answer.ok)
        self._sad.raise_floor(generation)
        removed = await self._backend.reconcile(generation)
        self._sad.drop_sas(SaId(name) for name in removed)
        self._sad.drop_policies(removed)
        return removed

    def _check_sa(self, sa_id: SaId, owner: str) -> None:
        if self._sad.sa(sa_id) is not None:
            self._owners.check_sa(sa_id, owner)

    def _check_policy(self, name: str, owner: str) -> None:
        if self._sad.has_policy(name):
            self._owners.check_policy(name, owner)

    def _check_generation(self, owner: str, generation: int) -> None:
        if owner == IKE:
            self._sad.check_generation(generation)
        else:
            self._owners.check_generation(owner, generation)

    # --- events and the grace period ------------------------------------------------------------

    async def _relay_events(self, stream: Watch[DatapathEvent]) -> None:
        async for event in stream:
            if isinstance(event, SasLost):
                self._sad.drop_sas(event.sa_ids)
                self._owners.drop(event.sa_ids)
            elif isinstance(event, PlacementChange) and self._sad.sa(event.sa_id) is not None:
                self._sad.move_sa(event.sa_id, event.new, event.reason)
                _log.warning(
                    "placement_changed",
                    sa_id=event.sa_id,
                    old=event.old.value,
                    new=event.new.value,
                    reason=event.reason,
                )
            elif isinstance(event, HardExpire):
                _log.info("sa_hard_expired", sa_id=event.sa_id, limit=event.limit)
            for watcher in (*self._watchers, *self._onlookers):
                if watcher.is_full:
                    _log.warning("event_watcher_too_slow", backlog=WATCHER_BACKLOG)
                    watcher.end()
                else:
                    watcher.put(event)

    def _watcher_left(self, watcher: EventQueue[DatapathEvent]) -> None:
        self._watchers.discard(watcher)
        if self._watchers or self._closed:
            return
        # Even if there are no SAs yet: what the controller asked for last may still be on its way.
        if self._sad.sas():
            _log.warning("controller_gone", grace_s=self._grace_s, sas=len(self._sad.sas()))
        loop = asyncio.get_running_loop()
        self._grace_timer = loop.call_later(self._grace_s, self._grace_over)

    def _grace_over(self) -> None:
        self._grace_timer = None
        orphans = tuple(item.sa.sa_id for item in self._sad.sas() if self._owners.shown(item).owner == IKE)
        if not orphans:
            return
        _log.warning("grace_over_sas_removed", sas=len(orphans), grace_s=self._grace_s)

        async def remove() -> None:
            await self._remove(IKE, orphans)

        self._commands.put_nowait(remove)


def _judged(name: str, check: Callable[[], None]) -> ItemResult | None:
    """Return the refusal of an item; `None` where nothing speaks against it."""
    try:
        check()
    except DatapathError as error:
        return ItemResult(name=name, error=error)
    return None


def _merged(results: Sequence[ItemResult | None], answers: Sequence[ItemResult]) -> tuple[ItemResult, ...]:
    """Put the backend's answers where there is no result yet, in order."""
    pending = iter(answers)
    return tuple(next(pending) if result is None else result for result in results)
