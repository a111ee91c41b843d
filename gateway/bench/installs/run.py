"""Install SAs in an agent over its datapath API, in batches, and take them out again.

While the agent has one call in hand the next is made, as many at once as is wanted.
The agent is a process of its own in a network namespace; it carries no packets meanwhile. CPU time is that of
the agent with its children (espd is one), and apart from it our own, which makes and reads the messages.
There are no SPD entries: what these cost depends on how a placement has traffic led to it.
"""

import asyncio
import json
import os
import platform
import secrets
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, TypeVar

from gateway.api.address import UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.bench.agent import socket_path
from gateway.bench.cpu import process_cpu_s
from gateway.bench.path.gateway import NotPlaced, running_gateway
from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from gateway.datapath.backend import ItemResult
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

T = TypeVar("T")

MOST: Final = 16_000
"""SAs: each pair has a /24 of 100.64.0.0/10 behind it."""
_PATIENCE_S: Final = 300.0
_TENTHS: Final = 10
_LOCAL: Final = IPv4Address("192.0.2.1")
_PEER: Final = IPv4Address("192.0.2.2")
_FIRST_SPI: Final = {Direction.OUTBOUND: 0x0100_0000, Direction.INBOUND: 0x0200_0000}
_CONNECTION: Final = "bench"


class InstallsError(GatewayError):
    """An SA was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be measured."""

    placements: tuple[Engine, ...]
    sas: int
    batch: int
    in_flight: int
    """Calls that are not answered yet, at most."""
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One agent, from the first SA to the last; rates are per second."""

    rate: float
    first_tenth: float
    last_tenth: float
    agent_us: float
    """CPU time of the agent with its children for each SA, in microseconds."""
    client_us: float
    """Our own."""
    list_s: float
    removed_rate: float


@dataclass(slots=True)
class Results:
    """Everything measured; rounds by engine."""

    machine: dict[str, str]
    sas: int
    batch: int
    in_flight: int
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the results as JSON."""
        return json.dumps(asdict(self), indent=2)


def run(wanted: Wanted, say: Callable[[str], None]) -> Results:
    """Measure, the engines by turns; `say` is told what is being measured.

    Raises:
        InstallsError: Something was refused.
    """
    results = Results(machine=_machine(), sas=wanted.sas, batch=wanted.batch, in_flight=wanted.in_flight)
    absent: set[Engine] = set()
    with tempfile.TemporaryDirectory(prefix="ipsecgw-bench-") as name:
        for number in range(wanted.rounds):
            for engine in wanted.placements:
                if engine in absent:
                    continue
                say(f"round {number + 1} of {wanted.rounds}: {engine.value}, {wanted.sas} SAs")
                try:
                    row = _measure_agent(Path(name) / f"{engine.value}-{number}", engine, wanted)
                except NotPlaced as error:
                    absent.add(engine)
                    results.left_out.append(f"{engine.value}: {error}")
                    continue
                results.rounds.setdefault(engine.value, []).append(row)
    return results


def _measure_agent(directory: Path, engine: Engine, wanted: Wanted) -> Round:
    namespace = make_namespace(f"installs{os.getpid()}")
    try:
        _give_addresses(namespace)
        with running_gateway(namespace, directory, engine) as gateway:
            return asyncio.run(measure(socket_path(directory), gateway.pid, engine, wanted))
    finally:
        delete_namespace(namespace)


def _give_addresses(namespace: Namespace) -> None:
    namespace.run("ip", "link", "set", "lo", "up")
    namespace.run("ip", "link", "add", "outer", "type", "veth", "peer", "name", "far")
    namespace.run("ip", "address", "add", f"{_LOCAL}/24", "dev", "outer")
    namespace.run("ip", "link", "set", "far", "up")
    namespace.run("ip", "link", "set", "outer", "up")


async def measure(socket: Path, pid: int, engine: Engine, wanted: Wanted) -> Round:
    """Install SAs in an agent, list them, and remove them.

    Raises:
        InstallsError: One was refused.
    """
    sas = [sa for index in range(wanted.sas // 2) for sa in pair_of(index, engine)]
    client = DatapathClient(UnixAddress(socket), deadline_s=_PATIENCE_S)
    try:
        agent_before, own_before = process_tree_cpu_s(pid), time.process_time()
        marks = [time.perf_counter()]
        marks += [time.perf_counter() async for _ in _calls(client.install_sas, sas, wanted)]
        own_s, agent_s = time.process_time() - own_before, process_tree_cpu_s(pid) - agent_before
        listed = await client.list_sas()
        list_s = time.perf_counter() - marks[-1]
        if len(listed) != len(sas) or {item.placement for item in listed} != {engine}:
            raise InstallsError(f"{len(listed)} of {len(sas)} SAs are there, or they are elsewhere")
        began = time.perf_counter()
        async for _ in _calls(client.remove_sas, [sa.sa_id for sa in sas], wanted):
            pass
        removed_s = time.perf_counter() - began
    finally:
        await client.close()
    return Round(
        agent_us=agent_s / len(sas) * 1e6,
        client_us=own_s / len(sas) * 1e6,
        list_s=list_s,
        removed_rate=len(sas) / removed_s,
        **_rates(marks, wanted.batch, len(sas)),
    )


def _rates(marks: Sequence[float], batch: int, sas: int) -> dict[str, float]:
    tenth = max(1, (len(marks) - 1) // _TENTHS)
    last = sas - batch * (len(marks) - 1 - tenth)
    return {
        "rate": sas / (marks[-1] - marks[0]),
        "first_tenth": min(tenth * batch, sas) / (marks[tenth] - marks[0]),
        "last_tenth": last / (marks[-1] - marks[-1 - tenth]),
    }


def process_tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of all that it has started and that run."""
    total = process_cpu_s(pid)
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        total += sum(process_tree_cpu_s(int(child)) for child in children.read_text().split())
    return total


async def _calls(
    call: Callable[[Sequence[T]], Coroutine[None, None, Sequence[ItemResult]]],
    items: Sequence[T],
    wanted: Wanted,
) -> AsyncIterator[None]:
    """Make a call for each batch, and yield when each is answered, the first first."""
    in_flight: deque[asyncio.Task[Sequence[ItemResult]]] = deque()
    for start in range(0, len(items), wanted.batch):
        in_flight.append(asyncio.create_task(call(items[start : start + wanted.batch])))
        if len(in_flight) == wanted.in_flight:
            _check(await in_flight.popleft())
            yield
    while in_flight:
        _check(await in_flight.popleft())
        yield


def _check(results: Sequence[ItemResult]) -> None:
    for result in results:
        if result.error is not None:
            raise InstallsError(f"{result.name}: {result.error}")


# --- what is installed ------------------------------------------------------------------------------


def pair_of(index: int, engine: Engine) -> tuple[SecurityAssociation, SecurityAssociation]:
    """Return the inbound and the outbound SA of one Child SA, with new keys."""
    inbound, outbound = (_sa(index, way, engine) for way in (Direction.INBOUND, Direction.OUTBOUND))
    return inbound, outbound


def _sa(index: int, direction: Direction, engine: Engine) -> SecurityAssociation:
    is_out = direction is Direction.OUTBOUND
    return SecurityAssociation(
        spi=Spi(_FIRST_SPI[direction] + index),
        direction=direction,
        source=_LOCAL if is_out else _PEER,
        destination=_PEER if is_out else _LOCAL,
        encryption=Encr.AES_GCM_16,
        encryption_key=Secret(secrets.token_bytes(36)),
        key_bits=256,
        local_ts=_selectors("10.0.0.0/8"),
        remote_ts=_selectors(_network(index)),
        connection=_CONNECTION,
        child=str(index),
        child_sa_id=index + 1,
        placement=Placement(require=engine),
    )


def _selectors(network: str) -> tuple[TrafficSelector, ...]:
    return (TrafficSelector.parse(network),)


def _network(index: int) -> str:
    return f"100.{64 + (index >> 8)}.{index & 255}.0/24"


def _machine() -> dict[str, str]:
    return {
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ipsecgw": version("ipsec-gateway"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
