"""Bounded reading and writing of bytes: the only code of this room that indexes into a message.

Everything a `Reader` cannot deliver is an `InvalidSyntax`; it never returns fewer bytes than asked for.
"""

import struct
from typing import Any, Final

from gateway.ike.errors import InvalidSyntax, LocalError

_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")


class Reader:
    """A cursor over one substructure; it never leaves its own bounds."""

    __slots__ = ("_data", "_end", "_position", "_what")

    def __init__(self, data: bytes, what: str, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._what = what
        self._position = start
        self._end = len(data) if end is None else end

    @property
    def position(self) -> int:
        """Return the offset of the next byte, counted from the start of the underlying data."""
        return self._position

    @property
    def remaining(self) -> int:
        """Return how many bytes are left."""
        return self._end - self._position

    def u8(self) -> int:
        """Return the next byte."""
        start = self._position
        if start >= self._end:
            raise self._short(1)
        self._position = start + 1
        return self._data[start]

    def u16(self) -> int:
        """Return the next two bytes as a number."""
        value: int = self.unpack(_U16)[0]
        return value

    def u32(self) -> int:
        """Return the next four bytes as a number."""
        value: int = self.unpack(_U32)[0]
        return value

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the fields of a fixed part, whose layout is in network byte order."""
        start = self._position
        stop = start + layout.size
        if stop > self._end:
            raise self._short(layout.size)
        self._position = stop
        return layout.unpack_from(self._data, start)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start = self._position
        stop = start + size
        if size < 0 or stop > self._end:
            raise self._short(size)
        self._position = stop
        return self._data[start:stop]

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(self._end - self._position)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes, which RFC 7296 calls RESERVED and wants ignored on receipt."""
        stop = self._position + size
        if stop > self._end:
            raise self._short(size)
        self._position = stop

    def sub(self, size: int, what: str) -> "Reader":
        """Return a reader bounded to the next `size` bytes, and pass over them."""
        start = self._position
        self.skip(size) if size >= 0 else self.take(size)
        return Reader(self._data, what, start, start + size)

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._position != self._end:
            raise InvalidSyntax(f"{self._what}: {self._end - self._position} bytes too many")

    def _short(self, size: int) -> InvalidSyntax:
        return InvalidSyntax(f"{self._what}: {size} bytes wanted, {self._end - self._position} left")


class Writer:
    """Bytes under construction; lengths may be filled in later."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        """Return how many bytes have been written."""
        return len(self._data)

    def u8(self, value: int) -> None:
        """Append one byte."""
        self._integer(value, 1)

    def u16(self, value: int) -> None:
        """Append two bytes."""
        self._integer(value, 2)

    def u32(self, value: int) -> None:
        """Append four bytes."""
        self._integer(value, 4)

    def pack(self, layout: struct.Struct, *fields: int | bytes) -> None:
        """Append a fixed part, whose layout is in network byte order."""
        try:
            self._data += layout.pack(*fields)
        except struct.error as error:
            raise LocalError(f"{fields} do not fit into a part of an IKE message: {error}") from None

    def raw(self, data: bytes) -> None:
        """Append bytes as they are."""
        self._data += data

    def zeros(self, size: int) -> None:
        """Append `size` RESERVED bytes."""
        self._data += bytes(size)

    def set_u16(self, offset: int, value: int) -> None:
        """Fill in two bytes written earlier."""
        self._data[offset : offset + 2] = _encode(value, 2)

    def set_u32(self, offset: int, value: int) -> None:
        """Fill in four bytes written earlier."""
        self._data[offset : offset + 4] = _encode(value, 4)

    def bytes(self) -> bytes:
        """Return what has been written."""
        return bytes(self._data)

    def _integer(self, value: int, size: int) -> None:
        self._data += _encode(value, size)


def _encode(value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "big")
    except OverflowError:
        raise LocalError(f"{value} does not fit into {size} bytes of an IKE message") from None
