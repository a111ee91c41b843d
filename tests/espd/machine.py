"""A network namespace with espd in it: a tunnel device inside, a wire to the peer outside.

a program ── kernel ── TUN ── espd ── raw sockets or AF_PACKET ── outside ═══ beyond (the test)
"""

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from gateway.datapath.engine import protocol as p
from gateway.esp.inbound import InboundSa, parse_outer
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.sa import Direction, SecurityAssociation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.namespace import neighbour
from tests.espd.client import PATIENCE_S, Client
from tests.unit.esp.samples import BY_NAME, association, make_entropy

OURS = ("192.0.2.1/24", "2001:db8::1/64")
OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
INNER = {4: ("10.1.0.1", "10.2.0.1"), 6: ("fd00:1::1", "fd00:2::1")}
LOCAL = tuple(map(TrafficSelector.parse, ("10.1.0.0/16", "fd00:1::/64")))
REMOTE = tuple(map(TrafficSelector.parse, ("10.2.0.0/16", "fd00:2::/64")))
TUN, OUTSIDE = 1, 2
"""Devices, as espd knows them."""
TUNNEL, POLICY = 1, 1
SPI_OUT, SPI_IN = 0x2001, 0x1001
OUT, IN = 7, 8
"""Cookies."""
PORT = 7001
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS = 33, 263, 6


@dataclass
class Machine:
    """A running espd, and who is around it."""

    process: "subprocess.Popen[bytes]"
    path: Path
    client: Client
    peers: list["Peer"]
    sockets: list[socket.socket] = field(default_factory=list)
    says: str = ""
    """What espd is expected to say on its standard error until it ends: a regular expression."""

    @property
    def peer(self) -> "Peer":
        """Return who is at the other end of the wire."""
        (peer,) = self.peers
        return peer

    def connect(self) -> Client:
        """Return another connection."""
        return Client(self.path)

    def program(self, version: int = 4, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """Return a bound socket of a program of this machine, inside of what is protected."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        made = socket.socket(family, kind)
        made.settimeout(PATIENCE_S)
        made.bind((INNER[version][0], PORT))
        self.sockets.append(made)
        return made

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Await espd's end and return its exit status."""
        return self.process.wait(timeout_s)


class Peer:
    """The other end of a wire: frames in, frames out."""

    def __init__(self, near: str = "beyond", far: str = "outside") -> None:
        self._link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self._link.setsockopt(263, _PACKET_IGNORE_OUTGOING, 1)
        self._link.bind((near, 0))
        self._link.settimeout(PATIENCE_S)
        self.mac, self._theirs = neighbour(near), neighbour(far)

    def make_room(self) -> None:
        """Have what comes wait for the test, however slow that is."""
        self._link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        self.missed()

    def missed(self) -> int:
        """Return how many packets came for which there was no room, since the last call."""
        stats = self._link.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int.from_bytes(stats[4:], sys.byteorder)

    def put(self, packet: bytes) -> None:
        """Send an IP packet to the machine."""
        self._link.send(self._theirs + self.mac + _ETHERTYPE[packet[0] >> 4] + packet)

    def take(self, *protocols: int) -> bytes:
        """Return the next IP packet of one of these protocols that the machine sends to the peer."""
        while True:
            frame = self._link.recv(65536)
            if frame[:6] == self.mac and frame[12:14] in _ETHERTYPE.values():
                packet = frame[14:]
                if (packet[9] if packet[0] >> 4 == 4 else packet[6]) in protocols:
                    return packet

    def close(self) -> None:
        self._link.close()


@contextlib.contextmanager
def running(program: Path, folder: Path, *, has_peer: bool = True) -> Iterator[Machine]:
    """Run espd in this network namespace, and connect to it; at the end it must have ended well.

    Args:
        program: espd.
        folder: For its socket.
        has_peer: Whether the test listens at the other end of the wire, from the beginning.
    """
    path = folder / "espd.sock"
    process = subprocess.Popen([program, "--socket", path], stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        line = process.stderr.readline().decode()
        assert line == f"espd: ready at {path}\n", line
        machine = Machine(process, path, Client(path), [Peer()] if has_peer else [])
        yield machine
        tell(machine)
        for made in machine.sockets:
            made.close()
        for peer in machine.peers:
            peer.close()
        machine.client.close()
        if process.poll() is None:
            process.terminate()
        said = process.stderr.read().decode()
        assert process.wait(PATIENCE_S) == 0, said
        assert re.fullmatch(machine.says, said)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def tell(machine: Machine) -> None:
    """Print what espd counted, for whoever reads why a test failed."""
    if machine.process.poll() is not None:
        return
    client = machine.connect()
    if client.hello().workers:
        counters = client.counters()
        numbers = {name: getattr(counters, name) for name, *_ in p.CountersReply._fields_[1:-1]}
        print(numbers, client.drops())
        for device in (TUN, OUTSIDE):
            with contextlib.suppress(p.EspdRefused):
                said = client.read_device(device)
                print(device, {name: getattr(said, name) for name, *_ in p.DeviceCounters._fields_[4:]})
    client.close()
    kernel = [line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines()]
    print({name: value for name, value in kernel if value != "0" and name[:4] in {"Udp6", "Icmp"}})


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def link_index(device: str) -> int:
    return socket.if_nametoindex(device)


# --- devices --------------------------------------------------------------------------------------


def open_tun(
    client: Client, *, queues: int = 1, mtu: int = 1400, side: int = 0, is_host: bool = True
) -> None:
    """Have espd make its tunnel device.

    Args:
        client: Of a configured espd.
        queues: One for each worker.
        mtu: Of the device.
        side: Whose; 1 is the peer's.
        is_host: Whether this machine has an inner address of its own, and routes the other side into it.
    """
    addresses = {version: INNER[version][side] for version in (4, 6)}
    message = p.Device(
        device=TUN,
        name=b"tunnel",
        flags=p.DeviceFlag.CLEAR | p.DeviceFlag.SLOW_PATH | p.DeviceFlag.OFFLOAD,
        mtu=mtu,
        queues=queues,
    )
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.TUN
    message.address4[:] = ip_address(addresses[4]).packed
    message.address6[:] = ip_address(addresses[6]).packed
    reply = client.set_device(message)
    assert reply.ifindex == link_index("tunnel")
    # The kernel shall say nothing of its own accord.
    ip("link", "set", "tunnel", "addrgenmode", "none")
    ip("link", "set", "tunnel", "mtu", str(mtu), "up")
    if is_host:
        be_host(addresses, LOCAL if side else REMOTE)


def be_host(addresses: dict[int, str], remote: tuple[TrafficSelector, ...]) -> None:
    """Give this machine inner addresses, and routes into the tunnel device."""
    ip("address", "add", f"{addresses[4]}/32", "dev", "lo")
    ip("address", "add", f"{addresses[6]}/128", "dev", "lo", "nodad")
    await_local_route(addresses[6])
    for version, selector in zip((4, 6), remote, strict=True):
        (prefix,) = selector.prefixes()
        ip(f"-{version}", "route", "add", str(prefix), "dev", "tunnel", "src", addresses[version])


def await_local_route(address: str) -> None:
    """Wait until packets to an IPv6 address of ours are delivered: a work queue of the kernel does that.

    Raises:
        AssertionError: They never were.
    """
    end = time.monotonic() + PATIENCE_S
    while not said("ip", "-6", "route", "show", "table", "local", address):
        assert time.monotonic() < end, f"{address} is not ours"


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def open_raw(client: Client) -> None:
    """Have espd receive from every link, and send by the kernel's routes."""
    message = p.Device(
        device=OUTSIDE, flags=p.DeviceFlag.PROTECTED | p.DeviceFlag.FALLBACK, mtu=65535, queues=1
    )
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.RAW
    client.set_device(message)
    # The peer's end is in this namespace: what arrives there is not for us.
    set_local_routes(client)
    client.commit()


def set_local_routes(client: Client) -> None:
    """Tell espd which addresses are ours."""
    for version, bits in ((4, 32), (6, 128)):
        client.set_route(f"{OUTER[version][0]}/{bits}", p.RouteKind.LOCAL)


def open_packet(client: Client, flags: int = p.DeviceFlag.PROTECTED, *, queues: int = 1) -> None:
    """Have espd receive and send frames at the wire, and tell it who is there."""
    message = p.Device(
        device=OUTSIDE, ifindex=link_index("outside"), name=b"outside", flags=flags, mtu=1500, queues=queues
    )
    message.mac[:] = neighbour("outside")
    message.receive_methods[0] = message.send_methods[0] = p.IoKind.PACKET
    client.set_device(message)
    set_local_routes(client)
    for version, prefix in ((4, "192.0.2.0/24"), (6, "2001:db8::/64")):
        client.set_route(prefix, p.RouteKind.FORWARD, device=OUTSIDE)
        client.set_neighbour(OUTSIDE, OUTER[version][1], neighbour("beyond"))
    client.commit()


# --- SAs: espd's, and the peer's half of each -----------------------------------------------------


def outbound(outer: int = 4, suite: str = "aes256gcm16", **changes: object) -> SecurityAssociation:
    """Return the SA by which espd sends."""
    return _sa(Direction.OUTBOUND, SPI_OUT, OUTER[outer], suite, changes)


def inbound(outer: int = 4, suite: str = "aes256gcm16", **changes: object) -> SecurityAssociation:
    """Return the SA by which the peer sends to espd."""
    return _sa(Direction.INBOUND, SPI_IN, OUTER[outer][::-1], suite, changes)


def _sa(
    direction: Direction, spi: int, addresses: tuple[str, ...], suite: str, changes: dict[str, object]
) -> SecurityAssociation:
    fields: dict[str, object] = {
        "spi": spi,
        "source": ip_address(addresses[0]),
        "destination": ip_address(addresses[1]),
        "local_ts": LOCAL,
        "remote_ts": REMOTE,
    }
    key = Secret(bytes(index ^ spi & 0xFF for index in BY_NAME[suite].encryption_key))
    return association(direction, BY_NAME[suite], **{"encryption_key": key} | fields | changes)


def turned(sa: SecurityAssociation, direction: Direction) -> SecurityAssociation:
    """Return the other side's half of an SA."""
    return replace(sa, direction=direction, local_ts=sa.remote_ts, remote_ts=sa.local_ts)


def opener(sa: SecurityAssociation) -> InboundSa:
    """Return who opens what espd sent by an outbound SA."""
    return InboundSa(turned(sa, Direction.INBOUND))


def sealer(sa: SecurityAssociation, next_sequence: int = 1) -> OutboundSa:
    """Return who seals what espd opens by an inbound SA."""
    return OutboundSa(turned(sa, Direction.OUTBOUND), entropy=make_entropy(), next_sequence=next_sequence)


def open_outer(opened_by: InboundSa, packet: bytes) -> bytes:
    """Return the inner packet of one that the peer got."""
    outer, esp = parse_outer(packet)
    return opened_by.open(esp, outer, 0.0).packet


def load_pair(
    client: Client, out: SecurityAssociation, into: SecurityAssociation, *, path_mtu: int = 0
) -> None:
    """Give espd a pair of SAs, and the entry of the SPD that they serve."""
    client.add_sa(into, IN)
    client.add_sa(out, OUT, path_mtu=path_mtu)
    client.set_tunnel(TUNNEL, [OUT])
    client.set_policy(POLICY, p.PolicyAction.PROTECT, out.local_ts, out.remote_ts, tunnel=TUNNEL)
    client.commit()
