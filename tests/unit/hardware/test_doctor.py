"""What `ipsecgw doctor` says of readings: every check when all is well, and when it is not."""

import json
from dataclasses import replace

import pytest

from gateway.cli.doctor import report
from gateway.hardware.advice import Advice
from gateway.hardware.doctor import (
    CertificateReading,
    Finding,
    InterfaceReading,
    Listener,
    Readings,
    Severity,
    examine,
)
from gateway.hardware.readings import Reading
from tests.unit.hardware.test_firewall import ruleset

PROBLEM, WARNING, UNKNOWN, ADVICE = list(Severity)[:4]
NOW = 1_800_000_000.0
DAY = 86400.0


def reading(text: str, source: str = "/proc/sys/x") -> Reading:
    return Reading(source=source, text=text)


def absent(source: str = "/proc/sys/x", error: str = "no such file or directory") -> Reading:
    return Reading(source=source, error=error)


def interface(**changes: object) -> InterfaceReading:
    usual = InterfaceReading(
        name="eth0", mtu=1500, rp_filter=reading("2\n", "/proc/sys/net/ipv4/conf/eth0/rp_filter")
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def certificate(starts: float, ends: float) -> CertificateReading:
    return CertificateReading(
        where="net.local.auth.certificate.certs[0]",
        name="certificate CN=gw",
        not_before=NOW + starts,
        not_after=NOW + ends,
    )


WELL = Readings(
    now=NOW,
    ruleset=reading(json.dumps({"nftables": ruleset()}), "nft -j list ruleset"),
    legacy_tables=absent("/proc/net/ip_tables_names"),
    rp_filter_all=reading("0\n", "/proc/sys/net/ipv4/conf/all/rp_filter"),
    interfaces=(interface(),),
    forwarding=(
        reading("1\n", "/proc/sys/net/ipv4/ip_forward"),
        reading("1\n", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ),
    no_pmtu_discovery=reading("0\n", "/proc/sys/net/ipv4/ip_no_pmtu_disc"),
    clock=reading("synchronised", "adjtimex(2)"),
    certificates=(certificate(-DAY, 90 * DAY),),
    listeners=(),
    tun=reading("present", "/dev/net/tun"),
    nft=reading("/usr/sbin/nft", "/usr/sbin/nft"),
    advice=(),
)  # fmt: skip


def test_a_machine_that_is_well_has_nothing_to_mend() -> None:
    findings = examine(WELL)

    assert {finding.severity for finding in findings} == {Severity.OK}
    assert {finding.check for finding in findings} == {
        "ports",
        "firewall",
        "rp_filter",
        "forwarding",
        "mtu",
        "clock",
        "certificates",
        "kernel",
    }
    assert not [finding for finding in findings if finding.fix]


def listener(process: str, pid: int | None = 77) -> tuple[Listener, ...]:
    return (Listener(port=500, process=process, pid=pid, source="/proc/net/udp"),)


@pytest.mark.parametrize(
    ("changes", "check", "severity", "text", "fix"),
    [
        ({"listeners": listener("/usr/lib/ipsec/charon")}, "ports", PROBLEM, "charon (PID 77)", "disable"),
        ({"listeners": listener("", None)}, "ports", PROBLEM, "may not be seen", "systemctl"),
        ({"ruleset": reading(json.dumps({"nftables": ruleset(policy="drop")}), "nft")},
         "firewall", PROBLEM, "ESP over IPv4 is dropped (input)",
         "nft insert rule inet t in ct state new meta l4proto esp accept"),
        ({"ruleset": reading(json.dumps({"nftables": ruleset([{"limit": {}}, {"drop": None}])}), "nft")},
         "firewall", WARNING, "UDP 500 over IPv6 passes from some peers", "udp dport 500 accept"),
        ({"ruleset": absent("nft", "it needs CAP_NET_ADMIN")}, "firewall", UNKNOWN, "which", "root"),
        ({"ruleset": reading("hello", "nft")}, "firewall", UNKNOWN, "what the firewall rules do", "nft list"),
        ({"legacy_tables": reading("filter\n")}, "firewall", UNKNOWN, "-legacy do", "iptables-legacy -S"),
        ({"interfaces": (interface(rp_filter=reading("1\n")),)}, "rp_filter", WARNING, "eth0", "rp_filter=2"),
        ({"rp_filter_all": reading("1\n"), "interfaces": (interface(rp_filter=reading("0\n")),)},
         "rp_filter", WARNING, "eth0", "rp_filter=2"),
        ({"forwarding": (reading("0\n", "/proc/sys/net/ipv4/ip_forward"),)},
         "forwarding", WARNING, "not forwarded", "sysctl net.ipv4.ip_forward=1"),
        ({"interfaces": (interface(mtu=1000),)}, "mtu", WARNING, "1000 bytes", "fragment_size: 1000"),
        ({"no_pmtu_discovery": reading("1\n")}, "mtu", WARNING, "path MTU", "ip_no_pmtu_disc=0"),
        ({"clock": reading("not synchronised")}, "clock", WARNING, "keeps the clock", "timedatectl"),
        ({"clock": absent("adjtimex(2)", "operation not permitted")}, "clock", UNKNOWN, "synchronised", ""),
        ({"now": 86400.0, "certificates": ()}, "clock", PROBLEM, "never set", "timedatectl"),
        ({"certificates": (certificate(-9 * DAY, -2 * DAY),)}, "certificates", PROBLEM, "ended 2", "new"),
        ({"certificates": (certificate(-9 * DAY, 9 * DAY),)}, "certificates", WARNING, "ends in 9", "new"),
        ({"certificates": (certificate(3 * DAY, 9 * DAY),)}, "certificates", PROBLEM, "begins in 3", "new"),
        ({"tun": absent("/dev/net/tun")}, "kernel", PROBLEM, "no TUN device", "modprobe tun"),
        ({"nft": absent("PATH", "no nft")}, "kernel", PROBLEM, "nft is missing", "apt-get install"),
        ({"advice": (Advice(topic="eth0", text="can offload ESP", remedy="ethtool -K"),)},
         "unused", ADVICE, "eth0: can offload ESP", "ethtool -K"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_evidence_and_fix(
    changes: dict[str, object], check: str, severity: Severity, text: str, fix: str
) -> None:
    findings = examine(replace(WELL, **changes))  # type: ignore[arg-type]

    wrong = [finding for finding in findings if finding.severity is not Severity.OK]
    assert {finding.check for finding in wrong} == {check}
    assert {finding.severity for finding in wrong} == {severity}
    assert any(text in finding.text and fix in finding.fix for finding in wrong), wrong
    assert all(finding.evidence for finding in wrong)


@pytest.mark.parametrize(
    "process",
    [
        "python -m gateway.cli.main agent",
        "/usr/bin/python3 -P -m gateway.app.agent --backend auto",  # a child of `ipsecgw run`
        "/usr/lib/ipsecgw/bin/python3 -P /usr/bin/ipsecgw agent",
    ],
    ids=["module", "run", "package"],
)
def test_a_port_of_ours_is_no_problem(process: str) -> None:
    findings = examine(replace(WELL, listeners=listener(process)))

    assert {finding.severity for finding in findings} == {Severity.OK}


def test_advice_that_nobody_can_follow_is_left_to_hw() -> None:
    findings = examine(replace(WELL, advice=(Advice(topic="NICs", text="no NIC here offloads ESP"),)))

    assert {finding.severity for finding in findings} == {Severity.OK}


def test_the_report_begins_with_what_matters_and_ends_with_counts() -> None:
    findings = examine(replace(WELL, tun=absent("/dev/net/tun"), clock=reading("not synchronised")))

    lines = list(report(findings))

    assert lines[0].startswith("✗ kernel: there is no TUN device")
    assert lines[1] == "    seen in: /dev/net/tun: no such file or directory"
    assert lines[2].startswith("    fix: modprobe tun")
    assert lines[-1] == "problem: 1, warning: 1, all right: 6"


def test_every_finding_that_is_not_well_has_evidence() -> None:
    worst = replace(WELL, tun=absent(), nft=absent(), ruleset=absent(), clock=absent())

    found: list[Finding] = [finding for finding in examine(worst) if not finding.evidence]

    assert found == []
