"""An in-memory network: datagrams take time, and can be lost, delayed, doubled, overtaken and translated."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from gateway.ipsec.sa import IpAddress

Socket = tuple[IpAddress, int]
"""Address and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One datagram under way."""

    number: int
    """Counts every datagram sent, from 0, whatever becomes of it."""
    source: Socket
    destination: Socket
    data: bytes
    sent_at: float


Fate = Callable[[Packet], Iterable[float]]
"""What happens to a packet: one extra delay in seconds for every copy that arrives; none means it is lost."""


def untouched(packet: Packet) -> Iterable[float]:
    """Deliver once, without extra delay."""
    return (0.0,)


def lost(*numbers: int) -> Fate:
    """Lose these packets."""
    return lambda packet: () if packet.number in numbers else (0.0,)


def delayed(seconds: float, *numbers: int) -> Fate:
    """Hold these packets up, so that later ones overtake them."""
    return lambda packet: (seconds,) if packet.number in numbers else (0.0,)


def doubled(seconds: float, *numbers: int) -> Fate:
    """Deliver these packets twice, the second copy that much later."""
    return lambda packet: (0.0, seconds) if packet.number in numbers else (0.0,)


@dataclass(slots=True)
class Nat:
    """A NAT in front of one inside address; mappings are endpoint-independent, filtering too."""

    inside: IpAddress
    outside: IpAddress
    next_port: int = 40001
    mappings: dict[int, int] = field(default_factory=dict)
    """Inside port to outside port."""

    def translate_out(self, packet: Packet) -> Packet:
        """Give a packet from inside its outside source, making the mapping if there is none."""
        port = packet.source[1]
        if port not in self.mappings:
            self.mappings[port] = self.next_port
            self.next_port += 1
        return replace(packet, source=(self.outside, self.mappings[port]))

    def translate_in(self, packet: Packet) -> Packet | None:
        """Give a packet to the outside address its inside destination; None without a mapping."""
        for inside_port, outside_port in self.mappings.items():
            if outside_port == packet.destination[1]:
                return replace(packet, destination=(self.inside, inside_port))
        return None

    def rebind(self) -> None:
        """Forget every mapping: the next packet from inside gets another port, the old port leads nowhere."""
        self.mappings.clear()


class Link:
    """The network between all hosts of a test."""

    def __init__(self, latency_s: float = 0.01) -> None:
        self.latency_s = latency_s
        self.fate: Fate = untouched
        self.nats: list[Nat] = []
        self.lost: list[Packet] = []
        self._under_way: list[tuple[float, int, Packet]] = []
        self._numbers = count()
        self._order = count()

    def __len__(self) -> int:
        """Return how many datagrams are under way."""
        return len(self._under_way)

    def send(self, source: Socket, destination: Socket, data: bytes, now: float) -> Packet:
        """Put a datagram on the way, as its fate will have it."""
        packet = Packet(
            number=next(self._numbers), source=source, destination=destination, data=data, sent_at=now
        )
        translated = self._translate(packet)
        arrivals = () if translated is None else tuple(self.fate(packet))
        if translated is None or not arrivals:
            self.lost.append(packet)
            return packet
        for extra in arrivals:
            heapq.heappush(self._under_way, (now + self.latency_s + extra, next(self._order), translated))
        return packet

    def next_arrival(self) -> float | None:
        """Return when the next datagram arrives."""
        return self._under_way[0][0] if self._under_way else None

    def arrived(self, now: float) -> list[Packet]:
        """Take out every datagram that has arrived by `now`, in order of arrival."""
        packets = []
        while self._under_way and self._under_way[0][0] <= now:
            packets.append(heapq.heappop(self._under_way)[2])
        return packets

    def _translate(self, packet: Packet) -> Packet | None:
        result: Packet | None = packet
        for nat in self.nats:
            if packet.source[0] == nat.inside:
                result = nat.translate_out(packet)
        for nat in self.nats:
            if result is not None and result.destination[0] == nat.outside:
                result = nat.translate_in(result)
        return result
