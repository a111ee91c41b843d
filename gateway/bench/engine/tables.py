"""The results of the engine's benchmarks as reports.

`÷ raw` is speed beside the crypto library alone with one key, `÷ keys` beside it with as many keys, and
`÷ 1 SA` how much longer a packet takes than with one SA. `fetch` is no packet, but what memory alone takes
for the lines of its SA.
"""

from rich.table import Table

from gateway.bench.engine.plan import OPEN, SEAL
from gateway.bench.engine.run import Result, Results
from gateway.bench.report import Bar, Chart, Report

_TITLES = {
    "direct": "direct call",
    "crypto": "bursts",
    "seal": "seal",
    "open": "open",
    "fetch": "fetch",
}


def crypto_report(results: Results) -> Report:
    """Return what `bench crypto` measured."""
    table = _table("crypto alone, one core, one key", "suite", "by", "call", "bytes")
    for result in results.results:
        measure = result.measure
        table.add_row(
            measure.suite.name,
            measure.crypto.name.lower(),
            _TITLES[measure.what],
            str(measure.packet_bytes),
            *_figures(results, result),
        )
    return _report("crypto", results, table)


def engine_report(results: Results) -> Report:
    """Return what `bench engine` measured."""
    suite = results.results[0].measure.suite.name
    table = _table(f"ESP tunnel {suite} in memory, one core", "SAs", "order", "what", "bytes")
    table.add_column("÷ raw", justify="right", no_wrap=True, min_width=5)
    table.add_column("÷ keys", justify="right", no_wrap=True)
    table.add_column("÷ 1 SA", justify="right", no_wrap=True)
    for result in results.results:
        measure = result.measure
        is_esp = measure.what in (SEAL, OPEN)
        ratio = results.ratio(result) if is_esp and measure.sas == 1 else None
        own = results.own_ratio(result) if is_esp else None
        slower = results.slowdown(result)
        table.add_row(
            f"{measure.sas:,}",
            measure.order if measure.sas > 1 else "",
            _TITLES[measure.what],
            str(measure.packet_bytes),
            *_figures(results, result),
            "" if ratio is None else f"{ratio:.2f}",
            "" if own is None else f"{own:.2f}",
            "" if slower is None else f"{slower:+.0%}",
        )
    return _report("engine", results, table)


def _table(title: str, *names: str) -> Table:
    table = Table(title=title)
    for name in names:
        table.add_column(name, justify="right" if name in ("bytes", "SAs") else "left", no_wrap=True)
    for name in ("cycles", "quartiles", "ns", "Gb/s"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figures(results: Results, result: Result) -> tuple[str, str, str, str]:
    first, third = result.spread
    return (
        f"{result.cycles:.0f}",
        f"{first:.0f}…{third:.0f}",
        f"{results.nanoseconds(result):.1f}",
        f"{results.gigabits(result):.1f}",
    )


def _report(subject: str, results: Results, table: Table) -> Report:
    bars = [
        Bar(_label(result), result.cycles, result.spread[0], result.spread[1]) for result in results.results
    ]
    return Report(
        subject=subject,
        facts=results.machine,
        tables=(table,),
        charts=(Chart("Cycles for one packet: less is better", "cycles", bars),),
        notes=(f"medians per packet; cycles of the time stamp counter ({results.counter_hz / 1e9:.2f} GHz)",),
        json=results.to_json(),
    )


def _label(result: Result) -> str:
    measure = result.measure
    suite = f"{measure.suite.name} by {measure.crypto.name.lower()}"
    order = f" ({measure.order})" if measure.sas > 1 else ""
    return f"{suite}, {_TITLES[measure.what]}, {measure.packet_bytes} B, {measure.sas:,} SAs{order}"
