import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.agent.agent import WATCHER_BACKLOG, Agent
from gateway.datapath.backend import BadSpi, DatapathError, ErrorReason, PlacementChange, SasLost
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, Spi
from tests.fakes.datapath import FakeDatapath
from tests.fakes.records import HERE, LOCAL_TS, REMOTE_TS, THERE, make_sa
from tests.fakes.virtual_loop import pass_time

POLICY = Policy(
    name="paris/lan",
    action=Action.PROTECT,
    local_ts=LOCAL_TS,
    remote_ts=REMOTE_TS,
    connection="paris",
    child="lan",
)


@pytest.fixture
def backend() -> FakeDatapath:
    return FakeDatapath()


@pytest.fixture
async def agent(backend: FakeDatapath) -> AsyncIterator[Agent]:
    agent = Agent(backend, fingerprint_key=b"test", grace_s=60.0)
    await agent.start()
    yield agent
    await agent.close()


async def test_sas_reach_the_backend_and_are_listed_with_their_generation(
    agent: Agent, backend: FakeDatapath
) -> None:
    sa = make_sa(0x1001)

    (result,) = await agent.install_sas([sa], generation=3)

    assert result.ok
    assert result.placement is Engine.SOFTWARE
    assert list(backend.sad.sas) == [sa.sa_id]
    (listed,) = await agent.list_sas()
    assert (listed.sa, listed.generation) == (sa, 3)


async def test_a_batch_is_answered_item_by_item(agent: Agent, backend: FakeDatapath) -> None:
    await agent.install_sas([make_sa(0x1001)])
    backend.refusals.append(DatapathError(ErrorReason.TABLE_FULL, "full"))

    results = await agent.install_sas([make_sa(0x1001, key=b"x" * 36), make_sa(0x1002), make_sa(0x1003)])

    reasons = [None if result.error is None else result.error.reason for result in results]
    assert reasons == [ErrorReason.SPI_IN_USE, ErrorReason.TABLE_FULL, None]
    assert [item.sa.spi for item in await agent.list_sas()] == [0x1001, 0x1003]


async def test_an_outbound_sa_whose_counters_are_gone_is_not_installed_again(
    agent: Agent, backend: FakeDatapath
) -> None:
    sa = make_sa(0x2001, direction=Direction.OUTBOUND)
    await agent.install_sas([sa])
    backend.emit(SasLost(sa_ids=(sa.sa_id,), reason="device reset"))
    await asyncio.sleep(0)

    (result,) = await agent.install_sas([sa])

    assert result.error is not None
    assert result.error.reason is ErrorReason.SPI_IN_USE


async def test_reconcile_removes_what_is_older_and_keeps_what_was_asked_for_again(agent: Agent) -> None:
    kept, old = make_sa(0x1001), make_sa(0x1002)
    await agent.install_sas([kept, old], generation=1)
    await agent.apply_policies([POLICY], generation=1)
    await agent.install_sas([kept], generation=2)
    await agent.apply_policies([POLICY], generation=2)

    removed = await agent.reconcile(2)

    assert removed == (old.sa_id,)
    assert [item.sa.sa_id for item in await agent.list_sas()] == [kept.sa_id]
    assert await agent.list_policies() == (POLICY,)
    (late,) = await agent.install_sas([make_sa(0x1003)], generation=1)
    assert late.error is not None
    assert late.error.reason is ErrorReason.STALE_GENERATION


async def test_a_command_whose_caller_gave_up_is_finished_before_the_next_one(
    agent: Agent, backend: FakeDatapath
) -> None:
    backend.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await agent.install_sas([make_sa(0x1001)])
    removal = asyncio.create_task(agent.remove_sas([make_sa(0x1001).sa_id]))
    await pass_time(1)
    backend.gate.set()
    await removal

    assert [change.verb for change in backend.sad.history] == ["install", "remove"]
    assert await agent.list_sas() == ()


async def test_every_watcher_sees_every_event(agent: Agent, backend: FakeDatapath) -> None:
    sa = make_sa(0x1001)
    await agent.install_sas([sa])
    one, other = agent.events(), agent.events()
    event = PlacementChange(sa_id=sa.sa_id, old=Engine.SOFTWARE, new=Engine.ENGINE, reason="faster")

    backend.emit(event)

    assert await anext(one) == event
    assert await anext(other) == event
    assert (await agent.list_sas())[0].placement is Engine.SOFTWARE  # the backend's own word counts


async def test_a_watcher_that_does_not_read_loses_its_stream_and_not_an_event_of_it(
    agent: Agent, backend: FakeDatapath
) -> None:
    stream = agent.events()
    for number in range(WATCHER_BACKLOG + 5):
        backend.emit(BadSpi(spi=Spi(number), source=THERE, destination=HERE))
    await pass_time(1)

    seen = [event async for event in stream]

    assert [event.spi for event in seen if isinstance(event, BadSpi)] == list(range(WATCHER_BACKLOG))


async def test_sas_outlive_a_controller_for_the_grace_period_and_policies_for_ever(agent: Agent) -> None:
    stream = agent.events()
    await agent.install_sas([make_sa(0x1001)])
    await agent.apply_policies([POLICY])
    await stream.aclose()

    await pass_time(59)
    assert len(await agent.list_sas()) == 1
    await pass_time(2)

    assert await agent.list_sas() == ()
    assert await agent.list_policies() == (POLICY,)


async def test_an_sa_that_is_installed_only_after_its_controller_died_ends_with_the_grace_period(
    agent: Agent, backend: FakeDatapath
) -> None:
    stream = agent.events()
    backend.gate.clear()
    installing = asyncio.create_task(agent.install_sas([make_sa(0x1001)]))
    await pass_time(1)
    await stream.aclose()
    backend.gate.set()
    await installing
    assert len(await agent.list_sas()) == 1

    await pass_time(61)

    assert await agent.list_sas() == ()


async def test_a_controller_that_comes_back_in_time_finds_its_sas(agent: Agent) -> None:
    stream = agent.events()
    await agent.install_sas([make_sa(0x1001)])
    await stream.aclose()
    await pass_time(30)
    again = agent.events()
    await pass_time(600)

    assert len(await agent.list_sas()) == 1
    await again.aclose()


async def test_sas_of_somebody_who_never_watched_stay(agent: Agent) -> None:
    await agent.install_sas([make_sa(0x1001)])
    await pass_time(3600)

    assert len(await agent.list_sas()) == 1


async def test_closing_ends_the_streams_and_the_backend_and_refuses_commands(backend: FakeDatapath) -> None:
    agent = Agent(backend, fingerprint_key=b"test")
    await agent.start()
    stream = agent.events()

    await agent.close()

    assert [event async for event in stream] == []
    assert backend.is_closed
    with pytest.raises(DatapathError) as refused:
        await agent.install_sas([make_sa(0x1001)])
    assert refused.value.reason is ErrorReason.UNAVAILABLE
