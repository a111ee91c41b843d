"""Route-based tunnels that the native engine carries: whoever is killed, and to espd's own interfaces."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.topology import site_to_site
from tests.engine.conftest import make
from tests.netns.site_gateways import Wish, paris_and_tokyo, settle, spis, wait_for_ping, wait_until
from tests.netns.test_gateway_engine import ESPD, Running
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.netns

BY_ROUTES = Wish(
    children=(
        "{name: all, start: $start, "
        "interface: {name: ipsec0, id: 42, routes: [$remote_net, $remote_net_v6]}}",
    ),
    ike="retransmit_timeout: 0.5s, retransmit_tries: 3",
)
OWN_INTERFACE = ("--engine-interface", "outside")


@pytest.fixture(scope="module", params=[(), OWN_INTERFACE], ids=["by the kernel", "own interface"])
def lasting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, bool]]:
    """Two gateways with a default route in clear beside the tunnel, and whether espd has an interface."""
    with pytest.MonkeyPatch.context() as patch, site_to_site(f"gt{os.getpid()}") as sites:
        patch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
        for here, there in ((sites.a, sites.b), (sites.b, sites.a)):
            here.gateway.run("ip", "route", "replace", "default", "via", there.outside)
        options = ("--datapath", "engine", "--teardown", *request.param)
        with paris_and_tokyo(sites, tmp_path_factory.mktemp("pair"), BY_ROUTES, options) as (paris, tokyo):
            yield Running(sites, paris, tokyo), bool(request.param)


@pytest.fixture
def run(lasting: tuple[Running, bool], tmp_path: Path) -> Iterator[Running]:
    running, has_interface = lasting
    running.begin()
    sites = running.sites
    # What AF_XDP sends no capture sees; what the kernel would send in clear, all do.
    with nothing_in_clear_and_no_iv_twice(sites, tmp_path, least_esp=0 if has_interface else 500):
        for destination in (sites.b.host_address, sites.b.host_address_v6):
            wait_for_ping(sites.a.host, destination)
        settle(running.paris, running.tokyo)
        yield running


def test_rekeys_lose_no_packet_and_new_routes_are_carried_at_once(run: Running) -> None:
    before, a, b = spis(run.paris), run.sites.a, run.sites.b
    later = "10.77.0.1"
    b.host.run("ip", "address", "add", f"{later}/32", "dev", "lo")
    b.gateway.run("ip", "route", "add", later, "via", b.host_address)

    def change() -> None:
        run.paris.ctl("rekey", "paris-tokyo/all")
        wait_until(lambda: spis(run.paris).isdisjoint(before))
        a.gateway.run("ip", "route", "add", later, "dev", "ipsec0")
        wait_for_ping(a.host, later)

    flow = run.traffic(change)

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()


# Without a bpffs, which an agent that is not root cannot mount, XDP programs end with the agent.
@pytest.mark.parametrize("lasting", [()], ids=["by the kernel"], indirect=True)
def test_a_killed_agent_is_replaced_without_a_lost_packet_on_the_same_device(run: Running) -> None:
    before, espd = spis(run.paris), run.espd()
    index = run.sites.a.gateway.run("ip", "-o", "link", "show", "ipsec0").stdout.split(":")[0]

    def kill() -> None:
        agent = run.paris.pid_of("agent")
        run.paris.kill("agent")
        wait_until(lambda: run.paris.pid_of("agent") != agent)
        wait_until(lambda: "sas_adopted" in run.paris.log())

    flow = run.traffic(kill)

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert run.espd() == espd
    assert run.sites.a.gateway.run("ip", "-o", "link", "show", "ipsec0").stdout.split(":")[0] == index
    settle(run.paris, run.tokyo)
    assert spis(run.paris) == before


def test_a_killed_espd_leaves_the_device_its_routes_and_nothing_in_clear(run: Running) -> None:
    before, espd = spis(run.paris), run.espd()

    def kill() -> None:
        os.kill(espd, signal.SIGKILL)
        wait_until(lambda: spis(run.paris) and not spis(run.paris) & before)
        wait_for_ping(run.sites.a.host, run.sites.b.host_address)

    flow = run.traffic(kill)

    assert flow.missing > 0, "an espd that is dead carries nothing"
    assert flow.b.highest == flow.a.sent
    assert run.espd() != espd
    assert "ipsec0" in run.sites.a.gateway.run("ip", "route", "show").stdout
    settle(run.paris, run.tokyo)
