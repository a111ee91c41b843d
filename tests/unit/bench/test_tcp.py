"""`ipsecgw bench tcp`: its report, and how runs are compared."""

import json

from gateway.bench.compare import compare
from gateway.bench.tcp.run import Measured, Results, Row
from gateway.bench.tcp.tables import report


def measured(gigabits_per_s: float) -> Measured:
    return Measured(
        gigabits_per_s=gigabits_per_s, cpu_s_per_gigabit=2 / gigabits_per_s, gateways_cpu=0.8, others_cpu=0.1
    )


RESULTS = Results(
    machine={"cpu": "of a test"},
    seconds=2.0,
    rows=(
        Row(way="engine", words="by raw sockets", rounds=[measured(rate) for rate in (4.0, 5.0, 8.0)]),
        Row(way="software", left_out="no privileges"),
    ),
)


def test_the_report_has_medians_and_what_was_left_out() -> None:
    found = report(RESULTS)

    assert [(bar.label, bar.value, bar.low, bar.high) for bar in found.charts[0].bars] == [
        ("engine", 5, 4, 8)
    ]
    assert found.left_out == ("software: no privileges",)
    assert "engine: by raw sockets" in found.notes
    assert any("a program of our own in place of iperf3" in note for note in found.notes)
    assert len(json.loads(found.json)["rows"][0]["rounds"]) == 3


def test_runs_are_compared_by_rate_and_cost() -> None:
    table, _ = compare("tcp", RESULTS.to_json(), RESULTS.to_json())

    assert table.row_count == 2
