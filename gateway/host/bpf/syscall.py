"""The bpf(2) system call: commands, and the one function that makes it.

Attributes are packed by the caller (`union bpf_attr` of <linux/bpf.h>); what the kernel writes back is read
from the same buffer. The caller keeps the buffers whose addresses are in them until the call returns.
"""

import ctypes
import errno
import os
import platform
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from gateway.host.bpf.errors import BpfError, KernelRefusedError

NAME_BYTES: Final = 15
"""The kernel keeps so much of the name of a map or program."""

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    """`enum bpf_cmd`, of which we use these."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


#: A buffer of ctypes: mypy knows it by this name only.
Buffer = ctypes.Array[ctypes.c_char]


def buffer(content: bytes | int) -> Buffer:
    """Return memory the kernel may read and write: a copy of `content`, or so many zero bytes."""
    if isinstance(content, int):
        return ctypes.create_string_buffer(max(content, 1))
    return ctypes.create_string_buffer(content, max(len(content), 1))


def address(memory: Buffer) -> int:
    """Return where `memory` is."""
    return ctypes.addressof(memory)


def call(command: Command, attributes: Buffer) -> int:
    """Make the call and return its result, or minus the errno.

    A call that a signal interrupted (a test run, a verification) is made again.

    Raises:
        BpfError: We do not know the number of bpf(2) on this machine.
    """
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise BpfError(f"the number of bpf(2) on {platform.machine()} is not known to us")
    while True:
        result: int = _libc.syscall(number, int(command), attributes, ctypes.sizeof(attributes))
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code not in (errno.EINTR, errno.EAGAIN):
            return -code


def require(result: int, what: str, log: str = "") -> int:
    """Return `result`, which is not negative.

    Raises:
        KernelRefusedError: It is.
    """
    if result < 0:
        raise KernelRefusedError(what, -result, log)
    return result


def possible_cpus() -> int:
    """Return how many values an entry of a per-CPU map has."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return int(ranges.replace(",", "-").rsplit("-", maxsplit=1)[-1]) + 1


class KernelObject:
    """Something in the kernel that a file descriptor of ours keeps alive.

    Close it, or use it as a context manager: what is pinned, attached or used by a program lives on.
    """

    __slots__ = ("_fd", "name")

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name

    @property
    def fd(self) -> int:
        """Return the file descriptor, which stays ours.

        Raises:
            BpfError: It was closed.
        """
        if self._fd < 0:
            raise BpfError(f"{self.name} is closed")
        return self._fd

    def close(self) -> None:
        """Give up the file descriptor; harmless when done before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
