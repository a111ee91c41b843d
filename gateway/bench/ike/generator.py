"""A process that makes handshakes over UDP, some at a time, and times each.

    python -m gateway.bench.ike.generator LOCAL REMOTE --suite NAME --first N --count N --concurrency N

prints one JSON object: `established`, `failed`, `elapsed_s`, `latencies_ms`. The SAs are left with the
responder.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path

from gateway.bench.ike.pki import Pki
from gateway.bench.ike.station import Station
from gateway.bench.ike.suites import (
    CHILD,
    DEFAULT_SUITE,
    Suite,
    find_suites,
    initiator_name,
    initiators,
)
from gateway.ike.events import ChildSaEstablished, ChildSaFailed, Event, IkeSaFailed
from gateway.ipsec.sa import IpAddress


@dataclass(slots=True)
class Outcome:
    """What came of all handshakes."""

    established: int = 0
    failed: int = 0
    elapsed_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """The first few reasons."""


class Generator:
    """Keeps a number of handshakes under way until all are done."""

    def __init__(
        self,
        local: IpAddress,
        remote: IpAddress,
        suite: Suite,
        numbers: range,
        *,
        concurrency: int,
        pki: Pki | None,
    ) -> None:
        self.outcome = Outcome()
        self._done = asyncio.Event()
        self._waiting = iter(numbers)
        self._total = len(numbers)
        self._concurrency = concurrency
        self._began: dict[str, float] = {}
        connections = initiators(suite, numbers, local=local, remote=remote, dpd_delay_s=0.0, pki=pki)
        self._station = Station(local, connections, pki, self._on_event)

    async def run(self, limit_s: float) -> Outcome:
        """Make every handshake; those that are not done in time count as failed."""
        began = time.perf_counter()
        for _ in range(self._concurrency):
            self._begin_next()
        try:
            async with asyncio.timeout(limit_s):
                await self._done.wait()
        except TimeoutError:
            self.outcome.failures.append(f"not done within {limit_s} s")
        self.outcome.elapsed_s = time.perf_counter() - began
        self.outcome.failed = self._total - self.outcome.established
        self._station.close()
        return self.outcome

    def _begin_next(self) -> None:
        number = next(self._waiting, None)
        if number is None:
            if not self._began:
                self._done.set()
            return
        name = initiator_name(number)
        self._began[name] = time.perf_counter()
        self._station.driver.command(lambda endpoint, now: endpoint.initiate(name, CHILD, now))

    def _on_event(self, event: Event) -> None:
        match event:
            case ChildSaEstablished(child_sa=child_sa):
                self._end(child_sa.connection, "")
            case ChildSaFailed(connection=name, failure=failure):
                self._end(name, failure.detail)
            case IkeSaFailed(ike_sa=ike_sa, failure=failure):
                self._end(ike_sa.connection, failure.detail)

    def _end(self, name: str, problem: str) -> None:
        began = self._began.pop(name, None)
        if began is None:
            return
        if problem:
            self.outcome.failures = [*self.outcome.failures[:4], f"{name}: {problem}"]
        else:
            self.outcome.established += 1
            self.outcome.latencies_ms.append((time.perf_counter() - began) * 1000)
        # Not from within the driver's own draining: a long chain would never let it read its sockets.
        asyncio.get_running_loop().call_soon(self._begin_next)


async def _generate(options: argparse.Namespace) -> Outcome:
    numbers = range(options.first, options.first + options.count)
    suite = find_suites([options.suite])[0]
    pki = None if options.pki is None else Pki(options.pki)
    generator = Generator(
        options.local, options.remote, suite, numbers, concurrency=options.concurrency, pki=pki
    )
    return await generator.run(options.limit)


def main() -> int:
    """Parse the command line, make the handshakes, print the outcome."""
    parser = argparse.ArgumentParser(description="Make IKEv2 handshakes for a measurement.")
    parser.add_argument("local", type=ip_address)
    parser.add_argument("remote", type=ip_address)
    parser.add_argument("--suite", default=DEFAULT_SUITE.name)
    parser.add_argument("--first", type=int, default=0, help="number of the first initiator")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--pki", type=Path, help="directory of keys and certificates")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for all of them")
    outcome = asyncio.run(_generate(parser.parse_args()))
    print(json.dumps(asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
