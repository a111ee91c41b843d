"""Links, addresses, routes and policy rules of this machine, over rtnetlink.

pyroute2 blocks, so every call runs in one thread that owns the netlink socket; callers await it. The thread
enters the network namespace of the thread that made the `Network`.

Not for packets, and not for deciding: callers say which rules and routes there shall be (`sync_routing`).
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.host.errors import HostError
from gateway.host.sockets import bypass_xfrm, set_mark

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

T = TypeVar("T")

_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
_RTN_UNICAST: Final = 1
_RTN_UNREACHABLE: Final = 7
_FR_ACT_TO_TBL: Final = 1
_FR_ACT_GOTO: Final = 2
_FR_ACT_NOP: Final = 3
_FIB_RULE_FIND_SADDR: Final = 0x00010000
_IN6_ADDR_GEN_MODE_NONE: Final = 1
# <linux/rtnetlink.h>: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR; RTMGRP_IPV4_ROUTE, _IPV6_ROUTE
_LINK_GROUPS: Final = 0x1 | 0x10 | 0x100
_ROUTE_GROUPS: Final = 0x40 | 0x400

#: Attributes of a netlink message, or all of it: pyroute2 has no types.
Attributes = dict[str, Any]


class RuleAction(Enum):
    """What a policy rule does with a packet that matches."""

    TABLE = _FR_ACT_TO_TBL
    GOTO = _FR_ACT_GOTO
    NOP = _FR_ACT_NOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy routing rule (ip-rule(8))."""

    version: int
    """4 or 6."""
    priority: int
    action: RuleAction
    table: int = 0
    goto: int = 0
    """Priority of the rule to go on with."""
    source: IpNetwork | None = None
    destination: IpNetwork | None = None
    input_link: str | None = None
    """Match what comes in over this link only."""
    mark: int | None = None
    ip_protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    finds_source: bool = False
    """IPv6: match traffic that has no source yet by the one the kernel would choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route: into a link, or nowhere."""

    destination: IpNetwork
    table: int
    metric: int
    link: int | None = None
    """Interface index; `None` makes the destination unreachable."""
    gateway: IpAddress | None = None
    """The next hop; `None`: the destination is on the link itself."""
    source_hint: IpAddress | None = None
    """Source address for packets of this machine that have none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAddress:
    """One address of this machine."""

    address: IpAddress
    link: int
    is_global: bool
    """Neither link-local nor of host scope."""
    is_preferred: bool = True
    """What is sent may come from it: it is not deprecated, and known to be nobody else's (RFC 4862 §5.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """One interface, by its name."""

    name: str
    index: int
    is_up: bool
    """By its administrator; a cable need not be in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """Where the routing of this machine sends packets to one destination next."""

    link: int
    """Interface index."""
    gateway: IpAddress | None = None
    """`None`: the destination is on the link itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathProbe:
    """What the routing of this machine says about one destination."""

    source: IpAddress
    mtu_bytes: int
    """Of the route: its link's, or less where an ICMP error taught the kernel so."""


class Network:
    """The routing of this machine, as far as we touch it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._netlink: IPRoute | None = None

    async def run(self, call: Callable[[IPRoute], T]) -> T:
        """Call with the netlink socket, in its thread; for the modules of this room.

        Raises:
            HostError: The kernel refused.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_thread, call)

    def _in_thread(self, call: Callable[[IPRoute], T]) -> T:
        if self._netlink is None:
            self._netlink = IPRoute()
        try:
            return call(self._netlink)
        except NetlinkError as error:
            if error.code == errno.EPERM:
                raise HostError(
                    "changing routes and links needs CAP_NET_ADMIN: run the agent as root"
                ) from error
            raise HostError(f"the kernel refused a netlink request: {error}") from error

    async def close(self) -> None:
        """Close the netlink socket and end its thread."""

        def work() -> None:
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

        await asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._executor.shutdown(wait=False)

    # --- links and addresses ----------------------------------------------------------------------

    async def link_index(self, name: str) -> int | None:
        """Return the index of a link, or `None` if there is none of that name."""

        def work(netlink: IPRoute) -> int | None:
            found = list(netlink.link_lookup(ifname=name))
            return int(found[0]) if found else None

        return await self.run(work)

    async def bring_up(self, index: int, *, mtu_bytes: int, link_local: bool) -> None:
        """Set the MTU of a link and bring it up; without `link_local` IPv6 makes no address on it."""

        def work(netlink: IPRoute) -> None:
            if not link_local and has_ipv6():
                netlink.link(
                    "set",
                    index=index,
                    IFLA_AF_SPEC={
                        "attrs": [
                            ["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE]]}]
                        ]
                    },
                )
            netlink.link("set", index=index, mtu=mtu_bytes, state="up")

        await self.run(work)

    async def is_up(self, index: int) -> bool:
        """Return whether a link is administratively up; one that is gone is not."""

        def work(netlink: IPRoute) -> bool:
            iff_up = 1
            return any(int(link["flags"]) & iff_up for link in netlink.get_links(index))

        return await self.run(work)

    async def set_mtu(self, index: int, mtu_bytes: int) -> None:
        """Set the MTU of a link."""
        await self.run(lambda netlink: netlink.link("set", index=index, mtu=mtu_bytes))

    async def addresses(self) -> tuple[LocalAddress, ...]:
        """Return every address of this machine."""

        def work(netlink: IPRoute) -> tuple[LocalAddress, ...]:
            return tuple(_parse_address(message) for message in netlink.get_addr())

        return await self.run(work)

    async def links_by_address(self) -> dict[IpAddress, LinkState]:
        """Return the interface that has each address of this machine; of several, one."""

        def work(netlink: IPRoute) -> dict[IpAddress, LinkState]:
            links = {int(message["index"]): _parse_link(message) for message in netlink.get_links()}
            addresses = [_parse_address(message) for message in netlink.get_addr()]
            return {local.address: links[local.link] for local in addresses if local.link in links}

        return await self.run(work)

    # --- rules and routes -------------------------------------------------------------------------

    async def rules(self, protocol: int) -> frozenset[Rule]:
        """Return the policy rules that carry our protocol number."""

        def work(netlink: IPRoute) -> frozenset[Rule]:
            return frozenset(_list_rules(netlink, protocol))

        return await self.run(work)

    async def sync_routing(
        self, *, rules: Iterable[Rule], routes: Iterable[Route], table: int, protocol: int
    ) -> None:
        """Make `rules` and `routes` the only ones with our protocol number and in our table.

        What is new is added before what is old is removed, routes before the rules that lead to them.
        """
        wanted_rules, wanted_routes = frozenset(rules), frozenset(routes)

        def work(netlink: IPRoute) -> None:
            present_rules = frozenset(_list_rules(netlink, protocol))
            present_routes = frozenset(_list_routes(netlink, table))
            for route in wanted_routes - present_routes:
                _tolerate(errno.EEXIST, netlink.route, "add", **_encode_route(route, protocol))
            # A goto needs its target to be there.
            for rule in sorted(wanted_rules - present_rules, key=lambda r: r.action is RuleAction.GOTO):
                _tolerate(errno.EEXIST, netlink.rule, "add", **_encode_rule(rule, protocol))
            for rule in sorted(present_rules - wanted_rules, key=lambda r: r.action is not RuleAction.GOTO):
                _tolerate(errno.ENOENT, netlink.rule, "del", **_encode_rule(rule, protocol))
            for route in present_routes - wanted_routes:
                _tolerate(errno.ESRCH, netlink.route, "del", **_encode_route(route, protocol))

        await self.run(work)

    async def change_routes(self, *, add: Iterable[Route], remove: Iterable[Route], protocol: int) -> None:
        """Remove and then add single routes of ours, without looking at the others."""
        added, removed = tuple(add), tuple(remove)

        def work(netlink: IPRoute) -> None:
            for route in removed:
                _tolerate(errno.ESRCH, netlink.route, "del", **_encode_route(route, protocol))
            for route in added:
                _tolerate(errno.EEXIST, netlink.route, "add", **_encode_route(route, protocol))

        await self.run(work)

    async def next_hop(self, destination: IpAddress, *, mark: int = 0) -> NextHop | None:
        """Return where packets to a destination go next, or `None` if there is no route."""

        def work(netlink: IPRoute) -> NextHop | None:
            request: Attributes = {"dst": str(destination), "family": _FAMILY[destination.version]}
            if mark:
                request["mark"] = mark
            try:
                (found,) = netlink.route("get", **request)
            except NetlinkError as error:
                if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                    return None
                raise
            attributes = _attributes(found)
            if int(found["type"]) != _RTN_UNICAST or "RTA_OIF" not in attributes:
                return None
            return NextHop(link=int(attributes["RTA_OIF"]), gateway=_gateway(attributes))

        return await self.run(work)

    async def routes(self, table: int, *, protocol: int | None = None) -> frozenset[Route]:
        """Return the routes of a table, or those of it that carry a protocol number."""
        return await self.run(lambda netlink: frozenset(_list_routes(netlink, table, protocol)))


def _tolerate(code: int, call: Callable[..., object], *args: str, **attributes: object) -> None:
    """Call netlink; an answer that says it is so already is a success."""
    try:
        call(*args, **attributes)
    except NetlinkError as error:
        if error.code != code:
            raise


def _attributes(message: Any) -> Attributes:
    return dict(message["attrs"])


def _parse_link(message: Any) -> LinkState:
    iff_up = 0x1
    return LinkState(
        name=str(_attributes(message)["IFLA_IFNAME"]),
        index=int(message["index"]),
        is_up=bool(int(message["flags"]) & iff_up),
    )


def _parse_address(message: Any) -> LocalAddress:
    attributes = _attributes(message)
    rt_scope_universe, rt_scope_site = 0, 200
    dad_failed, deprecated, tentative = 0x08, 0x20, 0x40  # IFA_F_*
    return LocalAddress(
        address=ip_address(attributes.get("IFA_LOCAL") or attributes["IFA_ADDRESS"]),
        link=int(message["index"]),
        is_global=int(message["scope"]) in (rt_scope_universe, rt_scope_site),
        is_preferred=not int(attributes.get("IFA_FLAGS", 0)) & (dad_failed | deprecated | tentative),
    )


def _list_rules(netlink: IPRoute, protocol: int) -> Iterable[Rule]:
    for version, family in _FAMILY.items():
        for message in netlink.get_rules(family=family):
            attributes = _attributes(message)
            if attributes.get("FRA_PROTOCOL") == protocol:
                yield _parse_rule(version, message, attributes)


def _parse_rule(version: int, message: Any, attributes: Attributes) -> Rule:
    action = RuleAction(int(message["action"]))
    return Rule(
        version=version,
        priority=int(attributes.get("FRA_PRIORITY", 0)),
        action=action,
        table=int(attributes.get("FRA_TABLE", 0)) if action is RuleAction.TABLE else 0,
        goto=int(attributes.get("FRA_GOTO", 0)),
        source=_network(attributes.get("FRA_SRC"), message["src_len"]),
        destination=_network(attributes.get("FRA_DST"), message["dst_len"]),
        input_link=attributes.get("FRA_IIFNAME"),
        mark=attributes.get("FRA_FWMARK"),
        ip_protocol=int(attributes.get("FRA_IP_PROTO", 0)),
        source_ports=_parse_ports(attributes.get("FRA_SPORT_RANGE")),
        destination_ports=_parse_ports(attributes.get("FRA_DPORT_RANGE")),
        finds_source=bool(int(message["flags"]) & _FIB_RULE_FIND_SADDR),
    )


def _network(address: str | None, length: int) -> IpNetwork | None:
    return None if address is None else ip_network(f"{address}/{length}")


def _parse_ports(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    first, last = (
        str(value).split(":") if isinstance(value, str) else (value["range_from"], value["range_to"])
    )
    return int(first), int(last)


def _encode_rule(rule: Rule, protocol: int) -> Attributes:
    request: Attributes = {
        "family": _FAMILY[rule.version],
        "priority": rule.priority,
        "action": rule.action.value,
        "protocol": protocol,
    }
    if rule.action is RuleAction.TABLE:
        request["table"] = rule.table
    if rule.action is RuleAction.GOTO:
        request["goto"] = rule.goto
    if rule.source is not None:
        request |= {"src": str(rule.source.network_address), "src_len": rule.source.prefixlen}
    if rule.destination is not None:
        request |= {"dst": str(rule.destination.network_address), "dst_len": rule.destination.prefixlen}
    if rule.input_link is not None:
        request["iifname"] = rule.input_link
    if rule.mark is not None:
        request |= {"fwmark": rule.mark, "fwmask": 0xFFFFFFFF}
    if rule.ip_protocol:
        request["ip_proto"] = rule.ip_protocol
    if rule.source_ports is not None:
        request["sport_range"] = _encode_ports(rule.source_ports)
    if rule.destination_ports is not None:
        request["dport_range"] = _encode_ports(rule.destination_ports)
    if rule.finds_source:
        request["flags"] = _FIB_RULE_FIND_SADDR
    return request


def _encode_ports(ports: tuple[int, int]) -> str:
    return f"{ports[0]}:{ports[1]}"


def _list_routes(netlink: IPRoute, table: int, protocol: int | None = None) -> Iterable[Route]:
    for version, family in _FAMILY.items():
        for message in netlink.get_routes(family=family, table=table):
            attributes = _attributes(message)
            if attributes.get("RTA_TABLE") != table or protocol not in (None, int(message["proto"])):
                continue
            kind = int(message["type"])
            default = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a prefix, nothing is bound
            destination = ip_network(f"{attributes.get('RTA_DST', default)}/{message['dst_len']}")
            hint = attributes.get("RTA_PREFSRC")
            yield Route(
                destination=destination,
                table=table,
                metric=int(attributes.get("RTA_PRIORITY", 0)),
                link=int(attributes["RTA_OIF"]) if kind == _RTN_UNICAST else None,
                gateway=_gateway(attributes),
                source_hint=None if hint is None else ip_address(hint),
            )


def _gateway(attributes: Attributes) -> IpAddress | None:
    found = attributes.get("RTA_GATEWAY")
    return None if found is None else ip_address(found)


def _encode_route(route: Route, protocol: int) -> Attributes:
    request: Attributes = {
        "family": _FAMILY[route.destination.version],
        "dst": str(route.destination),
        "table": route.table,
        "priority": route.metric,
        "proto": protocol,
    }
    if route.link is None:
        request["type"] = "unreachable"
    else:
        request |= {"oif": route.link, "type": "unicast"}
        if route.gateway is not None:
            request["gateway"] = str(route.gateway)
        elif route.destination.version == 4:
            request["scope"] = "link"
    if route.source_hint is not None:
        request["prefsrc"] = str(route.source_hint)
    return request


def heed_marks_in_reverse_path_filter() -> None:
    """Have strict reverse path filtering look up the way back with the mark of the packet (IPv4 only).

    Without it the answer to "how would I reach this peer" is the tunnel device as soon as a selector holds
    the peer's own address, and the kernel drops the peer's ESP. Where /proc/sys is read-only, as in some
    containers, nothing is changed.
    """
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").write_text("1")


# --- without netlink ------------------------------------------------------------------------------


def probe_path(
    destination: IpAddress, *, source: IpAddress | None = None, mark: int = 0, heeds_policies: bool = True
) -> PathProbe | None:
    """Ask the kernel by which address and with which MTU it would reach `destination`.

    Sends nothing. Returns `None` where there is no route, or `source` is not ours. Without `heeds_policies`
    the answer is that of the outer path, even where the kernel's IPsec policies are about `destination`.

    Raises:
        HostError: A mark was asked for without CAP_NET_ADMIN.
    """
    with socket.socket(_FAMILY[destination.version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        if mark:
            set_mark(probe, mark)
        if not heeds_policies:
            bypass_xfrm(probe)
        try:
            if source is not None:
                probe.bind((str(source), 0))
            probe.connect((str(destination), 9))
            if destination.version == 4:
                mtu_bytes = probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
            else:
                mtu_bytes = probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        except OSError:
            return None
        return PathProbe(source=ip_address(probe.getsockname()[0].partition("%")[0]), mtu_bytes=mtu_bytes)


def open_change_monitor(*, with_routes: bool = True) -> socket.socket:
    """Return a non-blocking netlink socket that is readable after links, addresses or routes changed."""
    monitor = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        monitor.bind((0, _LINK_GROUPS | (_ROUTE_GROUPS if with_routes else 0)))
    except BaseException:
        monitor.close()
        raise
    return monitor


def drain_change_monitor(monitor: socket.socket) -> None:
    """Read everything a change monitor has; what exactly changed does not matter."""
    while True:
        try:
            if not monitor.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError as error:
            # ENOBUFS: more changes than the socket could hold. There were changes, that is all we ask.
            if error.errno != errno.ENOBUFS:
                raise


def has_ipv6() -> bool:
    """Return whether this machine has IPv6 (a kernel booted with ipv6.disable=1 has not)."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
