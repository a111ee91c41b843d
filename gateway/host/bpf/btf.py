"""BTF, the type information of a BPF object: what the maps and the structs in them look like.

Parses the `.BTF` section (Documentation/bpf/btf.rst of Linux) into frozen records and answers questions about
layout. Not for relocations, and no kernel is touched.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gateway.host.bpf.errors import ObjectFormatError

_MAGIC: Final = 0xEB9F
_POINTER_BYTES: Final = 8
_MAX_MODIFIERS: Final = 64
"""So many typedefs and qualifiers may stand before a type: more is a loop."""


class Kind(IntEnum):
    """Kinds of types (<linux/btf.h>)."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_TRANSPARENT: Final = frozenset(
    (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG, Kind.DECL_TAG)
)
#: Bytes that follow a type's header: fixed, and for each of its `vlen` items.
_TAIL_BYTES: Final = {
    Kind.INT: (4, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (4, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 12),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a struct or union, one value of an enum, or one variable of a section."""

    name: str
    type_id: int
    """0 for a value of an enum."""
    offset: int
    """Of a field: in bytes from the start. Of an enum's member: its value. Of a variable: in its section."""
    size: int = 0
    """Of a variable: bytes."""


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type."""

    kind: Kind
    name: str
    size_or_type: int
    """The size in bytes, or the type referred to: which one, the kind decides."""
    members: tuple[Member, ...] = ()
    element_type: int = 0
    """Of an array."""
    length: int = 0
    """Of an array: elements."""


@dataclass(frozen=True, slots=True)
class Btf:
    """All types of an object; a type's id is its place."""

    types: tuple[BtfType, ...]

    def find(self, kind: Kind, name: str) -> int | None:
        """Return the id of the type of this kind and name."""
        for type_id, candidate in enumerate(self.types):
            if candidate.kind is kind and candidate.name == name:
                return type_id
        return None

    def resolve(self, type_id: int) -> BtfType:
        """Return a type without its typedefs and qualifiers.

        Raises:
            ObjectFormatError: They go round in a circle, or out of the table.
        """
        for _ in range(_MAX_MODIFIERS):
            if not 0 <= type_id < len(self.types):
                raise ObjectFormatError(f"BTF type {type_id} does not exist: there are {len(self.types)}")
            found = self.types[type_id]
            if found.kind not in _TRANSPARENT:
                return found
            type_id = found.size_or_type
        raise ObjectFormatError(f"BTF type {type_id} refers to itself")

    def size_of(self, type_id: int) -> int:
        """Return the bytes a value of this type takes.

        Raises:
            ObjectFormatError: It has no size.
        """
        found = self.resolve(type_id)
        if found.kind is Kind.PTR:
            return _POINTER_BYTES
        if found.kind is Kind.ARRAY:
            return found.length * self.size_of(found.element_type)
        if found.kind in (
            Kind.INT,
            Kind.STRUCT,
            Kind.UNION,
            Kind.ENUM,
            Kind.ENUM64,
            Kind.FLOAT,
            Kind.DATASEC,
        ):
            return found.size_or_type
        raise ObjectFormatError(f"a BTF type of kind {found.kind.name} has no size")

    def struct(self, name: str) -> BtfType | None:
        """Return the struct of this name."""
        found = self.find(Kind.STRUCT, name)
        return None if found is None else self.types[found]

    def enum(self, name: str) -> dict[str, int] | None:
        """Return the names and values of an enum."""
        found = self.find(Kind.ENUM, name)
        return None if found is None else {item.name: item.offset for item in self.types[found].members}

    def pointed_at(self, type_id: int) -> int:
        """Return the id of what a pointer type points at.

        Raises:
            ObjectFormatError: It is no pointer.
        """
        found = self.resolve(type_id)
        if found.kind is not Kind.PTR:
            raise ObjectFormatError(f"a pointer was expected in BTF, not {found.kind.name}")
        return found.size_or_type


def parse_btf(section: bytes) -> Btf:
    """Parse a `.BTF` section.

    Raises:
        ObjectFormatError: It is malformed, or has a kind we do not know.
    """
    types_at, types_end, strings = _parse_header(section)
    types = [BtfType(Kind.VOID, "void", 0)]
    for offset, end, kind, name, info, size_or_type in _walk(section, types_at, types_end, strings):
        types.append(_parse_type(section[offset:end], kind, name, (info, size_or_type), strings))
    return Btf(tuple(types))


def find_function_id(section: bytes, name: str) -> int | None:
    """Return the type id of a function in BTF as large as the kernel's, without keeping its types.

    Raises:
        ObjectFormatError: The BTF is malformed.
    """
    types_at, types_end, strings = _parse_header(section)
    for type_id, (_, _, kind, found, _, _) in enumerate(
        _walk(section, types_at, types_end, strings), start=1
    ):
        if kind is Kind.FUNC and found == name:
            return type_id
    return None


def _parse_header(section: bytes) -> tuple[int, int, bytes]:
    try:
        magic, version, _flags, header_bytes, types_at, types_bytes, strings_at, strings_bytes = (
            struct.unpack_from("<HBBIIIII", section)
        )
    except struct.error as error:
        raise ObjectFormatError(f"the BTF is {len(section)} bytes long: it has no header") from error
    if (magic, version) != (_MAGIC, 1):
        raise ObjectFormatError(
            f"BTF starts with magic 0x{magic:04x} version {version}, want 0xeb9f version 1"
        )
    first = header_bytes + types_at
    strings = section[header_bytes + strings_at :][:strings_bytes]
    if len(strings) != strings_bytes or first + types_bytes > len(section):
        raise ObjectFormatError("the BTF is shorter than its header says")
    return first, first + types_bytes, strings


def _walk(
    section: bytes, position: int, end: int, strings: bytes
) -> Iterator[tuple[int, int, Kind, str, int, int]]:
    """Yield each type: start and end of its tail, kind, name, info word, size or type."""
    while position < end:
        try:
            name_at, info, size_or_type = struct.unpack_from("<III", section, position)
            kind = Kind(info >> 24 & 0x1F)
        except (struct.error, ValueError) as error:
            raise ObjectFormatError(f"malformed BTF type at byte {position}: {error}") from error
        fixed, each = _TAIL_BYTES.get(kind, (0, 0))
        start = position + 12
        position = start + fixed + each * (info & 0xFFFF)
        if position > end:
            raise ObjectFormatError("the last BTF type is truncated")
        yield start, position, kind, _string(strings, name_at), info, size_or_type


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if end < 0:
        raise ObjectFormatError(f"BTF string {offset} has no end")
    return strings[offset:end].decode()


def _parse_type(tail: bytes, kind: Kind, name: str, head: tuple[int, int], strings: bytes) -> BtfType:
    info, size_or_type = head
    if kind is Kind.ARRAY:
        element, _index, length = struct.unpack("<III", tail)
        return BtfType(kind, name, size_or_type, element_type=element, length=length)
    members: tuple[Member, ...] = ()
    if kind in (Kind.STRUCT, Kind.UNION):
        # With the kind flag the offset's high octet is the width of a bit field (btf.rst).
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        members = tuple(
            Member(_string(strings, at), type_id, (bits & mask) // 8)
            for at, type_id, bits in struct.iter_unpack("<III", tail)
        )
    elif kind is Kind.ENUM:
        members = tuple(
            Member(_string(strings, at), 0, value) for at, value in struct.iter_unpack("<Ii", tail)
        )
    elif kind is Kind.DATASEC:
        members = tuple(
            Member("", type_id, offset, size) for type_id, offset, size in struct.iter_unpack("<III", tail)
        )
    return BtfType(kind, name, size_or_type, members)
