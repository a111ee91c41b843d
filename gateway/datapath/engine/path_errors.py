"""Hear what routers say about the packets of espd: that they are too big for the path.

The kernel believes an ICMP error about ESP or AH only if a raw socket of that protocol is there, looks up the
route with its mark, and then tells the socket. These sockets are there for that; they get no packets, which
are espd's. Of AH over IPv6 the kernel learns nothing: to it AH is an extension header. So what routers say of
that is read here, and remembered with the SAs.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Collection
from typing import Final

from gateway.esp.icmp import TooBig, parse_too_big_about_ah
from gateway.host.errors import HostError
from gateway.host.sockets import (
    IP_MTU_DISCOVER,
    IPV6_MTU_DISCOVER,
    KEEP_NOTHING,
    attach_filter,
    bypass_xfrm,
    pass_packet_too_big_only,
    set_mark,
)
from gateway.ipsec.sa import IpsecProtocol

_IP_PMTUDISC_DO: Final = 2
_IPV6_RECVERR: Final = 25
_MAX_ERRORS: Final = 1000
_MAX_REPORTS: Final = 32
"""That are read at once; what more there is waits for the next turn of the loop."""
_MESSAGE_BYTES: Final = 2048
_FAMILIES: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_MTU_DISCOVER),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER),
}


class PathErrors:
    """Raw sockets for ESP and AH that only hear errors.

    Args:
        mark: Of what espd sends.
        follow: Called after an error; must not block.
        learn: Called before that with what routers said of AH over IPv6.
    """

    def __init__(
        self, mark: int, follow: Callable[[], object], learn: Callable[[Collection[TooBig]], None]
    ) -> None:
        self._mark = mark
        self._follow = follow
        self._learn = learn
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
        self._open_icmp()

    def _open_icmp(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            raw = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                return
            raise HostError(f"cannot open a raw socket: {error.strerror}") from error
        self._sockets.append(raw)
        pass_packet_too_big_only(raw)
        asyncio.get_running_loop().add_reader(raw.fileno(), self._on_icmp, raw)

    def close(self) -> None:
        """Stop listening."""
        for raw in self._sockets:
            asyncio.get_running_loop().remove_reader(raw.fileno())
            raw.close()
        self._sockets.clear()

    def _on_icmp(self, raw: socket.socket) -> None:
        reports = []
        with contextlib.suppress(OSError):
            for _ in range(_MAX_REPORTS):
                report = parse_too_big_about_ah(raw.recv(_MESSAGE_BYTES))
                if report is not None:
                    reports.append(report)
        if reports:
            self._learn(reports)
            self._follow()

    def _on_error(self, raw: socket.socket) -> None:
        # The error itself, and those in the queue: the kernel has drawn its conclusions already. And packets
        # that came before the filter was there: they would wake us for ever.
        for _ in range(_MAX_ERRORS):
            try:
                raw.recv(1)
            except BlockingIOError:
                break
            except OSError:
                continue
        with contextlib.suppress(OSError):
            for _ in range(_MAX_ERRORS):
                raw.recvmsg(0, 0, socket.MSG_ERRQUEUE)
        self._follow()
