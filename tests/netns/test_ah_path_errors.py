"""What routers say about AH over IPv6, told again so that the kernel of this machine hears it."""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

import pytest
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6
from scapy.layers.ipsec import AH
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.ah_path_errors import AhPathErrors, too_big_about_an_echo
from gateway.esp.icmp import TooBig
from gateway.host.network import IpAddress, probe_path
from gateway.ipsec.sa import IpsecProtocol
from tests.conformance.namespace import fresh_network_namespace, neighbour

pytestmark = pytest.mark.netns

OURS, PEER = ip_address("2001:db8::1"), ip_address("2001:db8::2")
SPI, UNKNOWN = 0x2001, 0x2002
SA = r.SaId(destination=PEER, spi=SPI, protocol=IpsecProtocol.AH)


@pytest.fixture
def wire() -> Iterator[socket.socket]:
    """The far end of the link to the peer."""
    with (
        fresh_network_namespace(f"{OURS}/64"),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened,
    ):
        opened.bind(("beyond", 0))
        yield opened


def source_of(name: r.SaId) -> IpAddress | None:
    return OURS if name == SA else None


def say_too_big(wire: socket.socket, about: Packet, mtu: int = 1290) -> None:
    """Say, as a router, that a packet of ours was too big."""
    link = Ether(src=neighbour("beyond"), dst=neighbour("outside"))
    wire.send(bytes(link / IPv6(src=PEER, dst=OURS) / ICMPv6PacketTooBig(mtu=mtu) / about))


def in_a_tunnel(spi: int = SPI, source: str = str(OURS)) -> Packet:
    inner = IPv6(src="2001:db8:1::1", dst="2001:db8:2::1") / Raw(bytes(100))
    return IPv6(src=source, dst=PEER) / AH(nh=41, spi=spi, icv=bytes(16)) / inner


def path_mtu() -> int:
    path = probe_path(PEER, source=OURS, heeds_policies=False)
    assert path is not None
    return path.mtu_bytes


async def path_mtu_becomes(wanted: int) -> None:
    async with asyncio.timeout(30):
        while path_mtu() != wanted:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.02)


async def test_the_kernel_by_itself_does_not_hear_it(wire: socket.socket) -> None:
    say_too_big(wire, in_a_tunnel())
    # The kernel takes what comes in over a link in order.
    say_too_big(wire, IPv6(src=OURS, dst=PEER) / ICMPv6EchoRequest(), mtu=1400)
    await path_mtu_becomes(1400)


async def test_it_is_heard_about_an_sa_of_ours(wire: socket.socket) -> None:
    errors = AhPathErrors(source_of)
    errors.open()
    try:
        say_too_big(wire, in_a_tunnel())

        await path_mtu_becomes(1290)
    finally:
        errors.close()


@pytest.mark.parametrize(
    "about",
    [in_a_tunnel(spi=UNKNOWN), in_a_tunnel(source="2001:db8::77")],
    ids=["an unknown SPI", "another source"],
)
async def test_it_is_not_believed_about_what_is_not_ours(wire: socket.socket, about: Packet) -> None:
    errors = AhPathErrors(source_of)
    errors.open()
    try:
        say_too_big(wire, about, mtu=1281)
        say_too_big(wire, in_a_tunnel())

        await path_mtu_becomes(1290)
    finally:
        errors.close()


def test_what_is_told_again_is_about_an_echo_between_the_same_addresses() -> None:
    message = too_big_about_an_echo(TooBig(1290, IPv6Address(OURS), IPv6Address(PEER), SPI))

    expected = bytes(IPv6(src=OURS, dst=PEER, hlim=64) / ICMPv6EchoRequest(cksum=0))
    assert message == bytes.fromhex("02000000 0000050a") + expected
