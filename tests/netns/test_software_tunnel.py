"""Two software datapaths with manual keys carry pings: every family inside and outside, mode and wrapping."""

import os
from collections.abc import Iterator

import pytest

from gateway.bench.topology import SiteToSite, site_to_site
from gateway.ipsec.sa import Mode
from tests.netns.datapath_process import DatapathProcess
from tests.netns.sas import ChildSa

pytestmark = pytest.mark.netns

OUTER = {"v4": ("192.0.2.1", "192.0.2.2"), "v6": ("2001:db8::1", "2001:db8::2")}
INNER = {"v4": ("10.1.0.0/16", "10.2.0.0/16"), "v6": ("fd00:1::/64", "fd00:2::/64")}
HOST_B = {"v4": "10.2.0.10", "v6": "fd00:2::10"}
HOST_A = {"v4": "10.1.0.10", "v6": "fd00:1::10"}


@pytest.fixture
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"swt{os.getpid()}") as made:
        yield made


@pytest.fixture
def both(sites: SiteToSite) -> Iterator[tuple[DatapathProcess, DatapathProcess]]:
    with DatapathProcess(sites.a.gateway) as a, DatapathProcess(sites.b.gateway) as b:
        yield a, b


def establish(a: DatapathProcess, b: DatapathProcess, child: ChildSa) -> None:
    a.apply(child.policy_of_a())
    b.apply(child.policy_of_b())
    a.install(*child.sas_of_a())
    b.install(*child.sas_of_b())


@pytest.mark.parametrize("encapsulation", ["esp", "udp"])
@pytest.mark.parametrize("inside", ["v4", "v6"])
@pytest.mark.parametrize("outside", ["v4", "v6"])
def test_networks_behind_gateways_reach_each_other(
    sites: SiteToSite,
    both: tuple[DatapathProcess, DatapathProcess],
    outside: str,
    inside: str,
    encapsulation: str,
) -> None:
    child = ChildSa(
        outer_a=OUTER[outside][0],
        outer_b=OUTER[outside][1],
        inner_a=(INNER[inside][0],),
        inner_b=(INNER[inside][1],),
        is_encapsulated=encapsulation == "udp",
    )
    establish(*both, child)

    sites.a.host.run("ping", "-c", "3", "-i", "0.05", "-W", "2", HOST_B[inside])
    sites.b.host.run("ping", "-c", "3", "-i", "0.05", "-W", "2", HOST_A[inside])

    counts = {sa.sa_id.split(":")[0]: sa for sa in both[0].call("counters").sas}
    assert counts["out"].packets == 6
    assert counts["in"].packets == 6
    assert counts["out"].sequence == 6


@pytest.mark.parametrize("encapsulation", ["esp", "udp"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_gateways_reach_each_other_with_selectors_that_hold_their_own_addresses(
    sites: SiteToSite,
    both: tuple[DatapathProcess, DatapathProcess],
    family: str,
    mode: Mode,
    encapsulation: str,
) -> None:
    address_a, address_b = OUTER[family]
    child = ChildSa(
        outer_a=address_a,
        outer_b=address_b,
        inner_a=(address_a,),
        inner_b=(address_b,),
        mode=mode,
        is_encapsulated=encapsulation == "udp",
    )
    establish(*both, child)

    sites.a.gateway.run("ping", "-c", "3", "-i", "0.05", "-W", "2", address_b)
    sites.b.gateway.run("ping", "-c", "3", "-i", "0.05", "-W", "2", "-s", "1300", address_a)

    counts = {sa.sa_id.split(":")[0]: sa for sa in both[0].call("counters").sas}
    assert counts["out"].packets == 6
    assert counts["in"].packets == 6


@pytest.mark.parametrize("mode", list(Mode))
def test_strict_reverse_path_filtering_lets_the_peers_esp_in(
    sites: SiteToSite, both: tuple[DatapathProcess, DatapathProcess], mode: Mode
) -> None:
    for gateway in (sites.a.gateway, sites.b.gateway):
        gateway.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    child = ChildSa(
        outer_a="192.0.2.1",
        outer_b="192.0.2.2",
        inner_a=("192.0.2.1", "10.1.0.0/16") if mode is Mode.TUNNEL else ("192.0.2.1",),
        inner_b=("192.0.2.2", "10.2.0.0/16") if mode is Mode.TUNNEL else ("192.0.2.2",),
        mode=mode,
    )
    establish(*both, child)

    sites.a.gateway.run("ping", "-c", "2", "-i", "0.05", "-W", "2", "192.0.2.2")
    sites.b.gateway.run("ping", "-c", "2", "-i", "0.05", "-W", "2", "192.0.2.1")
    if mode is Mode.TUNNEL:
        sites.a.host.run("ping", "-c", "2", "-i", "0.05", "-W", "2", "10.2.0.10")
