"""The log service: the levels of this process's log, read and set while it runs."""

# ruff: noqa: ARG002, N802 - the names of the methods are the .proto's, their parameters gRPC's

from typing import Any

import grpc.aio

from gateway.api.log.v1 import log_pb2 as lpb
from gateway.api.log.v1.log_pb2_grpc import LogServiceServicer
from gateway.observe.logs import get_logger, levels_in_force, set_levels

_log = get_logger("api")

Context = grpc.aio.ServicerContext[Any, Any]


class LogService(LogServiceServicer):
    """Answers for the process it runs in."""

    async def GetLogLevels(
        self, request: lpb.GetLogLevelsRequest, context: Context
    ) -> lpb.GetLogLevelsResponse:
        """Return the levels in force."""
        return lpb.GetLogLevelsResponse(levels=levels_in_force())

    async def SetLogLevels(
        self, request: lpb.SetLogLevelsRequest, context: Context
    ) -> lpb.SetLogLevelsResponse:
        """Set the levels; what cannot be read is refused, with nothing changed."""
        set_levels(request.levels)
        _log.info("log_levels_set", levels=levels_in_force())
        return lpb.SetLogLevelsResponse(levels=levels_in_force())
