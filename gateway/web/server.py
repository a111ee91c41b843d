"""The metrics page: `GET /metrics` over HTTP, or over HTTPS with certificates of both ends.

What it shows is read in the controller's event loop and rendered in a thread, so that a page of ten thousand
connections holds up no datagram.
"""

import asyncio
import errno
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Final

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.registry import Collector

from gateway.controller.facade import ControlFacade
from gateway.ipsec.errors import GatewayError
from gateway.web.metrics import families, read
from gateway.web.page_server import Https, PageServer

#: A scrape that waits longer for the controller fails; Prometheus gives up after 10 s by default.
READ_TIMEOUT_S: Final = 8.0


class WebError(GatewayError):
    """The page cannot be served; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsFiles:
    """PEM files: our certificate and key, and the CA whose certificates may read the page."""

    certificate: Path
    key: Path
    ca: Path


class _ControllerCollector(Collector):
    def __init__(self, controller: ControlFacade, loop: asyncio.AbstractEventLoop) -> None:
        self._controller = controller
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        reading = asyncio.run_coroutine_threadsafe(read(self._controller), self._loop)
        try:
            yield from families(reading.result(READ_TIMEOUT_S))
        except FutureTimeoutError:
            reading.cancel()
            raise WebError(f"the controller did not answer within {READ_TIMEOUT_S:.0f} s") from None

    def describe(self) -> Iterator[Metric]:
        """Name nothing ahead of time: the registry is asked for everything or nothing."""
        return iter(())


class MetricsServer:
    """Serves the metrics of one controller from `start` to `stop`.

    Args:
        controller: What is shown.
        host: A numeric address. Without `https`, only a loopback address is taken.
        port: TCP port; 0 for any that is free.
        https: Certificates, which every other address needs.
    """

    def __init__(
        self, controller: ControlFacade, host: str, port: int, *, https: HttpsFiles | None = None
    ) -> None:
        self._controller = controller
        self._host = host
        self._port = port
        self._https = https
        self._server: PageServer | None = None
        self._thread: Thread | None = None

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return self._port if self._server is None else self._server.server_port

    def start(self) -> None:
        """Begin to serve; call it in the controller's event loop, while the private key can still be read.

        Raises:
            WebError: The address cannot be had, or is open to others without certificates.
        """
        if self._https is None and not _is_loopback(self._host):
            raise WebError(
                f"metrics at {self._host} would be readable by everybody who reaches it: give "
                "--tls-certificate, --tls-key and --tls-ca, or a loopback address"
            )
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_ControllerCollector(self._controller, asyncio.get_running_loop()))
        files = self._https
        try:
            https = None if files is None else Https(files.certificate, files.key, files.ca)
        except OSError as error:
            raise WebError(f"the certificates of the metrics page cannot be used: {error}") from error
        try:
            self._server = PageServer(self._host, self._port, make_wsgi_app(registry), https)
        except OSError as error:
            raise WebError(_in_words(self._host, self._port, error)) from error
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End serving; pages that are being rendered are not waited for."""
        if self._server is not None and self._thread is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
            self._thread.join()
            self._server = None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_words(host: str, port: int, error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "another process listens there: choose another port with --metrics",
        errno.EACCES: "ports below 1024 need a privilege that is missing: choose a higher one",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }
    why = advice.get(error.errno or 0, error.strerror or str(error))
    return f"cannot serve metrics at {host} port {port}: {why}"
