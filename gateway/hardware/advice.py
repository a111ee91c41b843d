"""What the facts mean for an operator: sentences, each with what to do about it. Pure.

Only about this machine as it is: nothing here promises what the gateway will do with it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.hardware.facts import Answer, CryptoFacts, Fact, MachineFacts, NicFacts, find_fact
from gateway.hardware.profiles import Profile, find_profile

_ESP: Final = ("ESP over IPv4", "ESP over IPv6")
_AES_FLAG: Final = {"x86_64": "AES-NI", "aarch64": "AES"}
#: The module with AES-GCM in these instructions.
_AES_MODULE: Final = {"x86_64": "aesni_intel", "aarch64": "ghash-ce"}
_GCM: Final = "rfc4106(gcm(aes))"
#: The first kernel whose AES-GCM on x86 uses VAES (arch/x86/crypto/aes-gcm-*.S).
_VAES_GCM_KERNEL: Final = "6.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One sentence, and what to do."""

    topic: str
    """`kernel`, `cpu`, or the name of an interface."""
    text: str
    remedy: str = ""
    """Empty: nothing to do, or nothing that we know."""


def advise(machine: MachineFacts, profiles: Sequence[Profile]) -> tuple[Advice, ...]:
    """Return what an operator should know, the kernel first, then the processor and the interfaces."""
    rules: tuple[Callable[[MachineFacts, Sequence[Profile]], Iterator[Advice]], ...] = (
        _kernel_esp,
        _kernel_offload,
        _aes,
        _vaes,
        _jit,
        _nics,
        _no_offload,
        _accelerators,
        _unseen,
    )
    return tuple(advice for rule in rules for advice in rule(machine, profiles))


def kernel_name(machine: MachineFacts) -> str:
    """Return what to call the kernel in a sentence: `this Debian kernel`."""
    return f"this {machine.kernel.vendor} kernel" if machine.kernel.vendor else "this kernel"


def _kernel_esp(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    lacking = [fact for name in _ESP if (fact := find_fact(machine.kernel.xfrm, name)).answer is Answer.NO]
    if lacking:
        yield Advice(
            topic="kernel",
            text=f"{kernel_name(machine)} has no {' and no '.join(fact.name for fact in lacking)}: "
            f"{lacking[0].evidence}",
            remedy="for ESP in the kernel or a NIC, boot a kernel with it; the software datapath needs none",
        )
    netlink = find_fact(machine.kernel.xfrm, "NETLINK_XFRM")
    if netlink.answer is Answer.NO:
        yield Advice(topic="kernel", text=f"{kernel_name(machine)} has no NETLINK_XFRM: {netlink.evidence}")


def _kernel_offload(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    offload = find_fact(machine.kernel.xfrm, "XFRM device offload")
    if offload.answer is Answer.NO:
        yield Advice(
            topic="kernel",
            text=f"{kernel_name(machine)} is built without XFRM_OFFLOAD: no NIC can offload ESP under it",
            remedy="boot a kernel built with XFRM_OFFLOAD, INET_ESP_OFFLOAD and INET6_ESP_OFFLOAD",
        )


def _aes(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    """Tell of a processor whose AES instructions the kernel leaves alone, and of one without any."""
    architecture = machine.cpu.architecture
    flag = _AES_FLAG.get(architecture)
    if flag is None:
        return
    answer = find_fact(machine.cpu.features, flag).answer
    if answer is Answer.NO:
        yield Advice(topic="cpu", text=f"no {flag}: every cipher of AES runs in portable code")
    gcm = _find_crypto(machine, _GCM)
    if answer is not Answer.YES or gcm is None or gcm.accelerated.answer is not Answer.NO:
        return
    is_registered = bool(gcm.driver)
    yield Advice(
        topic="cpu",
        text=f"{flag} is present, but the kernel's AES-GCM would not use it: {gcm.accelerated.evidence}",
        remedy=f"modprobe {_AES_MODULE[architecture]}, or boot a kernel that has it"
        if is_registered
        else "boot a kernel built with it; the software datapath's own code does not depend on it",
    )


def _vaes(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    gcm = _find_crypto(machine, _GCM)
    has = find_fact(machine.cpu.features, "VAES").answer is Answer.YES
    if not has or gcm is None or "aesni" not in gcm.driver or "vaes" in gcm.driver:
        return
    yield Advice(
        topic="cpu",
        text=f"VAES is present, but the kernel's AES-GCM is {gcm.driver}",
        remedy=f"kernels from {_VAES_GCM_KERNEL} on use VAES for AES-GCM"
        if is_older(machine.kernel.release, _VAES_GCM_KERNEL)
        else "",
    )


def _find_crypto(machine: MachineFacts, name: str) -> CryptoFacts | None:
    return next((entry for entry in machine.kernel.crypto if entry.name == name), None)


def _jit(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    if find_fact(machine.kernel.bpf, "BPF JIT").answer is Answer.NO:
        yield Advice(
            topic="kernel",
            text="BPF programs are interpreted: XDP would be slow",
            remedy="sysctl net.core.bpf_jit_enable=1",
        )


def _nics(machine: MachineFacts, profiles: Sequence[Profile]) -> Iterator[Advice]:
    for nic in machine.nics:
        yield from _spreading(nic)
        profile = find_profile(profiles, nic.driver)
        if profile is not None:
            yield from _offload(nic, profile, machine)


def _offload(nic: NicFacts, profile: Profile, machine: MachineFacts) -> Iterator[Advice]:
    """Tell why a NIC whose driver can offload does not: the first reason that holds."""
    feature = find_fact(nic.facts, "esp-hw-offload")
    lacking = [
        option
        for option in profile.kconfig
        if find_fact(machine.kernel.options, f"CONFIG_{option}").answer is Answer.NO
    ]
    if feature.answer is Answer.YES and not lacking:
        yield Advice(topic=nic.name, text=f"offers ESP offload ({profile.driver})")
        return
    if feature.answer is Answer.YES:
        yield Advice(
            topic=nic.name,
            text=f"offers ESP offload, but {kernel_name(machine)} is built without {', '.join(lacking)}",
            remedy="boot a kernel built with " + ", ".join(f"CONFIG_{option}" for option in lacking),
        )
        return
    if feature.answer is Answer.UNKNOWN:
        yield Advice(topic=nic.name, text=f"could not tell whether ESP offload is on: {feature.evidence}")
        return
    if feature.value == "off":
        yield Advice(
            topic=nic.name,
            text="can offload ESP, and it is off",
            remedy=f"ethtool -K {nic.name} esp-hw-offload on",
        )
        return
    offloads = [offload for offload in (profile.crypto, profile.packet) if offload is not None]
    needed = min((offload.kernel for offload in offloads), key=_version)
    if lacking:
        yield Advice(
            topic=nic.name,
            text=f"{kernel_name(machine)} is built without {', '.join(lacking)}: "
            f"offload to {profile.driver} is compiled out",
            remedy="boot a kernel built with " + ", ".join(f"CONFIG_{option}" for option in lacking),
        )
    elif is_older(machine.kernel.release, needed):
        yield Advice(
            topic=nic.name,
            text=f"offload to {profile.driver} came with Linux {needed}; this is {machine.kernel.release}",
            remedy=f"boot Linux {needed} or later",
        )
    else:
        yield Advice(
            topic=nic.name,
            text=f"{profile.driver} can offload ESP, and this device does not offer it. "
            f"Devices that do: {profile.devices}",
            remedy=profile.firmware,
        )


def _spreading(nic: NicFacts) -> Iterator[Advice]:
    """Tell of ESP that all lands in one queue of several, and so on one processor."""
    queues = find_fact(nic.facts, "several receive queues")
    if queues.answer is not Answer.YES:
        return
    one_queue = [
        fact.name.removeprefix("RSS of ")
        for fact in nic.facts
        if fact.name.startswith("RSS of esp") and fact.answer is Answer.NO
    ]
    if one_queue:
        yield Advice(
            topic=nic.name,
            text=f"{' and '.join(one_queue)} packets all go to one receive queue; {queues.value} are on",
            remedy=f"if the driver can: ethtool -N {nic.name} rx-flow-hash {one_queue[0]} sdfn",
        )


def _no_offload(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    features: list[Fact] = [find_fact(nic.facts, "esp-hw-offload") for nic in machine.nics]
    # One that is off and can be turned on has its own advice.
    if features and all(fact.answer is Answer.NO and fact.value != "off" for fact in features):
        yield Advice(topic="NICs", text="no NIC here offloads ESP")


def _accelerators(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    for device in machine.accelerators:
        if device.driver.answer is Answer.NO:
            yield Advice(
                topic=device.bus, text=f"{device.name} has no driver bound: {device.driver.evidence}"
            )


def _unseen(machine: MachineFacts, _profiles: Sequence[Profile]) -> Iterator[Advice]:
    for what in machine.unseen:
        yield Advice(topic="probe", text=f"could not look at {what}")


def is_older(release: str, than: str) -> bool:
    """Return whether a kernel release (`6.1.0-18-amd64`) is older than a version (`6.2`)."""
    return _version(release) < _version(than)


def _version(release: str) -> tuple[int, int]:
    """Return major and minor; a release that has none counts as new, so that nobody is sent to upgrade it."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (1 << 16, 0)
