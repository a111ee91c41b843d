"""A NIC that carries SAs is pulled out under load: new ones come up in the kernel, and traffic goes on.

Beside the link of the topology the gateways have one of two netdevsims, which the routes prefer. The outside
addresses are on both, so that what is left of the path when the NICs go is a slower link and no NIC.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.api.types.v1 import ipsec_pb2 as types
from gateway.bench.flows import two_way_udp
from gateway.bench.topology import SiteToSite, site_to_site
from tests.conformance.namespace import inside
from tests.guest import netdevsim
from tests.guest.netdevsim import Device
from tests.guest.our_pair import RATE_PPS, SOME_PACKETS, our_gateway, wait_for_traffic
from tests.interop.our_gateway import OurGateway
from tests.interop.peer import wait_until
from tests.netns.site_gateways import wait_for_ping
from tests.netns.wire import nothing_in_clear_and_no_iv_twice

pytestmark = pytest.mark.guest

ENGINES = {"nic_crypto": types.ENGINE_NIC_CRYPTO, "nic_packet": types.ENGINE_NIC_PACKET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both gateways, and the NIC of each."""

    sites: SiteToSite
    ours: OurGateway
    theirs: OurGateway
    carries: types.Engine
    """What the NICs do for the SAs."""
    nics: tuple[Device, Device]

    def placements(self) -> set[types.Engine]:
        """Return where the Child SAs of both are."""
        return {
            half.placement
            for gateway in (self.ours, self.theirs)
            for sa in gateway.child_sas()
            for half in (sa.inbound, sa.outbound)
        }

    def log(self) -> str:
        """Return the ends of both logs."""
        return f"{self.ours.log()[-4000:]}\n--- theirs\n{self.theirs.log()[-4000:]}"


@pytest.fixture(params=ENGINES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    wish = f"    placement: {{prefer: [{request.param}, kernel]}}\n"
    with site_to_site("guest") as sites, ExitStack() as stack:
        ends = ((1, sites.a, sites.b), (2, sites.b, sites.a))
        nics = []
        for number, here, there in ends:
            with inside(here.gateway):
                nic = stack.enter_context(netdevsim.device(number=number, full=True))
            here.gateway.run("ip", "address", "add", f"{here.outside}/32", "dev", nic.name)
            here.gateway.run(
                "ip", "route", "add", f"{there.outside}/32", "dev", nic.name, "src", here.outside
            )
            nics.append(nic)
        netdevsim.connect(nics[0], sites.a.gateway, nics[1], sites.b.gateway)
        # What the NICs send is not encrypted: only the other link can be looked at.
        stack.enter_context(nothing_in_clear_and_no_iv_twice(sites, tmp_path, least_esp=10, only_sent=True))
        ours, theirs = (
            stack.enter_context(
                our_gateway(sites, tmp_path, "auto", at_a=at_a, esp="aes128gcm16-x25519", child_options=wish)
            )
            for at_a in (True, False)
        )
        carries = ENGINES[request.param]
        yield Pair(sites=sites, ours=ours, theirs=theirs, carries=carries, nics=(nics[0], nics[1]))


def test_pulled_nics_move_the_child_sa_to_the_kernel(pair: Pair) -> None:
    a, b = pair.sites.a, pair.sites.b
    wait_for_ping(a.host, b.host_address)
    wait_until(lambda: pair.placements() == {pair.carries}, "NICs carry the SAs", pair.log)
    sent_before = pair.nics[0].sent_by_sas()

    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=RATE_PPS) as flow:
        wait_for_traffic(pair.ours)
        assert pair.nics[0].sent_by_sas() >= sent_before + SOME_PACKETS
        for nic in pair.nics:
            netdevsim.unplug(nic)
        wait_until(lambda: pair.placements() == {types.ENGINE_KERNEL}, "the kernel carries", pair.log, 30.0)
        wait_for_ping(a.host, b.host_address)
        wait_for_ping(b.host, a.host_address)

    # Between the loss and the new SAs packets are lost; none leaves in clear.
    assert min(flow.a.received, flow.b.received) >= SOME_PACKETS
    for event in ("sas_lost", "placement_changed"):
        assert event in pair.ours.log(), pair.log()
    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=RATE_PPS) as after:
        wait_for_traffic(pair.ours)
    assert min(after.a.received, after.b.received) >= SOME_PACKETS
    assert (after.missing, after.duplicates) == (0, 0)
