"""The devices that espd has, and how packets come in and go out there."""

from dataclasses import dataclass
from typing import Final

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.espd import Espd
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

TUNNEL: Final = 1
"""The tunnel device: what the kernel routes to it is protected, and what was opened goes to the kernel."""
KERNEL: Final = 2
"""The outside by way of the kernel, which routes what was sealed; IPsec packets come in from every link."""

_MAX_MTU: Final = 65535
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
        return f"{self.name} {said}" + (f" ({self.why})" if self.why else "")


class Devices:
    """The devices of one espd.

    Args:
        espd: Borrowed.
    """

    def __init__(self, espd: Espd) -> None:
        self._espd = espd
        self._opened: dict[int, Opened] = {}

    def in_words(self) -> str:
        """Return how packets come in and go out, for an operator."""
        return "; ".join(str(opened) for opened in self._opened.values())

    async def open_all(self, tunnel_device: str, mtu_bytes: int) -> int:
        """Open the devices that are always there; return the index of the tunnel device's link.

        Raises:
            EngineError: espd refused.
        """
        self._opened.clear()
        link = await self._open(
            "tunnel device",
            p.Device(
                device=TUNNEL,
                name=tunnel_device.encode(),
                flags=p.DeviceFlag.CLEAR | p.DeviceFlag.SLOW_PATH | p.DeviceFlag.OFFLOAD,
                mtu=mtu_bytes,
                queues=1,
            ),
            p.IoKind.TUN,
        )
        await self._open(
            "outside",
            p.Device(
                device=KERNEL,
                flags=p.DeviceFlag.PROTECTED | p.DeviceFlag.FALLBACK,
                mtu=_MAX_MTU,
                queues=1,
            ),
            p.IoKind.RAW,
        )
        return link

    async def _open(self, name: str, message: p.Device, method: p.IoKind) -> int:
        number = message.device
        message.receive_methods[0] = message.send_methods[0] = method
        said = await self._espd.ask(p.MessageType.DEVICE_SET, message, p.DeviceReply)
        self._opened[number] = Opened(
            name=name,
            receives=_kind(said.receive_method),
            sends=_kind(said.send_method),
            why=p.words_of(said.reply),
        )
        return int(said.ifindex)

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
