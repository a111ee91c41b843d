"""Route-based tunnels over the kernel's ESP: against strongSwan's XFRM interface, and our two kinds."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.topology import SiteToSite, site_to_site
from tests.guest.our_pair import (
    CHILD,
    CONNECTION,
    ESP,
    IKE,
    RATE_PPS,
    SOME_PACKETS,
    our_gateway,
    succeed,
    tcp_segments,
    wait_for_traffic,
)
from tests.interop.conftest import PSK, THEIRS
from tests.interop.our_gateway import OurGateway
from tests.interop.peer import wait_until
from tests.interop.strongswan import Charon
from tests.netns.site_gateways import wait_for_ping
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.guest

EVERYTHING = "0.0.0.0/0"
LATER = "10.77.0.1"


def ours_at(
    sites: SiteToSite, directory: Path, datapath: str, *, at_a: bool
) -> AbstractContextManager[OurGateway]:
    """Run our gateway with an interface that leads to the other site."""
    there = sites.b if at_a else sites.a
    options = f"    interface: {{name: ipsec0, id: 42, routes: [{there.inside}]}}\n"
    return our_gateway(
        sites, directory, datapath, at_a=at_a, child_options=options, selectors=(EVERYTHING, EVERYTHING)
    )


@contextmanager
def strongswan(directory: Path) -> Iterator[tuple[SiteToSite, OurGateway]]:
    """Our XFRM interface against one that strongSwan's operator makes by hand."""
    with site_to_site("guest") as sites, ExitStack() as stack:
        stack.enter_context(nothing_in_clear_and_no_iv_twice(sites, directory, least_esp=20, only_sent=True))
        ip = sites.b.gateway.run
        ip("ip", "link", "add", "ipsec7", "type", "xfrm", "if_id", "7")
        ip("ip", "link", "set", "ipsec7", "up")
        ip("ip", "route", "add", sites.a.inside, "dev", "ipsec7")
        ours = stack.enter_context(ours_at(sites, directory, "xfrm", at_a=True))
        stack.enter_context(
            Charon(
                sites.b.gateway,
                directory / "theirs",
                THEIRS.format(
                    local=sites.b.outside,
                    remote=sites.a.outside,
                    ike=IKE,
                    esp=ESP,
                    ike_options="",
                    child_options="if_id_in = 7\n    if_id_out = 7",
                    local_ts=EVERYTHING,
                    remote_ts=EVERYTHING,
                    psk=PSK,
                ),
                backend="",
            )
        )
        yield sites, ours


@contextmanager
def ourselves(datapaths: tuple[str, str], directory: Path) -> Iterator[tuple[SiteToSite, OurGateway]]:
    """Our gateway on one datapath against our gateway on another."""
    with site_to_site("guest") as sites, ExitStack() as stack:
        stack.enter_context(nothing_in_clear_and_no_iv_twice(sites, directory, least_esp=20, only_sent=True))
        ours, _ = (
            stack.enter_context(ours_at(sites, directory, datapath, at_a=at_a))
            for datapath, at_a in zip(datapaths, (True, False), strict=True)
        )
        yield sites, ours


RIGS: dict[str, Callable[[Path], AbstractContextManager[tuple[SiteToSite, OurGateway]]]] = {
    "xfrm against strongSwan": strongswan,
    "xfrm against software": lambda directory: ourselves(("xfrm", "software"), directory),
}


@pytest.mark.parametrize("rig", RIGS)
def test_new_prefix_is_routed_into_the_tunnel_while_it_carries_and_is_rekeyed(
    rig: str, tmp_path: Path
) -> None:
    with RIGS[rig](tmp_path) as (sites, ours):
        a, b = sites.a, sites.b
        wait_for_ping(a.host, b.host_address)
        (before,) = [sa.inbound.spi for sa in ours.child_sas()]

        with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=RATE_PPS) as flow:
            b.host.run("ip", "address", "add", f"{LATER}/32", "dev", "lo")
            b.gateway.run("ip", "route", "add", LATER, "via", b.host_address)
            a.gateway.run("ip", "route", "add", LATER, "dev", "ipsec0")
            wait_for_ping(a.host, LATER)
            assert [sa.inbound.spi for sa in ours.child_sas()] == [before]
            wait_for_traffic(ours)
            succeed(ours.rekey(CHILD))
            wait_until(
                lambda: before not in {sa.inbound.spi for sa in ours.child_sas()},
                "the new Child SA has taken its place",
                ours.log,
                30.0,
            )
            wait_for_traffic(ours)

        assert min(flow.a.received, flow.b.received) >= 2 * SOME_PACKETS
        assert (flow.missing, flow.duplicates) == (0, 0), f"{flow}\n{ours.log()[-4000:]}"
        wait_for_ping(a.host, LATER)
        (mtu,) = {sa.effective_mtu for sa in ours.child_sas()}
        assert max(tcp_segments(a.host, b.host, b.host_address)) <= mtu - 40
        ours.down(CONNECTION)
