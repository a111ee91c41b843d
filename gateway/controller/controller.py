"""The controller: one IKEv2 core, its sockets and its datapath, behind the facade the API calls.

It wires the rooms of this package and answers for them; what happens between core and datapath is in
`sa_binding` (requests) and `sa_upkeep` (everything else), what is wanted is in `connections`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.controller.connections import ChildKey, Connections, RetryTiming
from gateway.controller.core import Core
from gateway.controller.credentials import Credentials
from gateway.controller.datapath_link import CALL_TIMEOUT_S
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
from gateway.controller.policies import conflicts
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
from gateway.ipsec.authentication import AuthMethod
from gateway.ipsec.connection import Connection
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)


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
        make_transport: TransportFactory = UdpTransport,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._clock = asyncio.get_running_loop().time
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._options = options
        self._datapath = datapath
        self._key_log = key_log
        self._wanted: dict[str, Connection] = {}
        self._drops: Counter[DropReason] = Counter()
        self._tally = Tally()
        self._stopping = False

        self._history = History(wall_clock)
        self._operations = Operations(lambda ended: self._history.record(OperationFinished(operation=ended)))
        self._credentials = Credentials(wall_clock)
        self._protection = Protection(datapath, source_address)
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
            configured=self._wanted.values,
            obtain_ports=obtain_ports,
            wall_clock=wall_clock,
        )

    # --- life -----------------------------------------------------------------------------------

    async def start(self, wanted: Sequence[WantedConnection] = ()) -> tuple[ApplyResult, ...]:
        """Take the first configuration and begin to look for the datapath."""
        results = await self.apply(wanted)
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
                if not isinstance(event, IkeSaFailed) or not self._is_trying_on(event.ike_sa):
                    self._operations.observe(event)
                self._upkeep.on_event(event)

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
        self, wanted: Sequence[WantedConnection], *, validate_only: bool = False, prune: bool = False
    ) -> tuple[ApplyResult, ...]:
        """Create or update connections; see `ControlFacade.apply`."""
        if self._stopping:
            raise ControlError(ControlErrorReason.SHUTTING_DOWN, "the controller is shutting down")
        async with self._upkeep.changing:
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
        held = self._credentials
        is_same = (
            self._wanted[name] == item.connection
            and (item.psk is None or held.is_psk(name, item.psk))
            and (item.crls is None or held.are_crls(name, item.crls))
        )
        # Private keys are known by their public halves, which are part of the connection.
        return Applied.UNCHANGED if is_same else Applied.UPDATED

    def _refusals(self, wanted: Sequence[WantedConnection], *, prune: bool) -> dict[str, ControlError]:
        refused: dict[str, ControlError] = {}
        future = {} if prune else dict(self._wanted)
        for item in wanted:
            name = item.connection.name
            missing = self._missing_credential(item)
            if missing is not None:
                refused[name] = missing
            future[name] = item.connection
        for name, why in conflicts(future).items():
            if any(item.connection.name == name for item in wanted):
                refused.setdefault(name, ControlError(ControlErrorReason.CONFLICT, why))
        return refused

    def _missing_credential(self, item: WantedConnection) -> ControlError | None:
        """Return what is wrong with what a connection says to keep."""
        connection, held = item.connection, self._credentials
        methods = (connection.local.auth.method, connection.remote.auth.method)
        if AuthMethod.PSK in methods and item.psk is None and not held.has_psk(connection.name):
            return ControlError(
                ControlErrorReason.NO_PSK,
                f"connection {connection.name} says to keep its pre-shared key, but none is held: give one",
            )
        if item.private_keys is None and not held.can_sign(connection):
            return ControlError(
                ControlErrorReason.NO_CREDENTIAL,
                f"connection {connection.name} says to keep its private key, but none is held that fits",
            )
        if item.crls is None and not held.has_crls(connection.name):
            return ControlError(
                ControlErrorReason.NO_CREDENTIAL,
                f"connection {connection.name} says to keep its CRLs, but none is held: give them",
            )
        return None

    async def _protect(self, accepted: dict[str, WantedConnection]) -> dict[str, ControlError]:
        """Put the policies of what is about to be configured in force; return what the datapath refuses."""
        if self._upkeep.link.capabilities is None:
            return {}
        changed = {
            policy.name: policy
            for policy in self._protection.changes(item.connection for item in accepted.values())
        }
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                refused = await self._protection.put_in_force(tuple(changed.values()))
                # A connection is taken whole or not at all: what it had before must not lose its protection.
                halves = {changed[name].connection for name in refused}
                await self._protection.put_back(
                    [policy for policy in changed.values() if policy.connection in halves]
                )
        except (DatapathError, TimeoutError) as error:
            # It is done when the datapath is met again, before anything else.
            _log.warning("policies_not_applied_yet", policies=sorted(changed), error=str(error))
            return {}
        return {
            changed[name].connection: ControlError(
                ControlErrorReason.DATAPATH_REFUSED, f"policy {name}: {error}"
            )
            for name, error in refused.items()
        }

    async def _commit(self, accepted: dict[str, WantedConnection], doomed: Sequence[str]) -> None:
        with_new_crls = [
            name
            for name, item in accepted.items()
            if item.crls is not None and not self._credentials.are_crls(name, item.crls)
        ]
        for name, item in accepted.items():
            self._wanted[name] = item.connection
            self._credentials.configure(item.connection, item.private_keys, item.crls)
            if item.psk is not None:
                self._credentials.set_psk(name, item.psk)
        for name in doomed:
            del self._wanted[name]
        self._core.command(lambda endpoint, now: endpoint.configure(self._wanted.values(), now))
        self._review_trust(with_new_crls)
        self._connections.configure(self._wanted.values())
        for name in doomed:
            self._credentials.forget(name)
        self._protection.configure(self._wanted.values())
        if doomed:
            self._tally.keep_only(self._wanted)
        if self._upkeep.link.capabilities is not None:
            await self._protection.withdraw()
            self._connections.begin()

    def _review_trust(self, connections: Sequence[str]) -> None:
        """Cut off peers whose certificates are revoked by now."""
        for ike_sa in self.ike_sas() if connections else ():
            if ike_sa.connection in connections and self._credentials.may_be_revoked(
                ike_sa.connection, ike_sa.remote_certificates
            ):
                self._core.review_trust(ike_sa.ike_sa_id)

    async def delete(self, names: Sequence[str]) -> tuple[ApplyResult, ...]:
        """Terminate and forget connections."""
        async with self._upkeep.changing:
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
        child_sas = self._core.child_sas()
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
            crls_are_set=self._credentials.has_crls(connection.name),
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
        if not connection.remote.is_known:
            raise ControlError(
                ControlErrorReason.NO_REMOTE_ADDRESS,
                f"connection {connection.name} has no remote address: it only responds",
            )
        if not await self._upkeep.link.is_met(self._options.patience_s):
            raise ControlError(ControlErrorReason.DATAPATH_UNAVAILABLE, self._upkeep.link.problem)
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
            connections=len(self._wanted),
            ike_sas=sum(is_serving(sa) for sa in ike_sas),
            half_open_ike_sas=sum(sa.established_at is None and not sa.is_initiator for sa in ike_sas),
            child_sas=sum(is_carrying(sa) for sa in self._core.child_sas()),
            ike_drops=dict(self._drops),
            datapath_drops=await self._datapath_drops(),
            warnings=tuple(
                f"policy {name}: {why}" for name, why in sorted(self._protection.problems.items())
            ),
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
        return explain_connection(
            status=self._status_of(configured),
            ike_sas=[sa for sa in self.ike_sas() if sa.connection == connection],
            child_sas=child_sas,
            datapath_problem=self._upkeep.link.problem,
            policy_problems={
                name: why
                for name, why in self._protection.problems.items()
                if name.partition("/")[0] == connection
            },
            next_attempt_in_s=self._connections.next_attempt_in_s(connection),
            resolved={n: self._connections.resolved(n) for n in configured.remote.names},
            now=self._clock(),
        )

    def watch(self, after_sequence: int | None = None) -> Watch[ControlEvent]:
        """Return a stream of events; see `ControlFacade.watch`."""
        return self._history.watch(after_sequence)


_GONE = frozenset(
    state.value for state in (ChildSaState.REKEYED, ChildSaState.DELETING, ChildSaState.DELETED)
)


def _is_there(child_sa: ChildSaInfo) -> bool:
    return child_sa.state not in _GONE
