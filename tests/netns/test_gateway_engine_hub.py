"""What one peer sends for the networks of another, at a gateway whose native engine has the outer interface.

The routes lead it back out to the peers; it is the kernel's, whose guard drops what should be protected.
"""

import os
from pathlib import Path

import pytest

from gateway.bench.topology import site_to_site
from tests.engine.conftest import make
from tests.netns.site_gateways import (
    LAN,
    Wish,
    config,
    gateways,
    route_in_clear,
    running,
    wait_for_ping,
    wait_until,
)
from tests.netns.test_gateway_icmp import dropped
from tests.netns.test_gateway_xdp import ESPD, SIDES, make_fit_for_xdp

pytestmark = pytest.mark.netns

_ELSEWHERE = (
    "{name: elsewhere, local_ts: [$remote_net], remote_ts: [10.1.99.0/24], "
    "esp: {proposals: [aes256gcm16-x25519]}, start: $start}"
)
"""Of the other side's network to one that Tokyo takes for a part of Paris's."""
_PACKETS = 5


def test_what_one_peer_sends_for_the_networks_of_another_never_leaves_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
    with site_to_site(f"gh{os.getpid()}") as sites:
        route_in_clear(sites)
        for site in (sites.a, sites.b):
            make_fit_for_xdp(site)
        words = ("--datapath", "engine", "--teardown", *SIDES["two-sides"])
        paris, tokyo = gateways(sites, tmp_path, options=words)
        paris.config = config(sites, of_a=True, wish=Wish(children=(LAN, _ELSEWHERE)))
        with running(paris, tokyo):
            paris.ctl("up", "paris-tokyo/lan")
            wait_for_ping(sites.a.host, sites.b.host_address)
            sites.a.gateway.run("ip", "route", "add", "10.1.99.0/24", "via", sites.b.outside)
            before = dropped(paris, "no_sa")

            # A second apart: but for the first perhaps espd knows the route too.
            for _ in range(_PACKETS):
                sites.b.host.run("ping", "-c1", "-W1", "10.1.99.1", check=False)

            wait_until(lambda: dropped(paris, "no_sa") == before + _PACKETS)
