"""Where XDP sends what NICs decrypt: the next hops to the protected networks, as the routing says now.

A longest-prefix match over these must come to what the kernel's routing would come to, for every destination
in the networks that are asked for. So each of its routes there is among them, and what XDP cannot follow,
or need not know, is the stack's: routes to other interfaces, to nowhere, of several next hops, to a network
on the link itself but for the neighbours whose link address is known.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from gateway.datapath.xfrm.forwarding_paths import Surroundings
from gateway.host.bpf.abi import NextHop, Prefix4, Prefix6
from gateway.host.network import IpAddress
from gateway.host.route_messages import Prefix
from gateway.host.routing_mirror import MirroredLink, MirroredNeighbour, MirroredRoute, RoutingMirror, Way

IpNetwork = IPv4Network | IPv6Network

#: Next hops by prefix.
Hops = Mapping[Prefix4 | Prefix6, NextHop]

STACK: Final = NextHop(ifindex=0, mtu=0, destination_mac=bytes(6), source_mac=bytes(6))
"""Of what the stack sends."""
MAX_HOPS: Final = 65536
"""Of one IP version: what there is room for."""
_BITS: Final = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class _OnLink:
    """A network on a link itself."""

    link: MirroredLink
    mtu_bytes: int


def lan_hops(
    mirror: RoutingMirror, around: Surroundings, lans: Collection[int], networks: Collection[IpNetwork]
) -> Hops:
    """Return the next hops of every destination in these networks.

    Args:
        mirror: As it was last followed.
        around: Has links and neighbours.
        lans: Interfaces, by index, that XDP may send by.
        networks: The protected ones.
    """
    ranges = {
        version: _Ranges(network for network in networks if network.version == version) for version in _BITS
    }
    links = {index: around.links[index] for index in lans if index in around.links}
    found: dict[Prefix, NextHop] = {}
    on_link: dict[Prefix, _OnLink] = {}
    for prefix in mirror.prefixes:
        route = mirror.route(prefix)
        if route is None or not ranges[prefix.version].overlap(prefix):
            continue
        link = links.get(route.link) if route.way is Way.FORWARD else None
        found[prefix] = STACK if link is None else _by_gateway(route, link, around)
        if link is not None and not route.gateway:
            on_link[prefix] = _OnLink(link, _mtu(route, link))
    for neighbour in around.neighbours.values():
        host = _host(neighbour.address)
        if neighbour.link in links and ranges[host.version].overlap(host):
            network = on_link.get(_longest(host, found))
            if network is not None and network.link.index == neighbour.link:
                found[host] = _hop(network.link, neighbour, network.mtu_bytes)
    return {_key(prefix): hop for prefix, hop in found.items()}


def is_too_many(hops: Hops) -> bool:
    """Return whether there is no room for so many."""
    of_ipv4 = sum(isinstance(prefix, Prefix4) for prefix in hops)
    return max(of_ipv4, len(hops) - of_ipv4) > MAX_HOPS


def _by_gateway(route: MirroredRoute, link: MirroredLink, around: Surroundings) -> NextHop:
    if not route.gateway:
        return STACK
    neighbour = around.neighbours.get((link.index, ip_address(route.gateway)))
    return STACK if neighbour is None else _hop(link, neighbour, _mtu(route, link))


def _hop(link: MirroredLink, neighbour: MirroredNeighbour, mtu_bytes: int) -> NextHop:
    return NextHop(ifindex=link.index, mtu=mtu_bytes, destination_mac=neighbour.mac, source_mac=link.mac)


def _mtu(route: MirroredRoute, link: MirroredLink) -> int:
    return min(route.mtu_bytes or link.mtu_bytes, link.mtu_bytes)


def _host(address: IpAddress) -> Prefix:
    return Prefix(address.version, _BITS[address.version], address.packed)


def _longest(host: Prefix, routes: Mapping[Prefix, NextHop]) -> Prefix:
    """Return the longest prefix of a host that has a route; the host itself where none has."""
    number = int.from_bytes(host.address)
    for bits in range(host.bits, -1, -1):
        hidden = host.bits - bits
        prefix = Prefix(host.version, bits, (number >> hidden << hidden).to_bytes(len(host.address)))
        if prefix in routes:
            return prefix
    return host


def _key(prefix: Prefix) -> Prefix4 | Prefix6:
    if prefix.version == 4:
        return Prefix4(prefix_bits=prefix.bits, address=IPv4Address(prefix.address))
    return Prefix6(prefix_bits=prefix.bits, address=IPv6Address(prefix.address))


class _Ranges:
    """Networks of one IP version, to be asked about many prefixes."""

    def __init__(self, networks: Iterable[IpNetwork]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(
            (int(network.network_address), int(network.broadcast_address)) for network in networks
        ):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def overlap(self, prefix: Prefix) -> bool:
        """Return whether a prefix has an address in common with one of them."""
        first = int.from_bytes(prefix.address)
        last = first | (1 << (_BITS[prefix.version] - prefix.bits)) - 1
        # They are in order and apart: of those that begin before its end, the last reaches furthest.
        place = bisect_right(self._firsts, last) - 1
        return place >= 0 and self._lasts[place] >= first
