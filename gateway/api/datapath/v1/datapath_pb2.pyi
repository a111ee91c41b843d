import datetime

from gateway.api.types.v1 import ipsec_pb2 as _ipsec_pb2
from gateway.api.types.v1 import status_pb2 as _status_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EncryptionCapability(_message.Message):
    __slots__ = ("algorithm", "key_bits")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    algorithm: _ipsec_pb2.EncryptionAlgorithm
    key_bits: int
    def __init__(self, algorithm: _Optional[_Union[_ipsec_pb2.EncryptionAlgorithm, str]] = ..., key_bits: _Optional[int] = ...) -> None: ...

class Capabilities(_message.Message):
    __slots__ = ("name", "engines", "encryption", "integrity", "protocols", "modes", "esn", "udp_encapsulation", "max_replay_window", "counters_survive_restart", "max_sas", "cpus", "io_methods")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_FIELD_NUMBER: _ClassVar[int]
    INTEGRITY_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    ESN_FIELD_NUMBER: _ClassVar[int]
    UDP_ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLAY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_SURVIVE_RESTART_FIELD_NUMBER: _ClassVar[int]
    MAX_SAS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    IO_METHODS_FIELD_NUMBER: _ClassVar[int]
    name: str
    engines: _containers.RepeatedScalarFieldContainer[_ipsec_pb2.Engine]
    encryption: _containers.RepeatedCompositeFieldContainer[EncryptionCapability]
    integrity: _containers.RepeatedScalarFieldContainer[_ipsec_pb2.IntegrityAlgorithm]
    protocols: _containers.RepeatedScalarFieldContainer[_ipsec_pb2.IpsecProtocol]
    modes: _containers.RepeatedScalarFieldContainer[_ipsec_pb2.Mode]
    esn: bool
    udp_encapsulation: bool
    max_replay_window: int
    counters_survive_restart: bool
    max_sas: int
    cpus: int
    io_methods: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., engines: _Optional[_Iterable[_Union[_ipsec_pb2.Engine, str]]] = ..., encryption: _Optional[_Iterable[_Union[EncryptionCapability, _Mapping]]] = ..., integrity: _Optional[_Iterable[_Union[_ipsec_pb2.IntegrityAlgorithm, str]]] = ..., protocols: _Optional[_Iterable[_Union[_ipsec_pb2.IpsecProtocol, str]]] = ..., modes: _Optional[_Iterable[_Union[_ipsec_pb2.Mode, str]]] = ..., esn: _Optional[bool] = ..., udp_encapsulation: _Optional[bool] = ..., max_replay_window: _Optional[int] = ..., counters_survive_restart: _Optional[bool] = ..., max_sas: _Optional[int] = ..., cpus: _Optional[int] = ..., io_methods: _Optional[_Iterable[str]] = ...) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("capabilities",)
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    capabilities: Capabilities
    def __init__(self, capabilities: _Optional[_Union[Capabilities, _Mapping]] = ...) -> None: ...

class AllocateSpisRequest(_message.Message):
    __slots__ = ("count", "destination")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    count: int
    destination: str
    def __init__(self, count: _Optional[int] = ..., destination: _Optional[str] = ...) -> None: ...

class AllocateSpisResponse(_message.Message):
    __slots__ = ("spis",)
    SPIS_FIELD_NUMBER: _ClassVar[int]
    spis: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, spis: _Optional[_Iterable[int]] = ...) -> None: ...

class InstallSasRequest(_message.Message):
    __slots__ = ("sas", "generation", "owner")
    SAS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    sas: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.SecurityAssociation]
    generation: int
    owner: str
    def __init__(self, sas: _Optional[_Iterable[_Union[_ipsec_pb2.SecurityAssociation, _Mapping]]] = ..., generation: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class InstallSasResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_status_pb2.ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[_status_pb2.ItemResult, _Mapping]]] = ...) -> None: ...

class RemoveSasRequest(_message.Message):
    __slots__ = ("sa_ids", "owner")
    SA_IDS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    sa_ids: _containers.RepeatedScalarFieldContainer[str]
    owner: str
    def __init__(self, sa_ids: _Optional[_Iterable[str]] = ..., owner: _Optional[str] = ...) -> None: ...

class RemoveSasResponse(_message.Message):
    __slots__ = ("results", "counters")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_status_pb2.ItemResult]
    counters: _containers.RepeatedCompositeFieldContainer[SaCounters]
    def __init__(self, results: _Optional[_Iterable[_Union[_status_pb2.ItemResult, _Mapping]]] = ..., counters: _Optional[_Iterable[_Union[SaCounters, _Mapping]]] = ...) -> None: ...

class ListSasRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InstalledSa(_message.Message):
    __slots__ = ("sa_id", "sa", "placement", "placement_reason", "generation", "effective_mtu", "refusals", "owner")
    SA_ID_FIELD_NUMBER: _ClassVar[int]
    SA_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_REASON_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_MTU_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    sa_id: str
    sa: _ipsec_pb2.SecurityAssociation
    placement: _ipsec_pb2.Engine
    placement_reason: str
    generation: int
    effective_mtu: int
    refusals: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.PlacementRefusal]
    owner: str
    def __init__(self, sa_id: _Optional[str] = ..., sa: _Optional[_Union[_ipsec_pb2.SecurityAssociation, _Mapping]] = ..., placement: _Optional[_Union[_ipsec_pb2.Engine, str]] = ..., placement_reason: _Optional[str] = ..., generation: _Optional[int] = ..., effective_mtu: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[_ipsec_pb2.PlacementRefusal, _Mapping]]] = ..., owner: _Optional[str] = ...) -> None: ...

class ListSasResponse(_message.Message):
    __slots__ = ("sas",)
    SAS_FIELD_NUMBER: _ClassVar[int]
    sas: _containers.RepeatedCompositeFieldContainer[InstalledSa]
    def __init__(self, sas: _Optional[_Iterable[_Union[InstalledSa, _Mapping]]] = ...) -> None: ...

class ApplyPoliciesRequest(_message.Message):
    __slots__ = ("policies", "generation", "owner")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.Policy]
    generation: int
    owner: str
    def __init__(self, policies: _Optional[_Iterable[_Union[_ipsec_pb2.Policy, _Mapping]]] = ..., generation: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class ApplyPoliciesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_status_pb2.ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[_status_pb2.ItemResult, _Mapping]]] = ...) -> None: ...

class RemovePoliciesRequest(_message.Message):
    __slots__ = ("names", "owner")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    owner: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., owner: _Optional[str] = ...) -> None: ...

class RemovePoliciesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_status_pb2.ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[_status_pb2.ItemResult, _Mapping]]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[_ipsec_pb2.Policy]
    def __init__(self, policies: _Optional[_Iterable[_Union[_ipsec_pb2.Policy, _Mapping]]] = ...) -> None: ...

class GetCountersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SaCounters(_message.Message):
    __slots__ = ("sa_id", "packets", "bytes", "sequence", "drops", "idle")
    SA_ID_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    sa_id: str
    packets: int
    bytes: int
    sequence: int
    drops: _containers.RepeatedCompositeFieldContainer[_status_pb2.DropCount]
    idle: _duration_pb2.Duration
    def __init__(self, sa_id: _Optional[str] = ..., packets: _Optional[int] = ..., bytes: _Optional[int] = ..., sequence: _Optional[int] = ..., drops: _Optional[_Iterable[_Union[_status_pb2.DropCount, _Mapping]]] = ..., idle: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetCountersResponse(_message.Message):
    __slots__ = ("sas", "drops")
    SAS_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    sas: _containers.RepeatedCompositeFieldContainer[SaCounters]
    drops: _containers.RepeatedCompositeFieldContainer[_status_pb2.DropCount]
    def __init__(self, sas: _Optional[_Iterable[_Union[SaCounters, _Mapping]]] = ..., drops: _Optional[_Iterable[_Union[_status_pb2.DropCount, _Mapping]]] = ...) -> None: ...

class ReconcileRequest(_message.Message):
    __slots__ = ("generation", "owner")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    generation: int
    owner: str
    def __init__(self, generation: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class ReconcileResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, removed: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("owner",)
    OWNER_FIELD_NUMBER: _ClassVar[int]
    owner: str
    def __init__(self, owner: _Optional[str] = ...) -> None: ...

class Acquire(_message.Message):
    __slots__ = ("policy", "source", "destination", "protocol", "source_port", "destination_port")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    policy: str
    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    def __init__(self, policy: _Optional[str] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., protocol: _Optional[int] = ..., source_port: _Optional[int] = ..., destination_port: _Optional[int] = ...) -> None: ...

class Expire(_message.Message):
    __slots__ = ("sa_id", "spi", "limit")
    SA_ID_FIELD_NUMBER: _ClassVar[int]
    SPI_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    sa_id: str
    spi: int
    limit: str
    def __init__(self, sa_id: _Optional[str] = ..., spi: _Optional[int] = ..., limit: _Optional[str] = ...) -> None: ...

class BadSpi(_message.Message):
    __slots__ = ("spi", "source", "destination", "protocol")
    SPI_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    spi: int
    source: str
    destination: str
    protocol: _ipsec_pb2.IpsecProtocol
    def __init__(self, spi: _Optional[int] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., protocol: _Optional[_Union[_ipsec_pb2.IpsecProtocol, str]] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("address", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class MappingChange(_message.Message):
    __slots__ = ("sa_id", "spi", "old", "new")
    SA_ID_FIELD_NUMBER: _ClassVar[int]
    SPI_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    sa_id: str
    spi: int
    old: Endpoint
    new: Endpoint
    def __init__(self, sa_id: _Optional[str] = ..., spi: _Optional[int] = ..., old: _Optional[_Union[Endpoint, _Mapping]] = ..., new: _Optional[_Union[Endpoint, _Mapping]] = ...) -> None: ...

class PlacementChange(_message.Message):
    __slots__ = ("sa_id", "old", "new", "reason", "why")
    SA_ID_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    sa_id: str
    old: _ipsec_pb2.Engine
    new: _ipsec_pb2.Engine
    reason: str
    why: _ipsec_pb2.PlacementReason
    def __init__(self, sa_id: _Optional[str] = ..., old: _Optional[_Union[_ipsec_pb2.Engine, str]] = ..., new: _Optional[_Union[_ipsec_pb2.Engine, str]] = ..., reason: _Optional[str] = ..., why: _Optional[_Union[_ipsec_pb2.PlacementReason, str]] = ...) -> None: ...

class SasLost(_message.Message):
    __slots__ = ("sa_ids", "reason")
    SA_IDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sa_ids: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, sa_ids: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class DatapathEvent(_message.Message):
    __slots__ = ("time", "acquire", "soft_expire", "hard_expire", "bad_spi", "mapping_change", "placement_change", "sas_lost")
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    SOFT_EXPIRE_FIELD_NUMBER: _ClassVar[int]
    HARD_EXPIRE_FIELD_NUMBER: _ClassVar[int]
    BAD_SPI_FIELD_NUMBER: _ClassVar[int]
    MAPPING_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_CHANGE_FIELD_NUMBER: _ClassVar[int]
    SAS_LOST_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    acquire: Acquire
    soft_expire: Expire
    hard_expire: Expire
    bad_spi: BadSpi
    mapping_change: MappingChange
    placement_change: PlacementChange
    sas_lost: SasLost
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., acquire: _Optional[_Union[Acquire, _Mapping]] = ..., soft_expire: _Optional[_Union[Expire, _Mapping]] = ..., hard_expire: _Optional[_Union[Expire, _Mapping]] = ..., bad_spi: _Optional[_Union[BadSpi, _Mapping]] = ..., mapping_change: _Optional[_Union[MappingChange, _Mapping]] = ..., placement_change: _Optional[_Union[PlacementChange, _Mapping]] = ..., sas_lost: _Optional[_Union[SasLost, _Mapping]] = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: DatapathEvent
    def __init__(self, event: _Optional[_Union[DatapathEvent, _Mapping]] = ...) -> None: ...
