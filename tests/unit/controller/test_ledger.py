"""Revisions: who knows everything up to one is told the rest, once, and nothing is ever left out."""

import asyncio
import random

import pytest

from gateway.controller import ledger as module
from gateway.controller.ledger import Ledger
from tests.fakes.virtual_loop import pass_time


@pytest.fixture
async def ledger() -> Ledger:
    return Ledger("life", asyncio.get_running_loop().time)


async def test_each_name_is_told_once_with_its_last_touch(ledger: Ledger) -> None:
    for name in "abacab":
        ledger.touch(name)

    assert ledger.since(0).names == ("c", "a", "b")
    assert ledger.since(4).names == ("a", "b")
    assert ledger.since(6).names == ()
    assert [ledger.revision_of(name) for name in "abcd"] == [5, 6, 4, 0]


async def test_what_was_removed_is_told_to_those_who_may_know_it(ledger: Ledger) -> None:
    for name in "ab":
        ledger.touch(name)
    ledger.remove("a")
    ledger.remove("b")
    ledger.touch("b")

    assert (ledger.since(0).names, ledger.since(0).removed) == (("b",), ())
    assert (ledger.since(1).names, ledger.since(1).removed) == (("b",), ("a",))


async def test_removals_are_forgotten_in_time_and_then_nobody_resumes_from_before(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_REMOVALS", 3)
    for number in range(5):
        ledger.touch(str(number))
    for number in range(5):
        ledger.remove(str(number))

    assert [ledger.can_resume(revision) for revision in (0, 5, 6, 7, 10, 11)] == [
        *(False, False, False),
        *(True, True, False),
    ]


async def test_touches_in_a_row_are_one_look_and_more_watchers_look_less_often(ledger: Ledger) -> None:
    loop = asyncio.get_running_loop()
    looks: list[float] = []

    async def watch() -> None:
        known = 0
        while True:
            await ledger.wait_beyond(known)
            known = ledger.settled
            looks.append(loop.time())

    one = asyncio.create_task(watch())
    await pass_time(0.001)
    began = loop.time()
    for _ in range(10):
        ledger.touch("a")
        await pass_time(0.001)
    await pass_time(1.0)
    assert [round(at - began, 3) for at in looks] == [0.02]

    others = [asyncio.create_task(watch()) for _ in range(399)]
    await pass_time(0.1)
    looks.clear()
    began = loop.time()
    ledger.touch("a")
    await pass_time(2.0)
    assert {round(at - began, 3) for at in looks} == {0.2}
    assert len(looks) == 400
    for task in (one, *others):
        task.cancel()


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_looks_whenever_ends_with_the_truth(ledger: Ledger, seed: int) -> None:
    rng = random.Random(seed)
    truth: set[str] = set()
    views: list[tuple[set[str], int]] = [(set(), 0) for _ in range(5)]

    for _ in range(300):
        name = rng.choice("abcdefgh")
        if name in truth and rng.random() < 0.4:
            ledger.remove(name)
            truth.discard(name)
        else:
            ledger.touch(name)
            truth.add(name)
        if rng.random() < 0.2:
            ledger.settle()
        which = rng.randrange(len(views))
        view, known = views[which]
        changes = ledger.since(known, max(known, ledger.settled))
        view = (view | set(changes.names)) - set(changes.removed)
        views[which] = (view, changes.upto)

    ledger.settle()
    for view, known in views:
        changes = ledger.since(known, ledger.settled)
        assert (view | set(changes.names)) - set(changes.removed) == truth
