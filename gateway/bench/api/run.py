"""`ipsecgw bench api`: the control API under load, and charon's vici beside it in the same run."""

import asyncio
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.table import Table

from gateway.bench.api import ours, theirs
from gateway.bench.api.results import Applied, Call, Watching
from gateway.bench.ike import charon
from gateway.bench.ike.over_udp import PEER, bed
from gateway.bench.ike.suites import DEFAULT_SUITE
from gateway.bench.report import Report

OURS: Final = "ipsecgw"
KEPT: Final = "ipsecgw --state"
CHARON: Final = "charon (vici)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be measured."""

    connections: int
    rounds: int
    watchers: int
    beside_charon: bool


@dataclass(slots=True)
class Results:
    """Everything measured; rows by who was measured."""

    machine: dict[str, str]
    applied: dict[str, list[Applied]] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    watching: Watching | None = None
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
    compare = wanted.beside_charon
    if compare and (absent := charon.missing()):
        results.left_out.append(f"charon: missing {absent}")
        compare = False
    if compare and os.geteuid() != 0:
        results.left_out.append("charon: needs root, for a network namespace")
        compare = False
    with tempfile.TemporaryDirectory(prefix="ipsecgw-bench-") as name:
        directory = Path(name)
        for number in range(wanted.rounds):
            say(f"round {number + 1} of {wanted.rounds}: {OURS}, {wanted.connections} connections")
            _round_of_ours(results, OURS, directory, wanted)
            say(f"round {number + 1} of {wanted.rounds}: {KEPT}")
            _round_of_ours(results, KEPT, directory, wanted, "--state", str(directory / f"state-{number}"))
            if compare:
                say(f"round {number + 1} of {wanted.rounds}: {CHARON}")
                _round_of_charon(results, directory / f"charon-{number}", wanted)
        if wanted.watchers:
            say(f"{wanted.watchers} watchers of a busy controller")
            results.watching = asyncio.run(ours.measure_watchers(directory, wanted.watchers))
    return results


def _round_of_ours(results: Results, who: str, directory: Path, wanted: Wanted, *options: str) -> None:
    with ours.subject(directory, *options) as (address, pid):
        applied = asyncio.run(ours.measure_applying(address, pid, wanted.connections))
        calls = asyncio.run(ours.measure_calls(address, wanted.connections))
    results.applied.setdefault(who, []).append(applied)
    results.calls.setdefault(who, []).extend(calls)


def _round_of_charon(results: Results, directory: Path, wanted: Wanted) -> None:
    directory.mkdir()
    with bed(f"api{os.getpid()}", directory) as where:
        state = directory / "charon"
        with charon.charon(where.peer, state, DEFAULT_SUITE, address=PEER, dos_protection=False) as pid:
            applied = theirs.measure_loading(state / "vici.sock", pid, wanted.connections)
            calls = theirs.measure_calls(state / "vici.sock", wanted.connections)
    results.applied.setdefault(CHARON, []).append(applied)
    results.calls.setdefault(CHARON, []).extend(calls)


def _machine() -> dict[str, str]:
    return {
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ipsecgw": version("ipsec-gateway"),
        "charon": "" if charon.missing() else charon.version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


# --- tables -------------------------------------------------------------------------------------


def report(results: Results) -> Report:
    """Return everything, for a terminal or a page."""
    return Report(
        subject="api",
        facts=results.machine,
        notes=("Times are by the clock, medians of rounds with their range; other programs count.",),
        tables=(
            _applied_table(results.applied),
            _calls_table(results.calls),
            _watching_table(results.watching),
        ),
        left_out=results.left_out,
        json=results.to_json(),
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _spread(values: Sequence[float], form: str) -> str:
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return median
    return f"{median} ({format(min(values), form)} to {format(max(values), form)})"


def _applied_table(rows: dict[str, list[Applied]]) -> Table:
    table = _table(
        "Applying to an empty controller, and listing",
        *(
            "controller",
            "per s",
            "last tenth / first",
            "CPU µs each",
            "again s",
            "first list s",
            "list s",
            "MB",
        ),
    )
    for who, rounds in rows.items():
        table.add_row(
            who,
            _spread([item.rate for item in rounds], ".0f"),
            _spread([item.last_tenth / item.first_tenth for item in rounds], ".2f"),
            _spread([item.cpu_us for item in rounds], ".0f"),
            _spread([item.again_s for item in rounds], ".2f"),
            _spread([item.first_list_s for item in rounds], ".2f"),
            _spread([item.list_s for item in rounds], ".2f"),
            _spread([item.resident_bytes / 1e6 for item in rounds], ".0f"),
        )
    return table


def _calls_table(rows: dict[str, list[Call]]) -> Table:
    table = _table("Single calls at that many connections, ms", "controller, call", "p50", "p99", "worst")
    for who, calls in rows.items():
        for name in dict.fromkeys(call.name for call in calls):
            same = [call for call in calls if call.name == name]
            table.add_row(
                f"{who}, {name}",
                _spread([call.p50_ms for call in same], ".2f"),
                _spread([call.p99_ms for call in same], ".2f"),
                _spread([call.worst_ms for call in same], ".1f"),
            )
    return table


def _watching_table(watching: Watching | None) -> Table:
    table = _table(
        "Watchers of a busy controller",
        *("watchers", "changes per s", "messages per s", "MB before", "MB after", "wrong views"),
    )
    if watching is not None:
        table.add_row(
            str(watching.watchers),
            f"{watching.changes_per_s:.0f}",
            f"{watching.messages_per_s:.0f}",
            f"{watching.resident_before / 1e6:.0f}",
            f"{watching.resident_after / 1e6:.0f}",
            str(watching.wrong),
        )
    return table
