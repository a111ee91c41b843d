"""The outside: raw ESP and AH sockets, the ESP member of the UDP 4500 groups, and the way out.

Everything we send is marked, so that the policy rules which lead into the tunnel device leave it alone. What
is sent on in clear has a mark of its own: the guard checks it like any other packet, so that nothing this
process does wrong, or too early, sends protected traffic in clear. Whole
IP packets go out by IPPROTO_RAW sockets, which gives us DF, TOS and the options of transport mode for each
packet; ESP that has to be fragmented goes out by sockets whose IP header the kernel makes.

Path MTUs are the kernel's to learn, from ICMP errors about what we sent. Over IPv6 it does so only for a
socket that wants to hear of errors; and it looks behind AH, so that those about AH are not ours to it: we
read Packet Too Big messages ourselves.

AH authenticates the header of its packet. Over IPv4 a raw socket shows it; over IPv6 the kernel is asked for
the extension headers, and the rest of the header is known.
"""

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from gateway.datapath.software.forwarder import SendResult
from gateway.datapath.software.sad import OutboundEntry
from gateway.datapath.software.spi_filter import spi_filter
from gateway.esp.inbound import OuterHeader
from gateway.esp.outbound import Sealed
from gateway.esp.transport import join_ipv6_headers
from gateway.esp.tunnel import make_bare_header
from gateway.esp.udp_encap import Payload, classify
from gateway.host.errors import HostError
from gateway.host.network import has_ipv6
from gateway.host.sockets import (
    IP_MTU_DISCOVER,
    IPV6_MTU_DISCOVER,
    attach_filter,
    bypass_xfrm,
    grow_receive_buffer,
    pass_packet_too_big_only,
    set_mark,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpsecProtocol

FromWire = Callable[[bytes, OuterHeader, float], None]

_ESP: Final = 50
_AH: Final = 51
_MAX_BYTES: Final = 65535
_ANCILLARY_BYTES: Final = 4096
"""Extension headers included; a packet with more of them fails its ICV."""
_RECEIVE_BUFFER_BYTES: Final = 8 * 1024 * 1024
_IP_PKTINFO: Final = 8
_IP_RECVTTL: Final = 12
_IP_PMTUDISC_DONT: Final = 0
_IP_PMTUDISC_DO: Final = 2
_PKTINFO_V4: Final = struct.Struct("@i4s4s")
_PKTINFO_V6: Final = struct.Struct("@16sI")
_INT: Final = struct.Struct("@i")
_IPV4_MIN_BYTES: Final = 20
_IPV6_RECVERR: Final = 25
_MAX_ERRORS: Final = 64
"""Taken at once; more make the socket readable again."""
"""A bit for each type, set for those that are not wanted (RFC 3542 §3.2)."""
_EXTENSION_HEADERS: Final = {socket.IPV6_HOPOPTS: 0, socket.IPV6_RTHDR: 43, socket.IPV6_DSTOPTS: 60}
"""Next header numbers of what the kernel hands over by these ancillary types (RFC 3542 §6)."""
_EXTENSION_HEADER_OPTIONS: Final = (
    socket.IPV6_RECVHOPOPTS,
    socket.IPV6_RECVRTHDR,
    socket.IPV6_RECVDSTOPTS,
)


class OuterSockets:
    """All sockets of the outside. The UDP ones are borrowed, the rest are owned.

    Args:
        udp: The ESP members of the 4500 groups.
        mark: SO_MARK of what is protected: the guard lets it pass.
        clear_mark: SO_MARK of what is sent on in clear: it leaves by the others' routes, past the guard only
            where the SPD allows it.

    Raises:
        HostError: CAP_NET_RAW or CAP_NET_ADMIN is missing.
    """

    def __init__(self, udp: Sequence[socket.socket], *, mark: int, clear_mark: int) -> None:
        self.udp = tuple(udp)
        self._owned: list[socket.socket] = []
        families = (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,)
        try:
            self.raw = tuple(self._open_receiver(family, _ESP, mark) for family in families)
            self.raw_ah = tuple(self._open_receiver(family, _AH, mark) for family in families)
            self.icmp = tuple(self._open_icmp(mark) for family in families if family == socket.AF_INET6)
            self._whole = {_version(f): self._open(f, socket.IPPROTO_RAW, mark) for f in families}
            self._clear = {_version(f): self._open(f, socket.IPPROTO_RAW, clear_mark) for f in families}
            self._pieces = {_version(f): self._open_fragmenting(f, mark) for f in families}
        except PermissionError as error:
            self.close()
            raise HostError("raw ESP and AH sockets need CAP_NET_RAW: run the agent as root") from error
        except BaseException:
            self.close()
            raise
        for sock in self.udp:
            _ask_for_header_fields(sock)

    def hear_only(self, spis: Mapping[IpsecProtocol, Collection[int]]) -> None:
        """Let the raw sockets receive no packets but those with these SPIs."""
        for sockets, protocol in ((self.raw, IpsecProtocol.ESP), (self.raw_ah, IpsecProtocol.AH)):
            for raw in sockets:
                attach_filter(
                    raw,
                    spi_filter(spis.get(protocol, ()), protocol, has_header=raw.family == socket.AF_INET),
                )

    def _open(self, family: socket.AddressFamily, protocol: int, mark: int) -> socket.socket:
        raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        self._owned.append(raw)
        set_mark(raw, mark)
        bypass_xfrm(raw)
        return raw

    def _open_receiver(self, family: socket.AddressFamily, protocol: int, mark: int) -> socket.socket:
        raw = self._open(family, protocol, mark)
        grow_receive_buffer(raw, _RECEIVE_BUFFER_BYTES)
        # With path MTU discovery on, an ICMP error makes the socket readable, and us look at the path again.
        if family == socket.AF_INET:
            raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        else:
            raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, _IP_PMTUDISC_DO)
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            _ask_for_header_fields(raw)
            if protocol == _AH:
                for option in _EXTENSION_HEADER_OPTIONS:
                    raw.setsockopt(socket.IPPROTO_IPV6, option, 1)
        return raw

    def _open_icmp(self, mark: int) -> socket.socket:
        """Open a raw socket that reads ICMPv6 Packet Too Big messages."""
        raw = self._open(socket.AF_INET6, socket.IPPROTO_ICMPV6, mark)
        pass_packet_too_big_only(raw)
        return raw

    def _open_fragmenting(self, family: socket.AddressFamily, mark: int) -> socket.socket:
        """Open a raw ESP socket that only sends, with the kernel's IP header."""
        raw = self._open(family, _ESP, mark)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        if family == socket.AF_INET:
            raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        else:
            raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        return raw

    def close(self) -> None:
        """Close what is owned."""
        for sock in self._owned:
            sock.close()

    # --- sending ----------------------------------------------------------------------------------

    def send(self, packet: bytes) -> SendResult:
        """Send a whole IP packet that is protected."""
        return _send_whole(self._whole, packet)

    def send_clear(self, packet: bytes) -> SendResult:
        """Send a whole IP packet that needs no protection."""
        return _send_whole(self._clear, packet)

    def send_fragmented(self, entry: OutboundEntry, sealed: Sealed) -> SendResult:
        """Send an ESP packet in as many pieces as the path needs, in UDP where the SA wants it."""
        version = entry.sa.source.version
        encapsulation = entry.core.encapsulation
        destination = str(entry.core.destination)
        if encapsulation is None:
            sock, port = self._pieces[version], 0
        else:
            found = self._udp_socket(version, encapsulation.source_port)
            if found is None:
                return SendResult.FAILED
            sock, port = found, encapsulation.destination_port
        if version == 4:
            ancillary = [
                (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO_V4.pack(0, entry.sa.source.packed, bytes(4))),
                (socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(sealed.tos)),
            ]
        else:
            ancillary = [
                (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO_V6.pack(entry.sa.source.packed, 0)),
                (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(sealed.tos)),
            ]
        return _result(lambda: sock.sendmsg([sealed.payload], ancillary, 0, (destination, port)))

    def _udp_socket(self, version: int, port: int) -> socket.socket | None:
        for sock in self.udp:
            if _version(sock.family) == version and sock.getsockname()[1] == port:
                return sock
        return None

    # --- receiving --------------------------------------------------------------------------------

    def receive_raw(self, sock: socket.socket, handle: FromWire) -> bool:
        """Read one ESP or AH packet from a raw socket; return whether there was one.

        Raises:
            OSError: An ICMP error came back about something we sent; reading goes on after it.
        """
        try:
            if sock.family == socket.AF_INET:
                packet = sock.recv(_MAX_BYTES)
                _handle_ipv4(packet, handle)
                return True
            data, ancillary, _, peer = sock.recvmsg(_MAX_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return False
        destination, tos, ttl = _read_ancillary(ancillary)
        source = socket.inet_pton(socket.AF_INET6, peer[0].partition("%")[0])
        outer = OuterHeader(source, destination, tos, ttl)
        extensions = _read_extension_headers(ancillary)
        if extensions:
            bare = make_bare_header(source, destination, tos, ttl)
            outer = outer._replace(header=join_ipv6_headers(bare, extensions, _AH, len(data)))
        handle(data, outer, time.monotonic())
        return True

    def receive_icmp(self, sock: socket.socket) -> bytes | None:
        """Read one ICMPv6 message; None: there is none."""
        try:
            return sock.recv(_MAX_BYTES)
        except OSError:
            return None

    def forget_errors(self, sock: socket.socket) -> None:
        """Empty the error queue of a socket: the kernel has drawn its conclusions already."""
        with contextlib.suppress(OSError):
            for _ in range(_MAX_ERRORS):
                sock.recvmsg(0, 0, socket.MSG_ERRQUEUE)

    def receive_udp(
        self, sock: socket.socket, handle: FromWire, count_drop: Callable[[DropReason], None]
    ) -> bool:
        """Read one datagram from an ESP member of a 4500 group; return whether there was one."""
        try:
            data, ancillary, _, peer = sock.recvmsg(_MAX_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return False
        kind = classify(data)
        if kind is Payload.ESP:
            destination, tos, ttl = _read_ancillary(ancillary)
            source = socket.inet_pton(sock.family, peer[0].partition("%")[0])
            handle(data, OuterHeader(source, destination, tos, ttl, peer[1]), time.monotonic())
        elif kind is not Payload.KEEPALIVE:
            count_drop(DropReason.MALFORMED)
        return True


def _send_whole(sockets: dict[int, socket.socket], packet: bytes) -> SendResult:
    if packet[0] >> 4 == 4:
        version, address = 4, socket.inet_ntoa(packet[16:20])
    else:
        version, address = 6, socket.inet_ntop(socket.AF_INET6, packet[24:40])
    return _result(lambda: sockets[version].sendto(packet, (address, 0)))


def _version(family: int) -> int:
    return 4 if family == socket.AF_INET else 6


def _ask_for_header_fields(sock: socket.socket) -> None:
    """Have the kernel say destination, TOS and TTL of each datagram."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)


def _handle_ipv4(packet: bytes, handle: FromWire) -> None:
    """Split what a raw IPv4 socket reads: the IP header comes with it."""
    header_bytes = (packet[0] & 0x0F) << 2 if packet else 0
    if not _IPV4_MIN_BYTES <= header_bytes <= len(packet):
        return
    outer = OuterHeader(packet[12:16], packet[16:20], packet[1], packet[8], header=packet[:header_bytes])
    handle(packet[header_bytes:], outer, time.monotonic())


def _read_ancillary(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[bytes, int, int]:
    """Return destination, TOS and TTL."""
    destination, tos, ttl = b"", 0, 64
    for level, kind, data in ancillary:
        match level, kind:
            case socket.IPPROTO_IP, 8:  # IP_PKTINFO
                destination = data[8:12]
            case socket.IPPROTO_IP, socket.IP_TOS:
                tos = data[0]
            case socket.IPPROTO_IP, socket.IP_TTL:
                ttl = _INT.unpack(data)[0]
            case socket.IPPROTO_IPV6, socket.IPV6_PKTINFO:
                destination = data[:16]
            case socket.IPPROTO_IPV6, socket.IPV6_TCLASS:
                tos = _INT.unpack(data)[0]
            case socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT:
                ttl = _INT.unpack(data)[0]
            case _:
                pass
    return destination, tos, ttl


def _read_extension_headers(ancillary: Sequence[tuple[int, int, bytes]]) -> list[tuple[int, bytes]]:
    """Return number and bytes of the extension headers before AH, in their order in the packet."""
    return [
        (_EXTENSION_HEADERS[kind], data)
        for level, kind, data in ancillary
        if level == socket.IPPROTO_IPV6 and kind in _EXTENSION_HEADERS
    ]


def _result(send: Callable[[], int]) -> SendResult:
    try:
        send()
    except OSError as error:
        return SendResult.TOO_BIG if error.errno == errno.EMSGSIZE else SendResult.FAILED
    return SendResult.SENT
