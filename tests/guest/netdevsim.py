"""Network devices of the kernel's netdevsim: a NIC with IPsec offload, in software.

The stock driver takes crypto offload of `rfc4106(gcm(aes))` only. With `full`, which needs the guest kernel,
the device has packet offload and ESN too and receives by its SAs: tests/guest/kernel/netdevsim.
"""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.bench.topology import Namespace

BUS: Final = Path("/sys/bus/netdevsim")
FULL_IPSEC: Final = Path("/sys/module/netdevsim/parameters/full_ipsec")
SA_TABLE_SIZE: Final = 33
"""NSIM_IPSEC_MAX_SA_COUNT."""
POLICY_TABLE_SIZE: Final = 64
"""NSIM_IPSEC_MAX_POLICY_COUNT, of the full device."""
_FULL_SA: Final = re.compile(r"spi=0x(\w+) dir=(\w+) type=(\w+) packets=(\d+) bytes=(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSa:
    """One line of a full device's SA table."""

    spi: int
    direction: str
    """`in` or `out`."""
    type: str
    """`crypto` or `packet`."""
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One netdevsim port."""

    number: int
    """Of the device on its bus."""
    name: str
    """Of the interface."""
    index: int
    """Of the interface, in the namespace it was made in."""

    def sa_count(self) -> int:
        """SAs in its table."""
        return self._count("SA count")

    def sent_by_sas(self) -> int:
        """Packets sent through its SAs."""
        return self._count("tx")

    def policy_count(self) -> int:
        """Policies in its table; of a full device."""
        return int(re.findall(r"^policies=(\d+)", self._debugfs("ipsec_full"))[0])

    def drops(self) -> int:
        """Frames it dropped for want of an SA, by a policy or a limit; of a full device."""
        return int(re.findall(r"drops=(\d+)", self._debugfs("ipsec_full"))[0])

    def sas(self) -> list[HardwareSa]:
        """Its SA table; of a full device."""
        return [
            HardwareSa(spi=int(spi, 16), direction=way, type=kind, packets=int(packets), bytes=int(size))
            for spi, way, kind, packets, size in _FULL_SA.findall(self._debugfs("ipsec_full"))
        ]

    def _count(self, what: str) -> int:
        return int(re.findall(rf"{what}=(\d+)", self._debugfs("ipsec"))[0])

    def _debugfs(self, file: str) -> str:
        return Path(f"/sys/kernel/debug/netdevsim/netdevsim{self.number}/ports/0/{file}").read_text()


@contextmanager
def device(*, number: int = 1, full: bool = False) -> Iterator[Device]:
    """Make a device in this thread's network namespace, up; it goes at the end if it is still there."""
    before = set(socket.if_nameindex())
    FULL_IPSEC.write_text("Y" if full else "N")
    try:
        (BUS / "new_device").write_text(f"{number} 1")
    finally:
        FULL_IPSEC.write_text("N")
    ((index, name),) = set(socket.if_nameindex()) - before
    made = Device(number=number, name=name, index=index)
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield made
    finally:
        if (BUS / f"devices/netdevsim{number}").exists():
            unplug(made)


def unplug(gone: Device) -> None:
    """Take a device out, as when its driver is unbound."""
    (BUS / "del_device").write_text(str(gone.number))


def connect(one: Device, its_namespace: Namespace, other: Device, other_namespace: Namespace) -> None:
    """Put a cable between two devices."""
    with ExitStack() as stack:
        ends = []
        for end, namespace in ((one, its_namespace), (other, other_namespace)):
            file = stack.enter_context(Path(f"/run/netns/{namespace.name}").open())
            ends.append(f"{file.fileno()}:{end.index}")
        (BUS / "link_device").write_text(" ".join(ends))


def take_down(device: Device) -> None:
    """Take the interface down."""
    subprocess.run(["ip", "link", "set", device.name, "down"], check=True)


def switch_esp(device: Device, *, on: bool) -> None:
    """Switch the interface's feature esp-hw-offload; of a full device."""
    state = "on" if on else "off"
    subprocess.run(
        ["ethtool", "-K", device.name, "esp-tx-csum-hw-offload", state, "esp-hw-offload", state], check=True
    )
