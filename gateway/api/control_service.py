"""The control service: convert, call any `ControlFacade`, convert."""

# ruff: noqa: ARG002, N802 - the names of the methods are the .proto's, their parameters gRPC's

from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc.aio

from gateway.api import convert_control as convert
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1.control_pb2_grpc import ControlServiceServicer
from gateway.api.convert import read_duration, required
from gateway.api.convert_connection import read_connections
from gateway.api.violations import Violations
from gateway.api.watch import watch
from gateway.controller.facade import ControlError, ControlErrorReason, ControlEvent, ControlFacade, Target

MAX_WAIT_S: Final = 60.0

# What a context carries differs from method to method, and nothing here reads it.
Context = grpc.aio.ServicerContext[Any, Any]


class ControlService(ControlServiceServicer):
    """Offers one controller; the caller keeps owning it."""

    def __init__(self, controller: ControlFacade) -> None:
        self._controller = controller

    async def ApplyConnections(
        self, request: pb.ApplyConnectionsRequest, context: Context
    ) -> pb.ApplyConnectionsResponse:
        """Create or update connections."""
        wanted = read_connections(request.connections)
        results = await self._controller.apply(
            wanted, validate_only=request.validate_only, prune=request.prune
        )
        return pb.ApplyConnectionsResponse(results=convert.write_apply_results(results, wanted))

    async def ListConnections(
        self, request: pb.ListConnectionsRequest, context: Context
    ) -> pb.ListConnectionsResponse:
        """List every connection."""
        clock = self._controller.clock()
        entries = [convert.write_entry(status, clock) for status in self._controller.connections()]
        return pb.ListConnectionsResponse(connections=entries)

    async def GetConnection(
        self, request: pb.GetConnectionRequest, context: Context
    ) -> pb.GetConnectionResponse:
        """Answer one connection."""
        violations = Violations()
        required(request.name, "name", "the name of a connection", violations)
        violations.raise_if_any()
        for status in self._controller.connections():
            if status.connection.name == request.name:
                return pb.GetConnectionResponse(
                    connection=convert.write_entry(status, self._controller.clock())
                )
        raise ControlError(
            ControlErrorReason.CONNECTION_NOT_FOUND,
            f"there is no connection '{request.name}'; `ipsecgw list connections` shows those there are",
        )

    async def DeleteConnections(
        self, request: pb.DeleteConnectionsRequest, context: Context
    ) -> pb.DeleteConnectionsResponse:
        """Terminate and forget connections."""
        results = await self._controller.delete(list(request.names))
        return pb.DeleteConnectionsResponse(results=convert.write_apply_results(results, ()))

    async def Initiate(self, request: pb.InitiateRequest, context: Context) -> pb.InitiateResponse:
        """Begin to bring something up."""
        target = _target(request.target, sa_ids=False)
        operation = await self._controller.initiate(target, request_id=request.request_id)
        return pb.InitiateResponse(operation=convert.write_operation(operation))

    async def Terminate(self, request: pb.TerminateRequest, context: Context) -> pb.TerminateResponse:
        """Begin to take something down."""
        target = _target(request.target, sa_ids=True)
        operation = await self._controller.terminate(target, request_id=request.request_id)
        return pb.TerminateResponse(operation=convert.write_operation(operation))

    async def Rekey(self, request: pb.RekeyRequest, context: Context) -> pb.RekeyResponse:
        """Begin to rekey something."""
        target = _target(request.target, sa_ids=True)
        if request.reauthenticate and (target.child or target.child_sa_id is not None):
            violations = Violations()
            violations.add("reauthenticate", "is for a connection or an IKE SA; leave the child out")
            violations.raise_if_any()
        operation = await self._controller.rekey(
            target, reauthenticate=request.reauthenticate, request_id=request.request_id
        )
        return pb.RekeyResponse(operation=convert.write_operation(operation))

    async def GetOperation(
        self, request: pb.GetOperationRequest, context: Context
    ) -> pb.GetOperationResponse:
        """Answer how far an operation is."""
        violations = Violations()
        required(request.operation_id, "operation_id", "as Initiate and the like answer it", violations)
        wait_s = read_duration(request.wait, "wait", violations)
        if wait_s > MAX_WAIT_S:
            violations.add("wait", f"{wait_s:g}s is more than {MAX_WAIT_S:g}s; ask again instead")
        violations.raise_if_any()
        operation = await self._controller.operation(request.operation_id, wait_s=wait_s)
        return pb.GetOperationResponse(operation=convert.write_operation(operation))

    async def ListIkeSas(self, request: pb.ListIkeSasRequest, context: Context) -> pb.ListIkeSasResponse:
        """List IKE SAs."""
        clock = self._controller.clock()
        ike_sas = [
            convert.write_ike_sa(info, clock)
            for info in self._controller.ike_sas()
            if request.connection in ("", info.connection)
        ]
        return pb.ListIkeSasResponse(ike_sas=ike_sas)

    async def ListChildSas(
        self, request: pb.ListChildSasRequest, context: Context
    ) -> pb.ListChildSasResponse:
        """List Child SAs."""
        statuses = await self._controller.child_sas()
        clock = self._controller.clock()
        child_sas = [
            convert.write_child_sa(status, clock)
            for status in statuses
            if request.connection in ("", status.info.connection)
        ]
        return pb.ListChildSasResponse(child_sas=child_sas)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """Answer the controller at a glance."""
        return convert.write_status(await self._controller.status())

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        """Answer what there is to know about a connection."""
        violations = Violations()
        required(request.connection, "connection", "the name of a connection", violations)
        violations.raise_if_any()
        facts = await self._controller.explain(request.connection)
        return pb.ExplainResponse(facts=convert.write_facts(facts))

    def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchEventsResponse, None]:
        """Stream events, after one empty message that says that none will be missed from now on."""
        after = request.after_sequence if request.HasField("after_sequence") else None

        def write(event: ControlEvent) -> pb.WatchEventsResponse:
            return pb.WatchEventsResponse(event=convert.write_event(event, self._controller.clock()))

        return watch(self._controller.watch(after), pb.WatchEventsResponse(), write)


def _target(message: pb.Target, *, sa_ids: bool) -> Target:
    violations = Violations()
    target = convert.read_target(message, violations, sa_ids=sa_ids)
    violations.raise_if_any()
    return target
