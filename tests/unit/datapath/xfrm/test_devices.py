"""Which interface has an address: asked once, until it is not known or may have changed."""

from ipaddress import ip_address
from typing import cast

from gateway.datapath.xfrm.devices import Devices
from gateway.datapath.xfrm.placing import Device
from gateway.host.network import LinkState, Network
from gateway.ipsec.sa import IpAddress

HERE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.9")


class Links:
    """As much of a `Network` as tells who has an address."""

    def __init__(self) -> None:
        self.there = {HERE: LinkState(name="eth0", index=2, is_up=True)}
        self.asked = 0

    async def links_by_address(self) -> dict[IpAddress, LinkState]:
        self.asked += 1
        return dict(self.there)


def devices_of(links: Links) -> Devices:
    return Devices(cast("Network", links))


async def test_machine_is_asked_once_for_many_sas() -> None:
    links = Links()
    devices = devices_of(links)

    found = [await devices.of(HERE) for _ in range(5)]

    assert found == [Device("eth0", 2)] * 5
    assert links.asked == 1


async def test_address_that_is_new_is_found() -> None:
    links = Links()
    devices = devices_of(links)
    assert await devices.of(HERE) is not None
    assert await devices.of(OTHER) is None

    links.there[OTHER] = LinkState(name="eth1", index=3, is_up=True)

    assert await devices.of(OTHER) == Device("eth1", 3)


async def test_address_that_moved_is_found_where_it_is_after_a_change() -> None:
    links = Links()
    devices = devices_of(links)
    await devices.of(HERE)

    links.there[HERE] = LinkState(name="eth1", index=3, is_up=True)
    devices.distrust()

    assert await devices.of(HERE) == Device("eth1", 3)
