"""What all IKE SAs of one endpoint share: entropy, options, timers, numbers, and the three outboxes."""

from collections import Counter
from collections.abc import Callable

from gateway.ike.events import ChildSaId, Event, IkeSaId, RemoveSas, Request, RequestId
from gateway.ike.path import Path
from gateway.ike.timers import Timer, TimerKey, TimerTable
from gateway.ike.v2.half_open import HalfOpenTable
from gateway.ike.v2.options import EndpointOptions
from gateway.ipsec.sa import SaId

IKE_SPI_BYTES = 8


class Context:
    """Owned by the endpoint; IKE SAs and exchanges write into it and draw numbers from it."""

    __slots__ = (
        "_datagrams",
        "_events",
        "_init_requests",
        "_last_id",
        "_requests",
        "authenticated",
        "child_owners",
        "cpus",
        "entropy",
        "half_open",
        "lingering",
        "now",
        "options",
        "timers",
        "told",
    )

    def __init__(self, entropy: Callable[[int], bytes], options: EndpointOptions) -> None:
        self.entropy = entropy
        self.options = options
        self.timers = TimerTable()
        self.cpus = 0
        """How many CPUs of ours can have an outbound SA each for the same traffic (RFC 9611)."""
        self.now = 0.0
        """The time of the input or command that is being worked on."""
        self.authenticated: Counter[str] = Counter()
        """How many IKE SAs of each connection have an authenticated peer; kept by the table of IKE SAs."""
        self.child_owners: dict[ChildSaId, IkeSaId] = {}
        """Which IKE SA has a Child SA now; kept by the IKE SAs."""
        self.half_open = HalfOpenTable(options)
        """Our half-open IKE SAs as responder, by where their request came from (RFC 7296 §2.6)."""
        self._init_requests: dict[bytes, dict[Path, IkeSaId]] = {}
        self.told: set[ChildSaId] = set()
        """Child SAs whose existence an event told, and whose end none did."""
        self.lingering: dict[ChildSaId, tuple[SaId, ...]] = {}
        """Inbound SAs of replaced Child SAs, until `Timer.REMOVE_INBOUND`."""
        self._last_id = 0
        self._datagrams: list[tuple[Path, bytes]] = []
        self._events: list[Event] = []
        self._requests: list[Request] = []

    # --- numbers ----------------------------------------------------------------------------------

    def new_ike_sa_id(self) -> IkeSaId:
        """Return a number no IKE SA of this endpoint had."""
        return IkeSaId(self._next())

    def new_child_sa_id(self) -> ChildSaId:
        """Return a number no Child SA of this endpoint had."""
        return ChildSaId(self._next())

    def new_request_id(self) -> RequestId:
        """Return a number no request of this endpoint had."""
        return RequestId(self._next())

    def new_task_id(self) -> int:
        """Return a number no task of this endpoint had."""
        return self._next()

    def new_nonce(self) -> bytes:
        """Return a fresh nonce (RFC 7296 §2.10)."""
        return self.entropy(self.options.nonce_bytes)

    def new_ike_spi(self) -> bytes:
        """Return a random IKE SPI other than zero (RFC 7296 §2.6)."""
        spi = self.entropy(IKE_SPI_BYTES)
        while not any(spi):
            spi = self.entropy(IKE_SPI_BYTES)
        return spi

    def draw(self) -> float:
        """Return a number from [0, 1), for jitter."""
        return int.from_bytes(self.entropy(6), "big") / (1 << 48)

    # --- IKE_SA_INIT requests -----------------------------------------------------------------------

    def note_init(self, path: Path, spi_i: bytes, ike_sa_id: IkeSaId) -> None:
        """Remember the IKE SA that an IKE_SA_INIT request made, by where it came from and its SPI."""
        self._init_requests.setdefault(spi_i, {})[path] = ike_sa_id

    def find_init(self, path: Path, spi_i: bytes) -> IkeSaId | None:
        """Return the IKE SA that an IKE_SA_INIT request with this SPI from there made."""
        made = self._init_requests.get(spi_i)
        return None if made is None else made.get(path)

    def forget_init(self, path: Path, spi_i: bytes) -> None:
        """Forget it; what is not known is fine."""
        made = self._init_requests.get(spi_i)
        if made is not None and made.pop(path, None) is not None and not made:
            del self._init_requests[spi_i]

    # --- outboxes ---------------------------------------------------------------------------------

    def send(self, path: Path, datagram: bytes) -> None:
        """Put a datagram into the outbox."""
        self._datagrams.append((path, datagram))

    def emit(self, event: Event) -> None:
        """Tell an event."""
        self._events.append(event)

    def ask(self, request: Request) -> None:
        """Ask the shell for something."""
        self._requests.append(request)

    def remove_sas(self, sa_ids: tuple[SaId, ...]) -> None:
        """Have SAs taken out of the datapath, if there are any."""
        if sa_ids:
            self.emit(RemoveSas(sa_ids=sa_ids))

    def linger(self, child_sa_id: ChildSaId, sa_ids: tuple[SaId, ...]) -> None:
        """Have SAs taken out of the datapath when packets in flight have arrived."""
        self.lingering[child_sa_id] = sa_ids
        self.timers.set(TimerKey(child_sa_id, Timer.REMOVE_INBOUND), self.now + self.options.inbound_linger_s)

    def drain_datagrams(self) -> list[tuple[Path, bytes]]:
        """Return the datagrams and forget them."""
        drained, self._datagrams = self._datagrams, []
        return drained

    def drain_events(self) -> list[Event]:
        """Return the events and forget them."""
        drained, self._events = self._events, []
        return drained

    def drain_requests(self) -> list[Request]:
        """Return the requests and forget them."""
        drained, self._requests = self._requests, []
        return drained

    def _next(self) -> int:
        self._last_id += 1
        return self._last_id
