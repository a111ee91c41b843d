"""Forwarding in XDP of what a NIC decrypted, on a kernel with ESP and a NIC: by which SA, and when.

A recording stands in for the program, which the guest's kernel refuses (`test_forwarding.py`).
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from gateway.datapath.backend import SasLost
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import PolicyDirection
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.host.bpf.abi import Prefix4
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.sa import SecurityAssociation
from gateway.ipsec.secret import Secret
from tests.conformance.namespace import fresh_network_namespace
from tests.conformance.sas import inbound, outbound, policy
from tests.fakes.xdp_forwarder import FakeXdpForwarder
from tests.guest import netdevsim
from tests.guest.netdevsim import Device

pytestmark = pytest.mark.guest

LAN = "outside"
"""Of the namespace: here it is the inner side."""
PACKET = Placement(require=Engine.NIC_PACKET)
HOST, HOST_MAC = "10.1.0.9", "02:00:00:00:00:09"


@pytest.fixture
def nic() -> Iterator[Device]:
    """A device with packet offload that leads to the peer, in a namespace that is a router."""
    with fresh_network_namespace("10.1.0.1/16"), netdevsim.device(full=True) as made:
        for arguments in (
            ("address", "add", "192.0.2.1/24", "dev", made.name),
            ("neighbour", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:fe", "dev", made.name),
            ("neighbour", "add", HOST, "lladdr", HOST_MAC, "dev", LAN),
        ):
            subprocess.run(["ip", *arguments], check=True)
        subprocess.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], check=True)
        yield made


@pytest.fixture
async def backend(program: FakeXdpForwarder, nic: Device) -> AsyncIterator[XfrmBackend]:
    """A backend that trusts the device, with the policy and both SAs of a Child on it."""
    made = XfrmBackend(XfrmOptions(forward_interfaces=(LAN,), forward_inbound=(nic.name,)))
    await made.start()
    try:
        await made.apply_policies([policy()])
        for result in await made.install_sas([short(inbound, 0x1001), short(outbound, 0x2001)]):
            assert result.ok, result.error
        await until_inbound(program, [0x1001])
        yield made
    finally:
        await made.close()


def short(make: object, spi: int, placement: Placement = PACKET) -> SecurityAssociation:
    """Return an SA with a key that the device takes."""
    assert callable(make)
    key = Secret(spi.to_bytes(4) * 5)
    made: SecurityAssociation = make(spi, key_bits=128, encryption_key=key, placement=placement)
    return made


def inbound_spis(program: FakeXdpForwarder) -> list[int]:
    """Return the SPIs that policies lead to for what comes in, and that are there."""
    numbers = set(program.inbound.values())
    return sorted(program.inbound_sas[number].spi for number in numbers if number in program.inbound_sas)


async def until_inbound(program: FakeXdpForwarder, spis: list[int]) -> None:
    async with asyncio.timeout(30):
        while inbound_spis(program) != spis or not program.lease_ns:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


async def test_what_the_kernel_reads_back_of_sa_and_policy_is_forwarded_to_the_lan(
    program: FakeXdpForwarder, backend: XfrmBackend, nic: Device
) -> None:
    (sa,) = program.inbound_sas.values()

    assert (sa.destination, sa.family, sa.ifindex) == (ip_address("192.0.2.1"), 4, nic.index)
    assert 1400 < sa.mtu < 1500
    network, host = (ip_network(text) for text in ("10.1.0.0/16", f"{HOST}/32"))
    keys = [Prefix4(prefix_bits=net.prefixlen, address=net.network_address) for net in (network, host)]
    assert program.hops[keys[0]].ifindex == 0, "who is not known yet is the stack's"
    assert program.hops[keys[1]].destination_mac.hex(":") == HOST_MAC


def test_the_device_has_the_inbound_policy_and_none_for_what_passes_through(
    program: FakeXdpForwarder, backend: XfrmBackend
) -> None:
    networks = {ip_interface("10.1.0.0/16"), ip_interface("10.2.0.0/16")}
    with XfrmSocket() as kernel:
        at_device = {
            found.body.direction
            for found in kernel.policies()
            if found.attributes.offload
            and networks == {found.body.selector.source, found.body.selector.destination}
        }

    assert at_device == {PolicyDirection.IN, PolicyDirection.OUT}


async def test_a_newer_sa_of_the_kernel_ends_it(program: FakeXdpForwarder, backend: XfrmBackend) -> None:
    (result,) = await backend.install_sas([short(inbound, 0x1002, Placement(require=Engine.KERNEL))])
    assert result.ok, result.error

    assert inbound_spis(program) == []


@pytest.mark.parametrize("how", ["down", "unplugged"])
async def test_nothing_is_forwarded_any_more_when_the_loss_is_told(
    program: FakeXdpForwarder, backend: XfrmBackend, nic: Device, how: str
) -> None:
    told = backend.events()

    await asyncio.to_thread(netdevsim.take_down if how == "down" else netdevsim.unplug, nic)

    async with asyncio.timeout(30):
        async for event in told:
            if isinstance(event, SasLost):
                break
    assert inbound_spis(program) == []
    assert program.inbound_sas == {}
