"""Next hops to the protected networks, as a longest-prefix match finds them."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from gateway.datapath.xfrm.forwarding_paths import Surroundings
from gateway.datapath.xfrm.lan_hops import MAX_HOPS, STACK, Hops, is_too_many, lan_hops
from gateway.host.bpf.abi import NextHop, Prefix4, Prefix6
from gateway.host.route_messages import Prefix, RawRoute, RouteKey, RouteMessage, RouteType
from gateway.host.routing_mirror import MirroredLink, MirroredNeighbour, RoutingMirror

LAN, OTHER_LAN, NIC = 2, 3, 9
LINKS = {
    LAN: MirroredLink(index=LAN, name="lan0", mac=b"\2\0\0\0\0\2", mtu_bytes=1500),
    OTHER_LAN: MirroredLink(index=OTHER_LAN, name="lan1", mac=b"\2\0\0\0\0\3", mtu_bytes=9000),
    NIC: MirroredLink(index=NIC, name="nic0", mac=b"\2\0\0\0\0\x09", mtu_bytes=1500),
}
NETWORKS = frozenset((ip_network("10.1.0.0/16"), ip_network("2001:db8:1::/48")))
MAIN, LOCAL = 254, 255
RTN_BROADCAST = 3


def prefix(text: str) -> Prefix:
    network = ip_network(text)
    return Prefix(network.version, network.prefixlen, network.network_address.packed)


def route(
    text: str,
    link: int = LAN,
    via: str = "",
    *,
    mtu: int = 0,
    kind: int = RouteType.UNICAST,
    table: int = MAIN,
    is_plain: bool = True,
) -> RouteMessage:
    way = RawRoute(
        type=kind,
        link=link,
        gateway=ip_address(via).packed if via else b"",
        mtu_bytes=mtu,
        is_plain=is_plain,
        is_usable=True,
    )
    return RouteMessage(24, 0, prefix(text), RouteKey(table, 0, 0, 0), way)


def neighbour(address: str, last: int, link: int = LAN) -> MirroredNeighbour:
    return MirroredNeighbour(link=link, address=ip_address(address), mac=bytes((2, 0, 0, 0, 1, last)))


def hops(
    *routes: RouteMessage,
    neighbours: tuple[MirroredNeighbour, ...] = (),
    lans: tuple[int, ...] = (LAN, OTHER_LAN),
    networks: frozenset[IPv4Network | IPv6Network] = NETWORKS,
) -> Hops:
    mirror = RoutingMirror([])
    mirror._table.load(routes)
    around = Surroundings(
        links=LINKS,
        neighbours={(item.link, item.address): item for item in neighbours},
        addresses=(),
        forwards={4: True, 6: True},
        sends={},
    )
    return lan_hops(mirror, around, lans, networks)


def looked_up(found: Hops, text: str) -> tuple[int, int] | None:
    """Return link and last octet of the link address, as XDP finds them; `None` without any entry."""
    address = ip_address(text)
    best: tuple[int, NextHop] | None = None
    for key, hop in found.items():
        if key.address.version == address.version:
            network = ip_network((key.address, key.prefix_bits))
            if address in network and (best is None or key.prefix_bits > best[0]):
                best = key.prefix_bits, hop
    return None if best is None else (best[1].ifindex, best[1].destination_mac[-1])


STACKS = (0, 0)


def test_a_router_behind_the_lan_is_the_next_hop_of_its_networks() -> None:
    found = hops(route("10.1.4.0/24", via="10.1.0.7"), neighbours=(neighbour("10.1.0.7", 7),))

    assert looked_up(found, "10.1.4.9") == (LAN, 7)
    assert looked_up(found, "10.1.5.9") is None


def test_on_a_network_of_the_link_only_known_hosts_are_sent_to() -> None:
    found = hops(route("10.1.0.0/16"), neighbours=(neighbour("10.1.0.9", 9), neighbour("10.1.0.8", 8)))

    assert looked_up(found, "10.1.0.9") == (LAN, 9)
    assert looked_up(found, "10.1.0.8") == (LAN, 8)
    assert looked_up(found, "10.1.0.10") == STACKS


def test_ipv6_is_the_same() -> None:
    found = hops(
        route("2001:db8:1::/64"),
        route("2001:db8:1:4::/64", via="fe80::7"),
        neighbours=(neighbour("2001:db8:1::9", 9), neighbour("fe80::7", 7)),
    )

    assert looked_up(found, "2001:db8:1::9") == (LAN, 9)
    assert looked_up(found, "2001:db8:1:4::9") == (LAN, 7)
    assert looked_up(found, "2001:db8:1::a") == STACKS


def test_a_default_route_is_a_route_to_the_networks_too() -> None:
    found = hops(route("0.0.0.0/0", via="10.1.0.7"), neighbours=(neighbour("10.1.0.7", 7),))

    assert looked_up(found, "10.1.4.9") == (LAN, 7)


def test_a_narrower_route_elsewhere_is_the_stacks() -> None:
    found = hops(
        route("10.1.0.0/16"),
        route("10.1.4.0/24", NIC, via="192.0.2.2"),
        route("10.1.5.0/24", kind=RouteType.BLACKHOLE, link=0),
        route("10.1.6.0/24", is_plain=False),
        neighbours=(neighbour("10.1.4.9", 9), neighbour("10.1.5.9", 9), neighbour("10.1.6.9", 9)),
    )

    assert [looked_up(found, f"10.1.{third}.9") for third in (4, 5, 6)] == [STACKS] * 3


def test_addresses_of_this_machine_and_broadcasts_are_the_stacks() -> None:
    found = hops(
        route("10.1.0.0/16"),
        route("10.1.0.1/32", kind=RouteType.LOCAL, table=LOCAL),
        route("10.1.255.255/32", kind=RTN_BROADCAST, table=LOCAL),
        neighbours=(neighbour("10.1.0.1", 1), neighbour("10.1.255.255", 255)),
    )

    assert looked_up(found, "10.1.0.1") == STACKS
    assert looked_up(found, "10.1.255.255") == STACKS


def test_a_neighbour_on_another_link_than_its_route_is_the_stacks() -> None:
    found = hops(
        route("10.1.0.0/16"), route("10.1.0.9/32", OTHER_LAN), neighbours=(neighbour("10.1.0.9", 9, LAN),)
    )

    assert looked_up(found, "10.1.0.9") == STACKS


def test_a_host_with_a_route_of_its_own_is_sent_to() -> None:
    found = hops(
        route("10.1.0.0/16"),
        route("10.1.0.9/32", OTHER_LAN),
        neighbours=(neighbour("10.1.0.9", 9, OTHER_LAN),),
    )

    assert looked_up(found, "10.1.0.9") == (OTHER_LAN, 9)


def test_a_router_whose_link_address_is_not_known_leaves_its_networks_to_the_stack() -> None:
    found = hops(route("10.1.0.0/16", via="10.9.0.1"), route("10.1.4.0/24", via="10.1.0.7"))

    assert looked_up(found, "10.1.4.9") == STACKS


def test_interfaces_that_are_not_named_are_the_stacks() -> None:
    found = hops(route("10.1.0.0/16"), neighbours=(neighbour("10.1.0.9", 9),), lans=(OTHER_LAN,))

    assert looked_up(found, "10.1.0.9") == STACKS


@pytest.mark.parametrize(("given", "expected"), [(0, 9000), (1400, 1400), (65535, 9000)])
def test_the_mtu_is_of_the_route_or_the_link(given: int, expected: int) -> None:
    found = hops(
        route("10.1.4.0/24", OTHER_LAN, via="10.1.0.7", mtu=given),
        neighbours=(neighbour("10.1.0.7", 7, OTHER_LAN),),
    )

    (hop,) = found.values()
    assert (hop.mtu, hop.source_mac) == (expected, LINKS[OTHER_LAN].mac)


def test_what_is_not_protected_is_not_mirrored() -> None:
    found = hops(
        route("10.2.0.0/16"),
        route("10.0.255.0/24"),
        route("10.1.255.0/24"),
        route("fe80::/64"),
        neighbours=(neighbour("10.2.0.9", 9), neighbour("fe80::9", 9)),
    )

    assert [str(key.address) for key in found] == ["10.1.255.0"]


def test_networks_that_touch_and_overlap_are_one() -> None:
    networks = frozenset(map(ip_network, ("10.1.0.0/24", "10.1.1.0/24", "10.1.0.0/25", "10.4.0.0/16")))

    found = hops(
        *(
            route(text)
            for text in ("10.1.0.128/25", "10.1.1.0/26", "10.1.2.0/24", "10.0.0.0/8", "10.3.0.0/16")
        ),
        networks=networks,
    )

    assert [str(key.address) for key in found] == ["10.1.0.128", "10.1.1.0", "10.0.0.0"]


def test_there_is_room_for_so_many_of_each_version() -> None:
    address = ip_address("10.0.0.0")
    four = {Prefix4(prefix_bits=32, address=address + number): STACK for number in range(MAX_HOPS)}
    six = {Prefix6(prefix_bits=bits, address=ip_address("::")): STACK for bits in range(129)}
    one_more = Prefix4(prefix_bits=31, address=address)

    assert not is_too_many({**four, **six})
    assert is_too_many({**four, one_more: replace(STACK, mtu=1)})
