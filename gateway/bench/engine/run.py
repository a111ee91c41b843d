"""Run `hw/engine/bench` and read what it measured."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from gateway.bench.engine.plan import CRYPTO, DIRECT, OPEN, SEAL, TURNS, Measure
from gateway.datapath.engine.core import EngineError, library_path
from gateway.hardware.cpu import parse_cpu
from gateway.hardware.readings import read_text

_TIMEOUT_S: Final = 1800.0
_QUARTERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure."""

    rounds: int
    packets: int
    """Per measure and round."""
    burst: int
    cpu: int | None
    """Where to run; `None`: wherever the kernel puts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measure: cycles of the time stamp counter for one packet."""

    measure: Measure
    rounds: tuple[float, ...]

    @property
    def cycles(self) -> float:
        """Return the median round."""
        return median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the first and third quartile of the rounds."""
        if len(self.rounds) < 2:
            return self.rounds[0], self.rounds[0]
        first, _, third = quantiles(self.rounds, n=_QUARTERS, method="inclusive")
        return first, third


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run."""

    machine: dict[str, str]
    counter_hz: float
    results: tuple[Result, ...]

    def nanoseconds(self, result: Result) -> float:
        """Return the time of one packet."""
        return result.cycles / self.counter_hz * 1e9

    def gigabits(self, result: Result) -> float:
        """Return the rate of one core in Gb/s of inner packets."""
        return result.measure.packet_bytes * 8 / self.nanoseconds(result)

    def ratio(self, result: Result) -> float | None:
        """Return the speed beside the crypto library alone: same size, one key, round by round."""
        base = self._find((DIRECT, CRYPTO), result, sas=1, order=TURNS)
        return None if base is None or base is result else _paired(base, result)

    def own_ratio(self, result: Result) -> float | None:
        """Return the speed beside the crypto library alone under as many keys, in the same order."""
        measure = result.measure
        base = self._find((DIRECT,), result, sas=measure.sas, order=measure.order)
        return None if base is None or base is result else _paired(base, result)

    def slowdown(self, result: Result) -> float | None:
        """Return by what part the many SAs of a measure are slower than one."""
        base = self._find((result.measure.what,), result, sas=1, order=TURNS)
        return None if base is None or base is result else 1 / _paired(base, result) - 1

    def _find(self, whats: Sequence[str], like: Result, *, sas: int, order: str) -> Result | None:
        wanted = (like.measure.suite, like.measure.crypto, like.measure.packet_bytes, sas, order)
        for result in self.results:
            measure = result.measure
            found = (measure.suite, measure.crypto, measure.packet_bytes, measure.sas, measure.order)
            if measure.what in whats and found == wanted:
                return result
        return None

    def to_json(self) -> str:
        """Return everything, the figure of each round included."""
        return json.dumps(
            {
                "machine": self.machine,
                "counter_hz": self.counter_hz,
                "results": [self._row(result) for result in self.results],
            },
            indent=2,
        )

    def _row(self, result: Result) -> dict[str, Any]:
        measure = result.measure
        return {
            "what": measure.what,
            "suite": measure.suite.name,
            "library": measure.crypto.name.lower(),
            "packet_bytes": measure.packet_bytes,
            "sas": measure.sas,
            "order": measure.order,
            "cycles": result.cycles,
            "cycles_quartiles": result.spread,
            "nanoseconds": round(self.nanoseconds(result), 2),
            "gigabits_per_second": round(self.gigabits(result), 2),
            "speed_beside_crypto_alone": self.ratio(result) if measure.what in (SEAL, OPEN) else None,
            "speed_beside_crypto_with_as_many_keys": (
                self.own_ratio(result) if measure.what in (SEAL, OPEN) else None
            ),
            "slower_than_one_sa": self.slowdown(result),
            "rounds": result.rounds,
        }


def _paired(base: Result, result: Result) -> float:
    """Return base cycles over the result's: the median of the rounds' ratios."""
    return median(b / r for b, r in zip(base.rounds, result.rounds, strict=True))


def bench_path() -> Path:
    """Return where `make engine` puts the program: beside the library."""
    return library_path().with_name("bench")


def run(measures: Sequence[Measure], effort: Effort) -> Results:
    """Measure everything in turns, in one process.

    Raises:
        EngineError: The program is not there, or fails.
    """
    program = bench_path()
    command = [str(program), str(effort.rounds), str(effort.packets), str(effort.burst)]
    command += [measure.spec for measure in measures]
    if effort.cpu is not None:
        command = ["taskset", "-c", str(effort.cpu), *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except OSError as error:
        raise EngineError(f"cannot run {command[0]}: {error}; `make engine` builds the engine") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{program} did not end within {_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise EngineError(f"{program} failed: {done.stderr.strip() or f'status {done.returncode}'}")
    return read_results(done.stdout, measures)


def read_results(text: str, measures: Sequence[Measure]) -> Results:
    """Return what the program printed for these measures."""
    printed = json.loads(text)
    return Results(
        machine=_machine(printed["ipsec_mb"], printed["openssl"]),
        counter_hz=printed["counter_hz"],
        results=tuple(
            Result(measure=measure, rounds=tuple(printed["cycles"][measure.spec])) for measure in measures
        ),
    )


def _machine(ipsec_mb: str, openssl: str) -> dict[str, str]:
    return {
        "ipsecgw": version("ipsec-gateway"),
        "ipsec-mb": ipsec_mb.removeprefix("ipsec-mb "),
        "openssl": openssl.removeprefix("OpenSSL "),
        "kernel": platform.release(),
        "cpu": parse_cpu(read_text(Path("/proc/cpuinfo")), platform.machine()).model,
        "cpus": str(os.cpu_count()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
