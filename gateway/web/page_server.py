"""A small HTTP or HTTPS server in threads, which no client can hold up.

Each connection has a thread of its own, and the TLS handshake is done there: a client that says nothing keeps
others waiting neither at the handshake nor at its request. There are so many at once, and each has so long.
"""

import ssl
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6, socket
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Lock
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from gateway.host.file_stamps import FileStamps
from gateway.observe.logs import get_logger

_log = get_logger("app")

MAX_CLIENTS: Final = 64
"""Connections at once; more are closed unheard."""
SILENCE_S: Final = 10.0
"""So long may the handshake take, and so long a client may say nothing after it."""


class Handler(WSGIRequestHandler):
    """Answers one request, and writes nothing about it to standard error."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Write nothing: a scrape every few seconds is no news."""


class Https:
    """The TLS side of a server: both ends have certificates, and replaced files count from then on.

    Args:
        certificate: PEM file of our certificate, and of those between it and its CA.
        key: PEM file of its private key.
        ca: PEM file of the CA whose certificates clients have.

    Raises:
        OSError: A file cannot be read; `ssl.SSLError`, which is one: or not be used.
    """

    def __init__(self, certificate: Path, key: Path, ca: Path) -> None:
        self._files = (certificate, key, ca)
        self._stamps = FileStamps(certificate, key, ca)
        self._lock = Lock()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return what a new connection uses: of files that cannot be used, what was there before."""
        with self._lock:
            if self._stamps.have_changed():
                try:
                    self._context = self._load()
                except OSError as error:
                    _log.warning("certificates_not_reloaded", reason=str(error))
                else:
                    _log.info("certificates_reloaded", certificate=str(self._files[0]))
            return self._context

    def _load(self) -> ssl.SSLContext:
        certificate, key, ca = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
        # The empty passphrase keeps OpenSSL from asking at the terminal.
        context.load_cert_chain(certificate, key, password="")
        return context


class PageServer(ThreadingMixIn, WSGIServer):
    """Serves one WSGI application.

    Args:
        host: A numeric address.
        port: TCP port; 0 for any that is free.
        application: What answers.
        https: Certificates; without, it is plain HTTP.

    Raises:
        OSError: The address cannot be had.
    """

    daemon_threads = True

    def __init__(
        self, host: str, port: int, application: Callable[..., Any], https: Https | None = None
    ) -> None:
        is_v6 = host != "localhost" and isinstance(ip_address(host), IPv6Address)
        self.address_family = AF_INET6 if is_v6 else AF_INET
        self._https = https
        self._room = BoundedSemaphore(MAX_CLIENTS)
        super().__init__((host, port), Handler)
        self.set_app(application)

    def server_bind(self) -> None:
        """Bind, without asking who we are: that would ask a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.socket.getsockname()[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection to a thread, if there is room for one more."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()  # There is no thread that would.
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread, and make room again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the handshake if there is one, and answer."""
        connection: socket = request
        connection.settimeout(SILENCE_S)
        if self._https is None:
            super().finish_request(connection, client_address)
            return
        with self._https.context().wrap_socket(connection, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's
        """Note a connection that failed: a stranger without a certificate, or one that went away."""
        _log.debug("page_not_served", client=str(client_address[0]))
