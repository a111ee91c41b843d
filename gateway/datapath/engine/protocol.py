"""The messages of `hw/espd/include/gw_control.h`, field by field: what the agent and espd say to each other.

One message is one datagram of a SOCK_SEQPACKET socket. Here it is a ctypes record that begins with a header,
so that keys are sent from the memory that is wiped afterwards. `tests/espd` compares sizes, offsets and
numbers with what the C compiler makes of the header.

Not here: the socket (`espd`), and what the messages are for (`backend`).
"""

import ctypes
from collections.abc import Mapping
from ctypes import c_char, c_int32, c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.datapath.engine.core import EngineError, Refusal
from gateway.datapath.engine.records import (
    MAX_SELECTORS,
    REASONS,
    EventRecord,
    SaParams,
    SaUsage,
    Selector,
)

VERSION: Final = 3
REPLY: Final = 0x8000
EVENT_FIRST: Final = 0x4000
REASON_BYTES: Final = 160
MAX_WORKERS: Final = 64
MAX_DEVICES: Final = 250
MAX_METHODS: Final = 6
MAX_TUNNEL_SAS: Final = 16
NOTE_BYTES: Final = 256
NAME_BYTES: Final = 16
BUILD_BYTES: Final = 48
SAS_LISTED: Final = 32
ANY_WORKER: Final = 0xFFFF
ANY_CPU: Final = 0xFFFF


class ProtocolError(EngineError):
    """espd said something that is no message of this version."""


class MessageType(IntEnum):
    """`enum gw_message_type`."""

    HELLO = 1
    CONFIGURE = 2
    DEVICE_SET = 3
    DEVICE_REMOVE = 4
    DEVICE_READ = 5
    SA_ADD = 6
    SA_REMOVE = 7
    SA_READ = 8
    SA_LIST = 9
    SA_RESERVE = 10
    SA_MOVE = 11
    SA_PATH_MTU = 12
    TUNNEL_SET = 13
    POLICY_SET = 14
    POLICY_REMOVE = 15
    ROUTE_SET = 16
    ROUTE_REMOVE = 17
    NEIGHBOUR_SET = 18
    NEIGHBOUR_REMOVE = 19
    COMMIT = 20
    CLEAR = 21
    COUNTERS_READ = 22
    SHUT_DOWN = 23
    EVENT_SA = EVENT_FIRST
    EVENT_ACQUIRE = EVENT_FIRST + 1
    EVENT_BAD_SPI = EVENT_FIRST + 2
    EVENT_METHOD = EVENT_FIRST + 3


class ControlError(IntEnum):
    """`enum gw_control_error`: what a reply's error may be beside a `Refusal`."""

    VERSION = -32
    SIZE = -33
    TYPE = -34
    ORDER = -35
    NO_ENTRY = -36
    FULL = -37
    SYSTEM = -38
    DESCRIPTOR = -39


class IoKind(IntEnum):
    """How packets come in and go out: `enum gw_io_kind`."""

    XDP_ZERO_COPY = 1
    XDP_COPY = 2
    LIVE_FRAME = 3
    PACKET = 4
    TUN = 5
    RAW = 6


class DeviceFlag(IntFlag):
    """What a device is for: `enum gw_device_flag`."""

    PROTECTED = 1 << 0
    CLEAR = 1 << 1
    SLOW_PATH = 1 << 2
    FALLBACK = 1 << 3
    ALL_FRAMES = 1 << 4
    STEERING = 1 << 5
    OFFLOAD = 1 << 6
    TUNNEL = 1 << 7
    ROUTED = 1 << 8


class PolicyAction(IntEnum):
    """What an SPD entry says: `enum gw_policy_action`."""

    PROTECT = 1
    BYPASS = 2
    DISCARD = 3


class RouteKind(IntEnum):
    """What happens to packets for a prefix: `enum gw_route_kind`."""

    FORWARD = 1
    LOCAL = 2
    UNREACHABLE = 3


# --- records --------------------------------------------------------------------------------------


class Header(ctypes.Structure):
    """`struct gw_control_header`."""

    _fields_ = (("version", c_uint16), ("type", c_uint16), ("bytes", c_uint32), ("request", c_uint64))


class Reply(ctypes.Structure):
    """`struct gw_control_reply`."""

    _fields_ = (
        ("header", Header),
        ("error", c_int32),
        ("system_errno", c_int32),
        ("reason", c_char * REASON_BYTES),
    )


class Plain(ctypes.Structure):
    """`struct gw_control_plain`."""

    _fields_ = (("header", Header),)


class Hello(ctypes.Structure):
    """`struct gw_control_hello`."""

    _fields_ = (("header", Header), ("drop_reasons", c_uint32), ("reserved", c_uint32))


class HelloReply(ctypes.Structure):
    """`struct gw_control_hello_reply`."""

    _fields_ = (
        ("reply", Reply),
        ("life", c_uint8 * 16),
        ("started_ns", c_uint64),
        ("process", c_uint32),
        ("workers", c_uint16),
        ("reserved", c_uint16),
        ("sas", c_uint32),
        ("methods", c_uint32),
        ("ipsecmb", c_char * 48),
        ("openssl", c_char * 48),
        ("build", c_char * BUILD_BYTES),
    )


class Configure(ctypes.Structure):
    """`struct gw_control_configure`."""

    _fields_ = (
        ("header", Header),
        ("workers", c_uint16),
        ("cpus", c_uint16 * MAX_WORKERS),
        ("busy_poll", c_uint8),
        ("crypto", c_uint8),
        ("inbound_bits", c_uint32),
        ("outbound_sas", c_uint32),
        ("tunnels", c_uint32),
        ("mark", c_uint32),
        ("clear_mark", c_uint32),
        ("frames", c_uint32),
        ("frame_bytes", c_uint32),
        ("batch_low", c_uint16),
        ("batch_high", c_uint16),
        ("reserved", c_uint32),
    )


class Device(ctypes.Structure):
    """`struct gw_control_device`."""

    _fields_ = (
        ("header", Header),
        ("device", c_uint32),
        ("ifindex", c_uint32),
        ("name", c_char * NAME_BYTES),
        ("flags", c_uint32),
        ("mtu", c_uint32),
        ("queues", c_uint16),
        ("mac", c_uint8 * 6),
        ("receive_methods", c_uint8 * MAX_METHODS),
        ("send_methods", c_uint8 * MAX_METHODS),
        ("address4", c_uint8 * 4),
        ("address6", c_uint8 * 16),
    )


class DeviceReply(ctypes.Structure):
    """`struct gw_control_device_reply`."""

    _fields_ = (
        ("reply", Reply),
        ("ifindex", c_uint32),
        ("receive_method", c_uint8),
        ("send_method", c_uint8),
        ("reserved", c_uint16),
    )


class DeviceName(ctypes.Structure):
    """`struct gw_control_device_name`."""

    _fields_ = (("header", Header), ("device", c_uint32), ("reserved", c_uint32))


class DeviceCounters(ctypes.Structure):
    """`struct gw_control_device_counters`."""

    _fields_ = (
        ("reply", Reply),
        ("receive_method", c_uint8),
        ("send_method", c_uint8),
        ("reserved", c_uint8 * 6),
        ("received_packets", c_uint64),
        ("received_bytes", c_uint64),
        ("sent_packets", c_uint64),
        ("sent_bytes", c_uint64),
        ("receive_lost", c_uint64),
        ("send_lost", c_uint64),
        ("send_refused", c_uint64),
        ("sent_bursts", c_uint64),
        ("received_supers", c_uint64),
    )


class SaMessage(ctypes.Structure):
    """`struct gw_control_sa`: it holds keys."""

    _fields_ = (
        ("header", Header),
        ("worker", c_uint16),
        ("note_bytes", c_uint16),
        ("device", c_uint32),
        ("params", SaParams),
        ("note", c_uint8 * NOTE_BYTES),
    )


class SaReply(ctypes.Structure):
    """`struct gw_control_sa_reply`."""

    _fields_ = (
        ("reply", Reply),
        ("cookie", c_uint64),
        ("effective_mtu", c_uint32),
        ("worker", c_uint16),
        ("crypto", c_uint8),
        ("reserved", c_uint8),
    )


class SaName(ctypes.Structure):
    """`struct gw_control_sa_name`."""

    _fields_ = (("header", Header), ("cookie", c_uint64))


class SaRecord(ctypes.Structure):
    """`struct gw_control_sa_record`."""

    _fields_ = (
        ("cookie", c_uint64),
        ("spi", c_uint32),
        ("direction", c_uint8),
        ("protocol", c_uint8),
        ("mode", c_uint8),
        ("family", c_uint8),
        ("source", c_uint8 * 16),
        ("destination", c_uint8 * 16),
        ("udp_source_port", c_uint16),
        ("udp_destination_port", c_uint16),
        ("worker", c_uint16),
        ("note_bytes", c_uint16),
        ("device", c_uint32),
        ("events", c_uint32),
        ("sequence_limit", c_uint64),
        ("now_ns", c_uint64),
        ("usage", SaUsage),
        ("note", c_uint8 * NOTE_BYTES),
    )


class SaStateReply(ctypes.Structure):
    """`struct gw_control_sa_state`."""

    _fields_ = (("reply", Reply), ("sa", SaRecord))


class SaListReply(ctypes.Structure):
    """`struct gw_control_sa_list`."""

    _fields_ = (
        ("reply", Reply),
        ("count", c_uint32),
        ("reserved", c_uint32),
        ("sas", SaRecord * SAS_LISTED),
    )


class SaReserve(ctypes.Structure):
    """`struct gw_control_sa_reserve`."""

    _fields_ = (("header", Header), ("cookie", c_uint64), ("sequence_limit", c_uint64))


class SaMove(ctypes.Structure):
    """`struct gw_control_sa_move`."""

    _fields_ = (
        ("header", Header),
        ("cookie", c_uint64),
        ("destination", c_uint8 * 16),
        ("port", c_uint16),
        ("reserved", c_uint16 * 3),
    )


class SaPathMtu(ctypes.Structure):
    """`struct gw_control_sa_path_mtu`."""

    _fields_ = (
        ("header", Header),
        ("cookie", c_uint64),
        ("path_mtu", c_uint16),
        ("reserved", c_uint16 * 3),
    )


class Tunnel(ctypes.Structure):
    """`struct gw_control_tunnel`."""

    _fields_ = (
        ("header", Header),
        ("tunnel", c_uint32),
        ("count", c_uint32),
        ("cookies", c_uint64 * MAX_TUNNEL_SAS),
    )


class PolicyMessage(ctypes.Structure):
    """`struct gw_control_policy`."""

    _fields_ = (
        ("header", Header),
        ("order", c_uint64),
        ("policy", c_uint32),
        ("tunnel", c_uint32),
        ("device", c_uint32),
        ("action", c_uint8),
        ("acquire", c_uint8),
        ("local_selectors", c_uint16),
        ("remote_selectors", c_uint16),
        ("reserved", c_uint16 * 3),
        ("selectors", Selector * MAX_SELECTORS),
    )


class PolicyName(ctypes.Structure):
    """`struct gw_control_policy_name`."""

    _fields_ = (("header", Header), ("policy", c_uint32), ("reserved", c_uint32))


class RouteMessage(ctypes.Structure):
    """`struct gw_control_route`."""

    _fields_ = (
        ("header", Header),
        ("destination", c_uint8 * 16),
        ("gateway", c_uint8 * 16),
        ("device", c_uint32),
        ("mtu", c_uint32),
        ("family", c_uint8),
        ("prefix_bits", c_uint8),
        ("kind", c_uint8),
        ("reserved", c_uint8 * 5),
    )


class NeighbourMessage(ctypes.Structure):
    """`struct gw_control_neighbour`."""

    _fields_ = (
        ("header", Header),
        ("address", c_uint8 * 16),
        ("device", c_uint32),
        ("family", c_uint8),
        ("mac", c_uint8 * 6),
        ("reserved", c_uint8 * 5),
    )


class WorkerName(ctypes.Structure):
    """`struct gw_control_worker_name`."""

    _fields_ = (("header", Header), ("worker", c_uint16), ("reserved", c_uint16 * 3))


class CountersReply(ctypes.Structure):
    """`struct gw_control_counters`."""

    _fields_ = (
        ("reply", Reply),
        ("rounds", c_uint64),
        ("sealed", c_uint64),
        ("opened", c_uint64),
        ("forwarded", c_uint64),
        ("slow_path", c_uint64),
        ("bypassed", c_uint64),
        ("handed_over", c_uint64),
        ("drops", c_uint64 * len(REASONS)),
    )


class SaEvent(ctypes.Structure):
    """`struct gw_control_event_sa`."""

    _fields_ = (
        ("header", Header),
        ("event", EventRecord),
        ("spi", c_uint32),
        ("reserved", c_uint32),
        ("sequence", c_uint64),
    )


class AcquireEvent(ctypes.Structure):
    """`struct gw_control_event_acquire`."""

    _fields_ = (
        ("header", Header),
        ("policy", c_uint32),
        ("suppressed", c_uint32),
        ("source", c_uint8 * 16),
        ("destination", c_uint8 * 16),
        ("source_port", c_uint16),
        ("destination_port", c_uint16),
        ("family", c_uint8),
        ("protocol", c_uint8),
        ("reserved", c_uint8 * 2),
    )


class BadSpiEvent(ctypes.Structure):
    """`struct gw_control_event_bad_spi`."""

    _fields_ = (
        ("header", Header),
        ("source", c_uint8 * 16),
        ("destination", c_uint8 * 16),
        ("spi", c_uint32),
        ("suppressed", c_uint32),
        ("family", c_uint8),
        ("protocol", c_uint8),
        ("reserved", c_uint8 * 6),
    )


class MethodEvent(ctypes.Structure):
    """`struct gw_control_event_method`."""

    _fields_ = (
        ("header", Header),
        ("device", c_uint32),
        ("queue", c_uint16),
        ("old_method", c_uint8),
        ("new_method", c_uint8),
        ("sends", c_uint8),
        ("reserved", c_uint8 * 7),
        ("reason", c_char * REASON_BYTES),
    )


RequestMessage = (
    Plain
    | Hello
    | Configure
    | Device
    | DeviceName
    | SaMessage
    | SaName
    | SaReserve
    | SaMove
    | SaPathMtu
    | Tunnel
    | PolicyMessage
    | PolicyName
    | RouteMessage
    | NeighbourMessage
    | WorkerName
)
ReplyMessage = (
    Reply | HelloReply | DeviceReply | DeviceCounters | SaReply | SaStateReply | SaListReply | CountersReply
)
EventMessage = SaEvent | AcquireEvent | BadSpiEvent | MethodEvent

REQUESTS: Final[Mapping[MessageType, type[RequestMessage]]] = MappingProxyType(
    {
        MessageType.HELLO: Hello,
        MessageType.CONFIGURE: Configure,
        MessageType.DEVICE_SET: Device,
        MessageType.DEVICE_REMOVE: DeviceName,
        MessageType.DEVICE_READ: DeviceName,
        MessageType.SA_ADD: SaMessage,
        MessageType.SA_REMOVE: SaName,
        MessageType.SA_READ: SaName,
        MessageType.SA_LIST: SaName,
        MessageType.SA_RESERVE: SaReserve,
        MessageType.SA_MOVE: SaMove,
        MessageType.SA_PATH_MTU: SaPathMtu,
        MessageType.TUNNEL_SET: Tunnel,
        MessageType.POLICY_SET: PolicyMessage,
        MessageType.POLICY_REMOVE: PolicyName,
        MessageType.ROUTE_SET: RouteMessage,
        MessageType.ROUTE_REMOVE: RouteMessage,
        MessageType.NEIGHBOUR_SET: NeighbourMessage,
        MessageType.NEIGHBOUR_REMOVE: NeighbourMessage,
        MessageType.COMMIT: Plain,
        MessageType.CLEAR: Plain,
        MessageType.COUNTERS_READ: WorkerName,
        MessageType.SHUT_DOWN: Plain,
    }
)
"""Which record each request is."""

_REPLIES: Final[Mapping[MessageType, type[ReplyMessage]]] = MappingProxyType(
    {
        MessageType.HELLO: HelloReply,
        MessageType.DEVICE_SET: DeviceReply,
        MessageType.DEVICE_READ: DeviceCounters,
        MessageType.SA_ADD: SaReply,
        MessageType.SA_REMOVE: SaStateReply,
        MessageType.SA_READ: SaStateReply,
        MessageType.SA_LIST: SaListReply,
        MessageType.COUNTERS_READ: CountersReply,
    }
)
_EVENTS: Final[Mapping[MessageType, type[EventMessage]]] = MappingProxyType(
    {
        MessageType.EVENT_SA: SaEvent,
        MessageType.EVENT_ACQUIRE: AcquireEvent,
        MessageType.EVENT_BAD_SPI: BadSpiEvent,
        MessageType.EVENT_METHOD: MethodEvent,
    }
)
MAX_BYTES: Final = ctypes.sizeof(SaListReply)
"""Of the longest message."""


# --- both directions ------------------------------------------------------------------------------


class Received(NamedTuple):
    """One message of espd."""

    kind: MessageType
    number: int
    """Of the request that it answers; 0: it is an event."""
    body: ReplyMessage | EventMessage


def reply_of(kind: MessageType) -> type[ReplyMessage]:
    """Return the record of the reply to a request."""
    return _REPLIES.get(kind, Reply)


def stamp(message: RequestMessage, kind: MessageType, number: int) -> None:
    """Write the header of a request."""
    assert type(message) is REQUESTS[kind]
    message.header.version = VERSION
    message.header.type = kind
    message.header.bytes = ctypes.sizeof(message)
    message.header.request = number


def wipe(message: RequestMessage) -> None:
    """Overwrite a message that was sent: it may hold keys."""
    ctypes.memset(ctypes.byref(message), 0, ctypes.sizeof(message))


def parse(data: bytes) -> Received:
    """Return what espd said.

    A reply that refuses may be a bare `Reply`, whatever the request was.

    Raises:
        ProtocolError: It is no message of this version.
    """
    if len(data) < ctypes.sizeof(Header):
        raise ProtocolError(f"espd sent {len(data)} bytes, a header has {ctypes.sizeof(Header)}")
    header = Header.from_buffer_copy(data)
    if header.version != VERSION:
        raise ProtocolError(f"espd speaks version {header.version} of the control protocol, not {VERSION}")
    if header.bytes != len(data):
        raise ProtocolError(f"espd sent {len(data)} bytes and says that they are {header.bytes}")
    is_reply = bool(header.type & REPLY)
    try:
        kind = MessageType(header.type & ~REPLY)
    except ValueError:
        raise ProtocolError(f"espd sent a message of unknown type {header.type:#06x}") from None
    if is_reply is (kind in _EVENTS) or is_reply is not bool(header.request):
        raise ProtocolError(f"espd sent {kind.name} as what it cannot be, with number {header.request}")
    record: type[ReplyMessage] | type[EventMessage] = reply_of(kind) if is_reply else _EVENTS[kind]
    if is_reply and len(data) == ctypes.sizeof(Reply) and Reply.from_buffer_copy(data).error:
        record = Reply
    if len(data) != ctypes.sizeof(record):
        raise ProtocolError(f"espd's {kind.name} has {len(data)} bytes, not {ctypes.sizeof(record)}")
    return Received(kind, header.request, record.from_buffer_copy(data))


class EspdRefused(EngineError):
    """espd did not do what it was asked for.

    Attributes:
        code: Why; `None`: a number that this version does not know.
    """

    def __init__(self, kind: MessageType, code: Refusal | ControlError | None, text: str) -> None:
        name = "for a reason without a name" if code is None else code.name.lower()
        super().__init__(f"espd refused {kind.name}: {name}" + (f": {text}" if text else ""))
        self.code = code


def check(kind: MessageType, body: ReplyMessage) -> None:
    """Check that a reply says that all went well.

    Raises:
        EspdRefused: It does not.
    """
    reply = body if isinstance(body, Reply) else body.reply
    if not reply.error:
        return
    code: Refusal | ControlError | None = None
    for numbers in (Refusal, ControlError):
        if reply.error in {int(number) for number in numbers}:
            code = numbers(reply.error)
    raise EspdRefused(kind, code, reply.reason.decode(errors="replace"))


def words_of(reply: Reply) -> str:
    """Return what a reply explains in words, also one that says yes."""
    text: bytes = reply.reason
    return text.decode(errors="replace")
