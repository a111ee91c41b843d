"""The results of `bench tcp` as a report."""

from rich.table import Table

from gateway.bench.report import Bar, Chart, Report
from gateway.bench.tcp.run import Results, Row


def report(results: Results) -> Report:
    """Return what was measured."""
    measured = [row for row in results.rows if row.rounds]
    table = Table(title=f"one TCP stream through two gateways, {results.seconds:g} s a round")
    for name in ("way", "Gb/s", "range", "CPU s/Gb", "range", "CPUs, gateways", "CPUs, others"):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    for row in measured:
        table.add_row(
            row.way,
            *_figures(row, "gigabits_per_s"),
            *_figures(row, "cpu_s_per_gigabit"),
            f"{row.figure('gateways_cpu'):.2f}",
            f"{row.figure('others_cpu'):.2f}",
        )
    bars = [Bar(row.way, row.figure("gigabits_per_s"), *row.spread("gigabits_per_s")) for row in measured]
    return Report(
        subject="tcp",
        facts=results.machine,
        tables=(table,),
        charts=(Chart("Gigabits a second: more is better", "Gb/s", bars),),
        notes=(
            "medians of the rounds; CPU time of hosts and gateways together, on all CPUs",
            "the stream: one connection, zeros, 1 MiB a call, by a program of our own in place of iperf3",
            *(f"{row.way}: {row.words}" for row in measured),
        ),
        left_out=tuple(f"{row.way}: {row.left_out}" for row in results.rows if row.left_out),
        json=results.to_json(),
    )


def _figures(row: Row, name: str) -> tuple[str, str]:
    low, high = row.spread(name)
    return f"{row.figure(name):.2f}", f"{low:.2f}…{high:.2f}"
