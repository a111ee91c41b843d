"""The bridge between protobuf messages and the records of `gateway.ipsec` and `gateway.datapath.backend`.

Readers (`read_x`) take a message, its path and a `Violations` to note in; they check what the message
says by itself and leave to the datapath what it can carry. Writers (`write_x`) cannot fail. Keys go in
and never come out. Capabilities, counters and events are in `convert_datapath`, the control service's
records in `convert_connection` and `convert_control`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Final, Generic, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from gateway.api.convert_interface import read_interface, write_interface
from gateway.api.convert_mark import read_mark, write_mark
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.duration import MAX_S, format_duration
from gateway.api.remembered import known_address
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.types.v1 import status_pb2 as spb
from gateway.api.violations import Violations, at
from gateway.datapath.backend import DatapathError, ErrorReason, InstalledSa, ItemResult
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement, PlacementReason, PlacementRefusal
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import (
    MAX_REPLAY_WINDOW,
    MIN_REPLAY_WINDOW,
    MIN_SPI,
    Direction,
    IpAddress,
    IpsecProtocol,
    Mode,
    SecurityAssociation,
    Spi,
    UdpEncapsulation,
)
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import MAX_PORT, TrafficSelector

E = TypeVar("E", bound=Enum)
T = TypeVar("T")
R = TypeVar("R")


class EnumBridge(Generic[E]):
    """One enum on both sides, joined by member names: `NAME` and `PREFIX_NAME`."""

    def __init__(self, members: type[E], wrapper: EnumTypeWrapper, *, unspecified: E | None = None) -> None:
        """Join the two.

        Args:
            members: The Python enum.
            wrapper: The protobuf enum.
            unspecified: What 0 means; `None` if a value is required.
        """
        names: Mapping[int, str] = {number: name for name, number in wrapper.items()}
        prefix = names[0].removesuffix("UNSPECIFIED")
        self._members: dict[int, E] = {
            number: members[name.removeprefix(prefix)] for number, name in names.items() if number
        }
        self._names: dict[E, str] = {member: names[number] for number, member in self._members.items()}
        if unspecified is not None:
            self._members[0] = unspecified
            self._names.setdefault(unspecified, names[0])
        missing = set(members) - set(self._names)
        assert not missing, f"{wrapper.DESCRIPTOR.full_name} lacks {missing}"

    def write(self, member: E) -> str:
        """Return the protobuf name, which message constructors take."""
        return self._names[member]

    def read(self, number: int, path: str, violations: Violations) -> E | None:
        """Return the member, or note that there is none."""
        if number in self._members:
            return self._members[number]
        what = f"{number} is unknown" if number else "is required"
        violations.add(path, f"{what}; one of {', '.join(self.spellings())}")
        return None

    def read_all(self, numbers: Iterable[int], path: str, name: str, violations: Violations) -> tuple[E, ...]:
        """Return the members of a repeated field."""
        members = (self.read(number, at(path, name, i), violations) for i, number in enumerate(numbers))
        return tuple(member for member in members if member is not None)

    def spellings(self) -> tuple[str, ...]:
        """Return the values as they are spelled in files."""
        return tuple(member.name.lower() for number, member in self._members.items() if number)


ENCRYPTION: Final = EnumBridge(Encr, tpb.EncryptionAlgorithm)
INTEGRITY: Final = EnumBridge(Integ, tpb.IntegrityAlgorithm, unspecified=Integ.NONE)
MODE: Final = EnumBridge(Mode, tpb.Mode, unspecified=Mode.TUNNEL)
ACTION: Final = EnumBridge(Action, tpb.Action, unspecified=Action.PROTECT)
DIRECTION: Final = EnumBridge(Direction, tpb.Direction)
PROTOCOL: Final = EnumBridge(IpsecProtocol, tpb.IpsecProtocol, unspecified=IpsecProtocol.ESP)
ENGINE: Final = EnumBridge(Engine, tpb.Engine)
PLACEMENT_REASON: Final = EnumBridge(PlacementReason, tpb.PlacementReason)
DROP_REASON: Final = EnumBridge(DropReason, spb.DropReason)


_LONGEST_LIFETIME_S: Final = 11 * MAX_S
"""A hard limit is at most this much of what was configured: once, and `over_fraction` of it."""


# --- small things -------------------------------------------------------------------------------


def read_address(text: str, path: str, violations: Violations) -> IpAddress | None:
    """Return an IPv4 or IPv6 address that is required here."""
    if not text:
        violations.add(path, "is required: an IPv4 or IPv6 address")
        return None
    try:
        return known_address(text)
    except ValueError:
        violations.add(path, f"'{text}' is not an IPv4 or IPv6 address, as 192.0.2.1 or 2001:db8::1")
        return None


def read_optional_address(text: str, path: str, violations: Violations) -> IpAddress | None:
    """Return an address, or `None` for an empty text."""
    return read_address(text, path, violations) if text else None


def write_address(address: IpAddress | None) -> str:
    """Return the text of an address; empty for `None`."""
    return "" if address is None else str(address)


def write_duration(seconds: float) -> duration_pb2.Duration:
    """Return a protobuf duration."""
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def read_duration(
    duration: duration_pb2.Duration, path: str, violations: Violations, longest_s: float = MAX_S
) -> float:
    """Return seconds, which must neither be negative nor more than anybody can mean."""
    seconds = duration.seconds + duration.nanos / 1e9
    if seconds < 0:
        violations.add(path, f"{seconds:g}s is negative")
    if seconds > longest_s:
        violations.add(path, f"{seconds:g}s is too long; at most {format_duration(longest_s)} are allowed")
    return seconds


def write_timestamp(unix_s: float) -> timestamp_pb2.Timestamp:
    """Return a protobuf timestamp."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round(unix_s * 1e6))
    return stamp


def _bounded(value: int, high: int, path: str, violations: Violations) -> int:
    if value > high:
        violations.add(path, f"{value} is more than {high}")
    return value


def required(present: object, path: str, what: str, violations: Violations) -> None:
    """Note that something is required when `present` is falsy."""
    if not present:
        violations.add(path, f"is required: {what}")


# --- vocabulary ---------------------------------------------------------------------------------


def write_selector(selector: TrafficSelector) -> tpb.TrafficSelector:
    """Return a selector message."""
    return tpb.TrafficSelector(
        start=str(selector.start),
        end=str(selector.end),
        protocol=selector.protocol,
        start_port=selector.start_port,
        end_port=selector.end_port,
    )


def read_selector(message: tpb.TrafficSelector, path: str, violations: Violations) -> TrafficSelector | None:
    """Return a selector (RFC 7296 §3.13.1)."""
    before = len(violations)
    start = read_address(message.start, at(path, "start"), violations)
    end = read_address(message.end, at(path, "end"), violations)
    start_port = _bounded(message.start_port, MAX_PORT, at(path, "start_port"), violations)
    end_port = message.end_port if message.HasField("end_port") else MAX_PORT
    _bounded(end_port, MAX_PORT, at(path, "end_port"), violations)
    _bounded(message.protocol, 255, at(path, "protocol"), violations)
    if start is not None and end is not None:
        if start.version != end.version:
            violations.add(at(path, "end"), f"{end} is not of the address family of {start}")
        elif int(end) < int(start):
            violations.add(at(path, "end"), f"{end} is before {start}")
    is_opaque = (start_port, end_port) == (MAX_PORT, 0)
    if end_port < start_port and not is_opaque:
        violations.add(at(path, "end_port"), f"{end_port} is before start_port {start_port}")
    if start is None or end is None or len(violations) > before:
        return None
    return TrafficSelector(start, end, message.protocol, start_port, end_port)


def _selectors(
    messages: Iterable[tpb.TrafficSelector], path: str, name: str, violations: Violations
) -> tuple[TrafficSelector, ...]:
    selectors = tuple(
        read_selector(message, at(path, name, i), violations) for i, message in enumerate(messages)
    )
    required(selectors, at(path, name), "at least one traffic selector", violations)
    return tuple(selector for selector in selectors if selector is not None)


def _write_limit(limit: Limit) -> tpb.Limit:
    return tpb.Limit(
        time=None if limit.seconds is None else write_duration(limit.seconds),
        bytes=limit.bytes or 0,
        packets=limit.packets or 0,
    )


def _read_limit(message: tpb.Limit, path: str, violations: Violations) -> Limit:
    seconds = read_duration(message.time, at(path, "time"), violations, _LONGEST_LIFETIME_S)
    return Limit(seconds=seconds or None, bytes=message.bytes or None, packets=message.packets or None)


def write_placement(placement: Placement) -> tpb.Placement:
    """Return a placement message."""
    if placement.require is not None:
        return tpb.Placement(require=ENGINE.write(placement.require))
    return tpb.Placement(prefer=[ENGINE.write(engine) for engine in placement.prefer])


def read_placement(message: tpb.Placement, path: str, violations: Violations) -> Placement:
    """Return the wish; an empty message is the default."""
    if message.prefer and message.require:
        violations.add(path, "has both prefer and require; give one of them")
    if message.require:
        engine = ENGINE.read(message.require, at(path, "require"), violations)
        return Placement() if engine is None else Placement(prefer=(engine,), require=engine)
    prefer = ENGINE.read_all(message.prefer, path, "prefer", violations)
    for i, engine in enumerate(prefer):
        if engine in prefer[:i]:
            violations.add(at(path, "prefer", i), f"{engine.value} is named twice")
    return Placement(prefer=prefer) if prefer else Placement()


def write_refusals(refusals: Iterable[PlacementRefusal]) -> list[tpb.PlacementRefusal]:
    """Return why engines do not carry an SA."""
    return [
        tpb.PlacementRefusal(
            engine=ENGINE.write(refusal.engine),
            reason=PLACEMENT_REASON.write(refusal.reason),
            text=refusal.text,
        )
        for refusal in refusals
    ]


def read_refusals(messages: Iterable[tpb.PlacementRefusal]) -> tuple[PlacementRefusal, ...]:
    """Return why engines do not carry an SA; an engine newer than we are is left out, a reason is unnamed."""
    newer = Violations()
    found = []
    for message in messages:
        engine = ENGINE.read(message.engine, "", newer)
        reason = PLACEMENT_REASON.read(message.reason, "", newer) or PlacementReason.BACKEND_REFUSED
        if engine is not None:
            found.append(PlacementRefusal(engine=engine, reason=reason, text=message.text))
    return tuple(found)


def write_sa(sa: SecurityAssociation, *, with_keys: bool) -> tpb.SecurityAssociation:
    """Return an SA message: with its keys towards the datapath, without in every answer."""
    return tpb.SecurityAssociation(
        spi=sa.spi,
        direction=DIRECTION.write(sa.direction),
        protocol=PROTOCOL.write(sa.protocol),
        mode=MODE.write(sa.mode),
        source=str(sa.source),
        destination=str(sa.destination),
        encapsulation=None
        if sa.encapsulation is None
        else tpb.UdpEncapsulation(
            source_port=sa.encapsulation.source_port, destination_port=sa.encapsulation.destination_port
        ),
        encryption=ENCRYPTION.write(sa.encryption),
        encryption_key=sa.encryption_key.reveal() if with_keys else b"",
        key_bits=sa.key_bits,
        integrity=INTEGRITY.write(sa.integrity),
        integrity_key=sa.integrity_key.reveal() if with_keys else b"",
        esn=sa.esn,
        replay_window=sa.replay_window_packets,
        local_ts=[write_selector(selector) for selector in sa.local_ts],
        remote_ts=[write_selector(selector) for selector in sa.remote_ts],
        lifetime=tpb.Lifetime(soft=_write_limit(sa.lifetime.soft), hard=_write_limit(sa.lifetime.hard)),
        copy_dscp=sa.copy_dscp,
        copy_df=sa.copy_df,
        tfc_padding=sa.tfc_padding_bytes,
        connection=sa.connection,
        child=sa.child,
        child_sa_id=sa.child_sa_id,
        placement=write_placement(sa.placement),
        interface_id=sa.interface_id,
        cpu=sa.cpu,
        mark=write_mark(sa.mark),
        set_mark=write_mark(sa.set_mark),
    )


def read_sa(
    message: tpb.SecurityAssociation, path: str, violations: Violations
) -> SecurityAssociation | None:
    """Return one direction of an SA; its keys are empty where the message is an answer."""
    before = len(violations)
    if message.spi < MIN_SPI:
        violations.add(at(path, "spi"), f"{message.spi} is reserved; SPIs start at {MIN_SPI} (RFC 4303 §2.1)")
    direction = DIRECTION.read(message.direction, at(path, "direction"), violations)
    protocol = PROTOCOL.read(message.protocol, at(path, "protocol"), violations)
    mode = MODE.read(message.mode, at(path, "mode"), violations)
    source = read_address(message.source, at(path, "source"), violations)
    destination = read_address(message.destination, at(path, "destination"), violations)
    if source is not None and destination is not None and source.version != destination.version:
        violations.add(at(path, "destination"), f"{destination} is not of the address family of {source}")
    window = message.replay_window if message.HasField("replay_window") else 1024
    if window != 0 and not MIN_REPLAY_WINDOW <= window <= MAX_REPLAY_WINDOW:
        violations.add(
            at(path, "replay_window"),
            f"{window} is neither 0 nor between {MIN_REPLAY_WINDOW} and {MAX_REPLAY_WINDOW} packets",
        )
    encapsulation = None
    if message.HasField("encapsulation"):
        encapsulation = _read_encapsulation(message.encapsulation, at(path, "encapsulation"), violations)
    encryption: Encr | None = Encr.NULL
    if message.encryption or protocol is not IpsecProtocol.AH:
        encryption = ENCRYPTION.read(message.encryption, at(path, "encryption"), violations)
    integrity = INTEGRITY.read(message.integrity, at(path, "integrity"), violations)
    local_ts = _selectors(message.local_ts, path, "local_ts", violations)
    remote_ts = _selectors(message.remote_ts, path, "remote_ts", violations)
    lifetime = Lifetime(
        soft=_read_limit(message.lifetime.soft, at(path, "lifetime.soft"), violations),
        hard=_read_limit(message.lifetime.hard, at(path, "lifetime.hard"), violations),
    )
    placement = read_placement(message.placement, at(path, "placement"), violations)
    mark = read_mark(message.mark, at(path, "mark"), violations)
    set_mark = read_mark(message.set_mark, at(path, "set_mark"), violations)
    if (
        len(violations) > before
        or direction is None
        or protocol is None
        or mode is None
        or source is None
        or destination is None
        or encryption is None
        or integrity is None
    ):
        return None
    return SecurityAssociation(
        spi=Spi(message.spi),
        direction=direction,
        protocol=protocol,
        mode=mode,
        source=source,
        destination=destination,
        encapsulation=encapsulation,
        encryption=encryption,
        encryption_key=Secret(message.encryption_key),
        key_bits=message.key_bits,
        integrity=integrity,
        integrity_key=Secret(message.integrity_key),
        esn=message.esn,
        replay_window_packets=window,
        local_ts=local_ts,
        remote_ts=remote_ts,
        lifetime=lifetime,
        copy_dscp=message.copy_dscp if message.HasField("copy_dscp") else True,
        copy_df=message.copy_df if message.HasField("copy_df") else True,
        tfc_padding_bytes=message.tfc_padding,
        connection=message.connection,
        child=message.child,
        child_sa_id=message.child_sa_id,
        placement=placement,
        interface_id=message.interface_id,
        cpu=message.cpu if message.HasField("cpu") else None,
        mark=mark,
        set_mark=set_mark,
    )


def _read_encapsulation(
    message: tpb.UdpEncapsulation, path: str, violations: Violations
) -> UdpEncapsulation | None:
    ports = (("source_port", message.source_port), ("destination_port", message.destination_port))
    wrong = [(name, port) for name, port in ports if not 0 < port <= MAX_PORT]
    for name, port in wrong:
        violations.add(at(path, name), f"{port} is not a UDP port (1 to {MAX_PORT})")
    if wrong:
        return None
    return UdpEncapsulation(source_port=message.source_port, destination_port=message.destination_port)


def write_policy(policy: Policy) -> tpb.Policy:
    """Return an SPD entry message."""
    return tpb.Policy(
        name=policy.name,
        action=ACTION.write(policy.action),
        local_ts=[write_selector(selector) for selector in policy.local_ts],
        remote_ts=[write_selector(selector) for selector in policy.remote_ts],
        priority=policy.priority,
        mode=MODE.write(policy.mode),
        protocol=PROTOCOL.write(policy.protocol),
        local_address=write_address(policy.local_address),
        remote_address=write_address(policy.remote_address),
        acquire=policy.acquire,
        connection=policy.connection,
        child=policy.child,
        placement=write_placement(policy.placement),
        interface_id=policy.interface_id,
        interface=write_interface(policy.interface),
        mark_in=write_mark(policy.mark_in),
        mark_out=write_mark(policy.mark_out),
    )


def read_policy(message: tpb.Policy, path: str, violations: Violations) -> Policy | None:
    """Return an SPD entry."""
    before = len(violations)
    required(message.name, at(path, "name"), "a name that is unique in the SPD", violations)
    action = ACTION.read(message.action, at(path, "action"), violations)
    mode = MODE.read(message.mode, at(path, "mode"), violations)
    protocol = PROTOCOL.read(message.protocol, at(path, "protocol"), violations)
    local_ts = _selectors(message.local_ts, path, "local_ts", violations)
    remote_ts = _selectors(message.remote_ts, path, "remote_ts", violations)
    local_address = read_optional_address(message.local_address, at(path, "local_address"), violations)
    remote_address = read_optional_address(message.remote_address, at(path, "remote_address"), violations)
    placement = read_placement(message.placement, at(path, "placement"), violations)
    mark_in = read_mark(message.mark_in, at(path, "mark_in"), violations)
    mark_out = read_mark(message.mark_out, at(path, "mark_out"), violations)
    interface = None
    if message.HasField("interface"):
        interface = read_interface(message.interface, at(path, "interface"), violations)
        if interface is not None and interface.id != message.interface_id:
            violations.add(at(path, "interface_id"), f"is not that of {interface.name}, {interface.id}")
    if len(violations) > before or action is None or mode is None or protocol is None:
        return None
    return Policy(
        name=message.name,
        action=action,
        local_ts=local_ts,
        remote_ts=remote_ts,
        priority=message.priority if message.HasField("priority") else 1000,
        mode=mode,
        protocol=protocol,
        local_address=local_address,
        remote_address=remote_address,
        acquire=message.acquire,
        connection=message.connection,
        child=message.child,
        placement=placement,
        interface_id=message.interface_id,
        interface=interface,
        mark_in=mark_in,
        mark_out=mark_out,
    )


def read_batch(
    messages: Iterable[T], name: str, read: Callable[[T, str, Violations], R | None]
) -> tuple[R, ...]:
    """Return every item of a batch, read.

    Raises:
        InvalidArgument: Something in some item is not well-formed; all of it is named.
    """
    violations = Violations()
    items = [read(message, at("", name, i), violations) for i, message in enumerate(messages)]
    violations.raise_if_any()
    return tuple(item for item in items if item is not None)


# --- answers, item by item ----------------------------------------------------------------------


def write_item_result(result: ItemResult) -> spb.ItemResult:
    """Return the answer for one item of a batch."""
    error = None
    if result.error is not None:
        error = spb.ItemError(
            reason=f"ERROR_REASON_{result.error.reason.value}",
            message=str(result.error),
            refusals=write_refusals(result.error.refusals),
        )
    return spb.ItemResult(
        name=result.name,
        error=error,
        placement=None if result.placement is None else ENGINE.write(result.placement),
        placement_reason=result.placement_reason,
        refusals=write_refusals(result.refusals),
    )


def read_item_result(message: spb.ItemResult) -> ItemResult:
    """Return the answer for one item; a reason or engine newer than we are is SYSTEM or unnamed."""
    error = None
    if message.HasField("error"):
        error = DatapathError(
            read_error_reason(message.error.reason),
            message.error.message,
            refusals=read_refusals(message.error.refusals),
        )
    return ItemResult(
        name=message.name,
        error=error,
        placement=ENGINE.read(message.placement, "", Violations()) if message.placement else None,
        placement_reason=message.placement_reason,
        refusals=read_refusals(message.refusals),
    )


def read_error_reason(number: int) -> ErrorReason:
    """Return the datapath's reason; one that is not its own is SYSTEM."""
    names = {number: name for name, number in spb.ErrorReason.items()}
    name = names.get(number, "").removeprefix("ERROR_REASON_")
    return ErrorReason(name) if name in ErrorReason.__members__ else ErrorReason.SYSTEM


def write_installed_sa(installed: InstalledSa) -> dpb.InstalledSa:
    """Return one SA as the datapath holds it, without keys."""
    return dpb.InstalledSa(
        sa_id=installed.sa.sa_id,
        sa=write_sa(installed.sa, with_keys=False),
        placement=ENGINE.write(installed.placement),
        placement_reason=installed.placement_reason,
        refusals=write_refusals(installed.refusals),
        generation=installed.generation,
        effective_mtu=installed.effective_mtu or 0,
        owner=installed.owner,
    )


def read_installed_sa(message: dpb.InstalledSa, path: str, violations: Violations) -> InstalledSa | None:
    """Return one SA as the datapath holds it; its keys are empty."""
    sa = read_sa(message.sa, at(path, "sa"), violations)
    placement = ENGINE.read(message.placement, at(path, "placement"), violations)
    if sa is None or placement is None:
        return None
    return InstalledSa(
        sa=sa,
        placement=placement,
        placement_reason=message.placement_reason,
        refusals=read_refusals(message.refusals),
        generation=message.generation,
        effective_mtu=message.effective_mtu or None,
        owner=message.owner,
    )
