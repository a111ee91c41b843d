"""Our control API under load: applying, listing, single calls and watchers."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from gateway.api.address import UnixAddress
from gateway.api.connection_view import ConnectionView
from gateway.api.control_client import ControlClient
from gateway.bench.api import connections
from gateway.bench.api.results import Applied, Call, Watching
from gateway.bench.ike.usage import usage_of
from gateway.ipsec.errors import GatewayError

BATCH: Final = 250
"""Connections in one request of a stream."""
CALLS: Final = 500
_PATIENCE_S: Final = 300.0
_WATCH_CHANNELS: Final = 5
_WATCHED: Final = 200
"""Connections that the watchers watch."""
_BUSY_PER_S: Final = 200.0
_WATCH_S: Final = 8.0


class ApiBenchError(GatewayError):
    """A measurement did not go as it must."""


@contextmanager
def subject(directory: Path, *options: str) -> Iterator[tuple[UnixAddress, int]]:
    """Run a controller as a process of its own; yields where it listens and its PID."""
    path = directory / f"control-{os.getpid()}.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.bench.api.subject", str(path), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise ApiBenchError("the controller did not start")
        yield UnixAddress(path), process.pid
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


async def measure_applying(address: UnixAddress, pid: int, many: int) -> Applied:
    """Apply connections to an empty controller, apply them again, and list them.

    Raises:
        ApiBenchError: One was refused.
    """
    messages = [connections.message(number) for number in range(many)]
    batches = [messages[i : i + BATCH] for i in range(0, many, BATCH)]
    async with ControlClient(address, deadline_s=_PATIENCE_S) as client:
        before = usage_of(pid)
        began = time.perf_counter()
        marks = [began]
        async for response in client.stream(batches):
            marks.append(time.perf_counter())
            for result in response.results:
                if result.HasField("error"):
                    raise ApiBenchError(f"{result.name}: {result.error.message}")
        after = usage_of(pid)
        again_s = await _timed(lambda: client.apply(messages))
        first_list_s = await _timed(client.connections)
        list_s = await _timed(client.connections)
        resident = usage_of(pid).resident_bytes
    tenth = max(1, len(batches) // 10)
    return Applied(
        rate=many / (marks[-1] - began),
        first_tenth=tenth * BATCH / (marks[tenth] - marks[0]),
        last_tenth=tenth * BATCH / (marks[-1] - marks[-1 - tenth]),
        cpu_us=(after.cpu_s - before.cpu_s) / many * 1e6,
        again_s=again_s,
        first_list_s=first_list_s,
        list_s=list_s,
        resident_bytes=resident,
    )


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def measure_calls(address: UnixAddress, many: int) -> list[Call]:
    """Measure single calls, one after the other, at a controller with so many connections."""
    numbers = count(7)

    def next_number() -> int:
        return next(numbers) * 7919 % many

    calls: list[Call] = []
    async with ControlClient(address, deadline_s=_PATIENCE_S) as client:
        kinds: dict[str, Callable[[], Awaitable[object]]] = {
            "get one connection": lambda: client.connection(connections.name(next_number())),
            "apply one, unchanged": lambda: client.apply([connections.message(next_number())]),
            "apply one, changed": lambda: client.apply([connections.message(next_number(), dpd_delay_s=17)]),
            "status": client.status,
        }
        for name, call in kinds.items():
            times = [await _timed(call) for _ in range(CALLS)]
            calls.append(Call.of(name, times))
    return calls


async def measure_watchers(directory: Path, many: int) -> Watching:
    """Let so many watch a busy controller, of which connections also come and go.

    Raises:
        ApiBenchError: A watcher's view is wrong in the end.
    """
    with subject(directory, "--busy", str(_BUSY_PER_S)) as (address, pid):
        clients = [ControlClient(address, deadline_s=_PATIENCE_S) for _ in range(_WATCH_CHANNELS)]
        try:
            await clients[0].apply([connections.message(number) for number in range(_WATCHED)])
            views = [ConnectionView() for _ in range(many)]
            told = [0] * many
            ready = [asyncio.Event() for _ in range(many)]
            tasks = [
                asyncio.create_task(
                    _watch(clients[i % _WATCH_CHANNELS], view, told, i, ready[i]), name=f"watcher-{i}"
                )
                for i, view in enumerate(views)
            ]
            for task, event in zip(tasks, ready, strict=True):
                waiting = asyncio.create_task(event.wait(), name="watcher-ready")
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if task.done():
                    raise ApiBenchError(f"a watch ended: {task.exception()}")
            before = usage_of(pid)
            began, at_first = time.perf_counter(), sum(told)
            step = 0
            while time.perf_counter() - began < _WATCH_S:
                step += 1
                number = step % _WATCHED
                await clients[0].delete([connections.name(number)])
                await clients[0].apply([connections.message(number, dpd_delay_s=1 + step)])
                await asyncio.sleep(0.05)
            elapsed, messages = time.perf_counter() - began, sum(told) - at_first
            after = usage_of(pid)
            wrong = await _wrong_views(clients[0], views)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for client in clients:
                await client.close()
    if wrong:
        raise ApiBenchError(f"{wrong} of {many} watchers have a wrong view in the end")
    return Watching(
        watchers=many,
        changes_per_s=_BUSY_PER_S + 2 * step / elapsed,
        messages_per_s=messages / elapsed,
        resident_before=before.resident_bytes,
        resident_after=after.resident_bytes,
        wrong=wrong,
    )


async def _watch(
    client: ControlClient, view: ConnectionView, told: list[int], number: int, ready: asyncio.Event
) -> None:
    async for response in client.watch(mask=["generation", "etag", "status.state"]):
        view.take(response)
        told[number] += 1
        if view.is_synced:
            ready.set()


async def _wrong_views(client: ControlClient, views: list[ConnectionView]) -> int:
    """Return how many views differ from what is listed, once they had time to hear of everything."""
    deadline = time.perf_counter() + _PATIENCE_S / 5
    while True:
        listed = {entry.connection.name: entry.etag for entry in await client.connections()}
        wrong = sum({name: entry.etag for name, entry in view.entries.items()} != listed for view in views)
        if not wrong or time.perf_counter() > deadline:
            return wrong
        await asyncio.sleep(0.2)
