"""Forwarding in XDP beside packet offload, on a kernel with ESP and a NIC: when an SA is forwarded to.

The guest's kernel interprets BPF and has no kernel functions for it, so the program itself is refused here,
and that is said; `tests/netns/test_forwarding.py` runs it. A recording stands in for it otherwise.
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from gateway.datapath.backend import SasLost
from gateway.datapath.xfrm import forwarding
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import Policy as PolicyMessage
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import PolicyAction, PolicyDirection
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.host.bpf.attach import attached_program, interface_index
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Policy
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
NETWORKS = {ip_interface("10.1.0.0/16"), ip_interface("10.2.0.0/16")}
GATEWAY_MAC = "02:00:00:00:00:fe"


@pytest.fixture
def nic() -> Iterator[Device]:
    """A device with packet offload that leads to the peer, in a namespace that is a router."""
    with fresh_network_namespace("10.1.0.1/16"), netdevsim.device(full=True) as made:
        for arguments in (
            ("address", "add", "192.0.2.1/24", "dev", made.name),
            ("neighbour", "add", "192.0.2.2", "lladdr", GATEWAY_MAC, "dev", made.name),
        ):
            subprocess.run(["ip", *arguments], check=True)
        subprocess.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], check=True)
        yield made


@pytest.fixture
async def backend(nic: Device) -> AsyncIterator[XfrmBackend]:
    made = XfrmBackend(XfrmOptions(forward_interfaces=(LAN,)))
    await made.start()
    yield made
    await made.close()


def short(number: int) -> dict[str, Any]:
    """Return a key that the device takes."""
    return {"key_bits": 128, "encryption_key": Secret(bytes([number]) * 20), "placement": PACKET}


async def install(backend: XfrmBackend, *policies: Policy) -> None:
    await backend.apply_policies(policies or [policy()])
    for result in await backend.install_sas([inbound(**short(1)), outbound(**short(2))]):
        assert result.ok, result.error


async def until_forwarded(program: FakeXdpForwarder, spis: list[int]) -> None:
    async with asyncio.timeout(30):
        while program.forwarded_spis() != spis or not program.lease_ns:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


async def words(backend: XfrmBackend, spi: int = 0x2001) -> str:
    return next(item.placement_reason for item in await backend.list_sas() if item.sa.spi == spi)


async def test_a_kernel_without_kernel_functions_for_bpf_forwards_in_the_stack(
    backend: XfrmBackend, nic: Device
) -> None:
    await install(backend)

    placements = {item.placement for item in await backend.list_sas()}
    assert placements == {Engine.NIC_PACKET}
    said = await words(backend)
    assert said.startswith("the stack forwards: "), said
    assert "bpf_xdp_get_xfrm_state" in said
    assert await asyncio.to_thread(attached_program, interface_index(LAN)) is None


async def test_what_the_kernel_reads_back_of_sa_and_policies_is_forwarded_to(
    program: FakeXdpForwarder, backend: XfrmBackend, nic: Device
) -> None:
    began_ns = time.monotonic_ns()
    await install(backend)

    await until_forwarded(program, [0x2001])
    (sa,) = program.sas.values()
    assert (sa.destination, sa.family) == (ip_address("192.0.2.2"), 4)
    assert sa.hop.ifindex == nic.index
    assert sa.hop.destination_mac.hex(":") == GATEWAY_MAC
    assert 1400 < sa.hop.mtu < 1500
    assert program.lease_ns > began_ns + 1e9 * forwarding.LEASE_S
    assert nic.policy_count() > 0


async def test_a_rekey_forwards_to_the_new_sa_before_the_old_one_goes(
    program: FakeXdpForwarder, backend: XfrmBackend
) -> None:
    await install(backend)
    await until_forwarded(program, [0x2001])

    await backend.install_sas([outbound(0x2002, **short(3))])
    await until_forwarded(program, [0x2001, 0x2002])
    first = program.policies[0]
    assert program.sas[program.offloaded[first.name]].spi == 0x2002

    old = next(item.sa.sa_id for item in await backend.list_sas() if item.sa.spi == 0x2001)
    await backend.remove_sas([old])
    assert 0x2001 not in program.forwarded_spis()
    assert 0x2002 in program.forwarded_spis()


def _is_closed(found: PolicyMessage) -> bool:
    """Return whether a policy lets nothing pass between the two networks that no SA protects."""
    networks = {found.body.selector.source, found.body.selector.destination}
    is_closed = found.body.action is PolicyAction.BLOCK or bool(found.attributes.templates)
    return networks == NETWORKS and is_closed


@pytest.mark.parametrize("how", ["down", "unplugged"])
def test_a_device_has_lost_its_sas_in_the_kernel_before_it_could_send_again(how: str, nic: Device) -> None:
    """The program asks the kernel for the SA: this keeps packets in where nobody has noticed anything yet."""

    async def main() -> None:
        backend = XfrmBackend()
        await backend.start()
        try:
            await install(backend)
        finally:
            # Nobody of us is there to notice.
            await backend.close()

    asyncio.run(main())
    with XfrmSocket() as kernel:
        assert [sa for sa in kernel.sas() if sa.attributes.offload is not None]
        if how == "down":
            netdevsim.take_down(nic)
        else:
            netdevsim.unplug(nic)
        left = [found.attributes.offload for found in kernel.sas()]
        left += [found.attributes.offload for found in kernel.policies()]
        closed = {found.body.direction for found in kernel.policies() if _is_closed(found)}

    assert left
    assert not any(left)
    assert closed == {PolicyDirection.OUT, PolicyDirection.IN, PolicyDirection.FORWARD}, (
        "without the device's policies nothing passes"
    )


@pytest.mark.parametrize("how", ["down", "unplugged"])
async def test_nothing_is_forwarded_any_more_when_the_loss_is_told(
    program: FakeXdpForwarder, backend: XfrmBackend, nic: Device, how: str
) -> None:
    await install(backend)
    await until_forwarded(program, [0x2001])
    told = backend.events()

    await asyncio.to_thread(netdevsim.take_down if how == "down" else netdevsim.unplug, nic)

    async with asyncio.timeout(30):
        async for event in told:
            if isinstance(event, SasLost):
                break
    assert program.forwarded_spis() == []
