"""Our core against our core in one process: no sockets, no datapath, a clock that jumps.

CPU time is that of the thread inside one side's calls (`time.thread_time_ns`), so that neither the other side
nor a busy machine counts. The clock the cores see is virtual: ten minutes of liveness checks take as long as
their work takes.
"""

import gc
import heapq
import resource
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from pathlib import Path as FilePath
from typing import Final

from gateway.bench.ike.pki import Pki
from gateway.bench.ike.shell import EntropySource, MeasuredCore
from gateway.bench.ike.suites import CHILD, Suite, initiator_name, initiators, responder
from gateway.controller.collector import collect_less_often
from gateway.ike.path import Path
from gateway.ipsec.errors import GatewayError

INITIATOR: Final = ip_address("192.0.2.1")
RESPONDER: Final = ip_address("192.0.2.2")
_LATENCY_S: Final = 0.001
_ROUNDS: Final = 5
_WARM_UP: Final = 20


class BenchFailed(GatewayError):
    """What was to be measured did not happen as it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeCost:
    """CPU time of IKE_SA_INIT, IKE_AUTH and the first Child SA; medians of rounds, with the spread."""

    suite: str
    handshakes: int
    responder_ms: float
    responder_ms_range: tuple[float, float]
    initiator_ms: float
    initiator_ms_range: tuple[float, float]

    @property
    def responder_rate(self) -> float:
        """Handshakes per second of one core that only responds."""
        return 1000 / self.responder_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What held SAs cost."""

    sas: int
    bytes_per_sa: float
    """Resident memory of both ends' cores divided by both ends' IKE SAs, each with one Child SA."""
    dpd_delay_s: float
    dpd_cpu_fraction: float
    """CPU time of one side's liveness checks of all SAs, per second of virtual time."""
    lost: int
    """SAs that did not live through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """Every Child SA and then every IKE SA rekeyed at once."""

    sas: int
    both_sides: bool
    """Both ends begin the same rekeys at the same time: every single one collides."""
    child_ms: float
    """CPU time per Child rekey, both ends together."""
    ike_ms: float
    failures: int


class Pair:
    """An initiating core with many connections, a responding one with one, and the link between them."""

    def __init__(self, suite: Suite, sites: int, *, dpd_delay_s: float = 30.0) -> None:
        entropy = EntropySource()
        with tempfile.TemporaryDirectory() as directory:
            pki = Pki.make(suite.keys, FilePath(directory) / "pki") if suite.keys else None
            connections = initiators(
                suite, range(sites), local=INITIATOR, remote=RESPONDER, dpd_delay_s=dpd_delay_s, pki=pki
            )
            hub = responder(suite, local=RESPONDER, dpd_delay_s=dpd_delay_s, pki=pki)
            self.initiator = MeasuredCore(entropy, connections, pki)
            self.responder = MeasuredCore(entropy, [hub], pki)
        self.now = 0.0
        self._order = count()
        self._under_way: list[tuple[float, int, MeasuredCore, Path, bytes]] = []

    def handshake(self, number: int) -> None:
        """Bring up one site's IKE SA and Child SA.

        Raises:
            BenchFailed: It did not come up.
        """
        name = initiator_name(number)
        self._send(self.initiator, self.initiator.initiate(name, CHILD, self.now))
        self.run()

    def run(self, until: float | None = None) -> None:
        """Carry datagrams until none is under way; with `until`, let timers fire until that time too."""
        while True:
            if self._under_way and (until is None or self._under_way[0][0] <= until):
                self.now, _, to, path, datagram = heapq.heappop(self._under_way)
                self._send(to, to.receive(datagram, path, self.now))
                continue
            due = None if until is None else self._next_deadline()
            if due is None or until is None or due > until:
                break
            self.now = max(self.now, due)
            for core in (self.initiator, self.responder):
                self._send(core, core.tick(self.now))
        if until is not None:
            self.now = until

    def flush(self) -> None:
        """Send what commands given to the endpoints themselves have to say."""
        for core in (self.initiator, self.responder):
            self._send(core, core.drain(self.now))

    @property
    def failures(self) -> int:
        """SAs that failed or ended, both sides."""
        return self.initiator.datapath.failures + self.responder.datapath.failures

    def _next_deadline(self) -> float | None:
        deadlines = (core.endpoint.next_deadline() for core in (self.initiator, self.responder))
        return min((d for d in deadlines if d is not None), default=None)

    def _send(self, sender: MeasuredCore, datagrams: list[tuple[Path, bytes]]) -> None:
        receiver = self.responder if sender is self.initiator else self.initiator
        for path, datagram in datagrams:
            back = Path(path.remote, path.remote_port, path.local, path.local_port)
            arrival = self.now + _LATENCY_S
            heapq.heappush(self._under_way, (arrival, next(self._order), receiver, back, datagram))


def measure_handshakes(suite: Suite, handshakes: int) -> HandshakeCost:
    """Measure the CPU time of handshakes.

    Raises:
        BenchFailed: One did not come up.
    """
    per_round = max(1, handshakes // _ROUNDS)
    pair = Pair(suite, _WARM_UP + per_round * _ROUNDS)
    numbers = iter(range(_WARM_UP + per_round * _ROUNDS))
    for number in _take(numbers, _WARM_UP):
        pair.handshake(number)
    rounds = []
    with _steady_memory():
        for _ in range(_ROUNDS):
            before = pair.initiator.cpu_ns, pair.responder.cpu_ns
            for number in _take(numbers, per_round):
                pair.handshake(number)
            after = pair.initiator.cpu_ns, pair.responder.cpu_ns
            rounds.append([(b - a) / per_round / 1e6 for a, b in zip(before, after, strict=True)])
    _check(pair, _WARM_UP + per_round * _ROUNDS)
    initiator, responding = zip(*rounds, strict=True)
    return HandshakeCost(
        suite=suite.name,
        handshakes=per_round * _ROUNDS,
        responder_ms=statistics.median(responding),
        responder_ms_range=(min(responding), max(responding)),
        initiator_ms=statistics.median(initiator),
        initiator_ms_range=(min(initiator), max(initiator)),
    )


def measure_footprint(suite: Suite, sas: int, *, dpd_delay_s: float = 30.0) -> Footprint:
    """Hold many SAs, measure their memory, then let both sides check liveness for ten intervals.

    Raises:
        BenchFailed: An SA did not come up.
    """
    pair = Pair(suite, sas, dpd_delay_s=dpd_delay_s)
    pair.handshake(0)
    gc.collect()
    before = _resident_bytes()
    for number in range(1, sas):
        pair.handshake(number)
    gc.collect()
    grown = _resident_bytes() - before
    _check(pair, sas)
    cpu_before, began, intervals = pair.responder.cpu_ns, pair.now, 10
    pair.run(until=pair.now + intervals * dpd_delay_s)
    cpu_s = (pair.responder.cpu_ns - cpu_before) / 1e9
    alive = len(pair.responder.endpoint.ike_sas())
    return Footprint(
        sas=sas,
        bytes_per_sa=grown / (2 * (sas - 1)),
        dpd_delay_s=dpd_delay_s,
        dpd_cpu_fraction=cpu_s / (pair.now - began),
        lost=sas - alive,
    )


def measure_storm(suite: Suite, sas: int, *, both_sides: bool) -> Storm:
    """Rekey every Child SA at once, then every IKE SA, and count what did not survive.

    Raises:
        BenchFailed: An SA did not come up in the first place.
    """
    pair = Pair(suite, sas, dpd_delay_s=0.0)
    for number in range(sas):
        pair.handshake(number)
    _check(pair, sas)
    sides = (pair.initiator, pair.responder) if both_sides else (pair.initiator,)
    began = pair.initiator.cpu_ns + pair.responder.cpu_ns
    for core in sides:
        for child_sa in core.endpoint.child_sas():
            core.endpoint.rekey_child(child_sa.child_sa_id, pair.now)
    pair.flush()
    pair.run(until=pair.now + 60.0)
    between = pair.initiator.cpu_ns + pair.responder.cpu_ns
    for core in sides:
        for ike_sa in core.endpoint.ike_sas():
            core.endpoint.rekey_ike(ike_sa.ike_sa_id, pair.now)
    pair.flush()
    pair.run(until=pair.now + 60.0)
    ended = pair.initiator.cpu_ns + pair.responder.cpu_ns
    missing = sum(
        abs(sas - len(found))
        for core in (pair.initiator, pair.responder)
        for found in (core.endpoint.ike_sas(), core.endpoint.child_sas())
    )
    return Storm(
        sas=sas,
        both_sides=both_sides,
        child_ms=(between - began) / sas / 1e6,
        ike_ms=(ended - between) / sas / 1e6,
        failures=pair.failures + missing,
    )


def _check(pair: Pair, expected: int) -> None:
    counts = [len(core.endpoint.child_sas()) for core in (pair.initiator, pair.responder)]
    if counts != [expected, expected] or pair.failures:
        told = dict(pair.initiator.datapath.events + pair.responder.datapath.events)
        raise BenchFailed(f"{expected} handshakes gave {counts[0]} and {counts[1]} Child SAs; events: {told}")


def _take(numbers: Iterator[int], many: int) -> Iterator[int]:
    return (next(numbers) for _ in range(many))


def _resident_bytes() -> int:
    """Return the resident memory of this process."""
    fields = FilePath("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


@contextmanager
def _steady_memory() -> Iterator[None]:
    """Keep what is there already out of collections meanwhile: looking through it belongs to no handshake."""
    thresholds = gc.get_threshold()
    # As the controller of the product does.
    collect_less_often()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
