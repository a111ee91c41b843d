"""Where the xfrm backend puts SAs, and what it says of it, on the kernel's netdevsim."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from gateway.datapath.backend import DatapathEvent, ErrorReason, ItemResult, SasLost
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.placement import DEFAULT_PREFERENCE, Engine, Placement, PlacementReason
from gateway.ipsec.secret import Secret
from tests.conformance.namespace import fresh_network_namespace
from tests.conformance.sas import inbound, outbound, policy
from tests.guest import netdevsim
from tests.guest.netdevsim import Device

pytestmark = pytest.mark.guest

#: What the stock driver takes: keys of 128 bits.
SHORT_KEY = {"key_bits": 128, "encryption_key": Secret(bytes(range(20)))}
OTHER_SHORT_KEY = {"key_bits": 128, "encryption_key": Secret(bytes(range(1, 21)))}


@contextmanager
def nic(*, full: bool) -> Iterator[Device]:
    """A device that has our address, in a fresh namespace."""
    with fresh_network_namespace(), netdevsim.device(full=full) as made:
        subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", made.name], check=True)
        yield made


@pytest.fixture
def stock() -> Iterator[Device]:
    with nic(full=False) as made:
        yield made


@pytest.fixture
def full() -> Iterator[Device]:
    with nic(full=True) as made:
        yield made


@pytest.fixture
def no_nic() -> Iterator[None]:
    with fresh_network_namespace("192.0.2.1/24"):
        yield


@pytest.fixture
def xfrm() -> Iterator[XfrmSocket]:
    """The kernel, as any process may ask it."""
    with XfrmSocket() as kernel:
        yield kernel


@pytest.fixture
async def backend() -> AsyncIterator[XfrmBackend]:
    """The backend, in the namespace of the device that was asked for before it."""
    made = XfrmBackend()
    await made.start()
    yield made
    await made.close()


def told(result: ItemResult) -> tuple[Engine | None, PlacementReason | None]:
    return result.placement, None if result.error is None else result.error.why


async def test_stock_nic_carries_the_crypto_of_both_directions(stock: Device, backend: XfrmBackend) -> None:
    wish = Placement(require=Engine.NIC_CRYPTO)

    results = await backend.install_sas(
        [inbound(placement=wish, **SHORT_KEY), outbound(placement=wish, **OTHER_SHORT_KEY)]
    )

    assert [told(result) for result in results] == [(Engine.NIC_CRYPTO, None)] * 2
    assert [item.placement for item in await backend.list_sas()] == [Engine.NIC_CRYPTO] * 2
    assert stock.sa_count() == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"esn": True, **SHORT_KEY}, "Device doesn't support offload with ESN"),
        ({"encryption": Encr.CHACHA20_POLY1305}, "Failed to get key data for SA table"),
        ({"encryption": Encr.AES_GCM_8, **SHORT_KEY}, ""),
    ],
    ids=["ESN", "ChaCha20-Poly1305", "ICV of 64 bits"],
)
async def test_what_the_driver_refuses_is_refused_with_its_words(
    stock: Device, backend: XfrmBackend, changes: dict[str, object], words: str
) -> None:
    sa = outbound(placement=Placement(require=Engine.NIC_CRYPTO), **changes)

    (result,) = await backend.install_sas([sa])

    assert told(result) == (None, PlacementReason.DRIVER_REFUSED)
    assert result.error is not None
    assert result.error.reason is ErrorReason.PLACEMENT_UNAVAILABLE
    assert stock.name in str(result.error)
    assert words in str(result.error)
    assert await backend.list_sas() == ()


async def test_sa_goes_to_the_next_engine_of_its_wish_and_says_why(
    stock: Device, backend: XfrmBackend
) -> None:
    (result,) = await backend.install_sas(
        [outbound(placement=Placement(prefer=DEFAULT_PREFERENCE), esn=True, **SHORT_KEY)]
    )

    assert result.placement is Engine.KERNEL
    assert [(refusal.engine, refusal.reason) for refusal in result.refusals] == [
        (Engine.NIC_PACKET, PlacementReason.DRIVER_REFUSED),
        (Engine.NIC_CRYPTO, PlacementReason.DRIVER_REFUSED),
    ]
    assert "nic_crypto" in result.placement_reason
    assert stock.sa_count() == 0


async def test_crypto_offload_that_the_kernel_ignored_is_found_out(
    no_nic: None, backend: XfrmBackend, xfrm: XfrmSocket
) -> None:
    # A veth device has no driver that could: the kernel takes the SA and says nothing.
    wish = Placement(require=Engine.NIC_CRYPTO)

    results = await backend.install_sas([inbound(placement=wish), outbound(placement=wish)])

    assert [told(result) for result in results] == [(None, PlacementReason.KERNEL_IGNORED_OFFLOAD)] * 2
    assert await backend.list_sas() == ()
    assert xfrm.sas() == ()


async def test_refused_sa_can_be_installed_elsewhere_with_the_same_key(
    stock: Device, backend: XfrmBackend
) -> None:
    sa = outbound(esn=True, **SHORT_KEY)
    await backend.install_sas(
        [outbound(esn=True, placement=Placement(require=Engine.NIC_CRYPTO), **SHORT_KEY)]
    )

    (result,) = await backend.install_sas([sa])

    assert result.placement is Engine.KERNEL


async def test_address_of_no_interface_has_no_device(stock: Device, backend: XfrmBackend) -> None:
    sa = outbound(source=ip_address("192.0.2.77"), placement=Placement(require=Engine.NIC_CRYPTO))

    (result,) = await backend.install_sas([sa])

    assert told(result) == (None, PlacementReason.NO_DEVICE)


async def test_packet_offload_takes_sas_and_their_policies(full: Device, backend: XfrmBackend) -> None:
    wish = Placement(require=Engine.NIC_PACKET)
    await backend.apply_policies([policy()])

    results = await backend.install_sas(
        [inbound(placement=wish, **SHORT_KEY), outbound(placement=wish, **OTHER_SHORT_KEY)]
    )

    assert [(told(result), str(result.error)) for result in results] == [
        ((Engine.NIC_PACKET, None), "None")
    ] * 2
    assert {(sa.spi, sa.direction, sa.type) for sa in full.sas()} == {
        (0x1001, "in", "packet"),
        (0x2001, "out", "packet"),
    }
    assert full.policy_count() == 2  # OUT and IN, none for what passes through

    await backend.remove_sas([item.sa.sa_id for item in await backend.list_sas()])

    assert full.sas() == []
    assert full.policy_count() == 0


async def test_device_that_goes_down_loses_its_sas(stock: Device, backend: XfrmBackend) -> None:
    events = backend.events()
    wish = Placement(require=Engine.NIC_CRYPTO)
    sa = inbound(placement=wish, **SHORT_KEY)
    stays = inbound(0x1002, placement=Placement(require=Engine.KERNEL))
    await backend.install_sas([sa, stays])

    netdevsim.take_down(stock)

    event = await next_loss(events)
    assert event.sa_ids == (sa.sa_id,)
    assert stock.name in event.reason
    assert [item.sa.sa_id for item in await backend.list_sas()] == [stays.sa_id]


async def test_device_that_is_unplugged_loses_its_sas(stock: Device, backend: XfrmBackend) -> None:
    events = backend.events()
    sa = outbound(placement=Placement(require=Engine.NIC_CRYPTO), **SHORT_KEY)
    await backend.install_sas([sa])

    netdevsim.unplug(stock)

    assert (await next_loss(events)).sa_ids == (sa.sa_id,)


async def next_loss(events: Watch[DatapathEvent]) -> SasLost:
    event = await asyncio.wait_for(anext(events), 30)
    assert isinstance(event, SasLost)
    return event
