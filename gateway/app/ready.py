"""How a child tells its supervisor that it serves (a byte on an inherited pipe), and how it is stopped."""

import asyncio
import os
import signal
from typing import Final

READY_VARIABLE: Final = "IPSECGW_READY_FD"


def is_supervised() -> bool:
    """Say whether a supervisor waits for `announce_ready`."""
    return READY_VARIABLE in os.environ


def announce_ready() -> None:
    """Tell the supervisor, if there is one; only the first call does anything."""
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is None:
        return
    os.write(int(descriptor), b"1")
    os.close(int(descriptor))


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set.

    A terminal sends SIGINT to the supervisor and its children at once; only the supervisor knows the order
    in which they have to end, so a child leaves SIGINT alone. Call it before `announce_ready`.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if is_supervised() else stopping.set)
    return stopping
