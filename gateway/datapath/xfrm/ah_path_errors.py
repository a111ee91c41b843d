"""Have the kernel hear what routers say about AH over IPv6: that it is too big for the path.

For Linux AH over IPv6 is an extension header. `icmpv6_notify` (net/ipv6/icmp.c) passes it by and tells the
protocol behind it, so `ah6_err` is never called: a UDP or TCP socket hears of its packet in transport mode,
and in tunnel mode, where a whole packet is behind, nobody does. So it is read here, and where it is about an
SA of ours it is told again, to this machine from itself, as if about an ICMPv6 packet between the same
addresses. `icmpv6_err` believes that of any route as `esp6_err` does of an SA it knows, and what the kernel
learns is its own from there on: it forgets it in time, and says "too big" in its turn.

Not for ESP, nor for AH over IPv4: of those the kernel hears by itself.
"""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from typing import Final

from gateway.datapath.xfrm import records as r
from gateway.esp.icmp import TooBig, parse_too_big_about_ah
from gateway.host.sockets import bypass_xfrm, pass_packet_too_big_only
from gateway.ipsec.sa import IpAddress, IpsecProtocol
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_MAX_REPORTS: Final = 32
"""That are read at once; what more there is waits for the next turn of the loop."""
_MESSAGE_BYTES: Final = 2048
_PACKET_TOO_BIG: Final = 2
_ECHO_REQUEST: Final = 128
_VERSION_6: Final = 6 << 28
_HOP_LIMIT: Final = 64


class AhPathErrors:
    """A raw ICMPv6 socket, which reads and tells again.

    Args:
        source_of: Returns from which address we send by an SA, of this name at the kernel; `None` where it is
            no outbound SA of ours.
    """

    def __init__(self, source_of: Callable[[r.SaId], IpAddress | None]) -> None:
        self._source_of = source_of
        self._raw: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen; where this process may not, that is logged, and paths keep their MTU."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            raw = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                _log.warning("ah_path_mtu_not_heard", reason=error.strerror)
            return
        self._raw = raw
        pass_packet_too_big_only(raw)
        bypass_xfrm(raw)
        asyncio.get_running_loop().add_reader(raw.fileno(), self._on_message, raw)

    def close(self) -> None:
        """Stop listening."""
        if self._raw is not None:
            asyncio.get_running_loop().remove_reader(self._raw.fileno())
            self._raw.close()
            self._raw = None

    def _on_message(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(_MAX_REPORTS):
                report = parse_too_big_about_ah(raw.recv(_MESSAGE_BYTES))
                if report is not None and self._is_ours(report):
                    self._tell_again(raw, report)

    def _is_ours(self, report: TooBig) -> bool:
        """Return whether a router speaks of an SA of ours: who has not seen it does not know its SPI."""
        name = r.SaId(destination=report.destination, spi=report.spi, protocol=IpsecProtocol.AH)
        return self._source_of(name) == report.source

    @staticmethod
    def _tell_again(raw: socket.socket, report: TooBig) -> None:
        ours = str(report.source)
        to_ourselves = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, report.source.packed + bytes(4))]
        with contextlib.suppress(OSError):
            raw.sendmsg([too_big_about_an_echo(report)], to_ourselves, 0, (ours, 0))


def too_big_about_an_echo(report: TooBig) -> bytes:
    """Return a "packet too big" (RFC 4443 §3.2) about an ICMPv6 echo between the addresses of a report.

    The checksum is left to the kernel (RFC 3542 §3.1).
    """
    echo = struct.pack(">B7x", _ECHO_REQUEST)
    header = struct.pack(">IHBB", _VERSION_6, len(echo), socket.IPPROTO_ICMPV6, _HOP_LIMIT)
    addresses = report.source.packed + report.destination.packed
    return struct.pack(">BBHI", _PACKET_TOO_BIG, 0, 0, report.mtu) + header + addresses + echo
