"""Lists over a real socket: filters, pages whose tokens are opaque, field masks; and what is refused."""

import base64

import grpc
import grpc.aio
import pytest

from gateway.api.address import UnixAddress, dial
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1.control_pb2_grpc import ControlServiceStub
from gateway.api.control_client import ControlClient
from gateway.api.errors import ApiError, api_error
from gateway.api.plain import to_plain
from tests.api.fake_controller import FakeController
from tests.api.test_control_service import connection

NAMES = [f"c{number:02}" for number in range(25)]


@pytest.fixture
async def many(control: ControlClient) -> ControlClient:
    await control.apply([connection(name) for name in reversed(NAMES)])
    return control


async def _list(address: UnixAddress, **request: object) -> pb.ListConnectionsResponse:
    async with dial(address) as channel:
        stub = ControlServiceStub(channel)
        answer: pb.ListConnectionsResponse = await stub.ListConnections(
            pb.ListConnectionsRequest(**request), timeout=30
        )
        return answer


async def _refused(address: UnixAddress, **request: object) -> ApiError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _list(address, **request)
    return api_error(caught.value)


def _names(answer: pb.ListConnectionsResponse) -> list[str]:
    return [entry.connection.name for entry in answer.connections]


@pytest.mark.usefixtures("many")
async def test_pages_have_everything_once_in_order_whatever_happens_between(
    control_address: UnixAddress, control: ControlClient
) -> None:
    first = await _list(control_address, page_size=10)
    await control.delete(["c09", "c12"])
    await control.apply([connection("c05a"), connection("c20a")])
    second = await _list(control_address, page_size=10, page_token=first.next_page_token)
    third = await _list(control_address, page_size=10, page_token=second.next_page_token)

    assert _names(first) == NAMES[:10]
    assert _names(second) + _names(third) == sorted({*NAMES[10:], "c20a"} - {"c12"})
    assert third.next_page_token == ""


@pytest.mark.usefixtures("many")
async def test_a_filter_goes_through_pages(control_address: UnixAddress, controller: FakeController) -> None:
    wish = "connection.name = c0* OR connection.name = *1"

    first = await _list(control_address, page_size=7, filter=wish)
    second = await _list(control_address, page_size=7, filter=wish, page_token=first.next_page_token)

    assert _names(first) + _names(second) == [*NAMES[:10], "c11", "c21"]
    assert len(first.connections) == 7
    other = await _refused(control_address, page_size=7, page_token=first.next_page_token)
    assert other.violations[0].field == "page_token"


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    "token",
    ["x", "=", "é", base64.urlsafe_b64encode(b'["",5]').decode(), base64.urlsafe_b64encode(b"[[").decode()],
    ids=["short", "padding", "not ascii", "forged", "broken"],
)
async def test_a_token_that_is_none_is_refused(control_address: UnixAddress, token: str) -> None:
    failure = await _refused(control_address, page_token=token)

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in failure.violations] == ["page_token"]


@pytest.mark.usefixtures("many")
async def test_only_the_fields_asked_for_are_told(control_address: UnixAddress) -> None:
    mask = {"paths": ["connection.name", "status.state", "etag"]}

    answer = await _list(control_address, page_size=1, read_mask=mask)

    (entry,) = answer.connections
    assert entry.etag
    assert to_plain(entry, defaults=False) == {
        "connection": {"name": "c00"},
        "status": {"state": "failed"},
        "etag": entry.etag,
    }


@pytest.mark.usefixtures("many")
async def test_everything_wrong_with_a_list_is_told_at_once(control_address: UnixAddress) -> None:
    failure = await _refused(
        control_address,
        page_size=-1,
        page_token="x",
        filter="nonsense",
        read_mask={"paths": ["connection.nothing", "nothing", "connection.children.name"]},
    )

    assert sorted(violation.field for violation in failure.violations) == [
        "filter",
        "page_size",
        "page_token",
        "read_mask",
        "read_mask",
        "read_mask",
    ]


async def test_sas_are_filtered_and_masked_too(control: ControlClient, control_address: UnixAddress) -> None:
    assert [sa.ike_sa_id for sa in await control.ike_sas(text="state = established nat_remote = true")] == [7]
    assert await control.ike_sas(text="state = connecting") == []
    assert [sa.child_sa_id for sa in await control.child_sas(text="inbound.placement = software")] == [9]
    assert await control.child_sas(text="outbound.packets > 2") == []
    async with dial(control_address) as channel:
        request = pb.ListIkeSasRequest(read_mask={"paths": ["node", "owner", "generation"]})
        answer = await ControlServiceStub(channel).ListIkeSas(request, timeout=30)
    assert [to_plain(sa, defaults=False) for sa in answer.ike_sas] == [
        {"node": "gw-1", "owner": "gw-1", "generation": 17}
    ]


@pytest.mark.usefixtures("many")
async def test_one_connection_is_read_with_a_mask(control_address: UnixAddress) -> None:
    async with dial(control_address) as channel:
        request = pb.GetConnectionRequest(name="c03", read_mask={"paths": ["generation"]})
        answer = await ControlServiceStub(channel).GetConnection(request, timeout=30)

    assert to_plain(answer.connection, defaults=False) == {"generation": 1}
