"""`ipsecgw bench crypto` and `engine`: plan, ratios, tables, and one short run of the real program."""

import json
from itertools import product
from pathlib import Path

import pytest
from rich.console import Console

from gateway.bench.compare import compare
from gateway.bench.engine import run as engine_run
from gateway.bench.engine.plan import (
    DIRECT,
    FETCH,
    OPEN,
    ORDERS,
    RANDOM,
    REFERENCE_SUITE,
    SA_COUNTS,
    SEAL,
    SIZES,
    SUITES,
    TURNS,
    Measure,
    crypto_measures,
    engine_measures,
)
from gateway.bench.engine.run import Effort, Results, bench_path, read_results, run
from gateway.bench.engine.tables import crypto_report, engine_report
from gateway.datapath.engine.core import Crypto, EngineError

GCM = REFERENCE_SUITE


def results_of(cycles: dict[Measure, list[float]]) -> Results:
    printed = {
        "counter_hz": 2e9,
        "ipsec_mb": "ipsec-mb 1.3.0",
        "openssl": "OpenSSL 3.0.19",
        "cycles": {measure.spec: rounds for measure, rounds in cycles.items()},
    }
    return read_results(json.dumps(printed), list(cycles))


def test_a_measure_is_written_as_the_program_reads_it() -> None:
    measure = Measure(SEAL, GCM, Crypto.IPSECMB, 1420, 1000)

    assert measure.spec == "seal:20:0:256:1:1420:1000:turns"


def test_every_size_and_number_of_sas_is_measured_both_ways_beside_the_library_alone() -> None:
    measures = engine_measures(GCM, Crypto.IPSECMB, SIZES, SA_COUNTS)

    assert {(m.what, m.packet_bytes, m.sas) for m in measures if m.what != FETCH} == {
        (what, size, sas) for what in (DIRECT, SEAL, OPEN) for size in SIZES for sas in SA_COUNTS
    }
    orders = {(m.what, m.order) for m in measures if m.sas > 1}
    assert orders == set(product((FETCH, DIRECT, SEAL, OPEN), ORDERS))
    assert {m.order for m in measures if m.sas == 1} == {TURNS}


def test_suites_without_a_direct_call_are_measured_by_bursts() -> None:
    measures = crypto_measures(SUITES, [Crypto.IPSECMB, Crypto.OPENSSL], [64])

    direct = {(m.suite.name, m.crypto) for m in measures if m.what == DIRECT}
    assert direct == {("aes128gcm16", Crypto.IPSECMB), ("aes256gcm16", Crypto.IPSECMB)}


def test_ratios_are_taken_round_by_round() -> None:
    raw = Measure(DIRECT, GCM, Crypto.IPSECMB, 64)
    seal = Measure(SEAL, GCM, Crypto.IPSECMB, 64)
    keys = Measure(DIRECT, GCM, Crypto.IPSECMB, 64, 1000, RANDOM)
    many = Measure(SEAL, GCM, Crypto.IPSECMB, 64, 1000, RANDOM)
    # The machine is twice as slow in the last round, for all of them.
    results = results_of(
        {raw: [80, 80, 160], seal: [100, 100, 200], keys: [99, 99, 198], many: [110, 110, 220]}
    )
    of = {result.measure: result for result in results.results}

    assert results.ratio(of[seal]) == pytest.approx(0.8)
    assert results.slowdown(of[many]) == pytest.approx(0.1)
    assert results.own_ratio(of[many]) == pytest.approx(0.9)
    assert results.own_ratio(of[seal]) == pytest.approx(0.8)
    assert results.slowdown(of[seal]) is None
    assert results.ratio(of[raw]) is None


def test_cycles_become_time_and_rate_by_the_counter_of_the_run() -> None:
    seal = Measure(SEAL, GCM, Crypto.IPSECMB, 1000)
    results = results_of({seal: [400, 500, 600]})
    (result,) = results.results

    assert results.nanoseconds(result) == pytest.approx(250)
    assert results.gigabits(result) == pytest.approx(32)
    assert result.spread == (450, 550)


def test_tables_and_json_have_every_measure() -> None:
    measures = engine_measures(GCM, Crypto.IPSECMB, (64,), (1, 1000))
    results = results_of({measure: [100.0, 101.0, 102.0] for measure in measures})
    console = Console(record=True, width=100)

    engine_report(results).show(console)
    crypto_report(results).show(console)

    text = console.export_text()
    assert text.count("direct call") == 8  # with one key, with a thousand in each order; in both tables
    assert "1,000" in text
    assert "+0%" in text
    written = json.loads(results.to_json())
    assert [row["sas"] for row in written["results"]] == [1] * 3 + [1000] * 12
    assert {row["order"] for row in written["results"]} == set(ORDERS)
    assert written["results"][0]["rounds"] == [100.0, 101.0, 102.0]
    assert engine_report(results).to_html().count('class="bar"') == 15


def test_two_runs_are_compared_measure_by_measure() -> None:
    seal = Measure(SEAL, GCM, Crypto.IPSECMB, 64)
    old, new = (results_of({seal: [cycles] * 3}).to_json() for cycles in (100.0, 80.0))

    table, differences = compare("engine", old, new)

    assert list(table.columns[0].cells) == [f"{GCM.name} by ipsecmb, seal, 64 bytes, 1 SAs"]
    assert list(table.columns[4].cells) == ["0.800"]
    assert differences == []


def program(folder: Path, script: str) -> None:
    """Put a script where the program would be."""
    path = folder / "bench"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


EFFORT = Effort(rounds=2, packets=64, burst=64, cpu=None)
SEAL_64 = Measure(SEAL, GCM, Crypto.OPENSSL, 64)


def test_each_round_is_told_when_it_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(tmp_path / "libgw_engine.so"))
    printed = json.dumps(
        {"counter_hz": 2e9, "ipsec_mb": "", "openssl": "OpenSSL 3.0.19", "cycles": {SEAL_64.spec: [1, 2]}}
    )
    # More than a pipe holds is printed before the second round is told.
    padding = "printf '%70000s' ''"
    program(
        tmp_path, f"echo round 1 of 2 >&2; {padding}; echo round 2 of 2 >&2; echo noise >&2; echo '{printed}'"
    )
    said: list[str] = []

    results = run([SEAL_64], EFFORT, said.append)

    assert said == ["round 1 of 2", "round 2 of 2"]
    assert results.results[0].rounds == (1, 2)


def test_what_the_program_says_when_it_fails_is_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(tmp_path / "libgw_engine.so"))
    program(tmp_path, "echo round 1 of 2 >&2; echo 'bench: not sealed (7)' >&2; exit 1")

    with pytest.raises(EngineError, match=r"/bench failed: bench: not sealed \(7\)$"):
        run([SEAL_64], EFFORT)


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(tmp_path / "libgw_engine.so"))
    monkeypatch.setattr(engine_run, "_TIMEOUT_S", 0.01)
    program(tmp_path, "exec sleep 600")

    with pytest.raises(EngineError, match="did not end within"):
        run([SEAL_64], EFFORT)


def test_a_machine_without_the_engine_is_told_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", str(tmp_path / "libgw_engine.so"))
    effort = Effort(rounds=1, packets=64, burst=64, cpu=None)

    with pytest.raises(EngineError, match="make engine"):
        run([Measure(SEAL, GCM, Crypto.OPENSSL, 64)], effort)
    assert bench_path() == tmp_path / "bench"
