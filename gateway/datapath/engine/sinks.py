"""Have the kernel say nothing about packets that are espd's.

espd gets copies of what comes in, and the kernel keeps its own: it would answer ESP and AH that it has no use
for with ICMP errors, unless a raw socket wants them. These want everything, and keep nothing.
"""

import errno
import socket
from collections.abc import Iterable
from typing import Final

from gateway.host.errors import HostError
from gateway.host.sockets import BpfInstruction, attach_filter
from gateway.ipsec.sa import IpsecProtocol

_NOTHING: Final[tuple[BpfInstruction, ...]] = ((0x06, 0, 0, 0),)
"""BPF_RET | BPF_K: no byte of any packet."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Sinks:
    """Raw sockets for ESP and AH that take nothing."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Open them.

        Raises:
            HostError: This process may not.
        """
        for family in _FAMILIES:
            for protocol in IpsecProtocol:
                try:
                    sink = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
                except OSError as error:
                    if error.errno == errno.EAFNOSUPPORT:
                        continue
                    self.close()
                    raise HostError(f"cannot open a raw socket: {error.strerror}") from error
                self._sockets.append(sink)
                mute([sink])

    def close(self) -> None:
        """Close them."""
        for sink in self._sockets:
            sink.close()
        self._sockets.clear()


def mute(sockets: Iterable[socket.socket]) -> None:
    """Have the kernel keep nothing for sockets: espd sees their packets before them."""
    for sock in sockets:
        attach_filter(sock, _NOTHING)
