"""Where an SA should live, and where it does: NIC, native engine, kernel or software."""

from dataclasses import dataclass
from enum import Enum


class Engine(Enum):
    """A place that can carry an SA's packets; the value is its name in configuration, API and metrics."""

    NIC_PACKET = "nic_packet"
    NIC_CRYPTO = "nic_crypto"
    ENGINE = "engine"
    KERNEL = "kernel"
    XDP = "xdp"
    SOFTWARE = "software"


DEFAULT_PREFERENCE = (Engine.NIC_PACKET, Engine.NIC_CRYPTO, Engine.ENGINE, Engine.KERNEL, Engine.SOFTWARE)
"""`XDP` is absent on purpose: its keys are readable with CAP_BPF (docs/architecture)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The operator's wish: an order of preference, or one engine and nothing else."""

    prefer: tuple[Engine, ...] = DEFAULT_PREFERENCE
    require: Engine | None = None
