"""`ipsecgw bench path` on veth: packets through a gateway of ours, both ways, with every figure."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.api.generator import GeneratorError, Load
from gateway.bench.path.bed import veth_bed
from gateway.bench.path.generator import LocalGenerator
from gateway.bench.path.plan import FORWARDING, PEERS, RAW_IO, Direction, Wanted
from gateway.bench.path.results import read_results
from gateway.bench.path.run import run as measure
from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from tests.engine.conftest import make
from tests.espd.conftest import ESPD

pytestmark = pytest.mark.netns

BENCH = (sys.executable, "-m", "gateway.cli.main", "bench", "path")


def run(*options: str) -> "subprocess.CompletedProcess[str]":
    """Measure, and see that no namespace of this one is left: there may be others on the machine."""
    process = subprocess.Popen([*BENCH, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, told = process.communicate(timeout=300)
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"ipsecgw-path{process.pid}-" not in left
    return subprocess.CompletedProcess(process.args, process.returncode, printed, told)


def test_software_carries_packets_both_ways_beside_forwarding(tmp_path: Path) -> None:
    file, page = tmp_path / "path.json", tmp_path / "path.html"

    done = run(
        *("--placement", "forwarding", "--placement", "software", "--placement", "nic_packet"),
        *("--size", "imix", "--sas", "3", "--flows", "6"),
        *("--rounds", "1", "--seconds", "0.3", "--json", str(file), "--html", str(page)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = read_results(file.read_text())
    assert [(row.case.placement, row.case.direction.value, row.io) for row in found.rows] == [
        ("forwarding", "out", "kernel forwarding"),
        ("forwarding", "in", "kernel forwarding"),
        ("software", "out", "TUN, raw sockets"),
        ("software", "in", "TUN, raw sockets"),
    ]
    for row in found.rows:
        assert row.placement_found == row.case.placement
        assert row.delivered_per_s.median > 0
        assert row.packets_per_cpu_s.median > 0
        assert row.latency_us("p99") is not None
        assert {each.sent_by for each in row.overload} == {"live frames"}
        assert sum(each.bad_samples for each in (*row.overload, *row.half)) == 0
        way = "outer.tx.packets" if row.case.direction.value == "out" else "lan.tx.packets"
        assert row.counters[way] > 0
    (left_out,) = found.left_out
    assert left_out.placement == "nic_packet"
    assert "ESP" in left_out.reason or "offload" in left_out.reason
    assert "<svg" in page.read_text()


def test_the_generator_counts_what_it_sends_itself_where_there_is_no_gateway(tmp_path: Path) -> None:
    file = tmp_path / "path.json"

    done = run(
        *("--placement", "cable", "--size", "64", "--rounds", "1", "--seconds", "0.2", "--json", str(file)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_results(file.read_text()).rows
    assert [(row.case.who, row.case.direction.value, row.placement_found) for row in rows] == [
        ("cable", "out", "no gateway"),
        ("cable", "in", "no gateway"),
    ]
    for row in rows:
        assert row.delivered_per_s.median > 0
        assert {each.sent_by for each in row.overload} == {"live frames"}
        assert sum(each.bad_samples for each in (*row.overload, *row.half)) == 0


@pytest.fixture
def espd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have agents use this checkout's engine."""
    monkeypatch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))


@pytest.mark.usefixtures("espd")
# How the engine sends by the other two is shown by the tests of espd; here they are told in the same way.
@pytest.mark.parametrize(
    "io", [one if one == "live" else pytest.param(one, marks=pytest.mark.slow) for one in RAW_IO]
)
def test_the_engine_sends_by_what_it_is_told_beside_raw_frames(io: str, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    words = {"live": "live frames", "af_xdp": "AF_XDP copy", "af_packet": "AF_PACKET"}[io]

    done = run(
        *("--placement", "engine", "--placement", "raw", "--io", io, "--size", "512"),
        *("--rounds", "1", "--seconds", "0.2", "--json", str(file)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = read_results(file.read_text())
    assert found.left_out == []
    assert [(row.case.who, row.case.direction.value) for row in found.rows] == [
        (f"engine by {io}", "out"),
        (f"engine by {io}", "in"),
        (f"raw by {io}", "out"),
        (f"raw by {io}", "in"),
    ]
    engine, raw = found.rows[:2], found.rows[2:]
    for row in engine:
        assert f"lan in by AF_XDP copy and out by {words}" in row.io
        assert f"outer in by AF_XDP copy and out by {words}" in row.io
        assert found.beside_raw(row) is not None
        assert found.beside_crypto(row) is not None
    for row in raw:
        assert row.io == f"in by AF_XDP copy and out by {words}"
    for row in found.rows:
        assert row.placement_found == row.case.placement
        assert row.delivered_per_s.median > 0
        assert sum(each.bad_samples + each.clear_samples for each in (*row.overload, *row.half)) == 0


@pytest.mark.slow  # that workers share queues is shown by the tests of espd
@pytest.mark.usefixtures("espd")
def test_one_worker_has_all_queues_and_two_have_one_each(tmp_path: Path) -> None:
    """Four sockets on one pool of frames leave frames to send with."""
    file = tmp_path / "path.json"

    done = run(
        *("--placement", "engine", "--io", "af_xdp", "--size", "64", "--sas", "4", "--flows", "8"),
        *("--workers", "1", "--workers", "2", "--rounds", "1", "--seconds", "0.2", "--json", str(file)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = read_results(file.read_text())
    assert found.left_out == []
    assert [row.case.who for row in found.rows] == [
        *["engine by af_xdp"] * 2,
        *["engine by af_xdp, 2 workers"] * 2,
    ]
    assert all(row.delivered_per_s.median > 0 for row in found.rows)


PROGRAMS = {
    "ipsec-secgw": ("/usr/share/dpdk/examples/ipsec-secgw", "dpdk-doc"),
    "testpmd": ("/usr/bin/dpdk-testpmd", "dpdk-dev"),
    "libipsec": ("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"),
    "wireguard-go": ("/usr/bin/wireguard-go", "wireguard-go"),
}


# One shows that a peer is measured beside us; which of them a machine has is not our doing.
@pytest.mark.parametrize(
    "peer", [one if one == "libipsec" else pytest.param(one, marks=pytest.mark.slow) for one in PEERS]
)
def test_a_peer_carries_the_same_packets_or_is_left_out_with_the_reason(peer: str, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    needed, package = PROGRAMS[peer]

    done = run(
        *("--placement", "forwarding", "--peer", peer, "--size", "512", "--flows", "2"),
        *("--rounds", "1", "--seconds", "0.2", "--json", str(file)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = read_results(file.read_text())
    if not Path(needed).exists():
        (left_out,) = found.left_out
        assert left_out.placement == peer
        assert package in left_out.reason
        return
    assert found.left_out == []
    rows = [row for row in found.rows if row.case.placement == peer]
    assert [row.case.direction.value for row in rows] == ["out", "in"]
    for row in rows:
        assert row.delivered_per_s.median > 0
        assert sum(each.bad_samples + each.clear_samples for each in (*row.overload, *row.half)) == 0
    assert found.beside_peer(found.rows[0], peer) is not None


def test_a_placement_that_cannot_be_had_is_told_with_its_reason(tmp_path: Path) -> None:
    done = run("--placement", "xdp", "--size", "64", "--json", str(tmp_path / "path.json"))

    assert done.returncode == 1
    assert "left out: xdp with 1 SAs: this version has no backend that drives it" in done.stdout
    assert json.loads((tmp_path / "path.json").read_text())["rows"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lan", "eth7"), "all of them must be named: --outer, --generator-lan, --generator-outer missing"),
        (
            ("--lan", "gwnone0", "--outer", "b", "--generator-lan", "c", "--generator-outer", "d"),
            "gwnone0",
        ),
        (("--compare", "/nonexistent/old.json"), "/nonexistent/old.json cannot be read"),
    ],
    ids=["some interfaces", "unknown interface", "nothing to compare with"],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_made(
    options: tuple[str, ...], words: str
) -> None:
    done = run(*options)

    assert done.returncode == 1
    assert words in done.stderr


LOAD = Load(is_out=True, is_esp=False, packets_per_s=200, seconds=0.2, flows=1, sample=1, sizes_bytes=(64,))


def test_the_generator_counts_what_it_sent_and_finds_it_again() -> None:
    windows: list[bool] = []
    with veth_bed("gwpathgen") as bed:
        bed.generator.configure(None)
        traffic = bed.generator.run(LOAD, windows.append)
        bed.generator.close()

    assert windows == [True, False]
    assert 0 < traffic.sent <= 41
    assert traffic.received == traffic.sent == traffic.samples
    assert traffic.received_bytes == 64 * traffic.sent
    assert traffic.bad_samples == 0
    assert set(traffic.latency_us) == {"p50", "p90", "p99", "p999", "max"}


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"is_esp": True}, "SAs for ESP"),
        ({"sample": 3}, "a power of two"),
        ({"sizes_bytes": (20,)}, "packets of 20 bytes cannot be sent"),
    ],
    ids=["no SAs", "sample", "size"],
)
def test_the_generator_refuses_what_it_cannot_send(load: dict[str, object], words: str) -> None:
    values = {name: getattr(LOAD, name) for name in Load.__slots__}
    with veth_bed("gwpathgen") as bed:
        bed.generator.configure(None)
        with pytest.raises(GeneratorError, match=words):
            bed.generator.run(Load(**{**values, **load}), lambda _: None)
        bed.generator.close()


def test_a_generator_without_its_program_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPSECGW_ENGINE", "/nonexistent/libgw_engine.so")
    with veth_bed("gwpathgen") as bed, pytest.raises(GeneratorError, match="`make engine` builds it"):
        bed.generator.configure(None)


def test_a_generator_that_was_not_configured_says_so() -> None:
    with veth_bed("gwpathgen") as bed:
        assert isinstance(bed.generator, LocalGenerator)
        with pytest.raises(GeneratorError, match="not configured"):
            bed.generator.run(LOAD, lambda _: None)


def test_a_rig_without_its_nic_shows_its_steps_and_says_what_is_missing() -> None:
    done = run("--rig", "ixgbe")

    assert done.returncode == 1
    assert "ethtool -K OUTER esp-hw-offload on" in done.stdout
    assert "rig ixgbe needs a NIC with driver ixgbe, and this machine has none" in done.stderr


def test_a_generator_behind_its_api_measures_the_same(tmp_path: Path) -> None:
    """Its agent stands where the other host would, in the namespace at the other ends of two cables."""
    address = f"unix:{tmp_path}/bench.sock"
    with far_host("gwpathfar") as host:
        agent = host.popen(
            *(*BENCH[:-1], "agent", "--listen", address, "--lan", "lan", "--outer", "outer"),
            stderr=subprocess.PIPE,
        )
        try:
            assert agent.stderr is not None
            assert "ready at" in agent.stderr.readline()
            file = tmp_path / "path.json"
            done = run(
                *("--placement", "software", "--size", "64", "--rounds", "1", "--seconds", "0.3"),
                *("--lan", "gwpathlan", "--outer", "gwpathouter", "--generator", address),
                *("--json", str(file)),
            )
            left = host.run("ip", "link").stdout
        finally:
            agent.terminate()
            agent.communicate(timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_results(file.read_text()).rows
    assert [(row.case.direction.value, row.placement_found) for row in rows] == [
        ("out", "software"),
        ("in", "software"),
    ]
    assert all(row.delivered_per_s.median > 0 for row in rows)
    assert "gwlive" not in left, "a device for live frames was left behind"
    assert "xdp" not in left, "an XDP program was left behind"


def test_a_case_that_nothing_comes_through_is_left_out_and_the_others_are_measured() -> None:
    wanted = Wanted(placements=(FORWARDING,), sizes=("64",), rounds=1, seconds=0.1)
    said: list[str] = []
    with veth_bed("gwpathgen") as bed:
        bed.gateway.run("ip", "route", "replace", "blackhole", "10.128.0.0/9")
        results = measure(bed, wanted, said.append)

    assert [row.case.direction for row in results.rows] == [Direction.IN]
    (left_out,) = results.left_out
    assert left_out.case == "out, 64 bytes, 1 flows"
    assert re.match(r"none of \d+ packets came through; drops of the gateway: none", left_out.reason)
    assert any(line.startswith("measuring round 1: left out: none of") for line in said)


@contextmanager
def far_host(name: str) -> Iterator[Namespace]:
    """Make a host with two interfaces, `lan` and `outer`, cabled to `gwpathlan` and `gwpathouter` here."""
    host = make_namespace(name)
    try:
        for near, far in (("gwpathlan", "lan"), ("gwpathouter", "outer")):
            subprocess.run(
                ["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name], check=True
            )
            host.run("ip", "link", "set", far, "up")
        yield host
    finally:
        delete_namespace(host)
