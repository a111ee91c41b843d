"""Gateways whose agents hold every backend that can run: what became of each child's wish is told."""

import json
import os
from collections.abc import Iterator

import pytest

from gateway.bench.process import GatewayProcess, GatewayProcessError
from gateway.bench.topology import SiteToSite, site_to_site
from tests.netns.site_gateways import Wish, can_ping, gateways, running

pytestmark = pytest.mark.netns

_CHILD = (
    "{{name: {name}, local_ts: ['$local_net[{protocol}]'], remote_ts: ['$remote_net[{protocol}]'], "
    "esp: {{proposals: [aes256gcm16-x25519]}}, start: none{placement}}}"
)
PREFERS = ", placement: {prefer: [nic_crypto, software]}"
REQUIRES = ", placement: {require: nic_packet}"
WHY = "nic_packet: NO_BACKEND: xfrm cannot run here: "


def wish(**placements: str) -> Wish:
    """Return children with these placements, each for another protocol."""
    protocols = {"lan": "icmp", "fast": "tcp", "theirs": "udp"}
    children = (
        _CHILD.format(name=name, protocol=protocol, placement=placements.get(name, ""))
        for name, protocol in protocols.items()
    )
    return Wish(children=tuple(children), start="none")


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"gp{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="module")
def pair(
    sites: SiteToSite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Paris requires of one child, and Tokyo of another, what neither has."""
    paris, _ = gateways(sites, tmp_path_factory.mktemp("paris"), wish(lan=PREFERS, fast=REQUIRES))
    _, tokyo = gateways(sites, tmp_path_factory.mktemp("tokyo"), wish(theirs=REQUIRES))
    with running(paris, tokyo):
        yield paris, tokyo
        for gateway in (paris, tokyo):
            assert "process_died" not in gateway.log()


def test_a_child_that_requires_what_is_not_there_fails_and_says_why(
    pair: tuple[GatewayProcess, GatewayProcess],
) -> None:
    paris, _ = pair

    with pytest.raises(GatewayProcessError) as failed:
        paris.ctl("up", "paris-tokyo/fast")

    for told in (str(failed.value), paris.ctl("explain", "paris-tokyo").stdout):
        assert f"it requires nic_packet, and {WHY}" in told


def test_a_responder_that_cannot_place_a_child_says_why_too(
    pair: tuple[GatewayProcess, GatewayProcess],
) -> None:
    paris, tokyo = pair

    with pytest.raises(GatewayProcessError, match="the peer refused Child SA 'theirs'"):
        paris.ctl("up", "paris-tokyo/theirs")

    assert f"it requires nic_packet, and {WHY}" in tokyo.ctl("explain", "paris-tokyo").stdout


def test_a_child_that_prefers_gets_the_next_best_and_every_reason(
    sites: SiteToSite, pair: tuple[GatewayProcess, GatewayProcess]
) -> None:
    paris, _ = pair

    paris.ctl("up", "paris-tokyo/lan")

    assert can_ping(sites.a.host, sites.b.host_address)
    (child_sa,) = json.loads(paris.ctl("list", "child-sas", "--json").stdout)["child_sas"]
    for half in (child_sa["inbound"], child_sa["outbound"]):
        assert half["requested"]["prefer"] == ["nic_crypto", "software"]
        assert half["placement"] == "software"
        (refusal,) = half["refusals"]
        assert (refusal["engine"], refusal["reason"]) == ("nic_crypto", "no_backend")
        assert refusal["text"].startswith("xfrm cannot run here: ")
    for sa in json.loads(paris.ctl("list", "sas", "--json").stdout)["sas"]:
        assert sa["sa"]["placement"]["prefer"] == ["nic_crypto", "software"]
        assert [refusal["reason"] for refusal in sa["refusals"]] == ["no_backend"]
    explained = paris.ctl("explain", "paris-tokyo").stdout
    assert "lan in and out are on software; it prefers nic_crypto, software" in explained
    assert "lan in and out not on nic_crypto: NO_BACKEND: xfrm cannot run here" in explained
    assert "nic_crypto:NO_BACKEND" in paris.ctl("list", "sas").stdout
