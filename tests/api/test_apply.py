"""Apply over a real socket: etags, generations, impact, streams, and what is known again by its bytes."""

from collections.abc import Sequence

import grpc
import pytest

from gateway.api.address import UnixAddress, dial
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1.control_pb2_grpc import ControlServiceStub
from gateway.api.control_client import ControlClient
from gateway.api.errors import ApiError
from gateway.controller.facade import WantedConnection
from gateway.ipsec.secret import Secret
from tests.api.fake_controller import FakeController
from tests.api.test_control_service import PSK, connection


async def test_what_was_read_is_what_is_changed_or_nothing_is(
    control: ControlClient, controller: FakeController
) -> None:
    (created,) = await control.apply([connection()], etags={"paris-tokyo": ""})
    read = await control.connection("paris-tokyo")
    assert read.etag == created.etag
    (updated,) = await control.apply([connection(psk="another")], etags={"paris-tokyo": read.etag})
    assert updated.applied == pb.APPLIED_UPDATED

    with pytest.raises(ApiError, match="was changed by somebody else") as caught:
        await control.apply([connection("new"), connection(psk="third")], etags={"paris-tokyo": read.etag})
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    with pytest.raises(ApiError) as caught:
        await control.delete(["paris-tokyo"], etags={"paris-tokyo": read.etag})
    assert caught.value.reason == "ETAG_MISMATCH"

    assert list(controller.wanted) == ["paris-tokyo"]
    assert (await control.connection("paris-tokyo")).etag == updated.etag != read.etag


async def test_an_orchestrator_that_was_overtaken_changes_nothing(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection()], generation=7)

    with pytest.raises(ApiError, match="generation 6 is older than 7") as caught:
        await control.apply([connection("late")], generation=6)

    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.ABORTED, "STALE_GENERATION")
    assert list(controller.wanted) == ["paris-tokyo"]


async def test_the_impact_is_told_by_connection(control: ControlClient) -> None:
    await control.apply([connection("a"), connection("b")])

    results = await control.apply(
        [connection("a", psk="new"), connection("b", psk="new"), connection("c")], validate_only=True
    )

    assert [result.impact.child_sa_rekeys for result in results] == [1, 1, 0]
    assert not results[2].HasField("impact")


async def test_the_same_message_again_is_not_read_again(
    control: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.apply([connection()])

    def refuse(*_: object) -> WantedConnection:
        raise AssertionError("it was read")

    monkeypatch.setattr("gateway.api.known_requests.read_connection", refuse)
    (again,) = await control.apply([connection()])

    assert again.applied == pb.APPLIED_UNCHANGED


@pytest.mark.parametrize("between", ["changed", "deleted", "changed elsewhere"])
async def test_the_same_message_again_is_read_again_where_it_is_not_so_any_more(
    control: ControlClient, controller: FakeController, between: str
) -> None:
    await control.apply([connection()])
    if between == "changed":
        await control.apply([connection(psk="another")])
    elif between == "deleted":
        await control.delete(["paris-tokyo"])
    else:
        held = controller.wanted["paris-tokyo"]
        await controller.apply([WantedConnection(connection=held.connection, psk=None)])
        controller.desired.put(controller.desired.successor(held.connection))

    (again,) = await control.apply([connection()])

    expected = {
        "changed": pb.APPLIED_UPDATED,
        "deleted": pb.APPLIED_CREATED,
        "changed elsewhere": pb.APPLIED_UNCHANGED,
    }
    assert again.applied == expected[between]
    assert controller.wanted["paris-tokyo"].psk == Secret(PSK.encode())


# --- streams ------------------------------------------------------------------------------------


async def _stream(
    control: ControlClient, batches: Sequence[Sequence[cpb.Connection]], **wish: object
) -> list[list[tuple[str, int]]]:
    return [
        [(result.name, result.applied) for result in response.results]
        async for response in control.stream(batches, **wish)  # type: ignore[arg-type]  # as in the test
    ]


async def test_a_stream_answers_batch_by_batch_and_prunes_at_its_end(control: ControlClient) -> None:
    await control.apply([connection("old"), connection("b")])

    answers = await _stream(
        control, [[connection("a"), connection("b")], [connection("c")]], prune=True, generation=3
    )

    assert answers == [
        [("a", pb.APPLIED_CREATED), ("b", pb.APPLIED_UNCHANGED)],
        [("c", pb.APPLIED_CREATED)],
        [("old", pb.APPLIED_DELETED)],
    ]
    assert (await control.connections(mask=["connection.name"]))[0].connection.name == "a"


async def test_a_stream_that_only_validates_changes_nothing(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection("old")])

    answers = await _stream(control, [[connection("a")], []], prune=True, validate_only=True)

    assert answers == [[("a", pb.APPLIED_CREATED)], [], [("old", pb.APPLIED_DELETED)]]
    assert list(controller.wanted) == ["old"]


async def test_a_stream_that_goes_wrong_keeps_what_was_answered_and_prunes_nothing(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection("old")])
    stream = control.stream([[connection("a")], [connection("a")]], prune=True)

    answered = await anext(stream)
    with pytest.raises(ApiError, match="is in an earlier request of this stream") as caught:
        await anext(stream)

    assert caught.value.violations[0].field == "connections[0].name"
    assert [result.name for result in answered.results] == ["a"]
    assert sorted(controller.wanted) == ["a", "old"]


@pytest.mark.parametrize("end", ["cancelled", "gone"])
async def test_a_stream_that_breaks_off_prunes_nothing(
    control_address: UnixAddress, control: ControlClient, controller: FakeController, end: str
) -> None:
    await control.apply([connection("old")])

    async with dial(control_address) as channel:
        call = ControlServiceStub(channel).StreamConnections()
        await call.write(pb.StreamConnectionsRequest(connections=[connection("a")]))
        await call.read()
        if end == "cancelled":
            call.cancel()
    # Each call is a turn of the server, which has learned of the end by then.
    for _ in range(50):
        await control.status()

    assert sorted(controller.wanted) == ["a", "old"]


async def test_nothing_follows_the_request_that_prunes(control_address: UnixAddress) -> None:
    async with dial(control_address) as channel:
        call = ControlServiceStub(channel).StreamConnections()
        await call.write(pb.StreamConnectionsRequest(connections=[connection("a")], prune=True))
        pruned = await call.read()
        await call.write(pb.StreamConnectionsRequest(connections=[connection("b")]))
        with pytest.raises(grpc.aio.AioRpcError, match="1 field of the request is wrong"):
            await call.read()

    assert [result.name for result in pruned.results] == ["a"]


async def test_a_stream_is_one_line_of_the_audit_log(
    control: ControlClient, audit_lines: list[dict[str, object]]
) -> None:
    names = [f"c{number}" for number in range(30)]

    await _stream(control, [[connection(name) for name in names[i : i + 10]] for i in (0, 10, 20)])
    await control.status()

    (line,) = audit_lines
    assert (line["method"], line["outcome"]) == ("StreamConnections", "OK")
    assert line["what"] == [*names[:20], "+10"]
