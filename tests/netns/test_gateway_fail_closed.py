"""Nothing leaves in clear and nothing clear comes in: dead processes, flapping links, forged packets, starts.

Both gateways have routes by which the traffic could leave in clear. Where the captures are not looked at
here, `nothing_in_clear_and_no_iv_twice` does it.
"""

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from gateway.bench.capture import capturing, count_packets
from gateway.bench.flows import two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace, Site, SiteToSite, site_to_site
from gateway.inspect.capture import read_capture
from gateway.inspect.packet import parse_ip, strip_link_layer
from tests.netns.site_gateways import (
    LAN,
    AgentProcess,
    Wish,
    can_ping,
    gateways,
    paris_and_tokyo,
    route_in_clear,
    running,
    wait_for_ping,
    wait_until,
)
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.netns

_DEAD_S = 1.0
_BOTH_FAMILIES = Wish(
    children=(
        LAN,
        "{name: lan6, local_ts: [$local_net_v6], remote_ts: [$remote_net_v6], start: $start}",
    )
)

_SEND_FRAME = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
    link.bind((sys.argv[1], 0))
    for frame in sys.argv[2:]:
        link.send(bytes.fromhex(frame))
"""


@pytest.fixture
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"gf{os.getpid()}") as made:
        route_in_clear(made)
        yield made


def test_a_dead_agent_leaves_nothing_in_clear_and_the_next_one_carries_on(
    sites: SiteToSite, tmp_path: Path
) -> None:
    paris, tokyo = gateways(sites, tmp_path)
    agent = AgentProcess(sites.a.gateway, paris.directory)
    paris.options = ("--datapath", agent.address)
    with agent, running(paris, tokyo), nothing_in_clear_and_no_iv_twice(sites, tmp_path):
        wait_for_ping(sites.a.host, sites.b.host_address)
        with two_way_udp(sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address):
            agent.kill()
            time.sleep(_DEAD_S)
            assert not can_ping(sites.a.host, sites.b.host_address)
            assert not can_ping(sites.a.gateway, sites.b.host_address, "-I", "10.1.0.1")
            agent.start()

            wait_for_ping(sites.a.host, sites.b.host_address)
            wait_for_ping(sites.b.host, sites.a.host_address)


def test_a_dead_controller_costs_no_packet_and_then_a_dead_agent_leaves_nothing_in_clear(
    sites: SiteToSite, tmp_path: Path
) -> None:
    paris, tokyo = gateways(sites, tmp_path)
    agent = AgentProcess(sites.a.gateway, paris.directory)
    paris.options = ("--datapath", agent.address)
    with agent, running(paris, tokyo), nothing_in_clear_and_no_iv_twice(sites, tmp_path):
        wait_for_ping(sites.a.host, sites.b.host_address)
        both = (sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address)
        with two_way_udp(*both) as flow:
            paris.kill("supervisor", "controller")
            time.sleep(_DEAD_S)
        assert (flow.missing, flow.duplicates) == (0, 0)
        with two_way_udp(*both) as flow:
            agent.kill()
            _flap(sites.a.gateway, "outside")
            route_in_clear(sites)
            time.sleep(_DEAD_S)

        assert flow.missing > 0
        assert not can_ping(sites.a.host, sites.b.host_address)
        agent.start()
        assert not can_ping(sites.a.host, sites.b.host_address), "no controller has made an SA"
        paris.start()
        wait_for_ping(sites.a.host, sites.b.host_address)


def test_flapping_links_leave_nothing_in_clear_and_traffic_comes_back(
    sites: SiteToSite, tmp_path: Path
) -> None:
    with (
        paris_and_tokyo(sites, tmp_path) as (paris, _tokyo),
        nothing_in_clear_and_no_iv_twice(sites, tmp_path),
    ):
        paris.ctl("up", "paris-tokyo")
        both = (sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address)
        for device in ("outside", "ipsecgw0", "inside"):
            with two_way_udp(*both) as flow:
                for _ in range(2):
                    _flap(sites.a.gateway, device)
                    route_in_clear(sites)
                wait_for_ping(sites.a.host, sites.b.host_address)
                wait_for_ping(sites.b.host, sites.a.host_address)
                time.sleep(0.3)

            assert flow.b.highest == flow.a.sent, f"{device}: {paris.log_tail()}"
            assert flow.a.highest == flow.b.sent, f"{device}: {paris.log_tail()}"


def _flap(gateway: Namespace, device: str) -> None:
    gateway.run("ip", "link", "set", device, "down")
    time.sleep(0.2)
    gateway.run("ip", "link", "set", device, "up")


def test_clear_packets_that_match_a_protected_selector_stay_outside_and_are_counted(
    sites: SiteToSite, tmp_path: Path
) -> None:
    paris, _tokyo = gateways(sites, tmp_path, _BOTH_FAMILIES)
    with capturing(sites.a.gateway, "inside", tmp_path / "before.pcap") as before:
        _inject(sites, _forgeries(sites))
        wait_until(lambda: count_packets(before, "udp port 9999") == 2)
    with paris:
        with capturing(sites.a.gateway, "inside", tmp_path / "inside.pcap") as inside:
            _inject(sites, _forgeries(sites))
            wait_until(lambda: _clear_inbound(paris) == 4)

        assert count_packets(inside, "udp port 9999 or icmp or icmp6[0] = 128") == 0
        assert "clear_inbound 4" in paris.ctl("status").stdout

        paris.kill("supervisor", "controller", "agent")
        with capturing(sites.a.gateway, "inside", tmp_path / "dead.pcap") as dead:
            _inject(sites, _forgeries(sites))
            time.sleep(0.3)
        assert count_packets(dead, "udp port 9999 or icmp or icmp6[0] = 128") == 0


def _clear_inbound(gateway: GatewayProcess) -> int:
    drops = gateway.json("status")["datapath_drops"]
    return sum(int(drop["packets"]) for drop in drops if drop["reason"] == "clear_inbound")


def _forgeries(sites: SiteToSite) -> list[Packet]:
    """Return clear packets as if from the host of site B: to the other host, and to the gateway itself."""
    a, b = sites.a, sites.b
    return [
        IP(src=b.host_address, dst=a.host_address) / UDP(sport=1, dport=9999) / b"forged",
        IPv6(src=b.host_address_v6, dst=a.host_address_v6) / UDP(sport=1, dport=9999) / b"forged",
        IP(src=b.host_address, dst="10.1.0.1") / ICMP(),
        IPv6(src=b.host_address_v6, dst="fd00:1::1") / ICMPv6EchoRequest(),
    ]


def _inject(sites: SiteToSite, packets: list[Packet]) -> None:
    """Put packets on the outside link at B's end, past everything that B's gateway does to packets."""
    frames = [
        bytes(
            Ether(
                src=_link_address(sites.b),
                dst=_link_address(sites.a),
                type=0x86DD if isinstance(packet, IPv6) else 0x0800,
            )
            / packet
        ).hex()
        for packet in packets
    ]
    sites.b.gateway.run("python3", "-c", _SEND_FRAME, sites.b.outside_device, *frames)


def _link_address(site: Site) -> str:
    (link,) = json.loads(site.gateway.run("ip", "-j", "link", "show", site.outside_device).stdout)
    return str(link["address"])


def test_from_the_moment_the_gateway_is_ready_nothing_leaves_in_clear(
    sites: SiteToSite, tmp_path: Path
) -> None:
    paris, _tokyo = gateways(sites, tmp_path)  # Tokyo never runs: there cannot be an SA
    with (
        capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as wire,
        two_way_udp(sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address) as flow,
    ):
        time.sleep(0.3)
        with paris:
            time.sleep(0.3)
            paris.stop()
            time.sleep(0.3)
            paris.start()
            time.sleep(0.3)

    ready = _time_of(paris, "controller_ready")
    clear = _times_of_clear(wire, sites.a.host_address)
    assert sum(1 for at in clear if at < ready) > 200, "the control: before, it did leave in clear"
    assert flow.a.sent > 1000
    assert [at for at in clear if at > ready] == []


def _time_of(gateway: GatewayProcess, event: str) -> float:
    """Return when the first such line was logged."""
    lines = (json.loads(line) for line in gateway.log().splitlines() if line.startswith("{"))
    at = next(line["time"] for line in lines if line["event"] == event)
    return datetime.fromisoformat(at).timestamp()


def _times_of_clear(capture: Path, source: str) -> list[float]:
    times = []
    for frame in read_capture(capture):
        inner = strip_link_layer(frame.link_type, frame.data)
        packet = None if inner is None else parse_ip(inner)
        if packet is not None and str(packet.source) == source:
            times.append(frame.time_ns / 1e9)
    return times
