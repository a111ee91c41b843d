"""Crypto devices beside the NICs: Intel QAT, found by PCI id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.hardware.facts import AcceleratorFacts, Answer, Fact

#: Vendor and device of QAT's physical functions and the driver of each, as the kernel's drivers
#: (drivers/crypto/intel/qat) and the PCI ID database list them.
QAT: Final = {
    "8086:0435": ("QAT DH895XCC", "dh895xcc"),
    "8086:37c8": ("QAT C62x", "c6xx"),
    "8086:19e2": ("QAT C3xxx", "c3xxx"),
    "8086:4940": ("QAT 4xxx", "4xxx"),
    "8086:4942": ("QAT 401xx", "4xxx"),
    "8086:4944": ("QAT 402xx", "4xxx"),
    "8086:4946": ("QAT 420xx", "420xx"),
    "8086:6f54": ("QAT D15xx", ""),
    "8086:18a0": ("QAT C4xxx", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PciReading:
    """One PCI device."""

    bus: str
    pci_id: str
    driver: str
    """The driver bound to it; empty if there is none."""


def find_accelerators(devices: Sequence[PciReading]) -> tuple[AcceleratorFacts, ...]:
    """Return the crypto devices that we know among all PCI devices."""
    return tuple(
        AcceleratorFacts(
            bus=device.bus,
            pci_id=device.pci_id,
            name=QAT[device.pci_id][0],
            driver=_driver(device, QAT[device.pci_id][1]),
        )
        for device in devices
        if device.pci_id in QAT
    )


def _driver(device: PciReading, wanted: str) -> Fact:
    link = f"/sys/bus/pci/devices/{device.bus}/driver"
    if device.driver:
        return Fact(name="driver", answer=Answer.YES, evidence=link, value=device.driver)
    which = f"; the kernel's is {wanted}" if wanted else "; the kernel has none for it"
    return Fact(name="driver", answer=Answer.NO, evidence=f"{link} does not exist{which}")
