"""Where NICs with packet offload send what they encrypt, and what this machine is around them.

What a NIC sends for an SA goes to the peer's outer address, whatever the inner one is: so that is what is
looked up, by the kernel's own routing with all its rules.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute

from gateway.datapath.xfrm.sad import Held
from gateway.hardware.nic_netlink import ask_xdp_features
from gateway.hardware.readings import Refused
from gateway.host.bpf.abi import NextHop, Port, PortKey, Side
from gateway.host.network import IpAddress, LocalAddress, Network, probe_path
from gateway.host.routing_mirror import MirroredLink, MirroredNeighbour, read_neighbourhood, use_neighbours
from gateway.ipsec.sa import Mode, SecurityAssociation

_NDO_XMIT: Final = 1 << 2
"""NETDEV_XDP_ACT_NDO_XMIT of <linux/netdev.h>."""
_FORWARDING: Final = {
    4: Path("/proc/sys/net/ipv4/ip_forward"),
    6: Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}
_UNSET: Final[dict[int, IpAddress]] = {4: IPv4Address(0), 6: IPv6Address(0)}

#: Source, destination and device of what a NIC sends for an SA.
PathKey = tuple[IpAddress, IpAddress, str]


_UNFIT: Final[tuple[tuple[Callable[[SecurityAssociation], bool], str, str], ...]] = (
    (
        lambda sa: sa.mode is not Mode.TUNNEL,
        "in transport mode only this machine itself sends",
        "in transport mode only this machine itself receives",
    ),
    (
        lambda sa: bool(sa.interface_id),
        "routes lead into a virtual interface",
        "it comes out of a virtual interface",
    ),
    (
        lambda sa: sa.mark is not None,
        "it is for packets with a mark, which they get behind XDP",
        "it is for packets with a mark, which they get behind XDP",
    ),
    (
        lambda sa: sa.set_mark is not None,
        "its route is looked up with a mark",
        "what it decrypts is given a mark",
    ),
    (
        lambda sa: sa.cpu is not None,
        "it is for packets that one CPU sends",
        "it is for packets of one CPU",
    ),
)
"""Which SAs XDP cannot serve, and why: outbound, inbound."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was read of this machine at one time."""

    links: Mapping[int, MirroredLink]
    neighbours: Mapping[tuple[int, IpAddress], MirroredNeighbour]
    addresses: tuple[LocalAddress, ...]
    forwards: Mapping[int, bool]
    """By IP version: whether this machine is a router."""
    sends: Mapping[int, str]
    """By interface: why XDP cannot send by it; empty where it can."""


async def read_surroundings(
    network: Network, nics: Collection[int], interfaces: Collection[str]
) -> Surroundings:
    """Return what this machine is now; whether XDP can send is asked of these NICs and interfaces.

    Raises:
        HostError: The kernel does not tell.
    """

    def work(netlink: IPRoute) -> Surroundings:
        links, neighbours = read_neighbourhood(netlink)
        return Surroundings(
            links={link.index: link for link in links},
            neighbours={(item.link, item.address): item for item in neighbours},
            addresses=(),
            forwards={version: _is_set(path) for version, path in _FORWARDING.items()},
            sends={
                index: why_not_sent_by(index)
                for index in (*nics, *(link.index for link in links if link.name in interfaces))
            },
        )

    around = await network.run(work)
    return replace(around, addresses=await network.addresses())


async def keep_neighbours(network: Network, around: Surroundings, hops: Iterable[NextHop]) -> None:
    """Have the kernel look after the neighbours that are sent to past it.

    Raises:
        HostError: The kernel refused.
    """
    used = {(hop.ifindex, hop.destination_mac) for hop in hops}
    neighbours = [item for item in around.neighbours.values() if (item.link, item.mac) in used]
    await network.run(lambda netlink: use_neighbours(netlink, neighbours))


async def path_of(held: Held, around: Surroundings, network: Network) -> NextHop | str:
    """Return where a NIC sends what it encrypts for an SA, with the path MTU, or why that is unknown."""
    assert held.offload is not None
    peer = held.at.destination
    way = await network.next_hop(peer)
    if way is None:
        return f"there is no route to {peer}"
    link = around.links.get(way.link)
    if link is None or way.link != held.offload.link:
        return f"the route to {peer} does not leave by {held.device}, which has the SA"
    neighbour = around.neighbours.get((link.index, way.gateway or peer))
    if neighbour is None:
        return f"the link address of {way.gateway or peer} is not known yet"
    path = probe_path(peer, source=held.at.source, heeds_policies=False)
    if path is None:
        return f"the path MTU to {peer} is not known"
    return NextHop(
        ifindex=link.index,
        mtu=path.mtu_bytes,
        destination_mac=neighbour.mac,
        source_mac=link.mac,
    )


def _is_set(sysctl: Path) -> bool:
    try:
        return sysctl.read_text().strip() not in ("", "0")
    except OSError:
        return False


def sysctl_of(version: int) -> str:
    """Return the name of the sysctl that makes this machine a router."""
    return ".".join(_FORWARDING[version].parts[3:])


def why_not_sent_by(index: int) -> str:
    """Return why XDP cannot redirect to an interface; empty where it can."""
    features = ask_xdp_features(index)
    if isinstance(features, Refused):
        return f"whether XDP can send by the NIC cannot be told: {features}"
    if not features & _NDO_XMIT:
        return "the NIC's driver does not send for XDP now: name the NIC too, or see `ipsecgw hw`"
    return ""


def why_unfit(held: Held) -> str:
    """Return why XDP cannot serve an SA, whatever there is around it; empty where it can."""
    for is_so, outbound, inbound in _UNFIT:
        if is_so(held.sa):
            return inbound if held.is_inbound else outbound
    return ""


def ports_of(interfaces: Iterable[int], around: Surroundings, outer: Collection[int]) -> dict[PortKey, Port]:
    """Return what we are on each interface; `outer` are those that NICs lead out by."""
    found = {}
    for index in interfaces:
        ours = {
            item.address.version: item.address
            for item in around.addresses
            if item.link == index and item.is_global
        }
        found[PortKey(ifindex=index)] = Port(
            address4=ours.get(4, _UNSET[4]),
            address6=ours.get(6, _UNSET[6]),
            mac=around.links[index].mac,
            side=Side.OFFLOAD if index in outer else Side.LAN,
        )
    return found
