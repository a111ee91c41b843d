"""A gateway behind a masquerading box: UDP 4500, keepalives, and a NAT that forgets and maps anew."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace, SiteToSite, site_to_site
from gateway.inspect.packet import Kind
from tests.netns.site_gateways import (
    Standing,
    can_ping,
    connected,
    listed,
    route_in_clear,
    settle,
    wait_for_ping,
    wait_until,
)
from tests.netns.wire import nothing_in_clear_and_no_iv_twice, packets_of

pytestmark = pytest.mark.netns

_USUAL_PORTS = """
flush chain ip nat postrouting
table ip nat {
  chain postrouting {
    oifname "outside" masquerade
  }
}
"""

_OTHER_PORTS = """
flush chain ip nat postrouting
table ip nat {
  chain postrouting {
    meta l4proto udp oifname "outside" masquerade to :40000-40100
    oifname "outside" masquerade
  }
}
"""

_FORGE = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
    forger.bind(("192.0.2.1", 39999))
    for datagram in sys.argv[1:]:
        forger.sendto(bytes.fromhex(datagram), ("192.0.2.2", 4500))
"""


@dataclass(frozen=True, slots=True)
class BehindNat:
    sites: SiteToSite
    nat: Namespace
    paris: GatewayProcess
    tokyo: GatewayProcess
    wire: Path
    """The outside link of Tokyo."""

    def map_anew(self) -> None:
        """Have the box forget its mappings, and give new ones from other ports."""
        translate(self.nat, _OTHER_PORTS)

    def port_at_tokyo(self) -> int:
        (ike_sa,) = listed(self.tokyo, "ike-sas")
        return int(ike_sa["remote"]["port"])


def translate(nat: Namespace, rules: str) -> None:
    """Have the box translate by these rules, and forget its mappings."""
    nat.run("nft", "-f", "-", stdin=rules)
    nat.run("conntrack", "-F")


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"gn{os.getpid()}", nat=True) as made:
        route_in_clear(made)
        yield made


@pytest.fixture
def behind_nat(sites: SiteToSite, pair: Standing, tmp_path: Path) -> Iterator[BehindNat]:
    assert sites.nat is not None
    translate(sites.nat, _USUAL_PORTS)
    with (
        connected(pair) as (paris, tokyo),
        nothing_in_clear_and_no_iv_twice(sites, tmp_path, least_esp=2) as (_, wire),
    ):
        wait_for_ping(sites.a.host, sites.b.host_address)
        settle(paris, tokyo)
        yield BehindNat(sites, sites.nat, paris, tokyo, wire)


def test_everything_goes_by_udp_port_4500(behind_nat: BehindNat) -> None:
    sites, paris, tokyo = behind_nat.sites, behind_nat.paris, behind_nat.tokyo
    wait_for_ping(sites.b.host, sites.a.host_address)

    paris.ctl("rekey", "paris-tokyo")
    tokyo.ctl("rekey", "paris-tokyo/lan")

    wait_for_ping(sites.b.host, sites.a.host_address)
    settle(paris, tokyo)
    (at_paris,), (at_tokyo,) = listed(paris, "ike-sas"), listed(tokyo, "ike-sas")
    assert (at_paris["nat_local"], at_paris["nat_remote"]) == (True, False)
    assert (at_tokyo["nat_local"], at_tokyo["nat_remote"]) == (False, True)
    assert at_tokyo["remote"]["address"] == "192.0.2.1"
    assert all(sa["udp_encapsulation"] for sa in (*listed(paris, "child-sas"), *listed(tokyo, "child-sas")))
    assert count_packets(behind_nat.wire, "ip proto 50") == 0
    # Only IKE_SA_INIT, before the NAT was known.
    assert count_packets(behind_nat.wire, "udp port 500") == 2


def test_a_new_mapping_is_followed_by_esp_and_ike_when_an_authentic_packet_shows_it(
    behind_nat: BehindNat,
) -> None:
    sites = behind_nat.sites
    wait_until(lambda: can_ping(sites.b.host, sites.a.host_address))
    assert behind_nat.port_at_tokyo() not in range(40000, 40101)

    behind_nat.map_anew()
    assert not can_ping(sites.b.host, sites.a.host_address), "the box knows no mapping for Tokyo's packets"
    wait_for_ping(sites.a.host, sites.b.host_address)

    wait_for_ping(sites.b.host, sites.a.host_address)
    wait_until(lambda: behind_nat.port_at_tokyo() in range(40000, 40101))
    behind_nat.tokyo.ctl("rekey", "paris-tokyo/lan")
    behind_nat.tokyo.ctl("rekey", "paris-tokyo")
    wait_for_ping(sites.b.host, sites.a.host_address)
    settle(behind_nat.paris, behind_nat.tokyo)


def test_forged_packets_from_another_port_move_nothing(behind_nat: BehindNat) -> None:
    sites, tokyo = behind_nat.sites, behind_nat.tokyo
    port = behind_nat.port_at_tokyo()
    (child_sa,) = listed(tokyo, "child-sas")
    (ike_sa,) = listed(tokyo, "ike-sas")
    esp = [f"{child_sa['inbound']['spi']}{n:08x}{n:016x}" + "00" * 92 for n in range(1000, 1020)]
    # INFORMATIONAL { SK { } } of the living IKE SA, with nothing in it that is authentic.
    ike = "00000000" + ike_sa["spi_i"] + ike_sa["spi_r"] + "2e202508" + "00000002" + "00000050"
    ike += "00000034" + "00" * 48

    behind_nat.nat.run("python3", "-c", _FORGE, *esp, *([ike] * 20))

    wait_until(lambda: count_packets(behind_nat.wire, "udp src port 39999") == 40)
    wait_for_ping(sites.b.host, sites.a.host_address)
    assert behind_nat.port_at_tokyo() == port
    assert count_packets(behind_nat.wire, "udp dst port 39999") == 0


@pytest.mark.slow
def test_the_side_behind_the_nat_sends_keepalives_while_it_is_silent(
    behind_nat: BehindNat, tmp_path: Path
) -> None:
    with capturing(behind_nat.sites.a.gateway, "outside", tmp_path / "a.pcap") as from_a:
        wait_until(lambda: count_packets(from_a, "udp dst port 4500 and udp[4:2] = 9") >= 1, timeout_s=60)

    keepalives = list(packets_of(from_a, Kind.KEEPALIVE))
    assert {str(packet.source) for packet in keepalives} == {"10.9.0.2"}
