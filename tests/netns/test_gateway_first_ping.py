"""The smoke test: two `ipsecgw run` in namespaces, one PSK, AES-GCM, and a ping that makes the tunnel."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bench.process import GatewayProcess
from gateway.bench.topology import SiteToSite, site_to_site

pytestmark = pytest.mark.netns

CONFIG = """
connections:
- name: paris-tokyo
  local:  {{address: {local}, id: {local_id}, auth: {{psk: {{file: test.psk}}}}}}
  remote: {{address: {remote}, id: {remote_id}, auth: {{psk: {{file: test.psk}}}}}}
  ike: {{proposals: [aes256gcm16-prfsha384-x25519]}}
  children:
  - name: lan
    local_ts: [{local_net}]
    remote_ts: [{remote_net}]
    esp: {{proposals: [aes256gcm16-x25519]}}
    start: on_traffic
"""


def config(topology: SiteToSite, *, of_a: bool) -> str:
    """Return the configuration of one side."""
    here, there = (topology.a, topology.b) if of_a else (topology.b, topology.a)
    ids = ("gw-paris.example", "gw-tokyo.example")
    return CONFIG.format(
        local=here.outside,
        remote=there.outside,
        local_id=ids[not of_a],
        remote_id=ids[of_a],
        local_net=here.inside,
        remote_net=there.inside,
    )


@pytest.fixture
def topology() -> Iterator[SiteToSite]:
    with site_to_site(f"fp{os.getpid() % 10000}") as sites:
        yield sites


@pytest.fixture
def paris_and_tokyo(topology: SiteToSite, tmp_path: Path) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    gateways = []
    for site, name in ((topology.a, "paris"), (topology.b, "tokyo")):
        directory = tmp_path / name
        directory.mkdir()
        psk = directory / "test.psk"
        psk.write_text("correct horse battery staple\n")
        psk.chmod(0o600)
        text = config(topology, of_a=site is topology.a)
        gateways.append(GatewayProcess(site.gateway, directory, text))
    with gateways[0] as paris, gateways[1] as tokyo:
        yield paris, tokyo


def test_the_first_ping_makes_the_tunnel_and_the_next_ones_use_it_both_ways(
    topology: SiteToSite, paris_and_tokyo: tuple[GatewayProcess, GatewayProcess]
) -> None:
    paris, tokyo = paris_and_tokyo

    # The very first packet is held until there is an SA, not lost.
    there = topology.a.host.run(
        "ping", "-c", "3", "-i", "0.2", "-W", "5", topology.b.host_address, check=False
    )
    back = topology.b.host.run(
        "ping", "-c", "3", "-i", "0.2", "-W", "5", topology.a.host_address, check=False
    )

    assert there.returncode == 0, there.stdout + paris.log_tail()
    assert " 0% packet loss" in there.stdout
    assert back.returncode == 0, back.stdout + tokyo.log_tail()
    for gateway in (paris, tokyo):
        (child_sa,) = gateway.json("list", "child-sas")["child_sas"]
        assert child_sa["state"] == "installed"
        assert (child_sa["inbound"]["packets"], child_sa["outbound"]["packets"]) == (6, 6)
        (ike_sa,) = gateway.json("list", "ike-sas")["ike_sas"]
        assert ike_sa["state"] == "established"
