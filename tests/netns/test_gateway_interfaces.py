"""Route-based tunnels between two gateways: routes decide, later ones too, and nothing is in clear."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.site_gateways import (
    AgentProcess,
    Standing,
    Wish,
    can_ping,
    config,
    connected,
    gateways,
    listed,
    running,
    settle,
    spis,
    wait_for_ping,
    wait_until,
)
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.netns

BY_ROUTES = Wish(
    children=(
        "{name: all, start: $start, "
        "interface: {name: ipsec0, id: 42, routes: [$remote_net, $remote_net_v6]}}",
    )
)
LATER = "10.77.0.1"


@contextmanager
def sites_with_default_routes(prefix: str) -> Iterator[SiteToSite]:
    """Make two sites whose gateways would send all in clear if no other route led elsewhere."""
    with site_to_site(f"{prefix}{os.getpid()}") as made:
        for here, there in ((made.a, made.b), (made.b, made.a)):
            here.gateway.run("ip", "route", "replace", "default", "via", there.outside)
        yield made


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    with sites_with_default_routes("gi") as made:
        yield made


def test_routes_lead_into_the_tunnel_and_a_new_one_needs_no_negotiation(
    sites: SiteToSite, pair: Standing, tmp_path: Path
) -> None:
    with (
        connected(pair, BY_ROUTES) as (paris, tokyo),
        nothing_in_clear_and_no_iv_twice(sites, tmp_path),
    ):
        wait_for_ping(sites.a.host, sites.b.host_address)
        wait_for_ping(sites.b.host, sites.a.host_address_v6)
        settle(paris, tokyo)
        before = spis(paris)
        (child_sa,) = listed(paris, "child-sas")
        assert child_sa["local_ts"] == child_sa["remote_ts"] == ["0.0.0.0/0", "::/0"]
        assert child_sa["interface_id"] == 42

        a, b = sites.a, sites.b
        with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=500) as flow:
            b.host.run("ip", "address", "add", f"{LATER}/32", "dev", "lo")
            b.gateway.run("ip", "route", "add", LATER, "via", b.host_address)
            # As a routing daemon does when its neighbour announces a prefix.
            a.gateway.run("ip", "route", "add", LATER, "dev", "ipsec0")
            wait_for_ping(a.host, LATER)
            assert spis(paris) == before

            paris.ctl("rekey", "paris-tokyo/all")
            wait_until(lambda: spis(paris).isdisjoint(before))
            settle(paris, tokyo)

        assert (flow.missing, flow.duplicates) == (0, 0), f"{flow}\n{paris.log()[-3000:]}"
        wait_for_ping(a.host, LATER)


def test_a_dead_agent_leaves_nothing_in_clear_and_the_next_one_carries_on(tmp_path: Path) -> None:
    with sites_with_default_routes("gj") as sites:
        paris, tokyo = gateways(sites, tmp_path, BY_ROUTES)
        agent = AgentProcess(sites.a.gateway, paris.directory)
        paris.options = ("--datapath", agent.address)
        with nothing_in_clear_and_no_iv_twice(sites, tmp_path, least_esp=4), agent, running(paris, tokyo):
            wait_for_ping(sites.a.host, sites.b.host_address)

            agent.kill()
            time.sleep(0.5)
            assert not can_ping(sites.a.host, sites.b.host_address)
            assert not can_ping(sites.a.host, sites.b.host_address_v6)
            agent.start()

            wait_for_ping(sites.a.host, sites.b.host_address)


def test_interface_goes_with_its_connection(sites: SiteToSite, pair: Standing) -> None:
    with connected(pair, BY_ROUTES) as (paris, _tokyo):
        wait_for_ping(sites.a.host, sites.b.host_address)
        assert "ipsec0" in sites.a.gateway.run("ip", "link").stdout

        paris.configure(config(sites, of_a=True).replace("paris-tokyo", "by-selectors"))

        wait_until(lambda: "ipsec0" not in sites.a.gateway.run("ip", "link").stdout)
