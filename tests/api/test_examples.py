"""The programs of docs/examples, run as they stand."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from gateway.api.address import UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.controller.controller import Controller, ControllerOptions
from gateway.controller.facade import OperationState, Target, WantedConnection
from gateway.ipsec.secret import Secret
from tests.api.fake_controller import FakeController
from tests.api.test_watch_connections import wanted
from tests.unit.controller.gateways import PARIS, PSK, Gateway, MemoryTransport, Wire

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
LINE_S = 60.0


class Program:
    """A running example, read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    async def line(self, begin: str) -> str:
        """Return the next line that begins so."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LINE_S):
            while True:
                read = (await self._process.stdout.readline()).decode()
                assert read, f"it ended before {begin!r}: {self.lines}"
                self.lines.append(read.strip())
                if read.startswith(begin):
                    return read.strip()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())


@asynccontextmanager
async def program(name: str, *arguments: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parents[1])},
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        await process.wait()


@contextmanager
def controller_at(datapath: DatapathClient, wire: Wire, paris: Gateway) -> Iterator[Controller]:
    controller = Controller(
        datapath=datapath,
        obtain_ports=paris._obtain_ports,
        entropy=os.urandom,
        rng=random.Random(1),
        wall_clock=lambda: 1_700_000_000.0,
        options=ControllerOptions(version="test"),
        make_transport=lambda receive, lost: MemoryTransport(wire, PARIS, receive, lost),
    )
    yield controller


async def test_our_controller_drives_somebody_elses_datapath(tmp_path: Path) -> None:
    wire = Wire()
    paris, tokyo = Gateway(wire, is_paris=True), Gateway(wire, is_paris=False)
    await tokyo.start()
    socket = tmp_path / "example.sock"
    async with program("example_datapath.py", str(socket)) as example:
        await example.line("ready")
        client = DatapathClient(UnixAddress(socket))
        with controller_at(client, wire, paris) as controller:
            await controller.start([WantedConnection(connection=paris.connection(), psk=Secret(PSK))])
            await example.line("protect paris-tokyo/lan")

            begun = await controller.initiate(Target(connection="paris-tokyo"))
            done = await controller.operation(begun.operation_id, wait_s=LINE_S)
            assert done.state is OperationState.SUCCEEDED
            inbound = await example.line("install in:esp:192.0.2.1:")
            outbound = await example.line("install out:esp:192.0.2.2:")
            assert inbound.endswith("paris-tokyo/lan key 36 bytes")

            # The way back: it says that an SA has sent enough, and gets another one.
            example.say("expire")
            assert await example.line("install out:esp:192.0.2.2:") != outbound
            assert (await example.line("remove out:esp:192.0.2.2:")).split()[1] == outbound.split()[1]
            await controller.stop()
        await client.close()
    await tokyo.controller.stop()
    await tokyo.agent.close()


def test_the_example_datapath_is_as_long_as_it_says() -> None:
    code = (EXAMPLES / "example_datapath.py").read_text().split('"""', 2)[2].splitlines()

    assert sum(bool(line.strip()) for line in code) <= 125


async def test_the_example_client_has_a_right_view_across_restarts(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "control.sock")
    async with program("follow_connections.py", f"unix://{address.path}") as example:
        for life, names, told in (
            (1, ("a", "b"), ["a failed", "b failed"]),
            (2, ("b", "c"), ["c failed", "a removed"]),
        ):
            controller = FakeController()
            controller.ledger().life = f"life{life}"
            await controller.apply(wanted(*names))
            server = ApiServer([Listener(address=address)], control=controller)
            await server.start()
            example.lines.clear()
            await example.line(told[-1])
            assert example.lines == told
            await server.stop(grace_s=0)


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_run_by_a_test_and_named_on_the_page(example: str) -> None:
    assert f'"{example}"' in Path(__file__).read_text()
    assert example in (EXAMPLES.parent / "api.md").read_text()
