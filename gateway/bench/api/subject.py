"""A process with our controller behind its control API, no network and a datapath that carries nothing.

    python -m gateway.bench.api.subject SOCKET [--state DIR] [--datapath ADDRESS] [--busy PER_SECOND]

prints `ready`, then serves until it is ended.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.api.address import UnixAddress, parse_address
from gateway.api.datapath_client import DatapathClient
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.api.state_file import StateFile
from gateway.bench.api.still_datapath import StillDatapath
from gateway.controller.collector import collect_less_often
from gateway.controller.controller import Controller, ControllerOptions
from gateway.datapath.backend import Datapath
from gateway.host.sockets import IkePorts
from gateway.ike.path import Path as IkePath


class NoTransport:
    """A `Transport` of a gateway that is alone in the world."""

    def __init__(self, _receive: Callable[[bytes, IkePath], None], _lost: Callable[[], None]) -> None:
        self._ports: IkePorts | None = None

    @property
    def is_open(self) -> bool:
        """Whether there are ports."""
        return self._ports is not None

    def adopt(self, ports: IkePorts) -> None:
        """Take ports."""
        self._ports = ports

    def release(self) -> None:
        """Let go of them."""
        self._ports = None

    def release_borrowed(self) -> None:
        """Let go of them."""
        self._ports = None

    def send(self, path: IkePath, datagram: bytes) -> None:
        """Lose it."""


async def serve(
    socket: Path, *, state: Path | None = None, datapath: Datapath | None = None, busy_per_s: float = 0.0
) -> None:
    """Serve until cancelled.

    Args:
        socket: Where.
        state: Keep the desired state there.
        datapath: Instead of one that carries nothing.
        busy_per_s: Let so many connections change their status every second.
    """

    async def no_ports() -> IkePorts:
        return IkePorts(ports=())

    store = None if state is None else StateFile(state)
    kept = None if store is None else store.load()
    controller = Controller(
        datapath=datapath or StillDatapath(),
        obtain_ports=no_ports,
        entropy=os.urandom,
        rng=random.Random(1),  # noqa: S311 - jitter only
        wall_clock=time.time,
        options=ControllerOptions(version="bench", node="bench"),
        make_transport=NoTransport,
        store=store,
    )
    server = ApiServer(
        [Listener(address=UnixAddress(socket))], control=controller, keeps_state=store is not None
    )
    await controller.start(
        () if kept is None else kept.connections,
        kept=() if kept is None else kept.kept,
        generation=0 if kept is None else kept.generation,
    )
    await controller.is_protecting()
    await server.start()
    print("ready", flush=True)
    pace = 1.0 / busy_per_s if busy_per_s else 3600.0
    at = 0
    while True:
        await asyncio.sleep(pace)
        names = controller.names()
        if busy_per_s and names:
            at = (at + 1) % len(names)
            controller.ledger().touch(names[at])


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve the control API for a measurement.")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--datapath")
    parser.add_argument("--busy", type=float, default=0.0)
    options = parser.parse_args()
    # As the controller of the product does.
    collect_less_often()

    async def run() -> None:
        datapath = None
        if options.datapath is not None:
            datapath = DatapathClient(parse_address(options.datapath), patience_s=0.0)
        await serve(options.socket, state=options.state, datapath=datapath, busy_per_s=options.busy)

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
