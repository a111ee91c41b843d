"""A controller that keeps its state is killed at any instant: nothing is half-applied, nothing is lost.

The controller is a process of its own, forked from one that has everything loaded; its datapath is in this
process and lives on, as an agent would.
"""

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from gateway.api.address import UnixAddress, parse_address
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.api.errors import ApiError
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.bench.api import subject
from gateway.bench.api.still_datapath import StillDatapath
from gateway.controller.applying import NOT_PROTECTED_YET

NAMES = [f"c{number:02}" for number in range(12)]
LONGEST_S = 0.08
"""From the first call to the kill: long enough for some dozens of calls."""
START_S = 0.25
"""One in five is killed this early or earlier after it began, mostly before it serves."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["gateway.bench.api.subject"])


def _run(socket: str, state: str, datapath: str) -> None:
    """The process that is killed."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):

        async def run() -> None:
            client = DatapathClient(parse_address(datapath), patience_s=0.0)
            await subject.serve(Path(socket), state=Path(state), datapath=client)

        asyncio.run(run())


def connection(name: str, version: int) -> cpb.Connection:
    """Return a connection with its version in its key, its timers and its SPD entry."""
    number = NAMES.index(name)
    message = cpb.Connection(
        name=name,
        local=cpb.Side(address="192.0.2.1"),
        remote=cpb.Side(address=f"198.51.100.{number + 1}"),
        children=[
            cpb.Child(
                name="lan",
                local_ts=["10.0.0.0/16"],
                remote_ts=[f"10.{number + 1}.0.0/16"],
                priority=version,
            )
        ],
    )
    message.local.auth.psk.value = f"secret {version}"
    message.ike.dpd_delay.seconds = version
    return message


@dataclass
class World:
    """What the client knows of the controller: what was acknowledged, and the one call that was not."""

    rng: random.Random
    version: int = 0
    known: dict[str, int] = field(default_factory=dict)
    """By name: the version that was acknowledged."""
    under_way: dict[str, int] | None = None
    """What all of it would be, were the call done that nobody answered."""
    waiting: set[str] = field(default_factory=set)
    """What was taken while the controller had lost its datapath for a moment, and said so."""

    async def work(self, client: ControlClient) -> None:
        """Apply and delete at random until somebody kills the controller."""
        while True:
            self.version += 1
            chosen = self.rng.sample(NAMES, self.rng.randint(1, len(NAMES)))
            action = self.rng.choice(("apply", "apply", "prune", "delete"))
            if action == "delete":
                future = {name: v for name, v in self.known.items() if name not in chosen}
            else:
                kept = {} if action == "prune" else self.known
                future = {**kept, **dict.fromkeys(chosen, self.version)}
            self.under_way = future
            if action == "delete":
                await client.delete(chosen)
            else:
                messages = [connection(name, self.version) for name in chosen]
                results = await client.apply(messages, prune=action == "prune")
                self.waiting |= {result.name for result in results if NOT_PROTECTED_YET in result.warnings}
            self.known, self.under_way = future, None


async def _wait_for(socket: Path, process: BaseProcess) -> None:
    while not os.path.exists(socket):  # noqa: ASYNC240 - it takes no time
        assert process.is_alive(), "the controller did not start"
        await asyncio.sleep(0.005)


async def _kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.join)


def _check_protection(world: World, datapath: StillDatapath) -> None:
    """While nobody is alive, whatever was acknowledged, and not being deleted, is protected."""
    surely = set(world.known) & set(world.known if world.under_way is None else world.under_way)
    missing = {name for name in surely - world.waiting if f"{name}/lan" not in datapath.policies}
    assert not missing, f"not protected while the controller is dead: {missing}"


async def _check_state(world: World, client: ControlClient, datapath: StillDatapath) -> None:
    """What the next controller has is what was acknowledged, or that and the whole of one call more."""
    entries = {entry.connection.name: entry for entry in await client.connections()}
    found = {name: entry.connection.children[0].priority for name, entry in entries.items()}
    assert found in (world.known, world.under_way), (world.known, world.under_way)
    for entry in entries.values():
        assert entry.connection.ike.dpd_delay.seconds == entry.connection.children[0].priority
        assert entry.status.observed_generation == entry.generation
    policies = {name.partition("/")[0]: policy.priority for name, (policy, _) in datapath.policies.items()}
    assert policies == found
    again = await client.apply([connection(name, version) for name, version in found.items()])
    assert {result.applied for result in again} <= {pb.APPLIED_UNCHANGED}, "a key is not the one it was"
    world.known, world.under_way, world.waiting = found, None, set()


async def _kill_often(times: int, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    world, datapath = World(rng), StillDatapath()
    socket, address = tmp_path / "control.sock", UnixAddress(tmp_path / "datapath.sock")
    server = ApiServer([Listener(address=address)], datapath=datapath)
    await server.start()
    try:
        for _ in range(times):
            socket.unlink(missing_ok=True)
            process = _processes.Process(
                target=_run, args=(str(socket), str(tmp_path / "state"), str(address))
            )
            await asyncio.to_thread(process.start)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.uniform(0.0, START_S))
                await _kill(process)
                _check_protection(world, datapath)
                continue
            await _wait_for(socket, process)
            async with ControlClient(UnixAddress(socket)) as client:
                await _check_state(world, client, datapath)
                working = asyncio.create_task(world.work(client), name="work")
                await asyncio.sleep(rng.uniform(0.0, LONGEST_S))
                await _kill(process)
                with pytest.raises(ApiError):
                    await working
            _check_protection(world, datapath)
        assert world.version > times // 2, "hardly anything was under way"
    finally:
        await server.stop(grace_s=0)


async def test_nothing_is_half_applied_when_the_controller_is_killed_twenty_times(tmp_path: Path) -> None:
    await _kill_often(20, tmp_path, seed=1)


@pytest.mark.slow
async def test_nothing_is_half_applied_when_the_controller_is_killed_a_thousand_times(tmp_path: Path) -> None:
    await _kill_often(1000, tmp_path, seed=2)
