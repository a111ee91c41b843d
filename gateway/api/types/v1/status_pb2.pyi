from gateway.api.types.v1 import ipsec_pb2 as _ipsec_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_SPI_IN_USE: _ClassVar[ErrorReason]
    ERROR_REASON_SPI_NOT_RESERVED: _ClassVar[ErrorReason]
    ERROR_REASON_ALGORITHM_UNSUPPORTED: _ClassVar[ErrorReason]
    ERROR_REASON_MODE_UNSUPPORTED: _ClassVar[ErrorReason]
    ERROR_REASON_WINDOW_UNSUPPORTED: _ClassVar[ErrorReason]
    ERROR_REASON_KEY_LENGTH: _ClassVar[ErrorReason]
    ERROR_REASON_ADDRESS_FAMILY: _ClassVar[ErrorReason]
    ERROR_REASON_TABLE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_POLICY_CONFLICT: _ClassVar[ErrorReason]
    ERROR_REASON_PLACEMENT_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_STALE_GENERATION: _ClassVar[ErrorReason]
    ERROR_REASON_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_SYSTEM: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_ARGUMENT: _ClassVar[ErrorReason]
    ERROR_REASON_CONNECTION_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_CHILD_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_IKE_SA_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_CHILD_SA_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_OPERATION_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_REQUEST_ID_REUSED: _ClassVar[ErrorReason]
    ERROR_REASON_NO_REMOTE_ADDRESS: _ClassVar[ErrorReason]
    ERROR_REASON_NO_PSK: _ClassVar[ErrorReason]
    ERROR_REASON_NO_CREDENTIAL: _ClassVar[ErrorReason]
    ERROR_REASON_CONFLICT: _ClassVar[ErrorReason]
    ERROR_REASON_DATAPATH_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_DATAPATH_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_HISTORY_LOST: _ClassVar[ErrorReason]
    ERROR_REASON_SLOW_WATCHER: _ClassVar[ErrorReason]
    ERROR_REASON_SHUTTING_DOWN: _ClassVar[ErrorReason]
    ERROR_REASON_ROLE_REQUIRED: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_MANY_CALLS: _ClassVar[ErrorReason]
    ERROR_REASON_ETAG_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_STATE_NOT_KEPT: _ClassVar[ErrorReason]
    ERROR_REASON_GENERATOR_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_OWNER: _ClassVar[ErrorReason]
    ERROR_REASON_KEY_EXPORT_OFF: _ClassVar[ErrorReason]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_MALFORMED: _ClassVar[DropReason]
    DROP_REASON_UNSUPPORTED: _ClassVar[DropReason]
    DROP_REASON_UNKNOWN_SPI: _ClassVar[DropReason]
    DROP_REASON_REPLAY: _ClassVar[DropReason]
    DROP_REASON_REPLAY_WINDOW: _ClassVar[DropReason]
    DROP_REASON_INTEGRITY: _ClassVar[DropReason]
    DROP_REASON_PADDING: _ClassVar[DropReason]
    DROP_REASON_SELECTOR_MISMATCH: _ClassVar[DropReason]
    DROP_REASON_MODE_MISMATCH: _ClassVar[DropReason]
    DROP_REASON_DUMMY: _ClassVar[DropReason]
    DROP_REASON_SEQUENCE_OVERFLOW: _ClassVar[DropReason]
    DROP_REASON_SA_EXPIRED: _ClassVar[DropReason]
    DROP_REASON_ECN_ILLEGAL: _ClassVar[DropReason]
    DROP_REASON_TOO_BIG: _ClassVar[DropReason]
    DROP_REASON_TTL_EXPIRED: _ClassVar[DropReason]
    DROP_REASON_FRAGMENT: _ClassVar[DropReason]
    DROP_REASON_POLICY_DISCARD: _ClassVar[DropReason]
    DROP_REASON_NO_POLICY: _ClassVar[DropReason]
    DROP_REASON_CLEAR_INBOUND: _ClassVar[DropReason]
    DROP_REASON_NO_SA: _ClassVar[DropReason]
    DROP_REASON_SEND_FAILED: _ClassVar[DropReason]
    DROP_REASON_IKE_MALFORMED: _ClassVar[DropReason]
    DROP_REASON_IKE_VERSION: _ClassVar[DropReason]
    DROP_REASON_IKE_UNKNOWN_SPI: _ClassVar[DropReason]
    DROP_REASON_IKE_INTEGRITY: _ClassVar[DropReason]
    DROP_REASON_IKE_MESSAGE_ID: _ClassVar[DropReason]
    DROP_REASON_IKE_UNEXPECTED: _ClassVar[DropReason]
    DROP_REASON_IKE_UNKNOWN_PEER: _ClassVar[DropReason]
    DROP_REASON_IKE_HALF_OPEN_LIMIT: _ClassVar[DropReason]
    DROP_REASON_IKE_COOKIE: _ClassVar[DropReason]
    DROP_REASON_NO_ENGINE: _ClassVar[DropReason]
    DROP_REASON_IKE_RATE_LIMIT: _ClassVar[DropReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_SPI_IN_USE: ErrorReason
ERROR_REASON_SPI_NOT_RESERVED: ErrorReason
ERROR_REASON_ALGORITHM_UNSUPPORTED: ErrorReason
ERROR_REASON_MODE_UNSUPPORTED: ErrorReason
ERROR_REASON_WINDOW_UNSUPPORTED: ErrorReason
ERROR_REASON_KEY_LENGTH: ErrorReason
ERROR_REASON_ADDRESS_FAMILY: ErrorReason
ERROR_REASON_TABLE_FULL: ErrorReason
ERROR_REASON_POLICY_CONFLICT: ErrorReason
ERROR_REASON_PLACEMENT_UNAVAILABLE: ErrorReason
ERROR_REASON_NOT_FOUND: ErrorReason
ERROR_REASON_STALE_GENERATION: ErrorReason
ERROR_REASON_UNAVAILABLE: ErrorReason
ERROR_REASON_SYSTEM: ErrorReason
ERROR_REASON_INVALID_ARGUMENT: ErrorReason
ERROR_REASON_CONNECTION_NOT_FOUND: ErrorReason
ERROR_REASON_CHILD_NOT_FOUND: ErrorReason
ERROR_REASON_IKE_SA_NOT_FOUND: ErrorReason
ERROR_REASON_CHILD_SA_NOT_FOUND: ErrorReason
ERROR_REASON_OPERATION_NOT_FOUND: ErrorReason
ERROR_REASON_REQUEST_ID_REUSED: ErrorReason
ERROR_REASON_NO_REMOTE_ADDRESS: ErrorReason
ERROR_REASON_NO_PSK: ErrorReason
ERROR_REASON_NO_CREDENTIAL: ErrorReason
ERROR_REASON_CONFLICT: ErrorReason
ERROR_REASON_DATAPATH_REFUSED: ErrorReason
ERROR_REASON_DATAPATH_UNAVAILABLE: ErrorReason
ERROR_REASON_HISTORY_LOST: ErrorReason
ERROR_REASON_SLOW_WATCHER: ErrorReason
ERROR_REASON_SHUTTING_DOWN: ErrorReason
ERROR_REASON_ROLE_REQUIRED: ErrorReason
ERROR_REASON_TOO_MANY_CALLS: ErrorReason
ERROR_REASON_ETAG_MISMATCH: ErrorReason
ERROR_REASON_STATE_NOT_KEPT: ErrorReason
ERROR_REASON_GENERATOR_REFUSED: ErrorReason
ERROR_REASON_NOT_OWNER: ErrorReason
ERROR_REASON_KEY_EXPORT_OFF: ErrorReason
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_MALFORMED: DropReason
DROP_REASON_UNSUPPORTED: DropReason
DROP_REASON_UNKNOWN_SPI: DropReason
DROP_REASON_REPLAY: DropReason
DROP_REASON_REPLAY_WINDOW: DropReason
DROP_REASON_INTEGRITY: DropReason
DROP_REASON_PADDING: DropReason
DROP_REASON_SELECTOR_MISMATCH: DropReason
DROP_REASON_MODE_MISMATCH: DropReason
DROP_REASON_DUMMY: DropReason
DROP_REASON_SEQUENCE_OVERFLOW: DropReason
DROP_REASON_SA_EXPIRED: DropReason
DROP_REASON_ECN_ILLEGAL: DropReason
DROP_REASON_TOO_BIG: DropReason
DROP_REASON_TTL_EXPIRED: DropReason
DROP_REASON_FRAGMENT: DropReason
DROP_REASON_POLICY_DISCARD: DropReason
DROP_REASON_NO_POLICY: DropReason
DROP_REASON_CLEAR_INBOUND: DropReason
DROP_REASON_NO_SA: DropReason
DROP_REASON_SEND_FAILED: DropReason
DROP_REASON_IKE_MALFORMED: DropReason
DROP_REASON_IKE_VERSION: DropReason
DROP_REASON_IKE_UNKNOWN_SPI: DropReason
DROP_REASON_IKE_INTEGRITY: DropReason
DROP_REASON_IKE_MESSAGE_ID: DropReason
DROP_REASON_IKE_UNEXPECTED: DropReason
DROP_REASON_IKE_UNKNOWN_PEER: DropReason
DROP_REASON_IKE_HALF_OPEN_LIMIT: DropReason
DROP_REASON_IKE_COOKIE: DropReason
DROP_REASON_NO_ENGINE: DropReason
DROP_REASON_IKE_RATE_LIMIT: DropReason

class ItemError(_message.Message):
    __slots__ = ("reason", "message", "refusals")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    reason: ErrorReason
    message: str
    refusals: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.PlacementRefusal]
    def __init__(self, reason: _Optional[_Union[ErrorReason, str]] = ..., message: _Optional[str] = ..., refusals: _Optional[_Iterable[_Union[_ipsec_pb2.PlacementRefusal, _Mapping]]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("name", "error", "placement", "placement_reason", "refusals")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    name: str
    error: ItemError
    placement: _ipsec_pb2.Engine
    placement_reason: str
    refusals: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.PlacementRefusal]
    def __init__(self, name: _Optional[str] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., placement: _Optional[_Union[_ipsec_pb2.Engine, str]] = ..., placement_reason: _Optional[str] = ..., refusals: _Optional[_Iterable[_Union[_ipsec_pb2.PlacementRefusal, _Mapping]]] = ...) -> None: ...

class DropCount(_message.Message):
    __slots__ = ("reason", "packets")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    reason: DropReason
    packets: int
    def __init__(self, reason: _Optional[_Union[DropReason, str]] = ..., packets: _Optional[int] = ...) -> None: ...
