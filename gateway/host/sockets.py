"""The UDP sockets of IKE and of UDP-encapsulated ESP, and how the IKE ones reach the controller.

On port 4500 the kernel tells IKE from ESP, so that a flood of one never delays the other: both sockets are
members of one SO_REUSEPORT group, and a classic BPF program on the non-ESP marker (RFC 3948 §2.2) names the
member, by its slot:

    slot 0  IKE  datagrams that begin with four zero octets
    slot 1  ESP  all others: an SPI first, NAT keepalives (one 0xFF octet), runts

Rules a change must keep:

- Slots follow the order of binding, and a socket that is closed moves the last one into its slot. The agent
  therefore opens every member, and keeps a duplicate of what it hands out: a controller that dies and comes
  back gets the same sockets, with whatever arrived meanwhile still queued.
- The first member is bound *before* it says SO_REUSEPORT. A bind is exclusive in that moment, so two agents
  never share a group; SO_REUSEPORT then lets in the second member, of the same uid only (the kernel compares
  the uid of the sockets' creators).
- A controller that keeps its sockets when the agent is gone keeps the next agent from binding. It learns of
  the end by end-of-file on `IkePorts.control`, and closes all of them.
"""

import array
import asyncio
import contextlib
import ctypes
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from gateway.host.errors import HostError, PortInUseError

IpAddress = IPv4Address | IPv6Address

IKE_PORT: Final = 500
NAT_T_PORT: Final = 4500

IKE_SLOT: Final = 0
ESP_SLOT: Final = 1

NON_ESP_MARKER_BYTES: Final = 4

ANY_ADDRESSES: Final[tuple[IpAddress, ...]] = (IPv4Address("0.0.0.0"), IPv6Address("::"))  # noqa: S104 - a gateway serves all its addresses

# Constants of <linux/in.h>, <linux/in6.h>, <linux/udp.h> and <asm-generic/socket.h> that Python lacks.
SO_ATTACH_FILTER: Final = 26
SO_ATTACH_REUSEPORT_CBPF: Final = 51
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DONT: Final = 0
IP_XFRM_POLICY: Final = 17
IPV6_MTU_DISCOVER: Final = 23
IPV6_XFRM_POLICY: Final = 35
UDP_ENCAP: Final = 100
UDP_GRO: Final = 104
"""Linux 5.0."""
UDP_ENCAP_ESPINUDP: Final = 2
_ICMP6_FILTER: Final = 1
_PACKET_TOO_BIG_ONLY: Final = struct.pack("=8I", 0xFFFFFFFF & ~(1 << 2), *[0xFFFFFFFF] * 7)
"""Of struct icmp6_filter (RFC 3542 §3.2): a bit is a type that does not pass."""

_BPF_LD_W_LEN: Final = 0x80
_BPF_LD_W_ABS: Final = 0x20
_BPF_JGE_K: Final = 0x35
_BPF_JEQ_K: Final = 0x15
_BPF_RET_K: Final = 0x06

#: One classic BPF instruction: code, jump if true, jump if false, constant (<linux/filter.h>).
BpfInstruction = tuple[int, int, int, int]

KEEP_NOTHING: Final[tuple[BpfInstruction, ...]] = ((0x06, 0, 0, 0),)
"""BPF_RET | BPF_K: for `attach_filter`, of a socket that keeps no byte of any packet."""

MARKER_SELECTOR: Final[tuple[BpfInstruction, ...]] = (
    (_BPF_LD_W_LEN, 0, 0, 0),
    # Shorter than the marker: a keepalive or a runt, never IKE.
    (_BPF_JGE_K, 0, 3, NON_ESP_MARKER_BYTES),
    # Offset 0 is the UDP payload: the kernel pulls the UDP header before it runs the program.
    (_BPF_LD_W_ABS, 0, 0, 0),
    (_BPF_JEQ_K, 0, 1, 0),
    (_BPF_RET_K, 0, 0, IKE_SLOT),
    (_BPF_RET_K, 0, 0, ESP_SLOT),
)
"""Name the slot of a datagram by its first four octets (RFC 3948 §2.2)."""

_RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
_MAX_PORTS: Final = 250  # SCM_MAX_FD is 253


@dataclass(frozen=True, slots=True, kw_only=True)
class PortOptions:
    """How the sockets are opened."""

    ike_port: int = IKE_PORT
    nat_t_port: int = NAT_T_PORT
    addresses: tuple[IpAddress, ...] = ANY_ADDRESSES
    """Local addresses to bind; the two wildcards by default."""
    mark: int = 0
    """SO_MARK of everything the sockets send, so that policy routing lets it pass; 0 sets none."""
    kernel_decapsulates: bool = False
    """Set UDP_ENCAP, for the backend whose ESP the kernel's XFRM decrypts."""
    bypass_xfrm: bool = True
    """Exempt the sockets from the kernel's own SPD, where the kernel has one."""
    wait_s: float = 5.0
    """How long to wait for the sockets of an agent's last life to be closed by its controller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkePort:
    """One socket for IKE."""

    address: IpAddress
    """As bound: a wildcard, or one local address."""
    port: int
    has_marker: bool
    """Whether datagrams begin with the non-ESP marker (port 4500)."""
    socket: socket.socket


@dataclass(slots=True, kw_only=True)
class IkePorts:
    """All sockets for IKE, as the controller gets them.

    Owns its sockets. The agent's duplicates keep the ports bound when these are closed.
    """

    ports: tuple[IkePort, ...]
    mark: int = 0
    """The bypass mark that the sockets carry already."""
    control: socket.socket | None = None
    """Readable with end-of-file as soon as the agent is gone: close everything, then ask the new agent."""

    def close(self) -> None:
        """Close every socket of this side."""
        for port in self.ports:
            port.socket.close()
        if self.control is not None:
            self.control.close()


@dataclass(slots=True, kw_only=True)
class PortGroups:
    """Every UDP socket of one gateway, as the agent holds them."""

    ike: tuple[IkePort, ...]
    esp: tuple[socket.socket, ...]
    """Slot 1 of each 4500 group, for the datapath."""
    options: PortOptions = field(default_factory=PortOptions)

    def ike_ports(self) -> IkePorts:
        """Return duplicates of the IKE sockets, for a controller in this process."""
        ports = tuple(
            IkePort(address=p.address, port=p.port, has_marker=p.has_marker, socket=p.socket.dup())
            for p in self.ike
        )
        return IkePorts(ports=ports, mark=self.options.mark)

    def close(self) -> None:
        """Close every socket; a controller's duplicates still hold the ports."""
        for port in self.ike:
            port.socket.close()
        for esp in self.esp:
            esp.close()


def open_ports(options: PortOptions | None = None) -> PortGroups:
    """Open and bind every UDP socket of the gateway.

    Waits at most `options.wait_s` for a port that is in use: after an agent was killed, its controller needs
    a moment to let go of the old group.

    Raises:
        PortInUseError: Another process has a port.
        HostError: The kernel refused something else (no permission for a low port, no such address).
    """
    options = options or PortOptions()
    deadline = time.monotonic() + options.wait_s
    while True:
        try:
            return _open_once(options)
        except PortInUseError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _open_once(options: PortOptions) -> PortGroups:
    ike: list[IkePort] = []
    esp: list[socket.socket] = []
    try:
        for address in options.addresses:
            if address.version == 6 and not _has_ipv6():
                continue
            plain = _open_ike(address, options.ike_port, options, selector=None)
            ike.append(IkePort(address=address, port=options.ike_port, has_marker=False, socket=plain))
            marked = _open_ike(address, options.nat_t_port, options, selector=MARKER_SELECTOR)
            ike.append(IkePort(address=address, port=options.nat_t_port, has_marker=True, socket=marked))
            esp.append(_open_esp(address, options.nat_t_port, options))
    except BaseException:
        PortGroups(ike=tuple(ike), esp=tuple(esp), options=options).close()
        raise
    return PortGroups(ike=tuple(ike), esp=tuple(esp), options=options)


def _has_ipv6() -> bool:
    """Return whether the kernel has IPv6 at all; a machine booted with ipv6.disable=1 has none."""
    return socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


def _open_ike(
    address: IpAddress, port: int, options: PortOptions, *, selector: Sequence[BpfInstruction] | None
) -> socket.socket:
    """Open the first member of a group, exclusively; with a selector, make it slot 0."""
    with _closed_on_failure(_new_socket(address, options)) as udp:
        if selector is not None:
            # Attaching makes the group, which needs the option; binding must not have it (module docstring).
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _attach_selector(udp, selector)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        _bind(udp, address, port)
        if selector is not None:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if options.kernel_decapsulates:
                udp.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    return udp


def _open_esp(address: IpAddress, port: int, options: PortOptions) -> socket.socket:
    """Open the second member of the 4500 group: slot 1."""
    with _closed_on_failure(_new_socket(address, options)) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(udp, address, port)
        if options.kernel_decapsulates:
            udp.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    return udp


def _new_socket(address: IpAddress, options: PortOptions) -> socket.socket:
    """Return an unbound, non-blocking UDP socket with everything set that both kinds share."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    unbound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with _closed_on_failure(unbound) as udp:
        if family == socket.AF_INET:
            udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        else:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DONT)
        grow_receive_buffer(udp, _RECEIVE_BUFFER_BYTES)
        if options.mark:
            set_mark(udp, options.mark)
        if options.bypass_xfrm:
            bypass_xfrm(udp)
    return udp


@contextlib.contextmanager
def _closed_on_failure(udp: socket.socket) -> Iterator[socket.socket]:
    try:
        yield udp
    except BaseException:
        udp.close()
        raise


def _bind(udp: socket.socket, address: IpAddress, port: int) -> None:
    try:
        udp.bind((str(address), port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(str(address), port) from error
        if error.errno == errno.EACCES:
            raise HostError(
                f"no permission to bind UDP port {port}: run as root or with CAP_NET_BIND_SERVICE"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise HostError(f"{address} is not an address of this machine (see `ip address`)") from error
        raise HostError(f"cannot bind UDP port {port} on {address}: {error.strerror}") from error


def _attach_selector(udp: socket.socket, program: Sequence[BpfInstruction]) -> None:
    """Attach a classic BPF program that names the member of the group (socket(7))."""
    _attach(udp, SO_ATTACH_REUSEPORT_CBPF, program)


def attach_filter(sock: socket.socket, program: Sequence[BpfInstruction]) -> None:
    """Let a socket receive what a classic BPF program returns a length for, in place of its last filter."""
    _attach(sock, SO_ATTACH_FILTER, program)


def pass_packet_too_big_only(raw: socket.socket) -> None:
    """Have a raw ICMPv6 socket receive "packet too big" (RFC 4443 §3.2), and nothing else."""
    raw.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _PACKET_TOO_BIG_ONLY)


def mute(udp: socket.socket) -> None:
    """Have a UDP socket keep nothing of what comes, which others see before it.

    With UDP_GRO the kernel throws a super-frame away whole. Without, it would cut it into packets first.
    """
    attach_filter(udp, KEEP_NOTHING)
    udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


def _attach(sock: socket.socket, option: int, program: Sequence[BpfInstruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, option, fprog)


def peer_pid(connection: socket.socket) -> int:
    """Return the process at the other end of a connected Unix socket, or the one that listens there."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def set_mark(sock: socket.socket, mark: int) -> None:
    """Set SO_MARK on a socket.

    Raises:
        HostError: CAP_NET_ADMIN is missing.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError as error:
        raise HostError("marking a socket needs CAP_NET_ADMIN: run the agent as root") from error


def grow_receive_buffer(sock: socket.socket, size_bytes: int) -> None:
    """Ask for a receive buffer beyond net.core.rmem_max where we may, and up to it where we may not."""
    so_rcvbufforce = 33
    try:
        sock.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, size_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)


def bypass_xfrm(sock: socket.socket) -> bool:
    """Exempt a socket from the kernel's IPsec policies, both ways; return whether the kernel took it.

    A kernel without XFRM, or a process without CAP_NET_ADMIN, refuses; then no kernel policy can be there
    either, or the operator's policies apply to us as to everyone.
    """
    if sock.family == socket.AF_INET:
        level, option = socket.IPPROTO_IP, IP_XFRM_POLICY
    else:
        level, option = socket.IPPROTO_IPV6, IPV6_XFRM_POLICY
    xfrm_policy_in, xfrm_policy_out, xfrm_policy_allow = 0, 1, 0
    for direction in (xfrm_policy_in, xfrm_policy_out):
        # struct xfrm_userpolicy_info of <linux/xfrm.h>: selector (56), limits (64), use (32), then the rest.
        selector = struct.pack("=16s16s5H3B3xiI", b"", b"", 0, 0, 0, 0, sock.family, 0, 0, 0, 0, 0)
        policy = selector + bytes(64 + 32)
        policy += struct.pack("@IIBBBB4x", 0, 0, direction, xfrm_policy_allow, 0, 0)
        try:
            sock.setsockopt(level, option, policy)
        except OSError:
            return False
    return True


# --- hand-over ------------------------------------------------------------------------------------


class PortServer:
    """Hand the IKE sockets to whoever may connect to a Unix socket: the local controller.

    Who may is decided by the mode and the owner of the socket file. The server keeps the connection open
    for as long as the agent lives: its end tells the controller to let go of the sockets.
    """

    def __init__(
        self,
        groups: PortGroups,
        path: str | os.PathLike[str],
        *,
        mode: int = 0o600,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._groups = groups
        self._path = Path(path)
        self._mode = mode
        self._owner = owner
        self._listener: socket.socket | None = None
        self._clients: set[socket.socket] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            HostError: The path cannot be used, or another agent listens there.
        """
        loop = asyncio.get_running_loop()
        self._listener = _listen(self._path, self._mode, self._owner)
        loop.add_reader(self._listener.fileno(), self._on_connect)

    def _on_connect(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        client.setblocking(False)
        try:
            send_ports(client, self._groups)
        except OSError:
            client.close()
            return
        self._clients.add(client)
        asyncio.get_running_loop().add_reader(client.fileno(), self._on_client, client)

    def _on_client(self, client: socket.socket) -> None:
        """Forget a client that is gone; nothing it says has a meaning."""
        try:
            if client.recv(64):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(client.fileno())
        self._clients.discard(client)
        client.close()

    async def close(self) -> None:
        """Stop listening and end every connection; the sockets belong to `PortGroups` and stay."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        for client in tuple(self._clients):
            self._drop(client)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def _listen(path: Path, mode: int, owner: tuple[int, int] | None) -> socket.socket:
    listener = socket.socket(
        socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        _remove_stale(path)
        # The mode must hold from the first moment: bind creates the file by the umask.
        previous = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        if owner is not None:
            os.chown(path, *owner)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen on {path}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a process that is gone; refuse one that is alive."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise HostError(f"another agent already listens on {path}")


def send_ports(client: socket.socket, groups: PortGroups) -> None:
    """Send every IKE socket of `groups` over a Unix socket, in one message."""
    header = {
        "mark": groups.options.mark,
        "ports": [
            {"address": str(p.address), "port": p.port, "has_marker": p.has_marker} for p in groups.ike
        ],
    }
    descriptors = array.array("i", [p.socket.fileno() for p in groups.ike])
    client.sendmsg(
        [json.dumps(header).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())]
    )


def receive_ports(path: str | os.PathLike[str], *, timeout_s: float = 5.0) -> IkePorts:
    """Ask the agent at `path` for the IKE sockets.

    Blocks for at most `timeout_s` seconds.

    Raises:
        HostError: No agent answers there, or it may not be asked by this user.
    """
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    control.settimeout(timeout_s)
    try:
        control.connect(os.fspath(path))
        ports = _receive(control)
    except TimeoutError as error:
        control.close()
        raise HostError(f"the datapath agent at {path} does not answer") from error
    except PermissionError as error:
        control.close()
        raise HostError(f"no permission to connect to {path}: is this user in its group?") from error
    except OSError as error:
        control.close()
        raise HostError(
            f"no datapath agent at {path} ({error.strerror}): start one with `ipsecgw agent`"
        ) from error
    except BaseException:
        control.close()
        raise
    control.setblocking(False)
    return ports


def _receive(control: socket.socket) -> IkePorts:
    space = socket.CMSG_SPACE(_MAX_PORTS * struct.calcsize("i"))
    data, ancillary, _, _ = control.recvmsg(64 * 1024, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        header = json.loads(data)
        if not sockets or len(sockets) != len(header["ports"]):
            raise HostError("the datapath agent sent sockets and a list that do not fit each other")
        ports = tuple(
            IkePort(
                address=ip_address(entry["address"]),
                port=entry["port"],
                has_marker=entry["has_marker"],
                socket=sock,
            )
            for entry, sock in zip(header["ports"], sockets, strict=True)
        )
    except BaseException as error:
        for sock in sockets:
            sock.close()
        if isinstance(error, ValueError | KeyError | TypeError):
            raise HostError("what listens there is not a datapath agent of this version") from error
        raise
    return IkePorts(ports=ports, mark=header["mark"], control=control)
