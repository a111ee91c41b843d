import datetime

from gateway.api.control.v1 import connection_pb2 as _connection_pb2
from gateway.api.datapath.v1 import datapath_pb2 as _datapath_pb2
from gateway.api.types.v1 import ipsec_pb2 as _ipsec_pb2
from gateway.api.types.v1 import status_pb2 as _status_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Applied(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPLIED_UNSPECIFIED: _ClassVar[Applied]
    APPLIED_CREATED: _ClassVar[Applied]
    APPLIED_UPDATED: _ClassVar[Applied]
    APPLIED_UNCHANGED: _ClassVar[Applied]
    APPLIED_DELETED: _ClassVar[Applied]
    APPLIED_REFUSED: _ClassVar[Applied]

class ConnectionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONNECTION_STATE_UNSPECIFIED: _ClassVar[ConnectionState]
    CONNECTION_STATE_DOWN: _ClassVar[ConnectionState]
    CONNECTION_STATE_CONNECTING: _ClassVar[ConnectionState]
    CONNECTION_STATE_UP: _ClassVar[ConnectionState]
    CONNECTION_STATE_FAILED: _ClassVar[ConnectionState]

class ConditionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_TYPE_UNSPECIFIED: _ClassVar[ConditionType]
    CONDITION_TYPE_PROTECTED: _ClassVar[ConditionType]
    CONDITION_TYPE_ESTABLISHED: _ClassVar[ConditionType]
    CONDITION_TYPE_CARRYING: _ClassVar[ConditionType]

class ConditionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_STATUS_UNSPECIFIED: _ClassVar[ConditionStatus]
    CONDITION_STATUS_TRUE: _ClassVar[ConditionStatus]
    CONDITION_STATUS_FALSE: _ClassVar[ConditionStatus]
    CONDITION_STATUS_UNKNOWN: _ClassVar[ConditionStatus]

class OperationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_STATE_UNSPECIFIED: _ClassVar[OperationState]
    OPERATION_STATE_RUNNING: _ClassVar[OperationState]
    OPERATION_STATE_SUCCEEDED: _ClassVar[OperationState]
    OPERATION_STATE_FAILED: _ClassVar[OperationState]
APPLIED_UNSPECIFIED: Applied
APPLIED_CREATED: Applied
APPLIED_UPDATED: Applied
APPLIED_UNCHANGED: Applied
APPLIED_DELETED: Applied
APPLIED_REFUSED: Applied
CONNECTION_STATE_UNSPECIFIED: ConnectionState
CONNECTION_STATE_DOWN: ConnectionState
CONNECTION_STATE_CONNECTING: ConnectionState
CONNECTION_STATE_UP: ConnectionState
CONNECTION_STATE_FAILED: ConnectionState
CONDITION_TYPE_UNSPECIFIED: ConditionType
CONDITION_TYPE_PROTECTED: ConditionType
CONDITION_TYPE_ESTABLISHED: ConditionType
CONDITION_TYPE_CARRYING: ConditionType
CONDITION_STATUS_UNSPECIFIED: ConditionStatus
CONDITION_STATUS_TRUE: ConditionStatus
CONDITION_STATUS_FALSE: ConditionStatus
CONDITION_STATUS_UNKNOWN: ConditionStatus
OPERATION_STATE_UNSPECIFIED: OperationState
OPERATION_STATE_RUNNING: OperationState
OPERATION_STATE_SUCCEEDED: OperationState
OPERATION_STATE_FAILED: OperationState

class ApplyConnectionsRequest(_message.Message):
    __slots__ = ("connections", "validate_only", "prune", "generation", "etags")
    class EtagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ETAGS_FIELD_NUMBER: _ClassVar[int]
    connections: _containers.RepeatedCompositeFieldContainer[_connection_pb2.Connection]
    validate_only: bool
    prune: bool
    generation: int
    etags: _containers.ScalarMap[str, str]
    def __init__(self, connections: _Optional[_Iterable[_Union[_connection_pb2.Connection, _Mapping]]] = ..., validate_only: _Optional[bool] = ..., prune: _Optional[bool] = ..., generation: _Optional[int] = ..., etags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Impact(_message.Message):
    __slots__ = ("ike_sa_rekeys", "child_sa_rekeys", "ike_sa_restarts", "child_sa_restarts", "ike_sa_ends", "child_sa_ends")
    IKE_SA_REKEYS_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_REKEYS_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_ENDS_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_ENDS_FIELD_NUMBER: _ClassVar[int]
    ike_sa_rekeys: int
    child_sa_rekeys: int
    ike_sa_restarts: int
    child_sa_restarts: int
    ike_sa_ends: int
    child_sa_ends: int
    def __init__(self, ike_sa_rekeys: _Optional[int] = ..., child_sa_rekeys: _Optional[int] = ..., ike_sa_restarts: _Optional[int] = ..., child_sa_restarts: _Optional[int] = ..., ike_sa_ends: _Optional[int] = ..., child_sa_ends: _Optional[int] = ...) -> None: ...

class ConnectionResult(_message.Message):
    __slots__ = ("name", "applied", "error", "warnings", "changed_fields", "impact", "etag", "generation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    applied: Applied
    error: _status_pb2.ItemError
    warnings: _containers.RepeatedScalarFieldContainer[str]
    changed_fields: _containers.RepeatedScalarFieldContainer[str]
    impact: Impact
    etag: str
    generation: int
    def __init__(self, name: _Optional[str] = ..., applied: _Optional[_Union[Applied, str]] = ..., error: _Optional[_Union[_status_pb2.ItemError, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., changed_fields: _Optional[_Iterable[str]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ..., etag: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ApplyConnectionsResponse(_message.Message):
    __slots__ = ("results", "impact")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ConnectionResult]
    impact: Impact
    def __init__(self, results: _Optional[_Iterable[_Union[ConnectionResult, _Mapping]]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ...) -> None: ...

class StreamConnectionsRequest(_message.Message):
    __slots__ = ("connections", "validate_only", "prune", "generation", "etags")
    class EtagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ETAGS_FIELD_NUMBER: _ClassVar[int]
    connections: _containers.RepeatedCompositeFieldContainer[_connection_pb2.Connection]
    validate_only: bool
    prune: bool
    generation: int
    etags: _containers.ScalarMap[str, str]
    def __init__(self, connections: _Optional[_Iterable[_Union[_connection_pb2.Connection, _Mapping]]] = ..., validate_only: _Optional[bool] = ..., prune: _Optional[bool] = ..., generation: _Optional[int] = ..., etags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StreamConnectionsResponse(_message.Message):
    __slots__ = ("results", "impact")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ConnectionResult]
    impact: Impact
    def __init__(self, results: _Optional[_Iterable[_Union[ConnectionResult, _Mapping]]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("reason", "detail", "notify", "offered", "configured")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_FIELD_NUMBER: _ClassVar[int]
    OFFERED_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    reason: str
    detail: str
    notify: str
    offered: str
    configured: str
    def __init__(self, reason: _Optional[str] = ..., detail: _Optional[str] = ..., notify: _Optional[str] = ..., offered: _Optional[str] = ..., configured: _Optional[str] = ...) -> None: ...

class ConnectionStatus(_message.Message):
    __slots__ = ("state", "ike_sa_ids", "child_sa_ids", "last_failure", "last_failure_time", "observed_generation", "conditions")
    STATE_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_IDS_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_IDS_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_TIME_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    state: ConnectionState
    ike_sa_ids: _containers.RepeatedScalarFieldContainer[int]
    child_sa_ids: _containers.RepeatedScalarFieldContainer[int]
    last_failure: Failure
    last_failure_time: _timestamp_pb2.Timestamp
    observed_generation: int
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, state: _Optional[_Union[ConnectionState, str]] = ..., ike_sa_ids: _Optional[_Iterable[int]] = ..., child_sa_ids: _Optional[_Iterable[int]] = ..., last_failure: _Optional[_Union[Failure, _Mapping]] = ..., last_failure_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., observed_generation: _Optional[int] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("type", "status", "reason", "message", "transition_time")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRANSITION_TIME_FIELD_NUMBER: _ClassVar[int]
    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str
    transition_time: _timestamp_pb2.Timestamp
    def __init__(self, type: _Optional[_Union[ConditionType, str]] = ..., status: _Optional[_Union[ConditionStatus, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., transition_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ConnectionEntry(_message.Message):
    __slots__ = ("connection", "status", "etag", "generation")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    connection: _connection_pb2.Connection
    status: ConnectionStatus
    etag: str
    generation: int
    def __init__(self, connection: _Optional[_Union[_connection_pb2.Connection, _Mapping]] = ..., status: _Optional[_Union[ConnectionStatus, _Mapping]] = ..., etag: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ListConnectionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter", "read_mask")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListConnectionsResponse(_message.Message):
    __slots__ = ("connections", "next_page_token", "revision")
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    connections: _containers.RepeatedCompositeFieldContainer[ConnectionEntry]
    next_page_token: str
    revision: str
    def __init__(self, connections: _Optional[_Iterable[_Union[ConnectionEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class GetConnectionRequest(_message.Message):
    __slots__ = ("name", "read_mask")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, name: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class GetConnectionResponse(_message.Message):
    __slots__ = ("connection",)
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    connection: ConnectionEntry
    def __init__(self, connection: _Optional[_Union[ConnectionEntry, _Mapping]] = ...) -> None: ...

class DeleteConnectionsRequest(_message.Message):
    __slots__ = ("names", "validate_only", "generation", "etags")
    class EtagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ETAGS_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    validate_only: bool
    generation: int
    etags: _containers.ScalarMap[str, str]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., validate_only: _Optional[bool] = ..., generation: _Optional[int] = ..., etags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DeleteConnectionsResponse(_message.Message):
    __slots__ = ("results", "impact")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ConnectionResult]
    impact: Impact
    def __init__(self, results: _Optional[_Iterable[_Union[ConnectionResult, _Mapping]]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("connection", "child", "ike_sa_id", "child_sa_id")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_ID_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_ID_FIELD_NUMBER: _ClassVar[int]
    connection: str
    child: str
    ike_sa_id: int
    child_sa_id: int
    def __init__(self, connection: _Optional[str] = ..., child: _Optional[str] = ..., ike_sa_id: _Optional[int] = ..., child_sa_id: _Optional[int] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("operation_id", "verb", "target", "state", "failure")
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    verb: str
    target: Target
    state: OperationState
    failure: Failure
    def __init__(self, operation_id: _Optional[str] = ..., verb: _Optional[str] = ..., target: _Optional[_Union[Target, _Mapping]] = ..., state: _Optional[_Union[OperationState, str]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class InitiateRequest(_message.Message):
    __slots__ = ("target", "request_id")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    target: Target
    request_id: str
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class InitiateResponse(_message.Message):
    __slots__ = ("operation",)
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    def __init__(self, operation: _Optional[_Union[Operation, _Mapping]] = ...) -> None: ...

class TerminateRequest(_message.Message):
    __slots__ = ("target", "request_id")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    target: Target
    request_id: str
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class TerminateResponse(_message.Message):
    __slots__ = ("operation",)
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    def __init__(self, operation: _Optional[_Union[Operation, _Mapping]] = ...) -> None: ...

class RekeyRequest(_message.Message):
    __slots__ = ("target", "request_id", "reauthenticate")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REAUTHENTICATE_FIELD_NUMBER: _ClassVar[int]
    target: Target
    request_id: str
    reauthenticate: bool
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., request_id: _Optional[str] = ..., reauthenticate: _Optional[bool] = ...) -> None: ...

class RekeyResponse(_message.Message):
    __slots__ = ("operation",)
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    def __init__(self, operation: _Optional[_Union[Operation, _Mapping]] = ...) -> None: ...

class GetOperationRequest(_message.Message):
    __slots__ = ("operation_id", "wait")
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    wait: _duration_pb2.Duration
    def __init__(self, operation_id: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetOperationResponse(_message.Message):
    __slots__ = ("operation",)
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    def __init__(self, operation: _Optional[_Union[Operation, _Mapping]] = ...) -> None: ...

class IkeSa(_message.Message):
    __slots__ = ("ike_sa_id", "connection", "spi_i", "spi_r", "is_initiator", "state", "local", "remote", "local_id", "remote_id", "proposal", "nat_local", "nat_remote", "established_time", "rekey_time", "expire_time", "node", "owner", "generation")
    IKE_SA_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    SPI_I_FIELD_NUMBER: _ClassVar[int]
    SPI_R_FIELD_NUMBER: _ClassVar[int]
    IS_INITIATOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ID_FIELD_NUMBER: _ClassVar[int]
    REMOTE_ID_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NAT_LOCAL_FIELD_NUMBER: _ClassVar[int]
    NAT_REMOTE_FIELD_NUMBER: _ClassVar[int]
    ESTABLISHED_TIME_FIELD_NUMBER: _ClassVar[int]
    REKEY_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ike_sa_id: int
    connection: str
    spi_i: str
    spi_r: str
    is_initiator: bool
    state: str
    local: _datapath_pb2.Endpoint
    remote: _datapath_pb2.Endpoint
    local_id: str
    remote_id: str
    proposal: str
    nat_local: bool
    nat_remote: bool
    established_time: _timestamp_pb2.Timestamp
    rekey_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    node: str
    owner: str
    generation: int
    def __init__(self, ike_sa_id: _Optional[int] = ..., connection: _Optional[str] = ..., spi_i: _Optional[str] = ..., spi_r: _Optional[str] = ..., is_initiator: _Optional[bool] = ..., state: _Optional[str] = ..., local: _Optional[_Union[_datapath_pb2.Endpoint, _Mapping]] = ..., remote: _Optional[_Union[_datapath_pb2.Endpoint, _Mapping]] = ..., local_id: _Optional[str] = ..., remote_id: _Optional[str] = ..., proposal: _Optional[str] = ..., nat_local: _Optional[bool] = ..., nat_remote: _Optional[bool] = ..., established_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rekey_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., node: _Optional[str] = ..., owner: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ListIkeSasRequest(_message.Message):
    __slots__ = ("connection", "page_size", "page_token", "filter", "read_mask")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    connection: str
    page_size: int
    page_token: str
    filter: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, connection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListIkeSasResponse(_message.Message):
    __slots__ = ("ike_sas", "next_page_token")
    IKE_SAS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ike_sas: _containers.RepeatedCompositeFieldContainer[IkeSa]
    next_page_token: str
    def __init__(self, ike_sas: _Optional[_Iterable[_Union[IkeSa, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ChildSaHalf(_message.Message):
    __slots__ = ("sa_id", "spi", "packets", "bytes", "placement", "placement_reason", "requested", "refusals")
    SA_ID_FIELD_NUMBER: _ClassVar[int]
    SPI_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_REASON_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    sa_id: str
    spi: str
    packets: int
    bytes: int
    placement: _ipsec_pb2.Engine
    placement_reason: str
    requested: _ipsec_pb2.Placement
    refusals: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.PlacementRefusal]
    def __init__(self, sa_id: _Optional[str] = ..., spi: _Optional[str] = ..., packets: _Optional[int] = ..., bytes: _Optional[int] = ..., placement: _Optional[_Union[_ipsec_pb2.Engine, str]] = ..., placement_reason: _Optional[str] = ..., requested: _Optional[_Union[_ipsec_pb2.Placement, _Mapping]] = ..., refusals: _Optional[_Iterable[_Union[_ipsec_pb2.PlacementRefusal, _Mapping]]] = ...) -> None: ...

class ChildSa(_message.Message):
    __slots__ = ("child_sa_id", "ike_sa_id", "connection", "child", "state", "mode", "proposal", "local_ts", "remote_ts", "udp_encapsulation", "inbound", "outbound", "effective_mtu", "established_time", "rekey_time", "expire_time", "protocol", "node", "owner", "generation", "interface_id", "cpu")
    CHILD_SA_ID_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    LOCAL_TS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TS_FIELD_NUMBER: _ClassVar[int]
    UDP_ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    INBOUND_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_MTU_FIELD_NUMBER: _ClassVar[int]
    ESTABLISHED_TIME_FIELD_NUMBER: _ClassVar[int]
    REKEY_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_ID_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    child_sa_id: int
    ike_sa_id: int
    connection: str
    child: str
    state: str
    mode: _ipsec_pb2.Mode
    proposal: str
    local_ts: _containers.RepeatedScalarFieldContainer[str]
    remote_ts: _containers.RepeatedScalarFieldContainer[str]
    udp_encapsulation: bool
    inbound: ChildSaHalf
    outbound: ChildSaHalf
    effective_mtu: int
    established_time: _timestamp_pb2.Timestamp
    rekey_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    protocol: _ipsec_pb2.IpsecProtocol
    node: str
    owner: str
    generation: int
    interface_id: int
    cpu: int
    def __init__(self, child_sa_id: _Optional[int] = ..., ike_sa_id: _Optional[int] = ..., connection: _Optional[str] = ..., child: _Optional[str] = ..., state: _Optional[str] = ..., mode: _Optional[_Union[_ipsec_pb2.Mode, str]] = ..., proposal: _Optional[str] = ..., local_ts: _Optional[_Iterable[str]] = ..., remote_ts: _Optional[_Iterable[str]] = ..., udp_encapsulation: _Optional[bool] = ..., inbound: _Optional[_Union[ChildSaHalf, _Mapping]] = ..., outbound: _Optional[_Union[ChildSaHalf, _Mapping]] = ..., effective_mtu: _Optional[int] = ..., established_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rekey_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., protocol: _Optional[_Union[_ipsec_pb2.IpsecProtocol, str]] = ..., node: _Optional[str] = ..., owner: _Optional[str] = ..., generation: _Optional[int] = ..., interface_id: _Optional[int] = ..., cpu: _Optional[int] = ...) -> None: ...

class ListChildSasRequest(_message.Message):
    __slots__ = ("connection", "page_size", "page_token", "filter", "read_mask")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    connection: str
    page_size: int
    page_token: str
    filter: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, connection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListChildSasResponse(_message.Message):
    __slots__ = ("child_sas", "next_page_token")
    CHILD_SAS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    child_sas: _containers.RepeatedCompositeFieldContainer[ChildSa]
    next_page_token: str
    def __init__(self, child_sas: _Optional[_Iterable[_Union[ChildSa, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "start_time", "datapath_address", "datapath", "datapath_problem", "connections", "ike_sas", "half_open_ike_sas", "child_sas", "ike_drops", "warnings", "datapath_drops", "node", "desired_state", "generation")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    IKE_SAS_FIELD_NUMBER: _ClassVar[int]
    HALF_OPEN_IKE_SAS_FIELD_NUMBER: _ClassVar[int]
    CHILD_SAS_FIELD_NUMBER: _ClassVar[int]
    IKE_DROPS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_DROPS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    version: str
    start_time: _timestamp_pb2.Timestamp
    datapath_address: str
    datapath: _datapath_pb2.Capabilities
    datapath_problem: str
    connections: int
    ike_sas: int
    half_open_ike_sas: int
    child_sas: int
    ike_drops: _containers.RepeatedCompositeFieldContainer[_status_pb2.DropCount]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    datapath_drops: _containers.RepeatedCompositeFieldContainer[_status_pb2.DropCount]
    node: str
    desired_state: str
    generation: int
    def __init__(self, version: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., datapath_address: _Optional[str] = ..., datapath: _Optional[_Union[_datapath_pb2.Capabilities, _Mapping]] = ..., datapath_problem: _Optional[str] = ..., connections: _Optional[int] = ..., ike_sas: _Optional[int] = ..., half_open_ike_sas: _Optional[int] = ..., child_sas: _Optional[int] = ..., ike_drops: _Optional[_Iterable[_Union[_status_pb2.DropCount, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., datapath_drops: _Optional[_Iterable[_Union[_status_pb2.DropCount, _Mapping]]] = ..., node: _Optional[str] = ..., desired_state: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("connection",)
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    connection: str
    def __init__(self, connection: _Optional[str] = ...) -> None: ...

class Fact(_message.Message):
    __slots__ = ("topic", "text", "advice")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    text: str
    advice: str
    def __init__(self, topic: _Optional[str] = ..., text: _Optional[str] = ..., advice: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("facts",)
    FACTS_FIELD_NUMBER: _ClassVar[int]
    facts: _containers.RepeatedCompositeFieldContainer[Fact]
    def __init__(self, facts: _Optional[_Iterable[_Union[Fact, _Mapping]]] = ...) -> None: ...

class ExportKeysRequest(_message.Message):
    __slots__ = ("connection",)
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    connection: str
    def __init__(self, connection: _Optional[str] = ...) -> None: ...

class ExportKeysResponse(_message.Message):
    __slots__ = ("ikev2_decryption_table", "esp_sa", "left_out")
    IKEV2_DECRYPTION_TABLE_FIELD_NUMBER: _ClassVar[int]
    ESP_SA_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    ikev2_decryption_table: _containers.RepeatedScalarFieldContainer[str]
    esp_sa: _containers.RepeatedScalarFieldContainer[str]
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ikev2_decryption_table: _Optional[_Iterable[str]] = ..., esp_sa: _Optional[_Iterable[str]] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("after_sequence",)
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    def __init__(self, after_sequence: _Optional[int] = ...) -> None: ...

class WatchConnectionsRequest(_message.Message):
    __slots__ = ("revision", "filter", "read_mask")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    revision: str
    filter: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, revision: _Optional[str] = ..., filter: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ConnectionChange(_message.Message):
    __slots__ = ("upserted", "removed")
    UPSERTED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    upserted: ConnectionEntry
    removed: str
    def __init__(self, upserted: _Optional[_Union[ConnectionEntry, _Mapping]] = ..., removed: _Optional[str] = ...) -> None: ...

class WatchConnectionsResponse(_message.Message):
    __slots__ = ("revision", "changes", "resync", "synced")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RESYNC_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    revision: str
    changes: _containers.RepeatedCompositeFieldContainer[ConnectionChange]
    resync: bool
    synced: bool
    def __init__(self, revision: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[ConnectionChange, _Mapping]]] = ..., resync: _Optional[bool] = ..., synced: _Optional[bool] = ...) -> None: ...

class IkeSaEstablished(_message.Message):
    __slots__ = ("ike_sa",)
    IKE_SA_FIELD_NUMBER: _ClassVar[int]
    ike_sa: IkeSa
    def __init__(self, ike_sa: _Optional[_Union[IkeSa, _Mapping]] = ...) -> None: ...

class IkeSaRekeyed(_message.Message):
    __slots__ = ("old", "new")
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    old: IkeSa
    new: IkeSa
    def __init__(self, old: _Optional[_Union[IkeSa, _Mapping]] = ..., new: _Optional[_Union[IkeSa, _Mapping]] = ...) -> None: ...

class IkeSaFailed(_message.Message):
    __slots__ = ("ike_sa", "failure")
    IKE_SA_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ike_sa: IkeSa
    failure: Failure
    def __init__(self, ike_sa: _Optional[_Union[IkeSa, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class IkeSaDeleted(_message.Message):
    __slots__ = ("ike_sa", "failure")
    IKE_SA_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ike_sa: IkeSa
    failure: Failure
    def __init__(self, ike_sa: _Optional[_Union[IkeSa, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class ChildSaEstablished(_message.Message):
    __slots__ = ("child_sa",)
    CHILD_SA_FIELD_NUMBER: _ClassVar[int]
    child_sa: ChildSa
    def __init__(self, child_sa: _Optional[_Union[ChildSa, _Mapping]] = ...) -> None: ...

class ChildSaRekeyed(_message.Message):
    __slots__ = ("old", "new")
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    old: ChildSa
    new: ChildSa
    def __init__(self, old: _Optional[_Union[ChildSa, _Mapping]] = ..., new: _Optional[_Union[ChildSa, _Mapping]] = ...) -> None: ...

class ChildSaFailed(_message.Message):
    __slots__ = ("ike_sa_id", "connection", "child", "failure", "replaces")
    IKE_SA_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    ike_sa_id: int
    connection: str
    child: str
    failure: Failure
    replaces: int
    def __init__(self, ike_sa_id: _Optional[int] = ..., connection: _Optional[str] = ..., child: _Optional[str] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., replaces: _Optional[int] = ...) -> None: ...

class ChildSaDeleted(_message.Message):
    __slots__ = ("child_sa", "failure")
    CHILD_SA_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    child_sa: ChildSa
    failure: Failure
    def __init__(self, child_sa: _Optional[_Union[ChildSa, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class PathChanged(_message.Message):
    __slots__ = ("ike_sa", "old", "new")
    IKE_SA_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    ike_sa: IkeSa
    old: _datapath_pb2.Endpoint
    new: _datapath_pb2.Endpoint
    def __init__(self, ike_sa: _Optional[_Union[IkeSa, _Mapping]] = ..., old: _Optional[_Union[_datapath_pb2.Endpoint, _Mapping]] = ..., new: _Optional[_Union[_datapath_pb2.Endpoint, _Mapping]] = ...) -> None: ...

class ConnectionApplied(_message.Message):
    __slots__ = ("connection", "applied")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    connection: str
    applied: Applied
    def __init__(self, connection: _Optional[str] = ..., applied: _Optional[_Union[Applied, str]] = ...) -> None: ...

class OperationFinished(_message.Message):
    __slots__ = ("operation",)
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    def __init__(self, operation: _Optional[_Union[Operation, _Mapping]] = ...) -> None: ...

class DatapathAvailability(_message.Message):
    __slots__ = ("available", "detail")
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    available: bool
    detail: str
    def __init__(self, available: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "time", "ike_sa_established", "ike_sa_rekeyed", "ike_sa_failed", "ike_sa_deleted", "child_sa_established", "child_sa_rekeyed", "child_sa_failed", "child_sa_deleted", "path_changed", "connection_applied", "operation_finished", "datapath_availability", "datapath")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_ESTABLISHED_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_REKEYED_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_FAILED_FIELD_NUMBER: _ClassVar[int]
    IKE_SA_DELETED_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_ESTABLISHED_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_REKEYED_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_FAILED_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_DELETED_FIELD_NUMBER: _ClassVar[int]
    PATH_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_APPLIED_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FINISHED_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    ike_sa_established: IkeSaEstablished
    ike_sa_rekeyed: IkeSaRekeyed
    ike_sa_failed: IkeSaFailed
    ike_sa_deleted: IkeSaDeleted
    child_sa_established: ChildSaEstablished
    child_sa_rekeyed: ChildSaRekeyed
    child_sa_failed: ChildSaFailed
    child_sa_deleted: ChildSaDeleted
    path_changed: PathChanged
    connection_applied: ConnectionApplied
    operation_finished: OperationFinished
    datapath_availability: DatapathAvailability
    datapath: _datapath_pb2.DatapathEvent
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ike_sa_established: _Optional[_Union[IkeSaEstablished, _Mapping]] = ..., ike_sa_rekeyed: _Optional[_Union[IkeSaRekeyed, _Mapping]] = ..., ike_sa_failed: _Optional[_Union[IkeSaFailed, _Mapping]] = ..., ike_sa_deleted: _Optional[_Union[IkeSaDeleted, _Mapping]] = ..., child_sa_established: _Optional[_Union[ChildSaEstablished, _Mapping]] = ..., child_sa_rekeyed: _Optional[_Union[ChildSaRekeyed, _Mapping]] = ..., child_sa_failed: _Optional[_Union[ChildSaFailed, _Mapping]] = ..., child_sa_deleted: _Optional[_Union[ChildSaDeleted, _Mapping]] = ..., path_changed: _Optional[_Union[PathChanged, _Mapping]] = ..., connection_applied: _Optional[_Union[ConnectionApplied, _Mapping]] = ..., operation_finished: _Optional[_Union[OperationFinished, _Mapping]] = ..., datapath_availability: _Optional[_Union[DatapathAvailability, _Mapping]] = ..., datapath: _Optional[_Union[_datapath_pb2.DatapathEvent, _Mapping]] = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...
