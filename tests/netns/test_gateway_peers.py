"""Peers on a real network: authenticated anew under traffic, found elsewhere, dead and back again."""

import json
import os
import time
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import site_to_site
from tests.netns.site_gateways import (
    Wish,
    gateways,
    listed,
    paris_and_tokyo,
    settle,
    wait_for_ping,
    wait_until,
)

pytestmark = pytest.mark.netns

_QUICK = "dpd_delay: 1s, retransmit_timeout: 200ms, retransmit_base: 1.2, retransmit_tries: 2"
_CHILD = (
    "{name: lan, local_ts: [$local_net], remote_ts: [$remote_net], esp: {proposals: [aes256gcm16-x25519]}, "
    "start: $start%s}"
)


def event_names(gateway: GatewayProcess) -> list[str]:
    lines = (line for line in gateway.log().splitlines() if line.startswith("{"))
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("unique", ["replace", pytest.param("allow", marks=pytest.mark.slow)])
def test_authenticating_anew_interrupts_nothing_whoever_begins(tmp_path: Path, unique: str) -> None:
    wish = Wish(start="start", start_at_tokyo="none", ike=f"unique: {unique}")
    with (
        site_to_site(f"gp{os.getpid()}") as sites,
        paris_and_tokyo(sites, tmp_path, wish) as (paris, tokyo),
    ):
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


def test_with_a_reauth_time_it_happens_by_itself_and_interrupts_nothing(tmp_path: Path) -> None:
    wish = Wish(start="start", start_at_tokyo="none", ike="reauth: 3s, over_time: 10s, jitter: 0.2")
    with (
        site_to_site(f"gp{os.getpid()}") as sites,
        paris_and_tokyo(sites, tmp_path, wish) as (paris, tokyo),
    ):
        settle(paris, tokyo)
        both = (sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address)
        with two_way_udp(*both, rate_pps=500) as flow:
            time.sleep(8.0)

        assert (flow.missing, flow.duplicates) == (0, 0), paris.log_tail(60)
        assert event_names(paris).count("ike_sa_established") >= 3
        settle(paris, tokyo)


def test_the_peer_is_found_at_its_second_address(tmp_path: Path) -> None:
    # The first address has a route and nobody there.
    with site_to_site(f"gp{os.getpid()}") as sites:
        paris, tokyo = gateways(sites, tmp_path, Wish(ike=_QUICK))
        wrong = sites.b.outside.rpartition(".")[0] + ".250"
        paris.config = paris.config.replace(
            f"address: {sites.b.outside}", f"addresses: [{wrong}, {sites.b.outside}]"
        )
        assert wrong in paris.config
        for gateway in (paris, tokyo):
            gateway.launch()
        try:
            for gateway in (paris, tokyo):
                gateway.wait_until_it_answers()
            paris.ctl("up", "paris-tokyo")
            wait_for_ping(sites.a.host, sites.b.host_address)
        finally:
            for gateway in (paris, tokyo):
                gateway.stop()


@pytest.mark.parametrize(("action", "comes_back"), [("restart", True), ("clear", False)])
def test_after_the_peers_death_dpd_action_decides(tmp_path: Path, action: str, comes_back: bool) -> None:
    child = _CHILD % f", dpd_action: {action}"
    wish = Wish(children=(child,), ike=_QUICK, start="none")
    with (
        site_to_site(f"gp{os.getpid()}") as sites,
        paris_and_tokyo(sites, tmp_path, wish) as (paris, tokyo),
    ):
        paris.ctl("up", "paris-tokyo")
        settle(paris, tokyo)

        tokyo.kill("supervisor", "controller", "agent")
        wait_until(lambda: not listed(paris, "child-sas"), 30, lambda: paris.log_tail(40))
        tokyo.launch()
        tokyo.wait_until_it_answers()
        time.sleep(6.0)

        assert bool(listed(paris, "child-sas")) is comes_back, paris.log_tail(40)
