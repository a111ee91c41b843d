"""The controller's UDP sockets: datagrams with their `Path` in, datagrams from the right address out.

The sockets come from the agent (`gateway.host.sockets`), which bound and marked them, or from this process
where the datapath is remote. Port 4500's non-ESP marker (RFC 3948 §2.2) is added and taken off here.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from gateway.host.sockets import IP_PKTINFO, IkePort, IkePorts
from gateway.ike.path import Path
from gateway.ipsec.sa import IpAddress
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

NON_ESP_MARKER = bytes(4)
#: A NAT keepalive (RFC 3948 §2.3): sent bare, without the marker.
KEEPALIVE = b"\xff"

_MAX_DATAGRAM = 65535
#: Datagrams taken from one socket before the loop gets its turn back.
_BATCH = 64
_CONTROL_SPACE = socket.CMSG_SPACE(64) * 2


class Transport(Protocol):
    """Carries datagrams for the driver; `UdpTransport` is the real one."""

    @property
    def is_open(self) -> bool:
        """Whether there are sockets."""

    def adopt(self, ports: IkePorts) -> None:
        """Use these sockets instead of any before."""

    def release(self) -> None:
        """Close every socket."""

    def release_borrowed(self) -> None:
        """Close the sockets that an agent lent."""

    def send(self, path: Path, datagram: bytes) -> None:
        """Send one datagram; never blocks, never raises."""


TransportFactory = Callable[[Callable[[bytes, Path], None], Callable[[], None]], Transport]
"""Makes a transport from who takes datagrams and who is told that the sockets are lost."""


class UdpTransport:
    """Receives on and sends from every IKE socket.

    Args:
        receive: Takes each datagram, without the marker, and its path.
        lost: Called once when the agent that lent the sockets is gone; they are closed by then.
    """

    def __init__(self, receive: Callable[[bytes, Path], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._ports: IkePorts | None = None

    @property
    def is_open(self) -> bool:
        """Whether there are sockets."""
        return self._ports is not None

    def adopt(self, ports: IkePorts) -> None:
        """Use these sockets, which the transport owns from now on, instead of any before."""
        self.release()
        loop = asyncio.get_running_loop()
        self._ports = ports
        for port in ports.ports:
            port.socket.setblocking(False)
            loop.add_reader(port.socket.fileno(), self._on_readable, port)
        if ports.control is not None:
            loop.add_reader(ports.control.fileno(), self._on_control)

    def release(self) -> None:
        """Close every socket, so that an agent that starts anew can bind the ports."""
        if self._ports is None:
            return
        loop = asyncio.get_running_loop()
        for port in self._ports.ports:
            loop.remove_reader(port.socket.fileno())
        if self._ports.control is not None:
            loop.remove_reader(self._ports.control.fileno())
        self._ports.close()
        self._ports = None

    def release_borrowed(self) -> None:
        """Close sockets that an agent lent; those this process opened itself stay."""
        if self._ports is not None and self._ports.control is not None:
            self.release()

    def send(self, path: Path, datagram: bytes) -> None:
        """Send one datagram; what the kernel refuses is left to the retransmission."""
        port = self._port_for(path)
        if port is None:
            _log.debug(
                "ike_send_failed", peer=str(path.remote), error="no socket for the local address and port"
            )
            return
        if port.has_marker and datagram != KEEPALIVE:
            datagram = NON_ESP_MARKER + datagram
        try:
            port.socket.sendmsg(
                [datagram], [source_control(path.local)], 0, (str(path.remote), path.remote_port)
            )
        except OSError as error:
            _log.debug("ike_send_failed", peer=str(path.remote), error=str(error))

    def _port_for(self, path: Path) -> IkePort | None:
        """Return the socket bound to the path's own address, else the one bound to any."""
        if self._ports is None:
            return None
        wildcard = None
        for port in self._ports.ports:
            if port.port != path.local_port or port.address.version != path.local.version:
                continue
            if port.address == path.local:
                return port
            if port.address.is_unspecified:
                wildcard = port
        return wildcard

    def _on_readable(self, port: IkePort) -> None:
        for _ in range(_BATCH):
            try:
                data, control, _, sender = port.socket.recvmsg(_MAX_DATAGRAM, _CONTROL_SPACE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _log.debug("ike_receive_failed", port=port.port, error=str(error))
                return
            local = destination_of(control) or port.address
            if port.has_marker:
                if not data.startswith(NON_ESP_MARKER):
                    continue
                data = data[len(NON_ESP_MARKER) :]
            self._receive(data, Path(local, port.port, address_of(sender[0]), sender[1]))
            if self._ports is None or port not in self._ports.ports:
                return

    def _on_control(self) -> None:
        assert self._ports is not None
        assert self._ports.control is not None
        try:
            if self._ports.control.recv(64):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self.release()
        self._lost()


def address_of(text: str) -> IpAddress:
    """Return the address of a socket address; several times as fast as `ip_address`, for floods."""
    if ":" not in text:
        return IPv4Address(socket.inet_aton(text))
    # A scope identifier (`fe80::1%eth0`) is not part of the address.
    return IPv6Address(socket.inet_pton(socket.AF_INET6, text.partition("%")[0]))


def destination_of(control: list[tuple[int, int, bytes]]) -> IpAddress | None:
    """Return the local address that IP_PKTINFO or IPV6_PKTINFO tells."""
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(data) >= 12:
            # struct in_pktinfo { int ifindex; struct in_addr spec_dst; struct in_addr addr; }
            return IPv4Address(data[8:12])
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) >= 16:
            # struct in6_pktinfo { struct in6_addr addr; unsigned int ifindex; }
            return IPv6Address(data[:16])
    return None


def source_control(local: IpAddress) -> tuple[int, int, bytes]:
    """Return the ancillary datum that makes the kernel send from `local`."""
    if local.version == 4:
        return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("@i4s4s", 0, local.packed, bytes(4))
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("@16sI", local.packed, 0)


def source_address(remote: IpAddress) -> IpAddress | None:
    """Return the address that the kernel would send from to `remote`; None without a route."""
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(remote), 500))
        return ip_address(probe.getsockname()[0])
    return None
