"""Tell when links, addresses or routes of this machine have changed, once they have settled.

What exactly changed is not told: who follows looks at everything anew, which is right when messages were lost
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from gateway.host.network import drain_change_monitor, open_change_monitor

SETTLE_S: Final = 0.2
"""Changes come in bursts: one look is enough for all that come within this time of the first."""


class NetworkWatch:
    """Call `follow` in the event loop after each burst of changes.

    Args:
        follow: Must not block; called at most once in `SETTLE_S`.
    """

    def __init__(self, follow: Callable[[], object]) -> None:
        self._follow = follow
        self._monitor: socket.socket | None = None
        self._settling: asyncio.TimerHandle | None = None

    def start(self, *, with_routes: bool = True) -> None:
        """Begin to listen, in the network namespace of the calling thread.

        Raises:
            OSError: The kernel gives no netlink socket.
        """
        self._monitor = open_change_monitor(with_routes=with_routes)
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._on_change)

    def close(self) -> None:
        """Stop listening; `follow` is not called any more. May be called twice, and without `start`."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None

    def _on_change(self) -> None:
        assert self._monitor is not None
        drain_change_monitor(self._monitor)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._on_settled)

    def _on_settled(self) -> None:
        self._settling = None
        self._follow()
