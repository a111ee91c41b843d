"""The results of `ipsecgw bench installs` as a report."""

from collections.abc import Callable
from statistics import median

from rich.table import Table

from gateway.bench.installs.run import Results, Round
from gateway.bench.report import Bar, Chart, Report

_COLUMNS: tuple[tuple[str, Callable[[Round], float], str], ...] = (
    ("SAs/s", lambda row: row.rate, ",.0f"),
    ("last tenth ÷ first", lambda row: row.last_tenth / row.first_tenth, ".2f"),
    ("agent CPU µs", lambda row: row.agent_us, ".0f"),
    ("our CPU µs", lambda row: row.client_us, ".0f"),
    ("list s", lambda row: row.list_s, ".2f"),
    ("removed/s", lambda row: row.removed_rate, ",.0f"),
)


def report(results: Results) -> Report:
    """Return everything, for a terminal or a page."""
    table = Table(
        title=f"{results.sas:,} SAs over the datapath API, {results.batch} in a call, "
        f"{results.in_flight} at once",
        title_justify="left",
    )
    table.add_column("engine", no_wrap=True)
    for name, _, _ in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    bars = []
    for engine, rounds in results.rounds.items():
        table.add_row(engine, *(_spread([of(row) for row in rounds], form) for _, of, form in _COLUMNS))
        rates = [row.rate for row in rounds]
        bars.append(Bar(engine, median(rates), min(rates), max(rates)))
    return Report(
        subject="installs",
        facts=results.machine,
        notes=("Rates are by the clock, medians of rounds with their range; other programs count.",),
        tables=(table,),
        charts=(Chart("SAs installed per second: more is better", "SAs/s", bars),),
        left_out=results.left_out,
        json=results.to_json(),
    )


def _spread(values: list[float], form: str) -> str:
    middle = format(median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"
