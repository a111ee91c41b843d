"""AH between two whole gateways: negotiated, carried under rekeys, both modes and families, none in clear."""

import time
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.flows import tcp_transfer, two_way_udp
from gateway.bench.topology import SiteToSite
from gateway.inspect.packet import Kind
from tests.netns.site_gateways import Standing, Wish, connected, listed, settle, wait_for_ping
from tests.netns.wire import packets_of

pytestmark = pytest.mark.netns

AH = "ip proto 51 or ip6 proto 51"
_A_MOMENT_S = 0.3
"""Of traffic after each rekey."""
#: What is between the two and neither IKE, nor AH, nor neighbour discovery. AH of IPv6 is an extension header
#: to libpcap too: the base header says what it is.
IN_CLEAR = {
    4: "ip and host 192.0.2.1 and host 192.0.2.2 and not (ip proto 51 or udp port 500)",
    6: "ip6 and host 2001:db8::1 and host 2001:db8::2 and not "
    "(ip6[6] = 51 or udp port 500 or (icmp6 and (ip6[40] = 135 or ip6[40] = 136)))",
}


@pytest.mark.parametrize(
    ("mode", "version", "words"),
    [
        ("transport", 4, "sha256-x25519"),
        ("transport", 6, "aes128gmac"),
        ("tunnel", 4, "sha512-esn"),
        pytest.param("tunnel", 6, "aesxcbc", marks=pytest.mark.slow),
    ],
)
def test_two_servers_authenticate_all_that_is_between_them(
    pair: Standing, tmp_path: Path, mode: str, version: int, words: str
) -> None:
    wish = Wish(
        children=(f"{{name: hosts, mode: {mode}, start: $start, ah: {{proposals: [{words}]}}}}",),
        start="start",
        start_at_tokyo="none",
        ipv6_outside=version == 6,
    )
    sites = pair.sites
    a, b = sites.a.gateway, sites.b.gateway
    of_a, of_b = ((site.outside_v6 if version == 6 else site.outside) for site in (sites.a, sites.b))
    with connected(pair, wish) as (paris, tokyo):
        settle(paris, tokyo)
        with capturing(a, "outside", tmp_path / "wire.pcap") as wire:
            wait_for_ping(a, of_b)
            wait_for_ping(b, of_a)
            assert tcp_transfer(a, b, of_b, 1 << 20).intact
            with two_way_udp(a, of_a, b, of_b, rate_pps=300) as flow:
                for gateway, target in (
                    (paris, "paris-tokyo/hosts"),
                    (tokyo, "paris-tokyo/hosts"),
                    (paris, "paris-tokyo"),
                ):
                    gateway.ctl("rekey", target)
                    time.sleep(_A_MOMENT_S)

        assert (flow.missing, flow.duplicates) == (0, 0)
        assert count_packets(wire, IN_CLEAR[version]) == 0
        assert count_packets(wire, AH) > 500
        settle(paris, tokyo)
        assert [sa["mode"] for sa in listed(paris, "child-sas")] == [mode]
        # SPI and sequence number never come twice.
        sent = [(p.destination, p.data[4:12]) for p in packets_of(wire, Kind.AH)]
        assert len(sent) == len(set(sent))


def test_two_sites_authenticate_through_a_tunnel_and_large_packets_arrive(
    sites: SiteToSite, pair: Standing, tmp_path: Path
) -> None:
    wish = Wish(
        children=(
            "{name: lan, local_ts: [$local_net], remote_ts: [$remote_net], copy_df: false, "
            "ah: {proposals: [sha384]}, start: $start}",
        ),
        start="start",
        start_at_tokyo="none",
    )
    with connected(pair, wish) as (paris, tokyo):
        settle(paris, tokyo)
        with capturing(sites.a.gateway, "outside", tmp_path / "wire.pcap") as wire:
            wait_for_ping(sites.a.host, sites.b.host_address)
            done = sites.a.host.run("ping", "-c", "3", "-i", "0.1", "-s", "4000", sites.b.host_address)
            assert "3 received" in done.stdout
            assert tcp_transfer(sites.a.host, sites.b.host, sites.b.host_address, 1 << 20).intact

        assert count_packets(wire, "net 10.0.0.0/8") == 0
        assert count_packets(wire, AH) > 500
