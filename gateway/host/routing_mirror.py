"""The routing of this machine as tables for somebody who forwards packets past the kernel.

It has the links, the best route to every prefix and the neighbours with a link address. What tables cannot
say (several next hops, policy rules of others, routes with encapsulation) is marked as the kernel's: whoever
uses the tables leaves such packets to it.

All is read once, and then what the kernel tells has changed. It is all read again where notifications were
lost or leave a doubt; where links or addresses changed, with which routes go that nothing is told of; and now
and then all the same.
"""

import errno
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.host.errors import HostError
from gateway.host.network import IpAddress
from gateway.host.route_messages import (
    RTM_DELADDR,
    RTM_NEWLINK,
    Notification,
    Prefix,
    RawRoute,
    RouteMessage,
    RouteSocket,
    RouteType,
)
from gateway.host.route_table import RouteTable

_ARPHRD_ETHER: Final = 1
_IFF_UP: Final = 0x1
_OWN_RULES: Final = {4: {0, 32766, 32767}, 6: {0, 32766}}
"""Preferences of the rules that every machine has: local, main and default."""
_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
"""NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT."""
_NUD_PERMANENT: Final = 0x80
_NTF_USE: Final = 0x01
_UNREACHABLE: Final = frozenset({RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT})
_REREAD_S: Final = 300.0
"""So often all is read anew, whatever was told."""
_LINK_CHANGES: Final = frozenset({RTM_NEWLINK, RTM_NEWLINK + 1})
_NEIGHBOUR_CHANGES: Final = frozenset({28, 29})
_RULE_CHANGES: Final = frozenset({32, 33})
"""RTM_NEW and RTM_DEL of LINK, NEIGH and RULE."""
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

    way: Way
    link: int = 0
    """Of FORWARD: index of the interface."""
    gateway: bytes = b""
    """Of FORWARD: the next hop, as on the wire; empty: the destination itself."""
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
class RoutingChange:
    """The routing of one moment, and what is new of it."""

    links: tuple[MirroredLink, ...]
    neighbours: tuple[MirroredNeighbour, ...]
    prefixes: Collection[Prefix]
    """Those whose routes may have changed."""
    is_whole: bool
    """Whether `prefixes` is every prefix that there is a route to."""


class RoutingMirror:
    """What is known of the routing. All calls are made in the thread of the network.

    Args:
        own_protocols: rtm_protocol numbers of our own rules: they lead to us, and are passed over.
    """

    def __init__(self, own_protocols: Iterable[int]) -> None:
        self._own_protocols = frozenset(own_protocols)
        self._table = RouteTable()
        self._socket: RouteSocket | None = None
        self._links: tuple[MirroredLink, ...] = ()
        self._neighbours: tuple[MirroredNeighbour, ...] = ()
        self._states: Collection[tuple[int, int, int]] = ()
        """Of all links, what routes depend on: index, flags, master."""
        self._read_at = 0.0
        self.strange_rules: tuple[str, ...] = ()
        """Policy rules of others, for which every route is the kernel's; empty where the tables hold."""
        self.times_read = 0
        """How often all routes were read."""

    def open(self) -> int:
        """Begin to listen; return a descriptor that is readable when something has changed.

        Raises:
            OSError: The kernel gives no socket.
        """
        if self._socket is None:
            self._socket = RouteSocket(listens=True)
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def neighbours(self) -> Collection[MirroredNeighbour]:
        """Return the neighbours as they were last seen."""
        return self._neighbours

    @property
    def prefixes(self) -> Iterable[Prefix]:
        """Return every prefix that there is a route to."""
        return self._table

    def route(self, prefix: Prefix) -> MirroredRoute | None:
        """Return where packets to a prefix go by the best route to it; `None`: there is none."""
        best = self._table.best(prefix)
        return None if best is None else _mirrored(best, are_trusted=not self.strange_rules)

    def follow(self, netlink: IPRoute) -> RoutingChange:
        """Take in what has changed since the last time.

        Raises:
            HostError: The kernel does not tell its routes.
        """
        self.open()
        assert self._socket is not None
        changed: set[Prefix] = set()
        kinds: set[int] = set()
        is_sure = bool(self._read_at) and time.monotonic() < self._read_at + _REREAD_S
        for change in self._socket.changes():
            match change:
                case None:
                    is_sure = False
                case RouteMessage():
                    is_sure &= self._table.change(change)
                    changed.add(change.prefix)
                case Notification():
                    kinds.add(change.kind)
        rules = self.strange_rules
        is_sure &= self._follow_others(netlink, kinds, is_sure=is_sure)
        if not is_sure:
            self._read_all()
        is_whole = not is_sure or bool(rules) != bool(self.strange_rules)
        return RoutingChange(
            links=self._links,
            neighbours=self._neighbours,
            prefixes=tuple(self._table) if is_whole else changed,
            is_whole=is_whole,
        )

    def _follow_others(self, netlink: IPRoute, kinds: Collection[int], *, is_sure: bool) -> bool:
        """Read anew what else was told to have changed; return whether no route can have gone with it."""
        if not is_sure or _LINK_CHANGES & set(kinds):
            messages = tuple(netlink.get_links())
            states = {_state(message) for message in messages}
            is_sure = is_sure and states == self._states
            self._states, self._links = states, tuple(_links(messages))
        if not is_sure or _RULE_CHANGES & set(kinds):
            self.strange_rules = tuple(_strange_rules(netlink, self._own_protocols))
        if not is_sure or (_NEIGHBOUR_CHANGES | _LINK_CHANGES) & set(kinds):
            self._neighbours = tuple(_neighbours(netlink, {link.index for link in self._links}))
        # With an address go the routes that have it as their source.
        return is_sure and RTM_DELADDR not in kinds

    def _read_all(self) -> None:
        """Read all routes. What changes meanwhile is told again afterwards, and makes no difference."""
        self.times_read += 1
        asking = RouteSocket(listens=False)
        try:
            messages: list[RouteMessage] = []
            is_whole = asking.dump(messages.append)
        except OSError as error:
            raise HostError(f"the kernel does not tell its routes: {error.strerror}") from error
        finally:
            asking.close()
        self._table.load(messages)
        self._read_at = time.monotonic() if is_whole else 0.0


def _state(message: Message) -> tuple[int, int, int]:
    attributes = dict(message["attrs"])
    return int(message["index"]), int(message["flags"]), int(attributes.get("IFLA_MASTER", 0))


def _mirrored(route: RawRoute, *, are_trusted: bool) -> MirroredRoute:
    if route.type in _UNREACHABLE:
        return MirroredRoute(way=Way.UNREACHABLE)
    if route.type != RouteType.UNICAST or not route.link or not route.is_plain or not are_trusted:
        return MirroredRoute(way=Way.KERNEL)
    return MirroredRoute(way=Way.FORWARD, link=route.link, gateway=route.gateway, mtu_bytes=route.mtu_bytes)


def read_neighbourhood(
    netlink: IPRoute,
) -> tuple[tuple[MirroredLink, ...], tuple[MirroredNeighbour, ...]]:
    """Return links and neighbours as they are now, without the routes, which may be many."""
    links = tuple(_links(netlink.get_links()))
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


def _links(messages: Iterable[Message]) -> Iterator[MirroredLink]:
    for message in messages:
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
