"""The kernel's ESP is spread over CPUs: the xfrm backend attaches the program, follows, and takes it away.

The kernel behind the netlink socket is a fake, interfaces and XDP are the real ones.
"""

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from gateway.datapath.xfrm import netlink
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.cpu_steering import CpuSteering
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.hardware.nic_netlink import ask_xdp_program
from gateway.host.bpf.abi import Exit, read_counters
from gateway.host.bpf.attach import attach_xdp, attached_program, program_name
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.objects import load_object
from gateway.ipsec.placement import Engine, Placement
from tests.conformance.namespace import fresh_network_namespace, neighbour
from tests.conformance.sas import inbound, outbound
from tests.fakes.xfrm_kernel import FakeKernel

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: there is nothing to spread over"),
]

KERNEL = Placement(require=Engine.KERNEL)


@pytest.fixture
def outside() -> Iterator[int]:
    """Stay in a namespace whose `outside` has our address; return its index."""
    with fresh_network_namespace("192.0.2.1/24"):
        yield socket.if_nametoindex("outside")


@pytest.fixture
def kernel(outside: int, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel(nics={})
    monkeypatch.setattr(netlink, "_opening", made.opening)
    return made


def program_at(index: int) -> str:
    found = attached_program(index)
    return "" if found is None else program_name(found[0])


async def opened(*, spreads_esp: bool = True) -> XfrmBackend:
    backend = XfrmBackend(XfrmOptions(spreads_esp=spreads_esp))
    await backend.start()
    return backend


async def seen(index: int) -> str:
    """Return the program of an interface; pyroute2 has an event loop of its own."""
    return await asyncio.to_thread(program_at, index)


def flush_addresses(device: str) -> None:
    subprocess.run(["ip", "address", "flush", "dev", device], check=True)


async def test_the_program_comes_with_the_first_inbound_sa_and_goes_with_the_agent(
    kernel: FakeKernel, outside: int
) -> None:
    backend = await opened()
    try:
        await backend.install_sas([outbound(placement=KERNEL)])
        assert await seen(outside) == "", "nothing comes in yet"

        await backend.install_sas([inbound(placement=KERNEL)])
        assert await seen(outside) == "gw_cpumap"
        told = {item.sa.direction.value: item.placement_reason for item in await backend.list_sas()}
        assert f"spread over {len(os.sched_getaffinity(0))} CPUs by SPI, XDP driver" in told["inbound"]
        assert "spread" not in told["outbound"]
    finally:
        await backend.close()

    assert await seen(outside) == ""


async def test_nothing_is_attached_unless_that_is_asked_for(kernel: FakeKernel, outside: int) -> None:
    backend = await opened(spreads_esp=False)
    try:
        await backend.install_sas([inbound(placement=KERNEL)])
        assert await seen(outside) == ""
        assert "spread" not in (await backend.list_sas())[0].placement_reason
    finally:
        await backend.close()


async def test_another_program_is_left_alone_and_named(kernel: FakeKernel, outside: int) -> None:
    backend = await opened()
    with (
        load_object(read_program("xdp_sink")) as other,
        attach_xdp(other.programs["gw_sink"], "outside").link,
    ):
        try:
            (result,) = await backend.install_sas([inbound(placement=KERNEL)])
            (listed,) = await backend.list_sas()
        finally:
            await backend.close()
        assert await seen(outside) == "gw_sink"

    assert result.ok
    assert "not spread over CPUs: outside has another XDP program already, gw_sink" in listed.placement_reason


async def test_the_program_leaves_an_interface_that_lost_its_address(
    kernel: FakeKernel, outside: int
) -> None:
    backend = await opened()
    try:
        await backend.install_sas([inbound(placement=KERNEL)])
        assert await seen(outside) == "gw_cpumap"

        await asyncio.to_thread(flush_addresses, "outside")

        deadline = asyncio.get_running_loop().time() + 10
        while await seen(outside) and asyncio.get_running_loop().time() < deadline:
            pass
        assert await seen(outside) == ""
    finally:
        await backend.close()


def test_esp_is_spread_by_its_spi_and_still_arrives(outside: int) -> None:
    """Whole frames from the other end of the cable come to a raw socket by way of other CPUs."""
    steering = CpuSteering()
    steering.follow({"outside": outside})
    assert steering.words("outside").endswith("CPUs by SPI, XDP driver")
    assert ask_xdp_program(outside) == "gw_cpumap, in the driver"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 50) as receiver:
            receiver.settimeout(60)
            for spi in range(0x1000, 0x1000 + 64):
                send_esp(spi)
            arrived = {receiver.recv(200)[20:24] for _ in range(64)}
        assert arrived == {struct.pack("!I", spi) for spi in range(0x1000, 0x1000 + 64)}
        assert steering._loaded is not None
        assert read_counters(steering._loaded.maps)[Exit.STEERED].packets == 64
    finally:
        steering.close()
    assert program_at(outside) == ""


def send_esp(spi: int) -> None:
    """Send a packet of ESP from `beyond` to `outside`."""
    body = struct.pack("!II", spi, 1) + bytes(32)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(body), 0, 0, 64, 50, 0),
        socket.inet_aton("192.0.2.2"),
        socket.inet_aton("192.0.2.1"),
    )
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet = header[:10] + struct.pack("!H", checksum) + header[12:] + body
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("beyond", 0))
        sender.send(neighbour("outside") + neighbour("beyond") + b"\x08\x00" + packet)


def test_an_interface_with_a_queue_for_each_cpu_is_left_as_it_is() -> None:
    cpus = len(os.sched_getaffinity(0))
    with fresh_network_namespace():
        subprocess.run(
            [
                *("ip", "link", "add", "many0", "numrxqueues", str(cpus), "numtxqueues", str(cpus)),
                *("type", "veth", "peer", "name", "many1"),
            ],
            check=True,
        )
        subprocess.run(["ethtool", "-L", "many0", "rx", str(cpus)], check=True)
        index = socket.if_nametoindex("many0")
        steering = CpuSteering()

        steering.follow({"many0": index})

        assert steering.words("many0") == f"{cpus} receive queues for {cpus} CPUs: nothing to spread"
        assert program_at(index) == ""
        steering.close()
