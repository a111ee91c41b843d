"""What `bench path` measures: cases, as rows of its table, and how long it looks at each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.ipsec.placement import Engine

FORWARDING: Final = "forwarding"
"""In place of an engine: the same packets through the same interfaces, without any SA."""
RAW: Final = "raw"
"""In place of an engine: frames go through untouched, by one of espd's I/O methods."""
CABLE: Final = "cable"
"""In place of a gateway: nothing. What the generator itself can send and count, as plaintext both ways."""
PLACEMENTS: Final = (*(engine.value for engine in Engine), FORWARDING, RAW, CABLE)

TUN: Final = "tun"
RAW_IO: Final = ("live", "af_xdp", "af_packet")
"""How espd sends on interfaces of its own, where it receives by AF_XDP; the best first."""
IO: Final = (*RAW_IO, TUN)
"""Every way of the native engine; by TUN and raw sockets the kernel brings and routes its packets."""

SECGW: Final = "ipsec-secgw"
TESTPMD: Final = "testpmd"
LIBIPSEC: Final = "libipsec"
WIREGUARD: Final = "wireguard-go"
PEERS: Final = (SECGW, TESTPMD, LIBIPSEC, WIREGUARD)
"""Programs of others that are measured beside, as placements are."""
ONE_CPU: Final = (RAW, SECGW, TESTPMD)
"""What has one CPU however many workers the engine has: on veth its generator fills one receive queue."""
_FIXED_SAS: Final = {FORWARDING: 0, RAW: 0, CABLE: 0, TESTPMD: 0, LIBIPSEC: 1, WIREGUARD: 1}
"""How many pairs of SAs those have that have no choice."""

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
    """One of `PLACEMENTS` or `PEERS`."""
    direction: Direction
    size: str
    """Bytes of the inner packet, or `imix`."""
    sas: int
    """Pairs of SAs installed, over which flows are spread; 0 without any."""
    flows: int
    io: str = ""
    """One of `IO`: what the engine, or raw forwarding, is told to send by; empty for others."""
    workers: int = 1
    """Of the engine, a receive queue for each."""

    @property
    def who(self) -> str:
        """Return what carries the packets: `engine by live, 2 workers`."""
        by = f" by {self.io}" if self.io else ""
        workers = f", {self.workers} workers" if self.workers > 1 else ""
        return f"{self.placement}{by}{workers}"

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
    io: str = ""
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure, and with how much effort."""

    placements: Sequence[str]
    """Peers among them."""
    io: Sequence[str] = IO
    workers: Sequence[int] = (1,)
    """Of the engine."""
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
        return [setup for placement in self.placements for setup in self._setups(placement)]

    def _setups(self, placement: str) -> list[Setup]:
        is_engine, is_raw = placement == Engine.ENGINE.value, placement == RAW
        methods = [io for io in self.io if is_engine or io in RAW_IO] if is_engine or is_raw else [""]
        sas = (_FIXED_SAS[placement],) if placement in _FIXED_SAS else self.sas
        return [
            Setup(placement=placement, sas=count, io=io, workers=workers)
            for io in methods
            for workers in (self.workers if is_engine else (1,))
            for count in sas
        ]

    def cases(self, setup: Setup) -> list[Case]:
        """Return what is measured in one set-up."""
        return [
            Case(
                placement=setup.placement,
                sas=setup.sas,
                direction=direction,
                size=size,
                flows=flows,
                io=setup.io,
                workers=setup.workers,
            )
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
