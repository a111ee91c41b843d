"""A gateway that forwards in XDP beside packet offload: real XDP on veth, a NIC that only a fake can be.

    host0 --- lan0 (10.1.0.1)  gateway  outside (192.0.2.1) --- beyond

The kernel behind the netlink socket is a fake that has an offloading NIC. Its SAs are in the SAD of the real
kernel too, where the XDP program looks for them. Nothing encrypts: what is on the wire at `beyond` is what
the NIC would have been given, and what is sent from there is what it would have decrypted, or have let in in
clear. The real kernel's SPD is empty; nftables drops what its stack would forward, so what is left to it goes
nowhere.

Run as a program this is the gateway's agent, for tests that stop or kill it.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from gateway.datapath.xfrm import netlink
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.numbers import MessageType, PolicyDirection
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.datapath.xfrm.xdp_forwarder import XdpForwarder
from gateway.hardware.profiles import find_profile
from gateway.host.bpf.abi import INBOUND_SAS, OFFLOADED_SAS, Exit
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine, Placement
from tests.conformance.larval_sas import KernelSad, kernel_sad
from tests.conformance.namespace import fresh_network_namespace, neighbour
from tests.conformance.sas import inbound, outbound, policy
from tests.fakes.machines import PROFILES
from tests.fakes.xfrm_kernel import FakeKernel, FakeNic

NIC, LAN, HOST, WIRE = "outside", "lan0", "host0", "beyond"
HOST_MAC = "02:00:00:00:00:99"
"""Not that of `host0`, whose own stack would forward what it gets."""
NIC_PACKET = Placement(require=Engine.NIC_PACKET)
CLOSED = "table ip rig { chain through { type filter hook forward priority 0; policy drop; }; }"
_PATIENCE_S = 60.0
WINDOW = 256
"""One that mlx5 takes."""


@dataclass(kw_only=True)
class MirroredKernel(FakeKernel):
    """A fake kernel whose SAs are in the real one's SAD too, those that a NIC has."""

    sad: KernelSad
    at_loss: list[tuple[MessageType, int]] = field(default_factory=list)
    """What was asked that takes something from the NIC, and how many SAs XDP still had then, both ways."""
    forwarder: XdpForwarder | None = None
    shows_policies: bool = True
    """Whether policies are read back as the device's."""

    def _note_loss(self, kind: MessageType) -> None:
        if self.forwarder is not None:
            still = len(xdp_sas(self.forwarder)) + len(xdp_inbound_sas(self.forwarder))
            self.at_loss.append((kind, still))

    def _new_sa(self, info: r.SaInfo, attributes: r.Attributes) -> tuple[list[Any], str]:
        done = super()._new_sa(info, attributes)
        if attributes.offload is not None:
            self.sad.add(info.id.destination, info.id.spi)
        return done

    def _delete_sa(self, name: r.SaId, attributes: r.Attributes) -> tuple[list[Any], str]:
        self._note_loss(MessageType.DELSA)
        return super()._delete_sa(name, attributes)

    def _update_policy(self, info: r.PolicyInfo, attributes: r.Attributes) -> tuple[list[Any], str]:
        if (info.direction, info.selector) in self._at_device():
            self._note_loss(MessageType.UPDPOLICY)
        return super()._update_policy(info, attributes)

    def _delete_policy(self, policy: r.PolicyId, attributes: r.Attributes) -> tuple[list[Any], str]:
        if (policy.direction, policy.selector) in self._at_device():
            self._note_loss(MessageType.DELPOLICY)
        return super()._delete_policy(policy, attributes)

    def _at_device(self) -> set[tuple[PolicyDirection, r.Selector]]:
        """Return the names of the policies that a device has."""
        return {name for name, (_, found) in self.policies.items() if found.offload is not None}

    def _forget(self, name: r.SaId) -> None:
        offload = self.sas[name].attributes.offload
        super()._forget(name)
        if offload is not None:
            self.sad.remove(name.destination, name.spi)

    def _get_policy(self, policy: r.PolicyId, attributes: r.Attributes) -> tuple[list[Any], str]:
        ((kind, info, found),), said = super()._get_policy(policy, attributes)
        return [(kind, info, found if self.shows_policies else r.Attributes(templates=found.templates))], said


def xdp_sas(forwarder: XdpForwarder) -> list[int]:
    """Return the SPIs that XDP would forward to."""
    return [sa.spi for _, sa in OFFLOADED_SAS.of(forwarder._loaded.maps).items()]


def xdp_inbound_sas(forwarder: XdpForwarder) -> list[int]:
    """Return the SPIs of the SAs that XDP would forward by to the LAN."""
    return [sa.spi for _, sa in INBOUND_SAS.of(forwarder._loaded.maps).items()]


@dataclass(kw_only=True)
class Rig:
    """The gateway and the wires."""

    backend: XfrmBackend
    kernel: MirroredKernel
    host: socket.socket
    wire: socket.socket

    @property
    def forwarder(self) -> XdpForwarder:
        """Return the program."""
        assert self.backend._forwarding._forwarder is not None
        return self.backend._forwarding._forwarder

    async def words(self, spi: int = 0x2001) -> str:
        """Return what is said of an SA."""
        return next(item.placement_reason for item in await self.backend.list_sas() if item.sa.spi == spi)

    async def until(self, said: str, spi: int = 0x2001) -> None:
        """Return when this is said of an SA."""
        async with asyncio.timeout(_PATIENCE_S):
            while said not in await self.words(spi):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)

    async def until_changes_are_seen(self) -> None:
        """Return when XDP has been told of everything that was installed or removed until now."""
        async with asyncio.timeout(_PATIENCE_S):
            followed = self.backend._forwarding
            while followed._changed.is_set() or followed._is_held:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
            async with self.backend._lock:
                pass

    def counted(self) -> dict[Exit | DropReason, int]:
        """Return how often the program ended in which way."""
        return {reason: count.packets for reason, count in self.forwarder.counters().items()}


def frame_of(marker: int, *, more_bytes: int = 0, **fields: object) -> bytes:
    """Return a frame of the host on the LAN, through the gateway, to the peer's network."""
    to_us = Ether(dst=neighbour(LAN).hex(":"), src=HOST_MAC)
    ip = IP(src="10.1.0.9", dst="10.2.0.9", ttl=64, **fields)
    packet: Packet = (
        to_us / ip / UDP(sport=4000, dport=5000) / Raw(bytes(more_bytes) + b"clear %08d" % marker)
    )
    return bytes(packet)


def frame_from_peer(marker: int, *, source: str = "10.2.0.9", **fields: object) -> bytes:
    """Return a frame that the NIC has decrypted, or let in in clear, for the host on the LAN."""
    to_us = Ether(dst=neighbour(NIC).hex(":"), src=neighbour(WIRE).hex(":"))
    ip = IP(src=source, dst="10.1.0.9", ttl=60, **fields)
    return bytes(to_us / ip / UDP(sport=5000, dport=4000) / Raw(b"clear %08d" % marker))


def seen(wire: socket.socket, least: int = 0) -> list[bytes]:
    """Return the frames of the protected networks that came out of the gateway since the last time.

    After the first `least` of them, which must come, silence is taken for the end.
    """
    found: list[bytes] = []
    while True:
        wire.settimeout(0.3 if len(found) >= least else _PATIENCE_S)
        try:
            frame = wire.recv(4096)
        except TimeoutError:
            return found
        if b"clear " in frame:
            found.append(frame)


@contextmanager
def wires() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Enter a namespace with LAN and NIC; yield the other ends of both."""
    with fresh_network_namespace("192.0.2.1/24"):
        for arguments in (
            ("link", "add", LAN, "type", "veth", "peer", "name", HOST),
            *(("link", "set", device, "up") for device in (LAN, HOST)),
            ("address", "add", "10.1.0.1/16", "dev", LAN),
        ):
            subprocess.run(["ip", *arguments], check=True)
        # A veth device takes frames of XDP only where its other end polls.
        for device in (WIRE, HOST):
            subprocess.run(["ethtool", "-K", device, "gro", "on"], check=True, capture_output=True)
        be_router(is_one=True)
        subprocess.run(["nft", CLOSED], check=True)
        with packets(HOST) as host, packets(WIRE) as wire:
            yield host, wire


def be_router(*, is_one: bool) -> None:
    """Have the kernel of this thread's namespace forward IPv4, or not."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text(str(int(is_one)))


def packets(device: str) -> socket.socket:
    """Return a socket of a device's whole frames."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    opened.bind((device, 0))
    return opened


@contextmanager
def mirrored_kernel() -> Iterator[MirroredKernel]:
    """Yield a kernel that stands behind every netlink socket for XFRM from here on."""
    with kernel_sad() as sad:
        index = socket.if_nametoindex(NIC)
        card = FakeNic(name=NIC, index=index, profile=find_profile(PROFILES, "mlx5_core"))
        kernel = MirroredKernel(nics={index: card}, sad=sad)
        before, netlink._opening = netlink._opening, kernel.opening  # type: ignore[assignment]
        try:
            yield kernel
        finally:
            netlink._opening = before


async def opened(interfaces: tuple[str, ...] = (LAN,), trusted: tuple[str, ...] = ()) -> XfrmBackend:
    """Return a backend that forwards from these interfaces, and from these NICs to them, started."""
    backend = XfrmBackend(XfrmOptions(forward_interfaces=interfaces, forward_inbound=trusted))
    await backend.start()
    return backend


async def install(backend: XfrmBackend, **changes: Any) -> None:
    """Install the policy and both SAs of a Child on the NIC."""
    await backend.apply_policies([policy()])
    sas = [
        inbound(placement=NIC_PACKET, replay_window_packets=WINDOW, **changes),
        outbound(placement=NIC_PACKET, **changes),
    ]
    for result in await backend.install_sas(sas):
        assert result.ok, result.error


@asynccontextmanager
async def rig(interfaces: tuple[str, ...] = (LAN,), trusted: tuple[str, ...] = ()) -> AsyncIterator[Rig]:
    """Yield a gateway that has nothing yet."""
    with wires() as (host, wire), mirrored_kernel() as kernel:
        backend = await opened(interfaces, trusted)
        try:
            yield Rig(backend=backend, kernel=kernel, host=host, wire=wire)
        finally:
            await backend.close()


async def _serve() -> None:
    with mirrored_kernel():
        backend = await opened()
        await install(backend)
        while "XDP forwards" not in (await backend.list_sas())[1].placement_reason:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
