"""SPIs that were given out for inbound SAs which are not there yet: they are chosen before there are keys."""

from collections.abc import Callable
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.ipsec.sa import MIN_SPI, Spi

RESERVATION_S: Final = 300.0
"""For so long nobody else gets an SPI; a negotiation is over by then."""
_TRIES: Final = 200
"""Random numbers that are tried for one SPI before the table is said to be full."""
_SPI_BITS: Final = 32


class SpiReservations:
    """What is reserved, and until when.

    Args:
        entropy: Returns that many unpredictable bytes.
        is_taken: Whether an inbound SA that is there is in the way of an SPI.
        table_bits: So many low bits of an SPI are its place in the table of SAs, where two cannot be.
    """

    def __init__(
        self,
        entropy: Callable[[int], bytes],
        is_taken: Callable[[Spi], bool],
        *,
        table_bits: int = _SPI_BITS,
    ) -> None:
        self._entropy = entropy
        self._is_taken = is_taken
        self._mask = (1 << table_bits) - 1
        self._reserved: dict[int, tuple[Spi, float]] = {}
        """By place: the SPI, and when its time is over. All have the same time, so the oldest comes first."""

    def draw(self, count: int, now: float) -> tuple[Spi, ...]:
        """Reserve SPIs that nobody has or was given.

        Raises:
            DatapathError: TABLE_FULL: there are hardly any.
        """
        return tuple(self._draw_one(now) for _ in range(count))

    def _draw_one(self, now: float) -> Spi:
        for _ in range(_TRIES):
            spi = Spi(int.from_bytes(self._entropy(4), "big"))
            if spi >= MIN_SPI and not self._is_taken(spi) and self.note(spi, now):
                return spi
        raise DatapathError(
            ErrorReason.TABLE_FULL, f"the {self._mask + 1} places for inbound SAs are taken or reserved"
        )

    def note(self, spi: Spi, now: float) -> bool:
        """Reserve this SPI; return whether it was free."""
        while self._reserved and (oldest := next(iter(self._reserved.items())))[1][1] <= now:
            del self._reserved[oldest[0]]
        place = spi & self._mask
        if place in self._reserved:
            return False
        self._reserved[place] = (spi, now + RESERVATION_S)
        return True

    def use(self, spi: Spi) -> None:
        """Note that the SA is there: its SPI is reserved no longer."""
        if self.has(spi):
            del self._reserved[spi & self._mask]

    def has(self, spi: int) -> bool:
        """Tell whether an SPI was given out and not used yet."""
        there = self._reserved.get(spi & self._mask)
        return there is not None and there[0] == spi
