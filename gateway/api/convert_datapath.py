"""The bridge for what a datapath tells: capabilities, counters and events.

Readers leave out what is newer than we are: an engine, an algorithm or an event that we could not use.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.api.convert import (
    DROP_REASON,
    ENCRYPTION,
    ENGINE,
    INTEGRITY,
    MODE,
    PLACEMENT_REASON,
    PROTOCOL,
    read_address,
    read_item_result,
    write_duration,
    write_item_result,
    write_timestamp,
)
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.types.v1 import status_pb2 as spb
from gateway.api.violations import Violations
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Capabilities,
    Counters,
    DatapathEvent,
    HardExpire,
    ItemResult,
    MappingChange,
    PlacementChange,
    SaCounters,
    SasLost,
    SoftExpire,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpAddress, SaId, Spi


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
        cpus=capabilities.cpus,
        io_methods=capabilities.io_methods,
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
        cpus=message.cpus,
        io_methods=tuple(message.io_methods),
    )


def write_drops(drops: Mapping[DropReason, int]) -> list[spb.DropCount]:
    """Return drop counters by reason."""
    return [spb.DropCount(reason=DROP_REASON.write(reason), packets=n) for reason, n in drops.items()]


def read_drops(messages: Iterable[spb.DropCount]) -> dict[DropReason, int]:
    """Return drop counters by reason, without reasons newer than we are."""
    counts = ((DROP_REASON.read(item.reason, "", Violations()), item.packets) for item in messages)
    return {reason: packets for reason, packets in counts if reason is not None}


def write_sa_counters(counted: SaCounters) -> dpb.SaCounters:
    """Return the counters of one SA."""
    return dpb.SaCounters(
        sa_id=counted.sa_id,
        packets=counted.packets,
        bytes=counted.bytes,
        sequence=counted.sequence,
        drops=write_drops(counted.drops),
        idle=None if counted.last_used_s_ago is None else write_duration(counted.last_used_s_ago),
    )


def read_sa_counters(message: dpb.SaCounters) -> SaCounters:
    """Return the counters of one SA."""
    return SaCounters(
        sa_id=SaId(message.sa_id),
        packets=message.packets,
        bytes=message.bytes,
        sequence=message.sequence,
        drops=read_drops(message.drops),
        last_used_s_ago=message.idle.seconds + message.idle.nanos / 1e9 if message.HasField("idle") else None,
    )


def write_counters(counters: Counters) -> dpb.GetCountersResponse:
    """Return all counters."""
    return dpb.GetCountersResponse(
        sas=[write_sa_counters(sa) for sa in counters.sas], drops=write_drops(counters.drops)
    )


def read_counters(message: dpb.GetCountersResponse) -> Counters:
    """Return all counters."""
    return Counters(sas=tuple(read_sa_counters(sa) for sa in message.sas), drops=read_drops(message.drops))


def write_removed(results: Sequence[ItemResult]) -> dpb.RemoveSasResponse:
    """Return the answer for SAs that were removed."""
    return dpb.RemoveSasResponse(
        results=[write_item_result(result) for result in results],
        counters=[write_sa_counters(result.counters) for result in results if result.counters is not None],
    )


def read_removed(message: dpb.RemoveSasResponse) -> tuple[ItemResult, ...]:
    """Return the answer for SAs that were removed."""
    counted = {sa.sa_id: read_sa_counters(sa) for sa in message.counters}
    results = (read_item_result(result) for result in message.results)
    return tuple(replace(result, counters=counted.get(result.name)) for result in results)


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
                dpb.BadSpi(
                    spi=event.spi,
                    source=str(event.source),
                    destination=str(event.destination),
                    protocol=PROTOCOL.write(event.protocol),
                )
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
                    why=None if event.why is None else PLACEMENT_REASON.write(event.why),
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
            protocol = PROTOCOL.read(message.bad_spi.protocol, "bad_spi.protocol", violations)
            if source is None or destination is None or protocol is None:
                return None
            return BadSpi(
                protocol=protocol, spi=Spi(message.bad_spi.spi), source=source, destination=destination
            )
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
                sa_id=SaId(change.sa_id),
                old=old_engine,
                new=new_engine,
                reason=change.reason,
                why=PLACEMENT_REASON.read(change.why, "", Violations()) if change.why else None,
            )
        case "sas_lost":
            lost = message.sas_lost
            return SasLost(sa_ids=tuple(SaId(sa_id) for sa_id in lost.sa_ids), reason=lost.reason)
        case _:
            return None
