"""A plain client of espd's control socket for tests: one request, one answer, no event loop.

It shares the records of `gateway.datapath.engine.protocol` with the real one, and nothing else.
"""

import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import drops_of, make_params, put_bytes, put_selector
from gateway.datapath.engine.records import NEVER, REASONS
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import SecurityAssociation
from gateway.ipsec.selectors import TrafficSelector

R = TypeVar("R")
PATIENCE_S = 30.0


class Client:
    """One connection to espd."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        self._numbers = count(1)
        self._events: deque[p.EventMessage] = deque()

    def close(self) -> None:
        self._socket.close()

    def exchange(self, data: bytes, descriptors: Sequence[int] = ()) -> p.Received:
        """Send any bytes and return the next reply; events that come first are kept."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([data], rights)
        while True:
            received = p.parse(self._receive())
            if not isinstance(received.body, p.EventMessage):
                return received
            self._events.append(received.body)

    def _receive(self) -> bytes:
        data = self._socket.recv(p.MAX_BYTES + 1)
        if not data:
            raise EOFError("espd closed the connection")
        return data

    def ask(
        self, kind: p.MessageType, message: Any, reply: type[R] = p.Reply, descriptors: Sequence[int] = ()
    ) -> R:  # type: ignore[assignment]
        """Make a request and return the reply.

        Raises:
            EspdRefused: espd did not do it.
        """
        number = next(self._numbers)
        p.stamp(message, kind, number)
        received = self.exchange(bytes(message), descriptors)
        assert (received.kind, received.number) == (kind, number)
        body = received.body
        assert not isinstance(body, p.EventMessage)
        p.check(kind, body)
        assert isinstance(body, reply)
        return body

    def next_event(self) -> p.EventMessage:
        """Return the next event."""
        if self._events:
            return self._events.popleft()
        body = p.parse(self._receive()).body
        assert isinstance(body, p.EventMessage)
        return body

    def is_closed_by_espd(self) -> bool:
        """Whether espd has hung up."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    # --- requests

    def hello(self) -> p.HelloReply:
        return self.ask(p.MessageType.HELLO, p.Hello(drop_reasons=len(REASONS)), p.HelloReply)

    def configure(self, descriptors: Sequence[int] = (), **changes: int) -> None:
        """Configure a small espd; with descriptors it may send live frames."""
        self.ask(p.MessageType.CONFIGURE, configuration(**changes), descriptors=descriptors)

    def set_device(self, message: p.Device, descriptors: Sequence[int] = ()) -> p.DeviceReply:
        return self.ask(p.MessageType.DEVICE_SET, message, p.DeviceReply, descriptors)

    def read_device(self, device: int) -> p.DeviceCounters:
        return self.ask(p.MessageType.DEVICE_READ, p.DeviceName(device=device), p.DeviceCounters)

    def add_sa(
        self,
        sa: SecurityAssociation,
        cookie: int,
        *,
        worker: int = p.ANY_WORKER,
        device: int = 0,
        sequence_limit: int = NEVER,
        path_mtu: int = 0,
        note: bytes = b"",
    ) -> p.SaReply:
        message = p.SaMessage(worker=worker, device=device, note_bytes=len(note), params=make_params(sa))
        message.params.cookie = cookie
        message.params.next_sequence = 1
        message.params.sequence_limit = sequence_limit
        message.params.path_mtu = path_mtu
        put_bytes(message.note, note)
        return self.ask(p.MessageType.SA_ADD, message, p.SaReply)

    def remove_sa(self, cookie: int) -> p.SaRecord:
        return self.ask(p.MessageType.SA_REMOVE, p.SaName(cookie=cookie), p.SaStateReply).sa

    def read_sa(self, cookie: int) -> p.SaRecord:
        return self.ask(p.MessageType.SA_READ, p.SaName(cookie=cookie), p.SaStateReply).sa

    def list_sas(self) -> list[p.SaRecord]:
        """Return every SA, page by page."""
        found: list[p.SaRecord] = []
        while True:
            after = found[-1].cookie if found else 0
            page = self.ask(p.MessageType.SA_LIST, p.SaName(cookie=after), p.SaListReply)
            found += page.sas[: page.count]
            if page.count < p.SAS_LISTED:
                return found

    def set_tunnel(self, tunnel: int, cookies: Sequence[int]) -> None:
        message = p.Tunnel(tunnel=tunnel, count=len(cookies))
        message.cookies[: len(cookies)] = cookies
        self.ask(p.MessageType.TUNNEL_SET, message)

    def set_policy(
        self,
        policy: int,
        action: p.PolicyAction,
        local: Sequence[TrafficSelector],
        remote: Sequence[TrafficSelector],
        *,
        tunnel: int = 0,
        order: int = 100,
        device: int = 0,
        acquire: bool = True,
    ) -> None:
        message = policy_message(
            policy, action, local, remote, tunnel=tunnel, order=order, device=device, acquire=acquire
        )
        self.ask(p.MessageType.POLICY_SET, message)

    def set_route(
        self,
        prefix: str,
        kind: p.RouteKind,
        *,
        device: int = 0,
        gateway: str | None = None,
        mtu: int = 0,
    ) -> None:
        network = ip_network(prefix)
        message = p.RouteMessage(
            device=device, mtu=mtu, family=network.version, prefix_bits=network.prefixlen, kind=kind
        )
        put_bytes(message.destination, network.network_address.packed)
        if gateway:
            put_bytes(message.gateway, ip_address(gateway).packed)
        self.ask(p.MessageType.ROUTE_SET, message)

    def set_neighbour(self, device: int, address: str, mac: bytes) -> None:
        parsed = ip_address(address)
        message = p.NeighbourMessage(device=device, family=parsed.version)
        put_bytes(message.address, parsed.packed)
        put_bytes(message.mac, mac)
        self.ask(p.MessageType.NEIGHBOUR_SET, message)

    def commit(self) -> None:
        self.ask(p.MessageType.COMMIT, p.Plain())

    def counters(self, worker: int = p.ANY_WORKER) -> p.CountersReply:
        return self.ask(p.MessageType.COUNTERS_READ, p.WorkerName(worker=worker), p.CountersReply)

    def drops(self) -> dict[DropReason, int]:
        return drops_of(self.counters().drops)

    def await_drops(self, expected: dict[DropReason, int]) -> None:
        """Ask until the drops are as expected.

        Raises:
            AssertionError: They never were.
        """
        end = time.monotonic() + PATIENCE_S
        while (drops := self.drops()) != expected:
            assert time.monotonic() < end, drops


def configuration(**changes: int) -> p.Configure:
    """Return what configures a small espd."""
    fields: dict[str, int] = {
        "workers": 1,
        "inbound_bits": 12,
        "outbound_sas": 64,
        "tunnels": 16,
        "mark": 0x69707365,
        "clear_mark": 0x69707366,
        "frames": 1024,
        "frame_bytes": 4096,
        "batch_low": 64,
        "batch_high": 256,
    }
    message = p.Configure(**(fields | changes))
    for worker in range(p.MAX_WORKERS):
        message.cpus[worker] = p.ANY_CPU
    return message


def policy_message(
    policy: int,
    action: p.PolicyAction,
    local: Sequence[TrafficSelector],
    remote: Sequence[TrafficSelector],
    *,
    tunnel: int = 0,
    order: int = 100,
    device: int = 0,
    acquire: bool = True,
) -> p.PolicyMessage:
    """Return one entry of the SPD."""
    message = p.PolicyMessage(
        order=order,
        policy=policy,
        tunnel=tunnel,
        device=device,
        action=action,
        acquire=acquire,
        local_selectors=len(local),
        remote_selectors=len(remote),
    )
    for record, selector in zip(message.selectors, (*local, *remote), strict=False):
        put_selector(record, selector)
    return message
