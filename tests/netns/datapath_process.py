"""A software datapath in a process and a network namespace of its own, driven by a test.

Requests and answers are pickled over a socket pair; the test calls the methods of `Datapath` as if they were
synchronous. Run as a program, this file is the nursery, from which the other ends are forked: to load the
code takes twenty times as long as to start a datapath.
"""

import asyncio
import atexit
import contextlib
import copyreg
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from gateway.bench.topology import Namespace
from gateway.datapath.backend import DatapathError, DatapathEvent
from gateway.datapath.software.backend import SoftwareBackend
from gateway.datapath.software.options import SoftwareOptions
from gateway.host.sockets import PortOptions, open_ports
from gateway.ipsec.secret import Secret
from tests.conformance.namespace import inside

_PATIENCE_S = 30.0
_LENGTH = struct.Struct("!I")

# Only tests send keys in pickles.
copyreg.pickle(Secret, lambda secret: (Secret, (secret.reveal(),)))
copyreg.pickle(DatapathError, lambda error: (DatapathError, (error.reason, str(error))))


class _Nursery:
    """The process that forks datapaths, all those of a run of pytest."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.netns.datapath_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
            )

    def fork(self, namespace: Namespace, connection: socket.socket) -> int:
        """Return the PID of a new datapath that is driven over this connection."""
        name = namespace.name.encode()
        socket.send_fds(self._socket, [_LENGTH.pack(len(name)) + name], [connection.fileno()])
        (pid,) = _LENGTH.unpack(_read(self._socket, _LENGTH.size))
        return int(pid)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(_PATIENCE_S)


@cache
def _nursery() -> _Nursery:
    made = _Nursery()
    atexit.register(made.close)
    return made


class DatapathProcess:
    """The test's end."""

    def __init__(self, namespace: Namespace, options: SoftwareOptions | None = None) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._handle = os.pidfd_open(_nursery().fork(namespace, theirs))
        self._socket.settimeout(_PATIENCE_S)
        self.call("start", options or SoftwareOptions())

    def call(self, name: str, *arguments: Any) -> Any:
        _send(self._socket, (name, arguments))
        is_error, answer = _receive(self._socket)
        if is_error:
            raise AssertionError(f"{name}: {answer}")
        return answer

    def install(self, *sas: Any, generation: int = 0) -> None:
        results = self.call("install_sas", sas, generation)
        assert all(result.ok for result in results), results

    def apply(self, *policies: Any, generation: int = 0) -> None:
        results = self.call("apply_policies", policies, generation)
        assert all(result.ok for result in results), results

    def events(self) -> list[DatapathEvent]:
        """Return the events since the last call."""
        return list(self.call("events"))

    def wait_for_event(self, kind: type, timeout_s: float = 30.0) -> Any:
        deadline = time.monotonic() + timeout_s
        seen: list[DatapathEvent] = []
        while time.monotonic() < deadline:
            seen += self.events()
            for event in seen:
                if isinstance(event, kind):
                    return event
            time.sleep(0.05)
        raise AssertionError(f"no {kind.__name__} within {timeout_s} s, only {seen}")

    def sigkill(self) -> None:
        signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        assert self._has_ended()
        self._socket.close()

    def close(self) -> None:
        if self._handle < 0:
            return
        if self._socket.fileno() >= 0:
            with contextlib.suppress(OSError, AssertionError):
                self.call("close")
            if not self._has_ended():
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                assert self._has_ended()
            self._socket.close()
        os.close(self._handle)
        self._handle = -1

    def _has_ended(self) -> bool:
        """Say whether the process is gone, now or soon."""
        return bool(select.select([self._handle], [], [], _PATIENCE_S)[0])

    def __enter__(self) -> "DatapathProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _send(sock: socket.socket, message: object) -> None:
    data = pickle.dumps(message)
    sock.sendall(_LENGTH.pack(len(data)) + data)


def _receive(sock: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_read(sock, _LENGTH.size))
    return pickle.loads(_read(sock, length))


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise AssertionError("the datapath process is gone")
        data += chunk
    return data


# --- the other end --------------------------------------------------------------------------------


async def _serve(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    backend: SoftwareBackend | None = None
    events: list[DatapathEvent] = []
    collector: asyncio.Task[None] | None = None

    async def collect(source: Any) -> None:
        async for event in source:
            events.append(event)

    while True:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        name, arguments = pickle.loads(await reader.readexactly(length))
        try:
            answer: Any = None
            if name == "start":
                (options,) = arguments
                ports = open_ports(PortOptions(mark=options.protection.mark))
                backend = SoftwareBackend(options, ports.esp)
                await backend.start()
                collector = asyncio.create_task(collect(backend.events()))
            elif name == "events":
                await asyncio.sleep(0)
                answer, events = tuple(events), events
                events.clear()
            else:
                assert backend is not None
                method: Callable[..., Any] = getattr(backend, name)
                answer = await method(*arguments)
            reply: Any = (False, answer)
        except Exception as error:  # noqa: BLE001 - the test shall see it, whatever it is
            reply = (True, f"{type(error).__name__}: {error}")
        data = pickle.dumps(reply)
        writer.write(_LENGTH.pack(len(data)) + data)
        await writer.drain()
        if name == "close":
            if collector is not None:
                await collector
            return


def _fork_datapaths(requests: socket.socket) -> None:
    """Fork one for each namespace that is asked for, until nobody can ask any more."""
    # Nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        head, descriptors, _, _ = socket.recv_fds(requests, _LENGTH.size, 1)
        if not head:
            return
        (length,) = _LENGTH.unpack(head)
        namespace = Namespace(_read(requests, length).decode())
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            with inside(namespace), contextlib.suppress(asyncio.IncompleteReadError):
                asyncio.run(_serve(descriptors[0]))
            return
        os.close(descriptors[0])
        requests.sendall(_LENGTH.pack(pid))


if __name__ == "__main__":
    # An interrupt is for pytest, which then ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        _fork_datapaths(requests)
