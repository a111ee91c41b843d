"""Where a kernel runs, by what it says of its CPUs and of who made the machine."""

import pytest

from gateway.hardware.readings import Reading
from gateway.hardware.setting import judge_setting

NO_DMI = Reading(source="/sys/class/dmi/id/sys_vendor", error="no such file or directory")
UML = "processor\t: 0\nvendor_id\t: User Mode Linux\nmodel name\t: UML\nflags\t\t: fpu hypervisor\n"
TCG = "vendor_id\t: AuthenticAMD\nmodel name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu hypervisor\n"
VIRTUAL = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu hypervisor\n"
REAL = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6438N\nflags\t\t: fpu aes\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd aes\nCPU part\t: 0xd0c\n"


def cpuinfo(text: str) -> Reading:
    return Reading(source="/proc/cpuinfo", text=text)


def vendor(text: str) -> Reading:
    return Reading(source="/sys/class/dmi/id/sys_vendor", text=text)


@pytest.mark.parametrize(
    ("text", "dmi", "name"),
    [
        (REAL, vendor("Dell Inc.\n"), "machine"),
        (ARM, NO_DMI, "machine"),
        (VIRTUAL, vendor("QEMU\n"), "virtual machine (QEMU)"),
        (VIRTUAL, NO_DMI, "virtual machine (hypervisor unknown)"),
    ],
    ids=["real", "real without flags", "virtual", "virtual without DMI"],
)
def test_speeds_of_real_and_virtual_machines_are_speeds(text: str, dmi: Reading, name: str) -> None:
    setting = judge_setting(cpuinfo(text), dmi)

    assert (setting.name, setting.why_no_speed) == (name, "")


@pytest.mark.parametrize(
    ("text", "name", "word"),
    [(UML, "User Mode Linux", "process"), (TCG, "QEMU without KVM", "emulated")],
    ids=["User Mode Linux", "QEMU"],
)
def test_nothing_is_a_speed_where_the_cpu_is_emulated(text: str, name: str, word: str) -> None:
    setting = judge_setting(cpuinfo(text), NO_DMI)

    assert setting.name == name
    assert word in setting.why_no_speed


def test_without_cpuinfo_nothing_is_known_of_an_emulator() -> None:
    unread = Reading(source="/proc/cpuinfo", error="permission denied")

    assert judge_setting(unread, NO_DMI).name == "machine"
