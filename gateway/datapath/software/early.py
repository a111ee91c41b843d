"""Packets that come before the inbound SA they are for.

The responder of an exchange has its SAs before its answer leaves, and may send on them at once; the
initiator can derive the keys only when it has that answer. Packets overtake it, or come while the SA is
being installed. Where they name an SPI that was reserved for such an SA they wait for it here, a moment and
so many: a stranger would have to know the SPI, which is random. RFC 4303 §3.4.2 would have them dropped; the
peer's traffic at a reauthentication (RFC 7296 §2.8.3) is worth more than that.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.esp.inbound import OuterHeader
from gateway.ipsec.sa import IpsecProtocol


class EarlyPacket(NamedTuple):
    """One packet of an SPI that is reserved."""

    came_at: float
    protocol: IpsecProtocol
    spi: int
    packet: bytes
    outer: OuterHeader


class EarlyPackets:
    """All of them, oldest first.

    Args:
        max_packets: More are not kept.
        longest_s: How long each is kept, in seconds.
    """

    def __init__(self, max_packets: int, longest_s: float) -> None:
        self._max_packets = max_packets
        self.longest_s = longest_s
        self.is_timed = False
        """Whether somebody will come for those that waited too long."""
        self._packets: deque[EarlyPacket] = deque()

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def has_room(self) -> bool:
        """Return whether one more would be kept."""
        return len(self._packets) < self._max_packets

    @property
    def oldest_at(self) -> float | None:
        """Return when the oldest came; None if there is none."""
        return self._packets[0].came_at if self._packets else None

    def add(self, packet: EarlyPacket) -> None:
        """Keep a packet; the caller looked whether there is room."""
        self._packets.append(packet)

    def take(self, is_known: Callable[[EarlyPacket], bool]) -> list[EarlyPacket]:
        """Return the packets whose SA is there now, in order, and keep the others."""
        waiting, self._packets = self._packets, deque()
        taken = []
        for packet in waiting:
            if is_known(packet):
                taken.append(packet)
            else:
                self._packets.append(packet)
        return taken

    def take_older(self, than: float) -> Iterator[EarlyPacket]:
        """Yield and forget the packets that came at a time, or before it."""
        while self._packets and self._packets[0].came_at <= than:
            yield self._packets.popleft()
