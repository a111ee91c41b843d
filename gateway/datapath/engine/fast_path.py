"""The interfaces that espd has for itself: steered to it by XDP, with the routing of this machine mirrored.

On them packets for our SAs, or from the networks that are protected, come by AF_XDP, and what has a next hop
there is sent at once. Everything else
goes the way of the kernel, as all packets do without such interfaces: an interface that cannot be had, or a
route that the mirror cannot say, costs speed and nothing else. Protection does not depend on it.

The caller holds its lock in every call that is awaited.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import put_bytes
from gateway.datapath.engine.devices import FIRST_INTERFACE, Devices
from gateway.datapath.engine.espd import Espd
from gateway.datapath.engine.interfaces import Interfaces
from gateway.datapath.engine.xdp_steering import Side, SteeredInterface, XdpSteering
from gateway.hardware.nic_netlink import Channels, ask_channels
from gateway.host.bpf.abi import InboundSa, Spi
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.live import LiveFrames, load_live_frames
from gateway.host.errors import HostError
from gateway.host.network import IpAddress, IpNetwork, Network
from gateway.host.routing_mirror import (
    MirroredLink,
    MirroredRoute,
    RoutingSnapshot,
    Way,
    read_routing,
    use_neighbours,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_KINDS: Final = {Way.KERNEL: p.RouteKind.LOCAL, Way.UNREACHABLE: p.RouteKind.UNREACHABLE}


@dataclass(frozen=True, slots=True)
class _Hop:
    """What espd knows of a prefix."""

    kind: p.RouteKind
    device: int = 0
    gateway: IpAddress | None = None
    mtu_bytes: int = 0


class FastPath:
    """The interfaces of one espd. Without interfaces every call does nothing.

    Args:
        espd: Borrowed.
        devices: Where opened interfaces are noted; borrowed.
        network: Asked for the routing; borrowed.
        interfaces: The names of those on the outer side.
        inner_interfaces: Of those to the networks that are protected; one may be among both.
        folder: Where XDP programs outlive us, if we may mount a bpffs there; or `None`.
        own_protocol: rtm_protocol of the rules that lead to espd's tunnel device.
        ike_per_s: So many first IKE messages may come in a second from one /24 or /56; 0: any number.
        tunnels: Devices that routes may lead to too, and that stay; borrowed.
    """

    def __init__(
        self,
        espd: Espd,
        devices: Devices,
        network: Network,
        *,
        interfaces: Sequence[str],
        inner_interfaces: Sequence[str],
        folder: Path | None,
        own_protocol: int,
        ike_per_s: int,
        tunnels: Interfaces,
    ) -> None:
        self._espd = espd
        self._devices = devices
        self._network = network
        self._sides = {
            **dict.fromkeys(interfaces, Side.OUTER),
            **dict.fromkeys(inner_interfaces, Side.INNER),
            **dict.fromkeys({*interfaces} & {*inner_interfaces}, Side.BOTH),
        }
        self._ike_per_s = ike_per_s
        self._numbers = {name: number for number, name in enumerate(self._sides, start=FIRST_INTERFACE)}
        self._folder = folder
        self._own_protocol = own_protocol
        self._tunnels = tunnels
        self._steering: XdpSteering | None = None
        self._opened: dict[int, int] = {}
        """Links, by index, and what number they have as devices."""
        self._hops: dict[IpNetwork, _Hop] = {}
        self._neighbours: dict[tuple[int, IpAddress], bytes] = {}

    # --- life ---------------------------------------------------------------------------------------

    async def configure(self, message: p.Configure) -> None:
        """Send CONFIGURE, with the means to send live frames where there are interfaces to send them to.

        Raises:
            EngineError: espd refused.
        """
        live = await self._network.run(lambda _: self._load_live_frames(message))
        try:
            descriptors = [fd for made in live for fd in made.descriptors]
            await self._espd.ask(p.MessageType.CONFIGURE, message, p.Reply, descriptors=descriptors)
        finally:
            await self._network.run(lambda _: _close_all(live))

    def _load_live_frames(self, message: p.Configure) -> list[LiveFrames]:
        """Load a program for each worker, or none where one cannot be had."""
        loaded: list[LiveFrames] = []
        try:
            loaded.extend(
                load_live_frames(frames=message.frames, frame_bytes=message.frame_bytes)
                for _ in range(message.workers if self._numbers else 0)
            )
        except HostError as error:
            _close_all(loaded)
            _log.warning("no_live_frames", reason=str(error))
            return []
        return loaded

    async def open(self) -> None:
        """Steer the interfaces to espd, which has none of them open, or those of a former agent.

        Raises:
            EngineError: espd is gone.
            HostError: The kernel does not tell the routing.
        """
        self._opened.clear()
        if not self._numbers:
            return
        await self._network.run(lambda _: self._open_steering())
        for number in range(FIRST_INTERFACE + len(self._numbers), p.MAX_DEVICES + 1):
            if number not in self._tunnels.numbers:
                await self._devices.close(number)
        await self._open_missing(await self._read())

    def _open_steering(self) -> None:
        if self._steering is not None:
            return
        for folder in dict.fromkeys((self._folder, None)):
            steering = XdpSteering(folder, self._ike_per_s)
            try:
                steering.open()
            except HostError as error:
                steering.close()
                _log.warning("steering_not_open", folder=str(folder or ""), reason=str(error))
            else:
                steering.keep_only(self._numbers)
                self._steering = steering
                return

    async def _open_missing(self, routing: RoutingSnapshot) -> None:
        """Open the interfaces that are up and not ours yet; those that are down or gone are the kernel's."""
        if self._steering is None:
            return
        for index in self._opened.keys() - {link.index for link in routing.links}:
            del self._opened[index]
        for link in routing.links:
            number = self._numbers.get(link.name)
            if number is None or link.index in self._opened:
                continue
            try:
                attachment = _attachment(self._steering, link, self._sides[link.name])
                steered, queues = await self._network.run(attachment)
                await self._devices.open_interface(number, link, queues, steered)
            except (BpfError, p.EspdRefused) as error:
                self._steering.detach(link.name)
                self._devices.note_kernel(number, link.name, str(error))
                _log.warning("interface_left_to_the_kernel", interface=link.name, reason=str(error))
                continue
            self._opened[link.index] = number

    def close(self) -> None:
        """Let go; what is pinned goes on."""
        if self._steering is not None:
            self._steering.close()
            self._steering = None

    async def remove(self) -> None:
        """Detach every program, those of a former life too.

        Raises:
            BpfError: The kernel refused.
        """
        if self._numbers and self._steering is None:
            await self._network.run(lambda _: self._open_steering())
        if self._steering is not None:
            self._steering.remove()
            self._steering = None

    # --- SAs and SPD --------------------------------------------------------------------------------

    def set_sas(self, sas: Iterable[SecurityAssociation]) -> None:
        """Steer the packets of these inbound SAs, and of no others."""
        if self._steering is not None:
            self._steering.set_sas(dict(map(_steered, sas)))

    def follow_sa(self, sa: SecurityAssociation, *, is_there: bool) -> None:
        """Steer the packets of an inbound SA, or steer them no more.

        One that finds no room is the kernel's to bring.
        """
        if self._steering is None:
            return
        spi, value = _steered(sa)
        if not is_there:
            self._steering.remove_sa(spi)
            return
        try:
            self._steering.add_sa(spi, value)
        except BpfError as error:
            _log.warning("sa_not_steered", spi=f"{sa.spi:08x}", reason=str(error))

    def set_policies(self, policies: Iterable[Policy]) -> None:
        """Have XDP know the SPD: what comes in clear and should not, and what is to be protected.

        Where it cannot, XDP leaves it all to the stack, or goes on with the SPD of before: espd and the guard
        of the stack look at the packets in any case.
        """
        if self._steering is None:
            return
        try:
            reason = self._steering.set_policies(policies)
        except BpfError as error:
            reason = f"the SPD of before stays in XDP: {error}"
        if reason:
            _log.warning("spd_not_in_xdp", reason=reason)

    def drops(self) -> dict[DropReason, int]:
        """Return what the programs dropped, packets by reason."""
        ends = {} if self._steering is None else self._steering.counters()
        return {reason: end.packets for reason, end in ends.items() if isinstance(reason, DropReason)}

    # --- routing ------------------------------------------------------------------------------------

    def forget_routing(self) -> None:
        """Note that espd knows no routes and neighbours any more."""
        self._hops.clear()
        self._neighbours.clear()

    async def mirror(self) -> None:
        """Tell espd what has changed in the routing of this machine.

        Raises:
            EngineError: espd is gone, or has no room.
            HostError: The kernel does not tell the routing.
        """
        if not self._numbers or self._steering is None:
            return
        routing = await self._read()
        await self._open_missing(routing)
        self._steering.set_addresses(item.address for item in await self._network.addresses())
        ours = [item for item in routing.neighbours if item.link in self._opened]
        hops = {route.destination: self._hop(route) for route in routing.routes}
        neighbours = {(self._opened[item.link], item.address): item.mac for item in ours}
        if (hops, neighbours) != (self._hops, self._neighbours):
            await self._change_hops(hops)
            await self._change_neighbours(neighbours)
            await self._espd.do(p.MessageType.COMMIT, p.Plain())
        await self._network.run(lambda netlink: use_neighbours(netlink, ours))

    async def _read(self) -> RoutingSnapshot:
        return await self._network.run(
            lambda netlink: read_routing(
                netlink, own_protocols=[self._own_protocol], tunnels=self._tunnels.links
            )
        )

    def _hop(self, route: MirroredRoute) -> _Hop:
        device = self._opened.get(route.link, 0) or self._tunnels.links.get(route.link, 0)
        if route.way is not Way.FORWARD or not device:
            return _Hop(_KINDS.get(route.way, p.RouteKind.LOCAL))
        return _Hop(p.RouteKind.FORWARD, device, route.gateway, route.mtu_bytes)

    async def _change_hops(self, wanted: dict[IpNetwork, _Hop]) -> None:
        for prefix in self._hops.keys() - wanted.keys():
            await self._espd.do(p.MessageType.ROUTE_REMOVE, _route_message(prefix, self._hops[prefix]))
        for prefix, hop in wanted.items():
            if self._hops.get(prefix) != hop:
                await self._espd.do(p.MessageType.ROUTE_SET, _route_message(prefix, hop))
        self._hops = wanted

    async def _change_neighbours(self, wanted: dict[tuple[int, IpAddress], bytes]) -> None:
        for key in self._neighbours.keys() - wanted.keys():
            await self._espd.do(p.MessageType.NEIGHBOUR_REMOVE, _neighbour_message(*key, bytes(6)))
        for key, mac in wanted.items():
            if self._neighbours.get(key) != mac:
                await self._espd.do(p.MessageType.NEIGHBOUR_SET, _neighbour_message(*key, mac))
        self._neighbours = wanted


def _attachment(
    steering: XdpSteering, link: MirroredLink, side: Side
) -> Callable[[IPRoute], tuple[SteeredInterface, int]]:
    """Return what steers an interface, and counts its receive queues, in the thread of the network."""

    def attach(_: IPRoute) -> tuple[SteeredInterface, int]:
        channels = ask_channels(link.index)
        queues = max(1, channels.receive) if isinstance(channels, Channels) else 1
        return steering.attach(link.name, side), queues

    return attach


def _close_all(live: Iterable[LiveFrames]) -> None:
    for made in live:
        made.close()


def _steered(sa: SecurityAssociation) -> tuple[Spi, InboundSa]:
    return Spi(sa.spi), InboundSa(destination=sa.destination, protocol=sa.protocol.value)


def _route_message(prefix: IpNetwork, hop: _Hop) -> p.RouteMessage:
    message = p.RouteMessage(
        device=hop.device,
        mtu=hop.mtu_bytes,
        family=prefix.version,
        prefix_bits=prefix.prefixlen,
        kind=hop.kind,
    )
    put_bytes(message.destination, prefix.network_address.packed)
    if hop.gateway is not None:
        put_bytes(message.gateway, hop.gateway.packed)
    return message


def _neighbour_message(device: int, address: IpAddress, mac: bytes) -> p.NeighbourMessage:
    message = p.NeighbourMessage(device=device, family=address.version)
    put_bytes(message.address, address.packed)
    put_bytes(message.mac, mac)
    return message
