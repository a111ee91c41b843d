"""The client of the log service, of a controller or of a datapath agent."""

from collections.abc import Awaitable
from typing import Any, Final

import grpc.aio

from gateway.api.address import Address, TlsFiles, dial
from gateway.api.errors import api_error
from gateway.api.log.v1 import log_pb2 as lpb
from gateway.api.log.v1.log_pb2_grpc import LogServiceStub

DEADLINE_S: Final = 10.0


async def log_levels(address: Address, levels: str | None = None, *, tls: TlsFiles | None = None) -> str:
    """Return the log levels in force at a process, after setting them where `levels` are given.

    Raises:
        ApiError: Nobody answers there, the levels cannot be read, or the role does not allow it.
    """
    channel = dial(address, tls)
    # The generated stub is untyped.
    stub: Any = LogServiceStub(channel)  # type: ignore[no-untyped-call]
    try:
        asked: Awaitable[lpb.GetLogLevelsResponse | lpb.SetLogLevelsResponse] = (
            stub.GetLogLevels(lpb.GetLogLevelsRequest(), timeout=DEADLINE_S)
            if levels is None
            else stub.SetLogLevels(lpb.SetLogLevelsRequest(levels=levels), timeout=DEADLINE_S)
        )
        return (await asked).levels
    except grpc.aio.AioRpcError as error:
        raise api_error(error) from error
    finally:
        await channel.close()
