"""Whether XDP and BPF programs could run here: BTF, bpffs, the JIT, who may load, AF_XDP."""

from dataclasses import dataclass
from typing import Final

from gateway.hardware.facts import Answer, Fact
from gateway.hardware.kernel_config import KernelConfig
from gateway.hardware.readings import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class BpfReadings:
    """What the probe reads."""

    btf: Reading
    """Which of `BTF_NAMES` are in /sys/kernel/btf/vmlinux."""
    mounts: Reading
    """/proc/mounts."""
    jit: Reading
    """/proc/sys/net/core/bpf_jit_enable."""
    unprivileged: Reading
    """/proc/sys/kernel/unprivileged_bpf_disabled."""
    protocols: Reading
    """/proc/net/protocols."""


_ASK_FOR_SA: Final = "bpf_xdp_get_xfrm_state"

#: Functions of the kernel that are looked for.
BTF_NAMES: Final = (_ASK_FOR_SA,)

#: Documentation/admin-guide/sysctl/net.rst and kernel.rst.
_JIT: Final = {
    "0": (Answer.NO, "interpreted"),
    "1": (Answer.YES, "on"),
    "2": (Answer.YES, "on, with debug output"),
}
_UNPRIVILEGED: Final = {
    "0": (Answer.YES, "everybody may load programs"),
    "1": (Answer.NO, "needs CAP_BPF, until the next boot"),
    "2": (Answer.NO, "needs CAP_BPF"),
}


def parse_bpf(readings: BpfReadings, config: KernelConfig) -> tuple[Fact, ...]:
    """Return the facts."""
    return (
        config.fact("BPF_SYSCALL", "bpf(2)"),
        _btf(readings.btf),
        _ask_for_sa(readings.btf),
        _bpffs(readings.mounts),
        _sysctl("BPF JIT", readings.jit, _JIT),
        _sysctl("unprivileged BPF", readings.unprivileged, _UNPRIVILEGED),
        _af_xdp(readings.protocols, config),
    )


def _btf(btf: Reading) -> Fact:
    is_absent = "no such file" in btf.error
    return Fact(
        name="BTF",
        answer=Answer.NO if is_absent else Answer.YES,
        evidence=f"{btf.source} {'does not exist' if is_absent else 'exists'}",
    )


def _ask_for_sa(btf: Reading) -> Fact:
    """Return whether XDP can ask for an SA of the kernel, as `--forward-interface` needs (Linux 6.8)."""
    if btf.text is None:
        # By what is not there, no program finds a function.
        answer = Answer.NO if "no such file" in btf.error else Answer.UNKNOWN
        return Fact(name=_ASK_FOR_SA, answer=answer, evidence=btf.why_not)
    has = _ASK_FOR_SA in btf.text.split()
    return Fact(
        name=_ASK_FOR_SA,
        answer=Answer.YES if has else Answer.NO,
        evidence=f"{btf.source} {'has' if has else 'has no'} {_ASK_FOR_SA}",
    )


def _bpffs(mounts: Reading) -> Fact:
    if mounts.text is None:
        return Fact(name="bpffs", answer=Answer.UNKNOWN, evidence=mounts.why_not)
    rows = [line.split() for line in mounts.text.splitlines()]
    places = [row[1] for row in rows if len(row) > 2 and row[2] == "bpf"]
    return Fact(
        name="bpffs",
        answer=Answer.YES if places else Answer.NO,
        evidence=f"{mounts.source}: {'mounted' if places else 'no file system of type bpf'}",
        value=", ".join(places),
    )


def _sysctl(name: str, reading: Reading, meanings: dict[str, tuple[Answer, str]]) -> Fact:
    if reading.text is None:
        return Fact(name=name, answer=Answer.UNKNOWN, evidence=reading.why_not)
    value = reading.text.strip()
    answer, meaning = meanings.get(value, (Answer.UNKNOWN, "a value we do not know"))
    return Fact(name=name, answer=answer, evidence=f"{reading.source}: {value}", value=meaning)


def _af_xdp(protocols: Reading, config: KernelConfig) -> Fact:
    """Return whether the kernel has AF_XDP: its protocol `XDP` is registered (it cannot be a module)."""
    if protocols.text is None:
        return config.fact("XDP_SOCKETS", "AF_XDP")
    has = any(line.split()[:1] == ["XDP"] for line in protocols.text.splitlines())
    return Fact(
        name="AF_XDP",
        answer=Answer.YES if has else Answer.NO,
        evidence=f"{protocols.source} {'has' if has else 'has no'} XDP",
    )
