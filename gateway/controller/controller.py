"""The controller: one IKEv2 core, its sockets and its datapath, behind the facade the API calls.

What belongs together here is order in time. Meeting a datapath means, always in this order: policies (no
clear packet), IKE sockets, missing SAs, attempts. A datapath that lost SAs is never given their keys
again: each is replaced by a rekey on the living IKE SA. SAs of a controller before this one are left in
place until new ones stand (`gateway.controller.adoption`).
"""

import asyncio
import random
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from gateway.controller.adoption import Adoption
from gateway.controller.connections import ChildKey, Connections, RetryTiming
from gateway.controller.credentials import Credentials
from gateway.controller.datapath_link import CALL_TIMEOUT_S, DatapathLink
from gateway.controller.driver import Driver
from gateway.controller.explain import explain_connection
from gateway.controller.facade import (
    Applied,
    ApplyResult,
    ChildSaStatus,
    ClockReading,
    ConnectionApplied,
    ConnectionState,
    ConnectionStatus,
    ControlError,
    ControlErrorReason,
    ControlEvent,
    DatapathAvailability,
    Fact,
    GatewayStatus,
    Operation,
    OperationFinished,
    SaPlacement,
    Target,
    WantedConnection,
)
from gateway.controller.history import History
from gateway.controller.operations import Operations
from gateway.controller.policies import conflicts, policy_name, wanted_policies
from gateway.controller.report import Report
from gateway.controller.sa_binding import BindingTiming, SaBinding
from gateway.controller.spi_pool import SpiPool
from gateway.controller.udp import TransportFactory, UdpTransport, source_address
from gateway.controller.uniqueness import is_carrying, is_serving
from gateway.datapath.backend import (
    Acquire,
    Capabilities,
    Datapath,
    DatapathError,
    DatapathEvent,
    HardExpire,
    InstalledSa,
    MappingChange,
    PlacementChange,
    SasLost,
    SoftExpire,
)
from gateway.host.sockets import IkePorts
from gateway.ike.endpoint import Endpoint, EndpointOptions
from gateway.ike.errors import LocalError
from gateway.ike.events import (
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaId,
    ChildSaInfo,
    ChildSaRekeyed,
    CredentialRequest,
    DatagramDropped,
    Event,
    Failure,
    FailureReason,
    IkeSaFailed,
    IkeSaId,
    IkeSaInfo,
    IkeSaKeysDerived,
    InstallRequest,
    PathChanged,
    RemoveSas,
    Request,
    RequestId,
    Result,
    SpiRequest,
)
from gateway.ike.path import Path
from gateway.ike.v2.states import ChildSaState
from gateway.ipsec.connection import Connection
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

T = TypeVar("T")


class KeyLog(Protocol):
    """Takes keys for packet analysers; only where the operator asked for it."""

    def ike_sa(self, event: IkeSaKeysDerived) -> None:
        """Note the keys of an IKE SA."""

    def sa(self, sa: SecurityAssociation) -> None:
        """Note the keys of one direction of a Child SA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """How this controller behaves; times in seconds."""

    version: str = ""
    datapath_address: str = "in-process"
    endpoint: EndpointOptions = EndpointOptions()
    retry: RetryTiming = RetryTiming()
    binding: BindingTiming = BindingTiming()
    adoption_s: float = 100.0
    """How long SAs of an earlier controller may wait for new ones."""
    inbound_linger_s: float = 5.0
    """How long an adopted inbound SA stays after a new one stands."""
    poll_s: float = 2.0
    """How often inbound counters are looked at: traffic is a sign of life (RFC 7296 §2.4)."""
    audit_s: float = 15.0
    """How often the datapath is asked whether it still has every SA."""
    follow_s: float = 2.0
    """How long a datapath may take to follow a peer that moved, before its Child SAs are rekeyed."""
    patience_s: float = 5.0
    """How long an operation waits for a datapath that is just (re)starting."""
    stop_s: float = 2.0
    """How long to wait for the peers' answers to our DELETEs at an orderly stop."""


class Controller:
    """Implements `gateway.controller.facade.ControlFacade`.

    Args:
        datapath: Where SAs and policies go.
        obtain_ports: Gets the IKE sockets, from the agent or by opening them.
        entropy: Random bytes for the core.
        rng: For jitter; need not be unpredictable.
        wall_clock: Unix time.
        options: Behaviour.
        key_log: Takes keys for packet analysers, or None.
        make_transport: Makes what carries the datagrams.
    """

    def __init__(
        self,
        *,
        datapath: Datapath,
        obtain_ports: Callable[[], Awaitable[IkePorts]],
        entropy: Callable[[int], bytes],
        rng: random.Random,
        wall_clock: Callable[[], float],
        options: ControllerOptions = ControllerOptions(),
        key_log: KeyLog | None = None,
        make_transport: TransportFactory = UdpTransport,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._options = options
        self._datapath = datapath
        self._obtain_ports = obtain_ports
        self._entropy = entropy
        self._key_log = key_log
        self._wanted: dict[str, Connection] = {}
        self._policies: dict[str, Policy] = {}
        self._policy_problems: dict[str, str] = {}
        self._drops: Tally[DropReason] = Tally()
        self._lost: set[SaId] = set()
        self._followed: dict[ChildSaId, tuple[object, int]] = {}
        self._inbound_packets: dict[SaId, int] = {}
        self._adoption = Adoption(())
        self._has_met = False
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._background: set[asyncio.Task[None]] = set()
        # `apply` has to wait for the datapath between its check and its effect; two at once would lose one.
        self._applying = asyncio.Lock()

        self._credentials = Credentials()
        self._transport = make_transport(self._on_datagram, self._on_ports_lost)
        self._driver = self._new_driver(send_initial_contact=options.endpoint.send_initial_contact)
        self._pool = SpiPool(datapath, self._clock)
        self._binding = SaBinding(
            datapath,
            self._pool,
            self._resolve,
            options.binding,
        )
        self._connections = Connections(
            command=self._command,
            clock=self._clock,
            rng=rng,
            source_address=source_address,
            refused=self.on_event,
            timing=options.retry,
        )
        self._history = History(wall_clock)
        self._operations = Operations(lambda ended: self._history.record(OperationFinished(operation=ended)))
        self._report = Report(self._find_ike_sa)
        self._link = DatapathLink(datapath, self._meet, self._on_datapath_event, self._on_datapath_lost)

    # --- life -----------------------------------------------------------------------------------

    async def start(self, wanted: Sequence[WantedConnection] = ()) -> tuple[ApplyResult, ...]:
        """Take the first configuration and begin to look for the datapath."""
        results = await self.apply(wanted)
        self._tasks = [
            asyncio.create_task(self._link.run(), name="datapath-link"),
            asyncio.create_task(self._poll(), name="datapath-poll"),
        ]
        return results

    async def stop(self) -> None:
        """Delete every IKE SA with its peer, remove every SA, and leave the protection in place."""
        self._stopping = True
        self._connections.stop()
        self._operations.close()
        deadline = self._clock() + self._options.stop_s
        for ike_sa in self.ike_sas():
            self._terminate_ike(ike_sa.ike_sa_id)
        while self.ike_sas() and self._clock() < deadline:  # noqa: ASYNC110 - the core is asked, it never calls
            await asyncio.sleep(0.02)
        if self._link.capabilities is not None:
            # Also what the core keeps for packets in flight, and what a silent peer left.
            self._binding.remove(self._binding.all_installed())
            await self._binding.settle(max(0.5, deadline - self._clock()))
        self._driver.stop()
        tasks = [*self._tasks, *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for timer in self._timers:
            timer.cancel()
        await self._binding.close()
        await self._pool.close()
        self._transport.release()
        self._history.close()

    def _new_driver(self, *, send_initial_contact: bool) -> Driver:
        endpoint = Endpoint(
            entropy=self._entropy,
            connections=self._wanted.values(),
            options=replace(self._options.endpoint, send_initial_contact=send_initial_contact),
        )
        return Driver(endpoint, self._transport.send, self, self._clock)

    # --- the core ---------------------------------------------------------------------------------

    def _command(self, act: Callable[[Endpoint, float], T]) -> T:
        return self._driver.command(act)

    def _command_quietly(self, act: Callable[[Endpoint, float], object]) -> None:
        """Run a command about something that may be gone by now."""
        try:
            self._driver.command(act)
        except LocalError as error:
            _log.debug("command_refused", error=str(error))

    def _terminate_ike(self, ike_sa_id: IkeSaId) -> None:
        self._command_quietly(lambda core, now: core.terminate_ike(ike_sa_id, now))

    def _terminate_child(self, child_sa_id: ChildSaId) -> None:
        self._command_quietly(lambda core, now: core.terminate_child(child_sa_id, now))

    def _expire_child(self, child_sa_id: ChildSaId) -> None:
        self._command_quietly(lambda core, now: core.expire_child(child_sa_id, now))

    def _note_used(self, child_sa_id: ChildSaId) -> None:
        self._command_quietly(lambda core, now: core.note_traffic(child_sa_id, now))

    def _rekey_ike(self, ike_sa_id: IkeSaId) -> None:
        self._command(lambda core, now: core.rekey_ike(ike_sa_id, now))

    def _rekey_child(self, child_sa_id: ChildSaId) -> None:
        self._command(lambda core, now: core.rekey_child(child_sa_id, now))

    def _resolve(self, request_id: RequestId, result: Result) -> None:
        # Not `self._driver.resolve` itself: adoption replaces the driver.
        self._driver.resolve(request_id, result)

    def _on_datagram(self, datagram: bytes, path: Path) -> None:
        self._driver.receive(datagram, path)

    def on_request(self, request: Request) -> None:
        """Take a request of the core (`Handler`)."""
        match request:
            case SpiRequest():
                self._binding.request_spi(request)
            case InstallRequest():
                if self._key_log is not None:
                    self._key_log.sa(request.sa)
                self._binding.install(request)
            case CredentialRequest():
                self._driver.resolve(request.request_id, self._credentials.find(request))

    def on_event(self, event: Event) -> None:
        """Take an event of the core (`Handler`)."""
        self._report.on_event(event)
        match event:
            case RemoveSas(sa_ids=sa_ids):
                self._binding.remove(sa_ids)
                return
            case DatagramDropped(reason=reason):
                self._drops[reason] += 1
                return
            case IkeSaKeysDerived():
                if self._key_log is not None:
                    self._key_log.ike_sa(event)
                return
            case _:
                self._history.record(event)
        self._connections.on_event(event)
        self._operations.observe(event)
        match event:
            case ChildSaEstablished(child_sa=child_sa):
                self._on_standing(child_sa)
            case ChildSaRekeyed(new=child_sa):
                self._on_standing(child_sa)
            case ChildSaFailed(replaces=old) if old is not None:
                if self._is_lost(old):
                    self._give_up_lost(old)
            case ChildSaFailed(connection=connection, child=child):
                self._retry_adoption((connection, child))
            case IkeSaFailed(ike_sa=ike_sa) if ike_sa.is_initiator:
                for key in self._adoption.keys:
                    if key[0] == ike_sa.connection:
                        self._retry_adoption(key)
            case PathChanged(ike_sa=ike_sa):
                self._after(self._options.follow_s, lambda: self._follow_peer(ike_sa.ike_sa_id))
            case _:
                pass

    def _find_ike_sa(self, ike_sa_id: IkeSaId) -> IkeSaInfo | None:
        return next((sa for sa in self.ike_sas() if sa.ike_sa_id == ike_sa_id), None)

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)

    # --- the datapath -----------------------------------------------------------------------------

    async def _meet(self, _capabilities: Capabilities) -> None:
        """Bring a datapath that (re)appeared to what is wanted: policies, sockets, SAs, attempts."""
        async with self._applying, asyncio.timeout(4 * CALL_TIMEOUT_S):
            present = await self._datapath.list_sas()
            if not self._has_met:
                newest = max((item.generation for item in present), default=0)
                self._binding.generation = max(int(self._wall_clock() * 1000), newest + 1)
            self._policies = wanted_policies(self._wanted.values(), source_address)
            await self._put_in_force(tuple(self._policies.values()))
            if not self._transport.is_open:
                self._transport.adopt(await self._obtain_ports())
            self._pool.forget()
            await self._pool.fill()
            if self._has_met:
                self._on_lost_sas(self._binding.missing_from(present), "missing after the datapath came back")
            else:
                self._adopt(present)
                self._has_met = True
            if self._adoption.is_over:
                await self._datapath.reconcile(self._binding.generation)
        _log.info("datapath_available", address=self._options.datapath_address)
        self._history.record(DatapathAvailability(available=True, detail=self._options.datapath_address))
        self._connections.begin()

    def _adopt(self, present: Sequence[InstalledSa]) -> None:
        """Take note of what an earlier controller left, and let new SAs take its place."""
        known = [
            item
            for item in present
            if self._connections.child((item.sa.connection, item.sa.child)) is not None
        ]
        self._binding.remove(item.sa.sa_id for item in present if item not in known)
        if not known:
            return
        _log.warning("sas_adopted", sas=len(known), seconds=self._options.adoption_s)
        self._adoption = Adoption(known)
        self._driver.stop()
        self._driver = self._new_driver(send_initial_contact=False)
        for key in self._adoption.keys:
            self._connections.revive(key)
        self._after(self._options.adoption_s, self._end_adoption)

    def _retry_adoption(self, key: ChildKey) -> None:
        if key in self._adoption.keys:
            self._connections.revive(key)

    def _on_standing(self, child_sa: ChildSaInfo) -> None:
        """A Child SA carries traffic: it may take over from an adopted one, or be lost already."""
        if self._is_lost(child_sa.child_sa_id):
            self._renew_lost(child_sa)
        outbound, inbound = self._adoption.take_over((child_sa.connection, child_sa.child))
        if outbound or inbound:
            _log.info(
                "adopted_sas_replaced",
                connection=child_sa.connection,
                child=child_sa.child,
                sas=len(outbound + inbound),
            )
            self._binding.remove(outbound)
            self._after(self._options.inbound_linger_s, lambda: self._binding.remove(inbound))
            if self._adoption.is_over:
                self._after(self._options.inbound_linger_s + 1.0, self._reconcile)
        self._spawn(self._protect_dynamic(child_sa), "dynamic-policy")

    def _end_adoption(self) -> None:
        left = self._adoption.give_up()
        if left:
            _log.warning("adopted_sas_given_up", sas=len(left))
            self._binding.remove(left)
            self._after(self._options.inbound_linger_s, self._reconcile)

    def _reconcile(self) -> None:
        async def reconcile() -> None:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    removed = await self._datapath.reconcile(self._binding.generation)
            except (DatapathError, TimeoutError) as error:
                # The next time the datapath is met this is done again.
                _log.warning("reconcile_failed", error=str(error))
            else:
                _log.info("reconciled", generation=self._binding.generation, removed=len(removed))

        if self._link.capabilities is not None:
            self._spawn(reconcile(), "reconcile")

    async def _put_in_force(self, policies: Sequence[Policy]) -> dict[str, DatapathError]:
        """Apply SPD entries; return those that were refused, by name."""
        refused: dict[str, DatapathError] = {}
        if not policies:
            return refused
        for answer in await self._datapath.apply_policies(policies, self._binding.generation):
            self._policy_problems.pop(answer.name, None)
            if answer.error is not None:
                refused[answer.name] = answer.error
                self._policy_problems[answer.name] = str(answer.error)
                _log.error("policy_refused", policy=answer.name, reason=str(answer.error))
        return refused

    async def _protect_dynamic(self, child_sa: ChildSaInfo) -> None:
        """Put the SPD entry of a Child in force whose selectors were only known from the negotiation."""
        connection = self._wanted.get(child_sa.connection)
        name = policy_name(child_sa.connection, child_sa.child)
        child = self._connections.child((child_sa.connection, child_sa.child))
        if connection is None or child is None or name in self._policies:
            return
        policy = Policy(
            name=name,
            action=child.action,
            local_ts=child_sa.local_ts,
            remote_ts=child_sa.remote_ts,
            priority=child.priority,
            mode=child.mode,
            acquire=False,
            connection=child_sa.connection,
            child=child_sa.child,
        )
        try:
            await self._put_in_force((policy,))
        except DatapathError as error:
            _log.error("policy_refused", policy=name, reason=str(error))

    def _on_ports_lost(self) -> None:
        self._link.interrupt()

    def _on_datapath_lost(self, reason: str) -> None:
        self._connections.pause()
        self._pool.forget()
        # The next agent cannot bind the ports while we hold sockets of the last one.
        self._transport.release_borrowed()
        self._history.record(DatapathAvailability(available=False, detail=reason))

    def _on_datapath_event(self, event: DatapathEvent) -> None:
        self._history.record(event)
        match event:
            case Acquire(policy=policy):
                connection, _, child = policy.partition("/")
                _log.info(
                    "acquire",
                    connection=connection,
                    child=child,
                    source=str(event.source),
                    destination=str(event.destination),
                )
                self._connections.acquire((connection, child))
            case SoftExpire(spi=spi):
                self._command_quietly(lambda core, now: core.soft_expire(spi, now))
            case HardExpire(sa_id=sa_id):
                child_sa_id = self._child_sa_of(sa_id)
                if child_sa_id is not None:
                    self._expire_child(child_sa_id)
            case MappingChange(sa_id=sa_id, new=(address, port)):
                child_sa_id = self._child_sa_of(sa_id)
                if child_sa_id is not None:
                    self._followed[child_sa_id] = (address, port)
                    self._command_quietly(
                        lambda core, now: core.mapping_changed(child_sa_id, address, port, now)
                    )
            case SasLost(sa_ids=sa_ids, reason=reason):
                self._on_lost_sas(sa_ids, reason)
            case PlacementChange(sa_id=sa_id, new=engine, reason=reason):
                self._binding.note_placement(sa_id, engine, reason)
                _log.warning("placement_changed", sa_id=sa_id, engine=engine.value, reason=reason)
            case _:
                pass

    def _child_sa_of(self, sa_id: SaId) -> ChildSaId | None:
        installed = self._binding.installed(sa_id)
        return None if installed is None else ChildSaId(installed.sa.child_sa_id)

    # --- lost SAs -----------------------------------------------------------------------------------

    def _on_lost_sas(self, sa_ids: Iterable[SaId], reason: str) -> None:
        """Replace SAs whose sequence numbers are gone, with new keys, on the IKE SA that lives on."""
        lost = self._binding.forget_lost(sa_ids)
        if not lost:
            return
        _log.warning("sas_lost", sas=len(lost), reason=reason)
        self._lost.update(sa.sa_id for sa in lost)
        for child_sa in self._command(lambda core, _now: core.child_sas()):
            if is_carrying(child_sa) and self._is_lost(child_sa.child_sa_id):
                self._renew_lost(child_sa)

    def _is_lost(self, child_sa_id: ChildSaId) -> bool:
        return any(
            sa is not None and sa.sa_id in self._lost
            for child_sa in self._command(lambda core, _now: core.child_sas())
            if child_sa.child_sa_id == child_sa_id
            for sa in (child_sa.inbound, child_sa.outbound)
        )

    def _renew_lost(self, child_sa: ChildSaInfo) -> None:
        try:
            self._rekey_child(child_sa.child_sa_id)
        except LocalError:
            self._give_up_lost(child_sa.child_sa_id)

    def _give_up_lost(self, child_sa_id: ChildSaId) -> None:
        """The rekey did not work: delete what is lost, and begin anew."""
        for child_sa in self._command(lambda core, _now: core.child_sas()):
            if child_sa.child_sa_id == child_sa_id:
                self._expire_child(child_sa_id)
                self._connections.revive((child_sa.connection, child_sa.child))

    def _follow_peer(self, ike_sa_id: IkeSaId) -> None:
        """Rekey the Child SAs of a peer that moved, where the datapath saw no ESP to follow it by."""
        ike_sa = self._find_ike_sa(ike_sa_id)
        if ike_sa is None:
            return
        place = (ike_sa.path.remote, ike_sa.path.remote_port)
        for child_sa in self._command(lambda core, _now: core.child_sas()):
            outbound = child_sa.outbound
            if child_sa.ike_sa_id != ike_sa_id or outbound is None or not is_carrying(child_sa):
                continue
            port = 0 if outbound.encapsulation is None else outbound.encapsulation.destination_port
            reached = self._followed.get(child_sa.child_sa_id, (outbound.destination, port))
            if outbound.encapsulation is not None and reached != place:
                self._renew_lost(child_sa)

    # --- looking at the datapath ----------------------------------------------------------------------

    async def _poll(self) -> None:
        """Tell the core of inbound traffic, and compare the datapath's SAs with ours from time to time."""
        next_audit = self._clock() + self._options.audit_s
        while True:
            await asyncio.sleep(self._options.poll_s)
            if self._link.capabilities is None or not self._binding.all_installed():
                continue
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._note_traffic()
                    if self._clock() >= next_audit:
                        next_audit = self._clock() + self._options.audit_s
                        await self._audit()
            except (DatapathError, TimeoutError) as error:
                _log.debug("poll_failed", error=str(error))

    async def _note_traffic(self) -> None:
        counters = await self._datapath.counters()
        before, self._inbound_packets = self._inbound_packets, {}
        for counted in counters.sas:
            installed = self._binding.installed(counted.sa_id)
            if installed is None or installed.sa.direction is not Direction.INBOUND:
                continue
            self._inbound_packets[counted.sa_id] = counted.packets
            if counted.packets > before.get(counted.sa_id, 0):
                used = ChildSaId(installed.sa.child_sa_id)
                self._note_used(used)

    async def _audit(self) -> None:
        expected = self._binding.all_installed()
        missing = set(self._binding.missing_from(await self._datapath.list_sas()))
        # What was installed while the answer was on its way is not missing.
        self._on_lost_sas([sa_id for sa_id in expected if sa_id in missing], "not at the datapath any more")

    # --- facade: configuration ------------------------------------------------------------------------

    def clock(self) -> ClockReading:
        """Return the present moment on both clocks."""
        return ClockReading(monotonic=self._clock(), wall=self._wall_clock())

    async def apply(
        self, wanted: Sequence[WantedConnection], *, validate_only: bool = False, prune: bool = False
    ) -> tuple[ApplyResult, ...]:
        """Create or update connections; see `ControlFacade.apply`."""
        if self._stopping:
            raise ControlError(ControlErrorReason.SHUTTING_DOWN, "the controller is shutting down")
        async with self._applying:
            return await self._apply(wanted, validate_only=validate_only, prune=prune)

    async def _apply(
        self, wanted: Sequence[WantedConnection], *, validate_only: bool, prune: bool
    ) -> tuple[ApplyResult, ...]:
        refused = self._refusals(wanted, prune=prune)
        accepted = {item.connection.name: item for item in wanted if item.connection.name not in refused}
        if not validate_only:
            refused |= await self._protect(accepted)
            accepted = {name: item for name, item in accepted.items() if name not in refused}
        named = {item.connection.name for item in wanted}
        doomed = [name for name in self._wanted if prune and name not in named]
        results = [
            ApplyResult(
                name=item.connection.name, applied=Applied.REFUSED, error=refused[item.connection.name]
            )
            if item.connection.name in refused
            else ApplyResult(name=item.connection.name, applied=self._difference(item))
            for item in wanted
        ]
        results += [ApplyResult(name=name, applied=Applied.DELETED) for name in doomed]
        if not validate_only:
            await self._commit(accepted, doomed)
            for result in results:
                if result.applied in (Applied.CREATED, Applied.UPDATED, Applied.DELETED):
                    _log.info("connection_applied", connection=result.name, applied=result.applied.value)
                    self._history.record(ConnectionApplied(name=result.name, applied=result.applied))
        return tuple(results)

    def _difference(self, item: WantedConnection) -> Applied:
        name = item.connection.name
        if name not in self._wanted:
            return Applied.CREATED
        same_psk = item.psk is None or self._credentials.is_psk(name, item.psk)
        return Applied.UNCHANGED if same_psk and self._wanted[name] == item.connection else Applied.UPDATED

    def _refusals(self, wanted: Sequence[WantedConnection], *, prune: bool) -> dict[str, ControlError]:
        refused: dict[str, ControlError] = {}
        future = {} if prune else dict(self._wanted)
        for item in wanted:
            name = item.connection.name
            if item.psk is None and not self._credentials.has_psk(name):
                refused[name] = ControlError(
                    ControlErrorReason.NO_PSK,
                    f"connection {name} says to keep its pre-shared key, but none is held: give one",
                )
            future[name] = item.connection
        for name, why in conflicts(future).items():
            if any(item.connection.name == name for item in wanted):
                refused.setdefault(name, ControlError(ControlErrorReason.CONFLICT, why))
        return refused

    async def _protect(self, accepted: dict[str, WantedConnection]) -> dict[str, ControlError]:
        """Put the policies of what is about to be configured in force; return what the datapath refuses."""
        if self._link.capabilities is None:
            return {}
        changed = wanted_policies((item.connection for item in accepted.values()), source_address)
        changed = {name: policy for name, policy in changed.items() if self._policies.get(name) != policy}
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                refused = await self._put_in_force(tuple(changed.values()))
        except (DatapathError, TimeoutError) as error:
            # It is done when the datapath is met again, before anything else.
            _log.warning("policies_not_applied_yet", error=str(error))
            return {}
        return {
            changed[name].connection: ControlError(
                ControlErrorReason.DATAPATH_REFUSED, f"policy {name}: {error}"
            )
            for name, error in refused.items()
        }

    async def _commit(self, accepted: dict[str, WantedConnection], doomed: Sequence[str]) -> None:
        for name, item in accepted.items():
            self._wanted[name] = item.connection
            if item.psk is not None:
                self._credentials.set_psk(name, item.psk)
        for name in doomed:
            del self._wanted[name]
        self._command(lambda core, now: core.configure(self._wanted.values(), now))
        self._connections.configure(self._wanted.values())
        for name in doomed:
            self._credentials.forget(name)
        before, self._policies = self._policies, wanted_policies(self._wanted.values(), source_address)
        gone = [name for name in before if name not in self._policies]
        if self._link.capabilities is None:
            return
        if gone:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._datapath.remove_policies(gone)
            except (DatapathError, TimeoutError) as error:
                _log.warning("policies_not_removed", policies=gone, error=str(error))
        self._connections.begin()

    async def delete(self, names: Sequence[str]) -> tuple[ApplyResult, ...]:
        """Terminate and forget connections."""
        async with self._applying:
            doomed = [name for name in dict.fromkeys(names) if name in self._wanted]
            await self._commit({}, doomed)
        for name in doomed:
            _log.info("connection_applied", connection=name, applied=Applied.DELETED.value)
            self._history.record(ConnectionApplied(name=name, applied=Applied.DELETED))
        return tuple(
            ApplyResult(name=name, applied=Applied.DELETED if name in doomed else Applied.UNCHANGED)
            for name in names
        )

    def connections(self) -> tuple[ConnectionStatus, ...]:
        """Return every connection, ordered by name."""
        return tuple(self._status_of(self._wanted[name]) for name in sorted(self._wanted))

    def _status_of(self, connection: Connection) -> ConnectionStatus:
        ike_sas = [sa for sa in self.ike_sas() if sa.connection == connection.name]
        child_sas = self._command(lambda core, _now: core.child_sas())
        failure = self._connections.last_failure(connection.name)
        state = ConnectionState.DOWN
        if any(is_serving(sa) for sa in ike_sas):
            state = ConnectionState.UP
        elif self._connections.is_attempting(connection.name):
            state = ConnectionState.CONNECTING
        elif self._connections.has_failed(connection.name):
            state = ConnectionState.FAILED
        return ConnectionStatus(
            connection=connection,
            psk_is_set=self._credentials.has_psk(connection.name),
            state=state,
            ike_sas=tuple(sa.ike_sa_id for sa in ike_sas),
            child_sas=tuple(sa.child_sa_id for sa in child_sas if sa.connection == connection.name),
            last_failure=None if failure is None else failure[0],
            last_failure_at=None if failure is None else failure[1],
        )

    # --- facade: operations ---------------------------------------------------------------------------

    async def initiate(self, target: Target, *, request_id: str = "") -> Operation:
        """Bring up a connection or one child; see `ControlFacade.initiate`."""
        repeated = self._operations.repeated("initiate", target, request_id)
        if repeated is not None:
            return repeated
        connection = self._connection_of(target)
        keys = self._protected_children(connection, target.child)
        if not connection.remote.addresses:
            raise ControlError(
                ControlErrorReason.NO_REMOTE_ADDRESS,
                f"connection {connection.name} has no remote address: it only responds",
            )
        if not await self._link.is_met(self._options.patience_s):
            raise ControlError(ControlErrorReason.DATAPATH_UNAVAILABLE, self._link.problem)
        missing = [key for key in keys if not self._connections.is_up(key)]
        operation = self._operations.begin("initiate", target, request_id, children=missing)
        for key in missing:
            self._connections.up(key)
        return operation

    async def terminate(self, target: Target, *, request_id: str = "") -> Operation:
        """Delete IKE SAs or Child SAs; see `ControlFacade.terminate`."""
        repeated = self._operations.repeated("terminate", target, request_id)
        if repeated is not None:
            return repeated
        ike_sas: tuple[IkeSaId, ...] = ()
        child_sas: tuple[ChildSaId, ...] = ()
        if target.ike_sa_id is not None:
            ike_sas = (self._ike_sa(target.ike_sa_id).ike_sa_id,)
        elif target.child_sa_id is not None:
            child_sas = (self._child_sa(target.child_sa_id).child_sa_id,)
        else:
            connection = self._connection_of(target)
            for key in self._protected_children(connection, target.child):
                self._connections.down(key)
            if target.child:
                child_sas = tuple(sa.child_sa_id for sa in self._children_of(connection.name, target.child))
            else:
                ike_sas = tuple(sa.ike_sa_id for sa in self.ike_sas() if sa.connection == connection.name)
        operation = self._operations.begin(
            "terminate", target, request_id, gone_ike=ike_sas, gone_children=child_sas
        )
        for ike_sa_id in ike_sas:
            self._terminate_ike(ike_sa_id)
        for child_sa_id in child_sas:
            self._terminate_child(child_sa_id)
        return await self._operations.wait(operation.operation_id, 0)

    async def rekey(self, target: Target, *, request_id: str = "") -> Operation:
        """Rekey IKE SAs or Child SAs; see `ControlFacade.rekey`."""
        repeated = self._operations.repeated("rekey", target, request_id)
        if repeated is not None:
            return repeated
        ike_sas: tuple[IkeSaId, ...] = ()
        child_sas: tuple[ChildSaId, ...] = ()
        if target.ike_sa_id is not None:
            ike_sas = (self._ike_sa(target.ike_sa_id).ike_sa_id,)
        elif target.child_sa_id is not None:
            child_sas = (self._child_sa(target.child_sa_id).child_sa_id,)
        elif target.child:
            connection = self._connection_of(target)
            self._protected_children(connection, target.child)
            child_sas = tuple(
                sa.child_sa_id for sa in self._children_of(connection.name, target.child) if is_carrying(sa)
            )
            if not child_sas:
                raise ControlError(
                    ControlErrorReason.CHILD_SA_NOT_FOUND,
                    f"{connection.name}/{target.child} has no Child SA to rekey: bring it up first",
                )
        else:
            connection = self._connection_of(target)
            ike_sas = tuple(
                sa.ike_sa_id for sa in self.ike_sas() if sa.connection == connection.name and is_serving(sa)
            )
            if not ike_sas:
                raise ControlError(
                    ControlErrorReason.IKE_SA_NOT_FOUND,
                    f"{connection.name} has no IKE SA to rekey: bring it up first",
                )
        operation = self._operations.begin(
            "rekey", target, request_id, rekeyed_ike=ike_sas, rekeyed_children=child_sas
        )
        try:
            for ike_sa_id in ike_sas:
                self._rekey_ike(ike_sa_id)
            for child_sa_id in child_sas:
                self._rekey_child(child_sa_id)
        except LocalError as error:
            return self._operations.fail(
                operation.operation_id, Failure(reason=FailureReason.INTERNAL, detail=str(error))
            )
        return await self._operations.wait(operation.operation_id, 0)

    async def operation(self, operation_id: str, *, wait_s: float = 0.0) -> Operation:
        """Return an operation, after waiting up to `wait_s` for its end."""
        return await self._operations.wait(operation_id, wait_s)

    def _connection_of(self, target: Target) -> Connection:
        connection = self._wanted.get(target.connection)
        if connection is None:
            known = ", ".join(sorted(self._wanted)) or "none"
            raise ControlError(
                ControlErrorReason.CONNECTION_NOT_FOUND,
                f"no connection {target.connection!r}; configured: {known}",
            )
        return connection

    def _protected_children(self, connection: Connection, child: str) -> tuple[ChildKey, ...]:
        """Return the keys of the PROTECT children that a target names; an empty name means all."""
        names = [item.name for item in connection.children if item.action is Action.PROTECT]
        if child and child not in names:
            raise ControlError(
                ControlErrorReason.CHILD_NOT_FOUND,
                f"connection {connection.name} has no protected child {child!r}; "
                f"it has: {', '.join(names) or 'none'}",
            )
        return tuple((connection.name, name) for name in names if not child or name == child)

    def _children_of(self, connection: str, child: str) -> tuple[ChildSaInfo, ...]:
        child_sas = self._command(lambda core, _now: core.child_sas())
        gone = (ChildSaState.REKEYED.value, ChildSaState.DELETING.value, ChildSaState.DELETED.value)
        return tuple(
            sa
            for sa in child_sas
            if (sa.connection, sa.child) == (connection, child) and sa.state not in gone
        )

    def _ike_sa(self, ike_sa_id: int) -> IkeSaInfo:
        found = self._find_ike_sa(IkeSaId(ike_sa_id))
        if found is None:
            raise ControlError(
                ControlErrorReason.IKE_SA_NOT_FOUND, f"no IKE SA {ike_sa_id}; it may have ended"
            )
        return found

    def _child_sa(self, child_sa_id: int) -> ChildSaInfo:
        for child_sa in self._command(lambda core, _now: core.child_sas()):
            if child_sa.child_sa_id == child_sa_id:
                return child_sa
        raise ControlError(
            ControlErrorReason.CHILD_SA_NOT_FOUND, f"no Child SA {child_sa_id}; it may have been rekeyed"
        )

    # --- facade: reading --------------------------------------------------------------------------------

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """Return every IKE SA, ordered by id."""
        ike_sas = self._command(lambda core, _now: core.ike_sas())
        return tuple(sorted(ike_sas, key=lambda sa: sa.ike_sa_id))

    async def child_sas(self) -> tuple[ChildSaStatus, ...]:
        """Return every Child SA, ordered by id, with counters as far as the datapath answers."""
        listed: dict[SaId, InstalledSa] = {}
        packets: dict[SaId, tuple[int, int]] = {}
        if self._link.capabilities is not None:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    listed = {item.sa.sa_id: item for item in await self._datapath.list_sas()}
                    counters = await self._datapath.counters()
                packets = {item.sa_id: (item.packets, item.bytes) for item in counters.sas}
            except (DatapathError, TimeoutError) as error:
                _log.debug("counters_not_read", error=str(error))
        infos = self._command(lambda core, _now: core.child_sas())
        return tuple(
            self._child_status(info, listed, packets) for info in sorted(infos, key=lambda sa: sa.child_sa_id)
        )

    def _child_status(
        self, info: ChildSaInfo, listed: dict[SaId, InstalledSa], packets: dict[SaId, tuple[int, int]]
    ) -> ChildSaStatus:
        placements: list[SaPlacement | None] = []
        counted: list[tuple[int, int]] = []
        effective_mtu = None
        for sa in (info.inbound, info.outbound):
            installed = None if sa is None else listed.get(sa.sa_id) or self._binding.installed(sa.sa_id)
            if sa is None or installed is None:
                placements.append(None)
                counted.append((0, 0))
                continue
            placements.append(
                SaPlacement(sa_id=sa.sa_id, engine=installed.placement, reason=installed.placement_reason)
            )
            counted.append(packets.get(sa.sa_id, (0, 0)))
            if sa.direction is Direction.OUTBOUND:
                effective_mtu = installed.effective_mtu
        return ChildSaStatus(
            info=info,
            inbound=placements[0],
            outbound=placements[1],
            packets_in=counted[0][0],
            packets_out=counted[1][0],
            bytes_in=counted[0][1],
            bytes_out=counted[1][1],
            effective_mtu=effective_mtu,
        )

    async def status(self) -> GatewayStatus:
        """Return the controller at a glance."""
        ike_sas = self.ike_sas()
        return GatewayStatus(
            version=self._options.version,
            started_at=self._started_at,
            datapath_address=self._options.datapath_address,
            datapath=self._link.capabilities,
            datapath_problem=self._link.problem,
            connections=len(self._wanted),
            ike_sas=sum(is_serving(sa) for sa in ike_sas),
            half_open_ike_sas=sum(sa.established_at is None and not sa.is_initiator for sa in ike_sas),
            child_sas=sum(is_carrying(sa) for sa in self._command(lambda core, _now: core.child_sas())),
            ike_drops=dict(self._drops),
            warnings=tuple(f"policy {name}: {why}" for name, why in sorted(self._policy_problems.items())),
        )

    async def explain(self, connection: str) -> tuple[Fact, ...]:
        """Return why a connection is (not) up, and where its SAs landed."""
        configured = self._connection_of(Target(connection=connection))
        child_sas = [sa for sa in await self.child_sas() if sa.info.connection == connection]
        return explain_connection(
            status=self._status_of(configured),
            ike_sas=[sa for sa in self.ike_sas() if sa.connection == connection],
            child_sas=child_sas,
            datapath_problem=self._link.problem,
            policy_problems={
                name: why
                for name, why in self._policy_problems.items()
                if name.partition("/")[0] == connection
            },
            next_attempt_in_s=self._connections.next_attempt_in_s(connection),
            now=self._clock(),
        )

    def watch(self, after_sequence: int | None = None) -> AsyncIterator[ControlEvent]:
        """Return a stream of events; see `ControlFacade.watch`."""
        return self._history.watch(after_sequence)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
