"""One connection to espd: requests and their answers, many under way, and events.

The socket is of type SOCK_SEQPACKET, so that one datagram is one message. Requests are sent from the memory
of their records, and wiped: they may hold keys.
"""

import asyncio
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import EngineError

ANSWER_S: Final = 10.0
"""How long a request may wait for its answer: probing an I/O method takes the longest."""
_AT_ONCE: Final = 64
_LISTEN_BYTES: Final = 1 << 20

R = TypeVar("R", bound=p.ReplyMessage)


class EspdGoneError(EngineError):
    """The connection to espd ended, or espd does not answer."""


class Connection:
    """One connection.

    Args:
        sock: Connected, non-blocking; owned from here on.
        on_event: Told of each event, in order; must not block.
        on_end: Told why, once, when the connection ends without having been closed here.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_event: Callable[[p.EventMessage], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._socket = sock
        self._on_event = on_event
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[p.RequestMessage, Sequence[int]]] = deque()
        self._waiting: dict[int, asyncio.Future[p.ReplyMessage]] = {}
        self._number = 0
        self._is_open = True
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_open(self) -> bool:
        """Whether requests may be answered."""
        return self._is_open

    async def ask(
        self,
        kind: p.MessageType,
        message: p.RequestMessage,
        reply: type[R],
        *,
        descriptors: Sequence[int] = (),
    ) -> R:
        """Send a request and return the reply; the message is wiped.

        Args:
            kind: What is asked for.
            message: Without header.
            reply: The record of the reply.
            descriptors: What is passed with it; the caller closes its own.

        Raises:
            EspdRefused: espd did not do it.
            EspdGoneError: There is no answer: it may have been done or not.
        """
        if not self._is_open:
            p.wipe(message)
            raise EspdGoneError("espd is not there")
        self._number += 1
        number = self._number
        p.stamp(message, kind, number)
        answer: asyncio.Future[p.ReplyMessage] = self._loop.create_future()
        self._waiting[number] = answer
        self._unsent.append((message, descriptors))
        if len(self._unsent) == 1:
            self._send()
        try:
            body = await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError as error:
            raise EspdGoneError(f"espd did not answer {kind.name} within {ANSWER_S:.0f} s") from error
        finally:
            self._waiting.pop(number, None)
        p.check(kind, body)
        assert isinstance(body, reply)
        return body

    def close(self) -> None:
        """End the connection; espd goes on with what it has."""
        self._end("the connection was closed here")

    def _end(self, reason: str) -> bool:
        """Close the socket; return whether it was open."""
        if not self._is_open:
            return False
        self._is_open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for message, _ in self._unsent:
            p.wipe(message)
        self._unsent.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EspdGoneError(reason))
        self._waiting.clear()
        return True

    def _fail(self, reason: str) -> None:
        if self._end(reason):
            self._on_end(reason)

    def _send(self) -> None:
        """Send what waits, as much as espd takes now."""
        while self._unsent:
            message, descriptors = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
            try:
                self._socket.sendmsg([memoryview(message)], rights)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._send)
                return
            except OSError as error:
                self._fail(f"espd takes no more requests: {error.strerror}")
                return
            p.wipe(message)
            self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _on_readable(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(p.MAX_BYTES + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(f"espd is gone: {error.strerror}")
                return
            if not data:
                self._fail("espd closed the connection")
                return
            try:
                received = p.parse(data)
            except p.ProtocolError as error:
                self._fail(str(error))
                return
            self._take(received)
            if not self._is_open:
                return

    def _take(self, received: p.Received) -> None:
        if isinstance(received.body, p.EventMessage):
            self._on_event(received.body)
            return
        answer = self._waiting.get(received.number)
        # What nobody waits for any more took too long.
        if answer is not None and not answer.done():
            answer.set_result(received.body)


async def connect(
    path: Path, on_event: Callable[[p.EventMessage], None], on_end: Callable[[str], None]
) -> Connection:
    """Connect to espd's socket.

    Raises:
        OSError: Nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LISTEN_BYTES)
        await asyncio.get_running_loop().sock_connect(sock, str(path))
    except BaseException:
        sock.close()
        raise
    return Connection(sock, on_event, on_end)
