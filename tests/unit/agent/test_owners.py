"""An orchestrator with keys of its own beside the IKE controller (RFC 9061): neither touches the other's."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.agent.agent import Agent
from gateway.agent.owners import FOREIGN_GENERATION, UNKNOWN
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Datapath,
    ErrorReason,
    HardExpire,
    ItemResult,
    SharedDatapath,
    SoftExpire,
)
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, Spi
from tests.fakes.datapath import FakeDatapath
from tests.fakes.records import HERE, LOCAL_TS, REMOTE_TS, THERE, make_sa
from tests.fakes.virtual_loop import pass_time


def policy(name: str) -> Policy:
    connection, _, child = name.partition("/")
    return Policy(
        name=name,
        action=Action.PROTECT,
        local_ts=LOCAL_TS,
        remote_ts=REMOTE_TS,
        connection=connection,
        child=child,
    )


def sa_of(name: str, spi: int, **changes: Any) -> Any:
    connection, _, child = name.partition("/")
    return replace(make_sa(spi, **changes), connection=connection, child=child)


IKE_SA, ORCHESTRATED = sa_of("ike/lan", 0x1001), sa_of("sdn/lan", 0x2001, key=b"k" * 36)


@pytest.fixture
def backend() -> FakeDatapath:
    return FakeDatapath()


@pytest.fixture
async def agent(backend: FakeDatapath) -> AsyncIterator[Agent]:
    """One policy and one SA of each, of generation 5."""
    agent = Agent(backend, fingerprint_key=b"test", grace_s=60.0)
    await agent.start()
    for owned, name, sa in ((agent, "ike/lan", IKE_SA), (agent.of_owner("sdn"), "sdn/lan", ORCHESTRATED)):
        assert [item.ok for item in await owned.apply_policies([policy(name)], 5)] == [True]
        assert [item.ok for item in await owned.install_sas([sa], 5)] == [True]
    yield agent
    await agent.close()


async def _there(datapath: Datapath) -> tuple[list[str], list[str]]:
    sas = [item.sa.sa_id for item in await datapath.list_sas()]
    return sorted(sas), sorted(item.name for item in await datapath.list_policies())


BOTH = (sorted([IKE_SA.sa_id, ORCHESTRATED.sa_id]), ["ike/lan", "sdn/lan"])


def _reasons(results: tuple[ItemResult, ...]) -> list[ErrorReason | None]:
    return [None if result.error is None else result.error.reason for result in results]


def test_an_agent_can_be_shared(backend: FakeDatapath) -> None:
    assert isinstance(Agent(backend, fingerprint_key=b"test"), SharedDatapath)
    assert not isinstance(backend, SharedDatapath)


async def test_everybody_sees_everything_and_whose_it_is(agent: Agent) -> None:
    listed = {item.sa.sa_id: (item.owner, item.generation) for item in await agent.of_owner("x").list_sas()}

    assert listed == {IKE_SA.sa_id: ("", 5), ORCHESTRATED.sa_id: ("sdn", 5)}
    assert await _there(agent) == BOTH


@pytest.mark.parametrize("thief", ["", "sdn", "other"])
async def test_nobody_changes_or_removes_what_is_anothers(agent: Agent, thief: str) -> None:
    victims = {"": ("sdn/lan", ORCHESTRATED), "sdn": ("ike/lan", IKE_SA), "other": ("sdn/lan", ORCHESTRATED)}
    name, sa = victims[thief]
    owned = agent if not thief else agent.of_owner(thief)
    takes_over = sa_of(name, 0x3001, key=b"z" * 36, direction=Direction.OUTBOUND)

    results = (
        *await owned.install_sas([sa, takes_over], 6),
        *await owned.remove_sas([sa.sa_id]),
        *await owned.apply_policies([replace(policy(name), priority=1)], 6),
        *await owned.remove_policies([name]),
    )

    assert _reasons(results) == [ErrorReason.NOT_OWNER] * 5
    assert await _there(agent) == BOTH


async def test_a_reconcile_removes_only_what_is_ones_own(agent: Agent) -> None:
    removed = await agent.reconcile(9)
    assert sorted(removed) == sorted([IKE_SA.sa_id, "ike/lan"])
    assert await _there(agent) == ([ORCHESTRATED.sa_id], ["sdn/lan"])

    sdn = agent.of_owner("sdn")
    assert await sdn.reconcile(5) == ()
    assert sorted(await sdn.reconcile(6)) == sorted([ORCHESTRATED.sa_id, "sdn/lan"])
    assert await _there(agent) == ([], [])


async def test_generations_are_counted_for_each_owner(agent: Agent) -> None:
    await agent.reconcile(100)
    sdn = agent.of_owner("sdn")
    await sdn.reconcile(6)

    results = (
        *await sdn.install_sas([ORCHESTRATED], 6),
        *await sdn.install_sas([sa_of("sdn/lan", 0x2002)], 5),
        *await sdn.apply_policies([policy("sdn/more")], 5),
        *await agent.install_sas([sa_of("ike/lan", 0x1002)], 99),
    )

    stale = ErrorReason.STALE_GENERATION
    assert _reasons(results) == [None, stale, stale, stale]


async def test_sas_of_an_orchestrator_outlive_a_controller_that_does_not_come_back(agent: Agent) -> None:
    watch = agent.events()
    await watch.aclose()

    await pass_time(61.0)

    assert await _there(agent) == ([ORCHESTRATED.sa_id], BOTH[1])


async def test_a_watch_of_an_orchestrator_keeps_nothing_alive_and_its_end_removes_nothing(
    agent: Agent,
) -> None:
    controller, onlooker = agent.events(), agent.of_owner("sdn").events()
    await controller.aclose()
    await pass_time(61.0)
    gone = await _there(agent)
    await onlooker.aclose()
    await pass_time(61.0)

    assert gone == await _there(agent) == ([ORCHESTRATED.sa_id], BOTH[1])


async def test_an_orchestrator_is_told_what_rfc_9061_wants_it_to_know(
    agent: Agent, backend: FakeDatapath
) -> None:
    """RFC 9061 §5.4: sadb-acquire, sadb-expire, sadb-seq-overflow, sadb-bad-spi."""
    watch = agent.of_owner("sdn").events()
    sa_id, spi = ORCHESTRATED.sa_id, ORCHESTRATED.spi
    notifications = [
        Acquire(policy="sdn/lan", source=HERE, destination=THERE, protocol=17),
        SoftExpire(sa_id=sa_id, spi=spi, limit="packets"),
        HardExpire(sa_id=sa_id, spi=spi, limit="sequence"),
        BadSpi(spi=Spi(0xDEAD), source=THERE, destination=HERE),
    ]

    for event in notifications:
        backend.emit(event)

    assert [await anext(watch) for _ in notifications] == notifications
    await watch.aclose()


async def test_after_a_restart_of_the_agent_what_was_others_is_still_not_the_controllers(
    agent: Agent, backend: FakeDatapath
) -> None:
    again = Agent(backend, fingerprint_key=b"test")
    await again.start()

    assert {item.owner for item in await again.list_sas()} == {"", UNKNOWN}
    await again.reconcile(9)
    assert await _there(again) == ([ORCHESTRATED.sa_id], ["sdn/lan"])
    # It says again what it wants, and is the owner again.
    sdn = again.of_owner("sdn")
    assert _reasons(await sdn.install_sas([ORCHESTRATED], 6)) == [None]
    assert [(item.owner, item.generation) for item in await again.list_sas()] == [("sdn", 6)]
    assert {item.generation for item in await backend.list_sas()} == {FOREIGN_GENERATION}
    await again.close()
