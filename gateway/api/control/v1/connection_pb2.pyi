import datetime

from gateway.api.types.v1 import ipsec_pb2 as _ipsec_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Revocation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVOCATION_UNSPECIFIED: _ClassVar[Revocation]
    REVOCATION_STRICT: _ClassVar[Revocation]
    REVOCATION_IFURI: _ClassVar[Revocation]
    REVOCATION_RELAXED: _ClassVar[Revocation]

class Fragmentation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAGMENTATION_UNSPECIFIED: _ClassVar[Fragmentation]
    FRAGMENTATION_YES: _ClassVar[Fragmentation]
    FRAGMENTATION_NO: _ClassVar[Fragmentation]

class Unique(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIQUE_UNSPECIFIED: _ClassVar[Unique]
    UNIQUE_REPLACE: _ClassVar[Unique]
    UNIQUE_REJECT: _ClassVar[Unique]
    UNIQUE_ALLOW: _ClassVar[Unique]
    UNIQUE_NEVER: _ClassVar[Unique]

class Childless(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHILDLESS_UNSPECIFIED: _ClassVar[Childless]
    CHILDLESS_ALLOW: _ClassVar[Childless]
    CHILDLESS_FORCE: _ClassVar[Childless]
    CHILDLESS_NEVER: _ClassVar[Childless]

class LossAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_ACTION_UNSPECIFIED: _ClassVar[LossAction]
    LOSS_ACTION_CLEAR: _ClassVar[LossAction]
    LOSS_ACTION_TRAP: _ClassVar[LossAction]
    LOSS_ACTION_RESTART: _ClassVar[LossAction]

class Start(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_UNSPECIFIED: _ClassVar[Start]
    START_NONE: _ClassVar[Start]
    START_START: _ClassVar[Start]
    START_ON_TRAFFIC: _ClassVar[Start]
REVOCATION_UNSPECIFIED: Revocation
REVOCATION_STRICT: Revocation
REVOCATION_IFURI: Revocation
REVOCATION_RELAXED: Revocation
FRAGMENTATION_UNSPECIFIED: Fragmentation
FRAGMENTATION_YES: Fragmentation
FRAGMENTATION_NO: Fragmentation
UNIQUE_UNSPECIFIED: Unique
UNIQUE_REPLACE: Unique
UNIQUE_REJECT: Unique
UNIQUE_ALLOW: Unique
UNIQUE_NEVER: Unique
CHILDLESS_UNSPECIFIED: Childless
CHILDLESS_ALLOW: Childless
CHILDLESS_FORCE: Childless
CHILDLESS_NEVER: Childless
LOSS_ACTION_UNSPECIFIED: LossAction
LOSS_ACTION_CLEAR: LossAction
LOSS_ACTION_TRAP: LossAction
LOSS_ACTION_RESTART: LossAction
START_UNSPECIFIED: Start
START_NONE: Start
START_START: Start
START_ON_TRAFFIC: Start

class Config(_message.Message):
    __slots__ = ("connections",)
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    connections: _containers.RepeatedCompositeFieldContainer[Connection]
    def __init__(self, connections: _Optional[_Iterable[_Union[Connection, _Mapping]]] = ...) -> None: ...

class Connection(_message.Message):
    __slots__ = ("name", "local", "remote", "ike", "children", "allow_weak")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    IKE_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_WEAK_FIELD_NUMBER: _ClassVar[int]
    name: str
    local: Side
    remote: Side
    ike: Ike
    children: _containers.RepeatedCompositeFieldContainer[Child]
    allow_weak: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., local: _Optional[_Union[Side, _Mapping]] = ..., remote: _Optional[_Union[Side, _Mapping]] = ..., ike: _Optional[_Union[Ike, _Mapping]] = ..., children: _Optional[_Iterable[_Union[Child, _Mapping]]] = ..., allow_weak: _Optional[_Iterable[str]] = ...) -> None: ...

class Side(_message.Message):
    __slots__ = ("address", "addresses", "id", "auth")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    address: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    id: str
    auth: Authentication
    def __init__(self, address: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., id: _Optional[str] = ..., auth: _Optional[_Union[Authentication, _Mapping]] = ...) -> None: ...

class Authentication(_message.Message):
    __slots__ = ("psk", "certificate", "public_key")
    PSK_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    psk: PreSharedKey
    certificate: CertificateAuthentication
    public_key: PublicKeyAuthentication
    def __init__(self, psk: _Optional[_Union[PreSharedKey, _Mapping]] = ..., certificate: _Optional[_Union[CertificateAuthentication, _Mapping]] = ..., public_key: _Optional[_Union[PublicKeyAuthentication, _Mapping]] = ...) -> None: ...

class CertificateAuthentication(_message.Message):
    __slots__ = ("certs", "key", "keys", "signatures", "cas", "intermediates", "crls", "revocation")
    CERTS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    CAS_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATES_FIELD_NUMBER: _ClassVar[int]
    CRLS_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_FIELD_NUMBER: _ClassVar[int]
    certs: _containers.RepeatedCompositeFieldContainer[PublicFile]
    key: PrivateKey
    keys: _containers.RepeatedCompositeFieldContainer[PrivateKey]
    signatures: _containers.RepeatedScalarFieldContainer[str]
    cas: _containers.RepeatedCompositeFieldContainer[PublicFile]
    intermediates: _containers.RepeatedCompositeFieldContainer[PublicFile]
    crls: _containers.RepeatedCompositeFieldContainer[CrlFile]
    revocation: Revocation
    def __init__(self, certs: _Optional[_Iterable[_Union[PublicFile, _Mapping]]] = ..., key: _Optional[_Union[PrivateKey, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[PrivateKey, _Mapping]]] = ..., signatures: _Optional[_Iterable[str]] = ..., cas: _Optional[_Iterable[_Union[PublicFile, _Mapping]]] = ..., intermediates: _Optional[_Iterable[_Union[PublicFile, _Mapping]]] = ..., crls: _Optional[_Iterable[_Union[CrlFile, _Mapping]]] = ..., revocation: _Optional[_Union[Revocation, str]] = ...) -> None: ...

class PublicKeyAuthentication(_message.Message):
    __slots__ = ("key", "keys", "signatures")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    key: PrivateKey
    keys: _containers.RepeatedCompositeFieldContainer[PublicFile]
    signatures: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[_Union[PrivateKey, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[PublicFile, _Mapping]]] = ..., signatures: _Optional[_Iterable[str]] = ...) -> None: ...

class PublicFile(_message.Message):
    __slots__ = ("value", "file")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    value: str
    file: str
    def __init__(self, value: _Optional[str] = ..., file: _Optional[str] = ...) -> None: ...

class CrlFile(_message.Message):
    __slots__ = ("value", "file", "is_set")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    IS_SET_FIELD_NUMBER: _ClassVar[int]
    value: str
    file: str
    is_set: bool
    def __init__(self, value: _Optional[str] = ..., file: _Optional[str] = ..., is_set: _Optional[bool] = ...) -> None: ...

class PrivateKey(_message.Message):
    __slots__ = ("value", "file", "env", "credential", "passphrase", "is_set")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    IS_SET_FIELD_NUMBER: _ClassVar[int]
    value: str
    file: str
    env: str
    credential: str
    passphrase: Passphrase
    is_set: bool
    def __init__(self, value: _Optional[str] = ..., file: _Optional[str] = ..., env: _Optional[str] = ..., credential: _Optional[str] = ..., passphrase: _Optional[_Union[Passphrase, _Mapping]] = ..., is_set: _Optional[bool] = ...) -> None: ...

class Passphrase(_message.Message):
    __slots__ = ("value", "file", "env", "credential")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    value: str
    file: str
    env: str
    credential: str
    def __init__(self, value: _Optional[str] = ..., file: _Optional[str] = ..., env: _Optional[str] = ..., credential: _Optional[str] = ...) -> None: ...

class PreSharedKey(_message.Message):
    __slots__ = ("value", "file", "env", "credential", "is_set")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    IS_SET_FIELD_NUMBER: _ClassVar[int]
    value: str
    file: str
    env: str
    credential: str
    is_set: bool
    def __init__(self, value: _Optional[str] = ..., file: _Optional[str] = ..., env: _Optional[str] = ..., credential: _Optional[str] = ..., is_set: _Optional[bool] = ...) -> None: ...

class Ike(_message.Message):
    __slots__ = ("proposals", "rekey", "over_time", "jitter", "dpd_delay", "retransmit_timeout", "retransmit_base", "retransmit_tries", "encapsulation", "fragmentation", "fragment_size", "unique", "ike_sas_per_peer", "childless", "reauth")
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    REKEY_FIELD_NUMBER: _ClassVar[int]
    OVER_TIME_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    DPD_DELAY_FIELD_NUMBER: _ClassVar[int]
    RETRANSMIT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRANSMIT_BASE_FIELD_NUMBER: _ClassVar[int]
    RETRANSMIT_TRIES_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTATION_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_SIZE_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_FIELD_NUMBER: _ClassVar[int]
    IKE_SAS_PER_PEER_FIELD_NUMBER: _ClassVar[int]
    CHILDLESS_FIELD_NUMBER: _ClassVar[int]
    REAUTH_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedScalarFieldContainer[str]
    rekey: _duration_pb2.Duration
    over_time: _duration_pb2.Duration
    jitter: float
    dpd_delay: _duration_pb2.Duration
    retransmit_timeout: _duration_pb2.Duration
    retransmit_base: float
    retransmit_tries: int
    encapsulation: bool
    fragmentation: Fragmentation
    fragment_size: int
    unique: Unique
    ike_sas_per_peer: int
    childless: Childless
    reauth: _duration_pb2.Duration
    def __init__(self, proposals: _Optional[_Iterable[str]] = ..., rekey: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., over_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., jitter: _Optional[float] = ..., dpd_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retransmit_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retransmit_base: _Optional[float] = ..., retransmit_tries: _Optional[int] = ..., encapsulation: _Optional[bool] = ..., fragmentation: _Optional[_Union[Fragmentation, str]] = ..., fragment_size: _Optional[int] = ..., unique: _Optional[_Union[Unique, str]] = ..., ike_sas_per_peer: _Optional[int] = ..., childless: _Optional[_Union[Childless, str]] = ..., reauth: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Child(_message.Message):
    __slots__ = ("name", "local_ts", "remote_ts", "mode", "action", "esp", "start", "rekey", "rekey_bytes", "rekey_packets", "over_fraction", "jitter", "replay_window", "copy_dscp", "copy_df", "priority", "placement", "ah", "dpd_action", "close_action", "interface", "per_cpu_sas", "mark_out", "mark_in", "mark_in_sa", "set_mark_out", "set_mark_in")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOCAL_TS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ESP_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REKEY_FIELD_NUMBER: _ClassVar[int]
    REKEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REKEY_PACKETS_FIELD_NUMBER: _ClassVar[int]
    OVER_FRACTION_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    REPLAY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    COPY_DSCP_FIELD_NUMBER: _ClassVar[int]
    COPY_DF_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    AH_FIELD_NUMBER: _ClassVar[int]
    DPD_ACTION_FIELD_NUMBER: _ClassVar[int]
    CLOSE_ACTION_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_FIELD_NUMBER: _ClassVar[int]
    PER_CPU_SAS_FIELD_NUMBER: _ClassVar[int]
    MARK_OUT_FIELD_NUMBER: _ClassVar[int]
    MARK_IN_FIELD_NUMBER: _ClassVar[int]
    MARK_IN_SA_FIELD_NUMBER: _ClassVar[int]
    SET_MARK_OUT_FIELD_NUMBER: _ClassVar[int]
    SET_MARK_IN_FIELD_NUMBER: _ClassVar[int]
    name: str
    local_ts: _containers.RepeatedScalarFieldContainer[str]
    remote_ts: _containers.RepeatedScalarFieldContainer[str]
    mode: _ipsec_pb2.Mode
    action: _ipsec_pb2.Action
    esp: Esp
    start: Start
    rekey: _duration_pb2.Duration
    rekey_bytes: int
    rekey_packets: int
    over_fraction: float
    jitter: float
    replay_window: int
    copy_dscp: bool
    copy_df: bool
    priority: int
    placement: _ipsec_pb2.Placement
    ah: Ah
    dpd_action: LossAction
    close_action: LossAction
    interface: _ipsec_pb2.TunnelInterface
    per_cpu_sas: str
    mark_out: str
    mark_in: str
    mark_in_sa: bool
    set_mark_out: str
    set_mark_in: str
    def __init__(self, name: _Optional[str] = ..., local_ts: _Optional[_Iterable[str]] = ..., remote_ts: _Optional[_Iterable[str]] = ..., mode: _Optional[_Union[_ipsec_pb2.Mode, str]] = ..., action: _Optional[_Union[_ipsec_pb2.Action, str]] = ..., esp: _Optional[_Union[Esp, _Mapping]] = ..., start: _Optional[_Union[Start, str]] = ..., rekey: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., rekey_bytes: _Optional[int] = ..., rekey_packets: _Optional[int] = ..., over_fraction: _Optional[float] = ..., jitter: _Optional[float] = ..., replay_window: _Optional[int] = ..., copy_dscp: _Optional[bool] = ..., copy_df: _Optional[bool] = ..., priority: _Optional[int] = ..., placement: _Optional[_Union[_ipsec_pb2.Placement, _Mapping]] = ..., ah: _Optional[_Union[Ah, _Mapping]] = ..., dpd_action: _Optional[_Union[LossAction, str]] = ..., close_action: _Optional[_Union[LossAction, str]] = ..., interface: _Optional[_Union[_ipsec_pb2.TunnelInterface, _Mapping]] = ..., per_cpu_sas: _Optional[str] = ..., mark_out: _Optional[str] = ..., mark_in: _Optional[str] = ..., mark_in_sa: _Optional[bool] = ..., set_mark_out: _Optional[str] = ..., set_mark_in: _Optional[str] = ...) -> None: ...

class Ah(_message.Message):
    __slots__ = ("proposals",)
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, proposals: _Optional[_Iterable[str]] = ...) -> None: ...

class Esp(_message.Message):
    __slots__ = ("proposals",)
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, proposals: _Optional[_Iterable[str]] = ...) -> None: ...
