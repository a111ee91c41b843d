"""`ipsecgw bench installs`: what it installs, its figures, its report; the service runs in this process."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from gateway.api.address import UnixAddress
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.bench.api.still_datapath import StillDatapath
from gateway.bench.compare import compare
from gateway.bench.installs.run import InstallsError, Results, Round, Wanted, measure, pair_of
from gateway.bench.installs.tables import report
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import Direction

ROW = Round(
    rate=6000.0,
    first_tenth=6400.0,
    last_tenth=5800.0,
    agent_us=150.0,
    client_us=30.0,
    list_s=0.5,
    removed_rate=9000.0,
)
RESULTS = Results(machine={"cores": "2"}, sas=10_000, batch=250, in_flight=2, rounds={"engine": [ROW]})


def wanted(**changes: int) -> Wanted:
    return Wanted(
        placements=(Engine.SOFTWARE,), **{"sas": 30, "batch": 8, "in_flight": 3, "rounds": 1, **changes}
    )


def measure_here(tmp_path: Path, engine: Engine) -> Round:
    async def run() -> Round:
        address = UnixAddress(tmp_path / "datapath.sock")
        server = ApiServer([Listener(address=address)], datapath=StillDatapath())
        await server.start()
        try:
            return await measure(address.path, os.getpid(), engine, wanted())
        finally:
            await server.stop()

    return asyncio.run(run())


def test_pairs_are_of_both_directions_and_share_nothing() -> None:
    pairs = [pair_of(index, Engine.ENGINE) for index in range(300)]

    assert {tuple(sa.direction for sa in pair) for pair in pairs} == {(Direction.INBOUND, Direction.OUTBOUND)}
    sas = [sa for pair in pairs for sa in pair]
    assert len({sa.spi for sa in sas}) == len({sa.encryption_key.reveal() for sa in sas}) == 600
    assert len({sa.remote_ts for sa in sas}) == 300


def test_installs_lists_and_removes_over_the_service(tmp_path: Path) -> None:
    row = measure_here(tmp_path, Engine.SOFTWARE)

    assert min(row.rate, row.first_tenth, row.last_tenth, row.removed_rate, row.list_s, row.agent_us) > 0


def test_sas_that_are_elsewhere_than_asked_for_are_no_result(tmp_path: Path) -> None:
    with pytest.raises(InstallsError, match="elsewhere"):
        measure_here(tmp_path, Engine.ENGINE)


def test_the_report_has_the_rate_and_whether_it_is_flat() -> None:
    console = Console(record=True, width=120)

    report(RESULTS).show(console)

    text = console.export_text()
    assert "6,000" in text
    assert "0.91" in text
    assert json.loads(RESULTS.to_json())["rounds"]["engine"][0]["rate"] == 6000.0


def test_two_runs_are_compared_by_engine() -> None:
    table, differences = compare("installs", RESULTS.to_json(), RESULTS.to_json())

    assert list(table.columns[0].cells) == ["engine, rate", "engine, agent_us", "engine, removed_rate"]
    assert differences == []
