"""What is wrong with a machine that is to be a gateway: findings, each with evidence and the fix.

Pure: `doctor_readings` looks, this judges. Nothing here changes the machine.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.hardware.advice import Advice
from gateway.hardware.firewall import Packet, Verdict, judge
from gateway.hardware.readings import Reading

IKE_PORTS: Final = (500, 4500)
MIN_MTU: Final = 1280
"""What IPv6 wants of every link (RFC 8200 §5)."""
RENEW_BEFORE_S: Final = 30 * 86400.0
"""A certificate that ends sooner is told."""
EARLIEST: Final = 1_735_689_600.0
"""2025-01-01: a clock before it was never set."""

_OURS: Final = ("ipsecgw", "gateway.cli.main", "gateway.app.")
_DAY_S: Final = 86400.0


class Severity(Enum):
    """How much a finding matters; the order is that of the report."""

    PROBLEM = "problem"
    """Something will not work until it is mended."""
    WARNING = "warning"
    """It may not work, or not for long."""
    UNKNOWN = "could not tell"
    ADVICE = "advice"
    """It works, and could do better."""
    OK = "all right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    severity: Severity
    text: str
    evidence: str
    """Where that is from: a file with its value, a rule, an error."""
    fix: str = ""
    """What to do; empty where nothing is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A socket on an IKE port."""

    port: int
    process: str
    """Its command line, or empty where that may not be seen."""
    pid: int | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceReading:
    """What matters of one interface that is up."""

    name: str
    mtu: int
    rp_filter: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateReading:
    """How long a configured certificate is valid."""

    where: str
    """Its path in the configuration."""
    name: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Everything that was looked at."""

    now: float
    """Unix time."""
    ruleset: Reading
    """`nft -j list ruleset`."""
    legacy_tables: Reading
    """/proc/net/ip_tables_names."""
    rp_filter_all: Reading
    interfaces: tuple[InterfaceReading, ...]
    forwarding: tuple[Reading, ...]
    """ip_forward and its twin of IPv6."""
    no_pmtu_discovery: Reading
    clock: Reading
    """`synchronised` or `not synchronised`, as the kernel says."""
    certificates: tuple[CertificateReading, ...]
    listeners: tuple[Listener, ...]
    tun: Reading
    """Of /dev/net/tun: `present`."""
    nft: Reading
    """Where the program nft is."""
    advice: tuple[Advice, ...]
    """Of the kernel, CPU and NICs: `gateway.hardware.advice`."""


def examine(readings: Readings) -> tuple[Finding, ...]:
    """Return every finding, what matters most first."""
    checks: tuple[Callable[[Readings], Iterator[Finding]], ...] = (
        _ports,
        _firewall,
        _legacy_firewall,
        _reverse_path,
        _forwarding,
        _mtu,
        _pmtu_discovery,
        _clock,
        _certificates,
        _tun,
        _nft,
        _advice,
    )
    found = [finding for check in checks for finding in check(readings)]
    order = list(Severity)
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


# --- the checks ---------------------------------------------------------------------------------


def _ports(readings: Readings) -> Iterator[Finding]:
    others = [listener for listener in readings.listeners if not any(o in listener.process for o in _OURS)]
    for listener in others:
        who = f"{listener.process or 'a process that may not be seen'}"
        pid = f" (PID {listener.pid})" if listener.pid is not None else ""
        yield Finding(
            check="ports",
            severity=Severity.PROBLEM,
            text=f"UDP {listener.port} belongs to {who}{pid}: another IKE daemon?",
            evidence=listener.source,
            fix="stop it and keep it from starting: systemctl disable --now strongswan (or ipsec, "
            "or strongswan-starter)",
        )
    if not others:
        yield _fine("ports", "UDP 500 and 4500 are free, or ours", "/proc/net/udp, /proc/net/udp6")


def _firewall(readings: Readings) -> Iterator[Finding]:
    ruleset = readings.ruleset
    if ruleset.text is None:
        yield _unknown("firewall", "which firewall rules there are", ruleset, "run as root")
        return
    packets = [
        *(Packet("udp", version, port) for port in IKE_PORTS for version in (4, 6)),
        *(Packet("esp", version) for version in (4, 6)),
    ]
    try:
        objects = json.loads(ruleset.text)["nftables"]
        found = [
            finding
            for hook in ("input", "output")
            for packet in packets
            for finding in _judged_packet(objects, packet, hook)
        ]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        # Its JSON has no schema of its own: a later nft may write what this reader does not know.
        yield Finding(
            check="firewall",
            severity=Severity.UNKNOWN,
            text="could not tell what the firewall rules do",
            evidence=f"{ruleset.source}: not understood ({type(error).__name__})",
            fix="see in nft list ruleset that UDP 500, UDP 4500 and ESP pass",
        )
        return
    yield from found or [_fine("firewall", "UDP 500, UDP 4500 and ESP pass, in and out", ruleset.source)]


def _judged_packet(objects: list[dict[str, object]], packet: Packet, hook: str) -> Iterator[Finding]:
    word = "ct state new " if hook == "input" else ""
    rule = f"udp dport {packet.port}" if packet.port else "meta l4proto esp"
    for judged in judge(objects, packet, hook):
        if Verdict.DROP not in judged.verdicts:
            continue
        is_sure = Verdict.ACCEPT not in judged.verdicts
        yield Finding(
            check="firewall",
            severity=Severity.PROBLEM if is_sure else Severity.WARNING,
            text=f"{packet} is dropped ({hook})"
            if is_sure
            else f"{packet} passes from some peers or at some rate only ({hook})",
            evidence=f"chain {judged.chain}",
            fix=f"nft insert rule {judged.chain} {word}{rule} accept",
        )


def _legacy_firewall(readings: Readings) -> Iterator[Finding]:
    tables = (readings.legacy_tables.text or "").split()
    if tables:
        yield Finding(
            check="firewall",
            severity=Severity.UNKNOWN,
            text="could not tell what the rules of iptables-legacy do",
            evidence=f"{readings.legacy_tables.source}: {', '.join(tables)}",
            fix="see that iptables-legacy -S lets UDP 500, UDP 4500 and ESP pass",
        )


def _reverse_path(readings: Readings) -> Iterator[Finding]:
    strict = []
    common = _number(readings.rp_filter_all)
    for interface in readings.interfaces:
        own = _number(interface.rp_filter)
        if own is not None and max(own, common or 0) == 1:
            strict.append(interface)
    if not strict:
        yield _fine("rp_filter", "no interface filters reverse paths strictly", readings.rp_filter_all.source)
    for interface in strict:
        yield Finding(
            check="rp_filter",
            severity=Severity.WARNING,
            text=f"{interface.name} drops packets whose way back is another interface, decrypted ones among "
            "them where the peer's networks are routed elsewhere",
            evidence=f"{interface.rp_filter.source} and {readings.rp_filter_all.source}: the larger one is 1",
            fix=f"sysctl net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{interface.name}.rp_filter=2",
        )


def _forwarding(readings: Readings) -> Iterator[Finding]:
    off = [reading for reading in readings.forwarding if _number(reading) == 0]
    if not off:
        yield _fine("forwarding", "the kernel forwards packets", readings.forwarding[0].source)
    for reading in off:
        name = reading.source.removeprefix("/proc/sys/").replace("/", ".")
        yield Finding(
            check="forwarding",
            severity=Severity.WARNING,
            text="packets of networks behind this machine are not forwarded; between hosts that is right",
            evidence=f"{reading.source}: 0",
            fix=f"sysctl {name}=1, and the same in /etc/sysctl.d",
        )


def _mtu(readings: Readings) -> Iterator[Finding]:
    small = [interface for interface in readings.interfaces if interface.mtu < MIN_MTU]
    for interface in small:
        yield Finding(
            check="mtu",
            severity=Severity.WARNING,
            text=f"{interface.name} carries packets of {interface.mtu} bytes at most; IPv6, and IKE without "
            f"its own fragmentation, want {MIN_MTU}",
            evidence=f"interface {interface.name}: mtu {interface.mtu}",
            fix=f"ip link set {interface.name} mtu 1500, or ike.fragment_size: {max(256, interface.mtu)}",
        )
    if not small:
        yield _fine("mtu", f"every interface carries {MIN_MTU} bytes and more", "rtnetlink")


def _pmtu_discovery(readings: Readings) -> Iterator[Finding]:
    if _number(readings.no_pmtu_discovery) in (1, 3):
        yield Finding(
            check="mtu",
            severity=Severity.WARNING,
            text="the path MTU is not discovered: large packets are lost or fragmented on the way",
            evidence=f"{readings.no_pmtu_discovery.source}: {_number(readings.no_pmtu_discovery)}",
            fix="sysctl net.ipv4.ip_no_pmtu_disc=0",
        )


def _clock(readings: Readings) -> Iterator[Finding]:
    if readings.now < EARLIEST:
        yield Finding(
            check="clock",
            severity=Severity.PROBLEM,
            text="the clock was never set: certificates look as if they were not valid yet",
            evidence=f"Unix time {readings.now:.0f}",
            fix="timedatectl set-ntp true",
        )
    elif readings.clock.text is None:
        yield _unknown("clock", "whether the clock is synchronised", readings.clock)
    elif readings.clock.text != "synchronised":
        yield Finding(
            check="clock",
            severity=Severity.WARNING,
            text="nothing keeps the clock right: certificates and CRLs are judged by it",
            evidence=f"{readings.clock.source}: {readings.clock.text}",
            fix="timedatectl set-ntp true, or run chrony; in a container the host does",
        )
    else:
        yield _fine("clock", "the clock is synchronised", readings.clock.source)


def _certificates(readings: Readings) -> Iterator[Finding]:
    for certificate in readings.certificates:
        left_s = certificate.not_after - readings.now
        evidence = f"{certificate.where}: {certificate.name}"
        if left_s < 0:
            text, severity = f"ended {-left_s / _DAY_S:.0f} days ago", Severity.PROBLEM
        elif readings.now < certificate.not_before:
            days = (certificate.not_before - readings.now) / _DAY_S
            text, severity = f"begins in {days:.0f} days", Severity.PROBLEM
        elif left_s < RENEW_BEFORE_S:
            text, severity = f"ends in {left_s / _DAY_S:.0f} days", Severity.WARNING
        else:
            yield _fine("certificates", f"{certificate.name} lasts {left_s / _DAY_S:.0f} days more", evidence)
            continue
        yield Finding(
            check="certificates",
            severity=severity,
            text=f"{certificate.name} {text}",
            evidence=evidence,
            fix="put a new one in its place and run ipsecgw apply",
        )


def _tun(readings: Readings) -> Iterator[Finding]:
    if readings.tun.text is not None:
        yield _fine("kernel", "there are TUN devices", readings.tun.source)
        return
    yield Finding(
        check="kernel",
        severity=Severity.PROBLEM,
        text="there is no TUN device: the software datapath cannot run",
        evidence=readings.tun.why_not,
        fix="modprobe tun; in a container pass /dev/net/tun on",
    )


def _nft(readings: Readings) -> Iterator[Finding]:
    if readings.nft.text is None:
        yield Finding(
            check="kernel",
            severity=Severity.PROBLEM,
            text="the program nft is missing: what must not leave in clear cannot be kept",
            evidence=readings.nft.why_not,
            fix="apt-get install nftables",
        )


def _advice(readings: Readings) -> Iterator[Finding]:
    """Pass on what `ipsecgw hw` says of kernel, CPU and NICs where there is something to do."""
    for advice in readings.advice:
        if advice.remedy:
            yield Finding(
                check="unused",
                severity=Severity.ADVICE,
                text=f"{advice.topic}: {advice.text}",
                evidence="ipsecgw hw --evidence",
                fix=advice.remedy,
            )


# --- words --------------------------------------------------------------------------------------


def _fine(check: str, text: str, evidence: str) -> Finding:
    return Finding(check=check, severity=Severity.OK, text=text, evidence=evidence)


def _unknown(check: str, what: str, reading: Reading, fix: str = "") -> Finding:
    return Finding(
        check=check,
        severity=Severity.UNKNOWN,
        text=f"could not tell {what}",
        evidence=reading.why_not,
        fix=fix,
    )


def _number(reading: Reading) -> int | None:
    text = (reading.text or "").strip()
    return int(text) if text.isdecimal() else None
