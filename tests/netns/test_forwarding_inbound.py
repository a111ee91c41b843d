"""Forwarding in XDP of what a NIC with packet offload decrypted: what goes to the LAN, and what stops it.

A frame that is sent from the far end of the NIC's wire is one that the NIC decrypted, or, where the NIC has
no SA any more, one that it let in in clear: then none may come out at the host.
"""

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from gateway.datapath.backend import SasLost
from gateway.host.bpf.abi import PORTS, Exit, Side
from gateway.host.bpf.attach import XdpMode, attached_program
from gateway.ipsec.placement import Engine, Placement
from tests.conformance.namespace import neighbour
from tests.conformance.sas import inbound, outbound, policy
from tests.netns.forwarding_rig import (
    HOST_MAC,
    LAN,
    NIC,
    NIC_PACKET,
    WINDOW,
    Rig,
    frame_from_peer,
    frame_of,
    install,
    rig,
    seen,
    xdp_inbound_sas,
    xdp_sas,
)

pytestmark = pytest.mark.netns

IN = 0x1001
FORWARDS = f"XDP forwards from {NIC} (XDP driver) to {LAN}"
HOST_ADDRESS = "10.1.0.9"
OURS = ip_address("192.0.2.1")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def ip_later(*arguments: str) -> None:
    await asyncio.to_thread(ip, *arguments)


def know_the_host() -> None:
    """Have the kernel know the link address of the host on the LAN."""
    ip("neighbour", "replace", HOST_ADDRESS, "lladdr", HOST_MAC, "dev", LAN)


@pytest.fixture
async def gateway() -> AsyncIterator[Rig]:
    """A gateway whose NIC has both SAs of a Child and is trusted, so that XDP forwards both ways."""
    async with rig(trusted=(NIC,)) as made:
        know_the_host()
        await install(made.backend)
        await made.until(FORWARDS, IN)
        made.kernel.forwarder = made.forwarder
        yield made


def come_in(made: Rig, *markers: int, source: str = "10.2.0.9") -> list[bytes]:
    """Have frames come in by the NIC; return those that come to the host."""
    for marker in markers:
        made.wire.send(frame_from_peer(marker, source=source))
    return seen(made.host)


# --- what is forwarded --------------------------------------------------------------------------------


async def test_what_the_nic_decrypts_goes_straight_to_the_lan(gateway: Rig) -> None:
    frames = come_in(gateway, 1, 2, 3)

    assert [frame[-8:] for frame in frames] == [b"%08d" % marker for marker in (1, 2, 3)]
    for frame in frames:
        assert (frame[:6].hex(":"), frame[6:12]) == (HOST_MAC, neighbour(LAN))
        assert Ether(frame)[IP].ttl == 59
    assert gateway.counted()[Exit.FORWARDED_IN] == 3
    assert await gateway.words(IN) == f"{FORWARDS}: 3 packets"


async def test_what_goes_out_is_forwarded_beside_it(gateway: Rig) -> None:
    gateway.host.send(frame_of(1))

    assert len(seen(gateway.wire, 1)) == 1
    assert gateway.counted()[Exit.FORWARDED] == 1
    assert "1 packets" in await gateway.words()


async def test_a_route_behind_a_router_of_the_lan_is_followed(gateway: Rig) -> None:
    await ip_later("neighbour", "add", "10.1.0.77", "lladdr", "02:00:00:00:00:77", "dev", LAN)
    await ip_later("route", "add", "10.1.64.0/24", "via", "10.1.0.77", "mtu", "1400")
    frame = Ether(frame_from_peer(7))
    frame[IP].dst, frame[IP].chksum = "10.1.64.9", None
    async with asyncio.timeout(30):
        frames: list[bytes] = []
        while not frames:
            gateway.wire.send(bytes(frame))
            frames = await asyncio.to_thread(seen, gateway.host)

    assert frames[0][:6].hex(":") == "02:00:00:00:00:77"


async def test_a_host_that_moves_is_followed(gateway: Rig) -> None:
    await ip_later("neighbour", "replace", HOST_ADDRESS, "lladdr", "02:00:00:00:00:42", "dev", LAN)

    async with asyncio.timeout(30):
        while True:
            (frame,) = await asyncio.to_thread(come_in, gateway, 1)
            if frame[:6].hex(":") == "02:00:00:00:00:42":
                break


async def test_a_rekey_is_forwarded_without_a_gap(gateway: Rig) -> None:
    fresh = [inbound(0x1002, placement=NIC_PACKET, replay_window_packets=WINDOW)]
    await gateway.backend.install_sas(fresh)
    assert len(come_in(gateway, 1)) == 1
    await gateway.until_changes_are_seen()
    assert len(come_in(gateway, 2)) == 1
    await gateway.backend.install_sas([outbound(0x2002, placement=NIC_PACKET)])
    await gateway.until("XDP forwards", 0x2002)
    assert len(come_in(gateway, 3)) == 1

    old = [item.sa.sa_id for item in await gateway.backend.list_sas() if item.sa.spi in (IN, 0x2001)]
    await gateway.backend.remove_sas(old)

    assert len(come_in(gateway, 4)) == 1
    await gateway.until_changes_are_seen()
    assert len(come_in(gateway, 5)) == 1
    assert (xdp_inbound_sas(gateway.forwarder), xdp_sas(gateway.forwarder)) == ([0x1002], [0x2002])


# --- what stops it --------------------------------------------------------------------------------------


async def test_the_first_packet_after_a_flush_of_the_kernel_stays_here(gateway: Rig) -> None:
    """The device went down and came up again before anybody noticed: its SAs are gone, clear packets come."""
    assert len(come_in(gateway, 1)) == 1

    gateway.kernel.sad.remove(OURS, IN)
    frames = come_in(gateway, *range(100))

    assert frames == []
    assert gateway.counted()[Exit.SA_GONE] == 100
    assert FORWARDS in await gateway.words(IN), "the agent has not noticed yet"
    gateway.kernel.sad.add(OURS, IN)


async def test_xdp_lets_go_before_the_kernel_takes_sas_or_policies_away(gateway: Rig) -> None:
    listed = await gateway.backend.list_sas()

    await gateway.backend.remove_sas([item.sa.sa_id for item in listed])

    assert gateway.kernel.at_loss
    assert {count for _, count in gateway.kernel.at_loss} == {0}
    assert come_in(gateway, 1) == []


async def test_xdp_lets_go_before_a_policy_is_taken_away(gateway: Rig) -> None:
    await gateway.backend.remove_policies(["paris/lan"])

    assert gateway.kernel.at_loss
    assert {count for _, count in gateway.kernel.at_loss} == {0}
    assert come_in(gateway, 1) == []


async def test_a_nic_that_goes_down_has_no_entries_when_that_is_told(gateway: Rig) -> None:
    told = gateway.backend.events()
    gateway.kernel.take_down(socket.if_nametoindex(NIC))
    await ip_later("link", "set", NIC, "down")
    await ip_later("link", "set", NIC, "up")
    assert come_in(gateway, *range(10)) == []

    async with asyncio.timeout(30):
        async for event in told:
            if isinstance(event, SasLost):
                break

    assert xdp_inbound_sas(gateway.forwarder) == []
    assert come_in(gateway, *range(10)) == []


async def test_the_lease_and_a_change_of_the_spd_stop_it(gateway: Rig) -> None:
    await gateway.backend.apply_policies([policy("other", connection="", child="", priority=5000)])
    gateway.forwarder.lease_until(time.monotonic_ns() - 1)

    assert come_in(gateway, 1) == []

    assert gateway.counted()[Exit.LEASE_OVER] == 1
    await gateway.until_changes_are_seen()
    assert len(come_in(gateway, 2)) == 1


async def test_closing_ends_it(gateway: Rig) -> None:
    await gateway.backend.close()

    assert come_in(gateway, 1) == []
    assert await asyncio.to_thread(attached_program, socket.if_nametoindex(NIC)) is None


async def test_a_lan_that_goes_down_ends_it(gateway: Rig) -> None:
    await ip_later("link", "set", LAN, "down")

    await gateway.until("the stack forwards: XDP can send by none of the interfaces to the LAN", IN)


async def test_policy_rules_of_others_leave_the_routing_to_the_stack(gateway: Rig) -> None:
    await ip_later("rule", "add", "from", "10.2.0.0/16", "lookup", "100", "preference", "90")
    gateway.backend._forwarding.note_change()

    await gateway.until("the stack forwards: routes are chosen by rules that XDP does not follow", IN)
    assert come_in(gateway, 1) == []


# --- what is never forwarded ----------------------------------------------------------------------------


async def test_what_is_of_no_sa_is_left_to_the_stack(gateway: Rig) -> None:
    assert come_in(gateway, 1, source="10.3.0.9") == []

    assert gateway.counted()[Exit.NO_ENTRY] == 1


async def test_a_nic_that_is_not_trusted_leaves_all_to_the_stack() -> None:
    async with rig((LAN, NIC)) as made:
        know_the_host()
        await install(made.backend)
        await made.until("XDP forwards")

        assert come_in(made, 1) == []

        assert made.counted()[Exit.STACK_PROTECTS] == 1
        said = await made.words(IN)
        assert said == "the stack forwards what comes in, because it can tell what was encrypted"


async def test_an_sa_of_the_kernel_beside_it_leaves_all_of_the_child_to_the_stack(gateway: Rig) -> None:
    (result,) = await gateway.backend.install_sas(
        [inbound(0x1002, placement=Placement(require=Engine.KERNEL))]
    )
    assert result.ok, result.error
    await gateway.until_changes_are_seen()

    said = await gateway.words(IN)
    assert said == f"the stack forwards: another inbound SA of the Child is not on {NIC}"
    assert come_in(gateway, 1) == []
    assert xdp_inbound_sas(gateway.forwarder) == []


async def test_a_policy_that_is_not_read_back_from_the_device_is_not_enough() -> None:
    async with rig(trusted=(NIC,)) as made:
        made.kernel.shows_policies = False
        await install(made.backend)

        await made.until(
            f"the stack forwards: the kernel does not say that {NIC} has the policy of 10.2.0.0/16", IN
        )

        assert come_in(made, 1) == []


async def test_xdp_behind_the_driver_leaves_all_to_the_stack(gateway: Rig) -> None:
    item = gateway.forwarder.attached[NIC]
    assert item.attachment is not None
    generic = replace(item.attachment, mode=XdpMode.GENERIC)
    gateway.forwarder._attached[NIC] = replace(item, attachment=generic, words="XDP generic (no room)")
    gateway.backend._forwarding.note_change()

    await gateway.until(
        f"the stack forwards: XDP does not run in the driver of {NIC} (XDP generic (no room))", IN
    )

    assert come_in(gateway, 1) == []


async def test_a_host_whose_link_address_is_not_known_is_the_stacks(gateway: Rig) -> None:
    await ip_later("neighbour", "del", HOST_ADDRESS, "dev", LAN)
    gateway.backend._forwarding.note_change()
    gateway.backend._forwarding._refresh_at = 0
    await gateway.until_changes_are_seen()

    assert come_in(gateway, 1) == []
    assert gateway.counted()[Exit.NO_NEXT_HOP] == 1


async def test_a_trusted_nic_is_on_the_outer_side_before_it_has_an_sa() -> None:
    """What comes in there from a network of ours is spoofed: it must not be encrypted by another NIC."""
    async with rig(trusted=(NIC,)) as made:
        await made.backend.apply_policies([policy()])
        await made.until_changes_are_seen()

        ports = PORTS.of(made.forwarder._loaded.maps).items()
        sides = {key.ifindex: port.side for key, port in ports}
        assert sides == {socket.if_nametoindex(NIC): Side.OFFLOAD, socket.if_nametoindex(LAN): Side.LAN}


async def test_the_operator_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(trusted=(NIC,)):
        pass

    wanted = "inbound_forwarding_trusts_nic"
    (record,) = [record for record in caplog.records if record.getMessage() == wanted]
    assert (record.levelname, record.gw_fields["interface"]) == ("WARNING", NIC)  # type: ignore[attr-defined]
