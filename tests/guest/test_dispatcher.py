"""Every backend at once on a kernel with ESP and a NIC: where SAs go, also when the NIC goes down."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.agent.dispatcher import Dispatcher
from gateway.app.backends import make_datapath
from gateway.datapath.backend import DatapathEvent, PlacementChange, SasLost
from gateway.datapath.registry import AUTO, BackendOptions
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.sa import SecurityAssociation
from gateway.ipsec.secret import Secret
from tests.conformance.namespace import fresh_network_namespace
from tests.conformance.sas import inbound, outbound, policy
from tests.guest import netdevsim
from tests.guest.netdevsim import Device

pytestmark = pytest.mark.guest

WISH = Placement(prefer=(Engine.NIC_PACKET, Engine.NIC_CRYPTO, Engine.KERNEL))


@pytest.fixture(params=[False, True], ids=["stock", "full"])
def nic(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device that has our address: of the stock driver, and of ours with packet offload."""
    with fresh_network_namespace(), netdevsim.device(full=request.param) as made:
        subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", made.name], check=True)
        yield made


@pytest.fixture
async def every(nic: Device) -> AsyncIterator[Dispatcher]:
    """Every backend that can run, and the real survey of NICs."""
    made = make_datapath(AUTO, BackendOptions())
    await made.start()
    yield made
    await made.close()


def short(number: int) -> dict[str, Any]:
    """Return a key that the device takes."""
    return {"key_bits": 128, "encryption_key": Secret(bytes([number]) * 20), "placement": WISH}


async def placed(datapath: Dispatcher, *sas: SecurityAssociation) -> list[tuple[str, str]]:
    results = await datapath.install_sas(sas)
    assert all(result.ok for result in results), results
    return [(str(result.placement and result.placement.value), result.placement_reason) for result in results]


async def event(told: Watch[DatapathEvent], kind: type[DatapathEvent]) -> DatapathEvent:
    async with asyncio.timeout(30):
        async for found in told:
            if isinstance(found, kind):
                return found
    raise AssertionError("the stream ended")


def is_full(device: Device) -> bool:
    return Path(f"/sys/kernel/debug/netdevsim/netdevsim{device.number}/ports/0/ipsec_full").exists()


async def test_both_kinds_of_engines_run_side_by_side(every: Dispatcher, nic: Device) -> None:
    capabilities = await every.capabilities()

    assert capabilities.name == "xfrm+software"
    assert set(capabilities.engines) == {
        *(Engine.NIC_PACKET, Engine.NIC_CRYPTO, Engine.KERNEL, Engine.SOFTWARE)
    }


async def test_the_nic_takes_what_it_can_and_the_kernel_the_rest(every: Dispatcher, nic: Device) -> None:
    await every.apply_policies([policy()])

    both = await placed(every, inbound(0x1001, **short(1)), outbound(0x2001, **short(2)))
    ((engine, why),) = await placed(every, inbound(0x1002, child="b", child_sa_id=2, placement=WISH))

    if is_full(nic):
        assert both == [("nic_packet", "")] * 2
    else:
        assert [engine for engine, _ in both] == ["nic_crypto"] * 2
        assert all(why.startswith("nic_packet: DRIVER_REFUSED: ") for _, why in both)
    assert nic.sa_count() == 2
    assert engine == "kernel"
    assert why == (
        f"nic_packet, nic_crypto: KEYLEN: {nic.name} (netdevsim) does AES_GCM_16 with keys of 128 bits, "
        "not 256"
    )


async def test_sas_in_software_and_in_the_kernel_are_told_apart(every: Dispatcher, nic: Device) -> None:
    in_software = Placement(require=Engine.SOFTWARE)

    await placed(every, inbound(0x1001, placement=in_software), inbound(0x1002, child="b", child_sa_id=2))

    with XfrmSocket() as kernel:
        assert [sa.body.id.spi for sa in kernel.sas()] == [0x1002]
    listed = {item.sa.spi: item.placement for item in await every.list_sas()}
    assert listed == {0x1001: Engine.SOFTWARE, 0x1002: Engine.KERNEL}


async def test_without_its_nic_a_child_goes_on_in_the_kernel(every: Dispatcher, nic: Device) -> None:
    told = every.events()
    await every.apply_policies([policy()])
    sas = inbound(0x1001, **short(1)), outbound(0x2001, **short(2))
    before = {engine for engine, _ in await placed(every, *sas)}
    assert before == {"nic_packet" if is_full(nic) else "nic_crypto"}

    netdevsim.take_down(nic)

    lost = await event(told, SasLost)
    assert isinstance(lost, SasLost)
    assert set(lost.sa_ids) == {sa.sa_id for sa in sas}
    fresh = (
        inbound(0x1002, child_sa_id=2, **short(3)),
        outbound(0x2002, child_sa_id=2, **short(4)),
    )
    after = await placed(every, *fresh)
    assert [engine for engine, _ in after] == ["kernel"] * 2
    assert all(f"NO_DEVICE: {nic.name} is down" in why for _, why in after)
    moved = await event(told, PlacementChange)
    assert isinstance(moved, PlacementChange)
    assert (moved.old.value, moved.new) == (before.pop(), Engine.KERNEL)
