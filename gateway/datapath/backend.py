"""The seam between those who negotiate SAs and those who carry their packets.

Backends, the agent and the gRPC client all implement `Datapath`; the controller cannot tell which it has.
Every call is a coroutine; batches are idempotent and answered item by item. The way back is events only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from gateway.datapath.watch import Watch
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.placement import Engine, Placement, PlacementReason, PlacementRefusal
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import IpAddress, IpsecProtocol, Mode, SaId, SecurityAssociation, Spi

DEFAULT_MARK: Final = 0x69707365
"""SO_MARK of our own packets, protected ones and IKE: the letters "ipse"."""


class ErrorReason(Enum):
    """Stable codes of refused items; the value is `ErrorInfo.reason` in the API."""

    SPI_IN_USE = "SPI_IN_USE"
    """Another SA already has this SPI, destination and protocol, with other contents."""
    SPI_NOT_RESERVED = "SPI_NOT_RESERVED"
    ALGORITHM_UNSUPPORTED = "ALGORITHM_UNSUPPORTED"
    MODE_UNSUPPORTED = "MODE_UNSUPPORTED"
    WINDOW_UNSUPPORTED = "WINDOW_UNSUPPORTED"
    KEY_LENGTH = "KEY_LENGTH"
    ADDRESS_FAMILY = "ADDRESS_FAMILY"
    TABLE_FULL = "TABLE_FULL"
    POLICY_CONFLICT = "POLICY_CONFLICT"
    PLACEMENT_UNAVAILABLE = "PLACEMENT_UNAVAILABLE"
    NOT_FOUND = "NOT_FOUND"
    STALE_GENERATION = "STALE_GENERATION"
    NOT_OWNER = "NOT_OWNER"
    """It belongs to the IKE controller, or to another orchestrator."""
    UNAVAILABLE = "UNAVAILABLE"
    """The datapath does not answer."""
    SYSTEM = "SYSTEM"
    """The kernel refused; the text says what and why."""


class DatapathError(GatewayError):
    """The datapath refused or could not do something.

    Attributes:
        reason: Stable code.
        why: Of a backend that refuses to carry an SA where it was asked to: the placement's code, if it can
            tell more than `reason` does (DRIVER_REFUSED, KERNEL_IGNORED_OFFLOAD).
        refusals: Of an SA that nothing took: every engine that the wish allows, and why not there.
        is_spent: The SA was installed, may have sent packets and is gone: its key must never send again.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        why: PlacementReason | None = None,
        refusals: tuple[PlacementRefusal, ...] = (),
        is_spent: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.why = why
        self.refusals = refusals
        self.is_spent = is_spent


def first_wanted(wish: Placement, engines: Sequence[Engine]) -> Engine:
    """Return the first engine of a wish that a backend has.

    Raises:
        DatapathError: PLACEMENT_UNAVAILABLE: it has none of them.
    """
    for engine in wish.wanted:
        if engine in engines:
            return engine
    raise DatapathError(
        ErrorReason.PLACEMENT_UNAVAILABLE,
        f"{' or '.join(engine.value for engine in wish.wanted) or 'nothing'} is wanted, "
        f"this backend has {', '.join(engine.value for engine in engines)}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SaCounters:
    """Monotonic counters of one SA."""

    sa_id: SaId
    packets: int
    bytes: int
    """Inner bytes: of the packets that were protected, not of ESP."""
    sequence: int
    """Outbound: last number sent. Inbound: highest accepted. 64 bits with ESN."""
    drops: dict[DropReason, int] = field(default_factory=dict)
    last_used_s_ago: float | None = None
    """Seconds since the last packet; `None` if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """The answer for one item of a batch, in the order of the batch."""

    name: str
    """`SaId` or policy name."""
    error: DatapathError | None = None
    placement: Engine | None = None
    """Where an installed SA landed."""
    placement_reason: str = ""
    """Why not somewhere better, in words."""
    refusals: tuple[PlacementRefusal, ...] = ()
    """The same engine by engine, the best first."""

    counters: SaCounters | None = None
    """What an SA had counted when it was removed; `None` where it was not there."""

    @property
    def ok(self) -> bool:
        """Whether the item is now as asked."""
        return self.error is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a datapath can do."""

    name: str
    engines: tuple[Engine, ...]
    encryption: tuple[tuple[Encr, int], ...]
    """(algorithm, key bits) pairs."""
    integrity: tuple[Integ, ...]
    """Beside an encryption algorithm, and in AH; the AUTH_AES_GMAC of RFC 4543 in AH only."""
    protocols: tuple[IpsecProtocol, ...]
    modes: tuple[Mode, ...]
    esn: bool
    udp_encapsulation: bool
    max_replay_window_packets: int
    counters_survive_restart: bool
    """Whether SAs and their sequence numbers outlive the agent process (kernel, espd, pinned maps)."""
    max_sas: int | None = None
    cpus: int = 0
    """How many CPUs can have an outbound SA each for the same traffic; 0: SAs are not told apart by CPUs."""
    io_methods: tuple[str, ...] = ()
    """How packets come in and go out now, a device each, and why not by a faster method; in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Everything a datapath counts."""

    sas: tuple[SaCounters, ...]
    drops: dict[DropReason, int]
    """Drops that belong to no SA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledSa:
    """One SA as the datapath holds it; keys are never read back over the API."""

    sa: SecurityAssociation
    placement: Engine
    placement_reason: str = ""
    """Why not somewhere better, in words."""
    refusals: tuple[PlacementRefusal, ...] = ()
    """The same engine by engine, the best first."""
    generation: int = 0
    effective_mtu: int | None = None
    """Largest inner packet that fits without fragmentation, in bytes; `None` if not known."""
    owner: str = ""
    """Who brought it, where it was not the IKE controller."""


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """A packet matched a PROTECT entry that has no SA."""

    policy: str
    source: IpAddress
    destination: IpAddress
    protocol: int
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftExpire:
    """An SA reached a soft limit (or 75 % of its sequence space): rekey it."""

    sa_id: SaId
    spi: Spi
    limit: str
    """`seconds`, `bytes`, `packets` or `sequence`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardExpire:
    """An SA reached a hard limit; it carries nothing any more."""

    sa_id: SaId
    spi: Spi
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSpi:
    """ESP or AH with an unknown SPI arrived; rate-limited by the datapath."""

    protocol: IpsecProtocol = IpsecProtocol.ESP
    spi: Spi
    source: IpAddress
    destination: IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingChange:
    """An authenticated packet of a UDP-encapsulated SA came from another address or port (RFC 7296 §2.23)."""

    sa_id: SaId
    spi: Spi
    old: tuple[IpAddress, int]
    new: tuple[IpAddress, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementChange:
    """An SA, or the one that serves its Child from now on, is on another engine than before."""

    sa_id: SaId
    old: Engine
    new: Engine
    reason: str
    why: PlacementReason | None = None
    """The code, where the old engine no longer carries it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SasLost:
    """SAs vanished without being removed (agent restarted, device flushed): never send with them again."""

    sa_ids: tuple[SaId, ...]
    reason: str


DatapathEvent = Acquire | SoftExpire | HardExpire | BadSpi | MappingChange | PlacementChange | SasLost


class Datapath(Protocol):
    """One place that carries packets, or the way to one.

    Of several backends in one agent, each SA comes to one with `Placement(require=...)`. A backend puts it
    there, or refuses the item with a `DatapathError`. What was refused was never used: an outbound SA that
    may have sent a packet is not refused but answered with the engine that it is on, since another engine
    would begin its sequence numbers, and so its IVs, anew (RFC 4106 §2).
    """

    async def capabilities(self) -> Capabilities:
        """Return what this datapath can do."""

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve `count` inbound SPIs that no SA of this node has; unused ones lapse after some minutes."""

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs; one that is already there with equal contents is a success without effect.

        An outbound SA takes over its (connection, child) from the moment it is installed.
        """

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs, and tell what each had counted; one that is not there is a success."""

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Install or replace SPD entries by name, fail closed: protection is in force before the reply."""

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries; one that is not there is a success."""

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every installed SA."""

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched."""

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove every SA and policy of an older generation; return their names."""

    async def counters(self) -> Counters:
        """Return a snapshot of all counters."""

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on; each caller has its own."""

    async def close(self) -> None:
        """Release everything but the protection: fail-closed rules stay (docs/architecture)."""


@runtime_checkable
class SharedDatapath(Protocol):
    """A datapath that an orchestrator with keys of its own may use beside the IKE controller (RFC 9061)."""

    def of_owner(self, owner: str) -> Datapath:
        """Return the datapath as somebody else than the IKE controller has it."""


class StartedDatapath(Datapath, Protocol):
    """A datapath of this machine, which needs to be started."""

    async def start(self) -> None:
        """Take what is needed of this machine.

        Raises:
            HostError: It refused; the text says what to do.
        """

    async def remove_protection(self) -> None:
        """Take away what keeps traffic from leaving in clear; started or not."""
