"""Watchers of both services, each with a connection of its own, as a process (`python -m`) or in this one.

Every second one never reads on after its first event: what is sent to it waits at the server.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from gateway.api.address import UnixAddress, dial
from gateway.api.control.v1 import control_pb2
from gateway.api.control.v1.control_pb2_grpc import ControlServiceStub
from gateway.api.datapath.v1 import datapath_pb2
from gateway.api.datapath.v1.datapath_pb2_grpc import DatapathServiceStub


@dataclass(frozen=True, slots=True)
class Watchers:
    channels: tuple[grpc.aio.Channel, ...]
    calls: tuple[Any, ...]
    readers: tuple[asyncio.Task[None], ...]


async def watch(address: UnixAddress, count: int) -> Watchers:
    """Return when `count` watches of each service are in place and have got an event."""
    channels = tuple(dial(address) for _ in range(2 * count))
    control, datapath = control_pb2.WatchEventsRequest(), datapath_pb2.WatchEventsRequest()
    calls = (
        *(ControlServiceStub(channel).WatchEvents(control) for channel in channels[:count]),
        *(DatapathServiceStub(channel).WatchEvents(datapath) for channel in channels[count:]),
    )
    for call in calls:
        await call.read()
        await call.read()
    readers = tuple(asyncio.create_task(_read_on(call), name="reader") for call in calls[::2])
    return Watchers(channels, calls, readers)


async def _read_on(call: Any) -> None:
    # Its call's being cancelled is not this task's being cancelled.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        while await call.read() is not grpc.aio.EOF:
            pass


async def main() -> None:
    watchers = await watch(UnixAddress(Path(sys.argv[1])), int(sys.argv[2]))
    print("ready", flush=True)
    await asyncio.gather(*watchers.readers)


if __name__ == "__main__":
    asyncio.run(main())
