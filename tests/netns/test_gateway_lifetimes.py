"""Rekeys by lifetime on the real thing, both ends starting at once, and rekeys during a flood of packets."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.site_gateways import Standing, Wish, connected, paris_and_tokyo, settle, wait_until

pytestmark = pytest.mark.netns

_CHILD = (
    "{name: lan, local_ts: [$local_net], remote_ts: [$remote_net], esp: {proposals: [aes256gcm16-x25519]}, "
    "start: $start, %s}"
)
_SHORT_LIVES = Wish(
    children=(_CHILD % "rekey: 3s, rekey_packets: 3000, jitter: 0.3, over_fraction: 3",),
    ike="rekey: 4s, over_time: 20s, jitter: 0.3",
    start="start",
    start_at_tokyo="none",
)

_FLOOD = """
import socket, sys, time
sent, end = 0, time.monotonic() + float(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.connect((sys.argv[1], 9))
    while time.monotonic() < end:
        for _ in range(64):
            try:
                sender.send(bytes(1000))
            except OSError:
                continue
            sent += 1
print(sent)
"""


def events(gateway: GatewayProcess) -> Counter[str]:
    """Return how often each event was logged."""
    lines = (line for line in gateway.log().splitlines() if line.startswith("{"))
    return Counter(json.loads(line)["event"] for line in lines)


def assert_no_sa_was_lost(*both: GatewayProcess) -> None:
    for gateway in both:
        lost = {"ike_sa_failed", "child_sa_failed", "child_sa_rekey_failed", "sa_hard_expired"}
        assert not lost & events(gateway).keys(), gateway.log_tail(60)


def test_both_ends_starting_at_once_converge_to_one_ike_sa_and_one_child_sa(tmp_path: Path) -> None:
    with (
        site_to_site(f"gl{os.getpid()}") as sites,
        paris_and_tokyo(sites, tmp_path, Wish(start="start")) as (paris, tokyo),
    ):
        settle(paris, tokyo)
        with two_way_udp(sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address) as flow:
            time.sleep(1.5)

        settle(paris, tokyo)
        assert (flow.missing, flow.duplicates) == (0, 0)
        spis = [sa["ike_sas"][0]["spi_i"] for sa in (g.json("list", "ike-sas") for g in (paris, tokyo))]
        assert spis[0] == spis[1]


@pytest.mark.parametrize("seconds", [7, pytest.param(20, marks=pytest.mark.slow)])
def test_short_lifetimes_at_both_ends_lose_no_packet(sites: SiteToSite, pair: Standing, seconds: int) -> None:
    with connected(pair, _SHORT_LIVES) as (paris, tokyo):
        wait_until(lambda: all("child_sa_established" in gateway.log() for gateway in (paris, tokyo)))
        both = (sites.a.host, sites.a.host_address, sites.b.host, sites.b.host_address)
        with two_way_udp(*both, rate_pps=500) as flow:
            time.sleep(seconds)

        assert (flow.missing, flow.duplicates) == (0, 0), paris.log_tail(60)
        assert events(paris)["child_sa_rekeyed"] >= seconds // 4
        assert events(paris)["ike_sa_rekeyed"] >= seconds // 6
        assert_no_sa_was_lost(paris, tokyo)


def test_liveness_checks_and_rekeys_survive_a_flood_of_the_software_datapath(
    sites: SiteToSite, pair: Standing
) -> None:
    wish = Wish(ike="dpd_delay: 1s")
    with connected(pair, wish) as (paris, tokyo):
        paris.ctl("up", "paris-tokyo")
        with flooding(sites, seconds=4.0) as floods:
            rounds = 0
            while any(flood.poll() is None for flood in floods):
                for target in ("paris-tokyo/lan", "paris-tokyo"):
                    paris.ctl("rekey", target)
                    # Its datapath is as busy: it may not have heard yet that what Paris rekeyed is in place.
                    wait_until(lambda target=target: tokyo.ctl("rekey", target, check=False).returncode == 0)
                rounds += 1
            sent = sum(int(flood.communicate()[0]) for flood in floods)

        settle(paris, tokyo)
        assert rounds >= 1
        assert events(paris)["child_sa_rekeyed"] >= 2 * rounds
        assert events(paris)["ike_sa_rekeyed"] >= 2 * rounds
        assert "ike_sa_established" in events(paris)
        assert events(paris)["ike_sa_established"] == 1, "the first IKE SA and its heirs lived through it"
        assert_no_sa_was_lost(paris, tokyo)
        assert sent > 2_000, "that was no flood"


@contextmanager
def flooding(sites: SiteToSite, *, seconds: float) -> Iterator[list["subprocess.Popen[str]"]]:
    """Send as many datagrams as can be, both ways."""
    floods = [
        here.host.popen(
            *(sys.executable, "-c", _FLOOD, there.host_address, str(seconds)), stdout=subprocess.PIPE
        )
        for here, there in ((sites.a, sites.b), (sites.b, sites.a))
    ]
    try:
        yield floods
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()
