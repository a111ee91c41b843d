"""Our gateways with SAs for each CPU (RFC 9611) on the guest's kernel: its one CPU has one of its own."""

from pathlib import Path

import pytest

from gateway.api.control.v1 import control_pb2 as pb
from gateway.bench.topology import site_to_site
from tests.guest.our_pair import CHILD, CONNECTION, ESP, IKE, our_gateway, succeed
from tests.interop.conftest import PSK, THEIRS
from tests.interop.our_gateway import OurGateway
from tests.interop.peer import wait_until
from tests.interop.strongswan import Charon
from tests.netns.site_gateways import wait_for_ping

pytestmark = pytest.mark.guest

AUTO = "    per_cpu_sas: auto\n"


def both(gateway: OurGateway) -> list[pb.ChildSa]:
    """Return the Child SA for all CPUs, and that for one."""
    return sorted(gateway.child_sas(), key=lambda sa: sa.HasField("cpu"))


def test_the_cpu_sends_on_its_own_sa_and_both_are_rekeyed(tmp_path: Path) -> None:
    with (
        site_to_site("cpus") as sites,
        our_gateway(sites, tmp_path, "xfrm", at_a=True, child_options=AUTO) as ours,
        our_gateway(sites, tmp_path, "xfrm", at_a=False, child_options=AUTO) as theirs,
    ):
        succeed(ours.up(CHILD))
        for gateway in (ours, theirs):
            wait_until(
                lambda gateway=gateway: [sa.state for sa in gateway.child_sas()] == ["installed"] * 2,
                "a Child SA for the CPU",
                ours.log,
            )
        for_all, of_cpu = both(ours)
        assert (for_all.HasField("cpu"), of_cpu.cpu) == (False, 0)
        assert of_cpu.local_ts == for_all.local_ts

        wait_for_ping(sites.a.host, sites.b.host_address)

        after = both(ours)
        assert after[0].outbound.packets == for_all.outbound.packets
        assert after[1].outbound.packets > of_cpu.outbound.packets

        succeed(ours.rekey(CHILD))
        wait_until(
            lambda: {sa.child_sa_id for sa in ours.child_sas()}.isdisjoint(
                {for_all.child_sa_id, of_cpu.child_sa_id}
            ),
            "both have successors",
            ours.log,
        )
        wait_for_ping(sites.b.host, sites.a.host_address)
        assert sorted(sa.HasField("cpu") for sa in ours.child_sas()) == [False, True]


def test_with_a_peer_that_does_not_know_of_it_there_is_one_sa_for_all(tmp_path: Path) -> None:
    with site_to_site("cpus") as sites:
        theirs = THEIRS.format(
            local=sites.b.outside,
            remote=sites.a.outside,
            ike=IKE,
            esp=ESP,
            ike_options="",
            child_options="",
            local_ts=sites.b.inside,
            remote_ts=sites.a.inside,
            psk=PSK,
        )
        with (
            our_gateway(sites, tmp_path, "xfrm", at_a=True, child_options=AUTO) as ours,
            Charon(sites.b.gateway, tmp_path / "theirs", theirs, backend=""),
        ):
            succeed(ours.up(CHILD))
            wait_for_ping(sites.a.host, sites.b.host_address)

            (child_sa,) = ours.child_sas()
            assert not child_sa.HasField("cpu")
            assert "the peer did not agree to more (RFC 9611)" in ours.explain(CONNECTION)
