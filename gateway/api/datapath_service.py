"""The datapath service: convert, call any `Datapath`, convert."""

# ruff: noqa: ARG002, N802 - the names of the methods are the .proto's, their parameters gRPC's

import time
from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc.aio

from gateway.api import convert, convert_datapath
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.datapath.v1.datapath_pb2_grpc import DatapathServiceServicer
from gateway.api.violations import Violations
from gateway.api.watch import watch
from gateway.datapath.backend import Datapath, DatapathEvent, SharedDatapath
from gateway.ipsec.sa import SaId

MAX_SPIS_PER_CALL: Final = 4096
MAX_OWNER: Final = 64

# What a context carries differs from method to method, and nothing here reads it.
Context = grpc.aio.ServicerContext[Any, Any]


class DatapathService(DatapathServiceServicer):
    """Offers one datapath; the caller keeps owning it."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath

    def _of(self, owner: str) -> Datapath:
        """Return the datapath as an owner has it.

        Raises:
            InvalidArgument: It has one owner only.
        """
        if not owner:
            return self._datapath
        violations = Violations()
        if len(owner) > MAX_OWNER or not owner.isprintable():
            violations.add("owner", f"is no name: at most {MAX_OWNER} characters, all printable")
        elif not isinstance(self._datapath, SharedDatapath):
            violations.add("owner", "is given, but this datapath is for the IKE controller alone")
        violations.raise_if_any()
        assert isinstance(self._datapath, SharedDatapath)
        return self._datapath.of_owner(owner)

    async def GetCapabilities(
        self, request: dpb.GetCapabilitiesRequest, context: Context
    ) -> dpb.GetCapabilitiesResponse:
        """Answer what the datapath can do."""
        capabilities = await self._datapath.capabilities()
        return dpb.GetCapabilitiesResponse(capabilities=convert_datapath.write_capabilities(capabilities))

    async def AllocateSpis(
        self, request: dpb.AllocateSpisRequest, context: Context
    ) -> dpb.AllocateSpisResponse:
        """Reserve SPIs."""
        violations = Violations()
        if not 1 <= request.count <= MAX_SPIS_PER_CALL:
            violations.add("count", f"{request.count} is not between 1 and {MAX_SPIS_PER_CALL}")
        destination = convert.read_optional_address(request.destination, "destination", violations)
        violations.raise_if_any()
        return dpb.AllocateSpisResponse(spis=await self._datapath.allocate_spis(request.count, destination))

    async def InstallSas(self, request: dpb.InstallSasRequest, context: Context) -> dpb.InstallSasResponse:
        """Install a batch of SAs."""
        sas = convert.read_batch(request.sas, "sas", convert.read_sa)
        results = await self._of(request.owner).install_sas(sas, request.generation)
        return dpb.InstallSasResponse(results=[convert.write_item_result(result) for result in results])

    async def RemoveSas(self, request: dpb.RemoveSasRequest, context: Context) -> dpb.RemoveSasResponse:
        """Remove a batch of SAs."""
        results = await self._of(request.owner).remove_sas([SaId(sa_id) for sa_id in request.sa_ids])
        return convert_datapath.write_removed(results)

    async def ListSas(self, request: dpb.ListSasRequest, context: Context) -> dpb.ListSasResponse:
        """List the SAD, without keys."""
        installed = await self._datapath.list_sas()
        return dpb.ListSasResponse(sas=[convert.write_installed_sa(sa) for sa in installed])

    async def ApplyPolicies(
        self, request: dpb.ApplyPoliciesRequest, context: Context
    ) -> dpb.ApplyPoliciesResponse:
        """Install or replace a batch of SPD entries."""
        policies = convert.read_batch(request.policies, "policies", convert.read_policy)
        results = await self._of(request.owner).apply_policies(policies, request.generation)
        return dpb.ApplyPoliciesResponse(results=[convert.write_item_result(result) for result in results])

    async def RemovePolicies(
        self, request: dpb.RemovePoliciesRequest, context: Context
    ) -> dpb.RemovePoliciesResponse:
        """Remove a batch of SPD entries."""
        results = await self._of(request.owner).remove_policies(list(request.names))
        return dpb.RemovePoliciesResponse(results=[convert.write_item_result(result) for result in results])

    async def ListPolicies(
        self, request: dpb.ListPoliciesRequest, context: Context
    ) -> dpb.ListPoliciesResponse:
        """List the SPD."""
        policies = await self._datapath.list_policies()
        return dpb.ListPoliciesResponse(policies=[convert.write_policy(policy) for policy in policies])

    async def GetCounters(self, request: dpb.GetCountersRequest, context: Context) -> dpb.GetCountersResponse:
        """Answer all counters."""
        return convert_datapath.write_counters(await self._datapath.counters())

    async def Reconcile(self, request: dpb.ReconcileRequest, context: Context) -> dpb.ReconcileResponse:
        """Remove what is of an older generation."""
        return dpb.ReconcileResponse(removed=await self._of(request.owner).reconcile(request.generation))

    def WatchEvents(
        self, request: dpb.WatchEventsRequest, context: Context
    ) -> AsyncGenerator[dpb.WatchEventsResponse, None]:
        """Stream events, after one empty message that says that none will be missed from now on."""

        def write(event: DatapathEvent) -> dpb.WatchEventsResponse:
            return dpb.WatchEventsResponse(event=convert_datapath.write_datapath_event(event, time.time()))

        return watch(self._of(request.owner).events(), dpb.WatchEventsResponse(), write)
