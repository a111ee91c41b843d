"""Forwarding in XDP beside packet offload: what goes straight to the NIC, and what stops it.

A frame at the far end of the NIC's wire is one that the NIC was given to encrypt. What the NIC was given when
it had no SA for it would have left in clear: these tests count such frames, and there is none.
"""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from gateway.agent.agent import Agent
from gateway.agent.dispatcher import Candidate, Dispatcher, Nics
from gateway.datapath.ability import nic_abilities
from gateway.datapath.backend import Capabilities, SasLost
from gateway.datapath.registry import ENGINES
from gateway.datapath.select import Link
from gateway.datapath.xfrm import forwarding
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.datapath.xfrm.forwarding import LEASE_S
from gateway.datapath.xfrm.numbers import MessageType
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.host.bpf.abi import Exit
from gateway.host.bpf.attach import attach_xdp, attached_program, program_name
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.errors import BpfError
from gateway.host.bpf.objects import load_object
from gateway.host.network import Network
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.namespace import neighbour
from tests.conformance.sas import OURS, PEER, inbound, outbound, policy
from tests.fakes.machines import nic, surroundings_of_nics
from tests.netns.forwarding_rig import (
    LAN,
    NIC,
    NIC_PACKET,
    WINDOW,
    WIRE,
    Rig,
    be_router,
    frame_of,
    install,
    mirrored_kernel,
    rig,
    seen,
    wires,
    xdp_sas,
)
from tests.netns.site_gateways import wait_until

pytestmark = pytest.mark.netns

OFFLOADED = {"placement": NIC_PACKET, "replay_window_packets": WINDOW}
FORWARDS = "XDP forwards from lan0 (XDP driver)"


@pytest.fixture
async def gateway() -> AsyncIterator[Rig]:
    """A gateway whose NIC has both SAs of a Child, and that forwards to it."""
    async with rig() as made:
        await install(made.backend)
        await made.until(FORWARDS)
        made.kernel.forwarder = made.forwarder
        yield made


def send(made: Rig, *markers: int) -> None:
    for marker in markers:
        made.host.send(frame_of(marker))


# --- what is forwarded --------------------------------------------------------------------------------


async def test_what_the_nic_encrypts_goes_straight_to_it(gateway: Rig) -> None:
    peer_mac, nic_mac = neighbour(WIRE), neighbour(NIC)

    send(gateway, 1, 2, 3)

    frames = seen(gateway.wire, 3)
    assert [frame[-8:] for frame in frames] == [b"%08d" % marker for marker in (1, 2, 3)]
    for frame in frames:
        # The link header leads to the peer of the SA, not to the inner destination.
        assert (frame[:6], frame[6:12]) == (peer_mac, nic_mac)
        assert Ether(frame)[IP].ttl == 63
    assert gateway.counted()[Exit.FORWARDED] == 3
    assert "3 packets" in await gateway.words()


async def test_what_comes_in_is_left_to_the_stack_and_that_is_said(gateway: Rig) -> None:
    said = await gateway.words(0x1001)

    assert said == "the stack forwards what comes in, because it can tell what was encrypted"


async def test_a_rekey_is_forwarded_without_a_gap(gateway: Rig) -> None:
    await gateway.backend.install_sas([outbound(0x2002, placement=NIC_PACKET)])
    await gateway.until("XDP forwards", 0x2002)
    send(gateway, 1)
    await gateway.backend.remove_sas(
        [item.sa.sa_id for item in await gateway.backend.list_sas() if item.sa.spi == 0x2001]
    )
    send(gateway, 2)

    assert len(seen(gateway.wire, 2)) == 2
    assert xdp_sas(gateway.forwarder) == [0x2002]


async def test_the_path_mtu_of_the_sa_is_answered(gateway: Rig) -> None:
    gateway.host.send(frame_of(1, more_bytes=1410, flags="DF"))

    assert seen(gateway.wire) == []
    assert gateway.counted()[DropReason.TOO_BIG] == 1
    assert (await gateway.backend.counters()).drops[DropReason.TOO_BIG] == 1


async def test_entries_before_it_hold_from_the_moment_they_are_applied(gateway: Rig) -> None:
    narrow = (TrafficSelector.parse("10.2.0.9/32"),)
    await gateway.backend.apply_policies(
        [policy("no", action=Action.DISCARD, remote_ts=narrow, priority=1, connection="", child="")]
    )
    send(gateway, 1)
    assert gateway.counted()[Exit.LEASE_OVER] == 1, "until XDP has the new SPD"

    await gateway.until_changes_are_seen()
    send(gateway, 2)

    assert seen(gateway.wire) == []
    assert gateway.counted()[DropReason.POLICY_DISCARD] == 1


# --- what stops it --------------------------------------------------------------------------------------


async def test_the_first_packet_after_a_flush_of_the_kernel_stays_here(gateway: Rig) -> None:
    """The device went down and came up again before anybody noticed: its SAs are gone, nobody was told."""
    send(gateway, 1)
    assert len(seen(gateway.wire, 1)) == 1

    gateway.kernel.sad.remove(PEER, 0x2001)
    send(gateway, *range(100))

    assert seen(gateway.wire) == []
    assert gateway.counted()[Exit.SA_GONE] == 100
    assert "XDP forwards" in await gateway.words(), "the agent has not noticed yet"
    gateway.kernel.sad.add(PEER, 0x2001)


async def test_xdp_lets_go_of_an_sa_before_the_kernel_is_asked_to(gateway: Rig) -> None:
    listed = await gateway.backend.list_sas()

    await gateway.backend.remove_sas([item.sa.sa_id for item in listed])

    kinds = {kind for kind, _ in gateway.kernel.at_loss}
    assert kinds == {MessageType.DELSA, MessageType.UPDPOLICY}
    assert {count for _, count in gateway.kernel.at_loss} == {0}
    send(gateway, 1)
    assert seen(gateway.wire) == []


async def test_xdp_lets_go_before_a_policy_is_taken_away(gateway: Rig) -> None:
    await gateway.backend.remove_policies(["paris/lan"])

    assert gateway.kernel.at_loss
    assert {count for _, count in gateway.kernel.at_loss} == {0}
    send(gateway, 1)
    assert seen(gateway.wire) == []


async def test_a_nic_that_goes_down_has_no_entries_when_that_is_told(gateway: Rig) -> None:
    told = gateway.backend.events()
    gateway.kernel.take_down(socket.if_nametoindex(NIC))
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", NIC, "down"], check=True)
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", NIC, "up"], check=True)
    send(gateway, *range(10))

    async with asyncio.timeout(60):
        async for event in told:
            if isinstance(event, SasLost):
                break

    assert xdp_sas(gateway.forwarder) == []
    send(gateway, *range(10))
    assert seen(gateway.wire) == []


async def test_an_sa_may_go_while_xdp_is_being_told_of_it(gateway: Rig) -> None:
    followed, sas = gateway.backend._forwarding, gateway.backend._sas
    (held,) = [held for held in gateway.backend._sad if held.sa.spi == 0x2001]
    look = followed._forwarded

    async def look_and_lose(around: Any) -> Any:
        found = await look(around)
        followed.forget(held)
        sas.forget(held)
        return found

    followed._forwarded = look_and_lose  # type: ignore[method-assign]
    followed.note_change()
    await gateway.until_changes_are_seen()
    followed._forwarded = look  # type: ignore[method-assign]
    followed.note_change()
    await gateway.until_changes_are_seen()

    assert xdp_sas(gateway.forwarder) == []
    await gateway.backend.install_sas([outbound(0x2002, placement=NIC_PACKET)])
    await gateway.until("XDP forwards", 0x2002)


async def test_a_route_that_leads_elsewhere_ends_it(gateway: Rig) -> None:
    await asyncio.to_thread(subprocess.run, ["ip", "route", "add", "192.0.2.2/32", "dev", LAN], check=True)
    await gateway.until("the stack forwards: the route to 192.0.2.2 does not leave by outside")

    send(gateway, 1)

    assert seen(gateway.wire) == []


async def test_closing_ends_it(gateway: Rig) -> None:
    await gateway.backend.close()

    send(gateway, 1)

    assert seen(gateway.wire) == []


async def test_nothing_of_ours_is_left_where_the_protection_is_removed(gateway: Rig) -> None:
    assert gateway.kernel.policies
    gateway.kernel.forwarder = None
    await gateway.backend.remove_protection()

    assert (gateway.kernel.policies, gateway.kernel.sas) == ({}, {})
    send(gateway, 1)
    assert seen(gateway.wire) == []


# --- what is never forwarded ----------------------------------------------------------------------------


async def test_an_sa_of_the_kernel_is_not_forwarded_to() -> None:
    async with rig() as made:
        await made.backend.apply_policies([policy()])
        await made.backend.install_sas([outbound(placement=Placement(require=Engine.KERNEL))])
        await made.until_changes_are_seen()

        send(made, 1)

        assert seen(made.wire) == []
        assert made.counted()[Exit.STACK_PROTECTS] == 1
        assert await made.words() == ""


async def test_a_newer_sa_of_the_kernel_takes_over_from_the_nic(gateway: Rig) -> None:
    await gateway.backend.install_sas([outbound(0x2002, placement=Placement(require=Engine.KERNEL))])

    send(gateway, 1)

    assert seen(gateway.wire) == []
    await gateway.until_changes_are_seen()
    send(gateway, 2)
    assert seen(gateway.wire) == []
    assert gateway.counted()[Exit.STACK_PROTECTS] == 1


async def test_a_policy_that_is_not_read_back_from_the_device_is_not_enough() -> None:
    async with rig() as made:
        made.kernel.shows_policies = False
        await install(made.backend)
        await made.until(
            "the stack forwards: the kernel does not say that outside has the policy of 10.2.0.0/16"
        )

        send(made, 1)

        assert seen(made.wire) == []


async def test_a_machine_that_is_no_router_forwards_nothing() -> None:
    async with rig() as made:
        be_router(is_one=False)
        await install(made.backend)

        await made.until("this machine is no router for IPv4 (sysctl net.ipv4.ip_forward is 0)")


async def test_without_a_link_address_the_stack_finds_one() -> None:
    async with rig() as made:
        await asyncio.to_thread(
            subprocess.run, ["ip", "neighbour", "flush", "dev", NIC, "nud", "permanent"], check=True
        )
        await install(made.backend)

        await made.until("the link address of 192.0.2.2 is not known yet")


async def test_another_xdp_program_is_left_alone_and_named() -> None:
    async with rig(("nowhere0",)) as made:
        await install(made.backend)
        await made.until("the stack forwards: nowhere0 (not there)")
        with load_object(read_program("xdp_sink")) as other, attach_xdp(other.programs["gw_sink"], LAN).link:
            made.backend._forwarding._interfaces = (LAN,)
            made.backend._forwarding.note_change()

            await made.until(
                "the stack forwards: lan0 (no XDP: lan0 has another XDP program already, gw_sink"
            )


async def test_a_kernel_that_cannot_be_asked_for_sas_forwards_in_the_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise BpfError("this kernel has no function bpf_xdp_get_xfrm_state for BPF programs")

    monkeypatch.setattr(forwarding, "XdpForwarder", refuse)
    async with rig() as made:
        await install(made.backend)

        said = await made.words()

        assert (
            said == "the stack forwards: this kernel has no function bpf_xdp_get_xfrm_state for BPF programs"
        )
        send(made, 1)
        assert seen(made.wire) == []


async def test_the_agent_tells_what_its_backend_says() -> None:
    with wires(), mirrored_kernel():
        network = Network()

        async def look(capabilities: Capabilities) -> Nics:
            around = surroundings_of_nics("6.18")
            links = {OURS: Link(name=NIC, driver="mlx5_core", is_up=True)}
            return Nics(abilities=nic_abilities(capabilities, [nic(NIC, "mlx5_core")], around), links=links)

        def make(_: object) -> XfrmBackend:
            return XfrmBackend(XfrmOptions(forward_interfaces=(LAN,)))

        candidate = Candidate(name="xfrm", make=make, engines=ENGINES["xfrm"])
        dispatcher = Dispatcher([candidate], look, on_close=network.close)
        await dispatcher.start()
        agent = Agent(dispatcher, fingerprint_key=bytes(32))
        await agent.start()
        try:
            await agent.apply_policies([policy()])
            for result in await agent.install_sas([inbound(**OFFLOADED), outbound(placement=NIC_PACKET)]):
                assert result.ok, result.error
            async with asyncio.timeout(60):
                while FORWARDS not in str([item.placement_reason for item in await agent.list_sas()]):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            await agent.close()


# --- an agent that is not there any more ----------------------------------------------------------------


@contextmanager
def agent() -> Iterator[tuple[subprocess.Popen[str], socket.socket, socket.socket]]:
    """Run an agent that forwards, as a process of its own."""
    with wires() as (host, wire):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.netns.forwarding_rig"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            host.send(frame_of(1))
            assert len(seen(wire, 1)) == 1
            yield process, host, wire
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def program_at(device: str) -> str:
    found = attached_program(socket.if_nametoindex(device))
    return "" if found is None else program_name(found[0])


def test_a_killed_agent_takes_the_program_with_it() -> None:
    with agent() as (process, host, wire):
        assert program_at(LAN) == "gw_forward"

        process.kill()
        process.wait()

        # The kernel frees what the process had in its own time.
        wait_until(lambda: program_at(LAN) == "")
        host.send(frame_of(2))
        assert seen(wire) == []


def test_an_agent_that_hangs_ends_forwarding_when_its_lease_is_over() -> None:
    with agent() as (process, host, wire):
        process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_S + 0.5)
        host.send(frame_of(2))

        assert seen(wire) == []
        assert program_at(LAN) == "gw_forward"

        process.send_signal(signal.SIGCONT)

        def forwards() -> bool:
            host.send(frame_of(3))
            return bool(seen(wire))

        wait_until(forwards)
