"""`ipsecgw doctor` in a namespace that has what it looks for."""

import json
import os
import sys
from collections.abc import Iterator

import pytest

from gateway.bench.topology import Namespace, delete_namespace, make_namespace

pytestmark = pytest.mark.netns

FIREWALL = """
table inet site {
  chain in {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname "lo" accept
    udp dport 500 accept
    ip saddr 192.0.2.0/24 udp dport 4500 accept
  }
}
"""
HOLD_PORT = """
import socket, sys
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(("127.0.0.1", 500))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine() -> Iterator[Namespace]:
    namespace = make_namespace(f"dr{os.getpid()}")
    try:
        yield namespace
    finally:
        delete_namespace(namespace)


def doctor(machine: Namespace) -> tuple[int, list[dict[str, str]]]:
    done = machine.run(sys.executable, "-m", "gateway.cli.main", "doctor", "--json", check=False)
    return done.returncode, json.loads(done.stdout)["findings"]


def told(findings: list[dict[str, str]], check: str) -> list[tuple[str, str]]:
    return [(finding["severity"], finding["text"]) for finding in findings if finding["check"] == check]


def test_an_empty_machine_and_the_same_with_a_firewall_a_strict_filter_and_another_daemon(
    machine: Namespace,
) -> None:
    _, before = doctor(machine)
    assert told(before, "firewall") == [("all right", "UDP 500, UDP 4500 and ESP pass, in and out")]
    assert told(before, "ports") == [("all right", "UDP 500 and 4500 are free, or ours")]

    machine.run("nft", "-f", "-", stdin=FIREWALL)
    machine.run("ip", "link", "add", "small", "mtu", "1000", "type", "veth", "peer", "name", "other")
    machine.run("ip", "link", "set", "small", "up")
    machine.run("sysctl", "-q", "net.ipv4.conf.small.rp_filter=1")
    holder = machine.popen(sys.executable, "-c", HOLD_PORT, stdin=-1, stdout=-1)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        status, findings = doctor(machine)
    finally:
        holder.communicate("")

    assert status == 1
    firewall = told(findings, "firewall")
    assert ("problem", "ESP over IPv4 is dropped (input)") in firewall
    assert ("warning", "UDP 4500 over IPv4 passes from some peers or at some rate only (input)") in firewall
    assert ("problem", "UDP 4500 over IPv6 is dropped (input)") in firewall
    assert not [text for _, text in firewall if "UDP 500 " in text]
    assert [severity for severity, text in told(findings, "rp_filter") if "small" in text] == ["warning"]
    assert [severity for severity, text in told(findings, "mtu") if "1000" in text] == ["warning"]
    assert [text for severity, text in told(findings, "ports") if f"(PID {holder.pid})" in text]


def test_the_fix_of_the_firewall_finding_mends_it(machine: Namespace) -> None:
    machine.run("nft", "-f", "-", stdin=FIREWALL)
    _, findings = doctor(machine)

    for finding in findings:
        if finding["check"] == "firewall":
            machine.run(*finding["fix"].split())

    _, mended = doctor(machine)
    assert {severity for severity, _ in told(mended, "firewall")} == {"all right"}
