"""Whether this kernel has IPsec: NETLINK_XFRM, ESP and AH, offload; by evidence, without installing an SA."""

from dataclasses import dataclass
from typing import Final

from gateway.hardware.facts import Answer, Fact
from gateway.hardware.kernel_config import KernelConfig
from gateway.hardware.readings import Reading

_NETLINK_XFRM: Final = "6"  # <linux/netlink.h>


@dataclass(frozen=True, slots=True, kw_only=True)
class XfrmReadings:
    """What the probe reads."""

    netlink: Reading
    """/proc/net/netlink: every netlink socket of this network namespace, the kernel's own among them."""
    xfrm_stat: Reading
    """/proc/net/xfrm_stat."""
    modules: Reading
    """/proc/modules."""
    kallsyms: Reading
    """/proc/kallsyms; read only if the build options cannot be: it is long."""
    btf: tuple[Reading, ...]
    """Which of `BTF_NAMES` the kernel's own types have, and those of the module xfrm_user."""


_PER_CPU: Final = "XFRMA_SA_PCPU"
_EVERY: Final = (
    "XFRMA_OFFLOAD_DEV"  # In every kernel that has BTF: where it is not seen, nothing can be told.
)

#: Attributes of NETLINK_XFRM that are looked for.
BTF_NAMES: Final = (_PER_CPU, _EVERY)


@dataclass(frozen=True, slots=True)
class _Protocol:
    name: str
    option: str
    module: str
    symbol: str  # A function that stays in memory and that only this protocol has.


_PROTOCOLS: Final = (
    _Protocol("ESP over IPv4", "INET_ESP", "esp4", "esp_init_state"),
    _Protocol("ESP over IPv6", "INET6_ESP", "esp6", "esp6_init_state"),
    _Protocol("AH over IPv4", "INET_AH", "ah4", "ah_init_state"),
    _Protocol("AH over IPv6", "INET6_AH", "ah6", "ah6_init_state"),
)

_OPTIONS: Final = {
    "XFRM device offload": "XFRM_OFFLOAD",
    "ESP offload over IPv4": "INET_ESP_OFFLOAD",
    "ESP offload over IPv6": "INET6_ESP_OFFLOAD",
    "XFRM interfaces": "XFRM_INTERFACE",
    "MIGRATE": "XFRM_MIGRATE",
    "ESP in TCP": "INET_ESPINTCP",
    "IP-TFS": "XFRM_IPTFS",
}


def parse_xfrm(readings: XfrmReadings, config: KernelConfig) -> tuple[Fact, ...]:
    """Return the facts, NETLINK_XFRM first."""
    modules = {line.split()[0] for line in (readings.modules.text or "").splitlines() if line.strip()}
    return (
        _netlink(readings.netlink, config),
        *(_protocol(protocol, config, modules, readings.kallsyms) for protocol in _PROTOCOLS),
        *(config.fact(option, name) for name, option in _OPTIONS.items()),
        _per_cpu(readings.btf),
        _statistics(readings.xfrm_stat),
    )


def _netlink(netlink: Reading, config: KernelConfig) -> Fact:
    """Return whether the kernel listens to NETLINK_XFRM: its own socket is listed, with port 0."""
    name = "NETLINK_XFRM"
    if netlink.text is None:
        return Fact(name=name, answer=Answer.UNKNOWN, evidence=netlink.why_not)
    rows = [line.split() for line in netlink.text.splitlines()[1:]]
    if any(row[1:3] == [_NETLINK_XFRM, "0"] for row in rows):
        return Fact(
            name=name, answer=Answer.YES, evidence=f"{netlink.source}: the kernel's socket of protocol 6"
        )
    if config.is_module("XFRM_USER"):
        return Fact(
            name=name,
            answer=Answer.YES,
            evidence=f"{config.evidence('XFRM_USER')}; xfrm_user is not loaded, its first use loads it",
        )
    return Fact(
        name=name,
        answer=Answer.NO if config.has("XFRM_USER") is Answer.NO else Answer.UNKNOWN,
        evidence=f"{netlink.source}: no kernel socket of protocol 6; {config.evidence('XFRM_USER')}",
    )


def _protocol(protocol: _Protocol, config: KernelConfig, modules: set[str], kallsyms: Reading) -> Fact:
    if protocol.module in modules:
        return Fact(
            name=protocol.name,
            answer=Answer.YES,
            evidence=f"/proc/modules: {protocol.module} is loaded",
        )
    if config.has(protocol.option) is not Answer.UNKNOWN:
        later = "; not loaded, its first use loads it" if config.is_module(protocol.option) else ""
        return Fact(
            name=protocol.name,
            answer=config.has(protocol.option),
            evidence=config.evidence(protocol.option) + later,
        )
    names = {line.split()[2] for line in (kallsyms.text or "").splitlines() if line.count(" ") >= 2}
    if protocol.symbol in names:
        return Fact(
            name=protocol.name,
            answer=Answer.YES,
            evidence=f"{kallsyms.source} has {protocol.symbol}",
        )
    # Absence from the symbols is no proof: the protocol may be a module that is not loaded.
    return Fact(
        name=protocol.name,
        answer=Answer.UNKNOWN,
        evidence=f"{config.evidence(protocol.option)}; module {protocol.module} is not loaded",
    )


def _per_cpu(btf: tuple[Reading, ...]) -> Fact:
    """Return whether each CPU can have an outbound SA of its own (Linux 6.13, and what has it since)."""
    name = "SAs for each CPU"
    seen = {reading.source: (reading.text or "").split() for reading in btf}
    for source, names in seen.items():
        if _PER_CPU in names:
            return Fact(name=name, answer=Answer.YES, evidence=f"{source} has {_PER_CPU}")
    for source, names in seen.items():
        if _EVERY in names:
            return Fact(name=name, answer=Answer.NO, evidence=f"{source} has {_EVERY}, and no {_PER_CPU}")
    unseen = "; ".join(
        reading.why_not if reading.text is None else f"{reading.source} has no attributes of XFRM"
        for reading in btf
    )
    return Fact(name=name, answer=Answer.UNKNOWN, evidence=unseen)


def _statistics(xfrm_stat: Reading) -> Fact:
    name = "xfrm_stat"
    if xfrm_stat.text is None:
        is_absent = "no such file" in xfrm_stat.error
        return Fact(name=name, answer=Answer.NO if is_absent else Answer.UNKNOWN, evidence=xfrm_stat.why_not)
    rows = [line.split() for line in xfrm_stat.text.splitlines()]
    counted = [f"{row[0]} {row[1]}" for row in rows if len(row) == 2 and row[1] != "0"]
    return Fact(
        name=name,
        answer=Answer.YES,
        evidence=f"{xfrm_stat.source}: {len(rows)} counters",
        value=", ".join(counted) or "all zero",
    )
