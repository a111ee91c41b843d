"""The routing of a machine as tables: what they say, and what they leave to the kernel."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from pyroute2 import IPRoute

from gateway.host.route_messages import Prefix
from gateway.host.routing_mirror import MirroredRoute, RoutingChange, RoutingMirror, Way, use_neighbours
from tests.conformance.namespace import PEERS, fresh_network_namespace, neighbour

pytestmark = pytest.mark.netns

OURS = 48


@pytest.fixture
def netlink() -> Iterator[IPRoute]:
    with fresh_network_namespace("192.0.2.1/24", "2001:db8::1/64"), IPRoute() as netlink:
        yield netlink


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def mirror(netlink: IPRoute) -> Iterator[RoutingMirror]:
    made = RoutingMirror([OURS])
    made.follow(netlink)
    yield made
    made.close()


def prefix(text: str) -> Prefix:
    network = ip_network(text)
    return Prefix(network.version, network.prefixlen, network.network_address.packed)


def route(mirror: RoutingMirror, text: str) -> MirroredRoute | None:
    return mirror.route(prefix(text))


def way(mirror: RoutingMirror, text: str) -> Way | None:
    found = route(mirror, text)
    return None if found is None else found.way


def gateway(mirror: RoutingMirror, text: str) -> str:
    found = route(mirror, text)
    assert found is not None
    return str(ip_address(found.gateway))


def outside(netlink: IPRoute) -> int:
    return int(netlink.link_lookup(ifname="outside")[0])


# --- what it says -----------------------------------------------------------------------------------------


def test_links_are_those_with_ethernet_that_are_up(netlink: IPRoute, mirror: RoutingMirror) -> None:
    ip("link", "set", "outside", "mtu", "1400")
    ip("link", "set", "beyond", "down")

    (link,) = mirror.follow(netlink).links

    assert (link.index, link.name, link.mtu_bytes) == (outside(netlink), "outside", 1400)
    assert link.mac == neighbour("outside")


def test_routes_say_link_gateway_and_mtu_of_both_families(netlink: IPRoute, mirror: RoutingMirror) -> None:
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2", "mtu", "1300")
    ip("-6", "route", "add", "default", "via", "2001:db8::2")
    mirror.follow(netlink)
    link = outside(netlink)

    assert route(mirror, "198.51.100.0/24") == MirroredRoute(
        way=Way.FORWARD, link=link, gateway=ip_address("192.0.2.2").packed, mtu_bytes=1300
    )
    assert gateway(mirror, "::/0") == "2001:db8::2"
    assert route(mirror, "192.0.2.0/24") == MirroredRoute(way=Way.FORWARD, link=link)
    assert route(mirror, "203.0.113.0/24") is None


def test_what_is_for_this_machine_or_beyond_tables_is_the_kernels(
    netlink: IPRoute, mirror: RoutingMirror
) -> None:
    ip("route", "add", "198.51.100.0/24", "nexthop", "via", "192.0.2.2", "nexthop", "via", "192.0.2.3")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.2", "tos", "0x10")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.3")
    mirror.follow(netlink)

    ours = ("192.0.2.1/32", "2001:db8::1/128", "198.51.100.0/24", "203.0.113.0/24")
    assert {way(mirror, text) for text in ours} == {Way.KERNEL}


def test_of_several_routes_to_a_prefix_the_best_counts_and_then_the_next(
    netlink: IPRoute, mirror: RoutingMirror
) -> None:
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.3", "metric", "200")
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2", "metric", "100")
    ip("route", "add", "unreachable", "203.0.113.0/24", "metric", "50")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.2", "metric", "60")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.3", "table", "77")
    mirror.follow(netlink)
    assert gateway(mirror, "198.51.100.0/24") == "192.0.2.2"
    assert way(mirror, "203.0.113.0/24") is Way.UNREACHABLE

    ip("route", "del", "198.51.100.0/24", "via", "192.0.2.2", "metric", "100")
    mirror.follow(netlink)

    assert gateway(mirror, "198.51.100.0/24") == "192.0.2.3"


def test_rules_of_others_make_every_route_the_kernels_and_ours_do_not(
    netlink: IPRoute, mirror: RoutingMirror
) -> None:
    ip("rule", "add", "from", "10.1.0.0/16", "lookup", "4502", "protocol", str(OURS))
    mirror.follow(netlink)
    assert mirror.strange_rules == ()

    ip("rule", "add", "from", "10.9.0.0/16", "lookup", "99", "preference", "1234")
    change = mirror.follow(netlink)

    assert mirror.strange_rules == ("IPv4 rule 1234",)
    assert way(mirror, "192.0.2.0/24") is Way.KERNEL
    assert change.is_whole
    ip("rule", "del", "preference", "1234")
    mirror.follow(netlink)
    assert way(mirror, "192.0.2.0/24") is Way.FORWARD


# --- what has changed -------------------------------------------------------------------------------------


def changed(change: RoutingChange) -> set[Prefix]:
    assert not change.is_whole
    return set(change.prefixes)


def test_a_change_names_its_prefixes_and_nothing_is_read_again(
    netlink: IPRoute, mirror: RoutingMirror
) -> None:
    assert changed(mirror.follow(netlink)) == set()

    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2")
    ip("-6", "route", "add", "fd00:9::/64", "via", "2001:db8::2")
    assert changed(mirror.follow(netlink)) == {prefix("198.51.100.0/24"), prefix("fd00:9::/64")}
    ip("route", "replace", "198.51.100.0/24", "via", "192.0.2.9")
    assert changed(mirror.follow(netlink)) == {prefix("198.51.100.0/24")}
    assert gateway(mirror, "198.51.100.0/24") == "192.0.2.9"
    ip("route", "del", "198.51.100.0/24")
    assert changed(mirror.follow(netlink)) == {prefix("198.51.100.0/24")}
    assert route(mirror, "198.51.100.0/24") is None
    assert mirror.times_read == 1


@pytest.mark.parametrize(
    "commands",
    [
        ["link set outside down"],
        ["link set outside down", "link set outside up"],
        ["address del 192.0.2.1/24 dev outside"],
        ["route append 198.51.100.0/24 via 192.0.2.3"],
        ["route append 198.51.100.0/24 via 192.0.2.3", "route del 198.51.100.0/24 via 192.0.2.2"],
        ["-6 route append fd00:9::/64 via 2001:db8::3"],
        ["-6 route append fd00:9::/64 via 2001:db8::3", "-6 route del fd00:9::/64 via 2001:db8::2"],
        ["-6 route append fd00:9::/64 via 2001:db8::3", "-6 route del fd00:9::/64"],
        ["route replace 198.51.100.0/24 via 192.0.2.7 metric 7"],
        ["route change 198.51.100.0/24 via 192.0.2.7"],
        ["route replace unreachable 198.51.100.0/24"],
        ["-6 route replace fd00:9::/64 dev outside"],
        ["route flush table main"],
    ],
    ids="; ".join,
)
def test_what_it_says_is_what_another_reads_anew(
    netlink: IPRoute, mirror: RoutingMirror, commands: list[str]
) -> None:
    """Whatever happens: also what the kernel tells nothing of, or not for sure."""
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2")
    ip("-6", "route", "add", "fd00:9::/64", "via", "2001:db8::2")
    mirror.follow(netlink)

    for command in commands:
        ip(*command.split())
        mirror.follow(netlink)
        anew = RoutingMirror([OURS])
        anew.follow(netlink)

        assert {prefix: mirror.route(prefix) for prefix in mirror.prefixes} == {
            prefix: anew.route(prefix) for prefix in anew.prefixes
        }
        anew.close()


def test_lost_notifications_make_it_read_all_again(netlink: IPRoute, mirror: RoutingMirror) -> None:
    """More than its socket holds."""
    lines = [f"route add 10.{n >> 8 & 255}.{n & 255}.0/24 via 192.0.2.2\n" for n in range(60_000)]
    subprocess.run(["ip", "-batch", "-"], input="".join(lines), text=True, check=True, capture_output=True)

    change = mirror.follow(netlink)

    assert change.is_whole
    assert len(change.prefixes) >= 60_000
    assert mirror.times_read == 2


# --- neighbours -------------------------------------------------------------------------------------------


def test_neighbours_are_those_whose_address_is_known(netlink: IPRoute, mirror: RoutingMirror) -> None:
    ip("neighbour", "add", "192.0.2.9", "dev", "outside", "nud", "failed")
    beyond = neighbour("beyond")

    found = mirror.follow(netlink).neighbours

    assert {(one.address, one.mac, one.link) for one in found} == {
        (ip_address(peer), beyond, outside(netlink)) for peer in PEERS
    }


def test_the_kernel_is_asked_to_look_after_a_neighbour_and_one_that_is_gone_is_no_error(
    netlink: IPRoute, mirror: RoutingMirror
) -> None:
    ip("neighbour", "replace", PEERS[0], "lladdr", "02:00:00:00:00:01", "dev", "outside", "nud", "stale")
    known = mirror.follow(netlink).neighbours

    ip("neighbour", "del", PEERS[1], "dev", "outside")
    use_neighbours(netlink, known)

    shown = subprocess.run(
        ["ip", "neighbour", "show", PEERS[0]], check=True, capture_output=True, text=True
    ).stdout
    assert shown.split()[-1] in ("DELAY", "PROBE")
