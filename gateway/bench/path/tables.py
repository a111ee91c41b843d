"""The results of `bench path` as a report."""

from rich.table import Table

from gateway.bench.path.results import LeftOut, Results, Row
from gateway.bench.report import Bar, Chart, Report

_NOTES = (
    "packets/s: what came through while the generator sent all it can; median and quartiles of rounds",
    "packets per CPU s: for a second of CPU time of all CPUs, the generator's included, other programs' not",
    "÷ fwd: the rate beside that of the same packets forwarded without an SA, in the same round",
    "latency and its loss: at half that rate, from the sender's system call to the generator's kernel",
)
_LONG = ("I/O", "counted")
"""Columns that may take several lines."""
_PERCENTILES = ("p50", "p99", "max")


def report(results: Results) -> Report:
    """Return everything, for a terminal or a page."""
    return Report(
        subject="path",
        facts={**results.machine, "interfaces": results.interfaces},
        tables=(_rates(results), _loads(results), _counters(results)),
        charts=_charts(results),
        notes=_NOTES,
        left_out=[_left_out(item) for item in results.left_out],
        warning=results.why_no_speed,
        json=results.to_json(),
    )


def _left_out(item: LeftOut) -> str:
    sas = f" with {item.sas} SAs" if item.sas else ""
    case = f", {item.case}" if item.case else ""
    return f"{item.placement}{sas}{case}: {item.reason}"


def _rates(results: Results) -> Table:
    title = "Packets through the gateway"
    if results.why_no_speed:
        title += " (not a speed)"
    table = _table(
        title,
        ("asked", "found", "way", "bytes"),
        ("SAs", "flows", "packets/s", "quartiles", "Gb/s", "per CPU s", "÷ fwd", *_PERCENTILES),
    )
    for row in results.rows:
        rate, ratio = row.delivered_per_s, results.beside_forwarding(row)
        table.add_row(
            row.case.placement,
            row.placement_found,
            row.case.direction.value,
            row.case.size,
            f"{row.case.sas:,}",
            f"{row.case.flows:,}",
            f"{rate.median:,.0f}",
            f"{rate.first_quartile:,.0f}…{rate.third_quartile:,.0f}",
            f"{row.gigabits_per_s:.3g}",
            f"{row.packets_per_cpu_s.median:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            *(_microseconds(row.latency_us(percentile)) for percentile in _PERCENTILES),
        )
    return table


def _loads(results: Results) -> Table:
    table = _table(
        "The load of each row (medians; CPUs busy: of all CPUs, and what of it which process took)",
        ("row", "sent by"),
        (
            "offered/s",
            "loss",
            "loss at half",
            "CPUs busy",
            "generator",
            "gateway",
            "others",
            "bad",
            "sink lost",
        ),
    )
    for row in results.rows:
        full = sorted(row.overload, key=lambda each: each.delivered_per_s)[len(row.overload) // 2]
        table.add_row(
            _label(row),
            full.sent_by,
            f"{full.offered_per_s:,.0f}",
            f"{full.loss:.2%}",
            f"{max(each.loss for each in row.half):.2%}",
            f"{full.busy_cpu_s:.2f}",
            f"{full.generator_cpu_s:.2f}",
            f"{full.gateway_cpu_s:.2f}",
            f"{full.others_cpu_s:.2f}",
            str(sum(each.bad_samples + each.clear_samples for each in (*row.overload, *row.half))),
            str(sum(each.sink_drops for each in (*row.overload, *row.half))),
        )
    return table


def _counters(results: Results) -> Table:
    title = "How packets come in and go out, what interfaces counted, what the gateway dropped, in all rounds"
    table = _table(title, ("row", "I/O", "counted", "dropped"), ())
    for row in results.rows:
        table.add_row(_label(row), row.io, _in_words(row.counters), _in_words(row.drops))
    return table


def _charts(results: Results) -> list[Chart]:
    rates: list[Bar] = []
    per_cpu: list[Bar] = []
    for row in results.rows:
        for bars, spread in ((rates, row.delivered_per_s), (per_cpu, row.packets_per_cpu_s)):
            bars.append(Bar(_label(row), spread.median, spread.first_quartile, spread.third_quartile))
    return [
        Chart("Packets through the gateway", "/s", rates),
        Chart("For each second of CPU time", "", per_cpu),
    ]


def _table(title: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in words:
        table.add_column(name, no_wrap=name not in _LONG)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _label(row: Row) -> str:
    case = row.case
    sas = f", {case.sas:,} SAs" if case.sas > 1 else ""
    flows = f", {case.flows:,} flows" if case.flows > 1 else ""
    return f"{case.placement} {case.direction.value} {case.size}{sas}{flows}"


def _microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} µs"


def _in_words(counts: dict[str, int]) -> str:
    """Return counts in a line; bytes are in the JSON file alone."""
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if not name.endswith("bytes"))
