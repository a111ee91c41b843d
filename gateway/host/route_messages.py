"""Routes as rtnetlink says them, read from bytes: in dumps of many thousands, and in notifications.

Only what decides where packets go is read (linux/rtnetlink.h). pyroute2, which reads the rest of rtnetlink
for us, takes many times as long for a route: a full table would keep a CPU busy for seconds.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from gateway.host.errors import HostError

RTM_NEWLINK: Final = 16
RTM_DELADDR: Final = 21
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLM_F_DUMP_INTR: Final = 0x10
NLM_F_REPLACE: Final = 0x100
_RTM_F_CLONED: Final = 0x200
_RTNH_F_UNUSABLE: Final = 0x01 | 0x10
"""RTNH_F_DEAD, RTNH_F_LINKDOWN."""
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_METRICS: Final = 8
_RTA_TABLE: Final = 15
_RTA_BEYOND: Final = frozenset({9, 18, 22})
"""RTA_MULTIPATH, RTA_VIA, RTA_ENCAP: more than one link and one gateway can say."""
_RTAX_MTU: Final = 2
_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_ROUTE: Final = struct.Struct("=8BI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_WORD: Final = struct.Struct("=I")
_VERSIONS: Final = {socket.AF_INET: 4, socket.AF_INET6: 6}
_ADDRESS_BYTES: Final = {4: 4, 6: 16}
_BUFFER_BYTES: Final = 1 << 18
_ROUTE_GROUPS: Final = (3, 5, 7, 8, 9, 11, 19)
"""RTNLGRP_NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE; LINK is 1."""
_RTNLGRP_LINK: Final = 1
_QUEUE_BYTES: Final = 1 << 22
_SO_RCVBUFFORCE: Final = 33


class RouteType(IntEnum):
    """RTN_*: what becomes of packets."""

    UNICAST = 1
    LOCAL = 2
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


class Prefix(NamedTuple):
    """A range of addresses."""

    version: int
    bits: int
    address: bytes
    """The lowest, as on the wire."""


class RouteKey(NamedTuple):
    """What tells the routes to a prefix apart."""

    table: int
    metric: int
    tos: int
    source_bits: int


class RawRoute(NamedTuple):
    """Where one route leads."""

    type: int
    link: int
    """Index; 0: of none."""
    gateway: bytes
    """As on the wire; empty: none."""
    mtu_bytes: int
    is_plain: bool
    """Whether that is all of it."""
    is_usable: bool
    """Whether its link carries anything."""


class RouteMessage(NamedTuple):
    """One route that is there, or in a notification came or went."""

    kind: int
    flags: int
    prefix: Prefix
    key: RouteKey
    route: RawRoute


class Notification(NamedTuple):
    """A change of something else than a route."""

    kind: int


def parse_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of each netlink message."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield kind, flags, data[offset + _HEADER.size : offset + size]
        offset += (size + 3) & ~3


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + 4 <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, offset)
        if size < 4:
            break
        found[kind & _TYPE_MASK] = body[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def parse_route(kind: int, flags: int, body: bytes) -> RouteMessage | None:
    """Return the route that an RTM_NEWROUTE or RTM_DELROUTE is about; `None`: of no IP, or a cache's."""
    family, bits, source_bits, tos, table, _, _, route_type, route_flags = _ROUTE.unpack_from(body)
    version = _VERSIONS.get(family)
    if version is None or route_flags & _RTM_F_CLONED:
        return None
    said = _attributes(body, _ROUTE.size)
    metrics = _attributes(said[_RTA_METRICS], 0) if _RTA_METRICS in said else {}
    return RouteMessage(
        kind,
        flags,
        Prefix(version, bits, said.get(_RTA_DST, b"").ljust(_ADDRESS_BYTES[version], b"\0")),
        RouteKey(_word(said, _RTA_TABLE, table), _word(said, _RTA_PRIORITY), tos, source_bits),
        RawRoute(
            type=route_type,
            link=_word(said, _RTA_OIF),
            gateway=said.get(_RTA_GATEWAY, b""),
            mtu_bytes=_word(metrics, _RTAX_MTU),
            is_plain=not (tos or source_bits or _RTA_BEYOND & said.keys()),
            is_usable=not route_flags & _RTNH_F_UNUSABLE,
        ),
    )


def _word(attributes: dict[int, bytes], kind: int, otherwise: int = 0) -> int:
    value = attributes.get(kind)
    return otherwise if value is None or len(value) != _WORD.size else int(_WORD.unpack(value)[0])


class RouteSocket:
    """A netlink socket of the network namespace of the thread that makes it.

    Args:
        listens: Whether to hear of changes, of routes and of all that routes depend on.

    Raises:
        OSError: The kernel gives none.
    """

    def __init__(self, *, listens: bool) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        if listens:
            groups = sum(1 << (group - 1) for group in (_RTNLGRP_LINK, *_ROUTE_GROUPS))
            self._socket.bind((0, groups))
            self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when something has changed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def dump(self, take: Callable[[RouteMessage], None]) -> bool:
        """Have the kernel tell all routes; return whether they were all of one moment.

        Raises:
            HostError: The kernel refused.
        """
        is_whole = True
        for number, family in enumerate(_VERSIONS, start=1):
            body = _ROUTE.pack(family, *(0,) * 8)
            size = _HEADER.size + len(body)
            self._socket.send(_HEADER.pack(size, _RTM_GETROUTE, _NLM_F_REQUEST_DUMP, number, 0) + body)
            is_whole &= self._read_dump(take)
        return is_whole

    def _read_dump(self, take: Callable[[RouteMessage], None]) -> bool:
        is_whole = True
        while True:
            for kind, flags, body in parse_messages(self._socket.recv(_BUFFER_BYTES)):
                is_whole &= not flags & _NLM_F_DUMP_INTR
                if kind == RTM_NEWROUTE:
                    message = parse_route(kind, flags, body)
                    if message is not None:
                        take(message)
                elif kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    if code != errno.EAFNOSUPPORT:  # a kernel without IPv6
                        raise HostError(f"the kernel does not tell its routes: {os.strerror(code)}")
                    return is_whole
                elif kind == _NLMSG_DONE:
                    return is_whole

    def changes(self) -> Iterator[RouteMessage | Notification | None]:
        """Yield what has changed since the last call; `None`: some of it was lost."""
        while True:
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield None
                continue
            for kind, flags, body in parse_messages(data):
                if kind not in (RTM_NEWROUTE, RTM_DELROUTE):
                    yield Notification(kind)
                elif (message := parse_route(kind, flags, body)) is not None:
                    yield message
