"""The control service: convert, call any `ControlFacade`, convert."""

# ruff: noqa: ARG002, N802 - the names of the methods are the .proto's, their parameters gRPC's

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Final

import grpc.aio

from gateway.api import convert_control as convert
from gateway.api.connection_entries import ConnectionEntries
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1.control_pb2_grpc import ControlServiceServicer
from gateway.api.convert import read_duration, required
from gateway.api.known_requests import KnownRequests
from gateway.api.selection import Selection, from_after, masked, read_mask
from gateway.api.violations import Violations, at
from gateway.api.watch import watch
from gateway.controller.facade import (
    NO_ETAGS,
    ApplyResult,
    ControlError,
    ControlErrorReason,
    ControlEvent,
    ControlFacade,
    Target,
    WantedConnection,
)

MAX_WAIT_S: Final = 60.0

# What a context carries differs from method to method, and nothing here reads it.
Context = grpc.aio.ServicerContext[Any, Any]


class ControlService(ControlServiceServicer):
    """Offers one controller; the caller keeps owning it."""

    def __init__(self, controller: ControlFacade, *, keeps_state: bool = False) -> None:
        """Offer a controller.

        Args:
            controller: What is offered.
            keeps_state: Whether it keeps the desired state, for which it needs what was asked for.
        """
        self._controller = controller
        self._entries = ConnectionEntries(controller)
        self._known = KnownRequests(controller.etag, keep_documents=keeps_state)

    async def ApplyConnections(
        self, request: pb.ApplyConnectionsRequest, context: Context
    ) -> pb.ApplyConnectionsResponse:
        """Create or update connections."""
        wanted, results = await self._apply(request, prune=request.prune)
        return pb.ApplyConnectionsResponse(
            results=convert.write_apply_results(results, wanted), impact=convert.write_impact(results)
        )

    async def _apply(
        self,
        request: pb.ApplyConnectionsRequest | pb.StreamConnectionsRequest,
        *,
        prune: bool,
        first: pb.StreamConnectionsRequest | None = None,
    ) -> tuple[tuple[WantedConnection, ...], tuple[ApplyResult, ...]]:
        """Apply one batch; of a stream, `first` says what holds for all of it."""
        said = request if first is None else first
        wanted = self._known.read(request.connections)
        results = await self._controller.apply(
            wanted,
            validate_only=said.validate_only,
            prune=prune,
            generation=said.generation,
            etags=request.etags,
        )
        if not said.validate_only:
            self._known.note(request.connections, wanted, results)
            self._entries.forget([result.name for result in results[len(wanted) :]])
            await self._entries.prepare(wanted, results)
        return wanted, results

    async def StreamConnections(
        self, request_iterator: AsyncIterator[pb.StreamConnectionsRequest], context: Context
    ) -> AsyncGenerator[pb.StreamConnectionsResponse, None]:
        """Create or update connections, request by request; delete others when the last one asks for it."""
        # gRPC tells an orderly end of the requests and a client that is gone alike, so no end means anything.
        first: pb.StreamConnectionsRequest | None = None
        named: set[str] = set()
        is_over = False
        async for request in request_iterator:
            first = first or request
            _check_next(request, named, is_over=is_over)
            wanted, results = await self._apply(request, prune=False, first=first)
            if request.prune:
                is_over = True
                doomed = [name for name in self._controller.names() if name not in named]
                results += await self._delete(doomed, first)
            yield pb.StreamConnectionsResponse(
                results=convert.write_apply_results(results, wanted), impact=convert.write_impact(results)
            )

    async def _delete(
        self, names: Sequence[str], request: pb.DeleteConnectionsRequest | pb.StreamConnectionsRequest
    ) -> tuple[ApplyResult, ...]:
        results = await self._controller.delete(
            names,
            validate_only=request.validate_only,
            generation=request.generation,
            etags=request.etags if isinstance(request, pb.DeleteConnectionsRequest) else NO_ETAGS,
        )
        if not request.validate_only:
            self._known.forget(results)
            self._entries.forget(names)
        return results

    async def ListConnections(
        self, request: pb.ListConnectionsRequest, context: Context
    ) -> pb.ListConnectionsResponse:
        """List connections."""
        selection = Selection(request, pb.ConnectionEntry, "")
        revision = self._entries.revision()
        page = selection.page(
            (name, entry)
            for name in from_after(self._controller.names(), selection.after)
            if (entry := self._entries.entry(name)) is not None
        )
        return pb.ListConnectionsResponse(
            connections=page.items, next_page_token=page.next_token, revision=revision
        )

    async def GetConnection(
        self, request: pb.GetConnectionRequest, context: Context
    ) -> pb.GetConnectionResponse:
        """Answer one connection."""
        violations = Violations()
        required(request.name, "name", "the name of a connection", violations)
        mask = read_mask(request.read_mask, pb.ConnectionEntry.DESCRIPTOR, violations)
        violations.raise_if_any()
        entry = self._entries.entry(request.name)
        if entry is None:
            raise ControlError(
                ControlErrorReason.CONNECTION_NOT_FOUND,
                f"there is no connection '{request.name}'; `ipsecgw list connections` shows those there are",
            )
        return pb.GetConnectionResponse(connection=masked(entry, mask))

    def WatchConnections(
        self, request: pb.WatchConnectionsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchConnectionsResponse, None]:
        """Stream what connections there are and what becomes of them."""
        return self._entries.watch(request)

    async def DeleteConnections(
        self, request: pb.DeleteConnectionsRequest, context: Context
    ) -> pb.DeleteConnectionsResponse:
        """Terminate and forget connections."""
        results = await self._delete(request.names, request)
        return pb.DeleteConnectionsResponse(
            results=convert.write_apply_results(results, ()), impact=convert.write_impact(results)
        )

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
        selection = Selection(request, pb.IkeSa, 0, request.connection)
        clock, tenure = self._controller.clock(), self._controller.tenure()
        page = selection.page(
            (info.ike_sa_id, convert.write_ike_sa(info, clock, tenure))
            for info in self._controller.ike_sas()
            if request.connection in ("", info.connection) and info.ike_sa_id > selection.after
        )
        return pb.ListIkeSasResponse(ike_sas=page.items, next_page_token=page.next_token)

    async def ListChildSas(
        self, request: pb.ListChildSasRequest, context: Context
    ) -> pb.ListChildSasResponse:
        """List Child SAs."""
        selection = Selection(request, pb.ChildSa, 0, request.connection)
        statuses = await self._controller.child_sas()
        clock, tenure = self._controller.clock(), self._controller.tenure()
        page = selection.page(
            (status.info.child_sa_id, convert.write_child_sa(status, clock, tenure))
            for status in statuses
            if request.connection in ("", status.info.connection)
            and status.info.child_sa_id > selection.after
        )
        return pb.ListChildSasResponse(child_sas=page.items, next_page_token=page.next_token)

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

    async def ExportKeys(self, request: pb.ExportKeysRequest, context: Context) -> pb.ExportKeysResponse:
        """Answer the keys of a connection's SAs."""
        violations = Violations()
        required(request.connection, "connection", "the name of a connection", violations)
        violations.raise_if_any()
        tables = self._controller.export_keys(request.connection)
        return pb.ExportKeysResponse(
            ikev2_decryption_table=[row.reveal().decode() for row in tables.ike_sas],
            esp_sa=[row.reveal().decode() for row in tables.esp_sas],
            left_out=tables.left_out,
        )

    def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchEventsResponse, None]:
        """Stream events, after one empty message that says that none will be missed from now on."""
        after = request.after_sequence if request.HasField("after_sequence") else None

        def write(event: ControlEvent) -> pb.WatchEventsResponse:
            message = convert.write_event(event, self._controller.clock(), self._controller.tenure())
            return pb.WatchEventsResponse(event=message)

        return watch(self._controller.watch(after), pb.WatchEventsResponse(), write)


def _target(message: pb.Target, *, sa_ids: bool) -> Target:
    violations = Violations()
    target = convert.read_target(message, violations, sa_ids=sa_ids)
    violations.raise_if_any()
    return target


def _check_next(request: pb.StreamConnectionsRequest, named: set[str], *, is_over: bool) -> None:
    """Refuse what an earlier request of the same stream rules out, and note what this one names."""
    violations = Violations()
    if is_over:
        violations.add("", "an earlier request of this stream said prune, so it was the last one")
    for i, connection in enumerate(request.connections):
        if connection.name in named:
            where = at(at("", "connections", i), "name")
            violations.add(where, f"'{connection.name}' is in an earlier request of this stream")
    violations.raise_if_any()
    named.update(connection.name for connection in request.connections)
