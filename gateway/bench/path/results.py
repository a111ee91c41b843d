"""What `bench path` found: one record a row, as its JSON file has it, read back to be compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median, quantiles
from typing import Any, Final

from gateway.bench.path.plan import FORWARDING, ONE_CPU, PEERS, RAW, Case, Direction, mean_bytes
from gateway.ipsec.errors import GatewayError

SCHEMA: Final = "ipsecgw-bench-path/1"


class ResultsError(GatewayError):
    """A file has no results of this benchmark, or they cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure that was measured once a round: median and quartiles."""

    median: float
    first_quartile: float
    third_quartile: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one or more values."""
        if len(values) == 1:
            return cls(median=values[0], first_quartile=values[0], third_quartile=values[0])
        first, _, third = quantiles(values, n=4, method="inclusive")
        return cls(median=median(values), first_quartile=first, third_quartile=third)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One case in one round, at one load."""

    offered_per_s: float
    delivered_per_s: float
    loss: float
    """Part of what was sent that never came through, from 0 to 1."""
    busy_cpu_s: float
    """Of all CPUs per second, less that of processes which have no part in it."""
    generator_cpu_s: float
    """What of it the generator's process took, a second; work of the kernel in its name included."""
    gateway_cpu_s: float
    """What of it the agent and its children took, a second."""
    others_cpu_s: float
    """Of processes which have no part in it, a second: where it is high, nothing else can be believed."""
    bad_samples: int
    """Packets that did not decrypt to what was sent."""
    clear_samples: int
    """ESP packets that were not encrypted."""
    sink_drops: int
    """Lost by the generator, not by the gateway."""
    sent_by: str
    """How the generator sent: `live frames`, `packet socket`."""
    latency_us: dict[str, float]
    """`p50`, `p90`, `p99`, `p999`, `max`; from the sender's system call to the generator's kernel."""

    @property
    def packets_per_cpu_s(self) -> float:
        """Return how many packets came through for each second of CPU time of all CPUs."""
        return self.delivered_per_s / self.busy_cpu_s if self.busy_cpu_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case."""

    case: Case
    placement_found: str
    """Where its SAs were when they were read back, before and after; `forwarding` where there are none."""
    io: str
    """How packets come into the gateway and leave it."""
    overload: tuple[Measured, ...]
    """A round each: sent as fast as it goes."""
    half: tuple[Measured, ...]
    """A round each: sent at half the rate that came through before."""
    counters: dict[str, int]
    """What the gateway's interfaces counted in all rounds, by `DEVICE.COUNTER`."""
    drops: dict[str, int]
    """What the gateway dropped in all rounds, by reason."""

    @property
    def delivered_per_s(self) -> Spread:
        """Return the rate that came through."""
        return Spread.of([each.delivered_per_s for each in self.overload])

    @property
    def packets_per_cpu_s(self) -> Spread:
        """Return packets for a second of CPU time, over all CPUs, at that rate."""
        return Spread.of([each.packets_per_cpu_s for each in self.overload])

    @property
    def gateway_ns(self) -> float:
        """Return the CPU time of the gateway's own processes for one packet, in ns, at that rate.

        Beside what the kernel does for it in the name of others, on veth of the generator.
        """
        return median(each.gateway_cpu_s / max(1.0, each.delivered_per_s) * 1e9 for each in self.overload)

    @property
    def gigabits_per_s(self) -> float:
        """Return the rate in Gb/s of inner packets."""
        return self.delivered_per_s.median * mean_bytes(self.case.sizes_bytes) * 8 / 1e9

    def latency_us(self, percentile: str) -> float | None:
        """Return a percentile at half load, the median of the rounds."""
        each = [m.latency_us[percentile] for m in self.half if percentile in m.latency_us]
        return median(each) if each else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A placement that was asked for and could not be measured, or one of its cases."""

    placement: str
    sas: int
    io: str = ""
    workers: int = 1
    case: str = ""
    """Which case: `in, 64 bytes, 4 flows`; empty for all of them."""
    reason: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """One row beside another, or beside crypto alone: the medians of the rounds' ratios."""

    rate: float
    per_cpu: float
    """Of packets for each second of CPU time of all CPUs."""


@dataclass(slots=True, kw_only=True)
class Results:
    """One run."""

    machine: dict[str, str]
    interfaces: str
    why_no_speed: str
    """Why none of the figures is a speed; empty where they are."""
    seconds: float
    rounds: int
    crypto_per_s: dict[str, list[float]] = field(default_factory=dict)
    """Packets of each size that the crypto library alone seals on one CPU, a round each."""
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def beside_forwarding(self, row: Row) -> Ratio | None:
        """Return it beside the same packets without SAs, round by round; `None` without any."""
        return _ratio(row, self._find(row.case, FORWARDING))

    def beside_raw(self, row: Row) -> Ratio | None:
        """Return it beside frames forwarded by the same I/O method on one CPU; `None` for several workers."""
        return _ratio(row, self._find(row.case, RAW, io=row.case.io))

    def beside_crypto(self, row: Row) -> Ratio | None:
        """Return it beside what the crypto library alone seals on one CPU, which that takes all of.

        `None` where nothing is sealed, or by several workers.
        """
        if not row.case.sas or row.case.workers > 1:
            return None
        alone = self.crypto_per_s.get(row.case.size, [])
        return _paired(row.overload, [(rate, rate) for rate in alone])

    @property
    def peers(self) -> list[str]:
        """Return the programs of others that were measured, in order."""
        found = {row.case.placement for row in self.rows}
        return [peer for peer in PEERS if peer in found]

    def beside_peer(self, row: Row, peer: str) -> Ratio | None:
        """Return it beside a peer's with the same packets; `None` for several workers beside a peer's one."""
        return _ratio(row, self._find(row.case, peer))

    @property
    def unpaired(self) -> list[str]:
        """Return what rows of several workers are not compared with: what was measured on one CPU."""
        if all(row.case.workers == 1 for row in self.rows):
            return []
        found = {row.case.placement for row in self.rows}
        crypto = ["crypto alone"] if self.crypto_per_s else []
        return [*(name for name in ONE_CPU if name in found), *crypto]

    def _find(self, case: Case, placement: str, io: str = "") -> Row | None:
        """Return the row of the same packets by something else; with as many SAs, where there is a choice.

        `None` where that has one CPU and this has several workers.
        """
        if case.workers > 1 and placement in ONE_CPU:
            return None
        wanted = (placement, io, case.direction, case.size, case.flows)
        found = [
            row
            for row in self.rows
            if (row.case.placement, row.case.io, row.case.direction, row.case.size, row.case.flows) == wanted
        ]
        return next((row for row in found if row.case.sas == case.sas), found[0] if found else None)

    def to_json(self) -> str:
        """Return everything, each round included."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, default=lambda item: item.value)


def _ratio(row: Row, base: Row | None) -> Ratio | None:
    """Return one row beside another; `None` where there is none."""
    if base is None or base is row:
        return None
    return _paired(row.overload, [(each.delivered_per_s, each.packets_per_cpu_s) for each in base.overload])


def _paired(ours: Sequence[Measured], theirs: Sequence[tuple[float, float]]) -> Ratio | None:
    """Return our rounds beside theirs: rates, and packets for each second of CPU time."""
    pairs = [(our, rate, cpu) for our, (rate, cpu) in zip(ours, theirs, strict=False) if rate and cpu]
    if not pairs:
        return None
    return Ratio(
        median(our.delivered_per_s / rate for our, rate, _ in pairs),
        median(our.packets_per_cpu_s / cpu for our, _, cpu in pairs),
    )


def read_results(text: str) -> Results:
    """Return what `to_json` wrote.

    Raises:
        ResultsError: It is something else.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ResultsError(f"not JSON: {error}") from error
    found = data.pop("schema", None) if isinstance(data, dict) else None
    if found != SCHEMA:
        raise ResultsError(f"these are not results of `ipsecgw bench path`: schema {found!r}, not {SCHEMA!r}")
    try:
        rows = [_read_row(row) for row in data.pop("rows")]
        left_out = [LeftOut(**item) for item in data.pop("left_out")]
        return Results(**data, rows=rows, left_out=left_out)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"results of `ipsecgw bench path` are not whole: {error}") from error


def _read_row(data: Mapping[str, Any]) -> Row:
    row = dict(data)
    case = dict(row.pop("case"))
    direction = Direction(case.pop("direction"))
    overload, half = (tuple(map(_read_measured, row.pop(name))) for name in ("overload", "half"))
    return Row(case=Case(direction=direction, **case), overload=overload, half=half, **row)


def _read_measured(data: Mapping[str, Any]) -> Measured:
    measured = Measured(**data)
    for item in fields(Measured):
        if item.type in (int, float, "int", "float") and not isinstance(
            getattr(measured, item.name), int | float
        ):
            raise TypeError(f"{item.name} is no number")
    return measured
