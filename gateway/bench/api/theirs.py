"""charon's vici under the same load: what `swanctl --load-all` sends, without what that parses."""

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from gateway.bench.api import connections
from gateway.bench.api.ours import CALLS
from gateway.bench.api.results import Applied, Call
from gateway.bench.api.vici import Vici
from gateway.bench.ike.usage import usage_of


def measure_loading(path: Path, pid: int, many: int) -> Applied:
    """Load connections with their keys into charon, load them again, and list them."""
    with Vici(path) as vici:
        before = usage_of(pid)
        began = time.perf_counter()
        marks = [began]
        for number in range(many):
            _load(vici, number)
            marks.append(time.perf_counter())
        after = usage_of(pid)
        again_s = _timed(lambda: _load_all(vici, many))
        list_s = [_timed(lambda: sum(1 for _ in vici.stream("list-conns", "list-conn"))) for _ in range(2)]
        resident = usage_of(pid).resident_bytes
    tenth = max(1, many // 10)
    return Applied(
        rate=many / (marks[-1] - began),
        first_tenth=tenth / (marks[tenth] - marks[0]),
        last_tenth=tenth / (marks[-1] - marks[-1 - tenth]),
        cpu_us=(after.cpu_s - before.cpu_s) / many * 1e6,
        again_s=again_s,
        first_list_s=list_s[0],
        list_s=list_s[1],
        resident_bytes=resident,
    )


def _load(vici: Vici, number: int) -> None:
    vici.call("load-shared", connections.vici_secret(number))
    vici.call("load-conn", connections.vici_connection(number))


def _load_all(vici: Vici, many: int) -> None:
    for number in range(many):
        _load(vici, number)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_calls(path: Path, many: int) -> list[Call]:
    """Measure single calls, one after the other, at a charon with so many connections."""
    numbers = count(7)

    def next_number() -> int:
        return next(numbers) * 7919 % many

    with Vici(path) as vici:
        kinds: dict[str, Callable[[], object]] = {
            "apply one, unchanged": lambda: _load(vici, next_number()),
            "apply one, changed": lambda: vici.call(
                "load-conn", connections.vici_connection(next_number(), dpd_delay_s=17)
            ),
            "status": lambda: vici.call("stats"),
        }
        return [Call.of(name, [_timed(call) for _ in range(CALLS)]) for name, call in kinds.items()]
