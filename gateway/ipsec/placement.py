"""Where an SA should live, where it does, and why not somewhere better."""

from collections.abc import Iterable
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


class PlacementReason(Enum):
    """Why an engine does not carry an SA; docs/troubleshooting.md has cause and remedy of each."""

    NO_BACKEND = "NO_BACKEND"
    """The agent has no backend that drives this engine; the sentence says why."""
    NO_DEVICE = "NO_DEVICE"
    """No NIC with this offload has the SA's outer address."""
    FEATURE_OFF = "FEATURE_OFF"
    """The NIC could, but its offload is switched off."""
    KERNEL_TOO_OLD = "KERNEL_TOO_OLD"
    """The driver has this offload in newer kernels only."""
    ALG_UNSUPPORTED = "ALG_UNSUPPORTED"
    """The encryption or integrity algorithm, or AH."""
    KEYLEN = "KEYLEN"
    """The algorithm, but not with keys of this length."""
    ICV = "ICV"
    """The algorithm, but not with an ICV of this length."""
    ESN = "ESN"
    """Extended sequence numbers."""
    REPLAY_WINDOW = "REPLAY_WINDOW"
    """The size of the anti-replay window."""
    ENCAP = "ENCAP"
    """ESP in UDP."""
    MODE = "MODE"
    """Tunnel or transport mode."""
    DIRECTION = "DIRECTION"
    """Inbound or outbound."""
    SELECTOR = "SELECTOR"
    """The traffic selectors."""
    SA_TABLE_FULL = "SA_TABLE_FULL"
    """There is no room for another SA."""
    DRIVER_REFUSED = "DRIVER_REFUSED"
    """The kernel asked the NIC's driver, which said no; the sentence has its own words."""
    KERNEL_IGNORED_OFFLOAD = "KERNEL_IGNORED_OFFLOAD"
    """The kernel took the SA and said nothing, but reading it back shows that it was not offloaded."""
    POLICY_FORBIDS = "POLICY_FORBIDS"
    """SPD entries that overlap must stay at one backend, and another one of them is in use elsewhere."""
    OTHER_DIRECTION = "OTHER_DIRECTION"
    """The other half of this Child SA cannot be at the same backend."""
    DEVICE_LOST = "DEVICE_LOST"
    """It carried the SA until the device went down or lost its offload."""
    BACKEND_REFUSED = "BACKEND_REFUSED"
    """The backend said no; the sentence has its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRefusal:
    """Why one engine does not carry an SA."""

    engine: Engine
    reason: PlacementReason
    text: str
    """A sentence for an operator, without full stop."""

    def __str__(self) -> str:
        return f"{self.engine.value}: {self.reason.value}: {self.text}"


def in_words(refusals: Iterable[PlacementRefusal]) -> str:
    """Return refusals as one line; engines that were refused for the same reason are named together."""
    words: dict[str, list[str]] = {}
    for refusal in refusals:
        words.setdefault(f"{refusal.reason.value}: {refusal.text}", []).append(refusal.engine.value)
    return "; ".join(f"{', '.join(engines)}: {why}" for why, engines in words.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The operator's wish: an order of preference, or one engine and nothing else."""

    prefer: tuple[Engine, ...] = DEFAULT_PREFERENCE
    require: Engine | None = None

    @property
    def wanted(self) -> tuple[Engine, ...]:
        """Return the engines that may carry the SA, the best first."""
        return self.prefer if self.require is None else (self.require,)
