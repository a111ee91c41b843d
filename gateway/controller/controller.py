"""The controller: one IKEv2 core, its sockets and its datapath, behind the facade the API calls.

It wires the rooms of this package and answers for them; what happens between core and datapath is in
`sa_binding` (requests) and `sa_upkeep` (everything else), what is wanted is in `connections`.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.controller.applying import Applying, DesiredStore, Kept
from gateway.controller.conditions import Standing, Transitions, conditions_of
from gateway.controller.connections import ChildKey, Connections, RetryTiming
from gateway.controller.core import Core
from gateway.controller.credentials import Credentials
from gateway.controller.datapath_link import CALL_TIMEOUT_S
from gateway.controller.desired import Desired, DesiredState
from gateway.controller.explain import explain_connection
from gateway.controller.facade import (
    NO_ETAGS,
    ApplyResult,
    ChildSaStatus,
    ClockReading,
    ConnectionState,
    ConnectionStatus,
    ControlError,
    ControlErrorReason,
    ControlEvent,
    Fact,
    GatewayStatus,
    KeyTables,
    Operation,
    OperationFinished,
    SaPlacement,
    Target,
    Tenure,
    WantedConnection,
)
from gateway.controller.history import History
from gateway.controller.key_export import export_keys
from gateway.controller.ledger import Ledger, connection_of
from gateway.controller.operations import Operations
from gateway.controller.protection import Protection
from gateway.controller.report import Report
from gateway.controller.sa_binding import SaBinding
from gateway.controller.sa_upkeep import SaUpkeep
from gateway.controller.spi_pool import SpiPool
from gateway.controller.stranger_limit import StrangerLimit
from gateway.controller.tally import Tally
from gateway.controller.udp import TransportFactory, UdpTransport, source_address
from gateway.controller.uniqueness import is_carrying, is_serving
from gateway.controller.whereabouts import Resolve, Whereabouts, resolve_by_system
from gateway.datapath.backend import (
    Datapath,
    DatapathError,
    InstalledSa,
    SaCounters,
)
from gateway.datapath.watch import Watch
from gateway.host.sockets import IkePorts
from gateway.ike.endpoint import EndpointOptions
from gateway.ike.errors import LocalError
from gateway.ike.events import (
    ChildSaId,
    ChildSaInfo,
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
    ReauthenticationDue,
    RemoveSas,
    Request,
    SignRequest,
    SpiRequest,
    TrustRequest,
)
from gateway.ike.path import Path
from gateway.ike.v2.states import ChildSaState
from gateway.ipsec.connection import Connection
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_NAMES_SHOWN = 20


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
    node: str = ""
    """The name of this gateway among its like."""
    desired_state: str = "memory"
    """Where the connections are kept, for people: `file:PATH`, `state:PATH` or `memory`."""
    allows_key_export: bool = False
    """Whether administrators may ask for the keys of SAs."""
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
        store: Keeps the desired state, or None.
        make_transport: Makes what carries the datagrams.
        resolve: Finds the addresses of a host name.
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
        store: DesiredStore | None = None,
        make_transport: TransportFactory = UdpTransport,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._clock = asyncio.get_running_loop().time
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._options = options
        self._datapath = datapath
        self._key_log = key_log
        self._desired = DesiredState()
        self._ledger = Ledger(secrets.token_hex(4), self._clock)
        self._transitions = Transitions(self._ledger.touched_at)
        self._drops: Counter[DropReason] = Counter()
        self._tally = Tally()
        self._stopping = False

        self._history = History(wall_clock)
        self._operations = Operations(lambda ended: self._history.record(OperationFinished(operation=ended)))
        self._credentials = Credentials(wall_clock)
        self._protection = Protection(datapath, source_address, self._meet_datapath_again)
        self._transport = make_transport(self._on_datagram, self._on_ports_lost)
        self._core = Core(
            entropy=entropy,
            options=replace(options.endpoint, tells_ike_keys=key_log is not None),
            send=self._transport.send,
            handler=self,
            clock=self._clock,
        )
        self._report = Report(self._core.ike_sa)
        self._stranger_limit = StrangerLimit()
        self._pool = SpiPool(datapath, self._clock)
        self._binding = SaBinding(datapath, self._pool, self._core.resolve, self._tally.on_removed)
        self._connections = Connections(
            command=self._core.command,
            clock=self._clock,
            rng=rng,
            whereabouts=Whereabouts(source_address, resolve),
            before_attempt=self._refresh_policies,
            refused=self.on_event,
            touched=self._ledger.touch_if_there,
            timing=options.retry,
        )
        self._upkeep = SaUpkeep(
            address=options.datapath_address,
            datapath=datapath,
            core=self._core,
            binding=self._binding,
            pool=self._pool,
            protection=self._protection,
            connections=self._connections,
            transport=self._transport,
            history=self._history,
            configured=self._desired.connections,
            obtain_ports=obtain_ports,
            wall_clock=wall_clock,
            availability_changed=self._on_availability,
        )
        self._applying = Applying(
            desired=self._desired,
            store=store,
            core=self._core,
            connections=self._connections,
            credentials=self._credentials,
            protection=self._protection,
            history=self._history,
            ledger=self._ledger,
            tally=self._tally,
            has_datapath=lambda: self._upkeep.link.capabilities is not None,
            removed=self._transitions.forget,
        )

    # --- life -----------------------------------------------------------------------------------

    async def start(
        self,
        wanted: Sequence[WantedConnection] = (),
        *,
        kept: Sequence[Kept] = (),
        generation: int = 0,
    ) -> tuple[ApplyResult, ...]:
        """Take the first configuration and begin to look for the datapath.

        Args:
            wanted: The connections.
            kept: What a `DesiredStore` knows of those that come from it; they are not written again.
            generation: The highest one that was applied, as the store knows it.
        """
        results = await self._applying.apply(
            wanted,
            validate_only=False,
            prune=False,
            generation=generation,
            kept={item.name: item for item in kept} if kept else None,
        )
        self._upkeep.start()
        return results

    async def is_protecting(self) -> bool:
        """Say whether the datapath has all policies, waiting for one that is just (re)starting."""
        return await self._upkeep.link.is_met(self._options.patience_s)

    async def stop(self) -> None:
        """Delete every IKE SA with its peer, remove every SA, and leave the protection in place."""
        self._stopping = True
        self._connections.stop()
        self._operations.close()
        deadline = self._clock() + self._options.stop_s
        for ike_sa in self.ike_sas():
            self._core.terminate_ike(ike_sa.ike_sa_id)
        while self.ike_sas() and self._clock() < deadline:  # noqa: ASYNC110 - the core is asked, it never calls
            await asyncio.sleep(0.02)
        if self._upkeep.link.capabilities is not None:
            # Also what the core keeps for packets in flight, and what a silent peer left.
            self._binding.remove(self._binding.all_installed())
            await self._binding.settle(max(0.5, deadline - self._clock()))
        self.abandon()
        await self._upkeep.stop()
        await self._binding.close()
        await self._pool.close()
        self._history.close()

    def abandon(self) -> None:
        """Fall silent at once: no attempt, no timer, no socket; peers and datapath learn nothing."""
        self._connections.stop()
        self._core.stop()
        self._transport.release()

    # --- the core ---------------------------------------------------------------------------------

    def _on_datagram(self, datagram: bytes, path: Path) -> None:
        self._core.receive(datagram, path)

    def _meet_datapath_again(self, reason: str) -> None:
        self._upkeep.link.interrupt(reason)

    def _on_ports_lost(self) -> None:
        self._upkeep.on_ports_lost()

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
                self._core.resolve(request.request_id, self._credentials.find(request))
            case SignRequest():
                self._core.resolve(request.request_id, self._credentials.sign(request))
            case TrustRequest():
                self._core.resolve(request.request_id, self._credentials.trust(request))

    def on_event(self, event: Event) -> None:
        """Take an event of the core (`Handler`)."""
        if isinstance(event, DatagramDropped):
            self._drops[event.reason] += 1
            self._report.on_dropped(event)
            return
        self._tally.on_event(event)
        is_told = self._stranger_limit.allows(event, self._clock())
        if is_told:
            self._report.on_event(event)
        match event:
            case RemoveSas(sa_ids=sa_ids):
                self._binding.remove(sa_ids)
            case IkeSaKeysDerived():
                if self._key_log is not None:
                    self._key_log.ike_sa(event)
            case ReauthenticationDue():
                self._connections.on_event(event)
            case _:
                if is_told:
                    self._history.record(event)
                self._connections.on_event(event)
                self._ledger.touch_if_there(connection_of(event))
                if not isinstance(event, IkeSaFailed) or not self._is_trying_on(event.ike_sa):
                    self._operations.observe(event)
                self._upkeep.on_event(event)

    def _on_availability(self, available: bool) -> None:
        """The datapath was met, with all policies, or lost: that is part of every connection's status."""
        if available:
            self._applying.note_all_in_force()
        self._ledger.touch_all()

    def _is_trying_on(self, ike_sa: IkeSaInfo) -> bool:
        """Say whether the peer of an IKE SA that failed is tried at another address."""
        return ike_sa.is_initiator and self._connections.is_trying_on(ike_sa.connection)

    def _refresh_policies(self, connection: Connection) -> None:
        """Put policies in force that depend on an address of ours which has changed."""
        self._upkeep.refresh_policies(connection)

    # --- facade: configuration ------------------------------------------------------------------------

    def clock(self) -> ClockReading:
        """Return the present moment on both clocks."""
        return ClockReading(monotonic=self._clock(), wall=self._wall_clock())

    async def apply(
        self,
        wanted: Sequence[WantedConnection],
        *,
        validate_only: bool = False,
        prune: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> tuple[ApplyResult, ...]:
        """Create or update connections; see `ControlFacade.apply`."""
        self._check_not_stopping()
        async with self._upkeep.changing:
            return await self._applying.apply(
                wanted, validate_only=validate_only, prune=prune, generation=generation, etags=etags
            )

    async def delete(
        self,
        names: Sequence[str],
        *,
        validate_only: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> tuple[ApplyResult, ...]:
        """Terminate and forget connections; see `ControlFacade.delete`."""
        self._check_not_stopping()
        async with self._upkeep.changing:
            return await self._applying.delete(
                names, validate_only=validate_only, generation=generation, etags=etags
            )

    def _check_not_stopping(self) -> None:
        if self._stopping:
            raise ControlError(ControlErrorReason.SHUTTING_DOWN, "the controller is shutting down")

    def connections(self) -> tuple[ConnectionStatus, ...]:
        """Return every connection, ordered by name."""
        return tuple(status for name in self.names() if (status := self.connection(name)) is not None)

    def connection(self, name: str) -> ConnectionStatus | None:
        """Return one connection; `None` where there is none of that name."""
        desired = self._desired.get(name)
        return None if desired is None else self._status_of(desired)

    def names(self) -> tuple[str, ...]:
        """Return the name of every connection, sorted."""
        return self._desired.names()

    def etag(self, name: str) -> str:
        """Return the etag of a connection; empty where there is none of that name."""
        desired = self._desired.get(name)
        return "" if desired is None else desired.etag

    def ledger(self) -> Ledger:
        """Return which connection changed when."""
        return self._ledger

    def tenure(self) -> Tenure:
        """Return who has the SAs of this controller."""
        node = self._options.node
        return Tenure(node=node, owner=node, generation=self._binding.generation)

    def _status_of(self, desired: Desired) -> ConnectionStatus:
        connection = desired.connection
        name = connection.name
        ike_sas, child_sas = self._core.sas_of(name)
        failure = self._connections.last_failure(name)
        state = ConnectionState.DOWN
        if any(is_serving(sa) for sa in ike_sas):
            state = ConnectionState.UP
        elif self._connections.is_attempting(name):
            state = ConnectionState.CONNECTING
        elif self._connections.has_failed(name):
            state = ConnectionState.FAILED
        carrying = {sa.child for sa in child_sas if is_carrying(sa)}
        standing = Standing(
            state=state,
            failure=None if failure is None else failure[0],
            has_datapath=self._upkeep.link.capabilities is not None,
            datapath_problem=self._upkeep.link.problem,
            policy_problems=self._protection.problems_of(name),
            missing=tuple(
                child for _, child in self._connections.wanted_up(name) if child and child not in carrying
            ),
        )
        return ConnectionStatus(
            connection=connection,
            psk_is_set=self._credentials.has_psk(name),
            crls_are_set=self._credentials.has_crls(name),
            state=state,
            ike_sas=tuple(sa.ike_sa_id for sa in ike_sas),
            child_sas=tuple(sa.child_sa_id for sa in child_sas),
            last_failure=standing.failure,
            last_failure_at=None if failure is None else failure[1],
            etag=desired.etag,
            generation=desired.generation,
            observed_generation=self._applying.observed_generation(name),
            conditions=self._transitions.dated(name, conditions_of(standing)),
        )

    # --- facade: operations ---------------------------------------------------------------------------

    async def initiate(self, target: Target, *, request_id: str = "") -> Operation:
        """Bring up a connection or one child; see `ControlFacade.initiate`."""
        repeated = self._operations.repeated("initiate", target, request_id)
        if repeated is not None:
            return repeated
        connection = self._connection_of(target)
        keys = self._protected_children(connection, target.child)
        if not connection.remote.is_known:
            raise ControlError(
                ControlErrorReason.NO_REMOTE_ADDRESS,
                f"connection {connection.name} has no remote address: it only responds",
            )
        if not await self._upkeep.link.is_met(self._options.patience_s):
            raise ControlError(ControlErrorReason.DATAPATH_UNAVAILABLE, self._upkeep.link.problem)
        # The same request may have come a second time while this one waited.
        repeated = self._operations.repeated("initiate", target, request_id)
        if repeated is not None:
            return repeated
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
        ike_sas, child_sas = self._sas_of(target)
        if target.connection:
            for key in self._protected_children(self._connection_of(target), target.child):
                self._connections.down(key)
        operation = self._operations.begin(
            "terminate", target, request_id, gone_ike=ike_sas, gone_children=child_sas
        )
        for ike_sa_id in ike_sas:
            self._core.terminate_ike(ike_sa_id)
        for child_sa_id in child_sas:
            self._core.terminate_child(child_sa_id)
        return await self._operations.wait(operation.operation_id, 0)

    async def rekey(self, target: Target, *, reauthenticate: bool = False, request_id: str = "") -> Operation:
        """Rekey IKE SAs or Child SAs; see `ControlFacade.rekey`."""
        verb = "reauthenticate" if reauthenticate else "rekey"
        repeated = self._operations.repeated(verb, target, request_id)
        if repeated is not None:
            return repeated
        ike_sas, child_sas = self._sas_of(target, to_rekey=True)
        if target.child and not child_sas:
            raise ControlError(
                ControlErrorReason.CHILD_SA_NOT_FOUND,
                f"{target.connection}/{target.child} has no Child SA to rekey: bring it up first",
            )
        if not ike_sas and not child_sas:
            raise ControlError(
                ControlErrorReason.IKE_SA_NOT_FOUND,
                f"{target.connection} has no IKE SA to rekey: bring it up first",
            )
        if reauthenticate:
            return self._reauthenticate(target, request_id, ike_sas)
        operation = self._operations.begin(
            verb, target, request_id, rekeyed_ike=ike_sas, rekeyed_children=child_sas
        )
        try:
            for ike_sa_id in ike_sas:
                self._core.rekey_ike(ike_sa_id)
            for child_sa_id in child_sas:
                self._core.rekey_child(child_sa_id)
        except LocalError as error:
            return self._operations.fail(
                operation.operation_id, Failure(reason=FailureReason.INTERNAL, detail=str(error))
            )
        return await self._operations.wait(operation.operation_id, 0)

    def _reauthenticate(self, target: Target, request_id: str, ike_sa_ids: Sequence[IkeSaId]) -> Operation:
        ike_sas = [ike_sa for number in ike_sa_ids if (ike_sa := self._core.ike_sa(number)) is not None]
        operation = self._operations.begin(
            "reauthenticate",
            target,
            request_id,
            reauthenticated={ike_sa.ike_sa_id: ike_sa.connection for ike_sa in ike_sas},
        )
        for ike_sa in ike_sas:
            self._connections.reauthenticate(
                ike_sa, lambda failure: self._operations.fail(operation.operation_id, failure)
            )
        return operation

    async def operation(self, operation_id: str, *, wait_s: float = 0.0) -> Operation:
        """Return an operation, after waiting up to `wait_s` for its end."""
        return await self._operations.wait(operation_id, wait_s)

    def _connection_of(self, target: Target) -> Connection:
        connection = self._desired.connection(target.connection)
        if connection is None:
            names = self._desired.names()
            known = ", ".join(names[:_NAMES_SHOWN]) or "none"
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            raise ControlError(
                ControlErrorReason.CONNECTION_NOT_FOUND,
                f"no connection {target.connection!r}; configured: {known}{more}",
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
        if not names:
            return ((connection.name, ""),)
        return tuple((connection.name, name) for name in names if not child or name == child)

    def _sas_of(
        self, target: Target, *, to_rekey: bool = False
    ) -> tuple[tuple[IkeSaId, ...], tuple[ChildSaId, ...]]:
        """Return the IKE SAs or Child SAs that a target means; of a connection all, or what can be rekeyed.

        One that was rekeyed is not meant: its successor is.

        Raises:
            ControlError: There is no such connection, child, IKE SA or Child SA.
        """
        if target.ike_sa_id is not None:
            return (self._ike_sa(target.ike_sa_id).ike_sa_id,), ()
        if target.child_sa_id is not None:
            return (), (self._child_sa(target.child_sa_id).child_sa_id,)
        keys = self._protected_children(self._connection_of(target), target.child)
        if target.child:
            is_meant = is_carrying if to_rekey else _is_there
            child_sas = self._core.child_sas()
            return (), tuple(
                sa.child_sa_id for sa in child_sas if (sa.connection, sa.child) in keys and is_meant(sa)
            )
        ike_sas = (sa for sa in self.ike_sas() if sa.connection == target.connection and not sa.is_replaced)
        return tuple(sa.ike_sa_id for sa in ike_sas if is_serving(sa) or not to_rekey), ()

    def _ike_sa(self, ike_sa_id: int) -> IkeSaInfo:
        found = self._core.ike_sa(IkeSaId(ike_sa_id))
        if found is None:
            raise ControlError(
                ControlErrorReason.IKE_SA_NOT_FOUND, f"no IKE SA {ike_sa_id}; it may have ended"
            )
        return found

    def _child_sa(self, child_sa_id: int) -> ChildSaInfo:
        found = self._core.child_sa(ChildSaId(child_sa_id))
        if found is None:
            raise ControlError(
                ControlErrorReason.CHILD_SA_NOT_FOUND, f"no Child SA {child_sa_id}; it may have been rekeyed"
            )
        return found

    # --- facade: reading --------------------------------------------------------------------------------

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """Return every IKE SA, ordered by id."""
        return self._core.ike_sas()

    async def child_sas(self) -> tuple[ChildSaStatus, ...]:
        """Return every Child SA, ordered by id, with counters as far as the datapath answers."""
        listed: dict[SaId, InstalledSa] = {}
        counted: dict[SaId, SaCounters] = {}
        if self._upkeep.link.capabilities is not None:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    listed = {item.sa.sa_id: item for item in await self._datapath.list_sas()}
                    counters = await self._datapath.counters()
                counted = {item.sa_id: item for item in counters.sas}
                self._tally.on_counters(self._binding.installed_sas(), counted)
            except (DatapathError, TimeoutError) as error:
                _log.debug("counters_not_read", error=str(error))
        return tuple(self._child_status(info, listed, counted) for info in self._core.child_sas())

    def _child_status(
        self, info: ChildSaInfo, listed: dict[SaId, InstalledSa], counters: dict[SaId, SaCounters]
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
                SaPlacement(
                    sa_id=sa.sa_id,
                    engine=installed.placement,
                    reason=installed.placement_reason,
                    refusals=installed.refusals,
                )
            )
            counts = counters.get(sa.sa_id)
            counted.append((0, 0) if counts is None else (counts.packets, counts.bytes))
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
            datapath=self._upkeep.link.capabilities,
            datapath_problem=self._upkeep.link.problem,
            connections=len(self._desired),
            ike_sas=sum(is_serving(sa) for sa in ike_sas),
            half_open_ike_sas=sum(sa.established_at is None and not sa.is_initiator for sa in ike_sas),
            child_sas=sum(is_carrying(sa) for sa in self._core.child_sas()),
            ike_drops=dict(self._drops),
            datapath_drops=await self._datapath_drops(),
            warnings=tuple(
                f"policy {name}: {why}" for name, why in sorted(self._protection.problems.items())
            ),
            node=self._options.node,
            desired_state=self._options.desired_state,
            generation=self._desired.generation,
        )

    def tally(self) -> Tally:
        """Return what was lived through so far, in numbers."""
        return self._tally.copy()

    async def _datapath_drops(self) -> dict[DropReason, int]:
        """Return what the datapath dropped, as far as it answers."""
        if self._upkeep.link.capabilities is None:
            return {}
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                counters = await self._datapath.counters()
        except (DatapathError, TimeoutError) as error:
            _log.debug("counters_not_read", error=str(error))
            return {}
        drops = Counter(counters.drops)
        drops.update(self._tally.drops_of_removed)
        for counted in counters.sas:
            drops.update(counted.drops)
        return dict(drops)

    async def explain(self, connection: str) -> tuple[Fact, ...]:
        """Return why a connection is (not) up, and where its SAs landed."""
        configured = self._connection_of(Target(connection=connection))
        child_sas = [sa for sa in await self.child_sas() if sa.info.connection == connection]
        status = self.connection(connection)
        if status is None:  # deleted while the datapath was asked
            return ()
        return explain_connection(
            status=status,
            ike_sas=self._core.sas_of(connection)[0],
            child_sas=child_sas,
            datapath_problem=self._upkeep.link.problem,
            policy_problems=self._protection.problems_of(connection),
            next_attempt_in_s=self._connections.next_attempt_in_s(connection),
            resolved={n: self._connections.resolved(n) for n in configured.remote.names},
            cpus=0 if self._upkeep.link.capabilities is None else self._upkeep.link.capabilities.cpus,
            now=self._clock(),
        )

    def export_keys(self, connection: str) -> KeyTables:
        """Return the keys of a connection's SAs; see `ControlFacade.export_keys`."""
        if not self._options.allows_key_export:
            raise ControlError(
                ControlErrorReason.KEY_EXPORT_OFF,
                "this controller tells no keys: start it with --allow-key-export, for debugging only",
            )
        return export_keys(self._core, self._connection_of(Target(connection=connection)).name)

    def watch(self, after_sequence: int | None = None) -> Watch[ControlEvent]:
        """Return a stream of events; see `ControlFacade.watch`."""
        return self._history.watch(after_sequence)


_GONE = frozenset(
    state.value for state in (ChildSaState.REKEYED, ChildSaState.DELETING, ChildSaState.DELETED)
)


def _is_there(child_sa: ChildSaInfo) -> bool:
    return child_sa.state not in _GONE
