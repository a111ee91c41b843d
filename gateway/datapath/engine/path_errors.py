"""Hear what routers say about the packets of espd: that they are too big for the path.

The kernel believes an ICMP error about ESP or AH only if a raw socket of that protocol is there, looks up the
route with its mark, and then tells the socket. These sockets are there for that; they get no packets, which
are espd's. Of AH over IPv6 the kernel tells nobody: to it AH is an extension header.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

from gateway.host.errors import HostError
from gateway.host.sockets import (
    IP_MTU_DISCOVER,
    IPV6_MTU_DISCOVER,
    KEEP_NOTHING,
    attach_filter,
    bypass_xfrm,
    set_mark,
)
from gateway.ipsec.sa import IpsecProtocol

_IP_PMTUDISC_DO: Final = 2
_IPV6_RECVERR: Final = 25
_MAX_ERRORS: Final = 1000
_FAMILIES: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_MTU_DISCOVER),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER),
}


class PathErrors:
    """Raw sockets for ESP and AH that only hear errors.

    Args:
        mark: Of what espd sends.
        follow: Called after an error; must not block.
    """

    def __init__(self, mark: int, follow: Callable[[], object]) -> None:
        self._mark = mark
        self._follow = follow
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Begin to listen.

        Raises:
            HostError: This process may not.
        """
        loop = asyncio.get_running_loop()
        for family, (level, discover) in _FAMILIES.items():
            for protocol in IpsecProtocol:
                kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                try:
                    raw = socket.socket(family, kind, protocol)
                except OSError as error:
                    if error.errno == errno.EAFNOSUPPORT:
                        continue
                    raise HostError(f"cannot open a raw socket: {error.strerror}") from error
                self._sockets.append(raw)
                attach_filter(raw, KEEP_NOTHING)
                set_mark(raw, self._mark)
                bypass_xfrm(raw)
                raw.setsockopt(level, discover, _IP_PMTUDISC_DO)
                if family == socket.AF_INET6:
                    raw.setsockopt(level, _IPV6_RECVERR, 1)
                loop.add_reader(raw.fileno(), self._on_error, raw)

    def close(self) -> None:
        """Stop listening."""
        for raw in self._sockets:
            asyncio.get_running_loop().remove_reader(raw.fileno())
            raw.close()
        self._sockets.clear()

    def _on_error(self, raw: socket.socket) -> None:
        # The error itself, and those in the queue: the kernel has drawn its conclusions already.
        with contextlib.suppress(OSError):
            raw.recv(0)
        with contextlib.suppress(OSError):
            for _ in range(_MAX_ERRORS):
                raw.recvmsg(0, 0, socket.MSG_ERRQUEUE)
        self._follow()
