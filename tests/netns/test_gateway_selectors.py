"""What is protected, what passes and what is dropped: both families inside, BYPASS, DISCARD, ports."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, clear_packets, count_packets
from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.site_gateways import (
    LAN,
    Standing,
    Wish,
    can_ping,
    connected,
    listed,
    route_in_clear,
    wait_for_ping,
    wait_until,
)

pytestmark = pytest.mark.netns

_SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind(("", int(sys.argv[2])))
    for _ in range(int(sys.argv[3])):
        sender.sendto(b"from the host behind paris", (sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"gs{os.getpid()}") as made:
        route_in_clear(made)
        yield made


@pytest.mark.parametrize("ipv6_outside", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_child_sa_carries_both_families(
    sites: SiteToSite, pair: Standing, tmp_path: Path, ipv6_outside: bool
) -> None:
    both = (
        "{name: lan, local_ts: [$local_net, $local_net_v6], remote_ts: [$remote_net, $remote_net_v6], "
        "start: $start}"
    )
    wish = Wish(children=(both,), ipv6_outside=ipv6_outside)
    with (
        connected(pair, wish) as (paris, _tokyo),
        capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as wire,
    ):
        wait_for_ping(sites.a.host, sites.b.host_address)
        wait_for_ping(sites.a.host, sites.b.host_address_v6)
        wait_for_ping(sites.b.host, sites.a.host_address)
        wait_for_ping(sites.b.host, sites.a.host_address_v6)

        (child_sa,) = listed(paris, "child-sas")
        assert len(child_sa["local_ts"]) == 2

    assert clear_packets(wire) == 0
    assert count_packets(wire, "ip6 proto 50" if ipv6_outside else "ip proto 50") >= 8


def test_bypass_passes_in_clear_and_discard_drops_before_protect_is_asked(
    sites: SiteToSite, pair: Standing, tmp_path: Path
) -> None:
    entry = "{{name: {0}, action: {0}, {1}, priority: 100}}"
    wish = Wish(
        children=(entry.format("bypass", _port(7100)), entry.format("discard", _port(7200)), LAN),
    )
    with (
        connected(pair, wish),
        capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as wire,
        capturing(sites.b.gateway, "inside", tmp_path / "inside.pcap") as inside,
    ):
        wait_for_ping(sites.a.host, sites.b.host_address)
        for port in (7200, 7100, 7300):
            _send(sites, port, 5)

        wait_until(lambda: count_packets(inside, "udp port 7100") == 5)
        wait_until(lambda: count_packets(inside, "udp port 7300") == 5)

    assert count_packets(wire, "udp port 7100") == 5
    assert count_packets(wire, "udp port 7200 or udp port 7300 or icmp") == 0
    assert count_packets(inside, "udp port 7200") == 0


def test_a_child_with_ports_protects_these_ports_only(
    sites: SiteToSite, pair: Standing, tmp_path: Path
) -> None:
    wish = Wish(children=(f"{{name: one-port, {_port(7000)}, start: $start}}",))
    with (
        connected(pair, wish) as (paris, _tokyo),
        capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as wire,
        capturing(sites.b.gateway, "inside", tmp_path / "inside.pcap") as inside,
    ):
        assert can_ping(sites.a.host, sites.b.host_address), "not selected: in clear"
        _send(sites, 7001, 5)
        wait_until(lambda: count_packets(inside, "udp port 7001") == 5)
        assert not listed(paris, "child-sas")
        _send(sites, 7000, 5)

        wait_until(lambda: count_packets(inside, "udp port 7000") == 5)

        assert len(listed(paris, "child-sas")) == 1
    assert count_packets(wire, "udp port 7000") == 0
    assert count_packets(wire, "udp port 7001") == 5


def _port(number: int) -> str:
    """Return the selectors of UDP from and to one port."""
    return f"local_ts: ['$local_net[udp/{number}]'], remote_ts: ['$remote_net[udp/{number}]']"


def _send(sites: SiteToSite, port: int, count: int) -> None:
    """Send datagrams from one host to the other, from and to `port`."""
    subprocess.run(
        sites.a.host.command(sys.executable, "-c", _SEND, sites.b.host_address, str(port), str(count)),
        check=True,
        timeout=60,
    )
