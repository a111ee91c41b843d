"""Several backends in one agent: where SAs and SPD entries go, what moves them, and what is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.agent.agent import Agent
from gateway.agent.dispatcher import LOOK_AGAIN_S, Candidate, Dispatcher, Nics
from gateway.agent.sa_placing import AVOID_S
from gateway.datapath.ability import Closed, nic_abilities
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Capabilities,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    ItemResult,
    PlacementChange,
    SasLost,
)
from gateway.datapath.select import Link
from gateway.datapath.watch import Watch
from gateway.host.errors import HostError
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.placement import Engine, Placement, PlacementReason
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import OURS, inbound, outbound, policy
from tests.fakes.datapath import FakeDatapath, FakeSad
from tests.fakes.machines import KERNEL, SOFTWARE, nic, surroundings_of_nics
from tests.fakes.virtual_loop import pass_time

ONLY_SOFTWARE = Placement(require=Engine.SOFTWARE)
NIC_OR_SOFTWARE = Placement(prefer=(Engine.NIC_PACKET, Engine.SOFTWARE))
#: What the NIC of these tests takes.
NIC: dict[str, Any] = {"replay_window_packets": 256, "placement": NIC_OR_SOFTWARE}


class Journaled(FakeDatapath):
    """A fake whose changes are written into a journal that it shares with others."""

    def __init__(self, name: str, capabilities: Capabilities, journal: list[str], first_spi: int) -> None:
        super().__init__(FakeSad(first_spi=first_spi), capabilities)
        self.name = name
        self.journal = journal
        self.broken: DatapathError | None = None

    def _note(self, verb: str, names: Sequence[str]) -> None:
        self.journal.extend(f"{self.name} {verb} {name}" for name in names)

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        self._note("install", [sa.sa_id for sa in sas])
        if self.broken is not None:
            raise self.broken
        return await super().install_sas(sas, generation)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        self._note("remove", sa_ids)
        return await super().remove_sas(sa_ids)

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        self._note("apply", [policy.name for policy in policies])
        return await super().apply_policies(policies, generation)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        self._note("withdraw", names)
        if self.broken is not None:
            return tuple(ItemResult(name=name, error=self.broken) for name in names)
        return await super().remove_policies(names)


class Node:
    """A dispatcher over a kernel with one NIC, and the software datapath; with what it tells."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.kernel = Journaled("xfrm", KERNEL, self.journal, 0x1001)
        self.software = Journaled("software", SOFTWARE, self.journal, 0x5001)
        self.driver, self.feature, self.is_up = "mlx5_core", "on", True
        self.directions = frozenset(Direction)
        self.looks = 0
        self.dispatcher = Dispatcher(
            [
                Candidate(name="xfrm", make=lambda _: self.kernel, engines=KERNEL.engines),
                Candidate(name="software", make=lambda _: self.software, engines=SOFTWARE.engines),
            ],
            self.look,
            absent={Engine.ENGINE: Closed(reason=PlacementReason.NO_BACKEND, text="espd is not installed")},
        )
        self.told: Watch[DatapathEvent] = self.dispatcher.events()

    async def look(self, capabilities: Capabilities) -> Nics:
        self.looks += 1
        facts = [nic("eth0", self.driver, self.feature)]
        abilities = nic_abilities(capabilities, facts, surroundings_of_nics("6.18.1"))
        return Nics(
            abilities=tuple(
                replace(item, directions=item.directions & self.directions) for item in abilities
            ),
            links={OURS: Link(name="eth0", driver=self.driver, is_up=self.is_up)},
        )

    async def install(self, *sas: SecurityAssociation) -> list[str]:
        """Install SAs; return where each landed, or the code of its refusal."""
        results = await self.dispatcher.install_sas(sas, 1)
        return [
            result.error.reason.value if result.error else result.placement.value if result.placement else "-"
            for result in results
        ]

    async def event(self) -> DatapathEvent:
        async with asyncio.timeout(5):
            return await anext(self.told)

    def homes(self) -> dict[str, str]:
        """Return where each policy is in force."""
        return {
            name: backend.name for backend in (self.kernel, self.software) for name in backend.sad.policies
        }


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    await made.dispatcher.start()
    yield made
    await made.dispatcher.close()


def child(name: str, spi: int, make: Callable[..., SecurityAssociation], **changes: Any) -> Any:
    return make(spi, child=name, child_sa_id=spi & 0xFF, **changes)


def discard_all() -> Policy:
    anywhere = (TrafficSelector.parse("0.0.0.0/0"),)
    return Policy(name="all", action=Action.DISCARD, local_ts=anywhere, remote_ts=anywhere, priority=9000)


# --- where an SA goes -------------------------------------------------------------------------------


async def test_each_sa_goes_to_the_backend_of_its_engine_which_is_told_that_engine_and_no_other(
    node: Node,
) -> None:
    to_nic, to_software = inbound(0x1001, **NIC), child("b", 0x5001, inbound, placement=ONLY_SOFTWARE)

    assert await node.install(to_nic, to_software) == ["nic_packet", "software"]

    assert node.journal == [f"xfrm install {to_nic.sa_id}", f"software install {to_software.sa_id}"]
    (held,) = node.kernel.sad.sas.values()
    assert held.sa.placement == Placement(prefer=(Engine.NIC_PACKET,), require=Engine.NIC_PACKET)


async def test_sas_are_listed_with_the_operators_wish_and_every_reason(node: Node) -> None:
    sa = inbound(0x1001)

    await node.install(sa)

    (listed,) = await node.dispatcher.list_sas()
    assert listed.sa == sa
    assert listed.placement is Engine.NIC_CRYPTO
    assert [(refusal.engine, refusal.reason) for refusal in listed.refusals] == [
        (Engine.NIC_PACKET, PlacementReason.REPLAY_WINDOW)
    ]
    assert listed.placement_reason.startswith("nic_packet: REPLAY_WINDOW: eth0 (mlx5_core) does anti-replay")


async def test_a_required_engine_that_cannot_take_it_refuses_the_sa_with_the_reason(node: Node) -> None:
    (result,) = await node.dispatcher.install_sas([inbound(placement=Placement(require=Engine.ENGINE))], 1)

    assert result.error is not None
    assert result.error.reason is ErrorReason.PLACEMENT_UNAVAILABLE
    assert str(result.error) == "it requires engine, and engine: NO_BACKEND: espd is not installed"
    assert node.journal == []


async def test_a_backends_refusal_is_kept_as_the_reason_and_the_next_engine_is_tried(node: Node) -> None:
    words = "mlx5_core: Cannot offload xfrm states with AEAD key length other than 128/256 bit"
    node.kernel.refusals.append(DatapathError(ErrorReason.SYSTEM, words, why=PlacementReason.DRIVER_REFUSED))

    (result,) = await node.dispatcher.install_sas([inbound(**NIC | {"placement": Placement()})], 1)

    assert result.placement is Engine.NIC_CRYPTO
    assert result.placement_reason == f"nic_packet: DRIVER_REFUSED: {words}"


async def test_a_refusal_that_no_backend_would_better_is_final(node: Node) -> None:
    node.kernel.refusals.append(DatapathError(ErrorReason.SPI_IN_USE, "SPI 00001001 has another SA"))

    assert await node.install(inbound(0x1001)) == ["SPI_IN_USE"]
    assert node.software.sad.sas == {}


async def test_what_nothing_takes_fails_with_the_code_of_the_last_resort(node: Node) -> None:
    node.software.refusals.append(DatapathError(ErrorReason.KEY_LENGTH, "key has 3 bytes, wants 36"))

    (result,) = await node.dispatcher.install_sas([inbound(placement=ONLY_SOFTWARE)], 1)

    assert result.error is not None
    assert result.error.reason is ErrorReason.KEY_LENGTH
    assert "software: KEYLEN: key has 3 bytes, wants 36" in str(result.error)


async def test_installing_again_changes_nothing_and_answers_where_it_is(node: Node) -> None:
    sa = inbound(**NIC)
    await node.install(sa)
    node.driver = "ixgbe"

    assert await node.install(sa) == ["nic_packet"]
    assert len(node.kernel.sad.history) == 1


async def test_a_full_table_is_counted_within_a_batch_too(node: Node) -> None:
    node.driver = "netdevsim"
    wish = Placement(prefer=(Engine.NIC_CRYPTO, Engine.KERNEL))
    sas = [inbound(0x1001 + n, key_bits=128, placement=wish, child_sa_id=n + 1) for n in range(35)]

    placed = await node.install(*sas)

    assert placed == ["nic_crypto"] * 33 + ["kernel"] * 2
    listed = (await node.dispatcher.list_sas())[-1]
    assert listed.placement_reason == "nic_crypto: SA_TABLE_FULL: eth0 (netdevsim) holds 33 SAs and has 33"
    await node.dispatcher.remove_sas([sas[0].sa_id])
    assert await node.install(replace(sas[-1], spi=Spi(0x2002), child_sa_id=99)) == ["nic_crypto"]


async def test_results_are_in_the_order_of_the_batch_though_inbound_sas_go_first(node: Node) -> None:
    out, into = outbound(0x2001), inbound(0x1001)

    results = await node.dispatcher.install_sas([out, into], 1)

    assert [result.name for result in results] == [out.sa_id, into.sa_id]
    assert node.journal == [f"xfrm install {into.sa_id}", f"xfrm install {out.sa_id}"]


# --- never an IV twice ------------------------------------------------------------------------------


async def test_an_outbound_sa_that_silently_landed_elsewhere_stays_there(node: Node) -> None:
    node.kernel.silent[Engine.NIC_CRYPTO] = Engine.KERNEL
    wish = Placement(prefer=(Engine.NIC_CRYPTO, Engine.SOFTWARE, Engine.KERNEL))

    (result,) = await node.dispatcher.install_sas([outbound(placement=wish)], 1)

    assert result.placement is Engine.KERNEL
    assert [(refusal.engine.value, refusal.reason.value) for refusal in result.refusals] == [
        ("nic_crypto", "KERNEL_IGNORED_OFFLOAD"),
        ("software", "BACKEND_REFUSED"),
    ]
    assert node.software.sad.sas == {}


async def test_an_inbound_sa_that_silently_landed_elsewhere_goes_where_it_should(node: Node) -> None:
    node.kernel.silent[Engine.NIC_CRYPTO] = Engine.KERNEL
    wish = Placement(prefer=(Engine.NIC_CRYPTO, Engine.SOFTWARE, Engine.KERNEL))

    assert await node.install(inbound(placement=wish)) == ["software"]
    assert node.kernel.sad.sas == {}


async def test_an_outbound_sa_that_landed_where_it_must_not_be_is_removed_and_its_key_is_spent(
    node: Node,
) -> None:
    node.kernel.silent[Engine.NIC_CRYPTO] = Engine.KERNEL
    sa = outbound(placement=Placement(require=Engine.NIC_CRYPTO))
    agent = Agent(node.dispatcher, fingerprint_key=bytes(32))
    await agent.start()

    (first,) = await agent.install_sas([sa])
    (second,) = await agent.install_sas([replace(sa, placement=Placement())])
    await agent.close()

    assert first.error is not None
    assert "nic_crypto: KERNEL_IGNORED_OFFLOAD" in str(first.error)
    assert node.kernel.sad.sas == {}
    assert second.error is not None
    assert "would repeat its IVs" in str(second.error)


async def test_an_outbound_sa_of_which_nobody_knows_goes_to_no_other_backend(node: Node) -> None:
    node.kernel.broken = DatapathError(ErrorReason.UNAVAILABLE, "espd does not answer")

    out, into = await node.dispatcher.install_sas([outbound(**NIC), child("b", 0x1001, inbound, **NIC)], 1)

    assert out.error is not None
    assert (out.error.reason, out.error.is_spent) == (ErrorReason.UNAVAILABLE, True)
    assert into.placement is Engine.SOFTWARE


# --- what must be together --------------------------------------------------------------------------


async def test_the_outbound_half_goes_to_the_backend_of_the_inbound_one(node: Node) -> None:
    assert await node.install(inbound(placement=ONLY_SOFTWARE)) == ["software"]

    (result,) = await node.dispatcher.install_sas([outbound()], 1)

    assert result.placement is Engine.SOFTWARE
    assert "OTHER_DIRECTION: its inbound half is at software" in result.placement_reason


async def test_a_child_whose_outbound_half_was_refused_tries_another_backend_next_time(node: Node) -> None:
    assert await node.install(inbound(0x1001, **NIC)) == ["nic_packet"]
    full = DatapathError(ErrorReason.SYSTEM, "no space", why=PlacementReason.DRIVER_REFUSED)
    node.kernel.refusals.append(full)
    (failed,) = await node.dispatcher.install_sas([outbound(0x2001, **NIC)])
    assert failed.error is not None
    assert "nic_packet: DRIVER_REFUSED: no space" in str(failed.error)
    assert "software: OTHER_DIRECTION: its inbound half is at xfrm" in str(failed.error)
    await node.dispatcher.remove_sas([inbound(0x1001).sa_id])

    again = await node.dispatcher.install_sas(
        [inbound(0x1002, child_sa_id=2, **NIC), outbound(0x2002, child_sa_id=2, **NIC)]
    )

    assert [result.placement for result in again] == [Engine.SOFTWARE] * 2
    assert again[0].placement_reason == (
        "nic_packet: OTHER_DIRECTION: xfrm did not take its outbound half: "
        "nic_packet: DRIVER_REFUSED: no space"
    )
    await pass_time(AVOID_S)
    assert await node.install(inbound(0x1003, child_sa_id=3, **NIC)) == ["nic_packet"]


async def test_an_inbound_half_goes_nowhere_its_outbound_half_could_not_follow(node: Node) -> None:
    node.directions = frozenset({Direction.INBOUND})

    (result,) = await node.dispatcher.install_sas([inbound(**NIC)], 1)

    assert result.placement is Engine.SOFTWARE
    assert result.placement_reason == (
        "nic_packet: OTHER_DIRECTION: xfrm cannot take its outbound half: "
        "nic_packet: DIRECTION: eth0 (mlx5_core) takes no outbound SAs"
    )
    # The kernel is at the same backend: there the halves may be on different engines.
    wish = Placement(prefer=(Engine.NIC_CRYPTO, Engine.KERNEL))
    halves = child("b", 0x1002, inbound, placement=wish), child("b", 0x2002, outbound, placement=wish)
    assert await node.install(*halves) == ["nic_crypto", "kernel"]


async def test_sas_whose_entries_overlap_are_at_one_backend(node: Node) -> None:
    wide = policy("paris/wide", child="wide", remote_ts=(TrafficSelector.parse("10.0.0.0/8"),))
    await node.dispatcher.apply_policies([policy(), wide], 1)
    await node.install(child("lan", 0x5001, inbound, placement=ONLY_SOFTWARE))
    await node.install(child("lan", 0x6001, outbound, placement=ONLY_SOFTWARE))

    (result,) = await node.dispatcher.install_sas([child("wide", 0x1002, inbound)], 1)

    assert result.placement is Engine.SOFTWARE
    assert (
        "POLICY_FORBIDS: its SPD entry overlaps paris/lan, whose SAs are at software"
        in result.placement_reason
    )


# --- where policies are -----------------------------------------------------------------------------


async def test_a_policy_waits_where_its_sas_are_expected(node: Node) -> None:
    elsewhere = policy(
        "paris/b", child="b", remote_ts=(TrafficSelector.parse("10.9.0.0/16"),), placement=ONLY_SOFTWARE
    )

    await node.dispatcher.apply_policies([policy(), elsewhere], 1)

    assert node.homes() == {"paris/lan": "xfrm", "paris/b": "software"}


async def test_a_policy_follows_its_outbound_sa_and_is_in_force_at_every_moment(node: Node) -> None:
    await node.dispatcher.apply_policies([policy()], 7)
    node.journal.clear()

    await node.install(inbound(0x5001, placement=ONLY_SOFTWARE), outbound(0x6001, placement=ONLY_SOFTWARE))

    assert node.journal[2:] == ["software apply paris/lan", "xfrm withdraw paris/lan"]
    assert node.software.sad.policies["paris/lan"][1] == 7


async def test_what_overlaps_a_policy_moves_with_it(node: Node) -> None:
    hole = policy(
        "hole", action=Action.BYPASS, child="", connection="", remote_ts=(TrafficSelector.parse("10.2.0.9"),)
    )
    far = policy("paris/far", child="far", remote_ts=(TrafficSelector.parse("10.3.0.0/16"),))
    await node.dispatcher.apply_policies([policy(), hole, far], 1)

    await node.install(inbound(0x5001, placement=ONLY_SOFTWARE), outbound(0x6001, placement=ONLY_SOFTWARE))

    assert node.homes() == {"paris/lan": "software", "hole": "software", "paris/far": "xfrm"}


async def test_an_outbound_sa_whose_policy_cannot_follow_is_taken_out_again(node: Node) -> None:
    await node.dispatcher.apply_policies([policy()], 1)
    node.software.policy_refusals["paris/lan"] = DatapathError(ErrorReason.TABLE_FULL, "too many rules")

    (result,) = await node.dispatcher.install_sas([outbound(placement=ONLY_SOFTWARE)], 1)

    assert result.error is not None
    assert result.error.is_spent
    assert "software does not take the SPD entries of paris/lan: too many rules" in str(result.error)
    assert node.homes() == {"paris/lan": "xfrm"}
    assert node.software.sad.sas == {}


async def test_a_move_that_fails_half_way_is_undone(node: Node) -> None:
    hole = policy(
        "hole", action=Action.BYPASS, child="", connection="", remote_ts=(TrafficSelector.parse("10.2.0.9"),)
    )
    await node.dispatcher.apply_policies([policy(), hole], 1)
    node.software.policy_refusals["hole"] = DatapathError(ErrorReason.TABLE_FULL, "too many rules")

    await node.install(outbound(placement=ONLY_SOFTWARE))

    assert node.homes() == {"paris/lan": "xfrm", "hole": "xfrm"}


async def test_a_policy_that_would_join_entries_in_use_at_two_backends_is_refused(node: Node) -> None:
    lan, far = policy(), policy("paris/far", child="far", remote_ts=(TrafficSelector.parse("10.3.0.0/16"),))
    await node.dispatcher.apply_policies([lan, far], 1)
    await node.install(inbound(0x5001, placement=ONLY_SOFTWARE), outbound(0x6001, placement=ONLY_SOFTWARE))
    await node.install(child("far", 0x1002, inbound), child("far", 0x2002, outbound))

    everything = discard_all()
    (result,) = await node.dispatcher.apply_policies([everything], 1)

    assert result.error is not None
    assert result.error.reason is ErrorReason.POLICY_CONFLICT
    assert "paris/lan at software" in str(result.error)
    assert "paris/far at xfrm" in str(result.error)
    assert [item.name for item in await node.dispatcher.list_policies()] == ["paris/far", "paris/lan"]


async def test_a_new_policy_joins_those_it_overlaps_where_they_are_in_use(node: Node) -> None:
    await node.dispatcher.apply_policies([policy()], 1)
    await node.install(inbound(0x5001, placement=ONLY_SOFTWARE), outbound(0x6001, placement=ONLY_SOFTWARE))

    everything = discard_all()
    await node.dispatcher.apply_policies([everything], 1)

    assert node.homes() == {"paris/lan": "software", "all": "software"}


async def test_a_policy_left_behind_is_taken_away_later(node: Node) -> None:
    await node.dispatcher.apply_policies([policy()], 1)
    node.kernel.broken = DatapathError(ErrorReason.UNAVAILABLE, "busy")
    await node.install(inbound(0x5001, placement=ONLY_SOFTWARE), outbound(0x6001, placement=ONLY_SOFTWARE))
    assert set(node.kernel.sad.policies) == {"paris/lan"}
    node.kernel.broken = None

    far = policy("paris/far", child="far", remote_ts=(TrafficSelector.parse("10.3.0.0/16"),))
    await node.dispatcher.apply_policies([far], 1)

    assert node.homes() == {"paris/lan": "software", "paris/far": "xfrm"}


async def test_policies_are_removed_where_they_are_and_listed_in_order(node: Node) -> None:
    first = policy("z", priority=1, child="z", placement=ONLY_SOFTWARE)
    far = policy("paris/far", child="far", remote_ts=(TrafficSelector.parse("10.3.0.0/16"),))
    await node.dispatcher.apply_policies([far, first], 1)
    assert [item.name for item in await node.dispatcher.list_policies()] == ["z", "paris/far"]

    results = await node.dispatcher.remove_policies(["z", "nobody", "paris/far"])

    assert all(result.ok for result in results)
    assert node.homes() == {}
    assert await node.dispatcher.list_policies() == ()


# --- SPIs, counters, generations --------------------------------------------------------------------


async def test_no_spi_is_given_out_that_an_sa_at_any_backend_has(node: Node) -> None:
    await node.install(inbound(0x1002, placement=ONLY_SOFTWARE))

    assert await node.dispatcher.allocate_spis(3) == (0x1001, 0x1003, 0x1004)


async def test_counters_and_capabilities_of_all_backends_are_one(node: Node) -> None:
    await node.install(inbound(0x1001), child("b", 0x5001, inbound, placement=ONLY_SOFTWARE))

    counters, capabilities = await node.dispatcher.counters(), await node.dispatcher.capabilities()

    assert len(counters.sas) == 2
    assert capabilities.name == "xfrm+software"
    assert capabilities.engines == (*KERNEL.engines, Engine.SOFTWARE)
    assert not capabilities.counters_survive_restart


async def test_reconciliation_reaches_every_backend(node: Node) -> None:
    old = child("b", 0x5001, inbound, placement=ONLY_SOFTWARE)
    await node.install(inbound(0x1001), old)
    await node.dispatcher.apply_policies([policy()], 1)
    await node.dispatcher.install_sas([inbound(0x1001, encryption_key=_held(node, 0x1001))], 2)

    removed = await node.dispatcher.reconcile(2)

    assert set(removed) == {old.sa_id, "paris/lan"}
    assert await node.dispatcher.list_policies() == ()
    assert [item.sa.spi for item in await node.dispatcher.list_sas()] == [0x1001]


def _held(node: Node, spi: int) -> Any:
    return next(held.sa.encryption_key for held in node.kernel.sad.sas.values() if held.sa.spi == spi)


# --- changes at run time ----------------------------------------------------------------------------


async def test_a_demotion_is_noted_with_its_reason_and_told(node: Node) -> None:
    sa = inbound(**NIC | {"placement": Placement()})
    await node.install(sa)
    change = PlacementChange(
        sa_id=sa.sa_id, old=Engine.NIC_PACKET, new=Engine.KERNEL, reason="eth0 went down"
    )
    node.kernel.sad.sas[sa.sa_id] = replace(node.kernel.sad.sas[sa.sa_id], placement=Engine.KERNEL)

    node.kernel.emit(change)

    assert await node.event() == change
    (listed,) = await node.dispatcher.list_sas()
    assert listed.placement is Engine.KERNEL
    assert listed.placement_reason == "nic_packet: DEVICE_LOST: eth0 went down"


async def test_an_sa_that_was_demoted_is_the_same_sa_when_it_is_installed_again(node: Node) -> None:
    sa = inbound(**NIC | {"placement": Placement()})
    await node.install(sa)
    node.kernel.sad.sas[sa.sa_id] = replace(node.kernel.sad.sas[sa.sa_id], placement=Engine.KERNEL)
    node.kernel.emit(
        PlacementChange(sa_id=sa.sa_id, old=Engine.NIC_PACKET, new=Engine.KERNEL, reason="eth0 went down")
    )
    await node.event()

    assert await node.install(sa) == ["kernel"]


async def test_a_demotion_makes_room_on_the_engine_it_left_and_is_told_once(node: Node) -> None:
    node.driver = "netdevsim"
    full = {"key_bits": 128, "placement": Placement(prefer=(Engine.NIC_CRYPTO, Engine.KERNEL))}
    sas = [inbound(0x1001 + n, child_sa_id=n + 1, **full) for n in range(33)]
    assert await node.install(*sas) == ["nic_crypto"] * 33
    change = PlacementChange(
        sa_id=sas[0].sa_id, old=Engine.NIC_CRYPTO, new=Engine.KERNEL, reason="the table was reset"
    )

    node.kernel.emit(change)
    node.kernel.emit(change)
    node.kernel.emit(replace(change, sa_id=sas[1].sa_id))

    assert [await node.event(), await node.event()] == [change, replace(change, sa_id=sas[1].sa_id)]
    assert await node.install(inbound(0x2001, child_sa_id=99, **full)) == ["nic_crypto"]
    assert dict(node.dispatcher._placed.used) == {(Engine.NIC_CRYPTO, "eth0"): 32, (Engine.KERNEL, ""): 2}


async def test_a_demotion_that_the_operator_does_not_allow_is_a_loss(node: Node) -> None:
    sa = inbound(**NIC | {"placement": Placement(require=Engine.NIC_PACKET)})
    await node.install(sa)

    node.kernel.emit(
        PlacementChange(sa_id=sa.sa_id, old=Engine.NIC_PACKET, new=Engine.KERNEL, reason="eth0 went down")
    )

    event = await node.event()
    assert isinstance(event, SasLost)
    assert event.sa_ids == (sa.sa_id,)
    assert "which its placement does not allow: eth0 went down" in event.reason
    assert node.kernel.sad.sas == {}


async def test_sas_lost_with_a_device_come_back_elsewhere_and_the_move_is_told(node: Node) -> None:
    await node.dispatcher.apply_policies([policy()], 1)
    into, out = inbound(0x1001, **NIC), outbound(0x2001, **NIC)
    assert await node.install(into, out) == ["nic_packet", "nic_packet"]
    node.is_up = False
    node.kernel.sad.sas.clear()

    node.kernel.emit(SasLost(sa_ids=(into.sa_id, out.sa_id), reason="eth0 went down"))
    assert isinstance(await node.event(), SasLost)
    new_in, new_out = inbound(0x1002, child_sa_id=2, **NIC), outbound(0x2002, child_sa_id=2, **NIC)

    assert await node.install(new_in, new_out) == ["software", "software"]
    for sa in (new_in, new_out):
        assert await node.event() == PlacementChange(
            sa_id=sa.sa_id,
            old=Engine.NIC_PACKET,
            new=Engine.SOFTWARE,
            reason="eth0 is down",
            why=PlacementReason.NO_DEVICE,
        )
    assert node.homes() == {"paris/lan": "software"}


async def test_a_rekey_goes_back_up_when_the_better_engine_is_there_again(node: Node) -> None:
    node.feature = "off"
    wish = Placement(prefer=(Engine.NIC_CRYPTO, Engine.KERNEL))
    assert await node.install(inbound(0x1001, placement=wish)) == ["kernel"]
    node.feature = "on"
    await pass_time(LOOK_AGAIN_S)

    assert await node.install(inbound(0x1002, child_sa_id=2, placement=wish)) == ["nic_crypto"]

    event = await node.event()
    assert isinstance(event, PlacementChange)
    assert (event.old, event.new, event.why) == (Engine.KERNEL, Engine.NIC_CRYPTO, None)


async def test_reading_back_finds_a_demotion_that_nobody_told(node: Node) -> None:
    sa = inbound(placement=Placement(prefer=(Engine.NIC_CRYPTO, Engine.KERNEL)))
    await node.install(sa)
    node.kernel.sad.sas[sa.sa_id] = replace(node.kernel.sad.sas[sa.sa_id], placement=Engine.KERNEL)

    (listed,) = await node.dispatcher.list_sas()

    assert listed.placement is Engine.KERNEL
    assert listed.refusals[0].reason is PlacementReason.KERNEL_IGNORED_OFFLOAD
    assert isinstance(await node.event(), PlacementChange)


async def test_nics_are_looked_at_once_for_many_sas_and_again_after_a_while(node: Node) -> None:
    for spi in range(0x1001, 0x1011):
        await node.install(inbound(spi))
    assert node.looks == 1

    await pass_time(LOOK_AGAIN_S)
    await node.install(inbound(0x1100))

    assert node.looks == 2


async def test_packets_of_an_sa_at_another_backend_are_not_of_an_unknown_spi(node: Node) -> None:
    sa = inbound(0x1001)
    await node.install(sa)
    known = BadSpi(spi=Spi(0x1001), source=sa.source, destination=sa.destination)
    unknown = replace(known, spi=Spi(0x9999))
    acquire = Acquire(policy="p", source=OURS, destination=ip_address("10.2.0.1"), protocol=1)

    for event in (known, unknown, acquire):
        node.software.emit(event)

    assert [await node.event(), await node.event()] == [unknown, acquire]


async def test_a_backend_that_falls_silent_has_lost_its_sas(node: Node) -> None:
    sa = inbound(0x1001)
    await node.install(sa)

    await node.kernel.close()

    assert await node.event() == SasLost(sa_ids=(sa.sa_id,), reason="the backend xfrm stopped")


# --- life -------------------------------------------------------------------------------------------


@asynccontextmanager
async def started(dispatcher: Dispatcher) -> AsyncIterator[Dispatcher]:
    await dispatcher.start()
    yield dispatcher
    await dispatcher.close()


async def test_a_backend_that_cannot_run_here_is_absent_and_says_why() -> None:
    node = Node()
    node.kernel.start_error = HostError("this kernel has no ESP: boot one with CONFIG_INET_ESP")

    async with started(node.dispatcher) as dispatcher:
        (result,) = await dispatcher.install_sas([inbound()])

    assert result.placement is Engine.SOFTWARE
    assert result.placement_reason == (
        "nic_packet, nic_crypto, kernel: NO_BACKEND: xfrm cannot run here: this kernel has no ESP: boot one "
        "with CONFIG_INET_ESP; engine: NO_BACKEND: espd is not installed"
    )


async def test_with_no_backend_at_all_there_is_no_datapath() -> None:
    node = Node()
    node.kernel.start_error, node.software.start_error = HostError("no ESP"), HostError("no CAP_NET_ADMIN")

    with pytest.raises(HostError, match=r"xfrm: no ESP; software: no CAP_NET_ADMIN"):
        await node.dispatcher.start()


async def test_a_backend_that_was_asked_for_by_name_has_to_start() -> None:
    fake = FakeDatapath()
    fake.start_error = HostError("no ESP")
    dispatcher = Dispatcher(
        [Candidate(name="xfrm", make=lambda _: fake, engines=())], Node().look, need_all=True
    )

    with pytest.raises(HostError, match="no ESP"):
        await dispatcher.start()


async def test_what_only_one_can_have_is_for_the_first_that_runs() -> None:
    asked: list[tuple[str, bool]] = []

    def maker(name: str, error: str = "") -> Callable[[bool], FakeDatapath]:
        def make(is_first: bool) -> FakeDatapath:
            asked.append((name, is_first))
            fake = FakeDatapath()
            fake.start_error = HostError(error) if error else None
            return fake

        return make

    candidates = [
        Candidate(name="a", make=maker("a", "no"), engines=()),
        Candidate(name="b", make=maker("b"), engines=()),
        Candidate(name="c", make=maker("c"), engines=()),
    ]
    async with started(Dispatcher(candidates, Node().look)):
        pass

    assert asked == [("a", True), ("b", True), ("c", False)]


async def test_what_outlived_the_agent_before_is_adopted_where_it_is() -> None:
    node = Node()
    alone = Placement(prefer=(Engine.NIC_PACKET,), require=Engine.NIC_PACKET)
    sa, entry = outbound(0x2001, placement=alone), policy()
    node.kernel.sad.install(sa, placement=Engine.NIC_PACKET)
    node.kernel.sad.apply_policy(entry)
    node.software.sad.apply_policy(entry)

    async with started(node.dispatcher) as dispatcher:
        agent = Agent(dispatcher, fingerprint_key=bytes(32))
        await agent.start()
        (listed,) = await agent.list_sas()
        assert (listed.sa, listed.placement) == (sa, Engine.NIC_PACKET)
        (again,) = await agent.install_sas([replace(sa, placement=Placement())], 2)
        assert again.ok
        assert node.homes()["paris/lan"] == "software"
        await agent.apply_policies([entry], 2)
        assert node.homes() == {"paris/lan": "xfrm"}
        await agent.close()


async def test_protection_is_taken_away_everywhere_and_closing_leaves_it() -> None:
    node = Node()
    async with started(node.dispatcher):
        pass
    assert node.kernel.is_closed
    assert node.software.is_closed
    assert node.kernel.has_protection

    await node.dispatcher.remove_protection()

    assert not node.kernel.has_protection
    assert not node.software.has_protection


async def test_protection_of_a_backend_that_cannot_run_here_is_no_obstacle() -> None:
    node = Node()
    node.kernel.start_error = HostError("this kernel has no NETLINK_XFRM")

    await node.dispatcher.remove_protection()

    assert not node.software.has_protection


async def test_protection_that_nobody_could_take_away_is_an_error() -> None:
    node = Node()
    node.kernel.start_error = node.software.start_error = HostError("it needs CAP_NET_ADMIN")

    with pytest.raises(HostError, match="xfrm: it needs CAP_NET_ADMIN; software: it needs CAP_NET_ADMIN"):
        await node.dispatcher.remove_protection()


async def test_encapsulation_goes_where_the_sockets_are(node: Node) -> None:
    node.software.refusals.append(DatapathError(ErrorReason.MODE_UNSUPPORTED, "no UDP 4500 sockets here"))
    ports = UdpEncapsulation(source_port=4500, destination_port=4500)

    (result,) = await node.dispatcher.install_sas(
        [inbound(placement=Placement(prefer=(Engine.SOFTWARE, Engine.KERNEL)), encapsulation=ports)]
    )

    assert result.placement is Engine.KERNEL
    assert result.placement_reason == "software: MODE: no UDP 4500 sockets here"


async def test_an_algorithm_of_one_backend_only_goes_there(node: Node) -> None:
    modest = replace(KERNEL, encryption=((Encr.AES_GCM_16, 256),))
    node.kernel._capabilities = modest
    node.dispatcher._capabilities["xfrm"] = modest

    (result,) = await node.dispatcher.install_sas([inbound(encryption=Encr.CHACHA20_POLY1305)])

    assert result.placement is Engine.SOFTWARE
    assert "kernel: ALG_UNSUPPORTED: the kernel does not do CHACHA20_POLY1305" in result.placement_reason
