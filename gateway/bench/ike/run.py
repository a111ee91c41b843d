"""Run the measurements that were asked for, in one go, and put the results side by side."""

import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from gateway.bench.ike import charon
from gateway.bench.ike.in_memory import (
    Footprint,
    HandshakeCost,
    Storm,
    measure_footprint,
    measure_handshakes,
    measure_storm,
)
from gateway.bench.ike.over_udp import (
    FloodResult,
    UdpCost,
    bed,
    measure_flood,
    measure_responder,
    our_responder,
    their_responder,
)
from gateway.bench.ike.suites import DEFAULT_SUITE, Suite
from gateway.bench.report import Bar, Chart, Report
from gateway.bench.topology import require_root

OURS = "ipsecgw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure; 0 leaves a part out."""

    suites: Sequence[Suite]
    handshakes: int
    """Per suite, in memory and over UDP."""
    udp: bool
    """Over UDP too, between namespaces; needs root."""
    beside_charon: bool
    held: int
    """SAs held with liveness checks."""
    storm: int
    """SAs rekeyed at once."""
    flood_pps: int
    flood_s: float


@dataclass(slots=True, kw_only=True)
class Results:
    """Everything that was measured, as it goes into the JSON file."""

    machine: dict[str, str]
    in_memory: list[HandshakeCost] = field(default_factory=list)
    footprint: Footprint | None = None
    storms: list[Storm] = field(default_factory=list)
    over_udp: list[UdpCost] = field(default_factory=list)
    floods: list[FloodResult] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What could not be measured here, each with its reason."""

    def to_json(self) -> str:
        """Return the results as JSON."""
        return json.dumps(asdict(self), indent=2)


def run(wanted: Wanted, say: Callable[[str], None]) -> Results:
    """Measure; `say` is told what is being measured.

    Raises:
        GatewayError: A measurement did not go as it must.
    """
    results = Results(machine=_machine())
    for suite in wanted.suites:
        if wanted.handshakes:
            say(f"{suite.name}: {wanted.handshakes} handshakes in memory")
            results.in_memory.append(measure_handshakes(suite, wanted.handshakes))
    if wanted.held:
        say(f"{wanted.held} SAs held, with liveness checks")
        results.footprint = measure_footprint(DEFAULT_SUITE, wanted.held)
    if wanted.storm:
        for both_sides in (False, True):
            say(f"{wanted.storm} SAs rekeyed at once{' by both sides' if both_sides else ''}")
            results.storms.append(measure_storm(DEFAULT_SUITE, wanted.storm, both_sides=both_sides))
    if wanted.udp:
        _run_over_udp(wanted, results, say)
    return results


def _run_over_udp(wanted: Wanted, results: Results, say: Callable[[str], None]) -> None:
    require_root()
    compare = wanted.beside_charon
    if compare and (absent := charon.missing()):
        results.left_out.append(f"charon: missing {absent}")
        compare = False
    with (
        tempfile.TemporaryDirectory(prefix="ipsecgw-bench-") as directory,
        bed(f"ikb{os.getpid()}", Path(directory)) as where,
    ):
        for suite in wanted.suites if wanted.handshakes else ():
            say(f"{suite.name}: {wanted.handshakes} handshakes over UDP")
            with our_responder(where, suite) as pid:
                results.over_udp.append(measure_responder(where, OURS, pid, suite, wanted.handshakes))
            if compare:
                with their_responder(where, suite) as pid:
                    results.over_udp.append(measure_responder(where, "charon", pid, suite, wanted.handshakes))
        if wanted.flood_pps:
            say(f"honest handshakes under {wanted.flood_pps} forged requests per second")
            with our_responder(where, DEFAULT_SUITE) as pid:
                results.floods.append(
                    measure_flood(
                        where, OURS, pid, DEFAULT_SUITE, rate=wanted.flood_pps, seconds=wanted.flood_s
                    )
                )
            if compare:
                with their_responder(where, DEFAULT_SUITE, dos_protection=True) as pid:
                    results.floods.append(
                        measure_flood(
                            where, "charon", pid, DEFAULT_SUITE, rate=wanted.flood_pps, seconds=wanted.flood_s
                        )
                    )


def _machine() -> dict[str, str]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ipsecgw": version("ipsec-gateway"),
        "cryptography": version("cryptography"),
        "charon": "" if charon.missing() else charon.version(),
    }


# --- tables -------------------------------------------------------------------------------------


def report(results: Results) -> Report:
    """Return everything, for a terminal or a page."""
    return Report(
        subject="ike",
        facts=results.machine,
        tables=(
            _handshake_table(results.in_memory),
            _udp_table(results.over_udp),
            _footprint_table(results.footprint),
            _storm_table(results.storms),
            _flood_table(results.floods),
        ),
        charts=(
            Chart(
                "Handshakes over UDP, the responder's CPU time: less is better",
                "ms",
                [
                    Bar(f"{row.suite}, {row.responder}", row.cpu_ms, *row.cpu_ms_range)
                    for row in results.over_udp
                ],
            ),
            Chart(
                "Handshakes in memory, the responder's CPU time: less is better",
                "ms",
                [Bar(row.suite, row.responder_ms, *row.responder_ms_range) for row in results.in_memory],
            ),
        ),
        left_out=results.left_out,
        json=results.to_json(),
    )


def _handshake_table(rows: Sequence[HandshakeCost]) -> Table:
    table = _table(
        "Handshakes in memory (CPU ms of one side, median and range of rounds)",
        *("suite", "responder", "initiator", "per core and s"),
    )
    for row in rows:
        table.add_row(
            row.suite,
            _spread(row.responder_ms, row.responder_ms_range),
            _spread(row.initiator_ms, row.initiator_ms_range),
            f"{row.responder_rate:.0f}",
        )
    return table


def _udp_table(rows: Sequence[UdpCost]) -> Table:
    table = _table(
        "Handshakes over UDP (CPU ms of the responder's process, median and range of rounds; handshakes per s"
        " and their ms as one initiating process makes them)",
        *("suite", "responder", "CPU ms", "to charon", "per s", "ms", "KB/SA"),
    )
    charons = {row.suite: row.cpu_ms for row in rows if row.responder != OURS}
    for row in rows:
        ratio = "" if row.suite not in charons else f"{row.cpu_ms / charons[row.suite]:.2f}"
        table.add_row(
            row.suite,
            row.responder,
            _spread(row.cpu_ms, row.cpu_ms_range),
            ratio,
            f"{row.rate:.0f}",
            f"{row.latency_ms:.1f}",
            f"{row.bytes_per_sa / 1000:.1f}",
        )
    return table


def _footprint_table(row: Footprint | None) -> Table:
    table = _table(
        "Held SAs (each an IKE SA with one Child SA; one side)",
        *("SAs", "KB per SA", "liveness check every", "CPU for the checks", "lost"),
    )
    if row is not None:
        table.add_row(
            str(row.sas),
            f"{row.bytes_per_sa / 1000:.1f}",
            f"{row.dpd_delay_s:.0f} s",
            f"{row.dpd_cpu_fraction:.2%} of a core",
            str(row.lost),
        )
    return table


def _storm_table(rows: Sequence[Storm]) -> Table:
    table = _table(
        "Rekey storm (CPU ms of both ends together, per SA)",
        *("SAs", "started by", "Child rekey", "IKE rekey", "failures"),
    )
    for row in rows:
        who = "both ends at once" if row.both_sides else "one end"
        table.add_row(str(row.sas), who, f"{row.child_ms:.2f}", f"{row.ike_ms:.2f}", str(row.failures))
    return table


def _flood_table(rows: Sequence[FloodResult]) -> Table:
    table = _table(
        "Honest handshakes under forged IKE_SA_INIT requests",
        *("responder", "forged/s", "honest", "established", "p50 ms", "p99 ms", "memory MB"),
    )
    for row in rows:
        table.add_row(
            row.responder,
            f"{row.flood_pps:.0f}",
            str(row.honest),
            str(row.established),
            f"{row.latency_ms_p50:.1f}",
            f"{row.latency_ms_p99:.1f}",
            f"{row.resident_before / 1e6:.1f} → {row.resident_after / 1e6:.1f}",
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right", no_wrap=True)
    return table


def _spread(median: float, low_high: tuple[float, float]) -> str:
    return f"{median:.2f} ({low_high[0]:.2f}–{low_high[1]:.2f})"
