"""Packets with an SPI that nobody has: the kernel counts them and says no more, so we look for ourselves.

When XfrmInNoStates rises, raw sockets copy the beginning of ESP and AH packets for a moment, and the kernel
is asked about each SPI that is not ours. A peer that lost its SAs goes on sending, so a moment is enough; and
at all other times nothing is copied. ESP in UDP is not seen: only the kernel gets it.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.datapath.backend import BadSpi
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.statistics import read_statistics
from gateway.host.sockets import attach_filter
from gateway.ipsec.sa import MIN_SPI, IpAddress, IpsecProtocol, Spi
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_COUNTER: Final = "XfrmInNoStates"
_POLL_S: Final = 1.0
_LOOK_S: Final = 0.5
_AGAIN_S: Final = 10.0
"""The same SPI from the same address is told at most so often."""
_MOST_TOLD: Final = 256
_MOST_AT_ONCE: Final = 16

_SPI_OFFSET: Final = {IpsecProtocol.ESP: 0, IpsecProtocol.AH: 4}
"""Of the SPI in the header (RFC 4303 §2.1, RFC 4302 §2.4), in bytes."""
_IPV4_MIN_BYTES: Final = 20
_SNAP_BYTES: Final = 96
"""The longest IPv4 header and the beginning of ESP or AH."""
_BUFFER_BYTES: Final = 1 << 16
_ANCILLARY_BYTES: Final = 64
_BPF_RET_K: Final = 0x06


@dataclass(frozen=True, slots=True)
class Seen:
    """The names in one packet."""

    protocol: IpsecProtocol
    spi: int
    source: IpAddress
    destination: IpAddress

    @property
    def kernel_id(self) -> r.SaId:
        """Return the kernel's name of the SA that the packet asks for."""
        return r.SaId(destination=self.destination, spi=self.spi, protocol=self.protocol)


def parse_ipv4(packet: bytes) -> Seen | None:
    """Return what an IPv4 packet of ESP or AH names; `None` if it is none, or too short."""
    if len(packet) < _IPV4_MIN_BYTES or packet[9] not in tuple(IpsecProtocol):
        return None
    addresses = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    return _seen(IpsecProtocol(packet[9]), packet[(packet[0] & 0x0F) << 2 :], *addresses)


def _seen(protocol: IpsecProtocol, header: bytes, source: IpAddress, destination: IpAddress) -> Seen | None:
    offset = _SPI_OFFSET[protocol]
    if len(header) < offset + 4:
        return None
    (spi,) = struct.unpack_from(">I", header, offset)
    return Seen(protocol, spi, source, destination) if spi >= MIN_SPI else None


class BadSpiWatch:
    """Tell of packets with unknown SPIs.

    Args:
        is_known: Asks the kernel whether it has an SA.
        emit: Is told of those it has not.
    """

    def __init__(self, is_known: Callable[[r.SaId], Awaitable[bool]], emit: Callable[[BadSpi], None]) -> None:
        self._is_known = is_known
        self._emit = emit
        self._task: asyncio.Task[None] | None = None
        self._told: dict[tuple[IpAddress, int], float] = {}
        self._found: dict[Seen, None] = {}

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="xfrm-bad-spi")

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        before = read_statistics().get(_COUNTER)
        # Without CONFIG_XFRM_STATISTICS nothing says when to look.
        while before is not None:
            await asyncio.sleep(_POLL_S)
            count = read_statistics().get(_COUNTER, before)
            if count > before:
                await self._look()
            before = count

    async def _look(self) -> None:
        """Copy packets for a moment, and tell of those that nobody knows."""
        try:
            sockets = [_open(version, protocol) for version in (4, 6) for protocol in IpsecProtocol]
        except OSError as error:
            _log.debug("bad_spi_not_seen", reason=str(error))
            return
        loop = asyncio.get_running_loop()
        self._found.clear()
        try:
            for sock in sockets:
                loop.add_reader(sock.fileno(), self._on_packet, sock)
            await asyncio.sleep(_LOOK_S)
        finally:
            for sock in sockets:
                loop.remove_reader(sock.fileno())
                sock.close()
        for seen in tuple(self._found)[:_MOST_AT_ONCE]:
            if not await self._is_known(seen.kernel_id):
                self._tell(seen)

    def _on_packet(self, sock: socket.socket) -> None:
        try:
            data, ancillary, _, peer = sock.recvmsg(_SNAP_BYTES, _ANCILLARY_BYTES)
        except OSError:
            return
        if sock.family == socket.AF_INET:
            seen = parse_ipv4(data)
        else:
            source = IPv6Address(str(peer[0]).partition("%")[0])
            destination = [value[:16] for _, kind, value in ancillary if kind == socket.IPV6_PKTINFO]
            seen = (
                _seen(IpsecProtocol(sock.proto), data, source, IPv6Address(destination[0]))
                if destination
                else None
            )
        if seen is not None and len(self._found) < _MOST_AT_ONCE:
            self._found[seen] = None

    def _tell(self, seen: Seen) -> None:
        now = time.monotonic()
        name = seen.source, seen.spi
        if now < self._told.get(name, now):
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[name] = now + _AGAIN_S
        self._emit(
            BadSpi(
                protocol=seen.protocol, spi=Spi(seen.spi), source=seen.source, destination=seen.destination
            )
        )


def _open(version: int, protocol: IpsecProtocol) -> socket.socket:
    """Return a socket that gets a copy of the beginning of each packet."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    raw = socket.socket(family, kind, protocol)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        if version == 6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        attach_filter(raw, ((_BPF_RET_K, 0, 0, _SNAP_BYTES),))
    except BaseException:
        raw.close()
        raise
    return raw
