"""Watchers that go away in the middle: the server lives on, forgets them, and does not grow.

gRPC frees a call when its client is gone and its task has ended. Whoever asks its context for anything after
that ends the process with SIGSEGV, so the server is a process of its own here.
"""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.api.address import UnixAddress
from tests.api.watchers import watch

COUNT = 25
"""Watchers of each service that are cut off at once."""
MAY_GROW_KIB = 16 << 10
LONG_S = 60.0
"""More than a busy machine takes for anything here."""


class Server:
    """The process of `watched_server`."""

    def __init__(self, process: Process, address: UnixAddress) -> None:
        self.process = process
        self.address = address

    async def ask(self, line: str = "") -> tuple[int, int, int]:
        """Return the watchers of the controller, those of the agent, and the KiB the process occupies."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        answer = await read_line(self.process)
        assert answer, f"the server is gone, with status {await self.process.wait()}"
        controllers, agents, kib = map(int, answer.split())
        return controllers, agents, kib

    async def until_alone(self) -> int:
        """Wait until nobody watches; return the KiB the process occupies."""
        controllers = agents = kib = -1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONG_S):
                while True:
                    controllers, agents, kib = await self.ask()
                    if controllers == agents == 0:
                        return kib
                    await asyncio.sleep(0.02)
        raise AssertionError(f"{controllers} and {agents} watchers are kept that are gone")


async def read_line(process: Process) -> bytes:
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readline(), LONG_S)


@asynccontextmanager
async def running(module: str, *words: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        assert await read_line(process) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    address = UnixAddress(tmp_path / "s.sock")
    async with running("tests.api.watched_server", str(address.path)) as process:
        yield Server(process, address)


async def cut_by_signal(server: Server, number: signal.Signals) -> None:
    async with running("tests.api.watchers", str(server.address.path), str(COUNT)) as process:
        assert (await server.ask("burst"))[:2] == (COUNT, COUNT)
        process.send_signal(number)
        await process.wait()


async def cut_by_closing(server: Server) -> None:
    watchers = await watch(server.address, COUNT)
    assert (await server.ask("burst"))[:2] == (COUNT, COUNT)
    async with AsyncExitStack() as stack:
        for channel in watchers.channels:
            stack.push_async_callback(channel.close)
    await asyncio.gather(*watchers.readers)


async def cut_by_cancelling(server: Server) -> None:
    """The connections stay; only the calls end."""
    watchers = await watch(server.address, COUNT)
    assert (await server.ask("burst"))[:2] == (COUNT, COUNT)
    for call in watchers.calls:
        call.cancel()
    await server.until_alone()
    await asyncio.gather(*watchers.readers, *(channel.close() for channel in watchers.channels))


WAYS: dict[str, Callable[[Server], Awaitable[None]]] = {
    "SIGINT": lambda server: cut_by_signal(server, signal.SIGINT),
    "SIGKILL": lambda server: cut_by_signal(server, signal.SIGKILL),
    "closed": cut_by_closing,
    "cancelled": cut_by_cancelling,
}


async def test_watchers_that_are_cut_off_leave_nothing_behind(server: Server) -> None:
    await WAYS["closed"](server)
    warm_kib = await server.until_alone()

    for cut in WAYS.values():
        await cut(server)
        kib = await server.until_alone()

    assert server.process.returncode is None
    assert kib - warm_kib < MAY_GROW_KIB
    server.process.stdin.write_eof()  # type: ignore[union-attr]  # it is a pipe
    _, told = await server.process.communicate()
    assert (server.process.returncode, told.decode()) == (0, "")
