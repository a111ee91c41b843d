"""Bounded reading of bytes, the only code of this room that indexes into a message; and packing them.

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
        start = self._position
        self._position = self._end
        return self._data[start : self._end]

    def sub(self, size: int, what: str) -> "Reader":
        """Return a reader bounded to the next `size` bytes, and pass over them."""
        start = self._position
        stop = start + size
        if size < 0 or stop > self._end:
            raise self._short(size)
        self._position = stop
        return Reader(self._data, what, start, stop)

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._position != self._end:
            raise InvalidSyntax(f"{self._what}: {self._end - self._position} bytes too many")

    def _short(self, size: int) -> InvalidSyntax:
        return InvalidSyntax(f"{self._what}: {size} bytes wanted, {self._end - self._position} left")


def split(layout: struct.Struct, data: bytes, what: str) -> tuple[tuple[Any, ...], bytes]:
    """Return the fields of a fixed part that `data` begins with, and what follows it.

    Raises:
        InvalidSyntax: There is less.
    """
    if len(data) < layout.size:
        raise InvalidSyntax(f"{what}: {layout.size} bytes wanted, {len(data)} left")
    return layout.unpack_from(data), data[layout.size :]


def pack(layout: struct.Struct, *fields: int | bytes) -> bytes:
    """Return a fixed part, whose layout is in network byte order.

    Raises:
        LocalError: A field does not fit.
    """
    try:
        return layout.pack(*fields)
    except struct.error as error:
        raise LocalError(f"{fields} do not fit into a part of an IKE message: {error}") from None
