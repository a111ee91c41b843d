"""What a software datapath does besides carrying packets: asks, waits, limits, follows, measures."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.topology import Namespace, SiteToSite, site_to_site
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    ErrorReason,
    HardExpire,
    MappingChange,
    SaCounters,
    SoftExpire,
)
from gateway.datapath.software.forwarder import ForwarderLimits
from gateway.datapath.software.options import SoftwareOptions
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.sa import Direction
from gateway.ipsec.selectors import TrafficSelector
from tests.netns.datapath_process import DatapathProcess
from tests.netns.sas import ChildSa
from tests.netns.site_gateways import wait_until

pytestmark = pytest.mark.netns

NETWORKS = ChildSa(
    outer_a="192.0.2.1",
    outer_b="192.0.2.2",
    inner_a=("10.1.0.0/16", "fd00:1::/64"),
    inner_b=("10.2.0.0/16", "fd00:2::/64"),
)
OPTIONS = SoftwareOptions(limits=ForwarderLimits(held_packets=4, hold_s=2.0, acquire_interval_s=0.5))


@pytest.fixture
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"swd{os.getpid()}") as made:
        yield made


@pytest.fixture
def both(sites: SiteToSite) -> Iterator[tuple[DatapathProcess, DatapathProcess]]:
    with DatapathProcess(sites.a.gateway, OPTIONS) as a, DatapathProcess(sites.b.gateway, OPTIONS) as b:
        yield a, b


def establish(a: DatapathProcess, b: DatapathProcess, child: ChildSa = NETWORKS) -> None:
    a.apply(child.policy_of_a())
    b.apply(child.policy_of_b())
    b.install(*child.sas_of_b())
    a.install(*child.sas_of_a())


def ping(namespace: Namespace, address: str, *options: str, count: int = 2) -> bool:
    done = namespace.run("ping", "-c", str(count), "-i", "0.1", "-W", "1", *options, address, check=False)
    return done.returncode == 0


def outbound_mtu(process: DatapathProcess) -> int | None:
    """Return the effective MTU of the outbound SA."""
    installed = process.call("list_sas")
    mtu: int | None = next(s.effective_mtu for s in installed if s.sa.direction is Direction.OUTBOUND)
    return mtu


def drops(process: DatapathProcess, reason: DropReason) -> int:
    """Return how many packets were dropped for a reason that no SA counts."""
    return int(process.call("counters").drops.get(reason, 0))


# --- acquire --------------------------------------------------------------------------------------


def test_first_packet_asks_once_waits_and_leaves_when_the_sa_is_there(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, b = both
    a.apply(NETWORKS.policy_of_a())
    b.apply(NETWORKS.policy_of_b())
    b.install(*NETWORKS.sas_of_b())
    pinging = sites.a.host.popen(
        "ping", "-c", "1", "-W", "5", "10.2.0.10", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    acquire = a.wait_for_event(Acquire)

    assert acquire.policy == "test/net"
    assert (str(acquire.source), str(acquire.destination)) == ("10.1.0.10", "10.2.0.10")
    assert acquire.protocol == 1
    a.install(*NETWORKS.sas_of_a())

    output, _ = pinging.communicate(timeout=60)
    assert "1 received" in output


def test_acquires_are_limited_and_waiting_packets_bounded(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, _ = both
    a.apply(NETWORKS.policy_of_a())

    began = time.monotonic()
    sites.a.host.run("ping", "-c", "20", "-i", "0.01", "-W", "0.1", "10.2.0.10", check=False)
    acquires = [event for event in a.events() if isinstance(event, Acquire)]
    drops_at_once = drops(a, DropReason.NO_SA)
    took_s = time.monotonic() - began

    assert 1 <= len(acquires) <= 2 + took_s / OPTIONS.limits.acquire_interval_s
    assert drops_at_once >= 16
    assert drops_at_once == 16 or took_s > OPTIONS.limits.hold_s
    wait_until(lambda: drops(a, DropReason.NO_SA) == 20)


def test_entry_that_may_not_ask_drops(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, _ = both
    a.apply(NETWORKS.policy_of_a(acquire=False))

    assert not ping(sites.a.host, "10.2.0.10")
    wait_until(lambda: drops(a, DropReason.NO_SA) == 2)

    assert a.events() == []


def test_packet_outside_a_narrowed_sa_asks_for_another(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, _ = both
    narrowed = replace(NETWORKS, inner_a=("10.1.0.0/24",), inner_b=("10.2.0.0/24",))
    a.apply(NETWORKS.policy_of_a())
    a.install(*narrowed.sas_of_a())

    sites.a.host.run("ping", "-c", "1", "-W", "0.2", "10.2.7.7", check=False)

    assert str(a.wait_for_event(Acquire).destination) == "10.2.7.7"


# --- MTU ------------------------------------------------------------------------------------------


def test_effective_mtu_is_shown_and_is_what_fits(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    establish(*both)
    # 1500 - IPv4 20 - ESP header 8 - IV 8 - ICV 16 = 1448, in units of 4, less a trailer of 2.
    assert outbound_mtu(both[0]) == 1446

    assert ping(sites.a.host, "10.2.0.10", "-M", "do", "-s", str(1446 - 28))


@pytest.mark.parametrize(("address", "headers"), [("10.2.0.10", 28), ("fd00:2::10", 48)])
def test_sender_of_a_packet_that_is_too_big_is_told_the_size(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess], address: str, headers: int
) -> None:
    establish(*both)

    done = sites.a.host.run(
        "ping", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", str(1447 - headers), address, check=False
    )

    assert "1446" in done.stdout + done.stderr
    sites.a.host.run("ip", "route", "flush", "cache")


def test_path_that_narrows_is_noticed_and_senders_are_told(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    establish(*both)
    assert ping(sites.a.host, "10.2.0.10", "-M", "do", "-s", "1400")

    for gateway in (sites.a.gateway, sites.b.gateway):
        gateway.run("ip", "link", "set", "outside", "mtu", "1400")
    wait_until(lambda: outbound_mtu(both[0]) == outbound_mtu(both[1]) == 1346)

    assert not ping(sites.a.host, "10.2.0.10", "-M", "do", "-s", "1400")
    assert ping(sites.a.host, "10.2.0.10", "-s", "1400")  # fragmented before it is protected
    assert ping(sites.a.host, "10.2.0.10", "-M", "do", "-s", str(1346 - 28))


def test_icmp_from_the_path_lowers_the_mtu(sites: SiteToSite) -> None:
    """A router between the gateways has the narrow link: it answers our ESP with "fragmentation needed"."""
    with site_to_site(f"swr{os.getpid()}", nat=True) as routed:
        assert routed.nat is not None
        routed.nat.run("nft", "flush", "ruleset")
        routed.b.gateway.run("ip", "route", "add", "10.9.0.0/24", "via", "192.0.2.1")
        routed.nat.run("ip", "link", "set", "outside", "mtu", "1300")
        routed.b.gateway.run("ip", "link", "set", "outside", "mtu", "1300")
        child = replace(NETWORKS, outer_a="10.9.0.2")
        with DatapathProcess(routed.a.gateway) as a, DatapathProcess(routed.b.gateway) as b:
            establish(a, b, child)

            ping(routed.a.host, "10.2.0.10", "-M", "do", "-s", "1400")

            wait_until(lambda: outbound_mtu(a) == 1246)
            assert ping(routed.a.host, "10.2.0.10", "-s", "1400")
            assert ping(routed.a.host, "10.2.0.10", "-M", "do", "-s", "1200")


_TCP_SERVER = """
import socket, sys
address = sys.argv[1]
server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
server.bind((address, 7777))
server.listen()
print("up", flush=True)
client, _ = server.accept()
count = 0
while data := client.recv(65536):
    count += len(data)
print(count)
"""
_TCP_CLIENT = """
import socket, sys
socket.create_connection((sys.argv[1], 7777), timeout=60).sendall(bytes(300000))
"""


@pytest.mark.parametrize(("address", "mss"), [("10.2.0.10", 1406), ("fd00:2::10", 1386)])
def test_mss_of_tcp_is_clamped_both_ways(
    sites: SiteToSite,
    both: tuple[DatapathProcess, DatapathProcess],
    address: str,
    mss: int,
    tmp_path: Path,
) -> None:
    establish(*both)
    server = sites.b.host.popen(sys.executable, "-c", _TCP_SERVER, address, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()

    with (
        capturing(sites.b.host, "lan", tmp_path / "b.pcap", "tcp") as at_b,
        capturing(sites.a.host, "lan", tmp_path / "a.pcap", "tcp") as at_a,
    ):
        sites.a.host.run(sys.executable, "-c", _TCP_CLIENT, address)
        output, _ = server.communicate(timeout=60)

    assert output.strip() == "300000"
    assert f"mss {mss}," in _first_line(at_b, "dst port 7777")  # the SYN, as it came out of the tunnel
    assert f"mss {mss}," in _first_line(at_a, "src port 7777")  # and the SYN-ACK


def _first_line(capture: Path, expression: str) -> str:
    done = subprocess.run(
        ["tcpdump", "-n", "-r", str(capture), expression], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[0]


# --- limits ---------------------------------------------------------------------------------------


def test_soft_limits_are_told_and_hard_limits_end_the_sa(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, _ = both
    limited = replace(NETWORKS, lifetime=Lifetime(soft=Limit(packets=3), hard=Limit(packets=5)))
    a.apply(limited.policy_of_a())
    a.install(limited.sas_of_a()[1])

    sites.a.host.run("ping", "-c", "8", "-i", "0.02", "-W", "0.2", "10.2.0.10", check=False)

    events = a.events()
    assert [(e.limit, e.sa_id[:3]) for e in events if isinstance(e, SoftExpire)] == [("packets", "out")]
    assert [(e.limit, e.sa_id[:3]) for e in events if isinstance(e, HardExpire)] == [("packets", "out")]
    assert any(isinstance(e, Acquire) for e in events)  # the packets after the hard limit want a new one
    counts = {sa.sa_id[:3]: sa for sa in a.call("counters").sas}
    assert counts["out"].packets == 5


def test_lifetimes_in_seconds_run_without_traffic(both: tuple[DatapathProcess, DatapathProcess]) -> None:
    a, _ = both
    timed = replace(NETWORKS, lifetime=Lifetime(soft=Limit(seconds=0.2), hard=Limit(seconds=0.5)))

    began = time.monotonic()
    a.install(*timed.sas_of_a())
    seen: list[Any] = []
    wait_until(lambda: seen.extend(a.events()) or len(seen) >= 4)

    assert time.monotonic() - began >= 0.5
    assert [(type(e).__name__, e.limit) for e in seen] == [
        *[("SoftExpire", "seconds")] * 2,
        *[("HardExpire", "seconds")] * 2,
    ]


def test_removed_sa_does_not_expire(both: tuple[DatapathProcess, DatapathProcess]) -> None:
    a, _ = both
    timed = replace(NETWORKS, lifetime=Lifetime(soft=Limit(seconds=0.2)))

    a.install(*timed.sas_of_a())
    a.call("remove_sas", [sa.sa_id for sa in timed.sas_of_a()])
    time.sleep(0.4)

    assert a.events() == []


def test_key_never_comes_back(both: tuple[DatapathProcess, DatapathProcess]) -> None:
    a, _ = both
    outbound = NETWORKS.sas_of_a()[1]
    a.install(outbound)
    a.call("remove_sas", [outbound.sa_id])

    (result,) = a.call("install_sas", [outbound])

    assert result.error.reason is ErrorReason.SPI_IN_USE
    assert "repeat its IVs" in str(result.error)


def test_two_outbound_sas_never_share_a_key(both: tuple[DatapathProcess, DatapathProcess]) -> None:
    a, _ = both
    outbound = NETWORKS.sas_of_a()[1]
    a.install(outbound)

    (result,) = a.call("install_sas", [replace(outbound, spi=outbound.spi + 7)])

    assert result.error.reason is ErrorReason.SPI_IN_USE


# --- what strangers send --------------------------------------------------------------------------


def test_unknown_spis_are_counted_and_told_with_moderation(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, _ = both
    code = (
        "import socket\n"
        "raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)\n"
        "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(50):\n"
        "    raw.sendto((0xABCD0000 + n).to_bytes(4, 'big') + bytes(40), ('192.0.2.1', 0))\n"
        "    udp.sendto((0xABCE0000 + n).to_bytes(4, 'big') + bytes(40), ('192.0.2.1', 4500))\n"
    )
    sites.b.gateway.run(sys.executable, "-c", code)
    wait_until(lambda: drops(a, DropReason.UNKNOWN_SPI) == 100)

    bad = [event for event in a.events() if isinstance(event, BadSpi)]
    assert 5 <= len(bad) <= 20
    assert bad[0].spi == 0xABCD0000
    assert str(bad[0].source) == "192.0.2.2"


def test_replayed_and_forged_packets_are_dropped_by_reason(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess], tmp_path: Path
) -> None:
    a, b = both
    establish(a, b)
    with capturing(
        sites.a.gateway, "outside", tmp_path / "wire.pcap", "proto 50 and src 192.0.2.2"
    ) as capture:
        assert ping(sites.b.host, "10.1.0.10", count=1)
    packet = _first_ip_packet(capture)
    code = (
        "import socket, sys\n"
        "raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n"
        "packet = bytes.fromhex(sys.argv[1])\n"
        "raw.sendto(packet, ('192.0.2.1', 0))\n"
        "raw.sendto(packet[:24] + b'\\0\\0\\0\\x09' + packet[28:], ('192.0.2.1', 0))\n"
    )

    sites.b.gateway.run(sys.executable, "-c", code, packet.hex())

    wait_until(lambda: inbound_counts(a).drops == {DropReason.REPLAY: 1, DropReason.INTEGRITY: 1})
    assert inbound_counts(a).packets == 1


def inbound_counts(process: DatapathProcess) -> SaCounters:
    """Return what is counted of the inbound SA."""
    found: SaCounters = next(sa for sa in process.call("counters").sas if sa.sa_id.startswith("in"))
    return found


def _first_ip_packet(capture: Path) -> bytes:
    data = capture.read_bytes()
    length = int.from_bytes(data[24 + 8 : 24 + 12], "little")
    return data[24 + 16 + 14 : 24 + 16 + length]


def test_moved_peer_is_followed_only_when_it_authenticates(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, b = both
    child = replace(NETWORKS, is_encapsulated=True)
    establish(a, b, child)
    assert ping(sites.b.host, "10.1.0.10")
    # A stranger with the right SPI and no key, from another port.
    spi = next(sa.spi for sa in child.sas_of_a() if sa.direction is Direction.INBOUND)
    sites.b.gateway.run(
        sys.executable,
        "-c",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        f"s.sendto(({spi}).to_bytes(4, 'big') + bytes([0, 0, 1, 0]) + bytes(60), ('192.0.2.1', 4500))",
    )
    wait_until(lambda: inbound_counts(a).drops == {DropReason.INTEGRITY: 1})
    assert a.events() == []

    # b's packets now leave from another port, as after a NAT lost its mapping.
    sites.b.gateway.run("nft", "-f", "-", stdin=_REMAP)
    assert ping(sites.b.host, "10.1.0.10")

    change = a.wait_for_event(MappingChange)
    assert (str(change.old[0]), change.old[1]) == ("192.0.2.2", 4500)
    assert (str(change.new[0]), change.new[1]) == ("192.0.2.2", 61000)
    assert change.spi == spi


_REMAP = """
table ip remap {
  chain post {
    type nat hook postrouting priority 100;
    udp sport 4500 snat to 192.0.2.2:61000
  }
}
"""


def test_datapath_still_answers_under_a_flood(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    a, b = both
    establish(a, b)
    flood = sites.a.host.popen("ping", "-f", "-q", "-l", "500", "10.2.0.10", stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: outbound_packets(a) > 500)
        # Each answer comes while the flood goes on, which has no end.
        for _ in range(20):
            before = outbound_packets(a)
            wait_until(lambda before=before: outbound_packets(a) > before)
        assert flood.poll() is None
    finally:
        flood.kill()
        flood.wait()


def outbound_packets(process: DatapathProcess) -> int:
    """Return how many packets the outbound SA has protected."""
    return next(int(sa.packets) for sa in process.call("counters").sas if sa.sa_id.startswith("out"))


# --- selectors ------------------------------------------------------------------------------------


def test_only_the_selected_ports_are_protected(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess], tmp_path: Path
) -> None:
    a, _ = both
    for gateway, number, peer in ((sites.a.gateway, 2, 2), (sites.b.gateway, 1, 1)):
        gateway.run("ip", "route", "replace", f"10.{number}.0.0/16", "via", f"192.0.2.{peer}")
    a.apply(
        NETWORKS.policy_of_a(
            local_ts=(TrafficSelector.parse("10.1.0.0/16[udp]"),),
            remote_ts=(TrafficSelector.parse("10.2.0.0/16[udp/7000-7009]"),),
            acquire=False,
        )
    )
    with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap", "udp") as capture:
        code = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "[s.sendto(b'x', ('10.2.0.10', p)) for p in (6999, 7000, 7005, 7009, 7010)]"
        )
        sites.a.host.run(sys.executable, "-c", code)
        sites.a.gateway.run(sys.executable, "-c", code)

        wait_until(lambda: drops(a, DropReason.NO_SA) >= 3)

    assert count_packets(capture, "dst portrange 7000-7009 and src host 10.1.0.10") == 0
    assert count_packets(capture, "dst port 6999 or dst port 7010") == 4


def test_icmp_types_are_selected_too(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess], tmp_path: Path
) -> None:
    """A rule cannot say an ICMP type: the forwarder sends on, in clear, what the selectors do not hold."""
    a, _ = both
    sites.a.gateway.run("ip", "route", "replace", "10.2.0.0/16", "via", "192.0.2.2")
    sites.b.gateway.run("ip", "route", "replace", "10.1.0.0/16", "via", "192.0.2.1")
    a.apply(
        NETWORKS.policy_of_a(
            local_ts=(TrafficSelector.parse("10.1.0.0/16[icmp/13]"),),
            remote_ts=(TrafficSelector.parse("10.2.0.0/16[icmp/13]"),),
            acquire=False,
        )
    )

    assert ping(sites.a.host, "10.2.0.10")  # echo requests are type 8
    assert DropReason.NO_SA not in a.call("counters").drops


def test_everything_to_everywhere_works_with_the_peer_inside(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess]
) -> None:
    child = replace(NETWORKS, inner_a=("192.0.2.1", "2001:db8::1"), inner_b=("0.0.0.0/0", "::/0"), name="all")
    establish(*both, child)

    assert ping(sites.a.gateway, "192.0.2.2")
    assert ping(sites.a.gateway, "2001:db8::2")
    assert ping(sites.a.gateway, "10.2.0.10", "-I", "192.0.2.1")
    counts = {sa.sa_id[:3]: sa for sa in both[0].call("counters").sas}
    assert counts["out"].packets >= 6
