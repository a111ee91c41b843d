"""The smoke test: two `ipsecgw run` in namespaces, one PSK, AES-GCM, and a ping that makes the tunnel."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.topology import SiteToSite
from tests.netns.command import Gateway
from tests.netns.site_gateways import paris_and_tokyo

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def both(sites: SiteToSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Gateway]]:
    with paris_and_tokyo(sites, tmp_path_factory.mktemp("pair")) as made:
        yield made


def test_the_first_ping_makes_the_tunnel_and_the_next_ones_use_it_both_ways(
    sites: SiteToSite, both: tuple[Gateway, Gateway]
) -> None:
    paris, tokyo = both
    # The very first packet is held until there is an SA, not lost.
    there = sites.a.host.run("ping", "-c3", "-i0.2", "-W5", sites.b.host_address, check=False)
    back = sites.b.host.run("ping", "-c3", "-i0.2", "-W5", sites.a.host_address, check=False)

    assert " 0% packet loss" in there.stdout, there.stdout + paris.log_tail()
    assert " 0% packet loss" in back.stdout, back.stdout + tokyo.log_tail()
    for gateway in (paris, tokyo):
        (child_sa,) = gateway.json("list", "child-sas")["child_sas"]
        assert child_sa["state"] == "installed"
        assert (child_sa["inbound"]["packets"], child_sa["outbound"]["packets"]) == (6, 6)
        (ike_sa,) = gateway.json("list", "ike-sas")["ike_sas"]
        assert ike_sa["state"] == "established"


def test_neither_process_shows_its_keys_to_a_core_file_and_the_controller_has_no_privilege(
    both: tuple[Gateway, Gateway],
) -> None:
    paris, _ = both
    agent, controller = (Path(f"/proc/{paris.pid_of(role)}") for role in ("agent", "controller"))

    for process in (agent, controller):
        limits = (process / "limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), limits
    status = (controller / "status").read_text()
    uids = re.search(r"^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$", status, re.MULTILINE)
    assert uids is not None
    assert "0" not in uids.groups()
    assert re.search(r"^Groups:\t(\d+ ?)*$", status, re.MULTILINE)
    assert re.search(r"^CapPrm:\t0+$", status, re.MULTILINE)
    assert re.search(r"^CapInh:\t0+$", status, re.MULTILINE)
    assert re.search(r"^CapAmb:\t0+$", status, re.MULTILINE)
    assert "NoNewPrivs:\t1" in status
    # A process that may not be dumped belongs to root in /proc, whatever its user.
    assert (controller / "environ").stat().st_uid == 0
    for thread in (controller / "task").iterdir():
        assert re.search(r"^CapEff:\t0+$", (thread / "status").read_text(), re.MULTILINE)
