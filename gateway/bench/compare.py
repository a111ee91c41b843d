"""Compare two runs of one benchmark: every figure that both have, new beside old."""

import json
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, Final, NamedTuple

from rich.table import Table

from gateway.ipsec.errors import GatewayError


class CompareError(GatewayError):
    """A file has no results of this benchmark, or such as cannot be compared."""


class Figure(NamedTuple):
    """One figure of a run."""

    name: str
    value: float
    unit: str


def compare(subject: str, old: str, new: str) -> tuple[Table, list[str]]:
    """Return the figures of two JSON files side by side, and in what machines and versions differ.

    Raises:
        CompareError: One is no result of this benchmark, or is no speed, or they have nothing in common.
    """
    before, after = _read(subject, old), _read(subject, new)
    for data in (before, after):
        if reason := data.get("why_no_speed"):
            raise CompareError(f"these are no speeds, so they are not compared: {reason}")
    figures = {figure.name: figure for figure in _figures(subject, before)}
    table = Table(title=f"{subject}: new beside old", title_justify="left")
    for name in ("figure", "unit", "old", "new", "new ÷ old"):
        table.add_column(name, justify="left" if name in ("figure", "unit") else "right", no_wrap=True)
    for figure in _figures(subject, after):
        was = figures.get(figure.name)
        if was is not None and was.value:
            row = (f"{was.value:,.4g}", f"{figure.value:,.4g}", f"{figure.value / was.value:.3f}")
            table.add_row(figure.name, figure.unit, *row)
    if not table.row_count:
        raise CompareError("the two files have no figure in common")
    return table, _differences(before["machine"], after["machine"])


def _read(subject: str, text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise CompareError(f"not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("machine"), dict):
        raise CompareError(f"these are no results of `ipsecgw bench {subject}`")
    return data


def _figures(subject: str, data: Mapping[str, Any]) -> list[Figure]:
    try:
        return list(_SUBJECTS[subject](data))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CompareError(f"these are no whole results of `ipsecgw bench {subject}`: {error}") from error


def _ike(data: Mapping[str, Any]) -> Iterable[Figure]:
    for row in data["in_memory"]:
        yield Figure(f"{row['suite']} in memory, responder", row["responder_ms"], "CPU ms")
        yield Figure(f"{row['suite']} in memory, initiator", row["initiator_ms"], "CPU ms")
    for row in data["over_udp"]:
        yield Figure(f"{row['suite']} over UDP, {row['responder']}", row["cpu_ms"], "CPU ms")
    if data["footprint"] is not None:
        yield Figure("a held SA", data["footprint"]["bytes_per_sa"], "bytes")


def _api(data: Mapping[str, Any]) -> Iterable[Figure]:
    for who, rounds in data["applied"].items():
        for name, unit in (
            ("rate", "connections/s"),
            ("cpu_us", "CPU µs"),
            ("again_s", "s"),
            ("list_s", "s"),
        ):
            yield Figure(f"{who}, {name}", median(row[name] for row in rounds), unit)
    for who, calls in data["calls"].items():
        for row in calls:
            yield Figure(f"{who}, {row['name']}, p99", row["p99_ms"], "ms")


def _installs(data: Mapping[str, Any]) -> Iterable[Figure]:
    for engine, rounds in data["rounds"].items():
        for name, unit in (("rate", "SAs/s"), ("agent_us", "CPU µs"), ("removed_rate", "SAs/s")):
            yield Figure(f"{engine}, {name}", median(row[name] for row in rounds), unit)


def _engine(data: Mapping[str, Any]) -> Iterable[Figure]:
    for row in data["results"]:
        suite = f"{row['suite']} by {row['library']}"
        what = f"{suite}, {row['what']}, {row['packet_bytes']} bytes, {row['sas']} SAs"
        if row["sas"] > 1:
            what += f" ({row['order']})"
        yield Figure(what, row["cycles"], "cycles")


def _steering(data: Mapping[str, Any]) -> Iterable[Figure]:
    for row in data["rows"]:
        what = f"{row['program']}, {row['packet']}, {row['tunnels']} tunnels"
        yield Figure(f"{what}, remembered", row["remembered_ns"], "ns")
        yield Figure(f"{what}, searched", row["searched_ns"], "ns")


def _tcp(data: Mapping[str, Any]) -> Iterable[Figure]:
    for row in data["rows"]:
        if row["rounds"]:
            for name, unit in (("gigabits_per_s", "Gb/s"), ("cpu_s_per_gigabit", "CPU s/Gb")):
                value = median(measured[name] for measured in row["rounds"])
                yield Figure(f"{row['way']}, {unit}", value, unit)


def _path(data: Mapping[str, Any]) -> Iterable[Figure]:
    from gateway.bench.path.results import read_results  # noqa: PLC0415 - loaded when it is used

    results = read_results(json.dumps(data))
    for row in results.rows:
        case = row.case
        what = f"{case.who} {case.direction.value}, {case.size} bytes, {case.sas} SAs, {case.flows} flows"
        yield Figure(what, row.delivered_per_s.median, "packets/s")
        yield Figure(f"{what}, per CPU", row.packets_per_cpu_s.median, "packets/CPU s")


_SUBJECTS: Final[dict[str, Callable[[Mapping[str, Any]], Iterable[Figure]]]] = {
    "ike": _ike,
    "api": _api,
    "installs": _installs,
    "crypto": _engine,
    "engine": _engine,
    "steering": _steering,
    "tcp": _tcp,
    "path": _path,
}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {before.get(name) or 'not told'} and is {after.get(name) or 'not told'}"
        for name in sorted({*before, *after})
        if not name.startswith("load") and before.get(name) != after.get(name)
    ]
