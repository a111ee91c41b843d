"""The routing of a machine as tables: what they say, and what they leave to the kernel."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from pyroute2 import IPRoute

from gateway.host.routing_mirror import MirroredRoute, RoutingSnapshot, Way, read_routing, use_neighbours
from tests.conformance.namespace import PEERS, fresh_network_namespace, neighbour

pytestmark = pytest.mark.netns

OURS = 48


@pytest.fixture
def netlink() -> Iterator[IPRoute]:
    with fresh_network_namespace("192.0.2.1/24", "2001:db8::1/64"), IPRoute() as netlink:
        yield netlink


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def read(netlink: IPRoute) -> RoutingSnapshot:
    return read_routing(netlink, own_protocols=(OURS,))


def route(snapshot: RoutingSnapshot, prefix: str) -> MirroredRoute:
    (found,) = (one for one in snapshot.routes if one.destination == ip_network(prefix))
    return found


def outside(netlink: IPRoute) -> int:
    return int(netlink.link_lookup(ifname="outside")[0])


def test_links_are_those_with_ethernet_that_are_up(netlink: IPRoute) -> None:
    ip("link", "set", "outside", "mtu", "1400")
    ip("link", "set", "beyond", "down")

    (link,) = read(netlink).links

    assert (link.index, link.name, link.mtu_bytes) == (outside(netlink), "outside", 1400)
    assert link.mac == neighbour("outside")


def test_routes_say_link_gateway_and_mtu_of_both_families(netlink: IPRoute) -> None:
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2", "mtu", "1300")
    ip("-6", "route", "add", "default", "via", "2001:db8::2")
    snapshot = read(netlink)
    link = outside(netlink)

    assert route(snapshot, "198.51.100.0/24") == MirroredRoute(
        destination=ip_network("198.51.100.0/24"),
        way=Way.FORWARD,
        link=link,
        gateway=ip_address("192.0.2.2"),
        mtu_bytes=1300,
    )
    assert route(snapshot, "::/0").gateway == ip_address("2001:db8::2")
    assert route(snapshot, "192.0.2.0/24") == MirroredRoute(
        destination=ip_network("192.0.2.0/24"), way=Way.FORWARD, link=link
    )


def test_what_is_for_this_machine_or_beyond_tables_is_the_kernels(netlink: IPRoute) -> None:
    ip("route", "add", "198.51.100.0/24", "nexthop", "via", "192.0.2.2", "nexthop", "via", "192.0.2.3")
    ip("route", "add", "203.0.113.0/24", "dev", "lo")
    snapshot = read(netlink)

    ours = ("192.0.2.1/32", "2001:db8::1/128", "198.51.100.0/24", "203.0.113.0/24")
    assert {route(snapshot, prefix).way for prefix in ours} == {Way.KERNEL}


def test_of_several_routes_to_a_prefix_the_best_counts(netlink: IPRoute) -> None:
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.3", "metric", "200")
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2", "metric", "100")
    ip("route", "add", "unreachable", "203.0.113.0/24", "metric", "50")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.2", "metric", "60")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.3", "table", "77")
    snapshot = read(netlink)

    assert route(snapshot, "198.51.100.0/24").gateway == ip_address("192.0.2.2")
    assert route(snapshot, "203.0.113.0/24").way is Way.UNREACHABLE


def test_rules_of_others_make_every_route_the_kernels_and_ours_do_not(netlink: IPRoute) -> None:
    ip("rule", "add", "from", "10.1.0.0/16", "lookup", "4502", "protocol", str(OURS))
    assert read(netlink).strange_rules == ()

    ip("rule", "add", "from", "10.9.0.0/16", "lookup", "99", "preference", "1234")
    snapshot = read(netlink)

    assert snapshot.strange_rules == ("IPv4 rule 1234",)
    assert route(snapshot, "192.0.2.0/24").way is Way.KERNEL


def test_neighbours_are_those_whose_address_is_known(netlink: IPRoute) -> None:
    ip("neighbour", "add", "192.0.2.9", "dev", "outside", "nud", "failed")
    beyond = neighbour("beyond")

    found = read(netlink).neighbours

    assert {(one.address, one.mac, one.link) for one in found} == {
        (ip_address(peer), beyond, outside(netlink)) for peer in PEERS
    }


def test_the_kernel_is_asked_to_look_after_a_neighbour_and_one_that_is_gone_is_no_error(
    netlink: IPRoute,
) -> None:
    ip("neighbour", "replace", PEERS[0], "lladdr", "02:00:00:00:00:01", "dev", "outside", "nud", "stale")
    known = read(netlink).neighbours

    ip("neighbour", "del", PEERS[1], "dev", "outside")
    use_neighbours(netlink, known)

    shown = subprocess.run(
        ["ip", "neighbour", "show", PEERS[0]], check=True, capture_output=True, text=True
    ).stdout
    assert shown.split()[-1] in ("DELAY", "PROBE")
