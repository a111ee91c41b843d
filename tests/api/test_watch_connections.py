"""Watching connections over a real socket: a snapshot, then deltas, and a view that is right at any time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.api import connection_entries, connection_view
from gateway.api.address import UnixAddress
from gateway.api.connection_view import ConnectionView, follow
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_client import ControlClient
from gateway.api.convert_connection import read_connections
from gateway.api.errors import ApiError
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.controller import ledger as ledger_module
from gateway.controller.facade import WantedConnection
from tests.api.fake_controller import FakeController
from tests.api.test_control_service import connection

Stream = AsyncIterator[pb.WatchConnectionsResponse]


async def read(stream: Stream) -> pb.WatchConnectionsResponse:
    return await asyncio.wait_for(anext(stream), 30)


def wanted(*names: str) -> tuple[WantedConnection, ...]:
    return read_connections(connection(name) for name in names)


def told(response: pb.WatchConnectionsResponse) -> list[str]:
    """Return `+name` and `-name` of what a message tells."""
    return [
        f"+{change.upserted.connection.name}" if change.HasField("upserted") else f"-{change.removed}"
        for change in response.changes
    ]


async def test_first_everything_then_what_changes(control: ControlClient) -> None:
    await control.apply([connection("a"), connection("b")])
    stream = control.watch()

    begin, snapshot = await read(stream), await read(stream)
    await control.apply([connection("c"), connection("a", psk="new")])
    await control.delete(["b"])
    later = [await read(stream)]
    if len(later[0].changes) < 3:
        later.append(await read(stream))

    assert (begin.resync, begin.revision, told(begin)) == (True, "", [])
    assert (snapshot.resync, snapshot.synced, told(snapshot)) == (False, True, ["+a", "+b"])
    assert sorted(line for response in later for line in told(response)) == ["+a", "+c", "-b"]
    assert later[-1].synced
    assert later[-1].revision != snapshot.revision


async def test_a_watch_of_nothing_is_synced_at_once(control: ControlClient) -> None:
    stream = control.watch()

    assert [(r.resync, r.synced) for r in (await read(stream), await read(stream))] == [
        (True, False),
        (False, True),
    ]


async def test_whoever_comes_back_with_a_revision_is_told_the_rest(control: ControlClient) -> None:
    await control.apply([connection(name) for name in "abc"])
    stream = control.watch()
    await read(stream)
    revision = (await read(stream)).revision
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    await control.apply([connection("b", psk="new"), connection("d")])
    await control.delete(["a"])

    again = control.watch(revision)
    hello, rest = await read(again), await read(again)

    assert (hello.resync, hello.synced, hello.revision, told(hello)) == (False, False, revision, [])
    assert (rest.synced, told(rest)) == (True, ["+b", "+d", "-a"])


async def test_a_list_is_as_good_a_beginning_as_a_snapshot(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection("a")])
    ledger = controller.ledger()

    stream = control.watch(f"{ledger.life}-{ledger.last}")

    hello = await read(stream)
    assert (hello.resync, hello.synced) == (False, True)


@pytest.mark.parametrize("revision", ["another-3", "life-99", "life-", "life-x", "nonsense"])
async def test_a_revision_that_is_not_known_begins_anew_and_says_so(
    control: ControlClient, revision: str
) -> None:
    await control.apply([connection("a")])
    stream = control.watch(revision)

    begin, snapshot = await read(stream), await read(stream)

    assert begin.resync
    assert (told(snapshot), snapshot.synced) == (["+a"], True)


async def test_removals_that_are_forgotten_mean_a_resync_never_silence(
    control: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_REMOVALS", 2)
    await control.apply([connection(name) for name in "abcde"])
    stream = control.watch()
    await read(stream)
    revision = (await read(stream)).revision
    await control.delete(["a", "b", "c"])

    again = control.watch(revision)

    assert (await read(again)).resync
    assert told(await read(again)) == ["+d", "+e"]


async def test_a_slow_watcher_is_told_the_present_once_however_often_it_changed(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection("a")])
    stream = control.watch()
    await read(stream)
    await read(stream)

    # While it does not read, and nothing is sent before the next turn of the loop.
    for number in range(1000):
        await controller.delete(["a"])
        controller.ledger().touch("a")
        controller.ledger().remove("a")
        controller.ledger().touch(f"x{number % 3}")
    response = await read(stream)

    # Only the fake's ledger knows x0 to x2: to a watcher they are not there.
    assert sorted(told(response)) == ["-a", "-x0", "-x1", "-x2"]


async def test_a_filter_tells_what_ceases_to_fit_as_removed(control: ControlClient) -> None:
    await control.apply([connection("paris"), connection("rome")])
    stream = control.watch(text="connection.name = p* generation < 2", mask=["generation"])
    await read(stream)

    snapshot = await read(stream)
    await control.apply([connection("paris", psk="new")])
    changed = await read(stream)

    assert told(snapshot) == ["+paris", "-rome"]
    assert not snapshot.changes[0].upserted.HasField("status")
    assert told(changed) == ["-paris"]


async def test_many_come_in_parts_and_only_the_last_has_the_revision(
    control: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_entries, "CHUNK", 10)
    await control.apply([connection(f"c{number:02}") for number in range(25)])
    stream = control.watch()

    parts = [await read(stream) for _ in range(4)]

    assert [len(part.changes) for part in parts] == [0, 10, 10, 5]
    assert (
        [bool(part.revision) for part in parts]
        == [part.synced for part in parts]
        == [False, False, False, True]
    )


async def test_silence_is_broken_by_a_bookmark(
    control: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_entries, "BOOKMARK_S", 0.05)
    await control.apply([connection("a")])
    stream = control.watch()
    await read(stream)
    snapshot = await read(stream)

    bookmark = await read(stream)

    assert (told(bookmark), bookmark.synced, bookmark.revision) == ([], True, snapshot.revision)


async def test_a_filter_that_is_none_is_refused(control: ControlClient) -> None:
    with pytest.raises(ApiError, match="stands alone"):
        await read(control.watch(text="nonsense"))


async def test_a_thousand_watchers_miss_nothing_and_share_what_they_are_told(
    controller: FakeController, control: ControlClient
) -> None:
    """The server's side alone, without sockets: that they share messages keeps memory bounded."""
    await control.apply([connection(f"c{number:03}") for number in range(100)])
    entries = connection_entries.ConnectionEntries(controller)
    watchers = [entries.watch(pb.WatchConnectionsRequest()) for _ in range(1000)]
    for watcher in watchers:
        await anext(watcher)
    snapshots = [await anext(watcher) for watcher in watchers]
    waiting = [asyncio.ensure_future(anext(watcher)) for watcher in watchers]
    await asyncio.sleep(0)

    await control.delete(["c007"])
    deltas = await asyncio.wait_for(asyncio.gather(*waiting), 60)

    assert len({id(snapshot) for snapshot in snapshots}) == 1
    assert len({id(delta) for delta in deltas}) == 1
    assert told(deltas[0]) == ["-c007"]
    for watcher in watchers:
        await watcher.aclose()


async def test_a_view_survives_restarts_of_the_controller_and_is_right_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_view, "FIRST_RETRY_S", 0.01)
    address = UnixAddress(tmp_path / "control.sock")
    view = ConnectionView()
    before: list[str] = []
    removed: list[str] = []
    synced, lost = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        async with ControlClient(address) as client:
            async for difference in follow(client, view):
                removed.extend(difference.removed)
                if view.is_synced:
                    synced.set()
                if difference.problem:
                    lost.set()

    watching = asyncio.create_task(watch())
    for life, names in enumerate([["a", "b"], ["b", "c"], [], ["c"]]):
        controller = FakeController()
        controller.ledger().life = f"life{life}"
        server = ApiServer([Listener(address=address)], control=controller)
        async with asyncio.timeout(60):
            if life:
                await lost.wait()
                assert sorted(view.entries) == before, "what is known stays, though not as the present"
            synced.clear()
            lost.clear()
            await controller.apply(wanted(*names))
            await server.start()
            await synced.wait()
        assert sorted(view.entries) == names
        before = names
        await server.stop(grace_s=0)
    watching.cancel()

    assert removed == ["a", "b", "c"]
