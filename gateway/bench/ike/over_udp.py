"""Handshakes between two processes in two namespaces: our responder, and charon's beside it in the same run.

    PREFIX-load  192.0.2.1 ──── 192.0.2.2  PREFIX-peer

The initiators are ours both times, so that only the responder differs. Its CPU time is read from /proc: the
whole process, sockets and event loop included.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from gateway.bench.ike.charon import charon
from gateway.bench.ike.in_memory import BenchFailed
from gateway.bench.ike.pki import Pki
from gateway.bench.ike.suites import RESPONDER_GATEWAY, Suite
from gateway.bench.ike.usage import usage_of
from gateway.bench.topology import Link, Namespace, connect, delete_namespace, make_namespace

LOAD: Final = "192.0.2.1"
PEER: Final = "192.0.2.2"
_WARM_UP: Final = 20
_ROUNDS: Final = 5
_CONCURRENCY: Final = 4
"""Few enough that no responder asks for cookies."""


@dataclass(frozen=True, slots=True)
class Bed:
    """The two namespaces and a directory for files."""

    load: Namespace
    peer: Namespace
    directory: Path

    def pki(self, suite: Suite) -> Pki | None:
        """Return the keys and certificates of a suite, made at first use; None where it signs nothing."""
        if not suite.keys:
            return None
        directory = self.directory / suite.keys
        return Pki(directory) if directory.exists() else Pki.make(suite.keys, directory)

    def options(self, suite: Suite) -> list[str]:
        """Return the options of both our processes for a suite."""
        pki = self.pki(suite)
        return ["--suite", suite.name, *(() if pki is None else ("--pki", str(pki.directory)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpCost:
    """What one responder's handshakes cost over UDP; medians of rounds, with the spread."""

    responder: str
    suite: str
    handshakes: int
    cpu_ms: float
    cpu_ms_range: tuple[float, float]
    rate: float
    """Handshakes per second as they were made, by one initiating process."""
    latency_ms: float
    bytes_per_sa: float
    """Growth of the responder's resident memory per IKE SA with its Child SA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodResult:
    """What honest initiators see while a responder is flooded with forged IKE_SA_INIT requests."""

    responder: str
    flood_pps: float
    """Forged requests per second that were sent."""
    honest: int
    established: int
    latency_ms_p50: float
    latency_ms_p99: float
    resident_before: int
    resident_after: int
    """Resident memory of the responder in bytes, before the flood and at its end."""


@contextmanager
def bed(prefix: str, directory: Path) -> Iterator[Bed]:
    """Make the namespaces and take them away at the end."""
    made: list[Namespace] = []
    try:
        for role in ("load", "peer"):
            made.append(make_namespace(f"{prefix}-{role}"))  # noqa: PERF401 - what was made must be known
        load, peer = made
        connect(
            Link(
                left=load,
                left_device="outside",
                left_addresses=(f"{LOAD}/24",),
                right=peer,
                right_device="outside",
                right_addresses=(f"{PEER}/24",),
            )
        )
        # kernel-libipsec wants an address of its own inside what it protects.
        peer.run("ip", "address", "add", f"{RESPONDER_GATEWAY}/32", "dev", "lo")
        # Answers to forged addresses leave, and end at the other side.
        peer.run("ip", "route", "add", "default", "via", LOAD)
        load.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        yield Bed(load, peer, directory)
    finally:
        for namespace in made:
            delete_namespace(namespace)


@contextmanager
def our_responder(bed_: Bed, suite: Suite) -> Iterator[int]:
    """Run our responder; yields its PID.

    Raises:
        BenchFailed: It did not start.
    """
    process = _python(bed_.peer, "responder", PEER, *bed_.options(suite))
    try:
        _await_ready(process, "our responder")
        yield process.pid
    finally:
        process.kill()
        process.wait(10)


def their_responder(bed_: Bed, suite: Suite, *, dos_protection: bool = False) -> AbstractContextManager[int]:
    """Run charon with a directory of its own; yields its PID."""
    number = sum(1 for _ in bed_.directory.iterdir())
    return charon(
        bed_.peer,
        bed_.directory / f"charon{number}",
        suite,
        address=PEER,
        dos_protection=dos_protection,
        pki=bed_.pki(suite),
    )


def measure_responder(bed_: Bed, name: str, pid: int, suite: Suite, handshakes: int) -> UdpCost:
    """Measure the CPU time, the rate and the memory of a running responder.

    Raises:
        BenchFailed: A handshake did not come up.
    """
    per_round = max(1, handshakes // _ROUNDS)
    _generate(bed_, suite, first=0, many=_WARM_UP)
    usages = [usage_of(pid)]
    outcomes = []
    for number in range(_ROUNDS):
        outcomes.append(_generate(bed_, suite, first=_WARM_UP + number * per_round, many=per_round))
        usages.append(usage_of(pid))
    costs = [(after.cpu_s - before.cpu_s) * 1000 / per_round for before, after in pairwise(usages)]
    return UdpCost(
        responder=name,
        suite=suite.name,
        handshakes=per_round * _ROUNDS,
        cpu_ms=statistics.median(costs),
        cpu_ms_range=(min(costs), max(costs)),
        rate=statistics.median(per_round / outcome["elapsed_s"] for outcome in outcomes),
        latency_ms=statistics.median(ms for outcome in outcomes for ms in outcome["latencies_ms"]),
        bytes_per_sa=(usages[-1].resident_bytes - usages[0].resident_bytes) / (per_round * _ROUNDS),
    )


def measure_flood(bed_: Bed, name: str, pid: int, suite: Suite, *, rate: int, seconds: float) -> FloodResult:
    """Flood a running responder and make honest handshakes one after the other meanwhile.

    Raises:
        BenchFailed: The flood did not start.
    """
    before = usage_of(pid)
    flood = _python(bed_.load, "flood", PEER, "--rate", str(rate), "--seconds", str(seconds))
    try:
        _await_ready(flood, "the flood")
        honest, latencies, established = 0, [], 0
        while flood.poll() is None:
            outcome = _run_generator(bed_, suite, first=honest, many=25, concurrency=1, limit_s=seconds)
            honest += 25
            established += outcome["established"]
            latencies += outcome["latencies_ms"]
        after = usage_of(pid)
        told = json.loads(flood.communicate()[0])
    finally:
        flood.kill()
        flood.wait(10)
    latencies = sorted(latencies) or [float("inf")]
    return FloodResult(
        responder=name,
        flood_pps=told["sent"] / told["elapsed_s"],
        honest=honest,
        established=established,
        latency_ms_p50=latencies[len(latencies) // 2],
        latency_ms_p99=latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
        resident_before=before.resident_bytes,
        resident_after=after.resident_bytes,
    )


def _generate(bed_: Bed, suite: Suite, *, first: int, many: int) -> dict[str, Any]:
    outcome = _run_generator(bed_, suite, first=first, many=many, concurrency=_CONCURRENCY, limit_s=120.0)
    if outcome["failed"]:
        raise BenchFailed(f"{outcome['failed']} of {many} handshakes failed: {outcome['failures']}")
    return outcome


def _run_generator(
    bed_: Bed, suite: Suite, *, first: int, many: int, concurrency: int, limit_s: float
) -> dict[str, Any]:
    options = {
        "suite": suite.name,
        "first": first,
        "count": many,
        "concurrency": concurrency,
        "limit": limit_s,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    process = _python(bed_.load, "generator", LOAD, PEER, *bed_.options(suite), *words)
    output, errors = process.communicate(timeout=limit_s + 30)
    if process.returncode != 0:
        raise BenchFailed(f"the initiators ended with {process.returncode}: {errors.strip()[-500:]}")
    outcome: dict[str, Any] = json.loads(output)
    return outcome


def _python(namespace: Namespace, module: str, *arguments: str) -> "subprocess.Popen[str]":
    return namespace.popen(
        *(sys.executable, "-m", f"gateway.bench.ike.{module}", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _await_ready(process: "subprocess.Popen[str]", who: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        errors = process.communicate()[1]
        raise BenchFailed(f"{who} did not start: {errors.strip()[-500:]}")
