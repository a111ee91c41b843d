"""A software datapath in a process and a network namespace of its own, driven by a test.

Requests and answers are pickled over a socket pair; the test calls the methods of `Datapath` as if they were
synchronous. Run as a program, this file is the other end.
"""

import asyncio
import contextlib
import copyreg
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from gateway.bench.topology import Namespace
from gateway.datapath.backend import DatapathError, DatapathEvent
from gateway.datapath.software.backend import SoftwareBackend
from gateway.datapath.software.options import SoftwareOptions
from gateway.host.sockets import PortOptions, open_ports
from gateway.ipsec.secret import Secret

_LENGTH = struct.Struct("!I")

# Only tests send keys in pickles.
copyreg.pickle(Secret, lambda secret: (Secret, (secret.reveal(),)))
copyreg.pickle(DatapathError, lambda error: (DatapathError, (error.reason, str(error))))


class DatapathProcess:
    """The test's end."""

    def __init__(self, namespace: Namespace, options: SoftwareOptions | None = None) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            namespace.command(sys.executable, "-m", "tests.netns.datapath_process", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            cwd=Path(__file__).parents[2],
        )
        theirs.close()
        self._socket.settimeout(30)
        self.call("start", options or SoftwareOptions())

    @property
    def pid(self) -> int:
        return self._process.pid

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
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._socket.close()

    def close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(OSError, AssertionError):
                self.call("close")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)
        self._socket.close()

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


if __name__ == "__main__":
    with contextlib.suppress(asyncio.IncompleteReadError):
        asyncio.run(_serve(int(sys.argv[1])))
