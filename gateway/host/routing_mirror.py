"""The routing of this machine as tables for somebody who forwards packets past the kernel.

One snapshot has the links, the best route to every prefix and the neighbours with a link address. What the
tables cannot say (several next hops, policy rules of others, routes with encapsulation) is marked as the
kernel's: whoever uses the tables leaves such packets to it.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.host.network import IpAddress, IpNetwork

_ARPHRD_ETHER: Final = 1
_IFF_UP: Final = 0x1
_RT_TABLE_MAIN: Final = 254
_RT_TABLE_DEFAULT: Final = 253
_RT_TABLE_LOCAL: Final = 255
_OWN_RULES: Final = {4: {0, 32766, 32767}, 6: {0, 32766}}
"""Preferences of the rules that every machine has: local, main and default."""
_RTN_UNICAST: Final = 1
_RTN_UNREACHABLES: Final = frozenset({6, 7, 8})
"""RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT."""
_RTNH_F_DEAD: Final = 0x1
_RTNH_F_LINKDOWN: Final = 0x10
_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
"""NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT."""
_NUD_PERMANENT: Final = 0x80
_NTF_USE: Final = 0x01
_RTAX_MTU: Final = "RTAX_MTU"
_ANY: Final = {4: "0.0.0.0/0", 6: "::/0"}
_FAMILIES: Final = {4: 2, 6: 10}

#: A netlink message, or its attributes by name: pyroute2 has no types.
Message = Any


class Way(Enum):
    """What happens to packets for a prefix."""

    FORWARD = "forward"
    """They go out of a link, to a next hop."""
    KERNEL = "kernel"
    """They are for this machine, or only the kernel knows where they go."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredLink:
    """An Ethernet interface that is up."""

    index: int
    name: str
    mac: bytes
    mtu_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredRoute:
    """The best route to a prefix."""

    destination: IpNetwork
    way: Way
    link: int = 0
    """Of FORWARD: index of the interface."""
    gateway: IpAddress | None = None
    """Of FORWARD: the next hop; `None`: the destination itself."""
    mtu_bytes: int = 0
    """Of FORWARD: 0 for the interface's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredNeighbour:
    """A next hop whose link address is known."""

    link: int
    address: IpAddress
    mac: bytes
    is_permanent: bool = False
    """Set by an operator: the kernel does not look after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSnapshot:
    """The routing of one moment."""

    links: tuple[MirroredLink, ...]
    routes: tuple[MirroredRoute, ...]
    """At most one to a prefix."""
    neighbours: tuple[MirroredNeighbour, ...]
    strange_rules: tuple[str, ...]
    """Policy rules of others, for which every route is the kernel's; empty where the tables hold."""


def read_routing(
    netlink: IPRoute, *, own_protocols: Iterable[int], tunnels: Iterable[int] = ()
) -> RoutingSnapshot:
    """Return the routing as it is now.

    Args:
        netlink: Asked.
        own_protocols: rtm_protocol numbers of our own rules: they lead to us, and are passed over.
        tunnels: Indexes of links without Ethernet to which routes may lead all the same.
    """
    links = tuple(_links(netlink))
    known = {link.index for link in links}
    strange = tuple(_strange_rules(netlink, frozenset(own_protocols)))
    return RoutingSnapshot(
        links=links,
        routes=tuple(_routes(netlink, known | set(tunnels), are_trusted=not strange)),
        neighbours=tuple(_neighbours(netlink, known)),
        strange_rules=strange,
    )


def read_neighbourhood(
    netlink: IPRoute,
) -> tuple[tuple[MirroredLink, ...], tuple[MirroredNeighbour, ...]]:
    """Return links and neighbours as they are now, without the routes, which may be many."""
    links = tuple(_links(netlink))
    return links, tuple(_neighbours(netlink, {link.index for link in links}))


def use_neighbours(netlink: IPRoute, neighbours: Iterable[MirroredNeighbour]) -> None:
    """Have the kernel look after neighbours that it sees no traffic to, as if it did.

    Permanent ones are left alone: NTF_USE would take that from them (`__neigh_update` since Linux 5.16).
    """
    for neighbour in neighbours:
        if neighbour.is_permanent:
            continue
        try:
            netlink.neigh(
                "change",
                family=_FAMILIES[neighbour.address.version],
                dst=str(neighbour.address),
                ifindex=neighbour.link,
                flags=_NTF_USE,
            )
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise


def _links(netlink: IPRoute) -> Iterator[MirroredLink]:
    for message in netlink.get_links():
        attributes = dict(message["attrs"])
        is_usable = message["ifi_type"] == _ARPHRD_ETHER and message["flags"] & _IFF_UP
        if is_usable and "IFLA_ADDRESS" in attributes:
            yield MirroredLink(
                index=int(message["index"]),
                name=str(attributes["IFLA_IFNAME"]),
                mac=_mac(attributes["IFLA_ADDRESS"]),
                mtu_bytes=int(attributes["IFLA_MTU"]),
            )


def _strange_rules(netlink: IPRoute, own_protocols: frozenset[int]) -> Iterator[str]:
    for version, family in _FAMILIES.items():
        for message in netlink.get_rules(family=family):
            attributes = dict(message["attrs"])
            preference = int(attributes.get("FRA_PRIORITY", 0))
            if attributes.get("FRA_PROTOCOL") not in own_protocols and preference not in _OWN_RULES[version]:
                yield f"IPv{version} rule {preference}"


def _routes(netlink: IPRoute, links: set[int], *, are_trusted: bool) -> Iterator[MirroredRoute]:
    """Yield one route to each prefix: of the local table before main before default, then the best metric."""
    for version, family in _FAMILIES.items():
        best: dict[IpNetwork, tuple[tuple[int, int], Message]] = {}
        for message in netlink.get_routes(family=family):
            attributes = dict(message["attrs"])
            table = int(attributes.get("RTA_TABLE", message["table"]))
            if table not in _TABLES or message["flags"] & (_RTNH_F_DEAD | _RTNH_F_LINKDOWN):
                continue
            prefix = ip_network(f"{attributes.get('RTA_DST', _ANY[version][:-2])}/{message['dst_len']}")
            rank = _TABLES[table], int(attributes.get("RTA_PRIORITY", 0))
            if prefix not in best or rank < best[prefix][0]:
                best[prefix] = rank, message
        for prefix, (_, message) in best.items():
            yield _route(prefix, message, links if are_trusted else set())


_TABLES: Final = {_RT_TABLE_LOCAL: 0, _RT_TABLE_MAIN: 1, _RT_TABLE_DEFAULT: 2}


def _route(prefix: IpNetwork, message: Message, links: set[int]) -> MirroredRoute:
    attributes = dict(message["attrs"])
    kind = int(message["type"])
    if kind in _RTN_UNREACHABLES:
        return MirroredRoute(destination=prefix, way=Way.UNREACHABLE)
    link = attributes.get("RTA_OIF")
    is_plain = not {"RTA_MULTIPATH", "RTA_ENCAP", "RTA_VIA"} & attributes.keys() and not message["tos"]
    if kind != _RTN_UNICAST or link not in links or not is_plain:
        return MirroredRoute(destination=prefix, way=Way.KERNEL)
    gateway = attributes.get("RTA_GATEWAY")
    metrics = dict(attributes["RTA_METRICS"]["attrs"]) if "RTA_METRICS" in attributes else {}
    return MirroredRoute(
        destination=prefix,
        way=Way.FORWARD,
        link=int(link),
        gateway=None if gateway is None else ip_address(gateway),
        mtu_bytes=int(metrics.get(_RTAX_MTU, 0)),
    )


def _neighbours(netlink: IPRoute, links: set[int]) -> Iterator[MirroredNeighbour]:
    for family in _FAMILIES.values():
        for message in netlink.get_neighbours(family=family):
            attributes = dict(message["attrs"])
            if message["ifindex"] in links and message["state"] & _USABLE and "NDA_LLADDR" in attributes:
                yield MirroredNeighbour(
                    link=int(message["ifindex"]),
                    address=ip_address(attributes["NDA_DST"]),
                    mac=_mac(attributes["NDA_LLADDR"]),
                    is_permanent=bool(message["state"] & _NUD_PERMANENT),
                )


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
