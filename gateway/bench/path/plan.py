"""What `bench path` measures: cases, as rows of its table, and how long it looks at each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.ipsec.placement import Engine

FORWARDING: Final = "forwarding"
"""In place of an engine: the same packets through the same interfaces, without any SA."""
PLACEMENTS: Final = (*(engine.value for engine in Engine), FORWARDING)

IMIX: Final = "imix"
#: Seven small packets, four middle ones and one large, mixed: the "simple IMIX" of 7:4:1, whose largest fits
#: a tunnel over Ethernet here.
_IMIX_BYTES: Final = (64, 512, 64, 64, 512, 64, 1420, 64, 512, 64, 512, 64)
SIZES: Final = ("64", "512", "1420", IMIX)
MIN_BYTES: Final = 64
MAX_BYTES: Final = 1420
"""What fits a tunnel with AES-GCM over an Ethernet with an MTU of 1500."""


class Direction(Enum):
    """Which way packets go through the gateway."""

    OUT = "out"
    """Plaintext in, ESP out."""
    IN = "in"
    """ESP in, plaintext out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row."""

    placement: str
    """One of `PLACEMENTS`."""
    direction: Direction
    size: str
    """Bytes of the inner packet, or `imix`."""
    sas: int
    """Pairs of SAs installed, over which flows are spread; 0 without any."""
    flows: int

    @property
    def words(self) -> str:
        """Return what tells it from the others of its set-up."""
        return f"{self.direction.value}, {self.size} bytes, {self.flows} flows"

    @property
    def sizes_bytes(self) -> tuple[int, ...]:
        """Return the sizes of inner packets, as they are sent by turns."""
        return sizes_bytes(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is installed in the gateway while some cases are measured."""

    placement: str
    sas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure, and with how much effort."""

    placements: Sequence[str]
    sizes: Sequence[str] = SIZES
    sas: Sequence[int] = (1,)
    flows: Sequence[int] = (1,)
    directions: Sequence[Direction] = tuple(Direction)
    rounds: int = 3
    """Each measures every case once."""
    seconds: float = 2.0
    """How long packets are sent: once as fast as it goes, once at half of what came through."""
    key_bits: int = 256
    """Of AES-GCM: 128 or 256."""

    def setups(self) -> list[Setup]:
        """Return the set-ups in the order in which each round makes them."""
        return [
            Setup(placement=placement, sas=sas)
            for placement in self.placements
            for sas in ((0,) if placement == FORWARDING else self.sas)
        ]

    def cases(self, setup: Setup) -> list[Case]:
        """Return what is measured in one set-up."""
        return [
            Case(placement=setup.placement, sas=setup.sas, direction=direction, size=size, flows=flows)
            for flows in self.flows
            for direction in self.directions
            for size in self.sizes
        ]


def sizes_bytes(size: str) -> tuple[int, ...]:
    """Return the sizes that a size in words stands for, as packets are sent by turns."""
    return _IMIX_BYTES if size == IMIX else (int(size),)


def mean_bytes(sizes: Iterable[int]) -> float:
    """Return the mean size of a packet."""
    each = tuple(sizes)
    return sum(each) / len(each)
