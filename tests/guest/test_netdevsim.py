"""NIC offload of SAs and policies over NETLINK_XFRM, on netdevsim: what is taken, what is refused and why.

The stock driver is that of the kernel's source, crypto offload only; the full one has what the patch of
tests/guest/kernel/netdevsim adds.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from gateway.bench.topology import Namespace, delete_namespace, make_namespace
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import KernelRefusedError
from gateway.datapath.xfrm.netlink import XfrmListener, XfrmSocket
from gateway.datapath.xfrm.numbers import (
    Group,
    Mode,
    OffloadFlag,
    PolicyDirection,
    SaDirection,
    SaFlag,
)
from tests.conformance.namespace import inside
from tests.guest import netdevsim
from tests.guest.netdevsim import Device, HardwareSa
from tests.guest.sas import CBC_SHA256, GCM_128, HERE, PEER, ah, esp, host_policy, key
from tests.netns.xfrm_witness import shown_by_ip, told

pytestmark = pytest.mark.guest

NO_FLAGS = OffloadFlag(0)
NO_LIMITS = r.LifetimeLimits()
SPI_AB, SPI_BA = 0x1001, 0x2001


@pytest.fixture
def stock(xfrm: XfrmSocket) -> Iterator[Device]:
    with netdevsim.device() as made:
        yield made


@pytest.fixture
def full(xfrm: XfrmSocket) -> Iterator[Device]:
    with netdevsim.device(full=True) as made:
        yield made


def offloaded(attributes: r.Attributes, to: Device, flags: OffloadFlag = NO_FLAGS) -> r.Attributes:
    """Return the attributes with a device that shall carry the SA or the policy."""
    return replace(attributes, offload=r.Offload(link=to.index, flags=flags))


def refusal(xfrm: XfrmSocket, sa: r.SaInfo, attributes: r.Attributes) -> str:
    """Return the kernel's words for not adding an SA, of which nothing is left."""
    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_sa(sa, attributes)
    assert xfrm.sas() == ()
    return refused.value.text


# --- crypto offload -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [NO_FLAGS, OffloadFlag.INBOUND], ids=["outbound", "inbound"])
@pytest.mark.parametrize("mode", [Mode.TUNNEL, Mode.TRANSPORT], ids=["tunnel", "transport"])
def test_stock_driver_takes_crypto_offload_of_aes_gcm(
    xfrm: XfrmSocket, stock: Device, mode: Mode, flags: OffloadFlag
) -> None:
    xfrm.add_sa(esp(SPI_AB, mode=mode), offloaded(GCM_128, stock, flags))

    (listed,) = xfrm.sas()
    assert listed.attributes.offload == r.Offload(link=stock.index, flags=flags)
    way = "in" if flags else "out"
    assert f"crypto offload parameters: dev {stock.name} dir {way}" in shown_by_ip("state")
    assert stock.sa_count() == 1
    xfrm.delete_sa(listed.body.id)
    assert stock.sa_count() == 0


#: What the stock driver refuses: the SA, its attributes, the flags, the kernel's words.
REFUSALS = {
    "ESN": (
        replace(esp(SPI_AB), flags=SaFlag.ESN),
        replace(GCM_128, replay_esn=r.ReplayStateEsn(window_packets=32, bitmap=(0,))),
        NO_FLAGS,
        "Device doesn't support offload with ESN",
    ),
    "ChaCha20-Poly1305": (
        esp(SPI_AB),
        r.Attributes(
            aead=r.AeadAlgorithm(
                name="rfc7539esp(chacha20,poly1305)", key=key(256, salt_bytes=4), icv_bits=128
            )
        ),
        NO_FLAGS,
        "netdevsim: Failed to get key data for SA table",
    ),
    "AES-CBC with HMAC": (
        esp(SPI_AB),
        CBC_SHA256,
        NO_FLAGS,
        "netdevsim: Failed to get key data for SA table",
    ),
    "an ICV of 64 bits": (
        esp(SPI_AB),
        r.Attributes(aead=r.AeadAlgorithm(name="rfc4106(gcm(aes))", key=key(128, salt_bytes=4), icv_bits=64)),
        NO_FLAGS,
        "netdevsim: Failed to get key data for SA table",
    ),
    "AH": (
        ah(SPI_AB),
        r.Attributes(integrity=r.AuthAlgorithm(name="hmac(sha256)", key=key(256), icv_bits=128)),
        NO_FLAGS,
        "Type doesn't support offload",
    ),
    "packet offload": (
        esp(SPI_AB),
        GCM_128,
        OffloadFlag.PACKET,
        "netdevsim: Unsupported ipsec offload type",
    ),
    "TFC padding": (
        esp(SPI_AB),
        replace(GCM_128, tfc_padding_bytes=1000),
        NO_FLAGS,
        "TFC padding can't be offloaded",
    ),
    "inbound for an outbound SA": (
        esp(SPI_AB),
        replace(GCM_128, direction=SaDirection.OUT),
        OffloadFlag.INBOUND,
        "Mismatched SA and offload direction",
    ),
    "a flag nobody knows": (
        esp(SPI_AB),
        GCM_128,
        OffloadFlag(8),
        "Unrecognized flags in offload request",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_stock_driver_refuses_with_its_true_reason(xfrm: XfrmSocket, stock: Device, what: str) -> None:
    sa, attributes, flags, words = REFUSALS[what]

    assert refusal(xfrm, sa, offloaded(attributes, stock, flags)) == words
    assert stock.sa_count() == 0


@pytest.mark.parametrize("flags", [NO_FLAGS, OffloadFlag.PACKET], ids=["crypto", "packet"])
def test_device_without_offload_is_silently_software_for_crypto_and_an_error_for_packet(
    xfrm: XfrmSocket, flags: OffloadFlag
) -> None:
    veth = Device(number=0, name="outside", index=socket.if_nametoindex("outside"))
    attributes = offloaded(GCM_128, veth, flags)

    if flags:
        assert refusal(xfrm, esp(SPI_AB), attributes) == ""
        return
    xfrm.add_sa(esp(SPI_AB), attributes)
    (listed,) = xfrm.sas()
    assert listed.attributes.offload is None


def test_switched_off_feature_is_no_refusal(xfrm: XfrmSocket, full: Device) -> None:
    netdevsim.switch_esp(full, on=False)

    # So that it is off must be read from the device: the kernel says nothing, and encrypts itself.
    xfrm.add_sa(esp(SPI_AB), offloaded(GCM_128, full))

    (listed,) = xfrm.sas()
    assert listed.attributes.offload == r.Offload(link=full.index)


def test_full_table_is_told(xfrm: XfrmSocket, stock: Device) -> None:
    for i in range(netdevsim.SA_TABLE_SIZE):
        xfrm.add_sa(esp(SPI_AB + i), offloaded(GCM_128, stock))

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_sa(esp(0x9999), offloaded(GCM_128, stock))

    assert refused.value.text == "netdevsim: No space for SA in Rx table!"
    assert stock.sa_count() == netdevsim.SA_TABLE_SIZE


@pytest.mark.parametrize("how", ["unplugged", "down"])
def test_device_that_goes_takes_its_sas_with_it(xfrm: XfrmSocket, stock: Device, how: str) -> None:
    xfrm.add_sa(esp(SPI_AB), offloaded(GCM_128, stock))
    xfrm.add_sa(esp(SPI_AB + 1), GCM_128)

    with XfrmListener([Group.SA]) as listener:
        if how == "unplugged":
            netdevsim.unplug(stock)
        else:
            netdevsim.take_down(stock)

        # The kernel tells nobody: whoever installed them must watch the device.
        assert listener.receive() == ()
    assert [listed.body.id.spi for listed in xfrm.sas()] == [SPI_AB + 1]


# --- packet offload -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [NO_FLAGS, OffloadFlag.INBOUND], ids=["outbound", "inbound"])
def test_full_driver_takes_packet_offload_with_esn(
    xfrm: XfrmSocket, full: Device, flags: OffloadFlag
) -> None:
    sa = replace(esp(SPI_AB), flags=SaFlag.ESN)
    esn = replace(GCM_128, replay_esn=r.ReplayStateEsn(window_packets=32, bitmap=(0,)))

    xfrm.add_sa(sa, offloaded(esn, full, flags | OffloadFlag.PACKET))

    (listed,) = xfrm.sas()
    assert listed.attributes.offload == r.Offload(link=full.index, flags=flags | OffloadFlag.PACKET)
    way = "in" if flags else "out"
    assert full.sas() == [HardwareSa(spi=SPI_AB, direction=way, type="packet", packets=0, bytes=0)]


@pytest.mark.parametrize(
    ("direction", "told_as"),
    [
        # A policy may not be asked for with INBOUND, but is listed with it.
        pytest.param(PolicyDirection.IN, OffloadFlag.INBOUND, id="in"),
        pytest.param(PolicyDirection.OUT, NO_FLAGS, id="out"),
        pytest.param(PolicyDirection.FORWARD, NO_FLAGS, id="fwd"),
    ],
)
def test_full_driver_takes_policies(
    xfrm: XfrmSocket, full: Device, direction: PolicyDirection, told_as: OffloadFlag
) -> None:
    policy, attributes = host_policy(HERE, PEER, direction)

    xfrm.add_policy(policy, offloaded(attributes, full, OffloadFlag.PACKET))

    (listed,) = xfrm.policies()
    assert listed.attributes.offload == r.Offload(link=full.index, flags=OffloadFlag.PACKET | told_as)
    assert full.policy_count() == 1
    xfrm.delete_policy(r.PolicyId(direction=direction, selector=policy.selector))
    assert full.policy_count() == 0


def test_full_policy_table_is_told(xfrm: XfrmSocket, full: Device) -> None:
    def add(number: int) -> None:
        policy, attributes = host_policy(HERE, PEER + number, PolicyDirection.OUT)
        xfrm.add_policy(policy, offloaded(attributes, full, OffloadFlag.PACKET))

    for number in range(netdevsim.POLICY_TABLE_SIZE):
        add(number)

    with pytest.raises(KernelRefusedError) as refused:
        add(netdevsim.POLICY_TABLE_SIZE)

    assert refused.value.text == "netdevsim: No space for policy"
    assert full.policy_count() == netdevsim.POLICY_TABLE_SIZE


def test_stock_driver_refuses_policies(xfrm: XfrmSocket, stock: Device) -> None:
    policy, attributes = host_policy(HERE, PEER, PolicyDirection.OUT)

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_policy(policy, offloaded(attributes, stock, OffloadFlag.PACKET))

    assert refused.value.text == "Policy offload is not supported"
    assert xfrm.policies() == ()


def test_policy_is_offloaded_whole_or_not_at_all(xfrm: XfrmSocket, full: Device) -> None:
    policy, attributes = host_policy(HERE, PEER, PolicyDirection.OUT)

    with pytest.raises(KernelRefusedError) as refused:
        xfrm.add_policy(policy, offloaded(attributes, full))

    assert refused.value.text == "Unrecognized flags in offload request"


# --- traffic --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """Two hosts with a netdevsim each, connected."""

    a: Namespace
    b: Namespace
    device_a: Device
    device_b: Device


@pytest.fixture
def stock_cable() -> Iterator[Cable]:
    yield from _cable(full=False)


@pytest.fixture
def full_cable() -> Iterator[Cable]:
    yield from _cable(full=True)


def _cable(*, full: bool) -> Iterator[Cable]:
    with ExitStack() as stack:
        ends = []
        for number, (name, address) in enumerate((("nsim-a", HERE), ("nsim-b", PEER)), start=1):
            namespace = make_namespace(name)
            stack.callback(delete_namespace, namespace)
            with inside(namespace):
                made = stack.enter_context(netdevsim.device(number=number, full=full))
            namespace.run("ip", "address", "add", f"{address}/24", "dev", made.name)
            ends.append((namespace, made))
        (a, device_a), (b, device_b) = ends
        netdevsim.connect(device_a, a, device_b, b)
        yield Cable(a=a, b=b, device_a=device_a, device_b=device_b)


def protect(
    cable: Cable, flags: OffloadFlag, *, limits: r.LifetimeLimits = NO_LIMITS, mode: Mode = Mode.TRANSPORT
) -> None:
    """Protect all between the two, in both directions and at both ends."""
    ends = ((cable.a, cable.device_a, HERE, PEER), (cable.b, cable.device_b, PEER, HERE))
    for namespace, nic, here, peer in ends:
        with inside(namespace), XfrmSocket() as xfrm:
            for source, destination, spi in ((HERE, PEER, SPI_AB), (PEER, HERE, SPI_BA)):
                inbound = destination == here
                way = flags | (OffloadFlag.INBOUND if inbound else NO_FLAGS)
                sa = replace(esp(spi, source, destination, mode=mode), limits=limits)
                xfrm.add_sa(sa, offloaded(GCM_128, nic, way))
            for direction, source, destination in (
                (PolicyDirection.OUT, here, peer),
                (PolicyDirection.IN, peer, here),
            ):
                policy, attributes = host_policy(source, destination, direction, mode=mode)
                if flags & OffloadFlag.PACKET:
                    attributes = offloaded(attributes, nic, OffloadFlag.PACKET)
                xfrm.add_policy(policy, attributes)


def ping(cable: Cable, count: int, *, size: int = 56) -> str:
    """Send some from a to b, and return what ping says of them."""
    options = ("-n", "-q", "-c", str(count), "-i", "0.01", "-W", "1", "-s", str(size))
    return cable.a.run("ping", *options, str(PEER), check=False).stdout


def test_packets_of_an_offloaded_sa_are_counted_by_the_stock_device(stock_cable: Cable) -> None:
    protect(stock_cable, NO_FLAGS)

    said = ping(stock_cable, 5)

    # Nothing is encrypted and the stock device has no receive side, so the peer's stack refuses every packet.
    assert " 0 received" in said
    assert stock_cable.device_a.sent_by_sas() == 5
    with inside(stock_cable.b), XfrmSocket() as xfrm:
        (inbound,) = [sa for sa in xfrm.sas() if sa.body.id.spi == SPI_AB]
    assert inbound.body.statistics.integrity_failed == 5


@pytest.mark.parametrize("mode", [Mode.TRANSPORT, Mode.TUNNEL], ids=["transport", "tunnel"])
@pytest.mark.parametrize("kind", ["crypto", "packet"])
def test_traffic_passes_through_offloaded_sas_and_is_counted(
    full_cable: Cable, kind: str, mode: Mode
) -> None:
    protect(full_cable, OffloadFlag.PACKET if kind == "packet" else NO_FLAGS, mode=mode)

    said = ping(full_cable, 10, size=1200)

    assert " 10 received" in said
    for nic in (full_cable.device_a, full_cable.device_b):
        assert {(sa.spi, sa.type, sa.packets) for sa in nic.sas()} == {(SPI_AB, kind, 10), (SPI_BA, kind, 10)}
    with inside(full_cable.a), XfrmSocket() as xfrm:
        assert {sa.body.id.spi: sa.body.usage.packets for sa in xfrm.sas()} == {SPI_AB: 10, SPI_BA: 10}


def test_device_of_packet_offload_keeps_the_limits(full_cable: Cable) -> None:
    with inside(full_cable.a), XfrmListener([Group.EXPIRE]) as listener:
        limits = r.LifetimeLimits(soft_packets=3, hard_packets=6)
        protect(full_cable, OffloadFlag.PACKET, limits=limits)

        said = ping(full_cable, 10)

        soft = told(listener, r.Expire)
        assert (soft.body.is_hard, soft.body.sa.usage.packets) == (False, 3)
        assert " 5 received" in said
        assert full_cable.device_a.drops() > 0


def test_packet_offload_drops_what_has_no_sa(full_cable: Cable) -> None:
    protect(full_cable, OffloadFlag.PACKET)
    with inside(full_cable.b), XfrmSocket() as xfrm:
        xfrm.flush_sas(50)

    said = ping(full_cable, 3)

    assert " 0 received" in said
    assert full_cable.device_b.drops() == 3


def test_acquire_comes_from_an_offloaded_policy(xfrm: XfrmSocket, full: Device) -> None:
    policy, attributes = host_policy(HERE, PEER, PolicyDirection.OUT)
    xfrm.add_policy(policy, offloaded(attributes, full, OffloadFlag.PACKET))

    with XfrmListener([Group.ACQUIRE]) as listener, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.sendto(b"x", (str(PEER), 9))
        asked = told(listener, r.Acquire)

    assert asked.body.id.destination == PEER
    # So the SA that answers can go where the policy is.
    assert asked.attributes.offload == r.Offload(link=full.index, flags=OffloadFlag.PACKET)
    assert full.sa_count() == 0
