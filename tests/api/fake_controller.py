"""A controller without IKE: it keeps what it is told and answers what the test put there."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address

from gateway.controller.desired import DesiredState
from gateway.controller.facade import (
    NO_ETAGS,
    NO_IMPACT,
    Applied,
    ApplyResult,
    ChildSaStatus,
    ClockReading,
    Condition,
    ConditionStatus,
    ConditionType,
    ConnectionState,
    ConnectionStatus,
    ControlError,
    ControlErrorReason,
    ControlEvent,
    Fact,
    GatewayStatus,
    Impact,
    KeyTables,
    Operation,
    OperationState,
    SaPlacement,
    Target,
    Tenure,
    WantedConnection,
    WatchedEvent,
)
from gateway.controller.ledger import Ledger
from gateway.controller.tally import Tally
from gateway.ike.events import ChildSaId, ChildSaInfo, Failure, FailureReason, IkeSaId, IkeSaInfo
from gateway.ike.path import Path
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

NOW = ClockReading(monotonic=1000.0, wall=1_800_000_000.0)
SA_KEY = b"an SA's key that no answer has!!"
FAILURE = Failure(
    reason=FailureReason.NO_PROPOSAL_CHOSEN,
    detail="the peer takes none of our proposals",
    notify="NO_PROPOSAL_CHOSEN",
    offered="aes256gcm16-prfsha384-x25519",
    configured="aes128-sha256-modp2048",
)
IKE_SA = IkeSaInfo(
    ike_sa_id=IkeSaId(7),
    connection="paris-tokyo",
    spi_i=bytes.fromhex("0102030405060708"),
    spi_r=bytes.fromhex("1112131415161718"),
    is_initiator=True,
    state="established",
    path=Path(ip_address("192.0.2.1"), 4500, ip_address("192.0.2.2"), 40123),
    local_id=parse_identity("gw-paris.example"),
    remote_id=parse_identity("192.0.2.2"),
    proposal=parse_proposal("aes256gcm16-prfsha384-x25519", ProtocolId.IKE),
    nat_local=False,
    nat_remote=True,
    began_at=899.5,
    established_at=900.0,
    rekey_at=4600.0,
    expires_at=None,
)


def _sa(direction: Direction, spi: int) -> SecurityAssociation:
    inbound = direction is Direction.INBOUND
    return SecurityAssociation(
        spi=Spi(spi),
        direction=direction,
        source=ip_address("192.0.2.2" if inbound else "192.0.2.1"),
        destination=ip_address("192.0.2.1" if inbound else "192.0.2.2"),
        encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500),
        encryption=Encr.AES_GCM_16,
        encryption_key=Secret(SA_KEY),
        key_bits=256,
        local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
        remote_ts=(TrafficSelector.parse("10.2.0.0/16"),),
    )


IMPACT = Impact(child_sa_rekeys=1)
CONDITION = Condition(
    type=ConditionType.ESTABLISHED,
    status=ConditionStatus.FALSE,
    reason="no_proposal_chosen",
    message="the peer takes none of our proposals",
    changed_at=990.0,
)
TENURE = Tenure(node="gw-1", owner="gw-1", generation=17)
NO_ENGINE = PlacementRefusal(engine=Engine.ENGINE, reason=PlacementReason.NO_BACKEND, text="no engine here")
CHILD_SA = ChildSaInfo(
    child_sa_id=ChildSaId(9),
    ike_sa_id=IkeSaId(7),
    connection="paris-tokyo",
    child="lan",
    state="installed",
    inbound=_sa(Direction.INBOUND, 0x1001),
    outbound=_sa(Direction.OUTBOUND, 0xC0FFEE01),
    proposal=parse_proposal("aes256gcm16-x25519", ProtocolId.ESP),
    local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
    remote_ts=(TrafficSelector.parse("10.2.0.0/16[tcp/443]"),),
    established_at=900.0,
    rekey_at=4500.0,
    expires_at=4860.0,
)


class FakeController:
    """A `ControlFacade` in memory.

    Attributes:
        wanted: What was applied, by name.
        calls: Verb and target of every operation that was really started.
        first_kept: Sequence number of the first event that history still has.
    """

    def __init__(self) -> None:
        self.wanted: dict[str, WantedConnection] = {}
        self.desired = DesiredState()
        self._ledger = Ledger("life", lambda: NOW.monotonic)
        self.calls: list[tuple[str, Target]] = []
        self.first_kept = 1
        self.status_answer = GatewayStatus(
            version="0.1.0",
            started_at=NOW.wall - 60,
            datapath_address="unix:/run/ipsecgw/datapath.sock",
            datapath=None,
            datapath_problem="no datapath agent",
            connections=1,
            ike_sas=2,
            half_open_ike_sas=3,
            child_sas=4,
            ike_drops={DropReason.IKE_COOKIE: 5},
            warnings=("look",),
        )
        self._operations: dict[str, Operation] = {}
        self._requests: dict[str, str] = {}
        self._finished = asyncio.Event()
        self._history: list[ControlEvent] = []
        self._watchers: list[asyncio.Queue[ControlEvent | ControlError]] = []

    # --- for tests

    def emit(self, event: WatchedEvent) -> None:
        happened = ControlEvent(sequence=len(self._history) + 1, at=NOW.wall, event=event)
        self._history.append(happened)
        for watcher in self._watchers:
            watcher.put_nowait(happened)

    def cut_off(self, error: ControlError) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(error)

    def finish(self, operation_id: str, failure: Failure | None = None) -> None:
        running = self._operations[operation_id]
        state = OperationState.SUCCEEDED if failure is None else OperationState.FAILED
        self._operations[operation_id] = Operation(
            operation_id=operation_id,
            verb=running.verb,
            target=running.target,
            state=state,
            failure=failure,
        )
        self._finished.set()

    # --- ControlFacade

    def clock(self) -> ClockReading:
        return NOW

    async def apply(
        self,
        wanted: Sequence[WantedConnection],
        *,
        validate_only: bool = False,
        prune: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> tuple[ApplyResult, ...]:
        self.desired.check_generation(generation)
        self.desired.check_etags(etags)
        before = dict(self.wanted)
        results = [self._apply(item, validate_only=validate_only) for item in wanted]
        gone = set(before) - {item.connection.name for item in wanted} if prune else set()
        results += [ApplyResult(name=name, applied=Applied.DELETED) for name in sorted(gone)]
        if validate_only:
            self.wanted = before
        else:
            self.desired.generation = max(generation, self.desired.generation)
            self._remove(gone)
        return tuple(results)

    def _apply(self, item: WantedConnection, *, validate_only: bool) -> ApplyResult:
        name = item.connection.name
        held = self.wanted.get(name)
        if item.psk is None:
            if held is None:
                error = ControlError(ControlErrorReason.NO_PSK, f"no PSK is held for '{name}'")
                return ApplyResult(name=name, applied=Applied.REFUSED, error=error)
            item = WantedConnection(connection=item.connection, psk=held.psk)
        applied = Applied.UPDATED if held else Applied.CREATED
        if held is not None and (item.connection, item.psk) == (held.connection, held.psk):
            applied = Applied.UNCHANGED
        else:
            self.wanted[name] = item
            if not validate_only:
                self.desired.put(self.desired.successor(item.connection))
                self._ledger.touch(name)
        impact, fields = (IMPACT, ("credentials",)) if applied is Applied.UPDATED else (NO_IMPACT, ())
        return ApplyResult(
            name=name, applied=applied, impact=impact, changed_fields=fields, etag=self.etag(name)
        )

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            del self.wanted[name]
            self.desired.remove(name)
            self._ledger.remove(name)

    def connections(self) -> tuple[ConnectionStatus, ...]:
        return tuple(status for name in self.names() if (status := self.connection(name)) is not None)

    def connection(self, name: str) -> ConnectionStatus | None:
        item, desired = self.wanted.get(name), self.desired.get(name)
        if item is None or desired is None:
            return None
        return ConnectionStatus(
            connection=item.connection,
            psk_is_set=item.psk is not None,
            state=ConnectionState.FAILED,
            ike_sas=(7,),
            child_sas=(9, 10),
            last_failure=FAILURE,
            last_failure_at=990.0,
            etag=desired.etag,
            generation=desired.generation,
            observed_generation=desired.generation,
            conditions=(CONDITION,),
        )

    def names(self) -> tuple[str, ...]:
        return self.desired.names()

    def etag(self, name: str) -> str:
        desired = self.desired.get(name)
        return "" if desired is None else desired.etag

    def ledger(self) -> Ledger:
        return self._ledger

    def tenure(self) -> Tenure:
        return TENURE

    async def delete(
        self,
        names: Sequence[str],
        *,
        validate_only: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> tuple[ApplyResult, ...]:
        self.desired.check_generation(generation)
        self.desired.check_etags(etags)
        there = [name for name in dict.fromkeys(names) if name in self.wanted]
        if not validate_only:
            self._remove(there)
        return tuple(
            ApplyResult(name=name, applied=Applied.DELETED if name in there else Applied.UNCHANGED)
            for name in names
        )

    async def initiate(self, target: Target, *, request_id: str = "") -> Operation:
        return self._start("initiate", target, request_id)

    async def terminate(self, target: Target, *, request_id: str = "") -> Operation:
        return self._start("terminate", target, request_id)

    async def rekey(self, target: Target, *, reauthenticate: bool = False, request_id: str = "") -> Operation:
        return self._start("reauthenticate" if reauthenticate else "rekey", target, request_id)

    def _start(self, verb: str, target: Target, request_id: str) -> Operation:
        if request_id in self._requests:
            known = self._operations[self._requests[request_id]]
            if (known.verb, known.target) != (verb, target):
                raise ControlError(
                    ControlErrorReason.REQUEST_ID_REUSED, f"request_id {request_id} was for something else"
                )
            return known
        if target.connection and target.connection not in self.wanted:
            raise ControlError(
                ControlErrorReason.CONNECTION_NOT_FOUND, f"no connection '{target.connection}'"
            )
        operation = Operation(
            operation_id=f"op-{len(self.calls) + 1}", verb=verb, target=target, state=OperationState.RUNNING
        )
        self.calls.append((verb, target))
        self._operations[operation.operation_id] = operation
        if request_id:
            self._requests[request_id] = operation.operation_id
        return operation

    async def operation(self, operation_id: str, *, wait_s: float = 0.0) -> Operation:
        if operation_id not in self._operations:
            raise ControlError(ControlErrorReason.OPERATION_NOT_FOUND, f"no operation '{operation_id}'")
        if wait_s and self._operations[operation_id].state is OperationState.RUNNING:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), wait_s)
        return self._operations[operation_id]

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        return (IKE_SA,)

    async def child_sas(self) -> tuple[ChildSaStatus, ...]:
        assert CHILD_SA.inbound is not None
        return (
            ChildSaStatus(
                info=CHILD_SA,
                inbound=SaPlacement(
                    sa_id=CHILD_SA.inbound.sa_id,
                    engine=Engine.SOFTWARE,
                    reason="no engine here",
                    refusals=(NO_ENGINE,),
                ),
                packets_in=1,
                packets_out=2,
                bytes_in=3,
                bytes_out=4,
                effective_mtu=1394,
            ),
        )

    async def status(self) -> GatewayStatus:
        return self.status_answer

    def tally(self) -> Tally:
        return Tally()

    async def explain(self, connection: str) -> tuple[Fact, ...]:
        if connection not in self.wanted:
            raise ControlError(ControlErrorReason.CONNECTION_NOT_FOUND, f"no connection '{connection}'")
        return (Fact(topic="state", text="down", advice="ipsecgw up"), Fact(topic="peer", text="192.0.2.2"))

    def export_keys(self, connection: str) -> KeyTables:
        if connection not in self.wanted:
            raise ControlError(ControlErrorReason.CONNECTION_NOT_FOUND, f"no connection '{connection}'")
        return KeyTables(ike_sas=(Secret(b"ike row"),), esp_sas=(Secret(b"esp row"),), left_out=("AH",))

    def watch(self, after_sequence: int | None = None) -> AsyncGenerator[ControlEvent, None]:
        queue: asyncio.Queue[ControlEvent | ControlError] = asyncio.Queue()
        if after_sequence is not None:
            if after_sequence + 1 < self.first_kept:
                raise ControlError(
                    ControlErrorReason.HISTORY_LOST, f"history begins with event {self.first_kept}"
                )
            for happened in self._history[after_sequence:]:
                queue.put_nowait(happened)
        self._watchers.append(queue)
        return self._watch(queue)

    async def _watch(
        self, queue: asyncio.Queue[ControlEvent | ControlError]
    ) -> AsyncGenerator[ControlEvent, None]:
        try:
            while True:
                happened = await queue.get()
                if isinstance(happened, ControlError):
                    raise happened
                yield happened
        finally:
            self._watchers.remove(queue)
