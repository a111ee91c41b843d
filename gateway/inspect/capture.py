"""Reading frames out of pcap and pcapng files, either also gzipped, in any byte order.

Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. The file is read as a stream, and no record may
be longer than `MAX_RECORD_BYTES`, so that memory stays bounded whatever a file says of itself.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from gateway.inspect.errors import InspectError

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
_NANO: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One captured frame."""

    number: int
    """From 1, as analysers count."""
    time_ns: int
    """Nanoseconds since 1970; 0 where the file has no time for it."""
    link_type: int
    """LINKTYPE_ number of www.tcpdump.org/linktypes.html."""
    data: bytes
    is_cut: bool = False
    """The capture kept less than was on the wire (snap length)."""


class CaptureCut(InspectError):
    """The file ends in the middle of a record; everything before it has been read."""


def read_capture(path: Path) -> Iterator[Frame]:
    """Yield the frames of a capture file.

    Raises:
        InspectError: The file cannot be read, or is no capture.
        CaptureCut: The file ends in the middle of a record.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if zipped:
                with gzip.open(file) as unzipped:
                    # GzipFile is a BinaryIO in all but its declared base class.
                    yield from _read_stream(cast(BinaryIO, unzipped), path)
            else:
                yield from _read_stream(file, path)
    except EOFError:
        raise CaptureCut(f"{path}: the gzip data ends too early") from None
    except (OSError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InspectError(f"{path}: {reason}") from None


def _read_stream(file: BinaryIO, path: Path) -> Iterator[Frame]:
    magic = file.read(4)
    if magic == _SECTION:
        return _read_pcapng(_Stream(file, path))
    form = _PCAP_FORMS.get(magic)
    if form is None:
        raise InspectError(f"{path}: not a pcap or pcapng file (it begins with {magic.hex() or 'nothing'})")
    return _read_pcap(_Stream(file, path), *form)


class _Stream:
    """Exact reads from a file."""

    __slots__ = ("_file", "path")

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path

    def exactly(self, size: int) -> bytes:
        if size > MAX_RECORD_BYTES:
            raise InspectError(f"{self.path}: a record claims {size} bytes, the file is damaged")
        data = self._file.read(size)
        if len(data) < size:
            raise CaptureCut(f"{self.path}: the file ends in the middle of a record")
        return data

    def exactly_or_end(self, size: int) -> bytes | None:
        """Return None where the file ends before the first byte."""
        data = self._file.read(size)
        if data and len(data) < size:
            raise CaptureCut(f"{self.path}: the file ends in the middle of a record")
        return data or None


# --- pcap ---------------------------------------------------------------------------------------

_PCAP_FORMS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
"""Magic number to byte order and nanoseconds per tick."""


def _read_pcap(stream: _Stream, order: str, tick_ns: int) -> Iterator[Frame]:
    header = stream.exactly(20)
    # The upper 16 bits of the last word say things about a frame check sequence.
    link_type = struct.unpack(order + "I", header[16:])[0] & 0xFFFF
    number = 0
    while (head := stream.exactly_or_end(16)) is not None:
        seconds, ticks, captured, original = struct.unpack(order + "IIII", head)
        number += 1
        yield Frame(
            number=number,
            time_ns=seconds * _NANO + ticks * tick_ns,
            link_type=link_type,
            data=stream.exactly(captured),
            is_cut=captured < original,
        )


# --- pcapng -------------------------------------------------------------------------------------

_SECTION: Final = b"\x0a\x0d\x0d\x0a"
_INTERFACE: Final = 1
_OLD_PACKET: Final = 2
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_bytes: int
    ticks_per_second: int = 1_000_000
    offset_s: int = 0


def _read_pcapng(stream: _Stream) -> Iterator[Frame]:
    order = _read_section(stream)
    interfaces: list[_Interface] = []
    number = 0
    while (head := stream.exactly_or_end(4)) is not None:
        if head == _SECTION:
            order = _read_section(stream)
            interfaces = []
            continue
        block_type = struct.unpack(order + "I", head)[0]
        body = _read_block(stream, order)
        if block_type == _INTERFACE:
            interfaces.append(_parse_interface(stream, order, body))
        elif block_type in (_ENHANCED_PACKET, _SIMPLE_PACKET, _OLD_PACKET):
            number += 1
            packet = _parse_packet(stream, order, body, block_type, interfaces)
            yield replace(packet, number=number)


def _read_section(stream: _Stream) -> str:
    """Read the rest of a Section Header Block; return its byte order."""
    head = stream.exactly(8)
    orders = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
    order = orders.get(head[4:])
    if order is None:
        raise InspectError(f"{stream.path}: the pcapng section header has no byte-order magic")
    length = struct.unpack(order + "I", head[:4])[0]
    if length < 28 or length % 4:
        raise InspectError(f"{stream.path}: a pcapng section header claims {length} bytes")
    stream.exactly(length - 12)
    return order


def _read_block(stream: _Stream, order: str) -> bytes:
    """Return the body of a block whose type has been read."""
    length = struct.unpack(order + "I", stream.exactly(4))[0]
    if length < 12 or length % 4:
        raise InspectError(f"{stream.path}: a pcapng block claims {length} bytes")
    body = stream.exactly(length - 8)
    if struct.unpack(order + "I", body[-4:])[0] != length:
        raise InspectError(f"{stream.path}: the two lengths of a pcapng block differ")
    return body[:-4]


def _parse_interface(stream: _Stream, order: str, body: bytes) -> _Interface:
    if len(body) < 8:
        raise InspectError(f"{stream.path}: a pcapng interface block is too short")
    link_type, _, snap_bytes = struct.unpack(order + "HHI", body[:8])
    ticks, offset_s = 1_000_000, 0
    position = 8
    while position + 4 <= len(body):
        code, size = struct.unpack(order + "HH", body[position : position + 4])
        value = body[position + 4 : position + 4 + size]
        position += 4 + (size + 3) // 4 * 4
        if code == 0:
            break
        if code == _OPTION_TSRESOL and len(value) == 1:
            exponent = value[0] & 0x7F
            ticks = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == _OPTION_TSOFFSET and len(value) == 8:
            offset_s = struct.unpack(order + "q", value)[0]
    return _Interface(link_type, snap_bytes, ticks, offset_s)


def _parse_packet(
    stream: _Stream, order: str, body: bytes, block_type: int, interfaces: list[_Interface]
) -> Frame:
    """Return the frame of a packet block, its number left to the caller."""
    head_bytes = 4 if block_type == _SIMPLE_PACKET else 20
    if len(body) < head_bytes:
        raise InspectError(f"{stream.path}: a pcapng packet block is too short")
    interface_id, time_ns = 0, 0
    if block_type == _SIMPLE_PACKET:
        original = captured = struct.unpack(order + "I", body[:4])[0]
        if interfaces and interfaces[0].snap_bytes:
            captured = min(original, interfaces[0].snap_bytes)
    else:
        layout = "IIIII" if block_type == _ENHANCED_PACKET else "HxxIIII"
        interface_id, high, low, captured, original = struct.unpack(order + layout, body[:20])
    if interface_id >= len(interfaces):
        raise InspectError(f"{stream.path}: a packet is of interface {interface_id}, which is not described")
    interface = interfaces[interface_id]
    if captured > len(body) - head_bytes:
        raise InspectError(f"{stream.path}: a packet claims {captured} bytes, more than its block has")
    if block_type != _SIMPLE_PACKET:
        time_ns = (high << 32 | low) * _NANO // interface.ticks_per_second + interface.offset_s * _NANO
    return Frame(
        number=0,
        time_ns=time_ns,
        link_type=interface.link_type,
        data=body[head_bytes : head_bytes + captured],
        is_cut=captured < original,
    )
