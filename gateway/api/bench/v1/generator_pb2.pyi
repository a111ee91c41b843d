from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Way(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAY_UNSPECIFIED: _ClassVar[Way]
    WAY_OUT: _ClassVar[Way]
    WAY_IN: _ClassVar[Way]
WAY_UNSPECIFIED: Way
WAY_OUT: Way
WAY_IN: Way

class GetPortsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPortsResponse(_message.Message):
    __slots__ = ("lan", "outer")
    LAN_FIELD_NUMBER: _ClassVar[int]
    OUTER_FIELD_NUMBER: _ClassVar[int]
    lan: Port
    outer: Port
    def __init__(self, lan: _Optional[_Union[Port, _Mapping]] = ..., outer: _Optional[_Union[Port, _Mapping]] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("interface", "link_address")
    INTERFACE_FIELD_NUMBER: _ClassVar[int]
    LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    interface: str
    link_address: bytes
    def __init__(self, interface: _Optional[str] = ..., link_address: _Optional[bytes] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("gateway_lan_link_address", "gateway_outer_link_address", "tunnel")
    GATEWAY_LAN_LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_OUTER_LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_FIELD_NUMBER: _ClassVar[int]
    gateway_lan_link_address: bytes
    gateway_outer_link_address: bytes
    tunnel: Tunnel
    def __init__(self, gateway_lan_link_address: _Optional[bytes] = ..., gateway_outer_link_address: _Optional[bytes] = ..., tunnel: _Optional[_Union[Tunnel, _Mapping]] = ...) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Tunnel(_message.Message):
    __slots__ = ("gateway", "peer", "key_bits", "sas")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    SAS_FIELD_NUMBER: _ClassVar[int]
    gateway: bytes
    peer: bytes
    key_bits: int
    sas: _containers.RepeatedCompositeFieldContainer[Sas]
    def __init__(self, gateway: _Optional[bytes] = ..., peer: _Optional[bytes] = ..., key_bits: _Optional[int] = ..., sas: _Optional[_Iterable[_Union[Sas, _Mapping]]] = ...) -> None: ...

class Sas(_message.Message):
    __slots__ = ("outbound_spi", "outbound_key", "inbound_spi", "inbound_key")
    OUTBOUND_SPI_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_KEY_FIELD_NUMBER: _ClassVar[int]
    INBOUND_SPI_FIELD_NUMBER: _ClassVar[int]
    INBOUND_KEY_FIELD_NUMBER: _ClassVar[int]
    outbound_spi: int
    outbound_key: bytes
    inbound_spi: int
    inbound_key: bytes
    def __init__(self, outbound_spi: _Optional[int] = ..., outbound_key: _Optional[bytes] = ..., inbound_spi: _Optional[int] = ..., inbound_key: _Optional[bytes] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("way", "esp", "packets_per_second", "seconds", "flows", "sample", "sizes")
    WAY_FIELD_NUMBER: _ClassVar[int]
    ESP_FIELD_NUMBER: _ClassVar[int]
    PACKETS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    way: Way
    esp: bool
    packets_per_second: float
    seconds: float
    flows: int
    sample: int
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, way: _Optional[_Union[Way, str]] = ..., esp: _Optional[bool] = ..., packets_per_second: _Optional[float] = ..., seconds: _Optional[float] = ..., flows: _Optional[int] = ..., sample: _Optional[int] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("opened", "closed", "traffic")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    opened: WindowOpened
    closed: WindowClosed
    traffic: Traffic
    def __init__(self, opened: _Optional[_Union[WindowOpened, _Mapping]] = ..., closed: _Optional[_Union[WindowClosed, _Mapping]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class WindowOpened(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WindowClosed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("seconds", "sent", "send_retries", "received_in_window", "received", "received_bytes", "sink_drops", "samples", "bad_samples", "clear_samples", "sender_cpu_seconds", "sink_cpu_seconds", "latency_microseconds", "method")
    class LatencyMicrosecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    SEND_RETRIES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_IN_WINDOW_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SINK_DROPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BAD_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CLEAR_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SENDER_CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SINK_CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    sent: int
    send_retries: int
    received_in_window: int
    received: int
    received_bytes: int
    sink_drops: int
    samples: int
    bad_samples: int
    clear_samples: int
    sender_cpu_seconds: float
    sink_cpu_seconds: float
    latency_microseconds: _containers.ScalarMap[str, float]
    method: str
    def __init__(self, seconds: _Optional[float] = ..., sent: _Optional[int] = ..., send_retries: _Optional[int] = ..., received_in_window: _Optional[int] = ..., received: _Optional[int] = ..., received_bytes: _Optional[int] = ..., sink_drops: _Optional[int] = ..., samples: _Optional[int] = ..., bad_samples: _Optional[int] = ..., clear_samples: _Optional[int] = ..., sender_cpu_seconds: _Optional[float] = ..., sink_cpu_seconds: _Optional[float] = ..., latency_microseconds: _Optional[_Mapping[str, float]] = ..., method: _Optional[str] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
