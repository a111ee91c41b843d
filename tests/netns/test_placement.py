"""Where SAs land with the real backends side by side, on kernels and NICs that only a fake can be."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.agent.agent import Agent
from gateway.agent.dispatcher import Candidate, Dispatcher, Nics
from gateway.app.backends import make_datapath
from gateway.datapath.ability import nic_abilities
from gateway.datapath.backend import Capabilities, DatapathEvent, PlacementChange, SasLost
from gateway.datapath.registry import ENGINES, BackendOptions
from gateway.datapath.select import Link
from gateway.datapath.software.backend import SoftwareBackend
from gateway.datapath.software.options import SoftwareOptions
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm import netlink
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.hardware.profiles import find_profile
from gateway.host.network import Network
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.sa import SecurityAssociation
from tests.conformance.namespace import fresh_network_namespace, take_down
from tests.conformance.sas import inbound, outbound, policy
from tests.fakes.machines import PROFILES, nic, surroundings_of_nics
from tests.fakes.xfrm_kernel import FakeKernel, FakeNic

pytestmark = pytest.mark.netns

DEVICE = "outside"


@dataclass
class Node:
    """An agent with the xfrm and the software backend, and what is below it."""

    agent: Agent
    kernel: FakeKernel
    nic: FakeNic
    told: Watch[DatapathEvent]

    async def install(self, *sas: SecurityAssociation) -> list[tuple[str, str]]:
        """Install SAs; return where each is and why not better, or why it is nowhere."""
        results = await self.agent.install_sas(sas)
        return [
            ("", str(result.error))
            if result.error is not None
            else (result.placement.value if result.placement else "", result.placement_reason)
            for result in results
        ]

    async def event(self, kind: type[DatapathEvent]) -> DatapathEvent:
        """Return the next event of a kind."""
        async with asyncio.timeout(60):
            async for event in self.told:
                if isinstance(event, kind):
                    return event
        raise AssertionError("the stream ended")


@asynccontextmanager
async def open_node(
    monkeypatch: pytest.MonkeyPatch, driver: str, *, looks_like: str | None = None, **changes: Any
) -> AsyncIterator[Node]:
    """Open an agent whose only NIC has a driver, and looks to the survey like another's."""
    with fresh_network_namespace("192.0.2.1/24", "10.1.0.1/16"):
        index = socket.if_nametoindex(DEVICE)
        card = FakeNic(name=DEVICE, index=index, profile=find_profile(PROFILES, driver), **changes)
        kernel = FakeKernel(nics={index: card})
        monkeypatch.setattr(netlink, "_opening", kernel.opening)
        network = Network()

        async def look(capabilities: Capabilities) -> Nics:
            links = await network.links_by_address()
            shown = looks_like or driver
            return Nics(
                abilities=nic_abilities(capabilities, [nic(DEVICE, shown)], surroundings_of_nics("6.18")),
                links={
                    address: Link(name=link.name, driver=shown, is_up=link.is_up)
                    for address, link in links.items()
                },
            )

        dispatcher = Dispatcher(
            [
                Candidate(name="xfrm", make=lambda _: XfrmBackend(), engines=ENGINES["xfrm"]),
                Candidate(
                    name="software",
                    make=lambda _: SoftwareBackend(SoftwareOptions(is_alone=False)),
                    engines=ENGINES["software"],
                ),
            ],
            look,
            on_close=network.close,
        )
        await dispatcher.start()
        agent = Agent(dispatcher, fingerprint_key=bytes(32))
        await agent.start()
        try:
            yield Node(agent, kernel, card, agent.events())
        finally:
            await agent.close()


def wish(*engines: Engine) -> dict[str, Placement]:
    return {"placement": Placement(prefer=engines)}


async def test_packet_offload_takes_sas_and_policies_and_is_read_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_node(monkeypatch, "mlx5_core") as node:
        await node.agent.apply_policies([policy()])

        placed = await node.install(inbound(replay_window_packets=256), outbound())

        assert placed == [("nic_packet", ""), ("nic_packet", "")]
        assert node.nic.taken == 2
        listed = await node.agent.list_sas()
        assert {item.placement for item in listed} == {Engine.NIC_PACKET}


async def test_a_limit_of_the_driver_is_known_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_node(monkeypatch, "mlx5_core") as node:
        ((engine, why),) = await node.install(inbound(replay_window_packets=1024))

        assert engine == "nic_crypto"
        assert why == (
            "nic_packet: REPLAY_WINDOW: outside (mlx5_core) does anti-replay windows of 32 or 64 or 128 or "
            "256 packets, not 1024"
        )


async def test_a_driver_that_takes_less_than_was_thought_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_node(monkeypatch, "ixgbe", looks_like="brandnew") as node:
        ((engine, why),) = await node.install(inbound())

        assert engine == "kernel"
        assert "nic_packet: DRIVER_REFUSED: " in why
        assert "Unsupported offload type" in why
        assert "nic_crypto: DRIVER_REFUSED: " in why
        assert "Cannot offload this algorithm, key or ICV length" in why


@pytest.mark.parametrize("make", [inbound, outbound], ids=["inbound", "outbound"])
async def test_a_silent_fallback_to_software_is_found_and_told(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_node(
        monkeypatch, "netdevsim", looks_like="brandnew", unsupported=errno.EOPNOTSUPP
    ) as node:
        ((engine, why),) = await node.install(make(**wish(Engine.NIC_CRYPTO, Engine.SOFTWARE)))

        assert engine == "software"
        assert why.startswith(
            "nic_crypto: KERNEL_IGNORED_OFFLOAD: the kernel took the SA without crypto offload"
        )
        assert node.kernel.sas == {}


async def test_a_table_that_is_full_sends_the_next_sa_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_node(monkeypatch, "mlx5_core", max_sas=1) as node:
        first, second = await node.install(inbound(0x1001), inbound(0x1002, child="b", child_sa_id=2))

        assert first[0] == "nic_crypto"
        assert second[0] == "kernel"
        assert (
            "nic_crypto: DRIVER_REFUSED: outside refused crypto offload: No space in SA table!" in second[1]
        )


async def test_a_required_offload_that_is_not_to_be_had_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_node(monkeypatch, "ixgbe") as node:
        sa = inbound(placement=Placement(require=Engine.NIC_PACKET))

        ((engine, why),) = await node.install(sa)

        assert (engine, node.kernel.sas) == ("", {})
        assert why == (
            "it requires nic_packet, and nic_packet: NO_DEVICE: outside (ixgbe) has no packet offload, "
            "only crypto offload"
        )


async def test_a_device_that_goes_down_loses_its_sas_and_new_ones_land_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_node(monkeypatch, "mlx5_core") as node:
        await node.agent.apply_policies([policy()])
        crypto = wish(Engine.NIC_CRYPTO, Engine.KERNEL)
        sas = inbound(0x1001, **crypto), outbound(0x2001, **crypto)
        assert [engine for engine, _ in await node.install(*sas)] == ["nic_crypto"] * 2

        node.kernel.take_down(node.nic.index)
        take_down(DEVICE)

        lost = await node.event(SasLost)
        assert isinstance(lost, SasLost)
        assert set(lost.sa_ids) == {sa.sa_id for sa in sas}
        again = inbound(0x1002, child_sa_id=2, **crypto), outbound(0x2002, child_sa_id=2, **crypto)
        assert [engine for engine, _ in await node.install(*again)] == ["kernel"] * 2
        moved = await node.event(PlacementChange)
        assert isinstance(moved, PlacementChange)
        assert (moved.old, moved.new) == (Engine.NIC_CRYPTO, Engine.KERNEL)


async def test_without_esp_in_the_kernel_software_carries_and_says_why() -> None:
    with fresh_network_namespace("192.0.2.1/24"):
        dispatcher = make_datapath("auto", BackendOptions())
        await dispatcher.start()
        try:
            (result,) = await dispatcher.install_sas(
                [replace(inbound(), **wish(Engine.KERNEL, Engine.SOFTWARE))]
            )
        finally:
            await dispatcher.close()

    assert result.placement is Engine.SOFTWARE
    assert "kernel: NO_BACKEND: xfrm cannot run here: " in result.placement_reason
