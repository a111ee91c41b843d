"""The devices that espd has, and how packets come in and go out there."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import put_bytes
from gateway.datapath.engine.error_sources import Surroundings, error_source
from gateway.datapath.engine.espd import Espd
from gateway.datapath.engine.xdp_steering import Side, SteeredInterface
from gateway.host.network import LocalAddress
from gateway.host.routing_mirror import MirroredLink
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

TUNNEL: Final = 1
"""The tunnel device: what the kernel routes to it is protected, and what was opened goes to the kernel."""
KERNEL: Final = 2
"""The outside by way of the kernel, which routes what was sealed; IPsec packets come in from every link."""

FIRST_INTERFACE: Final = 3
"""Number of the first interface that espd has for itself."""

_RECEIVING: Final = (p.IoKind.XDP_ZERO_COPY, p.IoKind.XDP_COPY)
_SENDING: Final = {
    "auto": (p.IoKind.XDP_ZERO_COPY, p.IoKind.LIVE_FRAME, p.IoKind.XDP_COPY, p.IoKind.PACKET),
    "af_xdp": (p.IoKind.XDP_ZERO_COPY, p.IoKind.XDP_COPY),
    "live": (p.IoKind.LIVE_FRAME,),
    "af_packet": (p.IoKind.PACKET,),
}
"""By what an interface of espd's sends, the fastest first; docs/datapath-engine.md has the figures."""
SENDING: Final = tuple(_SENDING)
_FLAGS: Final = {
    Side.OUTER: p.DeviceFlag.PROTECTED,
    Side.INNER: p.DeviceFlag.CLEAR,
    Side.BOTH: p.DeviceFlag.PROTECTED | p.DeviceFlag.CLEAR,
}
_MAX_MTU: Final = 65535
"""The links behind these devices have smaller ones, which the kernel heeds."""
_WORDS: Final = {
    p.IoKind.XDP_ZERO_COPY: "AF_XDP zero-copy",
    p.IoKind.XDP_COPY: "AF_XDP copy",
    p.IoKind.LIVE_FRAME: "live frames",
    p.IoKind.PACKET: "AF_PACKET",
    p.IoKind.TUN: "TUN",
    p.IoKind.RAW: "raw sockets",
}


@dataclass(slots=True, kw_only=True)
class Opened:
    """One device as espd opened it."""

    name: str
    receives: p.IoKind | None
    sends: p.IoKind | None
    why: str
    """Why not by a better method; empty where there is nothing to say."""

    def __str__(self) -> str:
        ways = [("in", self.receives), ("out", self.sends)]
        said = " and ".join(f"{side} by {_WORDS[kind]}" for side, kind in ways if kind is not None)
        said = said or "not carried by espd"
        return f"{self.name} {said}" + (f" ({self.why})" if self.why else "")


class _Told(NamedTuple):
    """What espd was told of a device."""

    message: p.Device
    descriptors: Sequence[int]
    link: int
    """Its index; 0: it has none."""


class Devices:
    """The devices of one espd.

    Args:
        espd: Borrowed.
        sending: One of `SENDING`: by what espd sends where an interface is its own.
    """

    def __init__(self, espd: Espd, sending: str = "auto") -> None:
        self._espd = espd
        self._sending = _SENDING[sending]
        self._opened: dict[int, Opened] = {}
        self._told: dict[int, _Told] = {}
        self._addresses: Sequence[LocalAddress] = ()
        self._tunnels: set[int] = set()
        """Those of route-based tunnels."""

    def in_words(self) -> str:
        """Return how packets come in and go out, for an operator; all tunnels do it as the first device."""
        return "; ".join(self.lines())

    def lines(self) -> tuple[str, ...]:
        """Return the same, a device each."""
        return tuple(
            str(opened)
            for number, opened in self._opened.items()
            if number not in self._tunnels or opened.receives is None
        )

    async def open_all(self, tunnel_device: str) -> int:
        """Open the devices that are always there; return the index of the tunnel device's link.

        Raises:
            EngineError: espd refused.
        """
        self._opened.clear()
        self._told.clear()
        self._tunnels.clear()
        link = await self._open(
            "tunnel device",
            p.Device(
                device=TUNNEL,
                name=tunnel_device.encode(),
                flags=p.DeviceFlag.CLEAR | p.DeviceFlag.SLOW_PATH | p.DeviceFlag.OFFLOAD,
                mtu=_MAX_MTU,
                queues=1,
            ),
            [p.IoKind.TUN],
            [p.IoKind.TUN],
        )
        await self._open(
            "outside",
            p.Device(
                device=KERNEL,
                flags=p.DeviceFlag.PROTECTED | p.DeviceFlag.FALLBACK,
                mtu=_MAX_MTU,
                queues=1,
            ),
            [p.IoKind.RAW],
            [p.IoKind.RAW],
        )
        return link

    async def open_interface(
        self, number: int, link: MirroredLink, queues: int, steered: SteeredInterface
    ) -> None:
        """Open an interface for espd alone, by the fastest methods that work.

        Args:
            number: Of the device.
            link: The interface.
            queues: Its receive queues.
            steered: The program there, whose XSKMAP gets the sockets.

        Raises:
            EngineError: espd refused.
        """
        message = p.Device(
            device=number,
            ifindex=link.index,
            name=link.name.encode(),
            flags=_FLAGS[steered.side] | p.DeviceFlag.STEERING,
            mtu=link.mtu_bytes,
            queues=queues,
        )
        put_bytes(message.mac, link.mac)
        await self._open(link.name, message, _RECEIVING, self._sending, [steered.sockets_fd])
        if steered.reason:
            self._opened[number].why = "; ".join(filter(None, (steered.reason, self._opened[number].why)))

    async def open_tunnel(self, number: int, name: str, *, is_routed: bool) -> int:
        """Open the TUN device of a route-based tunnel, unless it is open; return the index of its link.

        Args:
            number: Of the device.
            name: Of its link.
            is_routed: Whether espd's routes may lead what its SAs bring elsewhere.

        Raises:
            EngineError: espd refused.
        """
        flags = p.DeviceFlag.CLEAR | p.DeviceFlag.OFFLOAD | p.DeviceFlag.TUNNEL
        if is_routed:
            flags |= p.DeviceFlag.ROUTED
        message = p.Device(device=number, name=name.encode(), flags=flags, mtu=_MAX_MTU, queues=1)
        self._tunnels.add(number)
        return await self._open(name, message, [p.IoKind.TUN], [p.IoKind.TUN])

    async def close(self, number: int) -> None:
        """Close a device; that it is not there is no error.

        Raises:
            EngineError: espd is gone.
        """
        self._opened.pop(number, None)
        self._told.pop(number, None)
        self._tunnels.discard(number)
        with suppress(p.EspdRefused):
            await self._espd.do(p.MessageType.DEVICE_REMOVE, p.DeviceName(device=number))

    def note_kernel(self, number: int, name: str, why: str) -> None:
        """Note that an interface is left to the kernel."""
        self._told.pop(number, None)
        self._opened[number] = Opened(name=name, receives=None, sends=None, why=why)

    async def _open(
        self,
        name: str,
        message: p.Device,
        receiving: Sequence[p.IoKind],
        sending: Sequence[p.IoKind],
        descriptors: Sequence[int] = (),
    ) -> int:
        number = message.device
        message.receive_methods[: len(receiving)] = receiving
        message.send_methods[: len(sending)] = sending
        self._put_sources(message, message.ifindex)
        said = await self._set(message, descriptors)
        self._told[number] = _Told(message, descriptors, int(said.ifindex))
        self._opened[number] = Opened(
            name=name,
            receives=_kind(said.receive_method),
            sends=_kind(said.send_method),
            why=p.words_of(said.reply),
        )
        return int(said.ifindex)

    async def _set(self, message: p.Device, descriptors: Sequence[int]) -> p.DeviceReply:
        """Ask for a device; the message stays as it is."""
        asked = p.Device.from_buffer_copy(message)
        return await self._espd.ask(p.MessageType.DEVICE_SET, asked, p.DeviceReply, descriptors=descriptors)

    # --- what changes while they are open -----------------------------------------------------------

    def use_addresses(self, addresses: Iterable[LocalAddress]) -> None:
        """Have what is opened from now on send ICMP errors from these addresses of this machine."""
        self._addresses = tuple(addresses)

    async def follow_network(
        self, addresses: Iterable[LocalAddress], links: Iterable[MirroredLink] = ()
    ) -> None:
        """Tell espd what has changed of its devices; they stay open, and no packet is lost.

        Args:
            addresses: All of this machine, from which ICMP errors are sent.
            links: With the MTU and the address that each has now; of others they stay as they were.

        Raises:
            EngineError: espd is gone.
        """
        self.use_addresses(addresses)
        known = {link.index: link for link in links}
        for number, told in tuple(self._told.items()):
            message = p.Device.from_buffer_copy(told.message)
            link = known.get(told.message.ifindex)
            if link is not None:
                message.mtu = link.mtu_bytes
                put_bytes(message.mac, link.mac)
            self._put_sources(message, told.link)
            if bytes(message) == bytes(told.message):
                continue
            self._told[number] = told._replace(message=message)
            try:
                await self._set(message, told.descriptors)
            except p.EspdRefused as refused:
                _log.warning("device_not_changed", device=self._opened[number].name, reason=str(refused))

    def forget(self) -> None:
        """Note that espd has no devices any more."""
        self._told.clear()

    def _put_sources(self, message: p.Device, link: int) -> None:
        """Say from which addresses ICMP errors at a device come: zero for none."""
        own = [told.message for told in self._told.values() if told.message.ifindex]
        around = Surroundings(
            addresses=self._addresses,
            inner=[device.ifindex for device in own if device.flags & p.DeviceFlag.CLEAR],
            outer=[device.ifindex for device in own if not device.flags & p.DeviceFlag.CLEAR],
        )
        for version, field in ((4, message.address4), (6, message.address6)):
            source = error_source(version, link, around)
            field[:] = bytes(len(field)) if source is None else source.packed

    def follow(self, event: p.MethodEvent) -> None:
        """Note that a device goes on with another method."""
        opened = self._opened.get(event.device)
        if opened is None:
            return
        new, why = _kind(event.new_method), event.reason.decode(errors="replace")
        if event.sends:
            opened.sends = new
        else:
            opened.receives = new
        opened.why = why
        _log.warning("method_changed", device=opened.name, now=str(opened))


def _kind(number: int) -> p.IoKind | None:
    return p.IoKind(number) if number else None
