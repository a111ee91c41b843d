"""ICMP errors of gateways whose native engine has the interfaces: path MTU discovery and traceroute.

The rig is that of `test_gateway_xdp`: what does not fit, or has no hops left, the kernel never sees.
"""

import re
import subprocess
from collections.abc import Iterator

import pytest

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import Namespace
from tests.engine.conftest import make
from tests.netns.site_gateways import wait_until
from tests.netns.test_gateway_xdp import ESPD, SIDES, Running, running, settled

pytestmark = pytest.mark.netns

LINK_MTU = 1500
HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes of a ping's IP and ICMP headers."""
OURS = {4: "10.1.0.1", 6: "fd00:1::1"}
THEIRS = {4: "10.2.0.1", 6: "fd00:2::1"}
"""Of each gateway, on the side of its host."""
NARROW_MTU = 1360
TOO_BIG = re.compile(r"From (\S+) .*(?:Frag needed and DF set \(mtu = |Packet too big: mtu=)(\d+)")
EXCEEDED = re.compile(r"From (\S+) .*Time (?:to live )?exceeded")


@pytest.fixture(scope="module", params=SIDES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECGW_ESPD", str(make("espd", source=ESPD) / "espd"))
        with running(tmp_path_factory.mktemp("icmp"), *SIDES[request.param], prefix="gi") as made:
            wait_until(lambda: settled(made))
            yield made


def ping(host: Namespace, address: str, *options: str) -> str:
    """Return what ping says of one echo request, which may be answered by anything."""
    done: subprocess.CompletedProcess[str] = host.run(
        "ping", "-n", "-c1", "-W10", *options, address, check=False
    )
    return done.stdout + done.stderr


def ping_whole(run: Running, version: int, packet_bytes: int) -> str:
    """Return what ping says of a packet of that size, which nobody may cut; the host knows of no limit."""
    site, peer = run.sites.a, run.sites.b
    site.host.run("ip", f"-{version}", "route", "flush", "cache")
    address = peer.host_address if version == 4 else peer.host_address_v6
    return ping(site.host, address, "-M", "do", "-s", str(packet_bytes - HEADERS[version]))


def dropped(gateway: GatewayProcess, reason: str) -> int:
    """Return how many packets a gateway has dropped for a reason; the kernel counts its own elsewhere."""
    drops = gateway.json("status")["datapath_drops"]
    return sum(int(drop["packets"]) for drop in drops if drop["reason"] == reason)


def too_big(said: str) -> tuple[str, int]:
    """Return who said that a packet is too big, and what fits."""
    found = TOO_BIG.search(said)
    assert found, said
    return found[1], int(found[2])


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_learns_what_fits_the_tunnel(run: Running, version: int) -> None:
    before = dropped(run.paris, "too_big")

    source, mtu = too_big(ping_whole(run, version, LINK_MTU))

    assert source == OURS[version]
    assert 1280 <= mtu < LINK_MTU
    assert "1 received" in ping_whole(run, version, mtu)
    assert too_big(ping_whole(run, version, mtu + 1)) == (source, mtu)
    assert dropped(run.paris, "too_big") == before + 2


@pytest.mark.parametrize("version", [4, 6])
def test_both_gateways_are_hops_of_a_traceroute(run: Running, version: int) -> None:
    host, peer = run.sites.a.host, run.sites.b
    address = peer.host_address if version == 4 else peer.host_address_v6

    before = [dropped(gateway, "ttl_expired") for gateway in (run.paris, run.tokyo)]

    said = [ping(host, address, "-t", str(hops)) for hops in (1, 2, 3)]

    seen = [found[1] for text in said if (found := EXCEEDED.search(text))]
    assert seen == [OURS[version], THEIRS[version]], said
    assert "1 received" in said[2], said
    after = [dropped(gateway, "ttl_expired") for gateway in (run.paris, run.tokyo)]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1]


@pytest.mark.parametrize("run", ["two-sides"], indirect=True)
@pytest.mark.parametrize("version", [4, 6])
def test_a_host_learns_through_the_tunnel_what_fits_beyond_it(run: Running, version: int) -> None:
    """The MTU of the interface changes while espd has it."""
    far = run.sites.b.gateway
    far.run("ip", "link", "set", "inside", "mtu", str(NARROW_MTU))
    try:
        wait_until(lambda: TOO_BIG.search(ping_whole(run, version, NARROW_MTU + 1)))

        assert too_big(ping_whole(run, version, NARROW_MTU + 1)) == (THEIRS[version], NARROW_MTU)
        assert "1 received" in ping_whole(run, version, NARROW_MTU)
    finally:
        far.run("ip", "link", "set", "inside", "mtu", str(LINK_MTU))


@pytest.mark.parametrize("run", ["two-sides"], indirect=True)
def test_errors_come_from_the_address_that_the_gateway_has_now(run: Running) -> None:
    gateway, host = run.sites.a.gateway, run.sites.a.host

    def source() -> str | None:
        found = EXCEEDED.search(ping(host, run.sites.b.host_address, "-t", "1"))
        return found and found[1]

    # Of a link the first is the primary one.
    ours = f"{OURS[4]}/16"
    for words in (("del", ours), ("add", "10.1.0.77/16"), ("add", ours)):
        gateway.run("ip", "address", *words, "dev", "inside")
    try:
        wait_until(lambda: source() == "10.1.0.77")
    finally:
        # With the primary one go the others of its network.
        for words in (("del", "10.1.0.77/16"), ("replace", ours)):
            gateway.run("ip", "address", *words, "dev", "inside")
    wait_until(lambda: source() == OURS[4])
