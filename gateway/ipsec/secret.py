"""Key bytes that never print, compare in constant time and can be wiped (docs/style §8)."""

from hmac import compare_digest
from typing import NoReturn


class Secret:
    """Bytes that must not leak: no repr, no format, no pickle, no ordinary comparison.

    The bytes are kept in a private `bytearray` so that `wipe` can overwrite them. Python may have
    made other copies on the way here; wiping shortens the exposure, it does not end it.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytearray(data)

    def reveal(self) -> bytes:
        """Return a copy of the bytes; the caller must not keep it longer than needed."""
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrite the bytes with zeros and forget their number."""
        self._data[:] = bytes(len(self._data))
        self._data.clear()

    def __len__(self) -> int:
        """Return the number of bytes, which is not a secret."""
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time with another `Secret`; anything else is a mistake."""
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the key

    def __repr__(self) -> str:
        return f"Secret({len(self._data)} bytes)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied; pass the object itself")
