"""Our gateway over the kernel's ESP: against strongSwan whose ESP is the kernel's too, and against itself.

One pair of gateways for all tests of a kind: starting them takes longest here. At the end nothing was sent in
clear, and nothing twice with one IV.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bench.flows import two_way_udp
from gateway.bench.topology import Namespace, SiteToSite, site_to_site
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

pytestmark = pytest.mark.guest(together="rig")

IPV4_AND_TCP_BYTES = 40
MAX_TCP_OPTIONS_BYTES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Our gateway at site a, and what its peer at site b can be told to do."""

    sites: SiteToSite
    ours: OurGateway
    log: Callable[[], str]
    """Of the peer."""
    initiate: Callable[[], object]
    rekey_child: Callable[[], object]
    rekey_ike: Callable[[], object]
    reauthenticate: Callable[[], object]
    uses_kernel: tuple[bool, bool]
    """Whether the kernel has the SAs of site a and of site b."""

    def names(self) -> tuple[set[str], set[str]]:
        """Return what tells our IKE SAs and Child SAs from later ones."""
        return {sa.spi_i for sa in self.ours.ike_sas()}, {sa.inbound.spi for sa in self.ours.child_sas()}

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so; else fail with both logs."""
        wait_until(condition, what, lambda: f"{self.ours.log()[-4000:]}\n--- theirs\n{self.log()}", 30.0)

    def settle(self) -> None:
        """Wait until we have one IKE SA and one Child SA; of an old one the inbound half stays for 5 s."""
        self.wait_until(lambda: [len(kind) for kind in self.names()] == [1, 1], "one SA of each kind")


@contextmanager
def strongswan(datapath: str, directory: Path) -> Iterator[Rig]:
    """Our gateway on a datapath against strongSwan on the kernel's ESP."""
    with site_to_site("guest") as sites, ExitStack() as stack:
        enter = stack.enter_context
        enter(nothing_in_clear_and_no_iv_twice(sites, directory, least_esp=20, only_sent=True))
        ours = enter(our_gateway(sites, directory, datapath, at_a=True))
        theirs = enter(
            Charon(
                sites.b.gateway,
                directory / "theirs",
                THEIRS.format(
                    local=sites.b.outside,
                    remote=sites.a.outside,
                    ike=IKE,
                    esp=ESP,
                    ike_options="",
                    child_options="",
                    local_ts=sites.b.inside,
                    remote_ts=sites.a.inside,
                    psk=PSK,
                ),
                settings="make_before_break = yes",
                backend="",
            )
        )
        yield Rig(
            sites=sites,
            ours=ours,
            log=theirs.log,
            initiate=lambda: theirs.initiate("net"),
            rekey_child=lambda: theirs.swanctl("--rekey", "--child", "net"),
            rekey_ike=lambda: theirs.swanctl("--rekey", "--ike", "swan"),
            reauthenticate=lambda: theirs.swanctl("--rekey", "--ike", "swan", "--reauth"),
            uses_kernel=(datapath == "xfrm", True),
        )


@contextmanager
def ourselves(datapaths: tuple[str, str], directory: Path, *, ipv6_outside: bool) -> Iterator[Rig]:
    """Our gateway on one datapath against our gateway on another."""
    with site_to_site("guest") as sites, ExitStack() as stack:
        enter = stack.enter_context
        enter(nothing_in_clear_and_no_iv_twice(sites, directory, least_esp=20, only_sent=True))
        ours, theirs = (
            enter(our_gateway(sites, directory, datapath, at_a=at_a, ipv6_outside=ipv6_outside))
            for datapath, at_a in zip(datapaths, (True, False), strict=True)
        )
        yield Rig(
            sites=sites,
            ours=ours,
            log=theirs.log,
            initiate=lambda: succeed(theirs.up(CONNECTION)),
            rekey_child=lambda: succeed(theirs.rekey(CHILD)),
            rekey_ike=lambda: succeed(theirs.rekey(CONNECTION)),
            reauthenticate=lambda: succeed(theirs.rekey(CONNECTION, reauthenticate=True)),
            uses_kernel=(datapaths[0] == "xfrm", datapaths[1] == "xfrm"),
        )


RIGS: dict[str, Callable[[Path], AbstractContextManager[Rig]]] = {
    "xfrm against strongSwan": lambda directory: strongswan("xfrm", directory),
    "software against strongSwan": lambda directory: strongswan("software", directory),
    "xfrm against xfrm": lambda directory: ourselves(("xfrm", "xfrm"), directory, ipv6_outside=False),
    "xfrm against software, IPv6 outside": lambda directory: ourselves(
        ("xfrm", "software"), directory, ipv6_outside=True
    ),
}

REPEATED = {"software against strongSwan"}
"""For `make test-all`: tests/interop has the software datapath against strongSwan, and the last rig has it
against the kernel's ESP."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in REPEATED else ()) for name in RIGS],
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with RIGS[request.param](tmp_path_factory.mktemp("rig")) as started:
        yield started


def test_traffic_brings_the_tunnel_up(rig: Rig) -> None:
    wait_for_ping(rig.sites.a.host, rig.sites.b.host_address)

    rig.settle()
    wait_for_ping(rig.sites.b.host, rig.sites.a.host_address)


def test_peer_can_begin_too(rig: Rig) -> None:
    rig.ours.down(CONNECTION)
    rig.wait_until(lambda: rig.names() == (set(), set()), "nothing is left")

    rig.initiate()

    rig.settle()
    wait_for_ping(rig.sites.b.host, rig.sites.a.host_address)


@pytest.mark.parametrize("what", ["our Child SA", "their Child SA", "our IKE SA", "their IKE SA"])
def test_rekey_under_load_loses_nothing(rig: Rig, what: str) -> None:
    """Numbered packets both ways; missing and duplicate ones are counted: 0."""
    rekey: dict[str, Callable[[], object]] = {
        "our Child SA": lambda: succeed(rig.ours.rekey(CHILD)),
        "their Child SA": rig.rekey_child,
        "our IKE SA": lambda: succeed(rig.ours.rekey(CONNECTION)),
        "their IKE SA": rig.rekey_ike,
    }
    changed = 0 if "IKE" in what else 1
    rig.settle()
    before = rig.names()[changed]

    a, b = rig.sites.a, rig.sites.b
    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=RATE_PPS) as flow:
        wait_for_traffic(rig.ours)
        rekey[what]()
        rig.wait_until(lambda: rig.names()[changed].isdisjoint(before), "new ones have taken their place")
        rig.settle()
        wait_for_traffic(rig.ours)

    assert min(flow.a.received, flow.b.received) >= 2 * SOME_PACKETS
    assert (flow.missing, flow.duplicates) == (0, 0), f"{flow}\n{rig.ours.log()[-4000:]}"


def test_tcp_of_the_hosts_begins_with_segments_that_fit(rig: Rig) -> None:
    """Though their links carry 1500 bytes, and nothing was too big yet."""
    rig.settle()
    (child_sa,) = rig.ours.child_sas()
    without_options = child_sa.effective_mtu - IPV4_AND_TCP_BYTES

    segments = tcp_segments(rig.sites.a.host, rig.sites.b.host, rig.sites.b.host_address)

    for size in segments:
        assert without_options - MAX_TCP_OPTIONS_BYTES <= size <= without_options


@pytest.mark.parametrize("by", ["us", "the peer"])
def test_reauthentication_under_load_loses_nothing_but_what_comes_too_early(rig: Rig, by: str) -> None:
    """RFC 7296 §2.8.3, make before break.

    A responder may send on the new Child SA while its answer is on the way to the initiator, who can have
    the keys only then: strongSwan at once, we after a quarter of a second. The software datapath keeps such
    packets; the kernel drops them, and counts each.
    """
    rig.settle()
    before, _ = rig.names()
    initiator = rig.sites.a.gateway if by == "us" else rig.sites.b.gateway
    early_before = without_sa(initiator)

    a, b = rig.sites.a, rig.sites.b
    with two_way_udp(a.host, a.host_address, b.host, b.host_address, rate_pps=RATE_PPS) as flow:
        wait_for_traffic(rig.ours)
        if by == "us":
            succeed(rig.ours.rekey(CONNECTION, reauthenticate=True))
        else:
            rig.reauthenticate()
        rig.wait_until(lambda: rig.names()[0].isdisjoint(before), "a new IKE SA takes the place")
        rig.settle()
        wait_for_traffic(rig.ours)

    # With the software datapath the kernel has no SA for any packet.
    early = without_sa(initiator) - early_before if rig.uses_kernel[by != "us"] else 0
    assert min(flow.a.received, flow.b.received) >= 2 * SOME_PACKETS
    assert (flow.missing, flow.duplicates) == (early, 0), f"{flow}\n{rig.ours.log()[-4000:]}"


def without_sa(gateway: Namespace) -> int:
    """Return how many packets the kernel has dropped because it had no SA of their SPI."""
    shown = gateway.run("cat", "/proc/net/xfrm_stat").stdout
    return int(dict(line.split() for line in shown.splitlines())["XfrmInNoStates"])
