"""Peers on a real network: authenticated anew under traffic, found elsewhere, dead and back again."""

import json
import time

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite
from tests.netns.site_gateways import (
    Standing,
    Wish,
    connected,
    listed,
    settle,
    wait_for_ping,
    wait_until,
)

pytestmark = pytest.mark.netns

_QUICK = "dpd_delay: 1s, retransmit_timeout: 200ms, retransmit_base: 1.2, retransmit_tries: 2"
_RESTARTED = (
    "{name: lan, local_ts: [$local_net], remote_ts: [$remote_net], start: $start, dpd_action: restart}"
)
_CLEARED = (
    "{name: lan6, local_ts: [$local_net_v6], remote_ts: [$remote_net_v6], start: $start, dpd_action: clear}"
)


def event_names(gateway: GatewayProcess) -> list[str]:
    lines = (line for line in gateway.log().splitlines() if line.startswith("{"))
    return [json.loads(line)["event"] for line in lines]


def children_of(gateway: GatewayProcess) -> list[str]:
    """Return the names of the children that have a Child SA."""
    return sorted(sa["child"] for sa in listed(gateway, "child-sas"))


@pytest.mark.parametrize("unique", ["replace", pytest.param("allow", marks=pytest.mark.slow)])
def test_authenticating_anew_interrupts_nothing_whoever_begins(
    sites: SiteToSite, pair: Standing, unique: str
) -> None:
    wish = Wish(start="start", start_at_tokyo="none", ike=f"unique: {unique}")
    with connected(pair, wish) as (paris, tokyo):
        settle(paris, tokyo)
        first = listed(paris, "ike-sas")[0]["spi_i"]
        both = (sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address)
        with two_way_udp(*both, rate_pps=500) as flow:
            time.sleep(0.5)
            for gateway in (paris, tokyo):
                gateway.ctl("rekey", "--reauth", "paris-tokyo")
                settle(paris, tokyo)
            time.sleep(0.5)

        assert (flow.missing, flow.duplicates) == (0, 0), paris.log_tail(60)
        assert event_names(paris).count("ike_sa_established") == 3
        assert listed(paris, "ike-sas")[0]["spi_i"] != first


def test_with_a_reauth_time_it_happens_by_itself_and_interrupts_nothing(
    sites: SiteToSite, pair: Standing
) -> None:
    wish = Wish(start="start", start_at_tokyo="none", ike="reauth: 2s, over_time: 10s, jitter: 0.2")
    with connected(pair, wish) as (paris, tokyo):
        settle(paris, tokyo)
        both = (sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address)
        with two_way_udp(*both, rate_pps=500) as flow:
            wait_until(lambda: event_names(paris).count("ike_sa_established") >= 3)
            time.sleep(0.5)

        assert (flow.missing, flow.duplicates) == (0, 0), paris.log_tail(60)
        settle(paris, tokyo)


def test_the_peer_is_found_at_its_second_address(sites: SiteToSite, pair: Standing) -> None:
    # The first address has a route and nobody there.
    wrong = sites.b.outside.rpartition(".")[0] + ".250"
    with connected(pair, Wish(ike=_QUICK)) as (paris, _tokyo):
        text = paris.config.replace(f"address: {sites.b.outside}", f"addresses: [{wrong}, {sites.b.outside}]")
        assert wrong in text
        paris.configure(text)

        paris.ctl("up", "paris-tokyo")

        wait_for_ping(sites.a.host, sites.b.host_address)


def test_after_the_peers_death_the_child_that_shall_comes_back_and_the_other_does_not(
    pair: Standing,
) -> None:
    wish = Wish(children=(_RESTARTED, _CLEARED), ike=_QUICK, start="none")
    with connected(pair, wish) as (paris, tokyo):
        for child in ("lan", "lan6"):
            paris.ctl("up", f"paris-tokyo/{child}")
        assert children_of(paris) == ["lan", "lan6"]

        tokyo.kill("supervisor", "controller", "agent")
        wait_until(lambda: not listed(paris, "child-sas"), what=paris.log_tail)
        tokyo.start()
        wait_until(lambda: children_of(paris) != [], what=paris.log_tail)
        wait_for_ping(pair.sites.a.host, pair.sites.b.host_address)
        time.sleep(1.0)  # The other would follow at once.

        assert children_of(paris) == ["lan"], paris.log_tail(40)
