"""Interfaces that we make for tunnels, over rtnetlink: XFRM interfaces and TUN devices, and VRFs around them.

Ours are told from others' by their alias (`ip link set NAME alias TEXT`), also by the next life of an agent.
"""

import errno
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.host.network import Network, has_ipv6

_IFF_UP: Final = 0x1
_IN6_ADDR_GEN_MODE_NONE: Final = 1
XFRM: Final = "xfrm"
TUN: Final = "tun"
VRF: Final = "vrf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface."""

    name: str
    index: int
    kind: str
    """As `ip -d link` says: `xfrm`, `tun`, `vrf`; empty of a NIC."""
    id: int = 0
    """if_id of an XFRM interface."""
    table: int = 0
    """Routing table of a VRF."""
    alias: str = ""
    is_up: bool = False
    mtu_bytes: int = 0
    vrf: int = 0
    """Index of the interface it is a port of; 0: of none."""


class Links:
    """Virtual interfaces of this machine. Every method raises `HostError` where the kernel refuses.

    Args:
        network: Borrowed.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    async def all(self) -> tuple[Link, ...]:
        """Return every interface."""
        return await self._network.run(
            lambda netlink: tuple(_parse(message) for message in netlink.get_links())
        )

    async def get(self, name: str) -> Link | None:
        """Return an interface, if it is there."""

        def work(netlink: IPRoute) -> Link | None:
            found = list(netlink.link_lookup(ifname=name))
            return _parse(next(iter(netlink.get_links(found[0])))) if found else None

        return await self._network.run(work)

    async def add_xfrm(self, name: str, if_id: int) -> None:
        """Make an XFRM interface."""
        await self._network.run(
            lambda netlink: netlink.link("add", ifname=name, kind=XFRM, xfrm_if_id=if_id, xfrm_link=0)
        )

    async def set_alias(self, index: int, alias: str) -> None:
        """Say whose an interface is."""
        await self._network.run(lambda netlink: netlink.link("set", index=index, IFLA_IFALIAS=alias))

    async def bring_up(self, index: int, *, vrf: int) -> None:
        """Make an interface a port of a VRF, or of none, and bring it up; IPv6 makes no address on it."""

        def work(netlink: IPRoute) -> None:
            if has_ipv6():
                silent = ["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE]]}]
                netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [silent]})
            netlink.link("set", index=index, master=vrf)
            netlink.link("set", index=index, state="up")

        await self._network.run(work)

    async def add_address(self, index: int, address: IPv4Interface | IPv6Interface) -> None:
        """Give an interface an address; that it has it is no error."""

        def work(netlink: IPRoute) -> None:
            try:
                netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise

        await self._network.run(work)

    async def remove_address(self, index: int, address: IPv4Interface | IPv6Interface) -> None:
        """Take an address from an interface; that it has it not is no error."""

        def work(netlink: IPRoute) -> None:
            try:
                netlink.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            except NetlinkError as error:
                if error.code != errno.EADDRNOTAVAIL:
                    raise

        await self._network.run(work)

    async def remove(self, index: int) -> None:
        """Remove an interface, and with it its addresses and routes; one that is gone is no error."""

        def work(netlink: IPRoute) -> None:
            try:
                netlink.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise

        await self._network.run(work)


def _parse(message: Any) -> Link:
    """Return an interface; pyroute2 has no types."""
    attributes = dict(message["attrs"])
    info = dict(attributes.get("IFLA_LINKINFO", {"attrs": []})["attrs"])
    data = info.get("IFLA_INFO_DATA")
    details = dict(data["attrs"]) if isinstance(data, dict) else {}
    return Link(
        name=str(attributes["IFLA_IFNAME"]),
        index=int(message["index"]),
        kind=str(info.get("IFLA_INFO_KIND", "")),
        id=int(details.get("IFLA_XFRM_IF_ID", 0)),
        table=int(details.get("IFLA_VRF_TABLE", 0)),
        alias=str(attributes.get("IFLA_IFALIAS", "")),
        is_up=bool(int(message["flags"]) & _IFF_UP),
        mtu_bytes=int(attributes.get("IFLA_MTU", 0)),
        vrf=int(attributes.get("IFLA_MASTER", 0)),
    )
