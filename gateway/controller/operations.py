"""Operations: what was asked for and takes a few round trips, followed by the core's events to its end."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from gateway.controller.facade import ControlError, ControlErrorReason, Operation, OperationState, Target
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaId,
    ChildSaRekeyed,
    Event,
    Failure,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaId,
    IkeSaRekeyed,
)

#: An operation that has not ended by then failed: longer than all retransmissions of two exchanges.
OPERATION_TIMEOUT_S = 180.0
#: Operations, and request ids, that are remembered.
KEPT_OPERATIONS = 1024


class _Goal:
    """What an operation still waits for, and what its failure is."""

    def __init__(
        self,
        *,
        children: Iterable[tuple[str, str]] = (),
        gone_ike: Iterable[IkeSaId] = (),
        gone_children: Iterable[ChildSaId] = (),
        rekeyed_ike: Iterable[IkeSaId] = (),
        rekeyed_children: Iterable[ChildSaId] = (),
        reauthenticated: Mapping[IkeSaId, str] = MappingProxyType({}),
    ) -> None:
        self.children = set(children)
        self.gone_ike = set(gone_ike)
        self.gone_children = set(gone_children)
        self.rekeyed_ike = set(rekeyed_ike)
        self.rekeyed_children = set(rekeyed_children)
        self.reauthenticated = dict(reauthenticated)

    @property
    def is_reached(self) -> bool:
        return not (
            self.children
            or self.gone_ike
            or self.gone_children
            or self.rekeyed_ike
            or self.rekeyed_children
            or self.reauthenticated
        )

    def observe(self, event: Event) -> Failure | None:
        """Take note of an event; return the failure if it makes the goal impossible."""
        match event:
            case ChildSaEstablished(child_sa=child_sa):
                self.children.discard((child_sa.connection, child_sa.child))
            case IkeSaEstablished(ike_sa=ike_sa):
                self.children.discard((ike_sa.connection, ""))
            case ChildSaFailed(connection=connection, child=child, failure=failure, replaces=replaces):
                if replaces is None:
                    return failure if (connection, child) in self.children else None
                return failure if replaces in self.rekeyed_children else None
            case ChildSaRekeyed(old=old):
                self.rekeyed_children.discard(old.child_sa_id)
                self.gone_children.discard(old.child_sa_id)
            case ChildSaDeleted(child_sa=child_sa, failure=failure):
                self.gone_children.discard(child_sa.child_sa_id)
                return failure if child_sa.child_sa_id in self.rekeyed_children else None
            case IkeSaRekeyed(old=old, new=new):
                self.rekeyed_ike.discard(old.ike_sa_id)
                if old.ike_sa_id in self.gone_ike:
                    self.gone_ike = {*self.gone_ike, new.ike_sa_id} - {old.ike_sa_id}
                if self.reauthenticated.pop(old.ike_sa_id, None) is not None:
                    self.reauthenticated[new.ike_sa_id] = new.connection
            case IkeSaFailed(ike_sa=ike_sa, failure=failure):
                self.gone_ike.discard(ike_sa.ike_sa_id)
                if ike_sa.is_initiator and any(name == ike_sa.connection for name, _ in self.children):
                    return failure
                if ike_sa.is_initiator and ike_sa.connection in self.reauthenticated.values():
                    return failure
            case IkeSaDeleted(ike_sa=ike_sa, failure=failure):
                self.gone_ike.discard(ike_sa.ike_sa_id)
                if failure.reason is FailureReason.REPLACED:
                    self.reauthenticated.pop(ike_sa.ike_sa_id, None)
                is_lost = ike_sa.ike_sa_id in self.rekeyed_ike or ike_sa.ike_sa_id in self.reauthenticated
                return failure if is_lost else None
            case _:
                pass
        return None


class Operations:
    """Every operation of this controller that is not forgotten yet.

    Args:
        finished: Called once for each operation that ends.
    """

    def __init__(self, finished: Callable[[Operation], None]) -> None:
        self._finished = finished
        self._operations: OrderedDict[str, Operation] = OrderedDict()
        self._by_request_id: OrderedDict[str, str] = OrderedDict()
        self._goals: dict[str, _Goal] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._count = 0

    def repeated(self, verb: str, target: Target, request_id: str) -> Operation | None:
        """Return the operation that this request id started before; None for a new or empty one.

        Raises:
            ControlError: REQUEST_ID_REUSED, it started something else.
        """
        operation_id = self._by_request_id.get(request_id)
        operation = self._operations.get(operation_id) if operation_id is not None else None
        if operation is None:
            return None
        if (operation.verb, operation.target) != (verb, target):
            raise ControlError(
                ControlErrorReason.REQUEST_ID_REUSED,
                f"request id {request_id!r} already asked to {operation.verb} something else; use a new one",
            )
        return operation

    def begin(
        self,
        verb: str,
        target: Target,
        request_id: str,
        *,
        children: Iterable[tuple[str, str]] = (),
        gone_ike: Iterable[IkeSaId] = (),
        gone_children: Iterable[ChildSaId] = (),
        rekeyed_ike: Iterable[IkeSaId] = (),
        rekeyed_children: Iterable[ChildSaId] = (),
        reauthenticated: Mapping[IkeSaId, str] = MappingProxyType({}),
    ) -> Operation:
        """Begin an operation that succeeds when everything named has come about; with nothing named, now."""
        self._count += 1
        operation = Operation(
            operation_id=f"op-{self._count}", verb=verb, target=target, state=OperationState.RUNNING
        )
        self._operations[operation.operation_id] = operation
        if request_id:
            self._by_request_id[request_id] = operation.operation_id
        self._goals[operation.operation_id] = _Goal(
            children=children,
            gone_ike=gone_ike,
            gone_children=gone_children,
            rekeyed_ike=rekeyed_ike,
            rekeyed_children=rekeyed_children,
            reauthenticated=reauthenticated,
        )
        self._ends[operation.operation_id] = asyncio.Event()
        self._timers[operation.operation_id] = asyncio.get_running_loop().call_later(
            OPERATION_TIMEOUT_S, self._time_out, operation.operation_id
        )
        self._check(operation.operation_id)
        self._trim()
        return self._operations[operation.operation_id]

    def observe(self, event: Event) -> None:
        """Take note of an event of the core."""
        for operation_id, goal in tuple(self._goals.items()):
            failure = goal.observe(event)
            if failure is not None:
                self._end(operation_id, failure)
            else:
                self._check(operation_id)

    def fail(self, operation_id: str, failure: Failure) -> Operation:
        """End an operation as failed, if it still runs."""
        if operation_id in self._goals:
            self._end(operation_id, failure)
        return self._operations[operation_id]

    async def wait(self, operation_id: str, wait_s: float) -> Operation:
        """Return an operation, after waiting for its end up to `wait_s`.

        Raises:
            ControlError: OPERATION_NOT_FOUND.
        """
        if operation_id not in self._operations:
            raise ControlError(
                ControlErrorReason.OPERATION_NOT_FOUND,
                f"no operation {operation_id!r}; the last {KEPT_OPERATIONS} are kept, until a restart",
            )
        end = self._ends.get(operation_id)
        if end is not None and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await end.wait()
            except TimeoutError:
                pass
        return self._operations[operation_id]

    def close(self) -> None:
        """Fail whatever still runs: the controller shuts down."""
        for operation_id in tuple(self._goals):
            self._end(
                operation_id,
                Failure(reason=FailureReason.DELETED_BY_OPERATOR, detail="the controller is shutting down"),
            )

    def _check(self, operation_id: str) -> None:
        if self._goals[operation_id].is_reached:
            self._end(operation_id, None)

    def _time_out(self, operation_id: str) -> None:
        if operation_id in self._goals:
            detail = f"not done after {OPERATION_TIMEOUT_S:.0f} seconds"
            self._end(operation_id, Failure(reason=FailureReason.TIMEOUT, detail=detail))

    def _end(self, operation_id: str, failure: Failure | None) -> None:
        state = OperationState.SUCCEEDED if failure is None else OperationState.FAILED
        ended = replace(self._operations[operation_id], state=state, failure=failure)
        self._operations[operation_id] = ended
        del self._goals[operation_id]
        self._timers.pop(operation_id).cancel()
        self._ends.pop(operation_id).set()
        self._finished(ended)

    def _trim(self) -> None:
        while len(self._operations) > KEPT_OPERATIONS:
            oldest = next((key for key in self._operations if key not in self._goals), None)
            if oldest is None:
                break
            del self._operations[oldest]
        while len(self._by_request_id) > KEPT_OPERATIONS:
            self._by_request_id.popitem(last=False)
