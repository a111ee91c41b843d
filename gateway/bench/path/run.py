"""Measure the cases of a plan, each once a round, so that what disturbs the machine disturbs all alike."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Final

from gateway.api.generator import Load, Traffic
from gateway.bench.cpu import CpuReading, CpuUse, cpu_between, read_cpu
from gateway.bench.engine.plan import SUITES, crypto_measures
from gateway.bench.engine.run import Effort
from gateway.bench.engine.run import run as measure_crypto
from gateway.bench.machine import describe_machine
from gateway.bench.path.bed import Bed, gateway_cpus
from gateway.bench.path.carriers import Carrier, carrying
from gateway.bench.path.devices import counted_between, read_counters
from gateway.bench.path.gateway import NotPlaced
from gateway.bench.path.plan import Case, Direction, Setup, Wanted, sizes_bytes
from gateway.bench.path.results import LeftOut, Measured, Results, Row
from gateway.bench.path.versions import measured_versions
from gateway.datapath.engine.core import Crypto, EngineError
from gateway.hardware.setting import find_setting
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.placement import Engine

Progress = Callable[[str], None]
"""Told what is being measured."""

_WARM_UP_S: Final = 0.3
_WARM_UP_PER_S: Final = 1000.0
_SAMPLE: Final = 64
"""At full load: one packet in so many is opened."""
_SAMPLES_PER_S: Final = 20_000
"""At half load: about so many are timed."""
_CRYPTO_PACKETS: Final = 20_480
_CRYPTO_BURST: Final = 64
#: Drivers whose NIC is not there, and what that means.
_PLAYED: Final = {"netdevsim": "netdevsim only plays a NIC: it encrypts nothing"}


class NothingCameThrough(GatewayError):
    """SAs are installed, but packets do not come out of the gateway; the text says where they went."""


@dataclass(slots=True)
class _Collected:
    """One row while it is measured."""

    found: str = ""
    io: str = ""
    overload: list[Measured] = field(default_factory=list)
    half: list[Measured] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)


def run(bed: Bed, wanted: Wanted, say: Progress) -> Results:
    """Measure everything on one bed.

    Raises:
        GatewayError: The generator or a namespace failed. What a placement cannot do is in the results.
    """
    results = Results(
        machine={**describe_machine(), "setting": find_setting().name},
        interfaces=bed.what,
        why_no_speed=why_no_speed(bed),
        seconds=wanted.seconds,
        rounds=wanted.rounds,
    )
    with tempfile.TemporaryDirectory(prefix="ipsecgw-bench-") as directory:
        bench = _Bench(bed, wanted, Path(directory))
        left_out: dict[Setup, LeftOut] = {}
        for number in range(1, wanted.rounds + 1):
            for size, rate in crypto_rates(wanted).items():
                results.crypto_per_s.setdefault(size, []).append(rate)
            for setup in wanted.setups():
                if setup in left_out:
                    continue
                try:
                    bench.measure(setup, partial(_say_round, say, number))
                except NotPlaced as error:
                    left_out[setup] = LeftOut(
                        placement=setup.placement,
                        sas=setup.sas,
                        io=setup.io,
                        workers=setup.workers,
                        reason=str(error),
                    )
                    say(f"{setup.placement} {setup.io} is left out: {error}")
    results.left_out = [*left_out.values(), *bench.silent()]
    results.rows = bench.rows()
    results.machine |= measured_versions(row.case.placement for row in results.rows)
    return results


def why_no_speed(bed: Bed) -> str:
    """Return why nothing measured on a bed is a speed; empty where it is."""
    reasons = [find_setting().why_no_speed]
    reasons += [_PLAYED.get(driver, "") for driver in {bed.lan.driver, bed.outer.driver}]
    return "; ".join(sorted(filter(None, reasons)))


def _say_round(say: Progress, number: int, line: str) -> None:
    say(f"measuring round {number}: {line}")


class _Bench:
    """The bed, and the rows so far."""

    def __init__(self, bed: Bed, wanted: Wanted, directory: Path) -> None:
        self._bed = bed
        self._wanted = wanted
        self._directory = directory
        self._collected: dict[Case, _Collected] = {}
        self._silent: dict[Case, str] = {}
        self._is_played = any(device.driver in _PLAYED for device in (bed.lan, bed.outer))

    def rows(self) -> list[Row]:
        """Return the rows that are whole, in the order in which they were measured first."""
        return [_row(case, found) for case, found in self._collected.items() if found.half]

    def silent(self) -> list[LeftOut]:
        """Return the cases that nothing came through, with the reason as far as it is known."""
        return [
            LeftOut(
                placement=case.placement,
                sas=case.sas,
                io=case.io,
                workers=case.workers,
                case=case.words,
                reason=reason,
            )
            for case, reason in self._silent.items()
        ]

    def measure(self, setup: Setup, say: Progress) -> None:
        """Measure every case of a set-up once, but for those that nothing came through before.

        Raises:
            NotPlaced: It cannot be made.
        """
        directory = self._directory / "-".join(filter(None, (setup.placement, setup.io)))
        with carrying(setup, self._bed, directory, self._wanted.key_bits) as carrier:
            for case in self._wanted.cases(setup):
                if case in self._silent:
                    continue
                say(f"{case.who}, {case.sas} SAs: {case.words}")
                try:
                    self._measure_case(carrier, case)
                except NothingCameThrough as error:
                    self._silent[case] = str(error)
                    say(f"left out: {error}")

    def _measure_case(self, carrier: Carrier, case: Case) -> None:
        bed, seconds = carrier.bed, self._wanted.seconds
        devices = (bed.lan.name, bed.outer.name)
        carrier.turn(case.direction)
        before, drops_before = read_counters(bed.gateway, devices), carrier.drops()
        found, io = carrier.where()
        warm_up, _ = self._run(carrier, case, rate=_WARM_UP_PER_S, seconds=_WARM_UP_S, sample=1)
        if not warm_up.received or warm_up.bad_samples or (warm_up.clear_samples and not self._is_played):
            raise NothingCameThrough(_explain(warm_up, counted_between(drops_before, carrier.drops())))
        full = _measured(*self._run(carrier, case, rate=0, seconds=seconds, sample=_SAMPLE))
        rate = max(1.0, full.delivered_per_s / 2)
        half = _measured(*self._run(carrier, case, rate=rate, seconds=seconds, sample=_sampling(rate)))
        found_after, io_after = carrier.where()
        if found_after != found:
            found = f"{found}, then {found_after}"
        if io_after != io:
            io = f"{io}; then {io_after}"
        row = self._collected.setdefault(case, _Collected())
        row.found, row.io = found, io
        row.overload.append(full)
        row.half.append(half)
        _add(row.counters, counted_between(before, read_counters(bed.gateway, devices)))
        _add(row.drops, counted_between(drops_before, carrier.drops()))

    def _run(
        self, carrier: Carrier, case: Case, *, rate: float, seconds: float, sample: int
    ) -> tuple[Traffic, CpuUse]:
        generator = carrier.bed.generator
        groups: dict[str, tuple[int, ...]] = {
            "gateway": carrier.pids(),
            "generator": () if generator.pid is None else (generator.pid,),
        }
        load = Load(
            is_out=case.direction is Direction.OUT,
            is_esp=carrier.is_esp,
            packets_per_s=rate,
            seconds=seconds,
            flows=case.flows,
            sample=sample,
            sizes_bytes=case.sizes_bytes,
        )
        readings: list[CpuReading] = []
        traffic = generator.run(load, lambda _: readings.append(read_cpu(groups)))
        return traffic, cpu_between(*readings)


def crypto_rates(wanted: Wanted) -> dict[str, float]:
    """Return packets a second that the crypto library alone seals on a gateway's CPU, by size.

    Empty where the native engine is not measured, or not built.
    """
    if Engine.ENGINE.value not in wanted.placements:
        return {}
    suite = next(each for each in SUITES if each.name == f"aes{wanted.key_bits}gcm16")
    each = {bytes_ for size in wanted.sizes for bytes_ in sizes_bytes(size)}
    effort = Effort(rounds=1, packets=_CRYPTO_PACKETS, burst=_CRYPTO_BURST, cpu=gateway_cpus(1)[0])
    for library in (Crypto.IPSECMB, Crypto.OPENSSL):
        with suppress(EngineError):
            found = measure_crypto(crypto_measures([suite], [library], sorted(each)), effort)
            times = {result.measure.packet_bytes: found.nanoseconds(result) for result in found.results}
            return {size: 1e9 / fmean(times[each] for each in sizes_bytes(size)) for size in wanted.sizes}
    return {}


def _measured(traffic: Traffic, cpu: CpuUse) -> Measured:
    return Measured(
        offered_per_s=traffic.offered_per_s,
        delivered_per_s=traffic.delivered_per_s,
        loss=traffic.loss,
        busy_cpu_s=cpu.busy_s / traffic.seconds,
        generator_cpu_s=cpu.groups_s["generator"] / traffic.seconds,
        gateway_cpu_s=cpu.groups_s["gateway"] / traffic.seconds,
        others_cpu_s=cpu.others_s / traffic.seconds,
        bad_samples=traffic.bad_samples,
        clear_samples=traffic.clear_samples,
        sink_drops=traffic.sink_drops,
        sent_by=traffic.method,
        latency_us=traffic.latency_us,
    )


def _sampling(rate: float) -> int:
    """Return the power of two that one packet in so many is timed."""
    sample = 1
    while rate / sample > _SAMPLES_PER_S:
        sample *= 2
    return sample


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        totals[name] = totals.get(name, 0) + value


def _explain(traffic: Traffic, drops: dict[str, int]) -> str:
    if traffic.clear_samples:
        return f"{traffic.clear_samples} of {traffic.samples} ESP packets were NOT ENCRYPTED"
    if traffic.received:
        bad = f"{traffic.bad_samples} of {traffic.samples}"
        return f"{bad} packets that came through do not decrypt to what was sent"
    dropped = ", ".join(f"{reason} {count}" for reason, count in drops.items()) or "none counted"
    return f"none of {traffic.sent} packets came through; drops of the gateway: {dropped}"


def _row(case: Case, found: _Collected) -> Row:
    return Row(
        case=case,
        placement_found=found.found,
        io=found.io,
        overload=tuple(found.overload),
        half=tuple(found.half),
        counters=found.counters,
        drops=found.drops,
    )
