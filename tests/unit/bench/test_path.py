"""`bench path` without packets: its plan, its figures, its JSON file, its report."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway.api.generator import Traffic
from gateway.bench.compare import CompareError, compare
from gateway.bench.path import dpdk, versions
from gateway.bench.path.bed import Bed, Device
from gateway.bench.path.carriers import carrying
from gateway.bench.path.dpdk import secgw_config, secgw_path
from gateway.bench.path.gateway import NotPlaced, new_tunnel
from gateway.bench.path.generator import LocalGenerator
from gateway.bench.path.plan import (
    CABLE,
    FORWARDING,
    IMIX,
    IO,
    LIBIPSEC,
    RAW,
    RAW_IO,
    SECGW,
    TESTPMD,
    WIREGUARD,
    Case,
    Direction,
    Setup,
    Wanted,
    mean_bytes,
    sizes_bytes,
)
from gateway.bench.path.results import LeftOut, Measured, Ratio, Results, ResultsError, Row, read_results
from gateway.bench.path.tables import report
from gateway.bench.path.versions import measured_versions
from gateway.bench.topology import Namespace

RATE = {
    "software": 10_000.0,
    FORWARDING: 100_000.0,
    RAW: 80_000.0,
    "engine": 60_000.0,
    SECGW: 30_000.0,
    WIREGUARD: 5_000.0,
}


def measured(rate: float, **changes: Any) -> Measured:
    values: dict[str, Any] = {
        "offered_per_s": 2 * rate,
        "delivered_per_s": rate,
        "loss": 0.5,
        "busy_cpu_s": 0.5,
        "generator_cpu_s": 0.2,
        "gateway_cpu_s": 0.25,
        "others_cpu_s": 0.0,
        "bad_samples": 0,
        "clear_samples": 0,
        "sink_drops": 0,
        "sent_by": "packet socket",
        "latency_us": {"p50": 10.0, "p99": 20.0, "max": 30.0},
    }
    return Measured(**{**values, **changes})


def row(
    placement: str = "software", direction: Direction = Direction.OUT, io: str = "", workers: int = 1
) -> Row:
    rates = [RATE[placement] * factor for factor in (0.9, 1.0, 1.2)]
    return Row(
        case=Case(
            placement=placement,
            direction=direction,
            size="1420",
            sas=int(placement not in (FORWARDING, RAW)),
            flows=4,
            io=io,
            workers=workers,
        ),
        placement_found=placement,
        io="kernel forwarding",
        overload=tuple(map(measured, rates)),
        half=tuple(measured(rate / 2, loss=0.0) for rate in rates),
        counters={"lan.rx.packets": 1234},
        drops={"replay": 3},
    )


def busy(found: Row, busy_cpu_s: float) -> Row:
    """Return the same rates for so much CPU time a second."""
    return replace(found, overload=tuple(replace(each, busy_cpu_s=busy_cpu_s) for each in found.overload))


def about(rate: float, per_cpu: float) -> Ratio:
    return Ratio(pytest.approx(rate), pytest.approx(per_cpu))


def results(**changes: Any) -> Results:
    values: dict[str, Any] = {
        "machine": {"kernel": "6.12", "cpu": "some"},
        "interfaces": "lan (veth), outer (veth)",
        "why_no_speed": "",
        "seconds": 1.0,
        "rounds": 3,
        "rows": [row(FORWARDING), row()],
        "left_out": [LeftOut(placement="engine", sas=1, reason="nobody drives <it>")],
    }
    return Results(**{**values, **changes})


def test_forwarding_has_no_sas_and_every_other_placement_each_number_of_them() -> None:
    wanted = Wanted(placements=(FORWARDING, "kernel"), sas=(1, 100), sizes=("64",), flows=(1, 8))

    assert wanted.setups() == [
        Setup(placement=FORWARDING, sas=0),
        Setup(placement="kernel", sas=1),
        Setup(placement="kernel", sas=100),
    ]
    cases = wanted.cases(wanted.setups()[2])
    assert [(case.flows, case.direction.value) for case in cases] == [
        (1, "out"),
        (1, "in"),
        (8, "out"),
        (8, "in"),
    ]


def test_the_engine_is_measured_by_each_method_with_each_number_of_workers_and_sas() -> None:
    wanted = Wanted(placements=("engine", RAW, LIBIPSEC), sas=(1, 100), workers=(1, 2))

    setups = wanted.setups()

    engine = [setup for setup in setups if setup.placement == "engine"]
    assert len(set(engine)) == len(IO) * 2 * 2
    assert wanted.cases(engine[-1])[0].who == f"engine by {IO[-1]}, 2 workers"
    assert [setup for setup in setups if setup.placement != "engine"] == [
        *(Setup(placement=RAW, sas=0, io=io) for io in RAW_IO),
        Setup(placement=LIBIPSEC, sas=1),
    ]


def test_the_generator_alone_is_measured_once_whatever_the_engine_is_asked_for() -> None:
    wanted = Wanted(placements=(CABLE,), sas=(1, 100), workers=(1, 2))

    assert wanted.setups() == [Setup(placement=CABLE, sas=0)]


def test_the_generator_alone_is_left_out_on_interfaces_that_are_no_veth(tmp_path: Path) -> None:
    nic = Device(name="ens1", driver="ice")
    bed = Bed(
        prefix="gwbn",
        gateway=Namespace("gwbn-gw"),
        lan=nic,
        outer=nic,
        generator=LocalGenerator(list, lan="a", outer="b"),
    )

    with (
        pytest.raises(NotPlaced, match="it is a veth pair"),
        carrying(Setup(placement=CABLE, sas=0), bed, tmp_path, 256),
    ):
        pass


def test_the_mix_has_seven_small_four_middle_and_one_large_packet() -> None:
    sizes = sizes_bytes(IMIX)

    assert [sizes.count(size) for size in (64, 512, 1420)] == [7, 4, 1]
    assert mean_bytes(sizes) == pytest.approx((7 * 64 + 4 * 512 + 1420) / 12)


def test_loss_counts_what_came_late_as_come_and_the_rate_does_not() -> None:
    traffic = Traffic(
        seconds=2.0,
        sent=1000,
        send_retries=0,
        received_in_window=700,
        received=900,
        received_bytes=0,
        sink_drops=0,
        samples=0,
        bad_samples=0,
        clear_samples=0,
        sender_cpu_s=0.0,
        sink_cpu_s=0.0,
        method="live frames",
        latency_us={},
    )

    assert traffic.delivered_per_s == 350
    assert traffic.loss == pytest.approx(0.1)


def test_figures_of_a_row_are_those_of_its_median_round() -> None:
    found = row()

    assert found.delivered_per_s.median == 10_000
    assert (found.delivered_per_s.first_quartile, found.delivered_per_s.third_quartile) == (9_500, 11_000)
    assert found.packets_per_cpu_s.median == 20_000
    assert found.gigabits_per_s == pytest.approx(0.1136)
    assert (found.latency_us("p99"), found.latency_us("p999")) == (20.0, None)


def test_a_row_is_compared_with_the_same_packets_forwarded() -> None:
    run = results(rows=[row(FORWARDING), busy(row(), 1.0), row(direction=Direction.IN)])

    assert run.beside_forwarding(run.rows[1]) == about(0.1, 0.05)
    assert "0.10 (0.05)" in shown(run)
    assert run.beside_forwarding(run.rows[0]) is None
    assert run.beside_forwarding(run.rows[2]) is None, "there is no forwarding in that direction"


def test_a_row_is_compared_with_raw_frames_by_the_same_method_only() -> None:
    rows = [busy(row(RAW, io="live"), 2.0), row("engine", io="live"), row("engine", io="af_xdp")]
    run = results(rows=rows)

    assert run.beside_raw(rows[1]) == about(0.75, 3.0)
    assert "0.75 (3.00)" in shown(run)
    assert run.beside_raw(rows[2]) is None
    assert run.beside_raw(rows[0]) is None


def test_a_row_is_compared_with_peers_by_rate_and_by_cpu_time() -> None:
    theirs = busy(row(SECGW), 1.5)
    run = results(rows=[row("engine", io="live"), theirs])

    assert run.peers == [SECGW]
    assert run.beside_peer(run.rows[0], SECGW) == about(2.0, 6.0)
    assert run.beside_peer(run.rows[0], LIBIPSEC) is None
    assert run.beside_peer(theirs, SECGW) is None
    assert "2.00 (6.00)" in shown(run)


def test_a_row_with_sas_is_compared_with_the_crypto_library_round_by_round() -> None:
    rows = [row("engine", io="live"), row(RAW, io="live")]
    run = results(rows=rows, crypto_per_s={"1420": [540_000.0, 600_000.0, 720_000.0]})

    # The library takes all of one CPU; the row half of one.
    assert run.beside_crypto(rows[0]) == about(0.1, 0.2)
    assert run.beside_crypto(rows[1]) is None


def test_a_row_without_cpu_time_has_no_ratio_that_would_hide_it() -> None:
    rows = [row("engine", io="live"), busy(row(SECGW), 0.0)]

    assert results(rows=rows).beside_peer(rows[0], SECGW) is None


def test_several_workers_are_not_compared_with_what_has_one_cpu() -> None:
    one, two = row("engine", io="live"), row("engine", io="live", workers=2)
    bases = [row(FORWARDING), row(RAW, io="live"), row(SECGW), row(WIREGUARD)]
    run = results(rows=[one, two, *bases], crypto_per_s={"1420": [540_000.0, 600_000.0, 720_000.0]})

    def ratios(of: Row) -> list[bool]:
        found = (run.beside_forwarding(of), run.beside_raw(of), run.beside_crypto(of))
        return [ratio is not None for ratio in (*found, *(run.beside_peer(of, each) for each in run.peers))]

    assert run.peers == [SECGW, WIREGUARD]
    assert ratios(one) == [True, True, True, True, True]
    # The kernel, and programs with threads of their own, have every CPU.
    assert ratios(two) == [True, False, False, False, True]


def test_what_several_workers_are_not_compared_with_is_said_beside_the_table() -> None:
    rows = [row("engine", io="live"), row(RAW, io="live"), row(SECGW), row(FORWARDING)]
    words = "Rows of several workers have no ratio to what has one CPU"
    run = results(rows=[*rows, row("engine", io="live", workers=2)], crypto_per_s={"1420": [1.0]})

    assert f"{words}: raw, ipsec-secgw, crypto alone." in shown(run)
    assert f"<p>{words}: raw, ipsec-secgw, crypto alone.</p>" in report(run).to_html()
    assert words not in shown(results(rows=rows))


def test_a_full_ring_of_the_engine_is_told_from_an_engine_that_is_down() -> None:
    overloaded = replace(row("engine", io="live"), drops={"no_engine": 1234})
    run = results(rows=[overloaded])

    assert "no_engine: the engine ran, but what leads to its workers was full (an AF_XDP ring" in shown(run)
    assert "no_engine: the engine ran" in report(run).to_html()
    assert "no_engine" not in shown(results())


def test_gateway_time_of_a_packet_is_that_of_its_own_processes() -> None:
    assert row("engine").gateway_ns == pytest.approx(0.25 / 60_000 * 1e9)


def test_charts_are_one_pair_for_each_kind_of_packets() -> None:
    rows = [row("engine", io="live"), row(SECGW), row("engine", Direction.IN, io="live")]

    charts = report(results(rows=rows)).charts

    assert [(chart.title.partition(": ")[2], len(chart.bars)) for chart in charts] == [
        ("out, 1420 bytes", 2),
        ("out, 1420 bytes", 2),
        ("in, 1420 bytes", 1),
        ("in, 1420 bytes", 1),
    ]
    assert charts[0].bars[0].label == "engine by live, 4 flows"


def test_versions_are_those_of_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "ask_version", lambda questions: f"by {questions[0][0]}")
    monkeypatch.setitem(versions._LIBRARIES, "engine", lambda: {"ipsec-mb": "1.3.0", "openssl": "3.0.19"})

    assert measured_versions([FORWARDING, RAW, "kernel"]) == {}
    assert measured_versions(["engine", SECGW, TESTPMD, LIBIPSEC, WIREGUARD, "engine"]) == {
        "ipsec-mb": "1.3.0",
        "openssl": "3.0.19",
        "DPDK": "by dpkg-query",
        "strongSwan": "by dpkg-query",
        "wireguard-go": "by wireguard-go",
    }
    assert list(measured_versions(["software"])) == ["cryptography"]


def test_another_version_is_told_when_runs_are_compared() -> None:
    old, new = (results(machine={"DPDK": number, "load": number}) for number in ("22.11.10", "22.11.11"))

    _, differences = compare("path", old.to_json(), new.to_json())

    assert differences == ["DPDK was 22.11.10 and is 22.11.11"]
    _, differences = compare("path", results(machine={}).to_json(), new.to_json())
    assert differences == ["DPDK was not told and is 22.11.11"]


def test_secgw_gets_the_keys_and_networks_of_each_pair() -> None:
    tunnel = new_tunnel(2, 128)

    lines = secgw_config(tunnel, ["02:00:00:00:00:01", "02:00:00:00:00:02"]).splitlines()

    pair = tunnel.sas[1]
    assert (
        f"sp ipv4 out esp protect {pair.outbound_spi} pri 1 dst 10.128.1.0/24 sport 0:65535 dport 0:65535"
        in lines
    )
    assert (
        f"sa in {pair.inbound_spi} aead_algo aes-128-gcm aead_key {pair.inbound_key.reveal().hex(':')} "
        "mode ipv4-tunnel src 192.0.2.2 dst 192.0.2.1 type cpu-crypto"
    ) in lines
    assert lines[-2:] == ["neigh port 0 02:00:00:00:00:01", "neigh port 1 02:00:00:00:00:02"]


def test_without_its_source_secgw_is_not_there_and_says_which_packages_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dpdk, "_EXAMPLE", tmp_path / "missing")

    with pytest.raises(NotPlaced, match="apt-get install dpdk-doc dpdk-dev libdpdk-dev"):
        secgw_path()


def test_secgw_of_another_version_is_not_changed_blindly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "ipsec-secgw.c").write_text("int main(void) { return 0; }")
    monkeypatch.setattr(dpdk, "_EXAMPLE", tmp_path / "example")
    monkeypatch.setattr(dpdk, "_version", lambda: "99.11")
    monkeypatch.setenv("IPSECGW_CACHE", str(tmp_path / "cache"))

    with pytest.raises(NotPlaced, match="does not ask for the checksum offload"):
        secgw_path()


def test_the_json_file_is_read_back_whole() -> None:
    run = results(rows=[row("engine", io="live")], crypto_per_s={"1420": [1.5, 2.5]})

    assert read_results(run.to_json()) == run


def damaged(change: str) -> str:
    data = json.loads(results().to_json())
    first = data["rows"][0]
    match change:
        case "schema":
            data["schema"] = "ipsecgw-bench-path/0"
        case "row":
            del first["drops"]
        case "field":
            first["surplus"] = 1
        case "direction":
            first["case"]["direction"] = "sideways"
        case "number":
            first["half"][0]["loss"] = "none"
        case "list":
            data = [data]
    return json.dumps(data)


@pytest.mark.parametrize("change", ["schema", "row", "field", "direction", "number", "list"])
def test_another_file_is_refused(change: str) -> None:
    with pytest.raises(ResultsError):
        read_results(damaged(change))


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(ResultsError, match="not JSON"):
        read_results("{")


def shown(run: Results) -> str:
    output = StringIO()
    report(run).show(Console(file=output, width=200))
    return output.getvalue()


def test_the_table_shows_rate_ratio_and_what_is_missing() -> None:
    text = shown(results())

    assert "10,000" in text
    assert "0.10" in text
    assert "left out: engine with 1 SAs: nobody drives <it>" in text
    assert "not a speed" not in text


def test_a_case_that_nothing_came_through_is_named_beside_the_others() -> None:
    case = row().case
    silent = LeftOut(placement="kernel", sas=1, case=case.words, reason="none of 300 packets came through")

    text = shown(results(left_out=[silent]))

    assert "left out: kernel with 1 SAs, out, 1420 bytes, 4 flows: none of 300 packets came through" in text


def test_what_is_no_speed_is_labelled_everywhere() -> None:
    run = results(why_no_speed="all of it is played")

    assert "not a speed: all of it is played" in shown(run)
    assert "Packets through the gateway (not a speed)" in shown(run)
    assert "not a speed: all of it is played" in report(run).to_html()


def test_the_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    page = report(results()).to_html()

    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script|<link""", page)
    assert "nobody drives &lt;it&gt;" in page
    assert page.count("<svg") == 2
    assert page.count('class="bar"') == 4


def test_two_runs_are_compared_figure_by_figure_and_machines_are_told_apart() -> None:
    new = results(machine={"kernel": "6.18", "cpu": "some"})
    faster = replace(new.rows[1], overload=tuple(measured(20_000.0) for _ in range(3)))
    new.rows[1] = faster

    table, differences = compare("path", results().to_json(), new.to_json())

    ratios = dict(zip(table.columns[0].cells, table.columns[4].cells, strict=True))
    assert ratios["software out, 1420 bytes, 1 SAs, 4 flows"] == "2.000"
    assert ratios["forwarding out, 1420 bytes, 0 SAs, 4 flows"] == "1.000"
    assert differences == ["kernel was 6.12 and is 6.18"]


@pytest.mark.parametrize(
    ("old", "words"),
    [
        (results(why_no_speed="played").to_json(), "no speeds"),
        (results(rows=[]).to_json(), "no figure in common"),
        ("[]", "no results"),
        ('{"machine": {}}', "not results"),
        ("{", "not JSON"),
    ],
    ids=["no speed", "nothing in common", "list", "other results", "no JSON"],
)
def test_what_cannot_be_compared_is_refused(old: str, words: str) -> None:
    with pytest.raises((CompareError, ResultsError), match=words):
        compare("path", old, results().to_json())
