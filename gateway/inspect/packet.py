"""From a captured frame to the IKE message, ESP or AH packet in it: link layer, IP, fragments, UDP.

Whatever is too short, or nothing of ours, is passed over: a capture holds all kinds of traffic.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.ike.path import IKE_PORT, NAT_T_PORT
from gateway.ike.wire.header import NON_ESP_MARKER
from gateway.inspect.capture import Frame

IpAddress = IPv4Address | IPv6Address

MAX_PENDING: Final = 1024
"""IP packets whose fragments are awaited; the oldest is forgotten first."""
MAX_PACKET_BYTES: Final = 65535
_UDP: Final = 17
_ESP: Final = 50
_AH: Final = 51


class Kind(Enum):
    """What was found."""

    IKE = "ike"
    ESP = "esp"
    AH = "ah"
    KEEPALIVE = "keepalive"
    """A NAT keepalive, one byte 0xff (RFC 3948 §2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One packet of ours, whole."""

    kind: Kind
    frame: int
    time_ns: int
    source: IpAddress
    destination: IpAddress
    source_port: int = 0
    """UDP ports; 0 for ESP and AH straight on IP."""
    destination_port: int = 0
    data: bytes
    """The message or packet, without the non-ESP marker."""
    is_cut: bool = False
    """The capture kept less than was on the wire."""


@dataclass(frozen=True, slots=True)
class IpPacket:
    """One IP packet or fragment, headers taken off."""

    source: IpAddress
    destination: IpAddress
    protocol: int
    payload: bytes
    identification: int = 0
    offset: int = 0
    more: bool = False
    is_cut: bool = False


# --- link layer ---------------------------------------------------------------------------------

_ETHERTYPE_IPV4: Final = 0x0800
_ETHERTYPE_IPV6: Final = 0x86DD
_VLAN_TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100})
_PPPOE: Final = 0x8864
_IP_ETHERTYPES: Final = frozenset({_ETHERTYPE_IPV4, _ETHERTYPE_IPV6})
_ETHERNET: Final = 1
_RAW_IP: Final = frozenset({12, 14, 101, 228, 229})
_LINUX_SLL: Final = 113
_LINUX_SLL2: Final = 276
_NULL: Final = frozenset({0, 108})
SUPPORTED_LINK_TYPES: Final = frozenset({_ETHERNET, _LINUX_SLL, _LINUX_SLL2}) | _RAW_IP | _NULL


def strip_link_layer(link_type: int, data: bytes) -> bytes | None:
    """Return the IP packet in a frame, or None if there is none."""
    if link_type == _ETHERNET:
        return _after_ethertype(data, 12)
    if link_type in _RAW_IP:
        return data
    if link_type == _LINUX_SLL:
        return _after_ethertype(data, 14)
    if link_type == _LINUX_SLL2:
        return data[20:] if _u16(data, 0) in _IP_ETHERTYPES else None
    if link_type in _NULL:
        # A 4-byte address family precedes the packet; its numbers differ by system, the version does not.
        return data[4:] if data[4:5] and data[4] >> 4 in (4, 6) else None
    return None


def _after_ethertype(data: bytes, offset: int) -> bytes | None:
    ethertype = _u16(data, offset)
    while ethertype in _VLAN_TAGS:
        offset += 4
        ethertype = _u16(data, offset)
    if ethertype == _PPPOE:
        # RFC 2516 §4: 6 bytes of PPPoE, 2 of PPP protocol (0x0021 IPv4, 0x0057 IPv6).
        return data[offset + 10 :] if _u16(data, offset + 8) in (0x0021, 0x0057) else None
    return data[offset + 2 :] if ethertype in _IP_ETHERTYPES else None


def _u16(data: bytes, offset: int) -> int:
    """Return two bytes as a number; -1 where they are not there."""
    octets = data[offset : offset + 2]
    return int.from_bytes(octets, "big") if len(octets) == 2 else -1


# --- IP -----------------------------------------------------------------------------------------


def parse_ip(data: bytes) -> IpPacket | None:
    """Take the IP headers off; None if this is no IP packet."""
    if not data:
        return None
    version = data[0] >> 4
    if version == 4:
        return _parse_ipv4(data)
    if version == 6:
        return _parse_ipv6(data)
    return None


def _parse_ipv4(data: bytes) -> IpPacket | None:
    header_bytes = (data[0] & 0x0F) * 4
    if header_bytes < 20 or len(data) < header_bytes:
        return None
    # Segmentation offload may leave a total length of 0 for what exceeds 64 KiB.
    total = _u16(data, 2) or len(data)
    fragment = _u16(data, 6)
    return IpPacket(
        source=IPv4Address(data[12:16]),
        destination=IPv4Address(data[16:20]),
        protocol=data[9],
        payload=data[header_bytes : max(total, header_bytes)],
        identification=_u16(data, 4),
        offset=(fragment & 0x1FFF) * 8,
        more=bool(fragment & 0x2000),
        is_cut=total > len(data),
    )


_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_DESTINATION: Final = 60


def _parse_ipv6(data: bytes) -> IpPacket | None:
    if len(data) < 40:
        return None
    total = 40 + (_u16(data, 4) or len(data) - 40)
    end = min(total, len(data))
    protocol, position = data[6], 40
    identification, offset, more = 0, 0, False
    while protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
        if position + 8 > end:
            return None
        following = data[position]
        if protocol == _FRAGMENT:
            field_value = _u16(data, position + 2)
            offset, more = field_value & 0xFFF8, bool(field_value & 1)
            identification = int.from_bytes(data[position + 4 : position + 8], "big")
            position += 8
            protocol = following
            if offset:
                break
            continue
        position += (data[position + 1] + 1) * 8
        protocol = following
    return IpPacket(
        source=IPv6Address(data[8:24]),
        destination=IPv6Address(data[24:40]),
        protocol=protocol,
        payload=data[position:end],
        identification=identification,
        offset=offset,
        more=more,
        is_cut=total > len(data),
    )


@dataclass(slots=True)
class _Pending:
    parts: dict[int, bytes] = field(default_factory=dict)
    total: int = 0
    """Known once the last fragment is here."""
    protocol: int = 0
    is_cut: bool = False


class Defragmenter:
    """Puts IP fragments together (RFC 791 §3.2, RFC 8200 §4.5), bounded in number and size."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[IpAddress, IpAddress, int, int], _Pending] = OrderedDict()

    def add(self, packet: IpPacket) -> IpPacket | None:
        """Return the packet if it is whole, or whole now."""
        if not packet.more and not packet.offset:
            return packet
        # IPv6 later fragments repeat the first one's next header only by convention: keep it out of the key.
        protocol = packet.protocol if packet.source.version == 4 else 0
        key = (packet.source, packet.destination, protocol, packet.identification)
        pending = self._pending.setdefault(key, _Pending())
        if packet.offset + len(packet.payload) > MAX_PACKET_BYTES:
            del self._pending[key]
            return None
        pending.parts[packet.offset] = packet.payload
        pending.is_cut = pending.is_cut or packet.is_cut
        if packet.offset == 0:
            pending.protocol = packet.protocol
        if not packet.more:
            pending.total = packet.offset + len(packet.payload)
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        payload = _joined(pending)
        if payload is None:
            return None
        del self._pending[key]
        return IpPacket(packet.source, packet.destination, pending.protocol, payload, is_cut=pending.is_cut)


def _joined(pending: _Pending) -> bytes | None:
    """Return the whole payload, or None while something is missing."""
    if not pending.total:
        return None
    joined = bytearray()
    for offset in sorted(pending.parts):
        if offset > len(joined):
            return None
        joined[offset:] = pending.parts[offset]
    return bytes(joined) if len(joined) >= pending.total else None


# --- UDP, and what is ours ------------------------------------------------------------------------


class Finder:
    """Finds IKE, ESP and AH in the frames of one capture."""

    def __init__(self) -> None:
        self._defragmenter = Defragmenter()

    def find(self, frame: Frame) -> Found | None:
        """Return what of ours this frame holds or completes."""
        data = strip_link_layer(frame.link_type, frame.data)
        packet = None if data is None else parse_ip(data)
        if packet is None:
            return None
        whole = self._defragmenter.add(packet)
        if whole is None:
            return None
        if whole.protocol == _ESP:
            return _found(Kind.ESP, frame, whole, whole.payload)
        if whole.protocol == _AH:
            return _found(Kind.AH, frame, whole, whole.payload)
        return _find_in_udp(frame, whole) if whole.protocol == _UDP else None


def _find_in_udp(frame: Frame, packet: IpPacket) -> Found | None:
    if len(packet.payload) < 8:
        return None
    ports = (_u16(packet.payload, 0), _u16(packet.payload, 2))
    length = _u16(packet.payload, 4)
    data = packet.payload[8:length] if length >= 8 else packet.payload[8:]
    if NAT_T_PORT in ports:
        # RFC 3948 §2: a keepalive, IKE behind the non-ESP marker, or ESP.
        if data == b"\xff":
            return _found(Kind.KEEPALIVE, frame, packet, data, ports)
        if data[:4] == NON_ESP_MARKER:
            return _found(Kind.IKE, frame, packet, data[4:], ports)
        return _found(Kind.ESP, frame, packet, data, ports)
    if IKE_PORT in ports:
        return _found(Kind.IKE, frame, packet, data, ports)
    return None


def _found(kind: Kind, frame: Frame, packet: IpPacket, data: bytes, ports: tuple[int, int] = (0, 0)) -> Found:
    return Found(
        kind=kind,
        frame=frame.number,
        time_ns=frame.time_ns,
        source=packet.source,
        destination=packet.destination,
        source_port=ports[0],
        destination_port=ports[1],
        data=data,
        is_cut=packet.is_cut or frame.is_cut,
    )
