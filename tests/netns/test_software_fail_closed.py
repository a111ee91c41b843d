"""Protected traffic never crosses the outside link in clear: killed, restarted, flapped, injected.

Both gateways can route to each other's networks without the tunnel; the first test shows that they would.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, clear_packets, count_packets
from gateway.bench.topology import Namespace, SiteToSite, site_to_site
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.selectors import TrafficSelector
from tests.netns.datapath_process import DatapathProcess
from tests.netns.sas import ChildSa
from tests.netns.site_gateways import wait_until

pytestmark = pytest.mark.netns

NETWORKS = ChildSa(
    outer_a="192.0.2.1",
    outer_b="192.0.2.2",
    inner_a=("10.1.0.0/16", "fd00:1::/64"),
    inner_b=("10.2.0.0/16", "fd00:2::/64"),
)
HOST_TO_HOST = ChildSa(
    outer_a="192.0.2.1", outer_b="192.0.2.2", inner_a=("192.0.2.1",), inner_b=("192.0.2.2",), name="hosts"
)


@pytest.fixture
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"swf{os.getpid()}") as made:
        route_in_clear(made)
        yield made


def route_in_clear(sites: SiteToSite) -> None:
    """Give both gateways routes by which traffic would leave in clear."""
    for gateway, number, peer in ((sites.a.gateway, 2, 2), (sites.b.gateway, 1, 1)):
        gateway.run("ip", "route", "replace", f"10.{number}.0.0/16", "via", f"192.0.2.{peer}")
        gateway.run("ip", "-6", "route", "replace", f"fd00:{number}::/64", "via", f"2001:db8::{peer}")


@pytest.fixture
def a(sites: SiteToSite) -> Iterator[DatapathProcess]:
    with DatapathProcess(sites.a.gateway) as process:
        yield process


@pytest.fixture
def b(sites: SiteToSite) -> Iterator[DatapathProcess]:
    with DatapathProcess(sites.b.gateway) as process:
        yield process


def establish(a: DatapathProcess, b: DatapathProcess, child: ChildSa) -> None:
    a.apply(child.policy_of_a())
    b.apply(child.policy_of_b())
    a.install(*child.sas_of_a())
    b.install(*child.sas_of_b())


def can_ping(namespace: Namespace, address: str, *options: str) -> bool:
    """Say whether one of two echo requests is answered."""
    return _ping(namespace, address, "-W5", *options)


def no_ping(namespace: Namespace, address: str, *options: str) -> bool:
    """Say whether neither of two echo requests is answered soon."""
    return not _ping(namespace, address, "-W0.4", *options)


def _ping(namespace: Namespace, address: str, *options: str) -> bool:
    return namespace.run("ping", "-c2", "-i0.1", *options, address, check=False).returncode == 0


def drops(process: DatapathProcess, reason: DropReason) -> int:
    """Return how many packets were dropped for a reason."""
    return int(process.call("counters").drops.get(reason, 0))


class Pinging:
    """Pings of both families, both ways, all the time."""

    def __init__(self, sites: SiteToSite) -> None:
        targets = (
            (sites.a.host, "10.2.0.10"),
            (sites.a.host, "fd00:2::10"),
            (sites.b.host, "10.1.0.10"),
            (sites.b.host, "fd00:1::10"),
            (sites.a.gateway, "10.2.0.10"),
        )
        self._processes = [
            namespace.popen("ping", "-i", "0.02", "-n", address, stdout=subprocess.DEVNULL)
            for namespace, address in targets
        ]

    def __enter__(self) -> "Pinging":
        time.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def test_without_policies_the_routes_lead_out_in_clear(sites: SiteToSite, tmp_path: Path) -> None:
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture:
        assert can_ping(sites.a.host, "10.2.0.10")
        assert can_ping(sites.a.host, "fd00:2::10")

    assert clear_packets(capture) >= 8


def test_killed_agents_leave_nothing_in_clear(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    establish(a, b, NETWORKS)
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture, Pinging(sites):
        a.sigkill()
        time.sleep(0.5)
        b.sigkill()
        time.sleep(0.5)
        assert no_ping(sites.a.host, "10.2.0.10")
        assert no_ping(sites.a.host, "fd00:2::10")
        assert no_ping(sites.a.gateway, "10.2.0.10", "-I", "10.1.0.1")

    assert count_packets(capture, "proto 50") > 20
    assert clear_packets(capture) == 0


def test_closed_agent_leaves_nothing_in_clear(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    establish(a, b, NETWORKS)
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture, Pinging(sites):
        a.close()
        time.sleep(0.5)

    assert clear_packets(capture) == 0


def test_new_agent_keeps_the_protection_of_the_old_one_until_it_has_reconciled(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    establish(a, b, NETWORKS)
    a.sigkill()
    with (
        capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture,
        Pinging(sites),
        DatapathProcess(sites.a.gateway) as again,
    ):
        time.sleep(0.3)  # no policy yet
        again.apply(HOST_TO_HOST.policy_of_a(name="test/other", acquire=False), generation=2)
        time.sleep(0.3)  # one that has nothing to do with it
        renewed = ChildSa(
            outer_a=NETWORKS.outer_a,
            outer_b=NETWORKS.outer_b,
            inner_a=NETWORKS.inner_a,
            inner_b=NETWORKS.inner_b,
            spi=0x2000,
        )
        b.install(*renewed.sas_of_b())
        again.apply(renewed.policy_of_a(), generation=2)
        again.install(*renewed.sas_of_a(), generation=2)
        again.call("remove_policies", ["test/other"])
        again.call("reconcile", 2)
        wait_until(lambda: not no_ping(sites.a.host, "10.2.0.10"))
        wait_until(lambda: not no_ping(sites.b.host, "fd00:1::10"))

    assert clear_packets(capture) == 0


def test_reconciling_without_a_policy_ends_its_protection(
    sites: SiteToSite, a: DatapathProcess, tmp_path: Path
) -> None:
    a.apply(NETWORKS.policy_of_a(), generation=1)
    a.sigkill()
    with DatapathProcess(sites.a.gateway) as again:
        assert no_ping(sites.a.host, "10.2.0.10")

        again.call("reconcile", 2)

        assert can_ping(sites.a.host, "10.2.0.10")


def test_flapping_links_leave_nothing_in_clear(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    establish(a, b, NETWORKS)
    with capturing(sites.b.gateway, "outside", tmp_path / "wire.pcap") as capture, Pinging(sites):
        for device in ("outside", "ipsecgw0", "inside"):
            sites.a.gateway.run("ip", "link", "set", device, "down")
            time.sleep(0.3)
            sites.a.gateway.run("ip", "link", "set", device, "up")
            if device == "outside":
                sites.a.gateway.run(
                    "ip", "-6", "address", "replace", "2001:db8::1/64", "dev", "outside", "nodad"
                )
            if device == "inside":
                sites.a.gateway.run(
                    "ip", "-6", "address", "replace", "fd00:1::1/64", "dev", "inside", "nodad"
                )
            route_in_clear(sites)
            wait_until(lambda: not no_ping(sites.a.host, "10.2.0.10"))
        wait_until(lambda: not no_ping(sites.a.host, "fd00:2::10"))
        assert can_ping(sites.a.gateway, "10.2.0.10")

    assert clear_packets(capture) == 0


def test_tunnel_device_that_is_removed_leaves_nothing_in_clear_and_is_made_anew(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    establish(a, b, NETWORKS)
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture, Pinging(sites):
        for _ in range(3):
            sites.a.gateway.run("ip", "link", "delete", "ipsecgw0")
            wait_until(lambda: not no_ping(sites.a.host, "10.2.0.10"))
        assert can_ping(sites.a.host, "fd00:2::10")
        assert can_ping(sites.b.host, "10.1.0.10")

    assert clear_packets(capture) == 0


@pytest.mark.parametrize("source", ["10.2.0.10", "fd00:2::10"])
def test_clear_packets_from_outside_are_dropped_and_counted(
    sites: SiteToSite, a: DatapathProcess, source: str, tmp_path: Path
) -> None:
    target = "10.1.0.10" if source == "10.2.0.10" else "fd00:1::10"
    own = "10.1.0.1" if source == "10.2.0.10" else "fd00:1::1"
    a.apply(NETWORKS.policy_of_a())

    with capturing(sites.a.host, "lan", tmp_path / "lan.pcap", f"src host {source}") as capture:
        assert no_ping(sites.b.host, target)  # forwarded
        assert no_ping(sites.b.host, own)  # to the gateway itself

    assert count_packets(capture, "") == 0
    wait_until(lambda: drops(a, DropReason.CLEAR_INBOUND) == 4)


def test_clear_packets_of_the_peer_itself_are_dropped_but_not_its_esp(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess
) -> None:
    a.apply(HOST_TO_HOST.policy_of_a())
    a.install(*HOST_TO_HOST.sas_of_a())
    assert no_ping(sites.b.gateway, "192.0.2.1")
    wait_until(lambda: drops(a, DropReason.CLEAR_INBOUND) == 2)

    b.apply(HOST_TO_HOST.policy_of_b())
    b.install(*HOST_TO_HOST.sas_of_b())

    assert can_ping(sites.b.gateway, "192.0.2.1")
    wait_until(lambda: drops(a, DropReason.CLEAR_INBOUND) == 2)


def test_bypass_of_better_priority_passes_in_clear_both_ways(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    for process, child_policy in ((a, NETWORKS.policy_of_a), (b, NETWORKS.policy_of_b)):
        protect = child_policy()
        icmp = {
            side: tuple(
                TrafficSelector(ts.start, ts.end, 1) for ts in getattr(protect, side) if ts.version == 4
            )
            for side in ("local_ts", "remote_ts")
        }
        process.apply(protect, child_policy(name="icmp", action=Action.BYPASS, priority=10, **icmp))

    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture:
        assert can_ping(sites.a.host, "10.2.0.10")
        assert can_ping(sites.a.gateway, "10.2.0.10", "-I", "10.1.0.1")
        assert no_ping(sites.a.host, "fd00:2::10")

    assert clear_packets(capture) == 8
    assert count_packets(capture, "icmp") == 8


def test_discard_drops_and_counts_both_ways(sites: SiteToSite, a: DatapathProcess) -> None:
    a.apply(NETWORKS.policy_of_a(action=Action.DISCARD))

    assert no_ping(sites.a.host, "10.2.0.10")
    assert no_ping(sites.b.host, "fd00:1::10")

    wait_until(lambda: drops(a, DropReason.POLICY_DISCARD) == 4)


def test_traffic_of_other_sources_is_not_touched(
    sites: SiteToSite, a: DatapathProcess, tmp_path: Path
) -> None:
    a.apply(NETWORKS.policy_of_a())

    # From the gateway's outer address, which no selector holds.
    assert can_ping(sites.a.gateway, "10.2.0.10", "-I", "192.0.2.1")
    assert can_ping(sites.a.gateway, "192.0.2.2")


def test_source_nat_on_the_way_into_the_tunnel_device_leaves_nothing_in_clear(
    sites: SiteToSite, a: DatapathProcess, b: DatapathProcess, tmp_path: Path
) -> None:
    # Address translation that forgets to except the tunnel: what it changed no longer matches PROTECT.
    establish(a, b, NETWORKS)
    nat = "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };"
    sites.a.gateway.run("nft", f"{nat} add rule ip nat out ip saddr 10.1.0.0/16 snat to 192.0.2.1")
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture:
        assert no_ping(sites.a.host, "10.2.0.10")

    assert clear_packets(capture) == 0
    wait_until(lambda: drops(a, DropReason.NO_POLICY) >= 2)


SEND_LATER_FRAGMENT = """
from scapy.all import IPv6, IPv6ExtHdrFragment, Raw, send
send(IPv6(src="fd00:1::10", dst="fd00:2::10", hlim=64)
     / IPv6ExtHdrFragment(nh=60, offset=2, m=0, id=7) / Raw(bytes(64)), count=3, verbose=False)
"""


def test_fragments_that_hide_their_protocol_do_not_leave_in_clear(
    sites: SiteToSite, a: DatapathProcess, tmp_path: Path
) -> None:
    # Later fragments whose fragmentable part began with destination options: what follows those is named in
    # the first fragment only, and may be TCP.
    only_tcp = (TrafficSelector.parse("fd00:1::/64[tcp]"),), (TrafficSelector.parse("fd00:2::/64[tcp]"),)
    a.apply(replace(NETWORKS.policy_of_a(), local_ts=only_tcp[0], remote_ts=only_tcp[1]))
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as capture:
        sites.a.host.run(sys.executable, "-c", SEND_LATER_FRAGMENT)
        assert can_ping(sites.a.host, "fd00:2::10")  # ICMPv6 is nobody's business here

    assert count_packets(capture, "ip6 proto 44") == 0
    assert clear_packets(capture) > 0


def test_removed_policy_leaves_routing_as_it_was(sites: SiteToSite, a: DatapathProcess) -> None:
    before = _routing(sites.a.gateway)
    a.apply(NETWORKS.policy_of_a())
    assert no_ping(sites.a.host, "10.2.0.10")

    a.call("remove_policies", ["test/net"])

    assert can_ping(sites.a.host, "10.2.0.10")
    assert _routing(sites.a.gateway) == before


def _routing(namespace: Namespace) -> list[str]:
    outputs = [
        namespace.run("ip", family, *what, check=False).stdout
        for family in ("-4", "-6")
        for what in (("rule",), ("route", "show", "table", "4500"))
    ]
    return [line.strip() for output in outputs for line in output.splitlines()]


def test_removed_protection_stays_removed(sites: SiteToSite, a: DatapathProcess) -> None:
    a.apply(NETWORKS.policy_of_a())
    assert no_ping(sites.a.host, "10.2.0.10")

    a.call("remove_protection")
    time.sleep(0.5)  # links and routes changed: nothing may put it back

    assert sites.a.gateway.run("nft", "list", "tables").stdout == ""
    assert [line for line in _routing(sites.a.gateway) if "4500" in line] == []
    assert can_ping(sites.a.host, "10.2.0.10")
