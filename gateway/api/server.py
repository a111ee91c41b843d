"""Listeners of the services: Unix sockets with their mode and group, TCP with mutual TLS only.

A Unix socket appears under its name complete, with mode and group: it is bound under a hidden name
first and then linked, which fails if somebody else was quicker. A socket that nobody listens on any more
is replaced; one that a live process serves is left alone, and the error names the process.
"""

import asyncio
import grp
import os
import pwd
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.api.address import (
    MAX_MESSAGE_BYTES,
    SUN_PATH_BYTES,
    Address,
    TcpAddress,
    TlsFiles,
    UnixAddress,
)
from gateway.api.bench.v1.generator_pb2_grpc import add_GeneratorServiceServicer_to_server
from gateway.api.call_limit import CallLimit
from gateway.api.control.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from gateway.api.control_service import ControlService
from gateway.api.datapath.v1.datapath_pb2_grpc import add_DatapathServiceServicer_to_server
from gateway.api.datapath_service import DatapathService
from gateway.api.generator import Generator
from gateway.api.generator_service import GeneratorService
from gateway.api.interceptor import CallInterceptor
from gateway.api.listener import Listener, ListenError
from gateway.api.log.v1.log_pb2_grpc import add_LogServiceServicer_to_server
from gateway.api.log_service import LogService
from gateway.api.roles import CONTROL, DATAPATH, GENERATOR, LOG, Caller
from gateway.api.tls_reload import TlsReload
from gateway.controller.facade import ControlFacade
from gateway.datapath.backend import Datapath
from gateway.host.sockets import peer_pid

MAX_CONCURRENT_STREAMS: Final = 256
"""Per connection."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    # Two servers that share a port would each get half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Clients ask at most every 20 s whether we live, with or without calls under way.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_PROBE_TIMEOUT_S: Final = 1.0


class ApiServer:
    """Serves a controller, a datapath, a generator or several of them, with health and reflection."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        control: ControlFacade | None = None,
        keeps_state: bool = False,
        datapath: Datapath | None = None,
        generator: Generator | None = None,
    ) -> None:
        """Prepare a server; construct it inside the running event loop.

        Args:
            listeners: Where.
            control: The controller that is offered, or None.
            keeps_state: Whether it keeps the desired state (see `ControlService`).
            datapath: The datapath that is offered, or None.
            generator: The generator of test traffic that is offered, or None.
        """
        self._listeners = tuple(listeners)
        # One for all listeners: what it knows of requests and has written is for all clients.
        self._control = None if control is None else ControlService(control, keeps_state=keeps_state)
        self._datapath = datapath
        self._generator = None if generator is None else GeneratorService(generator)
        offered = ((CONTROL, control), (DATAPATH, datapath), (GENERATOR, generator))
        services = [name for name, behind in offered if behind is not None]
        self._services = (health.OVERALL_HEALTH, *services, LOG)
        self._health = health.aio.HealthServicer()
        self._limit = CallLimit()
        # One server for each listener: gRPC does not tell by which a call came, and roles depend on it.
        self._servers: list[tuple[grpc.aio.Server, CallInterceptor]] = []
        self._sockets: list[_PublishedSocket] = []
        self.addresses: tuple[Address, ...] = ()
        """Where it really listens, after `start`: ports that were 0 have their number."""

    def _make_server(self, listener: Listener) -> grpc.aio.Server:
        is_unix = isinstance(listener.address, UnixAddress)
        caller = Caller(f"socket:{listener.address}", listener.roles) if is_unix else None
        interceptor = CallInterceptor(caller, self._limit)
        server = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
        # The generated functions are untyped.
        if self._control is not None:
            add_ControlServiceServicer_to_server(self._control, server)  # type: ignore[no-untyped-call]
        if self._datapath is not None:
            add_DatapathServiceServicer_to_server(DatapathService(self._datapath), server)  # type: ignore[no-untyped-call]
        if self._generator is not None:
            add_GeneratorServiceServicer_to_server(self._generator, server)  # type: ignore[no-untyped-call]
        add_LogServiceServicer_to_server(LogService(), server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflected = [*self._services[1:], health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(reflected, server)
        self._servers.append((server, interceptor))
        return server

    async def start(self) -> None:
        """Open every listener and serve.

        Raises:
            ListenError: One of them cannot be opened; then none is.
            AddressError: TLS files cannot be read.
        """
        try:
            self.addresses = tuple([await self._open(listener) for listener in self._listeners])
            for server, _ in self._servers:
                await server.start()
        except BaseException:
            await self.stop(grace_s=0)
            raise
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks whether calls make sense now."""
        status = health_pb2.HealthCheckResponse
        for service in self._services:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_s: float = 2.0) -> None:
        """Take down the sockets, end the streams, let calls under way finish for `grace_s`, stop."""
        for published in self._sockets:
            published.withdraw()
        self._sockets.clear()
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(interceptor.stop() for _, interceptor in self._servers))
        await asyncio.gather(*(server.stop(grace_s) for server, _ in self._servers))

    async def _open(self, listener: Listener) -> Address:
        listener.check()
        server = self._make_server(listener)
        if isinstance(listener.address, TcpAddress):
            assert listener.tls is not None
            return _open_tcp(server, listener.address, listener.tls)
        return await self._open_unix(server, listener.address, listener)

    async def _open_unix(
        self, server: grpc.aio.Server, address: UnixAddress, listener: Listener
    ) -> UnixAddress:
        path = address.path
        hidden = path.with_name(f".{secrets.token_hex(4)}")
        for candidate in (path, hidden):
            if len(os.fsencode(candidate)) > SUN_PATH_BYTES:
                raise ListenError(
                    f"cannot listen at {path}: the path of a Unix socket has at most {SUN_PATH_BYTES} bytes,"
                    " give a shorter one"
                )
        owner = (
            _account_id(listener.owner, _user_number, path),
            _account_id(listener.group, _group_number, path),
        )
        try:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            await asyncio.to_thread(_clear_stale, path)
            _bind(server, hidden)
            try:
                _publish(hidden, path, listener.mode, owner)
            finally:
                hidden.unlink()
        except OSError as error:
            raise ListenError(
                f"cannot listen at {path}: {error.strerror or error}; choose a directory that this process"
                " may write to, or run as root"
            ) from error
        self._sockets.append(_PublishedSocket(path, path.stat().st_ino))
        return address


def _open_tcp(server: grpc.aio.Server, address: TcpAddress, tls: TlsFiles) -> TcpAddress:
    credentials = TlsReload(tls).credentials()
    try:
        port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise ListenError(
            f"cannot listen on TCP at {address}: is the port in use (`ss -ltnp`), the address ours, and"
            " the certificate the one of the key?"
        ) from error
    return TcpAddress(address.host, port)


def _bind(server: grpc.aio.Server, path: Path) -> None:
    # Until `_publish` gives it its mode, nobody but our user may connect.
    umask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise PermissionError(None, f"no socket can be made in {path.parent}") from error
    finally:
        os.umask(umask)


@dataclass(frozen=True, slots=True)
class _PublishedSocket:
    """A socket file of ours."""

    path: Path
    inode: int

    def withdraw(self) -> None:
        """Remove it, unless somebody replaced it by their own.

        A process that gave up its privileges may no longer remove it: the next one replaces what is stale.
        """
        with suppress(FileNotFoundError, PermissionError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


def _publish(hidden: Path, path: Path, mode: int, owner: tuple[int, int]) -> None:
    if owner != _AS_IT_IS:
        os.chown(hidden, *owner)
    hidden.chmod(mode)
    try:
        path.hardlink_to(hidden)
    except FileExistsError as error:
        raise ListenError(f"cannot listen at {path}: another process has just begun to") from error


_AS_IT_IS: Final = (-1, -1)


def _user_number(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group_number(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _account_id(account: int | str | None, number: Callable[[str], int], path: Path) -> int:
    """Return what chown(2) takes for an owner or group: -1 leaves it."""
    if not isinstance(account, str):
        return -1 if account is None else account
    try:
        return number(account)
    except KeyError as error:
        kind = "user" if number is _user_number else "group"
        raise ListenError(f"cannot give {path} to {kind} '{account}': there is no such {kind}") from error


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on.

    Raises:
        ListenError: Somebody does, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(
                f"cannot listen at {path}: it exists and is no socket; remove it or choose another"
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except TimeoutError:
            owner = "a process that does not answer"
        else:
            owner = _process_name(probe)
    raise ListenError(
        f"cannot listen at {path}: {owner} does already; stop it, or choose another socket for this one"
    )


def _process_name(probe: socket.socket) -> str:
    pid = peer_pid(probe)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        command = ""
    return f"process {pid}" + (f" ({command.strip()[:80]})" if command.strip() else "")
