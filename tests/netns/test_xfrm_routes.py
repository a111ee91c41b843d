"""Routes for protected destinations, in a network namespace: where they are needed, as long as they are."""

import subprocess
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest

from gateway.datapath.xfrm.options import XfrmOptions
from gateway.datapath.xfrm.routes import Routes
from gateway.host.network import Network, NextHop
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.namespace import fresh_network_namespace
from tests.conformance.sas import PEER, policy

pytestmark = pytest.mark.netns

OPTIONS = XfrmOptions()


@pytest.fixture
async def routes() -> AsyncIterator[Routes]:
    with fresh_network_namespace("192.0.2.1/24", "10.1.0.1/16"):
        network = Network()
        made = Routes(network, OPTIONS)
        await made.put_in_force()
        yield made
        await network.close()


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def table() -> list[str]:
    shown = subprocess.run(
        ["ip", "route", "show", "table", str(OPTIONS.table)], check=False, capture_output=True, text=True
    ).stdout
    return [" ".join(line.split()) for line in shown.splitlines()]


def rules() -> int:
    return ip("rule").count(str(OPTIONS.table))


async def test_destination_that_nothing_leads_to_gets_the_link_of_the_peer(routes: Routes) -> None:
    await routes.follow(policy(), [PEER])
    await routes.put_in_force()

    assert table() == ["10.2.0.0/16 dev outside proto 46 scope link src 10.1.0.1 metric 100"]
    assert rules() == 1
    assert "dev outside" in ip("route", "get", "10.2.0.1")


async def test_route_with_a_wrong_source_gets_the_same_way_with_a_right_one(routes: Routes) -> None:
    ip("route", "add", "default", "via", "192.0.2.254")

    await routes.follow(policy(), [PEER])
    await routes.put_in_force()

    assert table() == ["10.2.0.0/16 via 192.0.2.254 dev outside proto 46 src 10.1.0.1 metric 100"]
    assert "src 10.1.0.1" in ip("route", "get", "10.2.0.1")


async def test_gateway_without_an_inner_address_and_with_a_default_route_needs_none(routes: Routes) -> None:
    ip("route", "add", "default", "via", "192.0.2.254")

    await routes.follow(policy(local_ts=(TrafficSelector.parse("10.77.0.0/16"),)), [PEER])
    await routes.put_in_force()

    assert table() == []
    assert rules() == 0


async def test_what_is_not_protected_needs_none(routes: Routes) -> None:
    await routes.follow(policy(action=Action.DISCARD), [PEER])
    await routes.put_in_force()

    assert table() == []


async def test_destination_waits_for_a_peer_whose_address_is_known(routes: Routes) -> None:
    await routes.follow(policy(), [])
    assert routes.misses("paris/lan")

    await routes.follow(policy(), [PEER])

    assert not routes.misses("paris/lan")


async def test_machine_is_asked_once_about_the_peer_of_many_destinations(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    next_hop = Network.next_hop

    async def noted(network: Network, destination: IpAddress, *, mark: int = 0) -> NextHop | None:
        asked.append(destination)
        return await next_hop(network, destination, mark=mark)

    monkeypatch.setattr(Network, "next_hop", noted)

    for number in range(5):
        remote = TrafficSelector.parse(f"10.2.{number}.0/24")
        await routes.follow(policy(f"to-{number}", remote_ts=(remote,)), [PEER])
    await routes.put_in_force()
    assert len(table()) == 5
    assert asked == [PEER]

    await routes.follow(policy(), [PEER])
    assert asked == [PEER, PEER]


async def test_route_stays_as_long_as_one_entry_needs_it(routes: Routes) -> None:
    for name in ("a", "b"):
        await routes.follow(policy(name), [PEER])
    await routes.put_in_force()

    routes.forget("a")
    await routes.put_in_force()
    assert len(table()) == 1
    routes.forget("b")
    await routes.put_in_force()

    assert table() == []
    assert rules() == 0


async def test_second_destination_leaves_the_first_alone(routes: Routes) -> None:
    await routes.follow(policy(), [PEER])
    await routes.put_in_force()

    await routes.follow(policy("more", remote_ts=(TrafficSelector.parse("10.3.0.0/16"),)), [PEER])
    await routes.put_in_force()

    assert [line.split()[0] for line in table()] == ["10.2.0.0/16", "10.3.0.0/16"]


async def test_route_to_everything_is_found_by_an_address_in_its_middle(routes: Routes) -> None:
    await routes.follow(policy(remote_ts=(TrafficSelector.parse("0.0.0.0/0"),)), [PEER])
    await routes.put_in_force()

    assert table() == ["default dev outside proto 46 scope link src 10.1.0.1 metric 100"]


async def test_what_a_link_took_along_is_put_back(routes: Routes) -> None:
    await routes.follow(policy(), [PEER])
    await routes.put_in_force()
    ip("link", "set", "outside", "down")
    assert table() == []
    ip("link", "set", "outside", "up")
    ip("address", "replace", "10.1.0.1/16", "dev", "outside")

    routes.distrust()
    await routes.follow(policy(), [ip_address("192.0.2.2")])
    await routes.put_in_force()

    assert len(table()) == 1


async def test_what_a_former_life_left_is_taken_away(routes: Routes) -> None:
    await routes.follow(policy(), [PEER])
    await routes.put_in_force()
    network = Network()

    await Routes(network, OPTIONS).put_in_force()

    await network.close()
    assert table() == []
