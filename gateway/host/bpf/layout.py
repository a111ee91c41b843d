"""Layouts of C structs as Python records see them: encode, decode, and compare with BTF."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from gateway.host.bpf.btf import Btf, Kind
from gateway.host.bpf.errors import AbiMismatchError

IpAddress = IPv4Address | IPv6Address

T = TypeVar("T")

_WHOLE: Final = frozenset((Kind.INT, Kind.ENUM, Kind.UNION))
"""What is read as one value, whatever is inside."""
_MAPPED: Final = bytes(10) + b"\xff\xff"
"""IPv4 in 16 octets starts so (RFC 4291 §2.5.5.2)."""


class Field(NamedTuple):
    """How one type of field is written. `Any`: each writes and reads another Python type."""

    size: int
    alignment: int
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


def encode_address(address: IpAddress) -> bytes:
    """Return an address as `struct gw_address` has it: IPv4 mapped into IPv6."""
    return address.packed if address.version == 6 else _MAPPED + address.packed


def decode_address(octets: bytes) -> IpAddress:
    """Return the address in a `struct gw_address`."""
    return IPv4Address(octets[12:]) if octets.startswith(_MAPPED) else IPv6Address(octets)


def _number(size: int, order: Literal["little", "big"] = "little") -> Field:
    def write(value: int) -> bytes:
        return int(value).to_bytes(size, order)

    def read(octets: bytes) -> int:
        return int.from_bytes(octets, order)

    return Field(size, size, write, read)


# BPF objects are read here in little-endian only (spec.py).
U8: Final = _number(1)
U16: Final = _number(2)
U32: Final = _number(4)
U64: Final = _number(8)
BE32: Final = _number(4, "big")
MAC: Final = Field(6, 1, bytes, bytes)
ADDRESS: Final = Field(16, 8, encode_address, decode_address)
ADDRESS_OCTETS: Final = Field(16, 1, lambda address: address.packed, IPv6Address)
ADDRESS4: Final = Field(4, 4, lambda address: address.packed, IPv4Address)


@dataclass(frozen=True, slots=True)
class Layout(Generic[T]):
    """One struct: its name in C (none: a number), the record it becomes, its fields in order.

    A field has the name it has in C, and without an ending `_be` the one it has in the record; `padding` is
    in C only.
    """

    c_name: str
    record: Callable[..., T]
    fields: tuple[tuple[str, Field], ...]
    offsets: tuple[int, ...] = field(init=False)
    """Of the fields, in bytes, as a C compiler aligns them."""
    size: int = field(init=False)
    """Of the struct in bytes, with those that align its end."""

    def __post_init__(self) -> None:
        offsets, end = [], 0
        for _, kind in self.fields:
            offsets.append(_aligned(end, kind.alignment))
            end = offsets[-1] + kind.size
        object.__setattr__(self, "offsets", tuple(offsets))
        object.__setattr__(self, "size", _aligned(end, max(kind.alignment for _, kind in self.fields)))

    def encode(self, record: T) -> bytes:
        """Return the struct.

        Raises:
            OverflowError: A number does not fit its field.
        """
        content = bytearray(self.size)
        for (name, kind), offset in zip(self.fields, self.offsets, strict=True):
            if name != "padding":
                content[offset : offset + kind.size] = kind.write(getattr(record, _record_name(name)))
        return bytes(content)

    def decode(self, content: bytes) -> T:
        """Return the record in a struct."""
        return self.record(
            **{
                _record_name(name): kind.read(content[offset : offset + kind.size])
                for (name, kind), offset in zip(self.fields, self.offsets, strict=True)
                if name != "padding"
            }
        )

    def check(self, btf: Btf, type_id: int, where: str) -> None:
        """Compare with the type that C has.

        Raises:
            AbiMismatchError: A name, an offset or a size differs.
        """
        found = btf.resolve(type_id)
        if found.kind in _WHOLE and self.size == btf.size_of(type_id) and self.c_name in ("", found.name):
            return
        if found.kind is not Kind.STRUCT or found.name != self.c_name:
            raise AbiMismatchError(f"{where} is {found.kind.name} {found.name} in C, we want {self.c_name}")
        mine = [(name, offset) for (name, _), offset in zip(self.fields, self.offsets, strict=True)]
        theirs = [(member.name, member.offset) for member in found.members]
        if mine != theirs or self.size != btf.size_of(type_id):
            raise AbiMismatchError(
                f"{where}: {self.c_name} has fields {theirs} in {btf.size_of(type_id)} bytes in C, "
                f"here {mine} in {self.size}"
            )


def nested(inside: Layout[Any], alignment: int) -> Field:
    """Return a struct as a field of another one. `Any`: each has a record of its own."""
    return Field(inside.size, alignment, inside.encode, inside.decode)


def _record_name(name: str) -> str:
    return name.removesuffix("_be")


def _aligned(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) // alignment * alignment
