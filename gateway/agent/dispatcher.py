"""Several backends as one `Datapath`: each SA and SPD entry goes to one of them, and all is told as one.

Rules a change must keep:

- What changes the SAD or the SPD happens one at a time, a backend's own changes (`SasLost`,
  `PlacementChange`) included, so that the books are always those of one moment.
- SPIs are unique over all backends: one of them reserves, and none that any inbound SA has is given out.
- An SA that its backend moves to an engine outside its wish is removed and told as lost (fail closed).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from gateway.agent.placed_sas import PlacedSa, PlacedSas
from gateway.agent.sa_placing import SaPlacing, reason_of
from gateway.agent.spd_placing import SpdPlacing
from gateway.datapath.ability import NIC_ENGINES, Ability, Closed, backend_abilities
from gateway.datapath.backend import (
    BadSpi,
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    InstalledSa,
    ItemResult,
    PlacementChange,
    SaCounters,
    SasLost,
    StartedDatapath,
)
from gateway.datapath.events import EventHub
from gateway.datapath.select import Link, Surroundings, first_engines
from gateway.datapath.watch import Watch
from gateway.host.errors import HostError
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import Direction, IpAddress, SaId, SecurityAssociation, Spi
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

LOOK_AGAIN_S: Final = 10.0
"""How long what is known about NICs is believed; a backend's event makes it look at once."""
_SPI_TRIES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend that may be part of a dispatcher."""

    name: str
    make: Callable[[bool], StartedDatapath]
    """Makes it, told whether it would be the first to run here: what only one can have is then its."""
    engines: tuple[Engine, ...]
    """What it drives where it can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nics:
    """What the NICs of this machine can do now."""

    abilities: tuple[Ability, ...] = ()
    links: Mapping[IpAddress, Link] = field(default_factory=lambda: MappingProxyType({}))
    """By our address."""


LookAtNics = Callable[[Capabilities], Awaitable[Nics]]
"""Returns what NICs can do under the backend that programs them."""


class Dispatcher:
    """A `StartedDatapath` over several.

    Args:
        candidates: In the order of preference; owned by the dispatcher from here on.
        look_at_nics: Asked where a backend programs NICs.
        absent: Why engines are not here that no candidate drives.
        need_all: Whether a candidate that cannot start is an error, or merely absent.
        on_close: Awaited at the end.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        look_at_nics: LookAtNics,
        *,
        absent: Mapping[Engine, Closed] = MappingProxyType({}),
        need_all: bool = False,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._candidates = tuple(candidates)
        self._look_at_nics = look_at_nics
        self._absent = dict(absent)
        self._need_all = need_all
        self._on_close = on_close
        self._hub = EventHub()
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._backends: dict[str, StartedDatapath] = {}
        self._capabilities: dict[str, Capabilities] = {}
        self._owners: dict[Engine, str] = {}
        self._placed = PlacedSas()
        self._spd = SpdPlacing(self._backends, self._placed)
        self._sas = SaPlacing(
            backends=self._backends,
            owners=self._owners,
            placed=self._placed,
            spd=self._spd,
            on_placed=self._tell_move,
        )
        self._lost: dict[tuple[tuple[str, str], Direction], PlacedSa] = {}
        self._nics = Nics()
        self._look_at = 0.0
        self._is_closed = False

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every backend that can, and adopt what outlived an agent before this one.

        Raises:
            HostError: None can, or one that must; the text says what to do.
        """
        failures: list[str] = []
        for candidate in self._candidates:
            backend = candidate.make(not self._backends)
            try:
                await backend.start()
            except HostError as error:
                if self._need_all:
                    await self.close()
                    raise
                _log.info("backend_absent", backend=candidate.name, reason=str(error))
                failures.append(f"{candidate.name}: {error}")
                closed = Closed(
                    reason=PlacementReason.NO_BACKEND, text=f"{candidate.name} cannot run here: {error}"
                )
                self._absent |= dict.fromkeys(candidate.engines, closed)
            else:
                await self._take_in(candidate.name, backend)
        if not self._backends:
            raise HostError("no datapath backend can run here: " + "; ".join(failures))
        self._tasks = [
            asyncio.create_task(self._relay(name, backend.events()), name=f"backend-events-{name}")
            for name, backend in self._backends.items()
        ]

    async def _take_in(self, name: str, backend: StartedDatapath) -> None:
        capabilities = await backend.capabilities()
        self._backends[name], self._capabilities[name] = backend, capabilities
        for engine in capabilities.engines:
            self._owners.setdefault(engine, name)
        # What the operator wished for an adopted SA is not known: it stays where it is, or is lost.
        for item in await backend.list_sas():
            self._placed.put(
                PlacedSa(
                    sa=item.sa,
                    backend=name,
                    asked=item.sa.placement.require or item.placement,
                    engine=item.placement,
                    refusals=item.refusals,
                )
            )
        for policy in await backend.list_policies():
            self._spd.adopt(policy, name)

    async def close(self) -> None:
        """Close every backend; their protection stays (fail closed)."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for backend in self._backends.values():
            await backend.close()
        if self._on_close is not None:
            await self._on_close()
        self._hub.close()

    async def remove_protection(self) -> None:
        """Take away every candidate's protection, of those too that cannot run here now.

        Raises:
            HostError: A backend that runs here did not let it be taken away, or none did.
        """
        refusals: dict[str, str] = {}
        for candidate in self._candidates:
            backend = self._backends.get(candidate.name) or candidate.make(True)
            try:
                await backend.remove_protection()
            except HostError as error:
                _log.warning("protection_not_removed", backend=candidate.name, reason=str(error))
                refusals[candidate.name] = str(error)
        is_left = any(name in self._backends for name in refusals)
        if is_left or len(refusals) == len(self._candidates):
            raise HostError("; ".join(f"{name}: {text}" for name, text in refusals.items()))

    # --- Datapath: SAs ------------------------------------------------------------------------------

    async def capabilities(self) -> Capabilities:
        """Return what the backends can do together: each thing is done by at least one of them."""
        return _together(tuple(self._capabilities.values()))

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve SPIs at the first backend: of all that can run, it shares its SPIs with the most others."""
        first = next(iter(self._backends.values()))
        spis: dict[Spi, None] = {}
        for _ in range(_SPI_TRIES):
            offered = await first.allocate_spis(count - len(spis), destination)
            taken = self._placed.taken(offered)
            spis |= dict.fromkeys(spi for spi in offered if spi not in taken)
            if len(spis) == count:
                return tuple(spis)
        raise DatapathError(ErrorReason.TABLE_FULL, f"found {len(spis)} unused SPIs, {count} were asked for")

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs where their placements say; see `SaPlacing`."""
        async with self._lock:
            return await self._sas.install(sas, generation, self._surroundings)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs, wherever they are; one that nobody knows is looked for everywhere."""
        async with self._lock:
            by_backend: dict[str, list[SaId]] = {}
            for sa_id in sa_ids:
                placed = self._placed.get(sa_id)
                for name in self._backends if placed is None else (placed.backend,):
                    by_backend.setdefault(name, []).append(sa_id)
            errors: dict[str, DatapathError] = {}
            counted: dict[str, SaCounters] = {}
            for name, batch in by_backend.items():
                for answer in await self._backends[name].remove_sas(batch):
                    if answer.error is None:
                        self._placed.drop(SaId(answer.name))
                    else:
                        errors[answer.name] = answer.error
                    if answer.counters is not None:
                        counted[answer.name] = answer.counters
            return tuple(
                ItemResult(name=sa_id, error=errors.get(sa_id), counters=counted.get(sa_id))
                for sa_id in sa_ids
            )

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA as its backend holds it now, with the operator's wish and the reasons."""
        listed = []
        for name, backend in self._backends.items():
            for item in await backend.list_sas():
                placed = self._placed.get(item.sa.sa_id)
                if placed is None or placed.backend != name:
                    listed.append(item)
                    continue
                if item.placement is not placed.engine:
                    placed = await self._correct(placed, item.placement)
                listed.append(
                    replace(
                        item,
                        sa=placed.sa,
                        placement_reason=reason_of(placed.refusals, item),
                        refusals=placed.refusals,
                    )
                )
        return tuple(listed)

    async def _correct(self, placed: PlacedSa, engine: Engine) -> PlacedSa:
        """Note that an SA, read back, is elsewhere than it was put, though nobody said so."""
        sa_id = placed.sa.sa_id
        async with self._lock:
            if self._placed.get(sa_id) is placed:
                why = PlacementReason.KERNEL_IGNORED_OFFLOAD if placed.engine in NIC_ENGINES else None
                change = PlacementChange(
                    sa_id=sa_id,
                    old=placed.engine,
                    new=engine,
                    reason=f"read back, it is on {engine.value}",
                    why=why,
                )
                await self._on_event(placed.backend, change)
        return self._placed.get(sa_id) or placed

    # --- Datapath: policies -------------------------------------------------------------------------

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Put SPD entries in force where their SAs are, or will probably be; see `SpdPlacing`."""
        async with self._lock:
            here = await self._surroundings()
            first = next(iter(self._backends))
            expected = {}
            for policy in policies:
                engines = first_engines(
                    policy.placement.wanted,
                    here,
                    has_interface=bool(policy.interface_id),
                    has_marks=policy.mark_in is not None or policy.mark_out is not None,
                )
                expected[policy.name] = self._owners.get(engines[0], first) if engines else first
            return await self._spd.apply(policies, generation, expected)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries."""
        async with self._lock:
            for name in names:
                self._forget_lost(name)
            return await self._spd.remove(names)

    def _forget_lost(self, name: str) -> None:
        """Forget what an entry's lost SAs were on: nobody will replace them."""
        policy = self._spd.policy(name)
        if policy is not None:
            for direction in Direction:
                self._lost.pop(((policy.connection, policy.child), direction), None)

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched."""
        return self._spd.policies()

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Have every backend remove what is older; if one fails, the others do it all the same."""
        async with self._lock:
            removed: list[str] = []
            failure: DatapathError | None = None
            for backend in self._backends.values():
                try:
                    removed += await backend.reconcile(generation)
                except DatapathError as error:
                    failure = failure or error
            for name in removed:
                self._placed.drop(SaId(name))
            self._spd.forget(removed)
            if failure is not None:
                raise failure
            return tuple(removed)

    # --- Datapath: counters and events --------------------------------------------------------------

    async def counters(self) -> Counters:
        """Return what the backends that answer counted; drops of one reason are added up."""
        sas: list[SaCounters] = []
        drops: dict[DropReason, int] = {}
        failures: list[DatapathError] = []
        for name, backend in self._backends.items():
            try:
                counted = await backend.counters()
            except DatapathError as error:
                _log.warning("counters_not_read", backend=name, error=str(error))
                failures.append(error)
                continue
            sas += counted.sas
            for reason, packets in counted.drops.items():
                drops[reason] = drops.get(reason, 0) + packets
        if len(failures) == len(self._backends):
            raise failures[0]
        return Counters(sas=tuple(sas), drops=drops)

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on."""
        return self._hub.subscribe()

    async def _relay(self, name: str, stream: Watch[DatapathEvent]) -> None:
        async for event in stream:
            async with self._lock:
                await self._on_event(name, event)
        async with self._lock:
            # A backend that tells nothing any more may lose SAs unseen.
            lost = tuple(placed.sa.sa_id for placed in self._placed.at(name))
            _log.error("backend_events_ended", backend=name, sas=len(lost))
            if lost:
                await self._on_event(name, SasLost(sa_ids=lost, reason=f"the backend {name} stopped"))

    async def _on_event(self, name: str, event: DatapathEvent) -> None:
        """Note what a backend reports, and tell it on. The caller holds the lock."""
        match event:
            case BadSpi(protocol=protocol, spi=spi, destination=destination):
                # Several backends see the same packets: an SA of another one is not unknown.
                if self._placed.inbound_at(protocol, spi, destination) is not None:
                    return
            case SasLost(sa_ids=sa_ids):
                self._look_at = 0.0
                for sa_id in sa_ids:
                    placed = self._placed.drop(sa_id)
                    if placed is not None:
                        self._lost[placed.child, placed.sa.direction] = placed
            case PlacementChange(sa_id=sa_id):
                self._look_at = 0.0
                placed = self._placed.get(sa_id)
                if placed is None or placed.backend != name or placed.engine is event.new:
                    return
                if event.new not in placed.sa.placement.wanted:
                    await self._give_up(placed, event)
                    return
                reason = event.why or PlacementReason.DEVICE_LOST
                self._placed.demote(
                    sa_id, event.new, PlacementRefusal(engine=event.old, reason=reason, text=event.reason)
                )
            case _:
                pass
        self._hub.emit(event)

    async def _give_up(self, placed: PlacedSa, event: PlacementChange) -> None:
        """Remove an SA that is where the operator does not want it, and tell that it is lost."""
        sa_id = placed.sa.sa_id
        try:
            await self._backends[placed.backend].remove_sas([sa_id])
        except DatapathError as error:
            _log.error("sa_not_removed", sa_id=sa_id, error=str(error))
        reason = f"it moved from {event.old.value} to {event.new.value}, which its placement does not allow"
        await self._on_event(placed.backend, SasLost(sa_ids=(sa_id,), reason=f"{reason}: {event.reason}"))

    def _tell_move(self, new: PlacedSa, old: PlacedSa | None) -> None:
        """Tell if an SA serves its Child from another engine than the one before it, lost or still there."""
        old = self._lost.pop((new.child, new.sa.direction), None) or old
        if old is None or old.engine is new.engine:
            return
        refusal = next((refusal for refusal in new.refusals if refusal.engine is old.engine), None)
        self._hub.emit(
            PlacementChange(
                sa_id=new.sa.sa_id,
                old=old.engine,
                new=new.engine,
                reason=refusal.text if refusal else f"{new.engine.value} is preferred and can take it now",
                why=refusal.reason if refusal else None,
            )
        )

    # --- what is around -----------------------------------------------------------------------------

    async def _surroundings(self) -> Surroundings:
        """Return what there is to carry SAs with, looking at the NICs again if that is due."""
        programs_nics = next(
            (
                capabilities
                for capabilities in self._capabilities.values()
                if any(engine in NIC_ENGINES for engine in capabilities.engines)
            ),
            None,
        )
        now = asyncio.get_running_loop().time()
        if programs_nics is not None and now >= self._look_at:
            try:
                self._nics = await self._look_at_nics(programs_nics)
            except HostError as error:
                _log.warning("nics_not_seen", error=str(error))
            self._look_at = now + LOOK_AGAIN_S
        own = (
            ability
            for capabilities in self._capabilities.values()
            for ability in backend_abilities(capabilities)
        )
        return Surroundings(
            abilities=(*self._nics.abilities, *own),
            absent=self._absent,
            links=self._nics.links,
            used=self._placed.used,
        )


def _together(parts: Sequence[Capabilities]) -> Capabilities:
    """Return the capabilities of several backends as those of one."""
    limits = [part.max_sas for part in parts]
    return Capabilities(
        name="+".join(part.name for part in parts),
        engines=tuple(dict.fromkeys(engine for part in parts for engine in part.engines)),
        encryption=tuple(dict.fromkeys(pair for part in parts for pair in part.encryption)),
        integrity=tuple(dict.fromkeys(integrity for part in parts for integrity in part.integrity)),
        protocols=tuple(dict.fromkeys(protocol for part in parts for protocol in part.protocols)),
        modes=tuple(dict.fromkeys(mode for part in parts for mode in part.modes)),
        esn=any(part.esn for part in parts),
        udp_encapsulation=any(part.udp_encapsulation for part in parts),
        max_replay_window_packets=max(part.max_replay_window_packets for part in parts),
        counters_survive_restart=all(part.counters_survive_restart for part in parts),
        max_sas=None if None in limits else sum(limit for limit in limits if limit is not None),
        cpus=max(part.cpus for part in parts),
        io_methods=tuple(line for part in parts for line in part.io_methods),
    )
