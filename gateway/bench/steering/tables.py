"""The results of `bench steering` as a report."""

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from gateway.bench.report import Bar, Chart, Report
from gateway.bench.steering.run import Results


def report(results: Results) -> Report:
    """Return what was measured."""
    table = Table(title="classification in XDP: nanoseconds for one packet")
    for name in ("tunnels", "program", "packet", "remembered", "range", "searched", "range"):
        table.add_column(name, justify="left" if name in ("program", "packet") else "right", no_wrap=True)
    bars: list[Bar] = []
    for row in results.rows:
        table.add_row(
            f"{row.tunnels:,}",
            row.program,
            row.packet,
            *_figures(row.remembered_ns),
            *_figures(row.searched_ns),
        )
        for what, values in (("remembered", row.remembered_ns), ("searched", row.searched_ns)):
            label = f"{row.program}, {row.packet}, {row.tunnels:,} tunnels, {what}"
            bars.append(Bar(label, median(values), min(values), max(values)))
    return Report(
        subject="steering",
        facts=dict(results.machine),
        tables=(table,),
        charts=(Chart("Nanoseconds for one packet: less is better", "ns", bars),),
        notes=(
            "medians, with the shortest and longest round, of a program run on one frame in warm caches",
            "remembered: a pair of addresses that this CPU had before; searched: as for its first packet",
        ),
        json=results.to_json(),
    )


def _figures(values: Sequence[int]) -> tuple[str, str]:
    return f"{median(values):.0f}", f"{min(values)}…{max(values)}"
