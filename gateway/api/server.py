"""Listeners of the services: Unix sockets with their mode and group, TCP with mutual TLS only.

A Unix socket appears under its name complete, with mode and group: it is bound under a hidden name
first and then linked, which fails if somebody else was quicker. A socket that nobody listens on any more
is replaced; one that a live process serves is left alone, and the error names the process.
"""

import asyncio
import grp
import os
import secrets
import socket
import stat
from collections.abc import Sequence
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
from gateway.api.control.v1 import control_pb2
from gateway.api.control.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from gateway.api.control_service import ControlService
from gateway.api.datapath.v1 import datapath_pb2
from gateway.api.datapath.v1.datapath_pb2_grpc import add_DatapathServiceServicer_to_server
from gateway.api.datapath_service import DatapathService
from gateway.api.interceptor import CallInterceptor
from gateway.controller.facade import ControlFacade
from gateway.datapath.backend import Datapath
from gateway.host.sockets import peer_pid
from gateway.ipsec.errors import GatewayError

MAX_CONCURRENT_STREAMS: Final = 256
"""Per connection."""
_PROBE_TIMEOUT_S: Final = 1.0


class ListenError(GatewayError):
    """A listener cannot be opened; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One place to listen at."""

    address: Address
    mode: int = 0o600
    """Of a Unix socket: who may write to it may use the service."""
    group: int | str | None = None
    """Group of a Unix socket, by ID or name; `None` leaves the process's group."""
    tls: TlsFiles | None = None
    """Of a TCP port, which must have it."""


class ApiServer:
    """Serves a controller, a datapath or both, with health and reflection, at some listeners."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        control: ControlFacade | None = None,
        datapath: Datapath | None = None,
    ) -> None:
        """Prepare a server; construct it inside the running event loop."""
        self._listeners = tuple(listeners)
        self._interceptor = CallInterceptor()
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=[
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
            ],
        )
        names = []
        if control is not None:
            # The generated function is untyped.
            add_ControlServiceServicer_to_server(ControlService(control), self._server)  # type: ignore[no-untyped-call]
            names.append(control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name)
        if datapath is not None:
            # The generated function is untyped.
            add_DatapathServiceServicer_to_server(DatapathService(datapath), self._server)  # type: ignore[no-untyped-call]
            names.append(datapath_pb2.DESCRIPTOR.services_by_name["DatapathService"].full_name)
        self._services = (health.OVERALL_HEALTH, *names)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        self._sockets: list[_PublishedSocket] = []
        self.addresses: tuple[Address, ...] = ()
        """Where it really listens, after `start`: ports that were 0 have their number."""

    async def start(self) -> None:
        """Open every listener and serve.

        Raises:
            ListenError: One of them cannot be opened; then none is.
            AddressError: TLS files cannot be read.
        """
        try:
            self.addresses = tuple([await self._open(listener) for listener in self._listeners])
            await self._server.start()
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
        await self._interceptor.stop()
        await self._server.stop(grace_s)

    async def _open(self, listener: Listener) -> Address:
        if isinstance(listener.address, TcpAddress):
            return self._open_tcp(listener.address, listener.tls)
        return await self._open_unix(listener.address, listener)

    def _open_tcp(self, address: TcpAddress, tls: TlsFiles | None) -> TcpAddress:
        if tls is None:
            raise ListenError(
                f"listening on TCP at {address} needs mutual TLS: give a certificate, its key and the CA of"
                " the clients, or listen on unix:PATH"
            )
        certificate, key, ca = tls.read()
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=ca, require_client_auth=True
        )
        try:
            port = self._server.add_secure_port(str(address), credentials)
        except RuntimeError as error:
            raise ListenError(
                f"cannot listen on TCP at {address}: is the port in use (`ss -ltnp`), the address ours, and"
                " the certificate the one of the key?"
            ) from error
        return TcpAddress(address.host, port)

    async def _open_unix(self, address: UnixAddress, listener: Listener) -> UnixAddress:
        path = address.path
        hidden = path.with_name(f".{secrets.token_hex(4)}")
        for candidate in (path, hidden):
            if len(os.fsencode(candidate)) > SUN_PATH_BYTES:
                raise ListenError(
                    f"cannot listen at {path}: the path of a Unix socket has at most {SUN_PATH_BYTES} bytes,"
                    " give a shorter one"
                )
        gid = _group_id(listener.group, path)
        try:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            await asyncio.to_thread(_clear_stale, path)
            self._bind(hidden)
            try:
                _publish(hidden, path, listener, gid)
            finally:
                hidden.unlink()
        except OSError as error:
            raise ListenError(
                f"cannot listen at {path}: {error.strerror or error}; choose a directory that this process"
                " may write to, or run as root"
            ) from error
        self._sockets.append(_PublishedSocket(path, path.stat().st_ino))
        return address

    def _bind(self, path: Path) -> None:
        # Until `_publish` gives it its mode, nobody but our user may connect.
        umask = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{path}")
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


def _publish(hidden: Path, path: Path, listener: Listener, gid: int | None) -> None:
    if gid is not None:
        os.chown(hidden, -1, gid)
    hidden.chmod(listener.mode)
    try:
        path.hardlink_to(hidden)
    except FileExistsError as error:
        raise ListenError(f"cannot listen at {path}: another process has just begun to") from error


def _group_id(group: int | str | None, path: Path) -> int | None:
    if not isinstance(group, str):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ListenError(f"cannot give {path} to group '{group}': there is no such group") from error


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
