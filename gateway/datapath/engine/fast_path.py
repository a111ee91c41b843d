"""The interfaces that espd has for itself: steered to it by XDP, with the routing of this machine mirrored.

On them packets for our SAs, or from the networks that are protected, come by AF_XDP, and what has a next hop
there is sent at once. Everything else
goes the way of the kernel, as all packets do without such interfaces: an interface that cannot be had, or a
route that the mirror cannot say, costs speed and nothing else. Protection does not depend on it.

The caller holds its lock in every call that is awaited.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import put_bytes
from gateway.datapath.engine.devices import FIRST_INTERFACE, Devices
from gateway.datapath.engine.espd import Espd, batches
from gateway.datapath.engine.interfaces import Interfaces
from gateway.datapath.engine.xdp_steering import Side, SteeredInterface, XdpSteering
from gateway.hardware.nic_netlink import Channels, ask_channels
from gateway.hardware.readings import Refused
from gateway.host.bpf.abi import InboundSa, Spi
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.live import LiveFrames, load_live_frames
from gateway.host.errors import HostError
from gateway.host.network import IpAddress, LocalAddress, Network
from gateway.host.route_messages import Prefix
from gateway.host.routing_mirror import (
    MirroredLink,
    MirroredNeighbour,
    MirroredRoute,
    RoutingChange,
    RoutingMirror,
    Way,
    use_neighbours,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_SETTLE_S: Final = 0.05
"""Changes come in bursts: all within this time of the first are mirrored together."""
_KINDS: Final = {Way.KERNEL: p.RouteKind.LOCAL, Way.UNREACHABLE: p.RouteKind.UNREACHABLE}


@dataclass(frozen=True, slots=True)
class _Hop:
    """What espd knows of a prefix."""

    kind: p.RouteKind
    device: int = 0
    gateway: bytes = b""
    mtu_bytes: int = 0


class FastPath:
    """The interfaces of one espd. Without them there is nothing to do but to follow our addresses (`mirror`).

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
        self._tunnels = tunnels
        self._steering: XdpSteering | None = None
        self._opened: dict[int, int] = {}
        """Links, by index, and what number they have as devices."""
        self._mirror = RoutingMirror([own_protocol])
        self._hops: dict[Prefix, _Hop] = {}
        self._ways: dict[int, int] = {}
        """Devices of links, as `_hops` has them."""
        self._neighbours: dict[tuple[int, IpAddress], bytes] = {}
        self._is_sure = False
        """Whether espd has what we think."""
        self._follow: Callable[[], object] | None = None
        self._descriptor: int | None = None
        """Of the mirror, while it is waited for."""
        self._settling: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------------

    async def configure(self, message: p.Configure) -> None:
        """Send CONFIGURE, with the means to send live frames where there are interfaces to send them to.

        Raises:
            EngineError: espd refused.
            HostError: The kernel does not tell its addresses.
        """
        self._devices.use_addresses(await self._network.addresses())
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
        change = await self._network.run(self._mirror.follow)
        self._is_sure = False
        await self._open_missing(change.links)

    def _open_steering(self) -> None:
        if self._steering is not None:
            return
        for folder in dict.fromkeys((self._folder, None)):
            steering: XdpSteering | None = None
            try:
                steering = XdpSteering(folder, self._ike_per_s)
                steering.open()
            except HostError as error:
                if steering is not None:
                    steering.close()
                _log.warning("steering_not_open", folder=str(folder or ""), reason=str(error))
            else:
                steering.keep_only(self._numbers)
                self._steering = steering
                return

    async def _open_missing(self, links: Collection[MirroredLink]) -> None:
        """Open the interfaces that are up and not ours yet; those that are down or gone are the kernel's."""
        if self._steering is None:
            return
        for index in self._opened.keys() - {link.index for link in links}:
            del self._opened[index]
        for link in links:
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
        if self._settling is not None:
            self._settling.cancel()
        self._listen_no_more()
        self._mirror.close()

    async def remove(self) -> None:
        """Detach every program, those of a former life too; espd has ended."""
        self._devices.forget()
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
        self._is_sure = False

    async def mirror(self) -> None:
        """Tell espd what has changed in the routing of this machine, and of its addresses and links.

        Raises:
            EngineError: espd is gone, or has no room.
            HostError: The kernel does not tell the routing.
        """
        addresses = await self._network.addresses()
        links = await self._mirror_routing(addresses)
        await self._devices.follow_network(addresses, links)

    async def _mirror_routing(self, addresses: Iterable[LocalAddress]) -> Collection[MirroredLink]:
        """Tell espd and the programs what has changed; return the links there are, if espd has interfaces."""
        if not self._numbers or self._steering is None:
            return ()
        is_sure, self._is_sure = self._is_sure, False
        try:
            change = await self._network.run(self._mirror.follow)
        finally:
            self._listen()
        await self._open_missing(change.links)
        self._steering.set_addresses(item.address for item in addresses)
        ours = [item for item in change.neighbours if item.link in self._opened]
        is_new = await self._change_routes(change, is_sure=is_sure)
        if await self._change_neighbours(ours) or is_new:
            await self._espd.do(p.MessageType.COMMIT, p.Plain())
        self._is_sure = True
        return change.links

    async def look_after(self) -> None:
        """Mirror, and have the kernel look after the neighbours that we send to: to be called now and then.

        Raises:
            EngineError: espd is gone, or has no room.
            HostError: The kernel does not tell the routing.
        """
        await self.mirror()
        ours = [
            item
            for item in self._mirror.neighbours
            if (self._opened.get(item.link), item.address) in self._neighbours
        ]
        await self._network.run(lambda netlink: use_neighbours(netlink, ours))

    def watch(self, follow: Callable[[], object]) -> None:
        """Have `follow` called in the event loop when there is something to mirror, until `close`."""
        self._follow = follow
        self._listen()

    def _listen(self) -> None:
        """Await the next change; those that are not mirrored yet count as one."""
        if self._follow is not None and self._numbers and self._descriptor is None:
            self._descriptor = self._mirror.open()
            asyncio.get_running_loop().add_reader(self._descriptor, self._on_change)

    def _on_change(self) -> None:
        self._listen_no_more()
        assert self._follow is not None
        self._settling = asyncio.get_running_loop().call_later(_SETTLE_S, self._follow)

    def _listen_no_more(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor = None

    def _hop(self, route: MirroredRoute | None) -> _Hop | None:
        if route is None:
            return None
        device = self._ways.get(route.link, 0)
        if route.way is not Way.FORWARD or not device:
            return _Hop(_KINDS.get(route.way, p.RouteKind.LOCAL))
        return _Hop(p.RouteKind.FORWARD, device, route.gateway, route.mtu_bytes)

    async def _change_routes(self, change: RoutingChange, *, is_sure: bool) -> bool:
        """Tell espd routes that are new, others or gone; return whether there are any.

        Args:
            change: Of the routing.
            is_sure: Whether espd has in force what we think, and nothing else was told it since.
        """
        ways = {**self._tunnels.links, **self._opened}
        prefixes: Collection[Prefix] = change.prefixes
        if not is_sure or change.is_whole or ways != self._ways:
            prefixes = {*self._mirror.prefixes, *self._hops}
        self._ways = ways
        gone: list[Prefix] = []
        told: list[tuple[Prefix, _Hop]] = []
        for prefix in prefixes:
            hop = self._hop(self._mirror.route(prefix))
            if hop is None and prefix in self._hops:
                gone.append(prefix)
            elif hop is not None and self._hops.get(prefix) != hop:
                told.append((prefix, hop))
        # espd keeps them in this order: what comes in it needs no place made for it.
        told.sort(key=_place)
        await self._tell(
            p.MessageType.ROUTE_REMOVE, (_route_message(prefix, self._hops[prefix]) for prefix in gone)
        )
        await self._tell(p.MessageType.ROUTE_SET, (_route_message(prefix, hop) for prefix, hop in told))
        for prefix in gone:
            del self._hops[prefix]
        self._hops.update(told)
        return bool(gone or told) or not is_sure

    async def _tell(self, kind: p.MessageType, messages: Iterable[p.RequestMessage]) -> None:
        """Make many requests, some at once; that what goes is gone already is no error."""
        for batch in batches(messages):
            await asyncio.gather(*(self._tell_one(kind, message) for message in batch))

    async def _tell_one(self, kind: p.MessageType, message: p.RequestMessage) -> None:
        try:
            await self._espd.do(kind, message)
        except p.EspdRefused as refused:
            if refused.code is not p.ControlError.NO_ENTRY:
                raise

    async def _change_neighbours(self, ours: Iterable[MirroredNeighbour]) -> bool:
        """Tell espd neighbours that are new, others or gone; return whether there are any."""
        wanted = {(self._opened[item.link], item.address): item.mac for item in ours}
        gone = self._neighbours.keys() - wanted.keys()
        told = {key: mac for key, mac in wanted.items() if self._neighbours.get(key) != mac}
        await self._tell(p.MessageType.NEIGHBOUR_REMOVE, (_neighbour_message(*key, bytes(6)) for key in gone))
        await self._tell(
            p.MessageType.NEIGHBOUR_SET, (_neighbour_message(*key, mac) for key, mac in told.items())
        )
        self._neighbours = wanted
        return bool(gone or told)


def _place(item: tuple[Prefix, _Hop]) -> Prefix:
    return item[0]


def _attachment(
    steering: XdpSteering, link: MirroredLink, side: Side
) -> Callable[[IPRoute], tuple[SteeredInterface, int]]:
    """Return what steers an interface, and counts its receive queues, in the thread of the network."""

    def attach(_: IPRoute) -> tuple[SteeredInterface, int]:
        queues = receive_queues(link.name, ask_channels(link.index))
        return steering.attach(link.name, side), queues

    return attach


def receive_queues(interface: str, channels: Channels | Refused) -> int:
    """Return how many receive queues an interface has; those of a driver that does not say are one.

    Raises:
        BpfError: More than espd has workers for: packets of the others would reach none.
    """
    queues = max(1, channels.receive) if isinstance(channels, Channels) else 1
    if queues > p.MAX_WORKERS:
        raise BpfError(
            f"{interface} has {queues} receive queues, and the engine serves {p.MAX_WORKERS}: have fewer, "
            f"by `ethtool -L {interface} combined {p.MAX_WORKERS}`"
        )
    return queues


def _close_all(live: Iterable[LiveFrames]) -> None:
    for made in live:
        made.close()


def _steered(sa: SecurityAssociation) -> tuple[Spi, InboundSa]:
    return Spi(sa.spi), InboundSa(destination=sa.destination, protocol=sa.protocol.value)


def _route_message(prefix: Prefix, hop: _Hop) -> p.RouteMessage:
    message = p.RouteMessage(
        device=hop.device,
        mtu=hop.mtu_bytes,
        family=prefix.version,
        prefix_bits=prefix.bits,
        kind=hop.kind,
    )
    put_bytes(message.destination, prefix.address)
    put_bytes(message.gateway, hop.gateway)
    return message


def _neighbour_message(device: int, address: IpAddress, mac: bytes) -> p.NeighbourMessage:
    message = p.NeighbourMessage(device=device, family=address.version)
    put_bytes(message.address, address.packed)
    put_bytes(message.mac, mac)
    return message
