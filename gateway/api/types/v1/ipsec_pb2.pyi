import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncryptionAlgorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCRYPTION_ALGORITHM_UNSPECIFIED: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_DES_IV64: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_DES: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_TRIPLE_DES: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_RC5: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_IDEA: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CAST: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_BLOWFISH: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_TRIPLE_IDEA: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_DES_IV32: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_NULL: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_CBC: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_CTR: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_CCM_8: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_CCM_12: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_CCM_16: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_GCM_8: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_GCM_12: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_GCM_16: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_NULL_AUTH_AES_GMAC: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CAMELLIA_CBC: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CAMELLIA_CTR: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CAMELLIA_CCM_8: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CAMELLIA_CCM_12: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CAMELLIA_CCM_16: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CHACHA20_POLY1305: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_CCM_8_IIV: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_AES_GCM_16_IIV: _ClassVar[EncryptionAlgorithm]
    ENCRYPTION_ALGORITHM_CHACHA20_POLY1305_IIV: _ClassVar[EncryptionAlgorithm]

class IntegrityAlgorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTEGRITY_ALGORITHM_UNSPECIFIED: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_MD5_96: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_SHA1_96: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_DES_MAC: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_KPDK_MD5: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_AES_XCBC_96: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_MD5_128: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_SHA1_160: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_AES_CMAC_96: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_AES_128_GMAC: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_AES_192_GMAC: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_AES_256_GMAC: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_SHA2_256_128: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_SHA2_384_192: _ClassVar[IntegrityAlgorithm]
    INTEGRITY_ALGORITHM_HMAC_SHA2_512_256: _ClassVar[IntegrityAlgorithm]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_TUNNEL: _ClassVar[Mode]
    MODE_TRANSPORT: _ClassVar[Mode]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_PROTECT: _ClassVar[Action]
    ACTION_BYPASS: _ClassVar[Action]
    ACTION_DISCARD: _ClassVar[Action]

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_INBOUND: _ClassVar[Direction]
    DIRECTION_OUTBOUND: _ClassVar[Direction]

class IpsecProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IPSEC_PROTOCOL_UNSPECIFIED: _ClassVar[IpsecProtocol]
    IPSEC_PROTOCOL_ESP: _ClassVar[IpsecProtocol]
    IPSEC_PROTOCOL_AH: _ClassVar[IpsecProtocol]

class Engine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_UNSPECIFIED: _ClassVar[Engine]
    ENGINE_NIC_PACKET: _ClassVar[Engine]
    ENGINE_NIC_CRYPTO: _ClassVar[Engine]
    ENGINE_ENGINE: _ClassVar[Engine]
    ENGINE_KERNEL: _ClassVar[Engine]
    ENGINE_XDP: _ClassVar[Engine]
    ENGINE_SOFTWARE: _ClassVar[Engine]

class PlacementReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_REASON_UNSPECIFIED: _ClassVar[PlacementReason]
    PLACEMENT_REASON_NO_BACKEND: _ClassVar[PlacementReason]
    PLACEMENT_REASON_NO_DEVICE: _ClassVar[PlacementReason]
    PLACEMENT_REASON_FEATURE_OFF: _ClassVar[PlacementReason]
    PLACEMENT_REASON_KERNEL_TOO_OLD: _ClassVar[PlacementReason]
    PLACEMENT_REASON_ALG_UNSUPPORTED: _ClassVar[PlacementReason]
    PLACEMENT_REASON_KEYLEN: _ClassVar[PlacementReason]
    PLACEMENT_REASON_ICV: _ClassVar[PlacementReason]
    PLACEMENT_REASON_ESN: _ClassVar[PlacementReason]
    PLACEMENT_REASON_REPLAY_WINDOW: _ClassVar[PlacementReason]
    PLACEMENT_REASON_ENCAP: _ClassVar[PlacementReason]
    PLACEMENT_REASON_MODE: _ClassVar[PlacementReason]
    PLACEMENT_REASON_DIRECTION: _ClassVar[PlacementReason]
    PLACEMENT_REASON_SELECTOR: _ClassVar[PlacementReason]
    PLACEMENT_REASON_SA_TABLE_FULL: _ClassVar[PlacementReason]
    PLACEMENT_REASON_DRIVER_REFUSED: _ClassVar[PlacementReason]
    PLACEMENT_REASON_KERNEL_IGNORED_OFFLOAD: _ClassVar[PlacementReason]
    PLACEMENT_REASON_POLICY_FORBIDS: _ClassVar[PlacementReason]
    PLACEMENT_REASON_OTHER_DIRECTION: _ClassVar[PlacementReason]
    PLACEMENT_REASON_DEVICE_LOST: _ClassVar[PlacementReason]
    PLACEMENT_REASON_BACKEND_REFUSED: _ClassVar[PlacementReason]
ENCRYPTION_ALGORITHM_UNSPECIFIED: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_DES_IV64: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_DES: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_TRIPLE_DES: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_RC5: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_IDEA: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CAST: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_BLOWFISH: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_TRIPLE_IDEA: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_DES_IV32: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_NULL: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_CBC: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_CTR: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_CCM_8: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_CCM_12: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_CCM_16: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_GCM_8: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_GCM_12: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_GCM_16: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_NULL_AUTH_AES_GMAC: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CAMELLIA_CBC: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CAMELLIA_CTR: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CAMELLIA_CCM_8: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CAMELLIA_CCM_12: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CAMELLIA_CCM_16: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CHACHA20_POLY1305: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_CCM_8_IIV: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_AES_GCM_16_IIV: EncryptionAlgorithm
ENCRYPTION_ALGORITHM_CHACHA20_POLY1305_IIV: EncryptionAlgorithm
INTEGRITY_ALGORITHM_UNSPECIFIED: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_MD5_96: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_SHA1_96: IntegrityAlgorithm
INTEGRITY_ALGORITHM_DES_MAC: IntegrityAlgorithm
INTEGRITY_ALGORITHM_KPDK_MD5: IntegrityAlgorithm
INTEGRITY_ALGORITHM_AES_XCBC_96: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_MD5_128: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_SHA1_160: IntegrityAlgorithm
INTEGRITY_ALGORITHM_AES_CMAC_96: IntegrityAlgorithm
INTEGRITY_ALGORITHM_AES_128_GMAC: IntegrityAlgorithm
INTEGRITY_ALGORITHM_AES_192_GMAC: IntegrityAlgorithm
INTEGRITY_ALGORITHM_AES_256_GMAC: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_SHA2_256_128: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_SHA2_384_192: IntegrityAlgorithm
INTEGRITY_ALGORITHM_HMAC_SHA2_512_256: IntegrityAlgorithm
MODE_UNSPECIFIED: Mode
MODE_TUNNEL: Mode
MODE_TRANSPORT: Mode
ACTION_UNSPECIFIED: Action
ACTION_PROTECT: Action
ACTION_BYPASS: Action
ACTION_DISCARD: Action
DIRECTION_UNSPECIFIED: Direction
DIRECTION_INBOUND: Direction
DIRECTION_OUTBOUND: Direction
IPSEC_PROTOCOL_UNSPECIFIED: IpsecProtocol
IPSEC_PROTOCOL_ESP: IpsecProtocol
IPSEC_PROTOCOL_AH: IpsecProtocol
ENGINE_UNSPECIFIED: Engine
ENGINE_NIC_PACKET: Engine
ENGINE_NIC_CRYPTO: Engine
ENGINE_ENGINE: Engine
ENGINE_KERNEL: Engine
ENGINE_XDP: Engine
ENGINE_SOFTWARE: Engine
PLACEMENT_REASON_UNSPECIFIED: PlacementReason
PLACEMENT_REASON_NO_BACKEND: PlacementReason
PLACEMENT_REASON_NO_DEVICE: PlacementReason
PLACEMENT_REASON_FEATURE_OFF: PlacementReason
PLACEMENT_REASON_KERNEL_TOO_OLD: PlacementReason
PLACEMENT_REASON_ALG_UNSUPPORTED: PlacementReason
PLACEMENT_REASON_KEYLEN: PlacementReason
PLACEMENT_REASON_ICV: PlacementReason
PLACEMENT_REASON_ESN: PlacementReason
PLACEMENT_REASON_REPLAY_WINDOW: PlacementReason
PLACEMENT_REASON_ENCAP: PlacementReason
PLACEMENT_REASON_MODE: PlacementReason
PLACEMENT_REASON_DIRECTION: PlacementReason
PLACEMENT_REASON_SELECTOR: PlacementReason
PLACEMENT_REASON_SA_TABLE_FULL: PlacementReason
PLACEMENT_REASON_DRIVER_REFUSED: PlacementReason
PLACEMENT_REASON_KERNEL_IGNORED_OFFLOAD: PlacementReason
PLACEMENT_REASON_POLICY_FORBIDS: PlacementReason
PLACEMENT_REASON_OTHER_DIRECTION: PlacementReason
PLACEMENT_REASON_DEVICE_LOST: PlacementReason
PLACEMENT_REASON_BACKEND_REFUSED: PlacementReason

class Placement(_message.Message):
    __slots__ = ("prefer", "require")
    PREFER_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_FIELD_NUMBER: _ClassVar[int]
    prefer: _containers.RepeatedScalarFieldContainer[Engine]
    require: Engine
    def __init__(self, prefer: _Optional[_Iterable[_Union[Engine, str]]] = ..., require: _Optional[_Union[Engine, str]] = ...) -> None: ...

class PlacementRefusal(_message.Message):
    __slots__ = ("engine", "reason", "text")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    engine: Engine
    reason: PlacementReason
    text: str
    def __init__(self, engine: _Optional[_Union[Engine, str]] = ..., reason: _Optional[_Union[PlacementReason, str]] = ..., text: _Optional[str] = ...) -> None: ...

class TrafficSelector(_message.Message):
    __slots__ = ("start", "end", "protocol", "start_port", "end_port")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    START_PORT_FIELD_NUMBER: _ClassVar[int]
    END_PORT_FIELD_NUMBER: _ClassVar[int]
    start: str
    end: str
    protocol: int
    start_port: int
    end_port: int
    def __init__(self, start: _Optional[str] = ..., end: _Optional[str] = ..., protocol: _Optional[int] = ..., start_port: _Optional[int] = ..., end_port: _Optional[int] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("time", "bytes", "packets")
    TIME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    time: _duration_pb2.Duration
    bytes: int
    packets: int
    def __init__(self, time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., bytes: _Optional[int] = ..., packets: _Optional[int] = ...) -> None: ...

class Lifetime(_message.Message):
    __slots__ = ("soft", "hard")
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    soft: Limit
    hard: Limit
    def __init__(self, soft: _Optional[_Union[Limit, _Mapping]] = ..., hard: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class UdpEncapsulation(_message.Message):
    __slots__ = ("source_port", "destination_port")
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    source_port: int
    destination_port: int
    def __init__(self, source_port: _Optional[int] = ..., destination_port: _Optional[int] = ...) -> None: ...

class SecurityAssociation(_message.Message):
    __slots__ = ("spi", "direction", "protocol", "mode", "source", "destination", "encapsulation", "encryption", "encryption_key", "key_bits", "integrity", "integrity_key", "esn", "replay_window", "local_ts", "remote_ts", "lifetime", "copy_dscp", "copy_df", "tfc_padding", "connection", "child", "child_sa_id", "placement", "interface_id", "cpu", "mark", "set_mark")
    SPI_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    INTEGRITY_FIELD_NUMBER: _ClassVar[int]
    INTEGRITY_KEY_FIELD_NUMBER: _ClassVar[int]
    ESN_FIELD_NUMBER: _ClassVar[int]
    REPLAY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    LOCAL_TS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TS_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_FIELD_NUMBER: _ClassVar[int]
    COPY_DSCP_FIELD_NUMBER: _ClassVar[int]
    COPY_DF_FIELD_NUMBER: _ClassVar[int]
    TFC_PADDING_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    CHILD_SA_ID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_ID_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    SET_MARK_FIELD_NUMBER: _ClassVar[int]
    spi: int
    direction: Direction
    protocol: IpsecProtocol
    mode: Mode
    source: str
    destination: str
    encapsulation: UdpEncapsulation
    encryption: EncryptionAlgorithm
    encryption_key: bytes
    key_bits: int
    integrity: IntegrityAlgorithm
    integrity_key: bytes
    esn: bool
    replay_window: int
    local_ts: _containers.RepeatedCompositeFieldContainer[TrafficSelector]
    remote_ts: _containers.RepeatedCompositeFieldContainer[TrafficSelector]
    lifetime: Lifetime
    copy_dscp: bool
    copy_df: bool
    tfc_padding: int
    connection: str
    child: str
    child_sa_id: int
    placement: Placement
    interface_id: int
    cpu: int
    mark: str
    set_mark: str
    def __init__(self, spi: _Optional[int] = ..., direction: _Optional[_Union[Direction, str]] = ..., protocol: _Optional[_Union[IpsecProtocol, str]] = ..., mode: _Optional[_Union[Mode, str]] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., encapsulation: _Optional[_Union[UdpEncapsulation, _Mapping]] = ..., encryption: _Optional[_Union[EncryptionAlgorithm, str]] = ..., encryption_key: _Optional[bytes] = ..., key_bits: _Optional[int] = ..., integrity: _Optional[_Union[IntegrityAlgorithm, str]] = ..., integrity_key: _Optional[bytes] = ..., esn: _Optional[bool] = ..., replay_window: _Optional[int] = ..., local_ts: _Optional[_Iterable[_Union[TrafficSelector, _Mapping]]] = ..., remote_ts: _Optional[_Iterable[_Union[TrafficSelector, _Mapping]]] = ..., lifetime: _Optional[_Union[Lifetime, _Mapping]] = ..., copy_dscp: _Optional[bool] = ..., copy_df: _Optional[bool] = ..., tfc_padding: _Optional[int] = ..., connection: _Optional[str] = ..., child: _Optional[str] = ..., child_sa_id: _Optional[int] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., interface_id: _Optional[int] = ..., cpu: _Optional[int] = ..., mark: _Optional[str] = ..., set_mark: _Optional[str] = ...) -> None: ...

class TunnelInterface(_message.Message):
    __slots__ = ("name", "id", "mtu", "addresses", "routes", "vrf")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    VRF_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: int
    mtu: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    routes: _containers.RepeatedScalarFieldContainer[str]
    vrf: str
    def __init__(self, name: _Optional[str] = ..., id: _Optional[int] = ..., mtu: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., routes: _Optional[_Iterable[str]] = ..., vrf: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "action", "local_ts", "remote_ts", "priority", "mode", "protocol", "local_address", "remote_address", "acquire", "connection", "child", "placement", "interface_id", "interface", "mark_in", "mark_out")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    LOCAL_TS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_ID_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_FIELD_NUMBER: _ClassVar[int]
    MARK_IN_FIELD_NUMBER: _ClassVar[int]
    MARK_OUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    action: Action
    local_ts: _containers.RepeatedCompositeFieldContainer[TrafficSelector]
    remote_ts: _containers.RepeatedCompositeFieldContainer[TrafficSelector]
    priority: int
    mode: Mode
    protocol: IpsecProtocol
    local_address: str
    remote_address: str
    acquire: bool
    connection: str
    child: str
    placement: Placement
    interface_id: int
    interface: TunnelInterface
    mark_in: str
    mark_out: str
    def __init__(self, name: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., local_ts: _Optional[_Iterable[_Union[TrafficSelector, _Mapping]]] = ..., remote_ts: _Optional[_Iterable[_Union[TrafficSelector, _Mapping]]] = ..., priority: _Optional[int] = ..., mode: _Optional[_Union[Mode, str]] = ..., protocol: _Optional[_Union[IpsecProtocol, str]] = ..., local_address: _Optional[str] = ..., remote_address: _Optional[str] = ..., acquire: _Optional[bool] = ..., connection: _Optional[str] = ..., child: _Optional[str] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., interface_id: _Optional[int] = ..., interface: _Optional[_Union[TunnelInterface, _Mapping]] = ..., mark_in: _Optional[str] = ..., mark_out: _Optional[str] = ...) -> None: ...
