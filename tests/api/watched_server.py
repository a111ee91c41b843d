"""A process that serves a real history of events and a real agent, for watchers that are cut off.

It publishes all the time. A line on its standard input gets a line back: the watchers of each service that it
still has, and how many KiB it occupies. The line `burst` publishes much at once first.
"""

import asyncio
import faulthandler
import resource
import sys
import time
from pathlib import Path

from gateway.agent.agent import Agent
from gateway.api.address import UnixAddress
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.controller.facade import DatapathAvailability
from gateway.controller.history import History
from gateway.datapath.backend import PlacementChange
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import SaId
from tests.api.fake_controller import FakeController
from tests.fakes.datapath import FakeDatapath

#: More in one event than a watcher that does not read has taken after a few hundred of them.
_TEXT = "x" * 20_000
_BURST = 300
_PAUSE_S = 0.02


class _WatchedController(FakeController):
    """Only its events are real."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History(time.time)
        self.watch = self.history.watch  # type: ignore[method-assign]


def resident_kib() -> int:
    _, pages, *_ = Path("/proc/self/statm").read_text().split()
    return int(pages) * resource.getpagesize() >> 10


async def serve(path: Path) -> None:
    controller, backend = _WatchedController(), FakeDatapath()
    agent = Agent(backend, fingerprint_key=bytes(32))
    await agent.start()
    server = ApiServer([Listener(address=UnixAddress(path))], control=controller, datapath=agent)
    await server.start()

    def publish() -> None:
        controller.history.record(DatapathAvailability(available=True, detail=_TEXT))
        backend.emit(
            PlacementChange(sa_id=SaId("a"), old=Engine.KERNEL, new=Engine.SOFTWARE, reason=_TEXT),
        )

    async def go_on() -> None:
        while True:
            publish()
            await asyncio.sleep(_PAUSE_S)

    publishing = asyncio.create_task(go_on(), name="publish")
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(_BURST if line == "burst\n" else 0):
            publish()
        print(len(controller.history._watchers), len(agent._watchers), resident_kib(), flush=True)
    publishing.cancel()
    await server.stop(0)
    await agent.close()


if __name__ == "__main__":
    faulthandler.enable()
    asyncio.run(serve(Path(sys.argv[1])))
