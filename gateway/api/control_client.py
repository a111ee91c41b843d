"""The client of the control service, for the command line and whoever else drives a controller.

Answers are the service's messages; `gateway.api.plain` turns them into JSON. Failures are `ApiError`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from gateway.api.address import Address, TlsFiles, UnixAddress, dial
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1.control_pb2_grpc import ControlServiceStub
from gateway.api.convert import write_duration
from gateway.api.errors import ApiError, api_error
from gateway.controller.facade import NO_ETAGS

R = TypeVar("R")

DEADLINE_S: Final = 30.0
_WAIT_STEP_S: Final = 20.0
_PAGE: Final = 10_000


class ControlClient:
    """Reaches a controller. Construct it inside the running event loop; a context, or to be closed."""

    def __init__(
        self, address: Address, *, tls: TlsFiles | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        self.address = address
        self._deadline_s = deadline_s
        self._channel = dial(address, tls)
        # The generated stub is untyped; every answer gets its type where it is used.
        self._stub: Any = ControlServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection to the service."""
        await self._channel.close()

    # --- connections ---------------------------------------------------------------------------

    async def apply(
        self,
        connections: Iterable[cpb.Connection],
        *,
        validate_only: bool = False,
        prune: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> Sequence[pb.ConnectionResult]:
        """Create or update connections; their PSKs as `value` (see `config_file.load_config`)."""
        request = pb.ApplyConnectionsRequest(
            connections=connections,
            validate_only=validate_only,
            prune=prune,
            generation=generation,
            etags=etags,
        )
        response: pb.ApplyConnectionsResponse = await self._call(self._stub.ApplyConnections, request)
        return response.results

    async def stream(
        self,
        batches: Iterable[Sequence[cpb.Connection]],
        *,
        validate_only: bool = False,
        prune: bool = False,
        generation: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncIterator[pb.StreamConnectionsResponse]:
        """Create or update connections batch by batch, and yield the answer for each.

        With `prune` one more answer tells what was deleted, because no batch named it.
        """
        call = self._stub.StreamConnections(timeout=deadline_s, wait_for_ready=False)

        async def send() -> None:
            for batch in batches:
                await call.write(
                    pb.StreamConnectionsRequest(
                        connections=batch, validate_only=validate_only, generation=generation
                    )
                )
            if prune:
                last = pb.StreamConnectionsRequest(
                    prune=True, validate_only=validate_only, generation=generation
                )
                await call.write(last)
            await call.done_writing()

        sending = asyncio.create_task(send(), name="stream-connections")
        try:
            async for response in call:
                yield response
            await sending
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            call.cancel()

    async def connections(self, text: str = "", *, mask: Sequence[str] = ()) -> Sequence[pb.ConnectionEntry]:
        """Return every connection with its status, or those that fit a filter, with all fields or some."""
        request = pb.ListConnectionsRequest(filter=text, read_mask=_mask(mask), page_size=_PAGE)
        return await self._pages(self._stub.ListConnections, request, "connections")

    async def _pages(self, method: Any, request: Any, name: str) -> list[Any]:
        """Return all pages of a list as one."""
        items: list[Any] = []
        while True:
            response = await self._call(method, request)
            items += getattr(response, name)
            if not response.next_page_token:
                return items
            request.page_token = response.next_page_token

    async def watch(
        self, revision: str = "", *, text: str = "", mask: Sequence[str] = ()
    ) -> AsyncIterator[pb.WatchConnectionsResponse]:
        """Yield what connections there are, unless `revision` is known, and then what becomes of them.

        It ends with `ApiError` when the controller is gone: watch again from the last revision.
        """
        request = pb.WatchConnectionsRequest(revision=revision, filter=text, read_mask=_mask(mask))
        call = self._stub.WatchConnections(request)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    async def connection(self, name: str) -> pb.ConnectionEntry:
        """Return one connection with its status."""
        request = pb.GetConnectionRequest(name=name)
        response: pb.GetConnectionResponse = await self._call(self._stub.GetConnection, request)
        return response.connection

    async def delete(
        self, names: Iterable[str], *, validate_only: bool = False, etags: Mapping[str, str] = NO_ETAGS
    ) -> Sequence[pb.ConnectionResult]:
        """Terminate and forget connections."""
        request = pb.DeleteConnectionsRequest(names=names, validate_only=validate_only, etags=etags)
        response: pb.DeleteConnectionsResponse = await self._call(self._stub.DeleteConnections, request)
        return response.results

    # --- operations ----------------------------------------------------------------------------

    async def initiate(self, target: pb.Target, *, wait_s: float = 0.0, request_id: str = "") -> pb.Operation:
        """Bring something up, and wait up to `wait_s` for the end of it."""
        request = pb.InitiateRequest(target=target, request_id=request_id or str(uuid4()))
        response: pb.InitiateResponse = await self._call(self._stub.Initiate, request)
        return await self.finished(response.operation, wait_s)

    async def terminate(
        self, target: pb.Target, *, wait_s: float = 0.0, request_id: str = ""
    ) -> pb.Operation:
        """Take something down, and wait up to `wait_s` for the end of it."""
        request = pb.TerminateRequest(target=target, request_id=request_id or str(uuid4()))
        response: pb.TerminateResponse = await self._call(self._stub.Terminate, request)
        return await self.finished(response.operation, wait_s)

    async def rekey(
        self,
        target: pb.Target,
        *,
        reauthenticate: bool = False,
        wait_s: float = 0.0,
        request_id: str = "",
    ) -> pb.Operation:
        """Rekey something, or authenticate its peer anew, and wait up to `wait_s` for the end of it."""
        request = pb.RekeyRequest(
            target=target, request_id=request_id or str(uuid4()), reauthenticate=reauthenticate
        )
        response: pb.RekeyResponse = await self._call(self._stub.Rekey, request)
        return await self.finished(response.operation, wait_s)

    async def finished(self, operation: pb.Operation, wait_s: float) -> pb.Operation:
        """Return the operation as it is after its end, or after `wait_s` if it takes longer."""
        left_s = wait_s
        while operation.state == pb.OPERATION_STATE_RUNNING and left_s > 0:
            step_s = min(left_s, _WAIT_STEP_S)
            operation = await self.operation(operation.operation_id, wait_s=step_s)
            left_s -= step_s
        return operation

    async def operation(self, operation_id: str, *, wait_s: float = 0.0) -> pb.Operation:
        """Return how far an operation is, after waiting up to `wait_s` (at most a minute) for its end."""
        request = pb.GetOperationRequest(operation_id=operation_id, wait=write_duration(wait_s))
        response: pb.GetOperationResponse = await self._call(self._stub.GetOperation, request, extra_s=wait_s)
        return response.operation

    # --- what there is -------------------------------------------------------------------------

    async def ike_sas(self, connection: str = "", text: str = "") -> Sequence[pb.IkeSa]:
        """Return every IKE SA, of one connection, or that fits a filter."""
        request = pb.ListIkeSasRequest(connection=connection, filter=text, page_size=_PAGE)
        return await self._pages(self._stub.ListIkeSas, request, "ike_sas")

    async def child_sas(self, connection: str = "", text: str = "") -> Sequence[pb.ChildSa]:
        """Return every Child SA, of one connection, or that fits a filter, with counters."""
        request = pb.ListChildSasRequest(connection=connection, filter=text, page_size=_PAGE)
        return await self._pages(self._stub.ListChildSas, request, "child_sas")

    async def status(self) -> pb.GetStatusResponse:
        """Return the controller at a glance."""
        response: pb.GetStatusResponse = await self._call(self._stub.GetStatus, pb.GetStatusRequest())
        return response

    async def export_keys(self, connection: str) -> pb.ExportKeysResponse:
        """Return the keys of a connection's SAs, for a packet analyser."""
        request = pb.ExportKeysRequest(connection=connection)
        response: pb.ExportKeysResponse = await self._call(self._stub.ExportKeys, request)
        return response

    async def explain(self, connection: str) -> Sequence[pb.Fact]:
        """Return what there is to know about a connection."""
        request = pb.ExplainRequest(connection=connection)
        response: pb.ExplainResponse = await self._call(self._stub.Explain, request)
        return response.facts

    async def events(self, after_sequence: int | None = None) -> AsyncIterator[pb.Event]:
        """Open a watch and return its stream; nothing is missed from the moment this returns.

        Args:
            after_sequence: Begin with the kept events after this one; `None`: with what happens next.
        """
        call = self._stub.WatchEvents(pb.WatchEventsRequest(after_sequence=after_sequence))
        try:
            async with asyncio.timeout(self._deadline_s):
                await call.read()
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except TimeoutError as error:
            call.cancel()
            raise self._too_late() from error
        return self._relay(call)

    async def _relay(self, call: Any) -> AsyncIterator[pb.Event]:
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                yield response.event
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    async def _call(self, method: Callable[..., Awaitable[R]], request: object, *, extra_s: float = 0.0) -> R:
        try:
            return await method(request, timeout=self._deadline_s + extra_s)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    def _too_late(self) -> ApiError:
        return ApiError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"the controller at {self.address} did not answer within {self._deadline_s:g} s",
        )

    def _error(self, error: grpc.aio.AioRpcError) -> ApiError:
        failure = api_error(error)
        if failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
            advice = "start `ipsecgw run`, or name another with --socket"
            if not isinstance(self.address, UnixAddress):
                advice += f", or check the network and the certificates ({failure.message})"
            return ApiError(failure.code, f"no controller at {self.address}: {advice}")
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._too_late()
        if failure.code is grpc.StatusCode.UNIMPLEMENTED:
            return ApiError(
                failure.code,
                f"what listens at {self.address} is no controller, or an older one: "
                "name another with --socket",
            )
        return failure


def _mask(paths: Sequence[str]) -> FieldMask | None:
    return FieldMask(paths=paths) if paths else None
