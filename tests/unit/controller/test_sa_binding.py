import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.controller.sa_binding import SaBinding
from gateway.controller.spi_pool import SpiPool
from gateway.datapath.backend import DatapathError, ErrorReason, SaCounters
from gateway.ike.events import Installed, InstallRequest, Refused, RequestId, Result, SpiAllocated, SpiRequest
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation
from tests.fakes.datapath import FakeDatapath
from tests.fakes.records import make_sa
from tests.fakes.virtual_loop import pass_time


class Datapath(FakeDatapath):
    """A fake that can be away: then every call fails as a lost connection does."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.installs = 0

    async def install_sas(self, sas, generation=0):  # type: ignore[no-untyped-def]
        self.installs += 1
        self._check()
        return await super().install_sas(sas, generation)

    async def remove_sas(self, sa_ids):  # type: ignore[no-untyped-def]
        self._check()
        return await super().remove_sas(sa_ids)

    async def allocate_spis(self, count, destination=None):  # type: ignore[no-untyped-def]
        self._check()
        return await super().allocate_spis(count, destination)

    def _check(self) -> None:
        if self.is_away:
            raise DatapathError(ErrorReason.UNAVAILABLE, "no agent")


class Core:
    """Takes the answers."""

    def __init__(self) -> None:
        self.answers: dict[int, Result] = {}

    def resolve(self, request_id: RequestId, result: Result) -> None:
        assert request_id not in self.answers, "a request is answered once"
        self.answers[request_id] = result


@pytest.fixture
def datapath() -> Datapath:
    return Datapath()


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def removed() -> list[tuple[SaId, int | None]]:
    """What was told of SAs that are gone: their packets, where the datapath knows."""
    return []


@pytest.fixture
async def binding(
    datapath: Datapath, core: Core, removed: list[tuple[SaId, int | None]]
) -> AsyncIterator[SaBinding]:
    def note(sa: SecurityAssociation, counters: SaCounters | None) -> None:
        removed.append((sa.sa_id, None if counters is None else counters.packets))

    pool = SpiPool(datapath, asyncio.get_running_loop().time)
    binding = SaBinding(datapath, pool, core.resolve, note)
    yield binding
    await binding.close()
    await pool.close()


INBOUND = make_sa(0x1001)
OUTBOUND = make_sa(0x2001, direction=Direction.OUTBOUND)


def install(number: int, sa: object = INBOUND) -> InstallRequest:
    return InstallRequest(request_id=RequestId(number), sa=sa)  # type: ignore[arg-type]


async def test_an_installed_sa_is_answered_and_remembered(binding: SaBinding, core: Core) -> None:
    binding.install(install(1))
    await pass_time(1)

    assert core.answers == {1: Installed()}
    assert binding.all_installed() == (INBOUND.sa_id,)


async def test_a_refusal_keeps_its_reason(binding: SaBinding, core: Core, datapath: Datapath) -> None:
    datapath.refusals.append(DatapathError(ErrorReason.ALGORITHM_UNSUPPORTED, "no such cipher here"))

    binding.install(install(1))
    await pass_time(1)

    assert core.answers == {1: Refused("ALGORITHM_UNSUPPORTED", "no such cipher here")}
    assert binding.all_installed() == ()


async def test_an_inbound_sa_is_asked_for_until_the_datapath_is_back(
    binding: SaBinding, core: Core, datapath: Datapath
) -> None:
    datapath.is_away = True
    binding.install(install(1))
    await pass_time(5)
    datapath.is_away = False
    await pass_time(1)

    assert core.answers == {1: Installed()}
    assert datapath.installs > 2


async def test_an_inbound_sa_is_given_up_before_the_core_gives_up(
    binding: SaBinding, core: Core, datapath: Datapath
) -> None:
    datapath.is_away = True
    binding.install(install(1))
    await pass_time(14)

    assert core.answers == {1: Refused("UNAVAILABLE", "no agent")}


async def test_an_outbound_sa_is_asked_for_once(binding: SaBinding, core: Core, datapath: Datapath) -> None:
    datapath.is_away = True
    binding.install(install(1, OUTBOUND))
    await pass_time(14)

    assert datapath.installs == 1
    assert isinstance(core.answers[1], Refused)


async def test_what_was_refused_for_silence_is_removed_in_case_it_arrived(
    binding: SaBinding, core: Core, datapath: Datapath
) -> None:
    datapath.gate.clear()
    binding.install(install(1, OUTBOUND))
    await pass_time(5)
    datapath.sad.install(OUTBOUND)  # it has arrived, only the answer has not
    await pass_time(10)

    assert isinstance(core.answers[1], Refused)
    assert [change.verb for change in datapath.sad.history] == ["install", "remove"]


async def test_a_removal_is_tried_until_it_succeeds(binding: SaBinding, datapath: Datapath) -> None:
    binding.install(install(1))
    await pass_time(1)
    datapath.is_away = True
    binding.remove([INBOUND.sa_id])
    await pass_time(100)
    there_while_away = dict(datapath.sad.sas)
    datapath.is_away = False
    await pass_time(5)

    assert there_while_away
    assert not datapath.sad.sas
    assert binding.all_installed() == ()


async def test_spis_come_from_the_pool_and_from_the_datapath_when_it_is_empty(
    binding: SaBinding, core: Core, datapath: Datapath
) -> None:
    for number in range(40):
        binding.request_spi(SpiRequest(request_id=RequestId(number), connection="paris", child="lan"))
    await pass_time(1)

    spis = [answer.spi for answer in core.answers.values() if isinstance(answer, SpiAllocated)]
    assert len(spis) == len(set(spis)) == 40


async def test_no_spi_while_the_datapath_is_away_is_a_refusal(
    binding: SaBinding, core: Core, datapath: Datapath
) -> None:
    datapath.is_away = True
    binding.request_spi(SpiRequest(request_id=RequestId(1), connection="paris", child="lan"))
    await pass_time(14)

    assert core.answers == {1: Refused("UNAVAILABLE", "no agent")}


async def test_lost_sas_are_told_once_and_not_those_that_were_to_go_anyway(
    binding: SaBinding, datapath: Datapath
) -> None:
    binding.install(install(1))
    binding.install(install(2, OUTBOUND))
    await pass_time(1)
    datapath.is_away = True
    binding.remove([OUTBOUND.sa_id])

    lost = binding.forget_lost([INBOUND.sa_id, OUTBOUND.sa_id])

    assert lost == (INBOUND,)
    assert binding.forget_lost([INBOUND.sa_id]) == ()


async def test_reserved_spis_grow_old(datapath: Datapath) -> None:
    pool = SpiPool(datapath, asyncio.get_running_loop().time, batch=4, keep_s=60)
    await pool.fill()
    young = pool.take_now()
    await pass_time(61)

    assert young == 0x1001
    assert pool.take_now() is None  # the rest may be somebody else's by now
    await pass_time(1)
    assert len(pool) == 4
    await pool.close()


async def test_what_an_sa_had_counted_is_told_once_when_it_goes(
    binding: SaBinding, removed: list[tuple[SaId, int | None]]
) -> None:
    binding.install(install(1))
    binding.install(install(2, OUTBOUND))
    await pass_time(1)

    binding.remove([INBOUND.sa_id])
    binding.remove([INBOUND.sa_id])
    await pass_time(1)
    binding.forget_lost([OUTBOUND.sa_id])

    assert removed == [(INBOUND.sa_id, 0), (OUTBOUND.sa_id, None)]
