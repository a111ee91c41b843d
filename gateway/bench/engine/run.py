"""Run `hw/engine/bench` and read what it measured."""

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import IO, Any, Final

from gateway.bench.engine.plan import CRYPTO, DIRECT, OPEN, SEAL, TURNS, Measure
from gateway.bench.machine import describe_machine, name_crypto
from gateway.datapath.engine.core import EngineError, library_path

_TIMEOUT_S: Final = 1800.0
_QUARTERS: Final = 4
_PROGRESS: Final = "round "
"""How a line of the program begins that says how far it is; any other is an error."""


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


def run(measures: Sequence[Measure], effort: Effort, say: Callable[[str], None] | None = None) -> Results:
    """Measure everything in turns, in one process.

    Args:
        measures: What.
        effort: For how long.
        say: Told at the beginning of each round: `round 2 of 15`.

    Raises:
        EngineError: The program is not there, or fails.
    """
    command = [str(bench_path()), str(effort.rounds), str(effort.packets), str(effort.burst)]
    command += [measure.spec for measure in measures]
    if effort.cpu is not None:
        command = ["taskset", "-c", str(effort.cpu), *command]
    # What it prints goes to a file: a pipe that nobody empties would stop it while we read the other one.
    with tempfile.TemporaryFile("w+") as printed:
        _run_program(command, printed, say or (lambda _: None))
        printed.seek(0)
        return read_results(printed.read(), measures)


def _run_program(command: Sequence[str], printed: IO[str], say: Callable[[str], None]) -> None:
    """Run it to its end, hearing how far it is; what it prints goes to a file.

    Raises:
        EngineError: It is not there, fails, or takes too long; the text is what else it said.
    """
    try:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise EngineError(f"cannot run {command[0]}: {error}; `make engine` builds the engine") from error
    is_late = threading.Event()

    def end_it() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(_TIMEOUT_S, end_it)
    timer.start()
    errors = []
    try:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                if line.startswith(_PROGRESS):
                    say(line.rstrip())
                else:
                    errors.append(line)
        process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if is_late.is_set():
        raise EngineError(f"{bench_path()} did not end within {_TIMEOUT_S:.0f} s")
    if process.returncode != 0:
        why = "".join(errors).strip() or f"status {process.returncode}"
        raise EngineError(f"{bench_path()} failed: {why}")


def read_results(text: str, measures: Sequence[Measure]) -> Results:
    """Return what the program printed for these measures."""
    printed = json.loads(text)
    return Results(
        machine={**describe_machine(), **name_crypto(printed["ipsec_mb"], printed["openssl"])},
        counter_hz=printed["counter_hz"],
        results=tuple(
            Result(measure=measure, rounds=tuple(printed["cycles"][measure.spec])) for measure in measures
        ),
    )
