"""Print what mirroring many routes costs: `python -m tests.espd.measure_routes [ROUTES]`, as root.

In a network namespace of its own, with an espd that has one interface. CPU time is that of this process and
its threads, median of rounds, with the lowest and the highest.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pyroute2 import IPRoute

from gateway.datapath.engine.backend import EngineBackend
from gateway.host.routing_mirror import RoutingMirror
from tests.conformance.conftest import OUR_ADDRESSES, engine_options
from tests.conformance.namespace import fresh_network_namespace

_ROUNDS: Final = 7


def _ip_batch(lines: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, capture_output=True)


def _said(what: str, times: list[tuple[float, float]]) -> None:
    elapsed, cpu = zip(*times, strict=True)
    print(
        f"{what:55} {statistics.median(elapsed) * 1e3:9.1f} ms ({min(elapsed) * 1e3:.1f} to "
        f"{max(elapsed) * 1e3:.1f}), CPU {statistics.median(cpu) * 1e3:.1f} ms"
    )


async def _timed(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    begun, cpu = time.monotonic(), time.process_time()
    await call()
    return time.monotonic() - begun, time.process_time() - cpu


def _timed_call(call: Callable[[], object]) -> tuple[float, float]:
    begun, cpu = time.monotonic(), time.process_time()
    call()
    return time.monotonic() - begun, time.process_time() - cpu


def _measure_reading(netlink: IPRoute) -> None:
    def pyroute2() -> None:
        for family in (2, 10):
            for message in netlink.get_routes(family=family):
                dict(message["attrs"])

    def anew() -> None:
        mirror = RoutingMirror([48])
        mirror.follow(netlink)
        mirror.close()

    _said("all routes, by pyroute2", [_timed_call(pyroute2) for _ in range(1)])
    _said("all routes, by the mirror", [_timed_call(anew) for _ in range(_ROUNDS)])
    mirror = RoutingMirror([48])
    mirror.follow(netlink)
    _said("nothing new, in the mirror", [_timed_call(lambda: mirror.follow(netlink)) for _ in range(_ROUNDS)])
    times = []
    for number in range(_ROUNDS):
        _ip_batch([f"route add 100.64.{number}.0/24 via 192.0.2.2"])
        times.append(_timed_call(lambda: mirror.follow(netlink)))
    _said("one new route, in the mirror", times)
    mirror.close()


async def _measure_espd(folder: Path) -> None:
    backend = EngineBackend(engine_options("engine_live", state_dir=folder))
    await backend.start()
    try:

        async def all_of_it() -> None:
            async with backend._lock:
                await backend._start_over()

        async def what_is_new() -> None:
            async with backend._lock:
                await backend._fast.mirror()

        _said("all routes told espd", [await _timed(all_of_it) for _ in range(_ROUNDS)])
        _said("nothing new for espd", [await _timed(what_is_new) for _ in range(_ROUNDS)])
        times = []
        for number in range(_ROUNDS):
            await asyncio.to_thread(_ip_batch, [f"route add 100.65.{number}.0/24 via 192.0.2.2"])
            times.append(await _timed(what_is_new))
        _said("one new route told espd", times)
    finally:
        await backend.remove_protection()
        await backend.close()


def main() -> None:
    """Measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with fresh_network_namespace(*OUR_ADDRESSES), TemporaryDirectory() as folder:
        _ip_batch([f"route add 10.{n >> 8 & 255}.{n & 255}.0/24 via 192.0.2.2" for n in range(count)])
        with IPRoute() as netlink:
            _measure_reading(netlink)
        asyncio.run(_measure_espd(Path(folder)))


if __name__ == "__main__":
    main()
