"""The control service and its client: every call over a real socket, in front of a controller in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path as FilePath

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gateway.api.address import UnixAddress, dial
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1.control_pb2_grpc import ControlServiceStub
from gateway.api.control_client import ControlClient
from gateway.api.errors import ApiError, api_error
from gateway.api.plain import to_json, to_plain
from gateway.api.types.v1 import status_pb2 as spb
from gateway.controller.facade import (
    Applied,
    ConnectionApplied,
    ControlError,
    ControlErrorReason,
    DatapathAvailability,
    Operation,
    OperationFinished,
    OperationState,
    Target,
    WatchedEvent,
)
from gateway.datapath.backend import Capabilities, SoftExpire
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaId,
    ChildSaRekeyed,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaId,
    IkeSaRekeyed,
    PathChanged,
)
from gateway.ike.path import Path
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import IpsecProtocol, Mode, SaId, Spi
from gateway.ipsec.secret import Secret
from tests.api.fake_controller import CHILD_SA, FAILURE, IKE_SA, NOW, SA_KEY, FakeController

PSK = "correct horse battery staple"


def connection(name: str = "paris-tokyo", *, psk: str = PSK) -> cpb.Connection:
    auth = cpb.Authentication(psk=cpb.PreSharedKey(value=psk))
    return cpb.Connection(
        name=name,
        local=cpb.Side(address="192.0.2.1", id="gw-paris.example", auth=auth),
        remote=cpb.Side(address="192.0.2.2", id="gw-tokyo.example"),
        ike=cpb.Ike(proposals=["aes256gcm16-prfsha384-x25519"]),
        children=[cpb.Child(name="lan", local_ts=["10.1.0.0/16"], remote_ts=["10.2.0.0/16"])],
    )


# --- connections --------------------------------------------------------------------------------


async def test_apply_creates_updates_and_leaves_alone(
    control: ControlClient, controller: FakeController
) -> None:
    created = await control.apply([connection()])
    unchanged = await control.apply([connection()])
    changed = connection()
    changed.children[0].priority = 5
    updated = await control.apply([changed])

    applied = [(r.name, r.applied) for results in (created, unchanged, updated) for r in results]
    assert applied == [
        ("paris-tokyo", pb.APPLIED_CREATED),
        ("paris-tokyo", pb.APPLIED_UNCHANGED),
        ("paris-tokyo", pb.APPLIED_UPDATED),
    ]
    held = controller.wanted["paris-tokyo"]
    assert held.connection.children[0].priority == 5
    assert held.psk == Secret(PSK.encode())


async def test_validating_only_changes_nothing(control: ControlClient, controller: FakeController) -> None:
    (result,) = await control.apply([connection()], validate_only=True)

    assert result.applied == pb.APPLIED_CREATED
    assert not controller.wanted


async def test_pruning_deletes_what_is_not_named(control: ControlClient) -> None:
    await control.apply([connection("old"), connection("kept")])

    results = await control.apply([connection("kept")], prune=True)

    assert [(r.name, r.applied) for r in results] == [
        ("kept", pb.APPLIED_UNCHANGED),
        ("old", pb.APPLIED_DELETED),
    ]


async def test_one_refused_connection_does_not_hold_up_the_others(control: ControlClient) -> None:
    keep = connection("new")
    keep.local.auth.psk.is_set = True
    keep.local.auth.psk.ClearField("source")

    refused, created = await control.apply([keep, connection()])

    assert refused.applied == pb.APPLIED_REFUSED
    assert refused.error.reason == spb.ERROR_REASON_NO_PSK
    assert refused.error.message == "no PSK is held for 'new'"
    assert created.applied == pb.APPLIED_CREATED


async def test_what_was_read_can_be_applied_again_and_keeps_its_psk(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection()])
    entry = await control.connection("paris-tokyo")

    (unchanged,) = await control.apply([entry.connection])
    entry.connection.children[0].copy_dscp = False
    (updated,) = await control.apply([entry.connection])

    assert unchanged.applied == pb.APPLIED_UNCHANGED
    assert updated.applied == pb.APPLIED_UPDATED
    assert controller.wanted["paris-tokyo"].psk == Secret(PSK.encode())


async def test_everything_wrong_with_a_request_is_named_at_once(
    control: ControlClient, controller: FakeController
) -> None:
    wrong = connection("paris tokyo")
    wrong.remote.address = "192.0.2.300"
    wrong.remote.auth.psk.value = "another"
    wrong.ike.proposals.append("aes256gcm16-prfsha384-x25591")
    wrong.ike.rekey.seconds = -1
    wrong.children[0].local_ts.append("10.1.0.0/33")
    wrong.children[0].replay_window = 63
    wrong.children.add(name="lan", action="ACTION_BYPASS", start="START_START")

    with pytest.raises(ApiError) as caught:
        await control.apply([connection(), wrong])

    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert [violation.field for violation in caught.value.violations] == [
        "connections[1].name",
        "connections[1].remote.address",
        "connections[1].remote.auth.psk",
        "connections[1].ike.proposals[1]",
        "connections[1].ike.rekey",
        "connections[1].children[0].local_ts[1]",
        "connections[1].children[0].replay_window",
        "connections[1].children[1].start",
        "connections[1].children[1].name",
    ]
    assert not controller.wanted


@pytest.mark.parametrize("source", ["file", "env", "credential"])
async def test_the_controller_reads_no_secrets_for_others(control: ControlClient, source: str) -> None:
    asking = connection()
    setattr(asking.local.auth.psk, source, "/etc/shadow")

    with pytest.raises(ApiError) as caught:
        await control.apply([asking])

    (violation,) = caught.value.violations
    assert violation.field == f"connections[0].local.auth.psk.{source}"
    assert "send the key as value" in violation.description


async def test_hundreds_of_violations_still_make_an_answer(control: ControlClient) -> None:
    with pytest.raises(ApiError) as caught:
        await control.apply([cpb.Connection() for _ in range(500)])

    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == "1500 fields of the request are wrong"
    assert len(caught.value.violations) > 20
    assert caught.value.violations[-1].description.startswith("and 14")


async def test_no_answer_has_a_secret(control_address: UnixAddress, control: ControlClient) -> None:
    await control.apply([connection()])

    for method, request in {
        "ApplyConnections": pb.ApplyConnectionsRequest(connections=[connection()]),
        "ListConnections": pb.ListConnectionsRequest(),
        "GetConnection": pb.GetConnectionRequest(name="paris-tokyo"),
        "ListIkeSas": pb.ListIkeSasRequest(),
        "ListChildSas": pb.ListChildSasRequest(),
        "GetStatus": pb.GetStatusRequest(),
        "Explain": pb.ExplainRequest(connection="paris-tokyo"),
    }.items():
        async with dial(control_address) as channel:
            answer = await getattr(ControlServiceStub(channel), method)(request, timeout=30)

        assert PSK.encode() not in answer.SerializeToString(), method
        assert PSK.encode().hex().encode() not in answer.SerializeToString(), method
        assert SA_KEY not in answer.SerializeToString(), method
        assert PSK not in to_json(answer), method


async def test_a_connection_is_read_back_with_its_status(control: ControlClient) -> None:
    await control.apply([connection("b"), connection("a")])

    entries = await control.connections()

    assert [entry.connection.name for entry in entries] == ["a", "b"]
    plain = to_plain(entries[0])
    assert plain["connection"]["local"] == {
        "address": "192.0.2.1",
        "addresses": [],
        "id": "gw-paris.example",
        "auth": {"psk": {"is_set": True}},
    }
    assert plain["connection"]["ike"]["rekey"] == "4h"
    assert plain["status"] == {
        "state": "failed",
        "ike_sa_ids": [7],
        "child_sa_ids": [9, 10],
        "last_failure": {
            "reason": "no_proposal_chosen",
            "detail": "the peer takes none of our proposals",
            "notify": "NO_PROPOSAL_CHOSEN",
            "offered": "aes256gcm16-prfsha384-x25519",
            "configured": "aes128-sha256-modp2048",
        },
        "last_failure_time": "2027-01-15T07:59:50Z",
        "observed_generation": 1,
        "conditions": [
            {
                "type": "established",
                "status": "false",
                "reason": "no_proposal_chosen",
                "message": "the peer takes none of our proposals",
                "transition_time": "2027-01-15T07:59:50Z",
            }
        ],
    }


async def test_an_unknown_connection_is_not_found(control: ControlClient) -> None:
    with pytest.raises(ApiError, match="there is no connection 'nowhere'") as caught:
        await control.connection("nowhere")

    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.reason == "CONNECTION_NOT_FOUND"


async def test_deleting_is_idempotent(control: ControlClient) -> None:
    await control.apply([connection()])

    first = await control.delete(["paris-tokyo", "never-there"])
    again = await control.delete(["paris-tokyo"])

    assert [result.applied for result in first] == [pb.APPLIED_DELETED, pb.APPLIED_UNCHANGED]
    assert [result.applied for result in again] == [pb.APPLIED_UNCHANGED]


# --- operations ---------------------------------------------------------------------------------


async def test_an_operation_returns_at_once_and_can_be_waited_for(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection()])

    started = await control.initiate(pb.Target(connection="paris-tokyo", child="lan"))
    waiting = asyncio.create_task(control.finished(started, 10.0), name="wait")
    await control.status()
    assert not waiting.done()
    controller.finish(started.operation_id, FAILURE)
    ended = await waiting

    assert started.state == pb.OPERATION_STATE_RUNNING
    assert ended.state == pb.OPERATION_STATE_FAILED
    assert ended.failure.reason == "no_proposal_chosen"
    assert controller.calls == [("initiate", Target(connection="paris-tokyo", child="lan"))]


async def test_a_repeated_request_id_starts_nothing_new(
    control: ControlClient, controller: FakeController
) -> None:
    await control.apply([connection()])
    target = pb.Target(connection="paris-tokyo")

    for verb in (control.initiate, control.rekey, control.terminate):
        first = await verb(target, request_id=verb.__name__)
        again = await verb(target, request_id=verb.__name__)

        assert first == again
    assert [verb for verb, _ in controller.calls] == ["initiate", "rekey", "terminate"]


async def test_a_request_id_for_something_else_is_refused(control: ControlClient) -> None:
    await control.apply([connection()])
    await control.initiate(pb.Target(connection="paris-tokyo"), request_id="1")

    with pytest.raises(ApiError) as caught:
        await control.terminate(pb.Target(connection="paris-tokyo"), request_id="1")

    assert caught.value.code is grpc.StatusCode.ALREADY_EXISTS
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_an_ike_sa_is_authenticated_anew_and_a_child_is_not(
    control: ControlClient, controller: FakeController
) -> None:
    await control.rekey(pb.Target(ike_sa_id=7), reauthenticate=True)

    with pytest.raises(ApiError, match="leave the child out"):
        await control.rekey(pb.Target(connection="paris-tokyo", child="lan"), reauthenticate=True)

    assert controller.calls == [("reauthenticate", Target(ike_sa_id=7))]


async def test_sas_are_targets_of_terminate_and_rekey(
    control: ControlClient, controller: FakeController
) -> None:
    await control.rekey(pb.Target(ike_sa_id=7))
    await control.terminate(pb.Target(child_sa_id=0))

    assert controller.calls == [("rekey", Target(ike_sa_id=7)), ("terminate", Target(child_sa_id=0))]


@pytest.mark.parametrize(
    ("verb", "target", "field", "what"),
    [
        ("initiate", pb.Target(), "target", "is required to name a connection"),
        ("initiate", pb.Target(ike_sa_id=7), "target", "names an SA; a connection is wanted here"),
        ("initiate", pb.Target(connection="a", ike_sa_id=7), "target", "names an SA beside the connection"),
        (
            "initiate",
            pb.Target(child="lan"),
            "target.connection",
            "is required: the connection of child 'lan'",
        ),
        ("rekey", pb.Target(), "target", "is required to name one of connection, ike_sa_id or child_sa_id"),
        (
            "terminate",
            pb.Target(child_sa_id=1, ike_sa_id=7),
            "target",
            "names more than one of connection, ike_sa_id or child_sa_id",
        ),
    ],
)
async def test_a_target_names_one_thing(
    control: ControlClient, verb: str, target: pb.Target, field: str, what: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await getattr(control, verb)(target)

    assert [(v.field, v.description) for v in caught.value.violations] == [(field, what)]


async def test_operations_that_are_not_there_or_waits_that_are_too_long(control: ControlClient) -> None:
    with pytest.raises(ApiError) as caught:
        await control.operation("op-99")
    assert caught.value.reason == "OPERATION_NOT_FOUND"

    with pytest.raises(ApiError) as caught:
        await control.operation("", wait_s=61)
    assert [violation.field for violation in caught.value.violations] == ["operation_id", "wait"]


# --- lists and status ---------------------------------------------------------------------------


async def test_ike_sas_are_listed(control: ControlClient) -> None:
    (ike_sa,) = await control.ike_sas()

    assert to_plain(ike_sa) == {
        "ike_sa_id": 7,
        "connection": "paris-tokyo",
        "spi_i": "0102030405060708",
        "spi_r": "1112131415161718",
        "is_initiator": True,
        "state": "established",
        "local": {"address": "192.0.2.1", "port": 4500},
        "remote": {"address": "192.0.2.2", "port": 40123},
        "local_id": "gw-paris.example",
        "remote_id": "192.0.2.2",
        "proposal": "aes256gcm16-prfsha384-x25519",
        "nat_local": False,
        "nat_remote": True,
        "established_time": "2027-01-15T07:58:20Z",
        "rekey_time": "2027-01-15T09:00:00Z",
        "node": "gw-1",
        "owner": "gw-1",
        "generation": 17,
    }
    assert list(await control.ike_sas("other")) == []


WISH = {"prefer": ["nic_packet", "nic_crypto", "engine", "kernel", "software"]}


async def test_child_sas_are_listed_with_what_was_asked_where_they_landed_and_why(
    control: ControlClient,
) -> None:
    (child_sa,) = await control.child_sas("paris-tokyo")

    assert to_plain(child_sa) == {
        "child_sa_id": 9,
        "ike_sa_id": 7,
        "connection": "paris-tokyo",
        "child": "lan",
        "state": "installed",
        "mode": "tunnel",
        "protocol": "esp",
        "proposal": "aes256gcm16-x25519",
        "local_ts": ["10.1.0.0/16"],
        "remote_ts": ["10.2.0.0/16[tcp/443]"],
        "udp_encapsulation": True,
        "inbound": {
            "sa_id": "in:esp:192.0.2.1:00001001",
            "spi": "00001001",
            "packets": 1,
            "bytes": 3,
            "placement": "software",
            "placement_reason": "no engine here",
            "requested": WISH,
            "refusals": [{"engine": "engine", "reason": "no_backend", "text": "no engine here"}],
        },
        "outbound": {
            "sa_id": "out:esp:192.0.2.2:c0ffee01",
            "spi": "c0ffee01",
            "packets": 2,
            "bytes": 4,
            "placement_reason": "",
            "requested": WISH,
            "refusals": [],
        },
        "interface_id": 0,
        "effective_mtu": 1394,
        "established_time": "2027-01-15T07:58:20Z",
        "rekey_time": "2027-01-15T08:58:20Z",
        "expire_time": "2027-01-15T09:04:20Z",
        "node": "gw-1",
        "owner": "gw-1",
        "generation": 17,
    }
    assert list(await control.child_sas("other")) == []


async def test_the_status_comes_through(control: ControlClient, controller: FakeController) -> None:
    down = to_plain(await control.status())
    controller.status_answer = type(controller.status_answer)(
        version="0.1.0",
        started_at=NOW.wall,
        datapath_address="in-process",
        datapath=Capabilities(
            name="software",
            engines=(Engine.SOFTWARE,),
            encryption=((Encr.AES_GCM_16, 256),),
            integrity=(Integ.HMAC_SHA2_256_128,),
            protocols=(IpsecProtocol.ESP,),
            modes=(Mode.TUNNEL,),
            esn=True,
            udp_encapsulation=True,
            max_replay_window_packets=4096,
            counters_survive_restart=False,
        ),
        datapath_drops={DropReason.CLEAR_INBOUND: 7},
    )
    up = to_plain(await control.status())

    assert down == {
        "version": "0.1.0",
        "start_time": "2027-01-15T07:59:00Z",
        "datapath_address": "unix:/run/ipsecgw/datapath.sock",
        "datapath_problem": "no datapath agent",
        "connections": 1,
        "ike_sas": 2,
        "half_open_ike_sas": 3,
        "child_sas": 4,
        "ike_drops": [{"reason": "ike_cookie", "packets": 5}],
        "warnings": ["look"],
        "datapath_drops": [],
        "node": "",
        "desired_state": "memory",
        "generation": 0,
    }
    assert up["datapath_drops"] == [{"reason": "clear_inbound", "packets": 7}]
    assert up["datapath"]["engines"] == ["software"]
    assert up["datapath"]["encryption"] == [{"algorithm": "aes_gcm_16", "key_bits": 256}]


async def test_explain_answers_facts(control: ControlClient) -> None:
    await control.apply([connection()])

    facts = await control.explain("paris-tokyo")

    assert [(fact.topic, fact.text, fact.advice) for fact in facts] == [
        ("state", "down", "ipsecgw up"),
        ("peer", "192.0.2.2", ""),
    ]
    with pytest.raises(ApiError) as caught:
        await control.explain("")
    assert caught.value.violations[0].field == "connection"


# --- events -------------------------------------------------------------------------------------

OPERATION = Operation(
    operation_id="op-1", verb="rekey", target=Target(child_sa_id=9), state=OperationState.SUCCEEDED
)

EVENTS: dict[str, tuple[WatchedEvent, Callable[[pb.Event], object], object]] = {
    "ike_sa_established": (
        IkeSaEstablished(ike_sa=IKE_SA),
        lambda e: e.ike_sa_established.ike_sa.spi_i,
        "0102030405060708",
    ),
    "ike_sa_rekeyed": (IkeSaRekeyed(old=IKE_SA, new=IKE_SA), lambda e: e.ike_sa_rekeyed.new.ike_sa_id, 7),
    "ike_sa_failed": (
        IkeSaFailed(ike_sa=IKE_SA, failure=FAILURE),
        lambda e: e.ike_sa_failed.failure.offered,
        FAILURE.offered,
    ),
    "ike_sa_deleted": (
        IkeSaDeleted(ike_sa=IKE_SA, failure=FAILURE),
        lambda e: e.ike_sa_deleted.ike_sa.connection,
        "paris-tokyo",
    ),
    "child_sa_established": (
        ChildSaEstablished(child_sa=CHILD_SA),
        lambda e: e.child_sa_established.child_sa.inbound.spi,
        "00001001",
    ),
    "child_sa_rekeyed": (
        ChildSaRekeyed(old=CHILD_SA, new=CHILD_SA),
        lambda e: e.child_sa_rekeyed.old.child_sa_id,
        9,
    ),
    "child_sa_failed": (
        ChildSaFailed(
            ike_sa_id=IkeSaId(7),
            connection="paris-tokyo",
            child="lan",
            failure=FAILURE,
            replaces=ChildSaId(9),
        ),
        lambda e: (e.child_sa_failed.child, e.child_sa_failed.replaces, e.child_sa_failed.failure.reason),
        ("lan", 9, "no_proposal_chosen"),
    ),
    "child_sa_deleted": (
        ChildSaDeleted(child_sa=CHILD_SA, failure=FAILURE),
        lambda e: e.child_sa_deleted.failure.detail,
        FAILURE.detail,
    ),
    "path_changed": (
        PathChanged(
            ike_sa=IKE_SA,
            old=Path(ip_address("192.0.2.1"), 4500, ip_address("192.0.2.2"), 4500),
            new=Path(ip_address("192.0.2.1"), 4500, ip_address("192.0.2.3"), 4501),
        ),
        lambda e: (e.path_changed.old.port, e.path_changed.new.address),
        (4500, "192.0.2.3"),
    ),
    "connection_applied": (
        ConnectionApplied(name="paris-tokyo", applied=Applied.UPDATED),
        lambda e: e.connection_applied.applied,
        pb.APPLIED_UPDATED,
    ),
    "operation_finished": (
        OperationFinished(operation=OPERATION),
        lambda e: e.operation_finished.operation.target.child_sa_id,
        9,
    ),
    "datapath_availability": (
        DatapathAvailability(available=False, detail="gone"),
        lambda e: e.datapath_availability.detail,
        "gone",
    ),
    "datapath": (
        SoftExpire(sa_id=SaId("in:esp:192.0.2.1:00001001"), spi=Spi(0x1001), limit="packets"),
        lambda e: e.datapath.soft_expire.limit,
        "packets",
    ),
}


async def test_every_kind_of_event_comes_through_without_keys(
    control: ControlClient, controller: FakeController
) -> None:
    stream = await control.events()
    for event, _, _ in EVENTS.values():
        controller.emit(event)

    received = [await asyncio.wait_for(anext(stream), 30) for _ in EVENTS]

    assert [event.WhichOneof("event") for event in received] == list(EVENTS)
    assert [event.sequence for event in received] == list(range(1, len(EVENTS) + 1))
    assert {to_plain(event)["time"] for event in received} == {"2027-01-15T08:00:00Z"}
    for event, (_, fact, expected) in zip(received, EVENTS.values(), strict=True):
        assert fact(event) == expected
        assert SA_KEY not in event.SerializeToString()


async def test_a_watch_can_begin_in_the_past(control: ControlClient, controller: FakeController) -> None:
    for i in range(3):
        controller.emit(DatapathAvailability(available=bool(i), detail=str(i)))

    from_now = await control.events()
    from_second = await control.events(after_sequence=1)
    from_start = await control.events(after_sequence=0)
    controller.emit(DatapathAvailability(available=True, detail="now"))

    assert [(await anext(from_second)).sequence for _ in range(3)] == [2, 3, 4]
    assert [(await anext(from_start)).sequence for _ in range(4)] == [1, 2, 3, 4]
    assert (await anext(from_now)).sequence == 4


async def test_lost_history_and_slow_watchers_are_told(
    control: ControlClient, controller: FakeController
) -> None:
    controller.first_kept = 5
    with pytest.raises(ApiError, match="history begins with event 5") as caught:
        await control.events(after_sequence=1)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.OUT_OF_RANGE, "HISTORY_LOST")

    stream = await control.events()
    controller.cut_off(ControlError(ControlErrorReason.SLOW_WATCHER, "read faster"))
    with pytest.raises(ApiError, match="read faster") as caught:
        await asyncio.wait_for(anext(stream), 30)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_WATCHER")


# --- errors -------------------------------------------------------------------------------------

CODES = {
    ControlErrorReason.CONNECTION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ControlErrorReason.CHILD_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ControlErrorReason.IKE_SA_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ControlErrorReason.CHILD_SA_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ControlErrorReason.OPERATION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ControlErrorReason.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    ControlErrorReason.NO_REMOTE_ADDRESS: grpc.StatusCode.FAILED_PRECONDITION,
    ControlErrorReason.NO_PSK: grpc.StatusCode.FAILED_PRECONDITION,
    ControlErrorReason.NO_CREDENTIAL: grpc.StatusCode.FAILED_PRECONDITION,
    ControlErrorReason.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    ControlErrorReason.DATAPATH_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    ControlErrorReason.DATAPATH_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ControlErrorReason.HISTORY_LOST: grpc.StatusCode.OUT_OF_RANGE,
    ControlErrorReason.SLOW_WATCHER: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ControlErrorReason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    ControlErrorReason.STALE_GENERATION: grpc.StatusCode.ABORTED,
    ControlErrorReason.ETAG_MISMATCH: grpc.StatusCode.ABORTED,
    ControlErrorReason.STATE_NOT_KEPT: grpc.StatusCode.UNAVAILABLE,
    ControlErrorReason.KEY_EXPORT_OFF: grpc.StatusCode.FAILED_PRECONDITION,
}


@pytest.mark.parametrize("reason", list(ControlErrorReason))
async def test_every_refusal_has_its_code_reason_and_details(
    control_address: UnixAddress,
    controller: FakeController,
    reason: ControlErrorReason,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(target: Target, *, request_id: str = "") -> Operation:
        raise ControlError(reason, "because")

    monkeypatch.setattr(controller, "initiate", refuse)

    request = pb.InitiateRequest(target=pb.Target(connection="paris-tokyo"))
    async with dial(control_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ControlServiceStub(channel).Initiate(request, timeout=30)

    failure = api_error(caught.value)
    assert failure.code is CODES[reason]
    assert failure.reason == reason.value
    assert failure.message == "because"
    assert failure.retry_after_s == (1.0 if failure.code is grpc.StatusCode.UNAVAILABLE else None)
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it has what is read of it
    assert status is not None
    precondition = error_details_pb2.PreconditionFailure.DESCRIPTOR
    has_precondition = any(detail.Is(precondition) for detail in status.details)
    assert has_precondition is (failure.code is grpc.StatusCode.FAILED_PRECONDITION)


async def test_a_controller_that_does_not_answer_is_given_up(
    control_address: UnixAddress, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def watch_nothing(*_: object) -> AsyncIterator[pb.WatchEventsResponse]:
        await hang()
        yield pb.WatchEventsResponse()

    monkeypatch.setattr(controller, "status", hang)
    monkeypatch.setattr("gateway.api.control_service.watch", watch_nothing)

    async with ControlClient(control_address, deadline_s=0.2) as client:
        for question in (client.status, client.events):
            with pytest.raises(ApiError, match=r"did not answer within 0\.2 s") as caught:
                await question()
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_absent_controller_says_what_to_do(tmp_path: FilePath) -> None:
    async with ControlClient(UnixAddress(tmp_path / "no.sock")) as client:
        with pytest.raises(ApiError) as caught:
            await client.status()

    expected = f"no controller at unix:{tmp_path}/no.sock: start `ipsecgw run`, or name another with --socket"
    assert str(caught.value) == expected
