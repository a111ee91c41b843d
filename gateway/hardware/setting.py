"""What kind of machine this is, as far as speeds are concerned: real, virtual, or one that emulates a CPU.

In an emulated machine a packet costs what the emulator costs, so that no figure is a speed. In a virtual one
figures are those of this virtual machine, which shares its host. No state, and nothing is changed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.hardware.readings import Reading, read_text

_UML_VENDOR: Final = "User Mode Linux"
#: What QEMU calls its CPU where no hypervisor of the host runs it: qemu64 and max, under TCG.
_EMULATED_MODELS: Final = ("QEMU Virtual CPU", "QEMU TCG CPU")
#: The hypervisor's own name, by what DMI says of who made the machine.
_VENDORS: Final = {
    "QEMU": "QEMU",
    "VMware": "VMware",
    "Microsoft": "Hyper-V",
    "Amazon EC2": "Amazon EC2",
    "Google": "Google Compute Engine",
    "innotek": "VirtualBox",
    "Xen": "Xen",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where this kernel runs."""

    name: str
    """`machine`, `virtual machine (QEMU)`, `User Mode Linux`: for people."""
    why_no_speed: str = ""
    """Why no figure measured here is a speed; empty where it is one."""


def find_setting() -> Setting:
    """Look at this machine; needs no privilege."""
    return judge_setting(read_text(Path("/proc/cpuinfo")), read_text(Path("/sys/class/dmi/id/sys_vendor")))


def judge_setting(cpuinfo: Reading, vendor: Reading) -> Setting:
    """Return where the kernel runs that says this of its CPUs and its maker."""
    fields: dict[str, str] = {}
    for line in (cpuinfo.text or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if fields.get("vendor_id") == _UML_VENDOR:
        return Setting(
            name=_UML_VENDOR,
            why_no_speed="User Mode Linux: the kernel is a process and one CPU is shared by all",
        )
    model = fields.get("model name", "")
    if model.startswith(_EMULATED_MODELS):
        return Setting(name="QEMU without KVM", why_no_speed=f"the CPU is emulated ({model})")
    maker = next((name for begin, name in _VENDORS.items() if (vendor.text or "").startswith(begin)), "")
    if "hypervisor" in fields.get("flags", "").split():
        return Setting(name=f"virtual machine ({maker or 'hypervisor unknown'})")
    return Setting(name="machine")
