"""The bridge between protobuf messages and the records of `gateway.ipsec` and `gateway.datapath.backend`.

Readers (`read_x`) take a message, its path and a `Violations` to note in; they check what the message
says by itself and leave to the datapath what it can carry. Writers (`write_x`) cannot fail. Keys go in
and never come out. The control service's own records are in `convert_control`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from ipaddress import ip_address
from typing import Final, Generic, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.types.v1 import ipsec_pb2 as tpb
from gateway.api.types.v1 import status_pb2 as spb
from gateway.api.violations import Violations, at
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    HardExpire,
    InstalledSa,
    ItemResult,
    MappingChange,
    PlacementChange,
    SaCounters,
    SasLost,
    SoftExpire,
)
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import (
    MAX_REPLAY_WINDOW,
    MIN_REPLAY_WINDOW,
    MIN_SPI,
    Direction,
    IpAddress,
    IpsecProtocol,
    Mode,
    SaId,
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
DROP_REASON: Final = EnumBridge(DropReason, spb.DropReason)


# --- small things -------------------------------------------------------------------------------


def read_address(text: str, path: str, violations: Violations) -> IpAddress | None:
    """Return an IPv4 or IPv6 address that is required here."""
    if not text:
        violations.add(path, "is required: an IPv4 or IPv6 address")
        return None
    try:
        return ip_address(text)
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


def read_duration(duration: duration_pb2.Duration, path: str, violations: Violations) -> float:
    """Return seconds, which must not be negative."""
    seconds = duration.seconds + duration.nanos / 1e9
    if seconds < 0:
        violations.add(path, f"{seconds:g}s is negative")
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
    seconds = read_duration(message.time, at(path, "time"), violations)
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
    encryption = ENCRYPTION.read(message.encryption, at(path, "encryption"), violations)
    integrity = INTEGRITY.read(message.integrity, at(path, "integrity"), violations)
    local_ts = _selectors(message.local_ts, path, "local_ts", violations)
    remote_ts = _selectors(message.remote_ts, path, "remote_ts", violations)
    lifetime = Lifetime(
        soft=_read_limit(message.lifetime.soft, at(path, "lifetime.soft"), violations),
        hard=_read_limit(message.lifetime.hard, at(path, "lifetime.hard"), violations),
    )
    placement = read_placement(message.placement, at(path, "placement"), violations)
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


# --- answers ------------------------------------------------------------------------------------


def write_item_result(result: ItemResult) -> spb.ItemResult:
    """Return the answer for one item of a batch."""
    error = None
    if result.error is not None:
        error = spb.ItemError(reason=f"ERROR_REASON_{result.error.reason.value}", message=str(result.error))
    return spb.ItemResult(
        name=result.name,
        error=error,
        placement=None if result.placement is None else ENGINE.write(result.placement),
        placement_reason=result.placement_reason,
    )


def read_item_result(message: spb.ItemResult) -> ItemResult:
    """Return the answer for one item; a reason or engine newer than we are is SYSTEM or unnamed."""
    error = None
    if message.HasField("error"):
        error = DatapathError(read_error_reason(message.error.reason), message.error.message)
    return ItemResult(
        name=message.name,
        error=error,
        placement=ENGINE.read(message.placement, "", Violations()) if message.placement else None,
        placement_reason=message.placement_reason,
    )


def read_error_reason(number: int) -> ErrorReason:
    """Return the datapath's reason; one that is not its own is SYSTEM."""
    names = {number: name for name, number in spb.ErrorReason.items()}
    name = names.get(number, "").removeprefix("ERROR_REASON_")
    return ErrorReason(name) if name in ErrorReason.__members__ else ErrorReason.SYSTEM


def write_capabilities(capabilities: Capabilities) -> dpb.Capabilities:
    """Return the capabilities message."""
    return dpb.Capabilities(
        name=capabilities.name,
        engines=[ENGINE.write(engine) for engine in capabilities.engines],
        encryption=[
            dpb.EncryptionCapability(algorithm=ENCRYPTION.write(algorithm), key_bits=key_bits)
            for algorithm, key_bits in capabilities.encryption
        ],
        integrity=[INTEGRITY.write(algorithm) for algorithm in capabilities.integrity],
        protocols=[PROTOCOL.write(protocol) for protocol in capabilities.protocols],
        modes=[MODE.write(mode) for mode in capabilities.modes],
        esn=capabilities.esn,
        udp_encapsulation=capabilities.udp_encapsulation,
        max_replay_window=capabilities.max_replay_window_packets,
        counters_survive_restart=capabilities.counters_survive_restart,
        max_sas=capabilities.max_sas,
    )


def read_capabilities(message: dpb.Capabilities) -> Capabilities:
    """Return the capabilities; what is newer than we are is left out, since we could not ask for it."""
    newer = Violations()
    encryption = ((ENCRYPTION.read(item.algorithm, "", newer), item.key_bits) for item in message.encryption)
    return Capabilities(
        name=message.name,
        engines=ENGINE.read_all(message.engines, "", "engines", newer),
        encryption=tuple((algorithm, bits) for algorithm, bits in encryption if algorithm is not None),
        integrity=INTEGRITY.read_all(message.integrity, "", "integrity", newer),
        protocols=PROTOCOL.read_all(message.protocols, "", "protocols", newer),
        modes=MODE.read_all(message.modes, "", "modes", newer),
        esn=message.esn,
        udp_encapsulation=message.udp_encapsulation,
        max_replay_window_packets=message.max_replay_window,
        counters_survive_restart=message.counters_survive_restart,
        max_sas=message.max_sas if message.HasField("max_sas") else None,
    )


def write_installed_sa(installed: InstalledSa) -> dpb.InstalledSa:
    """Return one SA as the datapath holds it, without keys."""
    return dpb.InstalledSa(
        sa_id=installed.sa.sa_id,
        sa=write_sa(installed.sa, with_keys=False),
        placement=ENGINE.write(installed.placement),
        placement_reason=installed.placement_reason,
        generation=installed.generation,
        effective_mtu=installed.effective_mtu or 0,
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
        generation=message.generation,
        effective_mtu=message.effective_mtu or None,
    )


def write_drops(drops: Mapping[DropReason, int]) -> list[spb.DropCount]:
    """Return drop counters by reason."""
    return [spb.DropCount(reason=DROP_REASON.write(reason), packets=n) for reason, n in drops.items()]


def read_drops(messages: Iterable[spb.DropCount]) -> dict[DropReason, int]:
    """Return drop counters by reason, without reasons newer than we are."""
    counts = ((DROP_REASON.read(item.reason, "", Violations()), item.packets) for item in messages)
    return {reason: packets for reason, packets in counts if reason is not None}


def write_counters(counters: Counters) -> dpb.GetCountersResponse:
    """Return all counters."""
    return dpb.GetCountersResponse(
        sas=[
            dpb.SaCounters(
                sa_id=sa.sa_id,
                packets=sa.packets,
                bytes=sa.bytes,
                sequence=sa.sequence,
                drops=write_drops(sa.drops),
                idle=None if sa.last_used_s_ago is None else write_duration(sa.last_used_s_ago),
            )
            for sa in counters.sas
        ],
        drops=write_drops(counters.drops),
    )


def read_counters(message: dpb.GetCountersResponse) -> Counters:
    """Return all counters."""
    return Counters(
        sas=tuple(
            SaCounters(
                sa_id=SaId(sa.sa_id),
                packets=sa.packets,
                bytes=sa.bytes,
                sequence=sa.sequence,
                drops=read_drops(sa.drops),
                last_used_s_ago=sa.idle.seconds + sa.idle.nanos / 1e9 if sa.HasField("idle") else None,
            )
            for sa in message.sas
        ),
        drops=read_drops(message.drops),
    )


# --- events -------------------------------------------------------------------------------------


def write_endpoint(address: IpAddress, port: int) -> dpb.Endpoint:
    """Return an outer address with its port."""
    return dpb.Endpoint(address=str(address), port=port)


def write_datapath_event(event: DatapathEvent, unix_s: float) -> dpb.DatapathEvent:
    """Return an event message, stamped with `unix_s`."""
    message = dpb.DatapathEvent(time=write_timestamp(unix_s))
    match event:
        case Acquire():
            message.acquire.CopyFrom(
                dpb.Acquire(
                    policy=event.policy,
                    source=str(event.source),
                    destination=str(event.destination),
                    protocol=event.protocol,
                    source_port=event.source_port,
                    destination_port=event.destination_port,
                )
            )
        case SoftExpire():
            message.soft_expire.CopyFrom(dpb.Expire(sa_id=event.sa_id, spi=event.spi, limit=event.limit))
        case HardExpire():
            message.hard_expire.CopyFrom(dpb.Expire(sa_id=event.sa_id, spi=event.spi, limit=event.limit))
        case BadSpi():
            message.bad_spi.CopyFrom(
                dpb.BadSpi(spi=event.spi, source=str(event.source), destination=str(event.destination))
            )
        case MappingChange():
            message.mapping_change.CopyFrom(
                dpb.MappingChange(
                    sa_id=event.sa_id,
                    spi=event.spi,
                    old=write_endpoint(*event.old),
                    new=write_endpoint(*event.new),
                )
            )
        case PlacementChange():
            message.placement_change.CopyFrom(
                dpb.PlacementChange(
                    sa_id=event.sa_id,
                    old=ENGINE.write(event.old),
                    new=ENGINE.write(event.new),
                    reason=event.reason,
                )
            )
        case SasLost():
            message.sas_lost.CopyFrom(dpb.SasLost(sa_ids=event.sa_ids, reason=event.reason))
    return message


def read_datapath_event(message: dpb.DatapathEvent) -> DatapathEvent | None:
    """Return the event, or `None` for a kind that is newer than we are.

    Raises:
        InvalidArgument: The datapath sent nonsense.
    """
    violations = Violations()
    event = _read_event(message, violations)
    violations.raise_if_any()
    return event


def _read_event(message: dpb.DatapathEvent, violations: Violations) -> DatapathEvent | None:
    kind = message.WhichOneof("event")
    match kind:
        case "acquire":
            source = read_address(message.acquire.source, "acquire.source", violations)
            destination = read_address(message.acquire.destination, "acquire.destination", violations)
            if source is None or destination is None:
                return None
            return Acquire(
                policy=message.acquire.policy,
                source=source,
                destination=destination,
                protocol=message.acquire.protocol,
                source_port=message.acquire.source_port,
                destination_port=message.acquire.destination_port,
            )
        case "soft_expire":
            soft = message.soft_expire
            return SoftExpire(sa_id=SaId(soft.sa_id), spi=Spi(soft.spi), limit=soft.limit)
        case "hard_expire":
            hard = message.hard_expire
            return HardExpire(sa_id=SaId(hard.sa_id), spi=Spi(hard.spi), limit=hard.limit)
        case "bad_spi":
            source = read_address(message.bad_spi.source, "bad_spi.source", violations)
            destination = read_address(message.bad_spi.destination, "bad_spi.destination", violations)
            if source is None or destination is None:
                return None
            return BadSpi(spi=Spi(message.bad_spi.spi), source=source, destination=destination)
        case "mapping_change":
            mapping = message.mapping_change
            old = read_address(mapping.old.address, "mapping_change.old.address", violations)
            new = read_address(mapping.new.address, "mapping_change.new.address", violations)
            if old is None or new is None:
                return None
            return MappingChange(
                sa_id=SaId(mapping.sa_id),
                spi=Spi(mapping.spi),
                old=(old, mapping.old.port),
                new=(new, mapping.new.port),
            )
        case "placement_change":
            change = message.placement_change
            old_engine = ENGINE.read(change.old, "placement_change.old", violations)
            new_engine = ENGINE.read(change.new, "placement_change.new", violations)
            if old_engine is None or new_engine is None:
                return None
            return PlacementChange(
                sa_id=SaId(change.sa_id), old=old_engine, new=new_engine, reason=change.reason
            )
        case "sas_lost":
            lost = message.sas_lost
            return SasLost(sa_ids=tuple(SaId(sa_id) for sa_id in lost.sa_ids), reason=lost.reason)
        case _:
            return None
