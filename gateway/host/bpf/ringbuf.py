"""Read what BPF programs write into a ring buffer (Documentation/bpf/ringbuf.rst of Linux)."""

import mmap
import struct
from typing import Final

from gateway.host.bpf.maps import Map

_HEADER_BYTES: Final = 8
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30


class RingReader:
    """The only consumer of one ring buffer.

    Its file descriptor (`fileno`) is readable when there is a record.
    """

    def __init__(self, ring: Map) -> None:
        self._ring = ring
        self._size = ring.spec.max_entries
        # Our position on a page of its own, then the producer's and, twice behind one another, the data.
        self._consumer = mmap.mmap(ring.fd, mmap.PAGESIZE)
        self._producer = mmap.mmap(
            ring.fd,
            mmap.PAGESIZE + 2 * self._size,
            prot=mmap.PROT_READ,
            offset=mmap.PAGESIZE,
        )

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._ring.fd

    def read(self) -> list[bytes]:
        """Return the records that are there, oldest first, and make room for others."""
        found = []
        (position,) = struct.unpack_from("=Q", self._consumer)
        (end,) = struct.unpack_from("=Q", self._producer)
        while position < end:
            start = mmap.PAGESIZE + position % self._size
            (head,) = struct.unpack_from("=I", self._producer, start)
            if head & _BUSY:
                break
            length = head & ~(_BUSY | _DISCARDED)
            if not head & _DISCARDED:
                found.append(self._producer[start + _HEADER_BYTES : start + _HEADER_BYTES + length])
            position += (_HEADER_BYTES + length + 7) // 8 * 8
        struct.pack_into("=Q", self._consumer, 0, position)
        return found

    def close(self) -> None:
        """Unmap the ring."""
        self._producer.close()
        self._consumer.close()
