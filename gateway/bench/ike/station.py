"""One of our cores on real UDP sockets, with an instant datapath: what responder and initiators share."""

from collections.abc import Callable, Iterable

from gateway.bench.ike.pki import Pki
from gateway.bench.ike.shell import BENCH_OPTIONS, EntropySource, InstantDatapath
from gateway.controller.driver import Driver
from gateway.controller.udp import UdpTransport
from gateway.host.sockets import PortOptions, open_ports
from gateway.ike.endpoint import Endpoint
from gateway.ike.events import Event, Request
from gateway.ike.path import Path
from gateway.ipsec.connection import Connection
from gateway.ipsec.sa import IpAddress


class Station:
    """A transport, a driver and a core; made inside a running asyncio loop.

    Args:
        address: The local address to bind ports 500 and 4500 at.
        connections: What the core is configured with.
        pki: Signs for it, and knows whom to trust; None: there are only pre-shared keys.
        watch: Told every event, after it was counted.
    """

    def __init__(
        self,
        address: IpAddress,
        connections: Iterable[Connection],
        pki: Pki | None = None,
        watch: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.datapath = InstantDatapath(pki)
        self._watch = watch
        self._transport = UdpTransport(self._receive, self._lost)
        self._transport.adopt(open_ports(PortOptions(addresses=(address,), wait_s=0.0)).ike_ports())
        endpoint = Endpoint(entropy=EntropySource(), connections=connections, options=BENCH_OPTIONS)
        self.driver = Driver(endpoint, self._transport.send, self)

    def on_request(self, request: Request) -> None:
        """Answer a request of the core at once."""
        self.driver.resolve(request.request_id, self.datapath.answer(request))

    def on_event(self, event: Event) -> None:
        """Count an event and pass it on."""
        self.datapath.note(event)
        self._watch(event)

    def close(self) -> None:
        """Stop the driver and close the sockets; the peer is not told."""
        self.driver.stop()
        self._transport.release()

    def _receive(self, datagram: bytes, path: Path) -> None:
        self.driver.receive(datagram, path)

    def _lost(self) -> None:
        """Nobody lent us sockets that could be lost."""
