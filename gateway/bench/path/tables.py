"""The results of `bench path` as a report."""

from collections.abc import Callable

from rich.table import Table

from gateway.bench.path.plan import IMIX
from gateway.bench.path.results import LeftOut, Ratio, Results, Row, Spread
from gateway.bench.report import Bar, Chart, Report
from gateway.ipsec.drop_reason import DropReason

_NOTES = (
    "packets/s: what came through while the generator sent all it can; median and quartiles of rounds",
    "packets per CPU s: for a second of CPU time of all CPUs, the generator's included, other programs' not",
    "÷: the rate beside that of the same packets in the same round: forwarded by the kernel without an SA",
    "(fwd), as frames by the same I/O method (raw), sealed by the library alone on one CPU (crypto), or by a",
    "peer; in brackets the same ratio of packets for a second of CPU time of all CPUs",
    "latency and its loss: at half that rate, from the sender's system call to the generator's kernel",
)
_OVERLOAD = (
    f"{DropReason.NO_ENGINE.value}: the engine ran, but what leads to its workers was full (an AF_XDP ring, "
    "a socket, a ring between workers): more was sent than they carry. That is overload, a part of loss, "
    "and no engine that was down."
)
"""What that drop reason means here, where SAs were read back from the engine before and after."""
_LONG = ("I/O", "counted")
"""Columns that may take several lines."""
_PERCENTILES = ("p50", "p99", "max")


def report(results: Results) -> Report:
    """Return everything, for a terminal or a page."""
    return Report(
        subject="path",
        facts={**results.machine, "interfaces": results.interfaces},
        tables=(_rates(results), _ratios(results), _loads(results), _counters(results)),
        charts=_charts(results),
        notes=_NOTES,
        left_out=[_left_out(item) for item in results.left_out],
        warning=results.why_no_speed,
        json=results.to_json(),
    )


def _left_out(item: LeftOut) -> str:
    io = f" by {item.io}" if item.io else ""
    workers = f", {item.workers} workers" if item.workers > 1 else ""
    sas = f" with {item.sas} SAs" if item.sas else ""
    case = f", {item.case}" if item.case else ""
    return f"{item.placement}{io}{workers}{sas}{case}: {item.reason}"


def _rates(results: Results) -> Table:
    title = "Packets through the gateway"
    if results.why_no_speed:
        title += " (not a speed)"
    table = _table(
        title,
        ("asked", "found", "way", "bytes"),
        ("SAs", "flows", "packets/s", "quartiles", "Gb/s", "per CPU s", *_PERCENTILES),
    )
    for row in results.rows:
        rate = row.delivered_per_s
        table.add_row(
            row.case.who,
            row.placement_found,
            row.case.direction.value,
            row.case.size,
            f"{row.case.sas:,}",
            f"{row.case.flows:,}",
            f"{rate.median:,.0f}",
            f"{rate.first_quartile:,.0f}…{rate.third_quartile:,.0f}",
            f"{row.gigabits_per_s:.3g}",
            f"{row.packets_per_cpu_s.median:,.0f}",
            *(_microseconds(row.latency_us(percentile)) for percentile in _PERCENTILES),
        )
    return table


def _ratios(results: Results) -> Table:
    table = _table(
        "Beside others: rates, and in brackets packets for each second of CPU time of all CPUs",
        ("row",),
        ("÷ fwd", "÷ raw", "÷ crypto", *(f"÷ {peer}" for peer in results.peers)),
    )
    if unpaired := results.unpaired:
        table.caption = f"Rows of several workers have no ratio to what has one CPU: {', '.join(unpaired)}."
    for row in results.rows:
        ratios = (
            results.beside_forwarding(row),
            results.beside_raw(row),
            results.beside_crypto(row),
            *(results.beside_peer(row, peer) for peer in results.peers),
        )
        if any(ratio is not None for ratio in ratios):
            table.add_row(_label(row), *map(_in_brackets, ratios))
    return table


def _loads(results: Results) -> Table:
    table = _table(
        "The load of each row (medians; CPUs busy: of all CPUs, and which process took what; gateway ns: "
        "of its processes for a packet)",
        ("row", "sent by"),
        (
            "offered/s",
            "loss",
            "loss at half",
            "CPUs busy",
            "generator",
            "gateway",
            "gateway ns",
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
            f"{row.gateway_ns:,.0f}",
            f"{full.others_cpu_s:.2f}",
            str(sum(each.bad_samples + each.clear_samples for each in (*row.overload, *row.half))),
            str(sum(each.sink_drops for each in (*row.overload, *row.half))),
        )
    return table


def _counters(results: Results) -> Table:
    title = "How packets come in and go out, what interfaces counted, what the gateway dropped, in all rounds"
    table = _table(title, ("row", "I/O", "counted", "dropped"), ())
    if any(DropReason.NO_ENGINE.value in row.drops for row in results.rows):
        table.caption = _OVERLOAD
    for row in results.rows:
        table.add_row(_label(row), row.io, _in_words(row.counters), _in_words(row.drops))
    return table


def _charts(results: Results) -> list[Chart]:
    """Return two charts for each kind of packets: the rates, and for each second of CPU time."""
    charts = []
    for kind in dict.fromkeys((row.case.direction, row.case.size) for row in results.rows):
        rows = [row for row in results.rows if (row.case.direction, row.case.size) == kind]
        what = f"{kind[0].value}, {kind[1]}" + ("" if kind[1] == IMIX else " bytes")
        charts += [
            Chart(f"Packets through the gateway: {what}", "/s", _bars(rows, lambda row: row.delivered_per_s)),
            Chart(f"For each second of CPU time: {what}", "", _bars(rows, lambda row: row.packets_per_cpu_s)),
        ]
    return charts


def _bars(rows: list[Row], figure: Callable[[Row], Spread]) -> list[Bar]:
    bars = []
    for row in rows:
        spread = figure(row)
        bars.append(
            Bar(f"{row.case.who}{_amounts(row)}", spread.median, spread.first_quartile, spread.third_quartile)
        )
    return bars


def _table(title: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in words:
        table.add_column(name, no_wrap=name not in _LONG)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _label(row: Row) -> str:
    case = row.case
    return f"{case.who} {case.direction.value} {case.size}{_amounts(row)}"


def _amounts(row: Row) -> str:
    sas = f", {row.case.sas:,} SAs" if row.case.sas > 1 else ""
    flows = f", {row.case.flows:,} flows" if row.case.flows > 1 else ""
    return f"{sas}{flows}"


def _in_brackets(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{_quotient(ratio.rate)} ({_quotient(ratio.per_cpu)})"


def _quotient(value: float) -> str:
    """Return it with two digits at least: beside crypto alone most are small."""
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"


def _microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} µs"


def _in_words(counts: dict[str, int]) -> str:
    """Return counts in a line; bytes are in the JSON file alone."""
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if not name.endswith("bytes"))
