"""A shell around one IKE core whose datapath answers at once: the core's work and credentials are left."""

import secrets
import time
from collections import Counter
from collections.abc import Iterable
from itertools import count
from typing import Final

from gateway.bench.ike.pki import Pki
from gateway.bench.ike.suites import new_psk
from gateway.ike.endpoint import Endpoint, EndpointOptions
from gateway.ike.events import (
    CredentialFound,
    CredentialRequest,
    Event,
    Installed,
    InstallRequest,
    Request,
    Result,
    SignRequest,
    SpiAllocated,
    SpiRequest,
)
from gateway.ike.path import Path
from gateway.ipsec.connection import Connection
from gateway.ipsec.sa import MIN_SPI, Spi

BENCH_OPTIONS: Final = EndpointOptions(child_limit=16)
FAILURES: Final = ("IkeSaFailed", "ChildSaFailed", "IkeSaDeleted", "ChildSaDeleted")
"""Events that a measurement must not see."""


class InstantDatapath:
    """Answers the requests of a core at once, as a datapath would that costs nothing."""

    def __init__(self, pki: Pki | None = None) -> None:
        # Processes that come one after the other must not use an SPI again: a peer still has the SAs.
        self._spis = count(MIN_SPI + secrets.randbits(31))
        self._installed = Installed()
        self._credentials = None if pki is None else pki.credentials()
        self.events: Counter[str] = Counter()
        """How often each kind of event was told."""

    def answer(self, request: Request) -> Result:
        """Return the result of a request."""
        match request:
            case InstallRequest():
                return self._installed
            case SpiRequest():
                return SpiAllocated(Spi(next(self._spis)))
            case CredentialRequest():
                return CredentialFound(new_psk())
        assert self._credentials is not None, "a signature was asked for, but both ends have a pre-shared key"
        if isinstance(request, SignRequest):
            return self._credentials.sign(request)
        return self._credentials.trust(request)

    def note(self, event: Event) -> None:
        """Count an event."""
        self.events[type(event).__name__] += 1

    @property
    def failures(self) -> int:
        """How many SAs failed or ended."""
        return sum(self.events[name] for name in FAILURES)


class MeasuredCore:
    """One core in memory, with the CPU time that it took."""

    def __init__(
        self, entropy: "EntropySource", connections: Iterable[Connection], pki: Pki | None = None
    ) -> None:
        self.endpoint = Endpoint(entropy=entropy, connections=connections, options=BENCH_OPTIONS)
        self.datapath = InstantDatapath(pki)
        self.cpu_ns = 0
        """CPU time of this thread inside the core, with the answering of its requests."""

    def initiate(self, connection: str, child: str, now: float) -> list[tuple[Path, bytes]]:
        """Begin one handshake and return what is to be sent."""
        began = time.thread_time_ns()
        self.endpoint.initiate(connection, child, now)
        return self._drain(began, now)

    def receive(self, datagram: bytes, path: Path, now: float) -> list[tuple[Path, bytes]]:
        """Take one datagram and return what is to be sent."""
        began = time.thread_time_ns()
        self.endpoint.receive(datagram, path, now)
        return self._drain(began, now)

    def tick(self, now: float) -> list[tuple[Path, bytes]]:
        """Do what is due and return what is to be sent."""
        began = time.thread_time_ns()
        self.endpoint.tick(now)
        return self._drain(began, now)

    def drain(self, now: float) -> list[tuple[Path, bytes]]:
        """Return what is to be sent after commands given to the endpoint itself."""
        return self._drain(time.thread_time_ns(), now)

    def _drain(self, began: int, now: float) -> list[tuple[Path, bytes]]:
        endpoint, datapath = self.endpoint, self.datapath
        datagrams = endpoint.datagrams()
        while True:
            requests = endpoint.requests()
            for request in requests:
                endpoint.resolve(request.request_id, datapath.answer(request), now)
            events = endpoint.events()
            for event in events:
                datapath.note(event)
            datagrams += endpoint.datagrams()
            if not requests and not events:
                break
        self.cpu_ns += time.thread_time_ns() - began
        return datagrams


class EntropySource:
    """Random bytes from the kernel, fetched in large pieces so that system calls do not count."""

    def __init__(self) -> None:
        self._pool = b""
        self._used = 0

    def __call__(self, length: int) -> bytes:
        """Return `length` random octets."""
        if self._used + length > len(self._pool):
            with open("/dev/urandom", "rb", buffering=0) as source:
                self._pool = source.read(max(1 << 16, length))
            self._used = 0
        self._used += length
        return self._pool[self._used - length : self._used]
