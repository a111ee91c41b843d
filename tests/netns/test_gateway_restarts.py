"""Each process of a gateway is killed under traffic: what flows on, what comes back, and never an IV twice.

Both gateways have routes by which the traffic could leave in clear, both ends of the link between them are
captured, and the hosts behind them send each other 1,000 numbered packets a second each way.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.flows import TwoWayFlow, two_way_udp
from gateway.bench.process import is_running
from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.command import Gateway
from tests.netns.site_gateways import (
    Wish,
    bring_up,
    can_ping,
    listed,
    paris_and_tokyo,
    route_in_clear,
    settle,
    spis,
    wait_for_ping,
    wait_until,
)
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.netns

_A_MOMENT_S = 0.7
"""Traffic before and after, so that there is something to lose and to repeat."""

_IMPATIENT = Wish(ike="retransmit_timeout: 0.5s, retransmit_tries: 3")
"""An exchange with a peer that forgot its IKE SA is given up after some seconds, not most of a minute."""


@dataclass(frozen=True, slots=True)
class Running:
    """Two gateways with a tunnel between them."""

    sites: SiteToSite
    paris: Gateway
    tokyo: Gateway

    def traffic(self, while_it_flows: Callable[[], object]) -> TwoWayFlow:
        """Do something under numbered traffic, which flows a moment longer before and after."""
        with two_way_udp(
            self.sites.a.host, self.sites.a.host_address, self.sites.b.host, self.sites.b.host_address
        ) as flow:
            time.sleep(_A_MOMENT_S)
            while_it_flows()
            time.sleep(_A_MOMENT_S)
        return flow

    def ping(self) -> None:
        """Wait until echo requests are answered, both ways."""
        wait_for_ping(self.sites.a.host, self.sites.b.host_address)
        wait_for_ping(self.sites.b.host, self.sites.a.host_address)

    def settle(self) -> None:
        """Wait until each gateway has one IKE SA and one Child SA."""
        settle(self.paris, self.tokyo)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two gateways that every test leaves with a tunnel between them, or not running."""
    with site_to_site(f"gr{os.getpid()}") as sites:
        route_in_clear(sites)
        directory = tmp_path_factory.mktemp("pair")
        with paris_and_tokyo(sites, directory, _IMPATIENT) as (paris, tokyo):
            yield Running(sites, paris, tokyo)


@pytest.fixture
def run(lasting: Running, tmp_path: Path) -> Iterator[Running]:
    lasting.paris.begin_log()
    lasting.tokyo.begin_log()
    if not lasting.paris.is_started:
        lasting.paris.start()
    with nothing_in_clear_and_no_iv_twice(lasting.sites, tmp_path, least_esp=1000):
        bring_up(lasting.paris, "paris-tokyo")
        lasting.ping()
        # Tokyo may know the former life of Paris for some seconds more.
        settle(lasting.paris)
        yield lasting


def assert_flows_at_the_end(flow: TwoWayFlow) -> None:
    """Check that the last packets sent arrived, both ways."""
    assert flow.b.highest == flow.a.sent
    assert flow.a.highest == flow.b.sent


@pytest.mark.parametrize("role", ["initiator", pytest.param("responder", marks=pytest.mark.slow)])
def test_a_killed_controller_is_replaced_without_a_lost_packet(run: Running, role: str) -> None:
    gateway = run.paris if role == "initiator" else run.tokyo
    settle(gateway)
    before = spis(gateway)

    def kill() -> None:
        gateway.kill("controller")
        wait_until(lambda: spis(gateway) and not spis(gateway) & before)
        settle(gateway)

    flow = run.traffic(kill)

    assert (flow.missing, flow.duplicates) == (0, 0), gateway.log_tail()


def test_a_killed_agent_comes_back_with_new_keys_on_the_same_ike_sa(run: Running) -> None:
    (ike_sa,) = listed(run.paris, "ike-sas")
    before = spis(run.paris)

    def kill() -> None:
        run.paris.kill("agent")
        run.ping()

    flow = run.traffic(kill)

    assert flow.missing > 0, "a software datapath that is dead carries nothing"
    assert_flows_at_the_end(flow)
    run.settle()
    assert not spis(run.paris) & before
    (same,) = listed(run.paris, "ike-sas")
    assert same["spi_i"] == ike_sa["spi_i"]


HOLD_PORT_500 = """
import socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        udp.bind(("", 500))
        break
    except OSError:
        time.sleep(0.001)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_adopted_agent_that_cannot_be_replaced_at_once_is_replaced_later(run: Running) -> None:
    run.paris.kill("supervisor", "controller")
    run.paris.start()
    supervisor, pipe = run.paris.pid, subprocess.PIPE
    holder = run.sites.a.gateway.popen(sys.executable, "-c", HOLD_PORT_500, stdin=pipe, stdout=pipe)

    def kill() -> None:
        run.paris.kill("agent")
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        wait_until(lambda: "process_not_restarted" in run.paris.log())
        holder.communicate()
        run.ping()

    flow = run.traffic(kill)

    assert_flows_at_the_end(flow)
    assert is_running(supervisor)


def test_when_everything_was_killed_a_new_start_brings_the_traffic_back(run: Running) -> None:
    before = spis(run.paris)

    def kill() -> None:
        run.paris.kill("supervisor", "agent", "controller")
        assert not can_ping(run.sites.a.host, run.sites.b.host_address)
        run.paris.start()
        run.ping()

    flow = run.traffic(kill)

    assert_flows_at_the_end(flow)
    run.settle()
    assert not spis(run.paris) & before


def test_an_orderly_stop_deletes_the_sas_at_the_peer_and_a_start_brings_the_traffic_back(
    run: Running,
) -> None:
    def stop_and_start() -> None:
        run.paris.stop()
        assert not can_ping(run.sites.a.host, run.sites.b.host_address)
        assert not (run.paris.directory / "run" / "control.sock").exists()
        run.paris.start()
        run.ping()

    flow = run.traffic(stop_and_start)

    assert "deleted_by_peer" in run.tokyo.log()
    assert_flows_at_the_end(flow)
    run.settle()


def test_a_killed_supervisor_leaves_its_agent_to_the_next_one_without_a_lost_packet(run: Running) -> None:
    agent = run.paris.pid_of("agent")

    def kill() -> None:
        run.paris.kill("supervisor", "controller")
        run.paris.start()
        settle(run.paris)

    flow = run.traffic(kill)

    assert (flow.missing, flow.duplicates) == (0, 0), run.paris.log_tail()
    assert run.paris.pid_of("agent") == agent
    assert "agent_adopted" in run.paris.log()
    # What is left of the former life ends at the peer when the new IKE SA has stood for a while.
    run.settle()
    run.paris.stop()
    wait_until(lambda: not is_running(agent), what=lambda: "the adopted agent is ended with the gateway")
