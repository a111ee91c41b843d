"""The TUN devices of route-based tunnels: one for each interface, whose id tells its packets from others'.

They are persistent. While no agent reads them the kernel drops what is routed there, as we do without an SA.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from gateway.datapath.software.tun import Tun
from gateway.datapath.tunnels import TunnelKind, Tunnels
from gateway.host.links import TUN
from gateway.host.network import Network
from gateway.ipsec.interface import TunnelInterface
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_BATCH_PACKETS: Final = 32


class Interfaces:
    """The devices of one backend.

    Args:
        network: Borrowed.
        tag: Of the agent.
        carry: Is given each packet that was routed into a device, and the id of its interface.
    """

    def __init__(self, network: Network, tag: str, carry: Callable[[bytes, int], None]) -> None:
        kind = TunnelKind(kind=TUN, make=self._open, leave=self._destroy, let_go=self._let_go)
        self.tunnels = Tunnels(network, kind, tag)
        self._carry = carry
        self._devices: dict[str, Tun] = {}
        self._by_id: dict[int, Tun] = {}

    async def _open(self, interface: TunnelInterface) -> None:
        known = self._devices.get(interface.name)
        if known is not None and self._by_id.get(interface.id) is known:
            return
        self._close(interface.name)  # it had another id
        tun = Tun(interface.name, is_persistent=True)
        self._devices[interface.name] = self._by_id[interface.id] = tun
        asyncio.get_running_loop().add_reader(tun.descriptor, self._on_packets, tun, interface.id)

    def _on_packets(self, tun: Tun, number: int) -> None:
        for _ in range(_BATCH_PACKETS):
            try:
                packet = tun.read()
            except OSError as error:
                _log.warning("tunnel_device_lost", device=tun.name, reason=str(error))
                self._close(tun.name)
                return
            if packet is None:
                return
            self._carry(packet, number)

    def deliver(self, packet: bytes, number: int) -> bool:
        """Hand a packet to the kernel as if it had come in over an interface; return whether it took it."""
        tun = self._by_id.get(number)
        return tun is not None and tun.write(packet)

    async def _destroy(self, name: str) -> None:
        tun = self._devices.get(name)
        if tun is not None:
            with contextlib.suppress(OSError):
                tun.end_persistence()
            self._close(name)

    async def _let_go(self, name: str) -> None:
        self._close(name)

    def _close(self, name: str) -> None:
        """Stop reading a device, which stays."""
        tun = self._devices.pop(name, None)
        if tun is None:
            return
        self._by_id = {number: other for number, other in self._by_id.items() if other is not tun}
        asyncio.get_running_loop().remove_reader(tun.descriptor)
        tun.close()

    def close(self) -> None:
        """Stop reading every device; they stay, and drop what is routed there."""
        for name in tuple(self._devices):
            self._close(name)
