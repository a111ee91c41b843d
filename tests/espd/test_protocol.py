"""The messages of Python against what the C compiler makes of gw_control.h; and what is no message."""

import ctypes
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import Refusal
from gateway.datapath.engine.records import REASONS
from tests.engine.layout_as_c import REPOSITORY, compile_layout, fields_in_header, layout

HEADER = REPOSITORY / "hw" / "espd" / "include" / "gw_control.h"
RECORDS = {
    "gw_control_header": p.Header,
    "gw_control_reply": p.Reply,
    "gw_control_plain": p.Plain,
    "gw_control_hello": p.Hello,
    "gw_control_hello_reply": p.HelloReply,
    "gw_control_configure": p.Configure,
    "gw_control_device": p.Device,
    "gw_control_device_reply": p.DeviceReply,
    "gw_control_device_name": p.DeviceName,
    "gw_control_device_counters": p.DeviceCounters,
    "gw_control_sa": p.SaMessage,
    "gw_control_sa_reply": p.SaReply,
    "gw_control_sa_name": p.SaName,
    "gw_control_sa_record": p.SaRecord,
    "gw_control_sa_state": p.SaStateReply,
    "gw_control_sa_list": p.SaListReply,
    "gw_control_sa_reserve": p.SaReserve,
    "gw_control_sa_move": p.SaMove,
    "gw_control_sa_path_mtu": p.SaPathMtu,
    "gw_control_tunnel": p.Tunnel,
    "gw_control_policy": p.PolicyMessage,
    "gw_control_policy_name": p.PolicyName,
    "gw_control_route": p.RouteMessage,
    "gw_control_neighbour": p.NeighbourMessage,
    "gw_control_worker_name": p.WorkerName,
    "gw_control_counters": p.CountersReply,
    "gw_control_event_sa": p.SaEvent,
    "gw_control_event_acquire": p.AcquireEvent,
    "gw_control_event_bad_spi": p.BadSpiEvent,
    "gw_control_event_method": p.MethodEvent,
}


def named(prefix: str, numbers: type[IntEnum]) -> dict[str, int]:
    return {f"{prefix}_{number.name}": int(number) for number in numbers}


NUMBERS = {
    "GW_CONTROL_VERSION": p.VERSION,
    "GW_REPLY": p.REPLY,
    "GW_EVENT_FIRST": p.EVENT_FIRST,
    "GW_REASON_BYTES": p.REASON_BYTES,
    "GW_MAX_WORKERS": p.MAX_WORKERS,
    "GW_MAX_DEVICES": p.MAX_DEVICES,
    "GW_MAX_METHODS": p.MAX_METHODS,
    "GW_MAX_TUNNEL_SAS": p.MAX_TUNNEL_SAS,
    "GW_NOTE_BYTES": p.NOTE_BYTES,
    "GW_NAME_BYTES": p.NAME_BYTES,
    "GW_SAS_LISTED": p.SAS_LISTED,
    "GW_ANY_WORKER": p.ANY_WORKER,
    "GW_ANY_CPU": p.ANY_CPU,
    "GW_DROP_REASON_COUNT": len(REASONS),
    **named("GW_MESSAGE", p.MessageType),
    **named("GW_E", p.ControlError),
    **named("GW_IO", p.IoKind),
    **{f"GW_DEVICE_{flag.name}": int(flag) for flag in p.DeviceFlag},
    **named("GW_POLICY", p.PolicyAction),
    **named("GW_ROUTE", p.RouteKind),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    also = ("GW_MESSAGE_COUNT", "GW_IO_COUNT", "GW_DEVICE_FLAGS")
    return compile_layout(
        tmp_path_factory.mktemp("layout"), "gw_control.h", RECORDS, dict.fromkeys((*NUMBERS, *also))
    )


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_layout_of_its_struct(compiled: dict[str, int], name: str) -> None:
    expected = {field: compiled[f"{name}.{field}"] for field in layout(RECORDS[name])}

    assert layout(RECORDS[name]) == expected
    assert fields_in_header(HEADER, name) == [field for field, *_ in RECORDS[name]._fields_]


def test_every_struct_of_the_header_has_a_record() -> None:
    lines = HEADER.read_text().splitlines()
    structs = [line.split()[1] for line in lines if line.startswith("struct ") and line.endswith("{")]

    assert sorted(structs) == sorted(RECORDS)


def test_numbers_are_those_of_the_header(compiled: dict[str, int]) -> None:
    assert {name: compiled[name] for name in NUMBERS} == NUMBERS


def test_no_number_of_the_header_is_missing(compiled: dict[str, int]) -> None:
    requests = [int(kind) for kind in p.MessageType if kind < p.EVENT_FIRST]

    assert requests == list(range(1, compiled["GW_MESSAGE_COUNT"])) == [int(kind) for kind in p.REQUESTS]
    assert [int(kind) for kind in p.IoKind] == list(range(1, compiled["GW_IO_COUNT"]))
    assert int(~p.DeviceFlag(0)) == compiled["GW_DEVICE_FLAGS"]


# --- messages -------------------------------------------------------------------------------------

REPLIES = list(p.REQUESTS)
EVENTS = [kind for kind in p.MessageType if kind > p.EVENT_FIRST - 1]
RECORD_OF_EVENT = dict(zip(EVENTS, (p.SaEvent, p.AcquireEvent, p.BadSpiEvent, p.MethodEvent), strict=True))


def said(kind: p.MessageType, number: int = 7, **header: int) -> bytes:
    """Return a message as espd would send it, all zero but for its header."""
    is_event = kind in EVENTS
    body = RECORD_OF_EVENT[kind]() if is_event else p.reply_of(kind)()
    head = p.Header.from_buffer(body)
    head.version = header.get("version", p.VERSION)
    head.type = header.get("type", kind if is_event else kind | p.REPLY)
    head.bytes = header.get("bytes", ctypes.sizeof(body))
    head.request = 0 if is_event else number
    return bytes(body)


@pytest.mark.parametrize("kind", REPLIES, ids=lambda kind: kind.name.lower())
def test_a_reply_is_read_as_the_record_of_its_request(kind: p.MessageType) -> None:
    received = p.parse(said(kind))

    assert (received.kind, received.number, type(received.body)) == (kind, 7, p.reply_of(kind))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name.lower())
def test_an_event_is_read_as_its_record(kind: p.MessageType) -> None:
    received = p.parse(said(kind))

    assert (received.kind, received.number, type(received.body)) == (kind, 0, RECORD_OF_EVENT[kind])


@given(st.binary(max_size=ctypes.sizeof(p.SaRecord)), st.integers(1, 2**64 - 1))
def test_what_espd_said_is_what_is_read(content: bytes, number: int) -> None:
    kind = p.MessageType.SA_READ
    message = bytearray(said(kind, number))
    start = p.SaStateReply.sa.offset
    message[start : start + len(content)] = content

    received = p.parse(bytes(message))

    assert received.number == number
    assert bytes(received.body) == bytes(message)


@pytest.mark.parametrize("kind", REPLIES, ids=lambda kind: kind.name.lower())
def test_a_refusal_needs_no_more_than_the_reason(kind: p.MessageType) -> None:
    reply = p.Reply()
    reply.header = p.Header(p.VERSION, kind | p.REPLY, ctypes.sizeof(reply), 7)
    reply.error = p.ControlError.SYSTEM
    reply.reason = b"no such device"

    received = p.parse(bytes(reply))

    assert isinstance(received.body, p.Reply)
    with pytest.raises(p.EspdRefused, match=f"{kind.name}: system: no such device") as refused:
        p.check(kind, received.body)
    assert refused.value.code is p.ControlError.SYSTEM


def test_refusals_of_the_engine_are_told_from_those_of_the_protocol() -> None:
    for code in (*Refusal, *p.ControlError):
        with pytest.raises(p.EspdRefused) as refused:
            p.check(p.MessageType.SA_ADD, p.SaReply(reply=p.Reply(error=code)))
        assert refused.value.code is code


def test_an_unknown_error_is_an_error_too() -> None:
    with pytest.raises(p.EspdRefused, match="without a name") as refused:
        p.check(p.MessageType.COMMIT, p.Reply(error=-1000))
    assert refused.value.code is None


MALFORMED = {
    "nothing": (b"", "0 bytes"),
    "half a header": (said(p.MessageType.COMMIT)[:15], "15 bytes"),
    "another version": (said(p.MessageType.HELLO, version=p.VERSION + 1), f"version {p.VERSION + 1}"),
    "a size that lies": (said(p.MessageType.HELLO, bytes=16), "says that they are 16"),
    "an unknown type": (said(p.MessageType.COMMIT, type=p.REPLY | 999), "unknown type"),
    "a request": (said(p.MessageType.COMMIT, type=p.MessageType.COMMIT), "as what it cannot be"),
    "an event as a reply": (said(p.MessageType.EVENT_SA, type=p.MessageType.EVENT_SA | p.REPLY), "cannot be"),
    "a reply to nothing": (said(p.MessageType.COMMIT, number=0), "with number 0"),
    "another record": (said(p.MessageType.HELLO, type=p.MessageType.COMMIT | p.REPLY), "has"),
    "a success that is too short": (
        said(p.MessageType.COMMIT, type=p.MessageType.SA_ADD | p.REPLY),
        "SA_ADD has",
    ),
}


@pytest.mark.parametrize(("data", "words"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_message_is_an_error_that_says_why(data: bytes, words: str) -> None:
    with pytest.raises(p.ProtocolError, match=words):
        p.parse(data)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        received = p.parse(data)
    except p.ProtocolError:
        return
    assert bytes(received.body) == data


def test_a_request_is_stamped_and_wiped() -> None:
    message = p.SaMessage(worker=p.ANY_WORKER)
    message.params.encryption_key[:] = range(40)

    p.stamp(message, p.MessageType.SA_ADD, 9)
    header = message.header
    assert (header.version, header.type, header.bytes, header.request) == (
        p.VERSION,
        p.MessageType.SA_ADD,
        ctypes.sizeof(p.SaMessage),
        9,
    )

    p.wipe(message)
    assert not any(bytes(message))
