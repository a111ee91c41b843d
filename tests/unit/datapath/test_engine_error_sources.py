"""From which addresses espd sends ICMP errors, and when it is told others."""

from collections.abc import Sequence
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import Refusal
from gateway.datapath.engine.devices import FIRST_INTERFACE, KERNEL, TUNNEL, Devices
from gateway.datapath.engine.error_sources import Surroundings, error_source
from gateway.datapath.engine.espd import Espd
from gateway.datapath.engine.xdp_steering import Side, SteeredInterface
from gateway.host.network import LocalAddress
from gateway.host.routing_mirror import MirroredLink

LO, OUTSIDE, INSIDE, INSIDE_TOO, OTHER = 1, 2, 3, 4, 5
TUN_LINK = 90
MAC = bytes.fromhex("020000000001")


def on(link: int, *texts: str, is_global: bool = True, is_preferred: bool = True) -> list[LocalAddress]:
    return [
        LocalAddress(address=ip_address(text), link=link, is_global=is_global, is_preferred=is_preferred)
        for text in texts
    ]


LOOPBACK = on(LO, "127.0.0.1", "::1", is_global=False)
LINK_LOCAL = [
    *on(OUTSIDE, "fe80::2", is_global=False),
    *on(INSIDE, "fe80::3", is_global=False),
]
USUAL = [
    *LOOPBACK,
    *on(OUTSIDE, "192.0.2.1", "2001:db8::1"),
    *on(INSIDE, "10.1.0.1", "10.1.0.2", "fd00:1::1"),
    *LINK_LOCAL,
]
CHOICES: dict[str, tuple[Sequence[LocalAddress], int, str | None, str | None]] = {
    "its own, the first": (USUAL, INSIDE, "10.1.0.1", "fd00:1::1"),
    "its own, to the peers too": (USUAL, OUTSIDE, "192.0.2.1", "2001:db8::1"),
    "none of its own: an inner one's": (USUAL, TUN_LINK, "10.1.0.1", "fd00:1::1"),
    "no link: an inner one's": (USUAL, 0, "10.1.0.1", "fd00:1::1"),
    "the inner link that is named first": (
        [*on(INSIDE_TOO, "10.9.0.1"), *on(INSIDE, "10.1.0.1")],
        TUN_LINK,
        "10.1.0.1",
        None,
    ),
    "another inner one's": ([*on(OTHER, "10.5.0.1"), *on(INSIDE_TOO, "10.9.0.1")], INSIDE, "10.9.0.1", None),
    "any rather than one to the peers": (
        [*on(OUTSIDE, "192.0.2.1"), *on(OTHER, "10.5.0.1")],
        INSIDE,
        "10.5.0.1",
        None,
    ),
    "of lo what is no loopback address": (
        [*LOOPBACK, *on(LO, "198.51.100.1"), *on(OUTSIDE, "192.0.2.1")],
        INSIDE,
        "198.51.100.1",
        None,
    ),
    "one to the peers where there is no other": (
        [*LOOPBACK, *on(OUTSIDE, "192.0.2.1")],
        0,
        "192.0.2.1",
        None,
    ),
    "a global one of another rather than its own link-local one": (
        [*LINK_LOCAL, *on(OUTSIDE, "2001:db8::1")],
        INSIDE,
        None,
        "2001:db8::1",
    ),
    "link-local at last": (LINK_LOCAL, INSIDE, None, "fe80::3"),
    "never another's link-local one": (LINK_LOCAL, TUN_LINK, None, None),
    "none that is not known to be ours alone": (
        [*on(INSIDE, "fd00:1::1", is_preferred=False), *on(OUTSIDE, "2001:db8::1")],
        INSIDE,
        None,
        "2001:db8::1",
    ),
    "nothing but loopback": (LOOPBACK, INSIDE, None, None),
}


@pytest.mark.parametrize(("addresses", "link", "four", "six"), CHOICES.values(), ids=CHOICES.keys())
def test_an_address_is_chosen(
    addresses: Sequence[LocalAddress], link: int, four: str | None, six: str | None
) -> None:
    around = Surroundings(addresses, inner=[INSIDE, INSIDE_TOO], outer=[OUTSIDE])

    chosen = tuple(error_source(version, link, around) for version in (4, 6))

    assert tuple(None if address is None else str(address) for address in chosen) == (four, six)


# --- what espd is told ----------------------------------------------------------------------------


class Asked:
    """Stands for espd: notes what it is asked, and wipes it, as a connection does."""

    def __init__(self) -> None:
        self.messages: list[p.Device] = []
        self.descriptors: list[Sequence[int]] = []
        self.refuses = False

    async def ask(self, kind: p.MessageType, message: Any, _: object, *, descriptors: Sequence[int]) -> Any:
        assert kind is p.MessageType.DEVICE_SET
        asked = p.Device.from_buffer_copy(message)
        p.wipe(message)
        self.messages.append(asked)
        self.descriptors.append(descriptors)
        if self.refuses:
            raise p.EspdRefused(kind, Refusal.INVALID, "the frames are too small for this MTU")
        return p.DeviceReply(ifindex=asked.ifindex or (TUN_LINK if asked.name else 0))

    async def do(self, kind: p.MessageType, _: object) -> None:
        assert kind is p.MessageType.DEVICE_REMOVE

    def told(self) -> dict[int, tuple[str, str]]:
        """Return the addresses that it was told since the last call, by device."""
        told = {
            message.device: tuple(
                str(ip_address(bytes(field))) for field in (message.address4, message.address6)
            )
            for message in self.messages
        }
        self.messages.clear()
        self.descriptors.clear()
        return {device: (four, six) for device, (four, six) in told.items()}


OUTER_DEVICE, INNER_DEVICE, ROUTED_DEVICE = FIRST_INTERFACE, FIRST_INTERFACE + 1, p.MAX_DEVICES


def link(index: int, *, mtu_bytes: int = 1500, mac: bytes = MAC) -> MirroredLink:
    return MirroredLink(index=index, name=f"eth{index}", mac=mac, mtu_bytes=mtu_bytes)


def steered(index: int, side: Side) -> SteeredInterface:
    """Return as much of an interface as devices look at; 100 + its index is the descriptor of its map."""
    return cast(SteeredInterface, SimpleNamespace(side=side, sockets_fd=100 + index, reason=""))


@pytest.fixture
async def asked() -> Asked:
    return Asked()


@pytest.fixture
async def devices(asked: Asked) -> Devices:
    """All that espd may have open, in a machine with the usual addresses, which it was told."""
    devices = Devices(cast(Espd, asked))
    devices.use_addresses(USUAL)
    await devices.open_all("ipsecgw0e")
    await devices.open_interface(OUTER_DEVICE, link(OUTSIDE), 1, steered(OUTSIDE, Side.OUTER))
    await devices.open_interface(INNER_DEVICE, link(INSIDE), 1, steered(INSIDE, Side.INNER))
    await devices.open_tunnel(ROUTED_DEVICE, "ipsec7", is_routed=True)
    await devices.follow_network(USUAL)
    asked.told()
    return devices


async def test_devices_are_opened_with_addresses(asked: Asked) -> None:
    devices = Devices(cast(Espd, asked))
    devices.use_addresses(USUAL)

    await devices.open_interface(INNER_DEVICE, link(INSIDE), 1, steered(INSIDE, Side.INNER))
    await devices.open_all("ipsecgw0e")

    assert asked.told() == {
        INNER_DEVICE: ("10.1.0.1", "fd00:1::1"),
        TUNNEL: ("192.0.2.1", "2001:db8::1"),  # the interface went with the former espd
        KERNEL: ("192.0.2.1", "2001:db8::1"),
    }


async def test_tunnels_opened_before_an_inner_interface_are_told_of_it(asked: Asked) -> None:
    devices = Devices(cast(Espd, asked))
    devices.use_addresses(USUAL)
    await devices.open_all("ipsecgw0e")
    await devices.open_interface(INNER_DEVICE, link(INSIDE), 1, steered(INSIDE, Side.INNER))
    asked.told()

    await devices.follow_network(USUAL)

    assert asked.told() == {TUNNEL: ("10.1.0.1", "fd00:1::1"), KERNEL: ("10.1.0.1", "fd00:1::1")}


async def test_nothing_is_told_while_nothing_changes(devices: Devices, asked: Asked) -> None:
    await devices.follow_network(USUAL, [link(OUTSIDE), link(INSIDE)])

    assert asked.told() == {}


async def test_a_new_address_is_told_to_those_that_send_from_it(devices: Devices, asked: Asked) -> None:
    moved = [*LOOPBACK, *on(OUTSIDE, "192.0.2.1", "2001:db8::1"), *on(INSIDE, "10.1.0.9", "fd00:1::1")]

    await devices.follow_network(moved)

    assert asked.descriptors == [(), (), [100 + INSIDE], ()]
    new = ("10.1.0.9", "fd00:1::1")
    assert asked.told() == {TUNNEL: new, KERNEL: new, INNER_DEVICE: new, ROUTED_DEVICE: new}


async def test_a_tunnel_with_an_address_of_its_own_sends_from_that(devices: Devices, asked: Asked) -> None:
    await devices.follow_network([*USUAL, *on(TUN_LINK, "10.255.0.1")])

    assert asked.told()[ROUTED_DEVICE] == ("10.255.0.1", "fd00:1::1")


async def test_addresses_that_are_gone_are_taken_back(devices: Devices, asked: Asked) -> None:
    await devices.follow_network(LOOPBACK)

    assert set(asked.told().values()) == {("0.0.0.0", "::")}


async def test_the_mtu_and_the_address_of_a_link_are_followed(devices: Devices, asked: Asked) -> None:
    mac = bytes.fromhex("020000000099")

    await devices.follow_network(USUAL, [link(OUTSIDE), link(INSIDE, mtu_bytes=1400, mac=mac)])

    (message,) = asked.messages
    assert (message.device, message.mtu, bytes(message.mac)) == (INNER_DEVICE, 1400, mac)


async def test_a_refusal_is_no_reason_to_ask_again(devices: Devices, asked: Asked) -> None:
    asked.refuses = True
    await devices.follow_network(USUAL, [link(INSIDE, mtu_bytes=9000)])
    assert len(asked.messages) == 1

    await devices.follow_network(USUAL, [link(INSIDE, mtu_bytes=9000)])

    assert len(asked.messages) == 1


async def test_devices_that_are_closed_or_left_to_the_kernel_are_told_nothing(
    devices: Devices, asked: Asked
) -> None:
    await devices.close(ROUTED_DEVICE)
    devices.note_kernel(INNER_DEVICE, "eth3", "another program is there")

    await devices.follow_network(LOOPBACK)

    assert asked.told().keys() == {TUNNEL, KERNEL, OUTER_DEVICE}
    devices.forget()
    await devices.follow_network(USUAL)
    assert asked.told() == {}
