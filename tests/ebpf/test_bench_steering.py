"""`ipsecgw bench steering` over the real programs: each case does what is to be measured."""

from gateway.bench.steering.run import Effort, cases_of, run


def test_every_case_is_measured_in_both_ways() -> None:
    said: list[str] = []

    results = run([3], Effort(rounds=2, packets=10), said.append)

    assert said == ["3 tunnels"]
    assert [(row.program, row.packet) for row in results.rows] == [
        (case.program, case.packet) for case in cases_of(3)
    ]
    assert all(len(row.remembered_ns) == len(row.searched_ns) == 2 for row in results.rows)
