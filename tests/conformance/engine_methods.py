"""The native engine with an interface of its own, and proof of the I/O method that carries its packets."""

import subprocess
from typing import Final

from gateway.datapath.backend import Datapath
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.backend import EngineBackend
from gateway.datapath.engine.devices import FIRST_INTERFACE, KERNEL

#: By the name of a datapath: what `--engine-io` says, by what espd then sends, and the words for that.
METHODS: Final = {
    "engine_live": ("live", p.IoKind.LIVE_FRAME, "live frames"),
    "engine_af_xdp": ("af_xdp", p.IoKind.XDP_COPY, "AF_XDP copy"),
    "engine_af_packet": ("af_packet", p.IoKind.PACKET, "AF_PACKET"),
}


class WatchedEngine(EngineBackend):
    """The backend, which also tells what a device of its espd carried, and by what."""

    async def device(self, number: int) -> p.DeviceCounters:
        """Return what espd counts for a device.

        Raises:
            EngineError: espd is gone, or has no such device.
        """
        return await self._espd.ask(p.MessageType.DEVICE_READ, p.DeviceName(device=number), p.DeviceCounters)

    def devices_in_words(self) -> str:
        """Return what each SA says of its placement, also while there is none."""
        return self._devices.in_words()

    @property
    def has_interface(self) -> bool:
        return bool(self._options.interfaces)

    @property
    def is_closed(self) -> bool:
        return self._is_closed


def take_redirected_frames(device: str) -> None:
    """Have a veth device take frames of XDP from its other end: it does so only while it polls."""
    subprocess.run(["ethtool", "-K", device, "gro", "on"], check=True, capture_output=True)


async def check_sent(engine: WatchedEngine, name: str) -> None:
    """Check that espd had its interface by one of `METHODS`, and that what it sealed left by no other way.

    Raises:
        AssertionError: It was by another one, or the kernel sent for it.
    """
    _, sends, words = METHODS[name]
    wanted = f"outside in by AF_XDP copy and out by {words}"
    said = engine.devices_in_words()
    assert wanted in said, f"not {wanted!r} but {said!r}"
    own, by_kernel = await engine.device(FIRST_INTERFACE), await engine.device(KERNEL)
    methods = own.receive_method, own.send_method
    assert methods == (p.IoKind.XDP_COPY, sends), f"espd counts for {methods}"
    assert by_kernel.sent_packets == 0, f"{by_kernel.sent_packets} left by the kernel, not by {words}"


async def check_received(datapath: Datapath, packets: int) -> None:
    """Check that so many packets came to an engine by an interface of its own, if it has one."""
    if isinstance(datapath, WatchedEngine) and datapath.has_interface:
        received = (await datapath.device(FIRST_INTERFACE)).received_packets
        assert received >= packets, f"{received} came by the interface, and {packets} were sent there"
