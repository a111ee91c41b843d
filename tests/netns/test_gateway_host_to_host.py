"""Server A to server B: the selectors are the gateways' own outer addresses, and everything else must go on.

IKE, ESP and neighbour discovery between the two have the same addresses as what is protected.
"""

import time
from pathlib import Path

import pytest

from gateway.bench.capture import capturing, count_packets
from gateway.bench.flows import tcp_transfer, two_way_udp
from gateway.bench.topology import Namespace, SiteToSite
from tests.netns.site_gateways import Standing, Wish, connected, listed, settle, wait_for_ping, wait_until

pytestmark = pytest.mark.netns

_A_MOMENT_S = 0.3
"""Of traffic after each rekey."""
#: What is between the two and neither IKE, nor ESP, nor neighbour discovery.
_IN_CLEAR = {
    4: "ip and host 192.0.2.1 and host 192.0.2.2 and not (ip proto 50 or udp port 500 or udp port 4500)",
    6: "ip6 and host 2001:db8::1 and host 2001:db8::2 and not "
    "(ip6 proto 50 or udp port 500 or udp port 4500 or (icmp6 and (ip6[40] = 135 or ip6[40] = 136)))",
}


@pytest.mark.parametrize(
    ("mode", "version"),
    [
        ("transport", 4),
        ("tunnel", 6),
        pytest.param("transport", 6, marks=pytest.mark.slow),
        pytest.param("tunnel", 4, marks=pytest.mark.slow),
    ],
)
def test_two_servers_protect_all_that_is_between_them(
    sites: SiteToSite, pair: Standing, tmp_path: Path, mode: str, version: int
) -> None:
    wish = Wish(
        children=(f"{{name: hosts, mode: {mode}, start: $start}}",),
        ike="dpd_delay: 1s",
        start="start",
        start_at_tokyo="none",
        ipv6_outside=version == 6,
    )
    a, b = sites.a.gateway, sites.b.gateway
    of_a, of_b = ((site.outside_v6 if version == 6 else site.outside) for site in (sites.a, sites.b))
    with connected(pair, wish) as (paris, tokyo):
        settle(paris, tokyo)
        with capturing(a, "outside", tmp_path / "wire.pcap") as wire:
            wait_for_ping(a, of_b)
            wait_for_ping(b, of_a)
            assert tcp_transfer(a, b, of_b, 1 << 20).intact
            _forget_neighbours(a, b)
            wait_for_ping(a, of_b)
            with two_way_udp(a, of_a, b, of_b, rate_pps=500) as flow:
                for gateway, target in (
                    (paris, "paris-tokyo/hosts"),
                    (tokyo, "paris-tokyo/hosts"),
                    (paris, "paris-tokyo"),
                    (tokyo, "paris-tokyo"),
                ):
                    gateway.ctl("rekey", target)
                    time.sleep(_A_MOMENT_S)
            before = count_packets(wire, "udp port 500")
            # Two liveness checks at least, of two messages each.
            wait_until(lambda: count_packets(wire, "udp port 500") >= before + 4)

        assert (flow.missing, flow.duplicates) == (0, 0)
        assert count_packets(wire, _IN_CLEAR[version]) == 0
        assert count_packets(wire, "ip proto 50 or ip6 proto 50") > 500
        settle(paris, tokyo)
        assert [sa["mode"] for sa in listed(paris, "child-sas")] == [mode]


def _forget_neighbours(*gateways: Namespace) -> None:
    for gateway in gateways:
        gateway.run("ip", "neighbour", "flush", "dev", "outside")
