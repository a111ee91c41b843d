"""What the controller offers to those above it (control API, CLI): records and one protocol.

`Controller` implements `ControlFacade`; `gateway.api.control_service` only translates. Nothing here
knows gRPC. Times in records of `gateway.ike.events` are the core's monotonic `now`; `ClockReading` joins
them to the wall clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, Protocol

from gateway.controller.ledger import Ledger
from gateway.controller.tally import Tally
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Capabilities,
    HardExpire,
    MappingChange,
    PlacementChange,
    SasLost,
    SoftExpire,
)
from gateway.datapath.watch import Watch
from gateway.ike.crypto.revocation import Crl
from gateway.ike.crypto.signature import PrivateKey
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaInfo,
    ChildSaRekeyed,
    Failure,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaInfo,
    IkeSaRekeyed,
    PathChanged,
)
from gateway.ipsec.connection import Connection
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.placement import Engine, PlacementRefusal
from gateway.ipsec.sa import SaId
from gateway.ipsec.secret import Secret


class ControlErrorReason(Enum):
    """Stable codes of refused control calls; the value is `ErrorInfo.reason` in the API."""

    CONNECTION_NOT_FOUND = "CONNECTION_NOT_FOUND"
    CHILD_NOT_FOUND = "CHILD_NOT_FOUND"
    IKE_SA_NOT_FOUND = "IKE_SA_NOT_FOUND"
    CHILD_SA_NOT_FOUND = "CHILD_SA_NOT_FOUND"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    """The same request_id came before with another request."""
    NO_REMOTE_ADDRESS = "NO_REMOTE_ADDRESS"
    """The connection only responds: it has no remote address to initiate to."""
    NO_PSK = "NO_PSK"
    """A connection was applied with "keep the PSK", but none is held."""
    NO_CREDENTIAL = "NO_CREDENTIAL"
    """A connection was applied with "keep the private key" or "keep the CRLs", but none is held that fits."""
    CONFLICT = "CONFLICT"
    """The connection contradicts another one (equal selectors, ...)."""
    DATAPATH_REFUSED = "DATAPATH_REFUSED"
    """The datapath did not take the connection's policies."""
    DATAPATH_UNAVAILABLE = "DATAPATH_UNAVAILABLE"
    HISTORY_LOST = "HISTORY_LOST"
    """The events asked for are no longer kept: list again, then watch from now."""
    SLOW_WATCHER = "SLOW_WATCHER"
    """The watcher did not read its events fast enough and was cut off: list again, then watch again."""
    SHUTTING_DOWN = "SHUTTING_DOWN"
    STALE_GENERATION = "STALE_GENERATION"
    """A newer generation of the desired state was applied already."""
    ETAG_MISMATCH = "ETAG_MISMATCH"
    """A connection is not as the caller has read it."""
    KEY_EXPORT_OFF = "KEY_EXPORT_OFF"
    """The controller was not started with leave to tell keys."""
    STATE_NOT_KEPT = "STATE_NOT_KEPT"
    """The desired state cannot be written; nothing was applied."""


class ControlError(GatewayError):
    """The controller refused a call.

    Attributes:
        reason: Stable code.
    """

    def __init__(self, reason: ControlErrorReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# --- connections --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedConnection:
    """One connection as it is applied: the configuration and its secret."""

    connection: Connection
    psk: Secret | None = None
    """`None` keeps the key that is already held for this connection (`NO_PSK` when there is none)."""
    private_keys: tuple[PrivateKey, ...] | None = ()
    """Those that its local side signs with; `None` keeps what is held (`NO_CREDENTIAL` without)."""
    crls: tuple[Crl, ...] | None = ()
    """Not part of the connection, so that new ones leave its SAs alone; `None` keeps what is held."""
    document: Secret | None = None
    """The whole as it was asked for, secrets included, for a `DesiredStore`; nobody else reads it."""


class Applied(Enum):
    """What applying one connection did (or, validating only, would do)."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    """Not in the new set, and pruning was asked for."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """How many SAs an apply or delete rekeys, ends and makes anew, or ends for good."""

    ike_sa_rekeys: int = 0
    child_sa_rekeys: int = 0
    ike_sa_restarts: int = 0
    child_sa_restarts: int = 0
    ike_sa_ends: int = 0
    child_sa_ends: int = 0


NO_IMPACT = Impact()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """The answer for one connection of an apply or delete, in the order of the request."""

    name: str
    applied: Applied
    error: ControlError | None = None
    """Set when, and only when, `applied` is REFUSED."""
    warnings: tuple[str, ...] = ()
    """Weak algorithms that the operator allowed, and the like."""
    changed_fields: tuple[str, ...] = ()
    """Of an update: what differs, by the names of the records."""
    impact: Impact = NO_IMPACT
    etag: str = ""
    """Of the connection as it is now."""
    generation: int = 0


class ConditionType(Enum):
    """What a condition is about."""

    PROTECTED = "protected"
    """The SPD entries of all children are in force: nothing passes in clear."""
    ESTABLISHED = "established"
    """There is an authenticated IKE SA."""
    CARRYING = "carrying"
    """Each child that is to be up carries traffic."""


class ConditionStatus(Enum):
    """Whether something is so."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing about a connection that is so, or not, or not known."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    """Stable, lower case."""
    message: str = ""
    changed_at: float = 0.0
    """Monotonic, as the core's `now`: when `status` changed last."""


class ConnectionState(Enum):
    """The state of one connection, as seen from outside."""

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"
    """There is an authenticated IKE SA."""
    FAILED = "failed"
    """The last attempt failed (`last_failure` says why); it is tried again if configured so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """One connection: what is wanted and how far it is."""

    connection: Connection
    psk_is_set: bool
    crls_are_set: bool = False
    state: ConnectionState
    ike_sas: tuple[int, ...] = ()
    """`ike_sa_id`s."""
    child_sas: tuple[int, ...] = ()
    """`child_sa_id`s."""
    last_failure: Failure | None = None
    last_failure_at: float | None = None
    """Monotonic, as the core's `now`."""
    etag: str = ""
    """Names this state of the configuration."""
    generation: int = 0
    """How often the configuration was changed."""
    observed_generation: int = 0
    """The generation that the datapath protects."""
    conditions: tuple[Condition, ...] = ()


# --- operations ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an operation is about.

    Exactly one of: `connection`; `connection` and `child`; `ike_sa_id`; `child_sa_id`.
    """

    connection: str = ""
    child: str = ""
    ike_sa_id: int | None = None
    child_sa_id: int | None = None


class OperationState(Enum):
    """How far an operation is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something asked for that takes a few round trips with the peer."""

    operation_id: str
    verb: str
    """`initiate`, `terminate`, `rekey` or `reauthenticate`."""
    target: Target
    state: OperationState
    failure: Failure | None = None
    """Set when, and only when, `state` is FAILED."""


# --- status and events --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """One moment on both clocks, in seconds."""

    monotonic: float
    """The `now` of the core."""
    wall: float
    """Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaPlacement:
    """Where one direction of a Child SA landed, and why not somewhere better."""

    sa_id: SaId
    engine: Engine
    reason: str = ""
    """Why not somewhere better, in words."""
    refusals: tuple[PlacementRefusal, ...] = ()
    """The same engine by engine, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSaStatus:
    """One Child SA with what the datapath says of it."""

    info: ChildSaInfo
    inbound: SaPlacement | None = None
    outbound: SaPlacement | None = None
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    effective_mtu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """The controller at a glance."""

    version: str
    started_at: float
    """Unix time."""
    datapath_address: str
    """Where the datapath is: `unix:PATH`, `HOST:PORT`, or `in-process`."""
    datapath: Capabilities | None
    """`None` while the datapath does not answer."""
    datapath_problem: str = ""
    """What is wrong with the datapath and what to do, while it does not answer."""
    connections: int = 0
    ike_sas: int = 0
    half_open_ike_sas: int = 0
    child_sas: int = 0
    ike_drops: dict[DropReason, int] = field(default_factory=dict)
    """Datagrams the controller dropped, since start."""
    datapath_drops: dict[DropReason, int] = field(default_factory=dict)
    """Packets the datapath dropped since its start, those of SAs that are gone included."""
    warnings: tuple[str, ...] = ()
    node: str = ""
    """The name of this gateway among its like."""
    desired_state: str = "memory"
    """Where the connections are kept: `file:PATH`, `state:PATH` or `memory`."""
    generation: int = 0
    """The highest one that was applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """Who has the SAs of this controller: for whoever takes over from it."""

    node: str
    """The gateway that has them."""
    owner: str
    """The gateway that speaks for them; the same one, as long as nobody else takes over."""
    generation: int
    """Of the owner's life, as the datapath knows it: whoever takes over has a higher one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTables:
    """The keys of one connection's SAs as rows of Wireshark's tables."""

    ike_sas: tuple[Secret, ...]
    """Of `ikev2_decryption_table`."""
    esp_sas: tuple[Secret, ...]
    """Of `esp_sa`."""
    left_out: tuple[str, ...]
    """What has no row, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing worth knowing about a connection, for a person."""

    topic: str
    """`state`, `peer`, `proposal`, `selectors`, `placement`, `datapath`, ...: lower case, one word."""
    text: str
    advice: str = ""
    """What to do about it, where something is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionApplied:
    """A connection was created, updated or deleted."""

    name: str
    applied: Applied


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFinished:
    """An operation succeeded or failed."""

    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class DatapathAvailability:
    """The datapath went away or came back."""

    available: bool
    detail: str


WatchedEvent = (
    IkeSaEstablished
    | IkeSaRekeyed
    | IkeSaFailed
    | IkeSaDeleted
    | ChildSaEstablished
    | ChildSaRekeyed
    | ChildSaFailed
    | ChildSaDeleted
    | PathChanged
    | ConnectionApplied
    | OperationFinished
    | DatapathAvailability
    | Acquire
    | SoftExpire
    | HardExpire
    | BadSpi
    | MappingChange
    | PlacementChange
    | SasLost
)
"""What watchers see: never keys (`IkeSaKeysDerived`), nor what strangers cause (`DatagramDropped`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEvent:
    """One event with its place in history."""

    sequence: int
    """Counts from 1, without gaps, in the life of one controller process."""
    at: float
    """Unix time."""
    event: WatchedEvent


NO_ETAGS: Final[Mapping[str, str]] = MappingProxyType({})


class ControlFacade(Protocol):
    """Everything the control API can ask of a controller. Failures are `ControlError`."""

    def clock(self) -> ClockReading:
        """Return the present moment on both clocks."""

    async def apply(
        self,
        wanted: Sequence[WantedConnection],
        *,
        validate_only: bool = False,
        prune: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> tuple[ApplyResult, ...]:
        """Create or update connections by name; an equal one is left alone, with its SAs.

        With `prune`, connections that are not in `wanted` are deleted; their results follow the others.
        Where an etag differs from what a connection has (`""`: it is not there; `"*"`: any), or
        `generation` is older than one that was applied, nothing is done (ETAG_MISMATCH, STALE_GENERATION).
        """

    async def delete(
        self,
        names: Sequence[str],
        *,
        validate_only: bool = False,
        generation: int = 0,
        etags: Mapping[str, str] = NO_ETAGS,
    ) -> tuple[ApplyResult, ...]:
        """Terminate and forget connections; one that is not there is UNCHANGED."""

    def connections(self) -> tuple[ConnectionStatus, ...]:
        """Return every connection, ordered by name."""

    def connection(self, name: str) -> ConnectionStatus | None:
        """Return one connection; `None` where there is none of that name."""

    def names(self) -> tuple[str, ...]:
        """Return the name of every connection, sorted."""

    def etag(self, name: str) -> str:
        """Return the etag of a connection; empty where there is none of that name."""

    def ledger(self) -> Ledger:
        """Return which connection changed when, for those who watch."""

    def tenure(self) -> Tenure:
        """Return who has the SAs of this controller."""

    async def initiate(self, target: Target, *, request_id: str = "") -> Operation:
        """Bring up a connection (with all its PROTECT children) or one child; at once done if it is up.

        A `request_id` that came before returns the operation it started then.
        """

    async def terminate(self, target: Target, *, request_id: str = "") -> Operation:
        """Delete the IKE SAs of a connection with their Child SAs, or one Child SA."""

    async def rekey(self, target: Target, *, reauthenticate: bool = False, request_id: str = "") -> Operation:
        """Rekey the IKE SA of a connection, or (child named) a Child SA.

        With `reauthenticate` the IKE SA is replaced by a new one that is authenticated anew, with all its
        Child SAs (RFC 7296 §2.8.3); that is for a connection or an IKE SA.
        """

    async def operation(self, operation_id: str, *, wait_s: float = 0.0) -> Operation:
        """Return an operation, after waiting up to `wait_s` for its end."""

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """Return every IKE SA, ordered by id."""

    async def child_sas(self) -> tuple[ChildSaStatus, ...]:
        """Return every Child SA, ordered by id, with counters as far as the datapath answers."""

    async def status(self) -> GatewayStatus:
        """Return the controller at a glance."""

    def tally(self) -> Tally:
        """Return, in numbers that only grow, what was lived through since the start: a copy.

        What Child SAs carried is as of the last `child_sas`.
        """

    async def explain(self, connection: str) -> tuple[Fact, ...]:
        """Return why a connection is (not) up, and where its SAs landed and why not elsewhere."""

    def export_keys(self, connection: str) -> KeyTables:
        """Return the keys of a connection's SAs, for a packet analyser; it is in the log."""

    def watch(self, after_sequence: int | None = None) -> Watch[ControlEvent]:
        """Return a stream of events: from now on, or from the first kept one after `after_sequence`.

        Raises:
            ControlError: HISTORY_LOST at once, SLOW_WATCHER or SHUTTING_DOWN later, from the iterator.
        """
