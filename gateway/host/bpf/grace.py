"""Wait until no program runs any more that saw a map as it was: what RCU calls a grace period."""

import ctypes
import platform
import time
from typing import Final

_NUMBERS: Final = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
"""Of membarrier(2)."""
_GLOBAL: Final = 1
"""MEMBARRIER_CMD_GLOBAL: the kernel waits for a grace period (kernel/sched/membarrier.c)."""
_INSTEAD_S: Final = 0.1
"""Kernels with nohz_full refuse it. A softirq, in which XDP programs run, is over in some milliseconds."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def wait_for_running_programs() -> None:
    """Return when every XDP program that runs now has ended, and its frames are with their device.

    Blocks for some milliseconds. The kernel runs a program, and passes on the frames of a burst, in one
    softirq, which is one read-side critical section of RCU.
    """
    number = _NUMBERS.get(platform.machine())
    if number is None or _libc.syscall(number, _GLOBAL, 0, 0) != 0:
        time.sleep(_INSTEAD_S)
