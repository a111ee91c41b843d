"""How a process tells who started it that it serves and lives, and how it is stopped.

A child of `ipsecgw run` writes a byte to an inherited pipe. Under systemd the process tells the service
manager by datagrams to $NOTIFY_SOCKET (sd_notify(3)), and again and again while its event loop turns, where
the unit has WatchdogSec=.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from gateway.observe.logs import get_logger

READY_VARIABLE: Final = "IPSECGW_READY_FD"

_NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"
_WATCHDOG_VARIABLES: Final = ("WATCHDOG_USEC", "WATCHDOG_PID")

_log = get_logger("app")


def is_supervised() -> bool:
    """Say whether a supervisor waits for `serving`."""
    return READY_VARIABLE in os.environ


def environment_of_child(descriptor: int) -> dict[str, str]:
    """Return our environment for a child that tells `descriptor`, not the service manager, that it serves."""
    ours_alone = (_NOTIFY_VARIABLE, *_WATCHDOG_VARIABLES)
    inherited = {name: value for name, value in os.environ.items() if name not in ours_alone}
    return {**inherited, READY_VARIABLE: str(descriptor)}


@asynccontextmanager
async def serving() -> AsyncIterator[None]:
    """Tell whoever started us that we serve, keep telling that we live, and tell when we begin to end."""
    _tell_supervisor()
    notify("READY=1")
    interval_s = watchdog_interval_s(os.environ, os.getpid())
    alive = None if interval_s is None else asyncio.create_task(_keep_telling(interval_s), name="watchdog")
    try:
        yield
    finally:
        notify("STOPPING=1")
        if alive is not None:
            alive.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await alive


def notify(state: str) -> None:
    """Send one state to the service manager, if there is one; it not listening is no reason to end."""
    address = os.environ.get(_NOTIFY_VARIABLE)
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError as error:
            _log.warning("service_manager_not_told", state=state, reason=error.strerror)


def watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Return how often the service manager wants to hear of process `pid`: twice in its limit; or never."""
    limit, whose = (environment.get(name, "") for name in _WATCHDOG_VARIABLES)
    if not limit.isdecimal() or int(limit) == 0 or (whose and whose != str(pid)):
        return None
    return int(limit) / 1e6 / 2


async def _keep_telling(interval_s: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


def _tell_supervisor() -> None:
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is None:
        return
    os.write(int(descriptor), b"1")
    os.close(int(descriptor))


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set.

    A terminal sends SIGINT to the supervisor and its children at once; only the supervisor knows the order
    in which they have to end, so a child leaves SIGINT alone. Call it before `serving`.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if is_supervised() else stopping.set)
    return stopping
