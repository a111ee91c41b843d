"""An espd without packets: a SOCK_SEQPACKET server in the event loop of the test that speaks the protocol.

It keeps the books that espd keeps, and refuses what espd must refuse; tests look at them, and have it tell
events or die. `make_link` stands for the tunnel device that espd makes.
"""

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import EventKind, Refusal
from gateway.datapath.engine.records import REASONS, SaParams
from gateway.esp.transform import supported_encryption
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.sa import IpsecProtocol

Handler = Callable[["FakeEspd", Any], Any]


class Refuse(Exception):
    """A request is refused.

    Attributes:
        code: The reply's error.
    """

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


class FakeEspd:
    """One life of espd at a path.

    Attributes:
        configured: The bytes of CONFIGURE, once it came.
        devices: By number.
        sas: By cookie: the request as it came, its keys included.
        records: By cookie: what SA_LIST says.
        tunnels: The cookies of each tunnel.
        policies: The SPD in force, by number.
        staged: The SPD at the next COMMIT.
        commits: How many there were.
        refusals: What to answer to the next requests of a type, instead of doing them.
        asked: The types of all requests, in order.
    """

    def __init__(self, path: Path, make_link: Callable[[str], Any] | None = None) -> None:
        self.life = os.urandom(16)
        self.configured: bytes | None = None
        self.devices: dict[int, p.Device] = {}
        self.sas: dict[int, p.SaMessage] = {}
        self.records: dict[int, p.SaRecord] = {}
        self.tunnels: dict[int, list[int]] = {}
        self.policies: dict[int, p.PolicyMessage] = {}
        self.staged: dict[int, p.PolicyMessage] = {}
        self.commits = 0
        self.drops = [0] * len(REASONS)
        self.refusals: dict[p.MessageType, Refuse] = {}
        self.asked: list[p.MessageType] = []
        self.has_ended = False
        self.build = b"first"
        self._make_link = make_link
        self._links: list[Any] = []
        self._loop = asyncio.get_running_loop()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self._loop.add_reader(self._listener.fileno(), self._on_connect)

    # --- what tests do ------------------------------------------------------------------------------

    def end(self) -> None:
        """Die: the socket, the connections and the tunnel device are gone."""
        if self.has_ended:
            return
        self.has_ended = True
        for sock in (self._listener, *self._connections):
            self._loop.remove_reader(sock.fileno())
            sock.close()
        for link in self._links:
            link.close()

    def hang_up(self) -> None:
        """Close the connections, and live on."""
        for sock in self._connections:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._connections.clear()

    def say(self, data: bytes) -> None:
        """Send any bytes."""
        for sock in self._connections:
            sock.send(data)

    def tell(self, kind: p.MessageType, event: p.EventMessage) -> None:
        """Send an event."""
        event.header = p.Header(p.VERSION, kind, ctypes.sizeof(event), 0)
        self.say(bytes(event))

    def tell_of_sa(self, cookie: int, kinds: EventKind, *, sequence: int = 0, **event: int) -> None:
        """Send an event about an SA."""
        message = p.SaEvent(spi=self.records[cookie].spi, sequence=sequence)
        message.event.cookie, message.event.kinds = cookie, kinds
        for name, value in event.items():
            setattr(message.event, name, value)
        self.tell(p.MessageType.EVENT_SA, message)

    def in_order(self) -> list[p.PolicyMessage]:
        """Return the SPD in the order in which it is searched."""
        return sorted(self.policies.values(), key=lambda policy: (policy.order, policy.policy))

    # --- the socket ---------------------------------------------------------------------------------

    def _on_connect(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        self._connections.append(sock)
        self._loop.add_reader(sock.fileno(), self._on_request, sock)

    def _on_request(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 17)
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(sock.fileno())
            sock.close()
            self._connections.remove(sock)
            return
        header = p.Header.from_buffer_copy(data)
        kind = p.MessageType(header.type)
        self.asked.append(kind)
        record = p.REQUESTS[kind]
        assert (header.version, header.bytes, len(data)) == (
            p.VERSION,
            len(data),
            ctypes.sizeof(record),
        ), kind
        sock.send(bytes(self._answer(kind, header.request, record.from_buffer_copy(data))))
        if kind is p.MessageType.SHUT_DOWN:
            self.end()

    def _answer(self, kind: p.MessageType, number: int, request: Any) -> ctypes.Structure:
        reply: Any
        try:
            refusal = self.refusals.pop(kind, None)
            if refusal is not None:
                raise refusal
            reply = _HANDLERS[kind](self, request) if kind in _HANDLERS else p.Reply()
        except Refuse as refused:
            reply = p.Reply(error=refused.code, reason=str(refused).encode())
        head = reply if isinstance(reply, p.Reply) else reply.reply
        head.header = p.Header(p.VERSION, kind | p.REPLY, ctypes.sizeof(reply), number)
        return reply  # type: ignore[no-any-return]

    # --- requests -----------------------------------------------------------------------------------

    def _hello(self, request: p.Hello) -> p.HelloReply:
        if request.drop_reasons != len(REASONS):
            raise Refuse(p.ControlError.VERSION)
        reply = p.HelloReply(process=os.getpid(), workers=1 if self.configured else 0, sas=len(self.sas))
        reply.life[:] = self.life
        reply.methods = 1 << p.IoKind.TUN | 1 << p.IoKind.RAW
        reply.openssl = b"OpenSSL (fake)"
        reply.build = self.build
        return reply

    def _configure(self, request: p.Configure) -> p.Reply:
        contents = bytes(request)[ctypes.sizeof(p.Header) :]
        if self.configured not in (None, contents):
            raise Refuse(p.ControlError.ORDER, "configured otherwise")
        self.configured = contents
        return p.Reply()

    def _device_set(self, request: p.Device) -> p.DeviceReply:
        if self.configured is None:
            raise Refuse(p.ControlError.ORDER)
        is_new = request.device not in self.devices
        self.devices[request.device] = request
        if is_new and request.name and self._make_link is not None:
            self._links.append(self._make_link(request.name.decode()))
        return p.DeviceReply(
            receive_method=request.receive_methods[0], send_method=request.send_methods[0], ifindex=7
        )

    def _sa_add(self, request: p.SaMessage) -> p.SaReply:
        params = request.params
        if params.cookie == 0 or params.cookie in self.sas:
            raise Refuse(Refusal.INVALID)
        _check_suite(params)
        self.sas[params.cookie] = request
        record = p.SaRecord(
            cookie=params.cookie,
            spi=params.spi,
            direction=params.direction,
            protocol=params.protocol,
            mode=params.mode,
            family=params.family,
            sequence_limit=params.sequence_limit,
            note_bytes=request.note_bytes,
        )
        record.note[:] = request.note
        record.destination[:] = params.destination
        record.udp_destination_port = params.udp_destination_port
        self.records[params.cookie] = record
        return p.SaReply(cookie=params.cookie)

    def _record(self, cookie: int) -> p.SaRecord:
        if cookie not in self.records:
            raise Refuse(Refusal.NO_SA)
        return self.records[cookie]

    def _sa_remove(self, request: p.SaName) -> p.SaStateReply:
        record = self._record(request.cookie)
        assert not any(request.cookie in cookies for cookies in self.tunnels.values()), "it is in use"
        del self.sas[request.cookie], self.records[request.cookie]
        return p.SaStateReply(sa=record)

    def _sa_list(self, request: p.SaName) -> p.SaListReply:
        later = [self.records[cookie] for cookie in sorted(self.records) if cookie > request.cookie]
        reply = p.SaListReply(count=min(len(later), p.SAS_LISTED))
        for place, record in zip(range(p.SAS_LISTED), later, strict=False):
            reply.sas[place] = record
        return reply

    def _sa_reserve(self, request: p.SaReserve) -> p.Reply:
        record = self._record(request.cookie)
        if request.sequence_limit < record.sequence_limit:
            raise Refuse(Refusal.INVALID)
        record.sequence_limit = request.sequence_limit
        return p.Reply()

    def _sa_move(self, request: p.SaMove) -> p.Reply:
        record = self._record(request.cookie)
        record.destination[:] = request.destination
        record.udp_destination_port = request.port
        return p.Reply()

    def _tunnel_set(self, request: p.Tunnel) -> p.Reply:
        cookies = list(request.cookies[: request.count])
        for cookie in cookies:
            self._record(cookie)
        self.tunnels[request.tunnel] = cookies
        return p.Reply()

    def _policy_set(self, request: p.PolicyMessage) -> p.Reply:
        self.staged[request.policy] = request
        return p.Reply()

    def _policy_remove(self, request: p.PolicyName) -> p.Reply:
        if self.staged.pop(request.policy, None) is None:
            raise Refuse(p.ControlError.NO_ENTRY)
        return p.Reply()

    def _clear(self, _: p.Plain) -> p.Reply:
        self.staged.clear()
        return p.Reply()

    def _commit(self, _: p.Plain) -> p.Reply:
        self.policies = dict(self.staged)
        self.commits += 1
        return p.Reply()

    def _counters_read(self, _: p.WorkerName) -> p.CountersReply:
        reply = p.CountersReply()
        reply.drops[:] = self.drops
        return reply


def _check_suite(params: SaParams) -> None:
    """Refuse what the core library would refuse, as far as tests of the agent's side need it."""
    known = {int(encryption) for encryption, _ in supported_encryption()}
    if params.encryption not in known or (
        params.protocol == IpsecProtocol.AH and params.encryption != Encr.NULL
    ):
        raise Refuse(Refusal.UNSUPPORTED)
    salt_bytes = 4 if params.encryption in (Encr.AES_GCM_16, Encr.AES_CTR) else 0
    if params.encryption_key_bytes != params.key_bits // 8 + salt_bytes:
        raise Refuse(Refusal.KEY)


_HANDLERS: dict[p.MessageType, Handler] = {
    p.MessageType.HELLO: FakeEspd._hello,
    p.MessageType.CONFIGURE: FakeEspd._configure,
    p.MessageType.DEVICE_SET: FakeEspd._device_set,
    p.MessageType.SA_ADD: FakeEspd._sa_add,
    p.MessageType.SA_REMOVE: FakeEspd._sa_remove,
    p.MessageType.SA_LIST: FakeEspd._sa_list,
    p.MessageType.SA_RESERVE: FakeEspd._sa_reserve,
    p.MessageType.SA_MOVE: FakeEspd._sa_move,
    p.MessageType.TUNNEL_SET: FakeEspd._tunnel_set,
    p.MessageType.POLICY_SET: FakeEspd._policy_set,
    p.MessageType.POLICY_REMOVE: FakeEspd._policy_remove,
    p.MessageType.CLEAR: FakeEspd._clear,
    p.MessageType.COMMIT: FakeEspd._commit,
    p.MessageType.COUNTERS_READ: FakeEspd._counters_read,
}


class FakeLauncher:
    """Starts fakes, one life after the other.

    Attributes:
        lives: All that were started.
        failures: What to raise at the next starts.
        program: The build that is started now.
        refuses_succession: Whether the next one does not understand what it is told.
    """

    def __init__(self, make_link: Callable[[str], Any] | None = None) -> None:
        self.lives: list[FakeEspd] = []
        self.failures: list[Exception] = []
        self.program = "first"
        self.refuses_succession = False
        self._make_link = make_link

    @property
    def espd(self) -> FakeEspd:
        """Return the one that lives."""
        return self.lives[-1]

    def check(self) -> None:
        pass

    def build(self) -> str:
        return self.program

    def launch(self, socket_path: Path, *, takes_over: bool = False) -> "FakeProcess":
        if self.failures:
            raise self.failures.pop(0)
        if takes_over and self.refuses_succession:
            return FakeProcess(self.espd, ended_with=3)
        if takes_over:
            # What the next process has is what the last one had.
            self.espd.hang_up()
        else:
            self.lives.append(FakeEspd(socket_path, self._make_link))
        self.espd.build = self.program.encode()
        return FakeProcess(self.espd)


class FakeProcess:
    """A fake as a process."""

    def __init__(self, fake: FakeEspd, ended_with: int | None = None) -> None:
        self._fake = fake
        self._ended_with = ended_with

    def exit_code(self) -> int | None:
        return -9 if self._fake.has_ended else self._ended_with

    def kill(self) -> None:
        self._fake.end()
