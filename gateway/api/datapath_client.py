"""A `Datapath` that lives elsewhere: the gRPC client of the datapath service."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self, TypeVar

import grpc
import grpc.aio

from gateway.api import convert, convert_datapath
from gateway.api.address import Address, TlsFiles, UnixAddress, dial
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.datapath.v1.datapath_pb2_grpc import DatapathServiceStub
from gateway.api.errors import api_error
from gateway.datapath.backend import (
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    InstalledSa,
    ItemResult,
)
from gateway.datapath.watch import Watch
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import IpAddress, SaId, SecurityAssociation, Spi

R = TypeVar("R")

DEADLINE_S: Final = 30.0
"""Of one call; a batch of a thousand SAs takes well under a second on any backend."""
PATIENCE_S: Final = 1.0
"""How long a call is tried again while nobody listens: an agent that restarts is back within it."""
_PAUSE_S: Final = 0.1


class DatapathClient:
    """Reaches a datapath agent; reconnects by itself. Construct it inside the running event loop.

    Every call of the service is idempotent, so a call that met a restarting agent is simply made again.
    When `PATIENCE_S` is over it fails with `DatapathError(UNAVAILABLE)`, as does the event stream at once:
    its reader must list again, since it cannot know what it missed.
    """

    def __init__(
        self,
        address: Address,
        *,
        tls: TlsFiles | None = None,
        deadline_s: float = DEADLINE_S,
        patience_s: float = PATIENCE_S,
        shown: Address | None = None,
    ) -> None:
        """Open the channel; `shown` is what messages call the address, where `address` is a relative one."""
        self.address = shown or address
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._channel = dial(address, tls)
        # The generated stub is untyped; every answer gets its type where it is used.
        self._stub: Any = DatapathServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._opening: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    async def capabilities(self) -> Capabilities:
        """Return what the datapath can do."""
        request = dpb.GetCapabilitiesRequest()
        response: dpb.GetCapabilitiesResponse = await self._call(self._stub.GetCapabilities, request)
        return convert_datapath.read_capabilities(response.capabilities)

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve inbound SPIs."""
        if count == 0:
            return ()
        request = dpb.AllocateSpisRequest(count=count, destination=convert.write_address(destination))
        response: dpb.AllocateSpisResponse = await self._call(self._stub.AllocateSpis, request)
        return tuple(Spi(spi) for spi in response.spis)

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs."""
        messages = [convert.write_sa(sa, with_keys=True) for sa in sas]
        request = dpb.InstallSasRequest(sas=messages, generation=generation)
        response: dpb.InstallSasResponse = await self._call(self._stub.InstallSas, request)
        return tuple(convert.read_item_result(result) for result in response.results)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs."""
        request = dpb.RemoveSasRequest(sa_ids=sa_ids)
        response: dpb.RemoveSasResponse = await self._call(self._stub.RemoveSas, request)
        return convert_datapath.read_removed(response)

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Install or replace SPD entries."""
        messages = [convert.write_policy(policy) for policy in policies]
        request = dpb.ApplyPoliciesRequest(policies=messages, generation=generation)
        response: dpb.ApplyPoliciesResponse = await self._call(self._stub.ApplyPolicies, request)
        return tuple(convert.read_item_result(result) for result in response.results)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries."""
        request = dpb.RemovePoliciesRequest(names=names)
        response: dpb.RemovePoliciesResponse = await self._call(self._stub.RemovePolicies, request)
        return tuple(convert.read_item_result(result) for result in response.results)

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every installed SA; their keys are empty."""
        response: dpb.ListSasResponse = await self._call(self._stub.ListSas, dpb.ListSasRequest())
        return convert.read_batch(response.sas, "sas", convert.read_installed_sa)

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched."""
        request = dpb.ListPoliciesRequest()
        response: dpb.ListPoliciesResponse = await self._call(self._stub.ListPolicies, request)
        return convert.read_batch(response.policies, "policies", convert.read_policy)

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove every SA and policy of an older generation."""
        request = dpb.ReconcileRequest(generation=generation)
        response: dpb.ReconcileResponse = await self._call(self._stub.Reconcile, request)
        return tuple(response.removed)

    async def counters(self) -> Counters:
        """Return a snapshot of all counters."""
        request = dpb.GetCountersRequest()
        response: dpb.GetCountersResponse = await self._call(self._stub.GetCounters, request)
        return convert_datapath.read_counters(response)

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on: calls made later wait until the watch is in place.

        Raises:
            DatapathError: UNAVAILABLE, from the iterator, when the agent goes away.
        """
        call = self._stub.WatchEvents(dpb.WatchEventsRequest())
        opened: asyncio.Future[Any] = asyncio.ensure_future(call.read())
        self._opening.add(opened)
        opened.add_done_callback(self._forget)
        return _Events(call, opened, self._next_event)

    async def close(self) -> None:
        """Close the connection and end the event streams; the datapath keeps everything it has."""
        self._is_closed = True
        await self._channel.close()

    def _forget(self, opened: asyncio.Future[Any]) -> None:
        self._opening.discard(opened)
        if not opened.cancelled():
            opened.exception()  # The stream's reader sees it; an abandoned stream must not warn.

    async def _next_event(self, reading: Callable[[], Awaitable[Any]]) -> DatapathEvent:
        try:
            while (response := await reading()) is not grpc.aio.EOF:
                event = convert_datapath.read_datapath_event(response.event)
                if event is not None:
                    return event
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except asyncio.CancelledError:
            # Closing the channel cancels the call, which is not a cancellation of the task that reads.
            task = asyncio.current_task()
            if self._is_closed and (task is None or not task.cancelling()):
                raise StopAsyncIteration from None
            raise
        raise DatapathError(ErrorReason.UNAVAILABLE, f"the datapath agent at {self.address} ended its events")

    async def _call(self, method: Callable[..., Awaitable[R]], request: object) -> R:
        if self._opening:
            await asyncio.wait(set(self._opening), timeout=self._deadline_s)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_s
        while True:
            try:
                return await method(request, timeout=self._deadline_s)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or loop.time() >= give_up_at:
                    raise self._error(error) from error
            await asyncio.sleep(_PAUSE_S)

    def _error(self, error: grpc.aio.AioRpcError) -> DatapathError:
        failure = api_error(error)
        if failure.reason in ErrorReason.__members__:
            return DatapathError(ErrorReason(failure.reason), str(failure))
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DatapathError(
                ErrorReason.UNAVAILABLE,
                f"the datapath agent at {self.address} did not answer within {self._deadline_s:g} s",
            )
        if failure.code is grpc.StatusCode.UNIMPLEMENTED:
            return DatapathError(
                ErrorReason.UNAVAILABLE,
                f"what listens at {self.address} is no datapath agent, or an older one: name another",
            )
        if failure.code is not grpc.StatusCode.UNAVAILABLE:
            return DatapathError(
                ErrorReason.SYSTEM, f"the datapath agent at {self.address} refused: {failure}"
            )
        if failure.reason:
            return DatapathError(ErrorReason.UNAVAILABLE, f"datapath agent at {self.address}: {failure}")
        advice = "start `ipsecgw agent`"
        if not isinstance(self.address, UnixAddress):
            advice += f", or check the network and the certificates ({failure.message})"
        return DatapathError(ErrorReason.UNAVAILABLE, f"no datapath agent at {self.address}: {advice}")


class _Events:
    """The events of one call, which ends when this is closed, whether it was ever read or not."""

    def __init__(
        self,
        call: Any,
        opened: asyncio.Future[Any],
        next_event: Callable[[Callable[[], Awaitable[Any]]], Awaitable[DatapathEvent]],
    ) -> None:
        self._call = call
        self._opened: asyncio.Future[Any] | None = opened
        self._next_event = next_event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DatapathEvent:
        return await self._next_event(self._read)

    async def aclose(self) -> None:
        self._call.cancel()

    async def _read(self) -> Any:
        first, self._opened = self._opened, None
        return await (self._call.read() if first is None else first)
