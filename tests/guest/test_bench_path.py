"""`ipsecgw bench path` on a kernel with ESP: the kernel's own, and a NIC that netdevsim plays."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.compare import CompareError, compare
from gateway.bench.path.results import Results, read_results
from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from tests.conformance.namespace import inside
from tests.guest import netdevsim

pytestmark = pytest.mark.guest

BENCH = (sys.executable, "-m", "gateway.cli.main", "bench", "path", "--rounds", "1", "--seconds", "0.2")
NIC = ("--key-bits", "128", "--size", "512")
NO_SPEED = "User Mode Linux: the kernel is a process and one CPU is shared by all"


def run(command: list[str], file: Path) -> tuple["subprocess.CompletedProcess[str]", Results]:
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done, read_results(file.read_text())


def test_kernel_esp_is_measured_and_is_no_speed_in_a_guest(tmp_path: Path) -> None:
    options = ["--placement", "kernel", "--size", "64", "--sas", "10", "--flows", "20"]

    done, found = run([*BENCH, *options], tmp_path / "path.json")

    assert found.why_no_speed == NO_SPEED
    assert f"not a speed: {NO_SPEED}" in done.stdout
    assert [(row.case.direction.value, row.placement_found) for row in found.rows] == [
        ("out", "kernel"),
        ("in", "kernel"),
    ]
    assert all(row.delivered_per_s.median > 0 for row in found.rows)
    # This kernel has no tracepoints that BPF could watch.
    assert {each.sent_by for row in found.rows for each in row.overload} == {"packet socket"}
    assert sum(each.bad_samples + each.clear_samples for row in found.rows for each in row.overload) == 0
    with pytest.raises(CompareError, match="no speeds, so they are not compared"):
        compare("path", found.to_json(), found.to_json())


@pytest.fixture
def cabled(request: pytest.FixtureRequest) -> Iterator[tuple[Namespace, list[str]]]:
    """A namespace with two netdevsim NICs and two veth devices, cabled; and the options that name them.

    With the parameter `full` the NICs are such: their features can be switched.
    """
    full = getattr(request, "param", "") == "full"
    here = make_namespace("bench-nics")
    try:
        with (
            inside(here),
            netdevsim.device(number=1, full=full) as gateway,
            netdevsim.device(number=2, full=full) as generator,
        ):
            netdevsim.connect(gateway, here, generator, here)
            here.run("ip", "link", "add", "bench-lan", "type", "veth", "peer", "name", "bench-host")
            options = ["--lan", "bench-lan", "--generator-lan", "bench-host"]
            options += ["--outer", gateway.name, "--generator-outer", generator.name]
            yield here, options
    finally:
        delete_namespace(here)


def test_a_nic_that_is_named_carries_sas_where_they_are_read_back(
    cabled: tuple[Namespace, list[str]], tmp_path: Path
) -> None:
    here, interfaces = cabled
    placements = ["--placement", "nic_crypto", "--placement", "nic_packet"]
    command = here.command(*BENCH, *NIC, *placements, "--direction", "out", *interfaces)

    done, found = run(command, tmp_path / "path.json")

    (row,) = found.rows
    assert (row.case.placement, row.placement_found) == ("nic_crypto", "nic_crypto")
    assert "netdevsim only plays a NIC" in found.why_no_speed
    assert "not a speed" in done.stdout
    assert row.overload[0].clear_samples > 0, "the NIC is played: it should not have encrypted"
    assert row.counters[f"{interfaces[-3]}.tx.packets"] > 0
    (left_out,) = found.left_out
    assert left_out.placement == "nic_packet"
    assert "packet" in left_out.reason
    links = here.run("ip", "-brief", "link").stdout
    assert all(name in links for name in interfaces[1::2]), "not all interfaces have come back"


@pytest.mark.parametrize("cabled", ["full"], indirect=True)
def test_a_rig_is_looked_at_without_a_change_and_prepared_when_that_is_asked(
    cabled: tuple[Namespace, list[str]], tmp_path: Path
) -> None:
    here, interfaces = cabled
    nic = interfaces[interfaces.index("--outer") + 1]
    here.run("ethtool", "-K", nic, "esp-tx-csum-hw-offload", "off", "esp-hw-offload", "off")
    command = here.command(*BENCH, *interfaces, "--rig", "netdevsim")

    looked = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert looked.returncode == 1
    assert f"ethtool -K {nic} esp-tx-csum-hw-offload on" in " ".join(looked.stdout.split())
    assert "esp-hw-offload: off" in here.run("ethtool", "-k", nic).stdout

    prepared = [*command, "--prepare", "--placement", "nic_crypto", "--direction", "out", "--size", "64"]
    _, found = run(prepared, tmp_path / "path.json")

    assert [row.placement_found for row in found.rows] == ["nic_crypto"]
    assert "esp-hw-offload: on" in here.run("ethtool", "-k", nic).stdout
