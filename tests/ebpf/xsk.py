"""A small AF_XDP socket in copy mode, as an engine would have: it only receives (<linux/if_xdp.h>)."""

import ctypes
import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

AF_XDP = 44
SOL_XDP = 283
_MMAP_OFFSETS, _RX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING = 1, 2, 4, 5, 6
_PGOFF_RX, _PGOFF_FILL = 0, 0x100000000
_BIND_COPY = 2
_FRAME_BYTES = 2048
_ENTRIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


class XskReceiver:
    """One socket with memory of its own. It is of use in a map when made, and receives when bound."""

    def __init__(self) -> None:
        self.socket = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
        self._memory = mmap.mmap(-1, _ENTRIES * _FRAME_BYTES)
        self._keep = ctypes.c_char.from_buffer(self._memory)
        place = ctypes.addressof(self._keep)
        registration = struct.pack("=QQIIII", place, len(self._memory), _FRAME_BYTES, 0, 0, 0)
        self.socket.setsockopt(SOL_XDP, _UMEM_REG, registration)
        for ring in (_FILL_RING, _COMPLETION_RING, _RX_RING):
            self.socket.setsockopt(SOL_XDP, ring, struct.pack("=I", _ENTRIES))

    @property
    def value(self) -> bytes:
        """Return what a map of AF_XDP sockets takes."""
        return struct.pack("=I", self.socket.fileno())

    def bind(self, interface: str, queue: int) -> None:
        """Begin to receive what is redirected on a queue of an interface."""
        offsets = struct.unpack("=16Q", self.socket.getsockopt(SOL_XDP, _MMAP_OFFSETS, 128))
        self._rx = offsets[0:4]
        fill = offsets[8:12]
        size = max(self._rx[2] + _ENTRIES * 16, fill[2] + _ENTRIES * 8)
        self._rx_ring = mmap.mmap(self.socket.fileno(), size, offset=_PGOFF_RX)
        self._fill_ring = mmap.mmap(self.socket.fileno(), size, offset=_PGOFF_FILL)
        for index in range(_ENTRIES):
            struct.pack_into("=Q", self._fill_ring, fill[2] + index * 8, index * _FRAME_BYTES)
        struct.pack_into("=I", self._fill_ring, fill[0], _ENTRIES)
        address = struct.pack("=HHIII", AF_XDP, _BIND_COPY, socket.if_nametoindex(interface), queue, 0)
        if _libc.bind(self.socket.fileno(), address, len(address)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._taken = 0

    def frames(self, count: int, timeout_s: float = 30.0) -> Iterator[bytes]:
        """Yield so many frames, in order.

        Raises:
            TimeoutError: Fewer came.
        """
        for _ in range(count):
            if not select.select([self.socket], [], [], timeout_s)[0]:
                raise TimeoutError("no frame came to the AF_XDP socket")
            place = self._rx[2] + self._taken % _ENTRIES * 16
            start, length, _ = struct.unpack_from("=QII", self._rx_ring, place)
            yield self._memory[start : start + length]
            self._taken += 1
            struct.pack_into("=I", self._rx_ring, self._rx[1], self._taken)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def receiver() -> Iterator[XskReceiver]:
    made = XskReceiver()
    try:
        yield made
    finally:
        made.close()
