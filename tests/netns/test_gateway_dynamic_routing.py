"""A routing daemon over route-based tunnels: OSPF by BIRD, with multicast hellos and routes that decide."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Site, SiteToSite, site_to_site
from tests.engine.conftest import make
from tests.espd.conftest import ESPD
from tests.interop.packages import unpacked
from tests.netns.site_gateways import (
    Wish,
    can_ping,
    listed,
    paris_and_tokyo,
    settle,
    spis,
    wait_for_ping,
    wait_until,
)
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.netns

WITHOUT_ROUTES = Wish(children=("{name: all, start: $start, interface: {name: ipsec0, id: 42}}",))
ENDS = {"a": "10.255.0.1", "b": "10.255.0.2"}
ANNOUNCED = "10.77.0.1"
HELLOS = 4
"""So many show that the adjacency lives on by the SAs that it has now."""
_BIRD = """\
router id {own};
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
protocol static announced {{ ipv4; {static} }}
protocol ospf v2 {{
  ipv4 {{ import all; export all; }};
  area 0 {{
    interface "ipsec0" {{ type ptp; hello 1; dead 20; retransmit 2; }};
    interface "inside" {{ stub; }};
  }};
}}
"""


class Bird:
    """A daemon in a gateway's namespace."""

    def __init__(self, site: Site, folder: Path, own: str, static: str) -> None:
        self._site = site
        self._folder = folder
        folder.mkdir()
        (folder / "bird.conf").write_text(_BIRD.format(own=own, static=static))
        program = unpacked("bird2", "usr/sbin/bird") / "usr/sbin/bird"
        command = site.gateway.command(
            str(program), "-f", "-c", str(folder / "bird.conf"), "-s", str(folder / "bird.ctl")
        )
        with (folder / "bird.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, *words: str) -> str:
        """Return what it says; nothing while the daemon does not answer."""
        client = unpacked("bird2", "usr/sbin/birdcl") / "usr/sbin/birdcl"
        socket = str(self._folder / "bird.ctl")
        return self._site.gateway.run(str(client), "-s", socket, *words, check=False).stdout

    def is_full(self) -> bool:
        """Say whether there is an adjacency with the other one."""
        return "Full/PtP" in self.ask("show", "ospf", "neighbors")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()


@contextmanager
def routing(sites: SiteToSite, folder: Path) -> Iterator[tuple[Bird, Bird]]:
    """Number both ends of the tunnel, and run a daemon at each; the second announces a prefix behind it."""
    for site, own, other in ((sites.a, *ENDS.values()), (sites.b, *reversed(ENDS.values()))):
        site.gateway.run("ip", "address", "add", own, "peer", other, "dev", "ipsec0")
    sites.b.host.run("ip", "address", "add", f"{ANNOUNCED}/32", "dev", "lo")
    a = Bird(sites.a, folder / "bird-a", ENDS["a"], "")
    b = Bird(sites.b, folder / "bird-b", ENDS["b"], f"route {ANNOUNCED}/32 via {sites.b.host_address};")
    try:
        yield a, b
    finally:
        a.stop()
        b.stop()


def received(gateway: GatewayProcess) -> int:
    """Return how many packets came by the only Child SA: nothing but hellos, where nobody pings."""
    (child_sa,) = listed(gateway, "child-sas")
    return int(child_sa["inbound"]["packets"])


@pytest.mark.parametrize("datapath", [pytest.param("software", marks=pytest.mark.slow), "engine"])
def test_routes_come_and_go_as_the_daemon_of_the_other_side_says(
    datapath: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if datapath == "engine":
        monkeypatch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
    options = ("--datapath", datapath, "--teardown")
    with (
        site_to_site(f"gd{os.getpid()}") as sites,
        paris_and_tokyo(sites, tmp_path, WITHOUT_ROUTES, options) as (paris, tokyo),
    ):
        settle(paris, tokyo)
        with (
            nothing_in_clear_and_no_iv_twice(sites, tmp_path, least_esp=30),
            routing(sites, tmp_path) as (a, b),
        ):
            wait_until(lambda: a.is_full() and b.is_full(), what=lambda: a.ask("show", "ospf", "neighbors"))
            wait_for_ping(sites.a.host, ANNOUNCED)
            wait_for_ping(sites.b.host, sites.a.host_address)

            before = spis(paris)
            paris.ctl("rekey", "paris-tokyo/all")
            wait_until(lambda: spis(paris).isdisjoint(before))
            settle(paris, tokyo)
            wait_until(lambda: received(paris) > HELLOS)
            assert a.is_full()
            wait_for_ping(sites.a.host, ANNOUNCED)

            b.ask("disable", "announced")
            wait_until(lambda: ANNOUNCED not in sites.a.gateway.run("ip", "route").stdout)
            assert not can_ping(sites.a.host, ANNOUNCED)
