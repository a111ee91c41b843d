"""The control-plane benchmark does what it says: SAs come up and live, rekeys end with one of each."""

import json
from io import StringIO

import pytest
from rich.console import Console

from gateway.bench.compare import compare
from gateway.bench.ike.in_memory import (
    BenchFailed,
    Pair,
    measure_footprint,
    measure_handshakes,
    measure_storm,
)
from gateway.bench.ike.run import Wanted, report, run
from gateway.bench.ike.suites import DEFAULT_SUITE, SUITES, Suite, find_suites


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_every_suite_brings_up_an_ike_sa_and_a_child_sa(suite: Suite) -> None:
    pair = Pair(suite, 1)

    pair.handshake(0)

    for core in (pair.initiator, pair.responder):
        (ike_sa,), (child_sa,) = core.endpoint.ike_sas(), core.endpoint.child_sas()
        assert str(ike_sa.proposal) == suite.ike
        assert str(child_sa.proposal) == suite.esp
    assert pair.failures == 0


def test_the_cost_of_a_handshake_is_counted_for_each_side() -> None:
    cost = measure_handshakes(DEFAULT_SUITE, 10)

    assert cost.handshakes == 10
    assert 0 < cost.responder_ms_range[0] <= cost.responder_ms <= cost.responder_ms_range[1]
    assert 0 < cost.initiator_ms_range[0] <= cost.initiator_ms <= cost.initiator_ms_range[1]


def test_held_sas_live_through_their_liveness_checks() -> None:
    pair = Pair(DEFAULT_SUITE, 1, dpd_delay_s=10.0)
    pair.handshake(0)
    before = pair.responder.cpu_ns

    footprint = measure_footprint(DEFAULT_SUITE, 20, dpd_delay_s=10.0)
    pair.run(until=pair.now + 100.0)

    assert (footprint.sas, footprint.lost) == (20, 0)
    assert pair.responder.cpu_ns > before, "ten intervals passed without a liveness check"


@pytest.mark.parametrize("both_sides", [False, True])
def test_a_storm_of_rekeys_leaves_one_of_each(both_sides: bool) -> None:
    storm = measure_storm(DEFAULT_SUITE, 10, both_sides=both_sides)

    assert storm.failures == 0
    assert storm.child_ms > 0
    assert storm.ike_ms > 0


def test_handshakes_that_do_not_come_up_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.bench.ike.in_memory.responder", _other_proposals)

    with pytest.raises(BenchFailed, match=r"NO_PROPOSAL_CHOSEN|IkeSaFailed"):
        measure_handshakes(DEFAULT_SUITE, 5)


def _other_proposals(_suite: Suite, **options: object) -> object:
    from gateway.bench.ike.suites import responder

    return responder(find_suites(["psk-modp2048"])[0], **options)  # type: ignore[arg-type]


def test_results_are_tables_and_json() -> None:
    wanted = Wanted(
        suites=[DEFAULT_SUITE],
        handshakes=5,
        udp=False,
        beside_charon=False,
        held=5,
        storm=5,
        flood_pps=0,
        flood_s=0.0,
    )
    said: list[str] = []

    results = run(wanted, said.append)
    output = StringIO()
    report(results).show(Console(file=output, width=160))

    assert [line.split(" ")[0] for line in said] == ["psk-x25519:", "5", "5", "5"]
    assert "psk-x25519" in output.getvalue()
    assert "both ends at once" in output.getvalue()
    told = json.loads(results.to_json())
    table, _ = compare("ike", results.to_json(), results.to_json())
    assert next(iter(table.columns[0].cells)) == "psk-x25519 in memory, responder"
    assert set(table.columns[4].cells) == {"1.000"}
    assert told["in_memory"][0]["suite"] == "psk-x25519"
    assert [storm["failures"] for storm in told["storms"]] == [0, 0]
    assert told["machine"]["cores"]
