"""The bridge between the control service's messages and the records of `gateway.controller.facade`.

Only the way out: what comes in are connections (`convert_connection`) and targets.
"""

from collections.abc import Iterable
from typing import Final

from google.protobuf import timestamp_pb2

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.convert import (
    ENGINE,
    MODE,
    PROTOCOL,
    EnumBridge,
    write_placement,
    write_refusals,
    write_timestamp,
)
from gateway.api.convert_connection import strength_warnings, write_connection
from gateway.api.convert_datapath import write_capabilities, write_datapath_event, write_drops, write_endpoint
from gateway.api.datapath.v1.datapath_pb2 import Endpoint
from gateway.api.remembered import WrittenOnce
from gateway.api.types.v1 import status_pb2 as spb
from gateway.api.violations import Violations, at
from gateway.controller.facade import (
    NO_IMPACT,
    Applied,
    ApplyResult,
    ChildSaStatus,
    ClockReading,
    Condition,
    ConditionStatus,
    ConditionType,
    ConnectionApplied,
    ConnectionState,
    ConnectionStatus,
    ControlEvent,
    DatapathAvailability,
    Fact,
    GatewayStatus,
    Operation,
    OperationFinished,
    OperationState,
    SaPlacement,
    Target,
    Tenure,
    WantedConnection,
)
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
from gateway.ike.path import Path
from gateway.ipsec.authentication import AuthMethod
from gateway.ipsec.sa import IpsecProtocol, SecurityAssociation

APPLIED: Final = EnumBridge(Applied, pb.Applied)
CONNECTION_STATE: Final = EnumBridge(ConnectionState, pb.ConnectionState)
CONDITION_TYPE: Final = EnumBridge(ConditionType, pb.ConditionType)
CONDITION_STATUS: Final = EnumBridge(ConditionStatus, pb.ConditionStatus)
OPERATION_STATE: Final = EnumBridge(OperationState, pb.OperationState)


def read_target(message: pb.Target, violations: Violations, *, sa_ids: bool) -> Target:
    """Return what an operation is about.

    Args:
        message: The target of the request.
        violations: Where to note what is wrong.
        sa_ids: Whether the operation may also name one SA.
    """
    path = "target"
    ike_sa_id = message.ike_sa_id if message.HasField("ike_sa_id") else None
    child_sa_id = message.child_sa_id if message.HasField("child_sa_id") else None
    if message.child and not message.connection:
        violations.add(at(path, "connection"), f"is required: the connection of child '{message.child}'")
        return Target()
    named = [bool(message.connection), ike_sa_id is not None, child_sa_id is not None]
    choices = "connection, ike_sa_id or child_sa_id" if sa_ids else "connection"
    if sum(named) == 0:
        violations.add(
            path, f"is required to name one of {choices}" if sa_ids else f"is required to name a {choices}"
        )
    elif sum(named) > 1:
        violations.add(
            path, f"names more than one of {choices}" if sa_ids else "names an SA beside the connection"
        )
    elif not sa_ids and not message.connection:
        violations.add(path, "names an SA; a connection is wanted here")
    return Target(
        connection=message.connection, child=message.child, ike_sa_id=ike_sa_id, child_sa_id=child_sa_id
    )


def write_target(target: Target) -> pb.Target:
    """Return the message of a target."""
    return pb.Target(
        connection=target.connection,
        child=target.child,
        ike_sa_id=target.ike_sa_id,
        child_sa_id=target.child_sa_id,
    )


def write_failure(failure: Failure | None) -> pb.Failure | None:
    """Return the message of a failure, if there is one."""
    if failure is None:
        return None
    return pb.Failure(
        reason=failure.reason.value,
        detail=failure.detail,
        notify=failure.notify,
        offered=failure.offered,
        configured=failure.configured,
    )


def write_apply_result(result: ApplyResult, wanted: WantedConnection | None = None) -> pb.ConnectionResult:
    """Return the answer for one connection, with the warnings that its proposals deserve."""
    error = None
    if result.error is not None:
        error = spb.ItemError(reason=f"ERROR_REASON_{result.error.reason.value}", message=str(result.error))
    strength = strength_warnings(wanted.connection) if wanted is not None else ()
    return pb.ConnectionResult(
        name=result.name,
        applied=APPLIED.write(result.applied),
        error=error,
        warnings=dict.fromkeys((*result.warnings, *strength)),
        changed_fields=result.changed_fields,
        impact=write_impact([result]),
        etag=result.etag,
        generation=result.generation,
    )


def write_impact(results: Iterable[ApplyResult]) -> pb.Impact | None:
    """Return what all of these do to SAs; `None` where they do nothing."""
    touching = [result.impact for result in results if result.impact != NO_IMPACT]
    if not touching:
        return None
    names = [field.name for field in pb.Impact.DESCRIPTOR.fields]
    return pb.Impact(**{name: sum(getattr(impact, name) for impact in touching) for name in names})


def write_apply_results(
    results: Iterable[ApplyResult], wanted: Iterable[WantedConnection]
) -> list[pb.ConnectionResult]:
    """Return the answers for all connections."""
    by_name = {item.connection.name: item for item in wanted}
    return [write_apply_result(result, by_name.get(result.name)) for result in results]


def write_wanted(status: ConnectionStatus) -> cpb.Connection:
    """Return a connection as it is wanted, without its secret."""
    return write_connection(status.connection, psk_is_set=status.psk_is_set, crls_are_set=status.crls_are_set)


def write_applied(item: WantedConnection) -> cpb.Connection:
    """Return the same of a connection that was just applied, and not refused."""
    connection = item.connection
    methods = (connection.local.auth.method, connection.remote.auth.method)
    return write_connection(
        connection,
        psk_is_set=AuthMethod.PSK in methods,
        # Where none were given, those that were held were kept.
        crls_are_set=item.crls is None or bool(item.crls),
    )


def write_entry(status: ConnectionStatus, clock: ClockReading, wanted: cpb.Connection) -> pb.ConnectionEntry:
    """Return a connection and how far it is; `wanted` is what `write_wanted` made of it."""
    entry = pb.ConnectionEntry(
        connection=wanted,
        status=_written_standing(
            status.conditions,
            CONNECTION_STATE.write(status.state),
            status.observed_generation,
            round(clock.wall - clock.monotonic, 1),
        ),
        etag=status.etag,
        generation=status.generation,
    )
    if status.ike_sas or status.last_failure is not None:
        entry.status.MergeFrom(
            pb.ConnectionStatus(
                ike_sa_ids=status.ike_sas,
                child_sa_ids=status.child_sas,
                last_failure=write_failure(status.last_failure),
                last_failure_time=write_time(status.last_failure_at, clock),
            )
        )
    return entry


def _write_standing(
    conditions: tuple[Condition, ...], state: str, observed_generation: int, offset_s: float
) -> pb.ConnectionStatus:
    """Return the part of a status that connections have in common.

    Args:
        conditions: Its conditions, dated by the core's clock.
        state: Its state's protobuf name.
        observed_generation: Its generation at the datapath.
        offset_s: How far the wall clock is ahead of the core's.
    """
    return pb.ConnectionStatus(
        state=state,
        observed_generation=observed_generation,
        conditions=[
            pb.Condition(
                type=CONDITION_TYPE.write(condition.type),
                status=CONDITION_STATUS.write(condition.status),
                reason=condition.reason,
                message=condition.message,
                transition_time=write_timestamp(round(condition.changed_at + offset_s)),
            )
            for condition in conditions
        ],
    )


#: Connections that were applied together share the very same conditions.
_written_standing: Final = WrittenOnce(_write_standing)


def write_operation(operation: Operation) -> pb.Operation:
    """Return the message of an operation."""
    return pb.Operation(
        operation_id=operation.operation_id,
        verb=operation.verb,
        target=write_target(operation.target),
        state=OPERATION_STATE.write(operation.state),
        failure=write_failure(operation.failure),
    )


def write_time(at_s: float | None, clock: ClockReading) -> timestamp_pb2.Timestamp | None:
    """Return the wall-clock time of a monotonic one, to the second: finer is not the same twice."""
    return None if at_s is None else write_timestamp(_wall_s(at_s, clock))


def _wall_s(at_s: float, clock: ClockReading) -> int:
    return round(clock.wall + at_s - clock.monotonic)


def write_ike_sa(info: IkeSaInfo, clock: ClockReading, tenure: Tenure) -> pb.IkeSa:
    """Return the message of an IKE SA."""
    return pb.IkeSa(
        ike_sa_id=info.ike_sa_id,
        connection=info.connection,
        spi_i=info.spi_i.hex(),
        spi_r=info.spi_r.hex(),
        is_initiator=info.is_initiator,
        state=info.state,
        local=write_endpoint(info.path.local, info.path.local_port),
        remote=write_endpoint(info.path.remote, info.path.remote_port),
        local_id="" if info.local_id is None else str(info.local_id),
        remote_id="" if info.remote_id is None else str(info.remote_id),
        proposal="" if info.proposal is None else str(info.proposal),
        nat_local=info.nat_local,
        nat_remote=info.nat_remote,
        established_time=write_time(info.established_at, clock),
        rekey_time=write_time(info.rekey_at, clock),
        expire_time=write_time(info.expires_at, clock),
        node=tenure.node,
        owner=tenure.owner,
        generation=tenure.generation,
    )


def write_child_sa(status: ChildSaStatus, clock: ClockReading, tenure: Tenure) -> pb.ChildSa:
    """Return the message of a Child SA."""
    info = status.info
    either = info.inbound or info.outbound
    return pb.ChildSa(
        child_sa_id=info.child_sa_id,
        ike_sa_id=info.ike_sa_id,
        connection=info.connection,
        child=info.child,
        state=info.state,
        mode=None if either is None else MODE.write(either.mode),
        protocol=PROTOCOL.write(IpsecProtocol[info.proposal.protocol.name]),
        proposal=str(info.proposal),
        local_ts=[str(selector) for selector in info.local_ts],
        remote_ts=[str(selector) for selector in info.remote_ts],
        udp_encapsulation=either is not None and either.encapsulation is not None,
        interface_id=0 if either is None else either.interface_id,
        cpu=info.cpu,
        inbound=_half(info.inbound, status.inbound, status.packets_in, status.bytes_in),
        outbound=_half(info.outbound, status.outbound, status.packets_out, status.bytes_out),
        effective_mtu=status.effective_mtu or 0,
        established_time=write_time(info.established_at, clock),
        rekey_time=write_time(info.rekey_at, clock),
        expire_time=write_time(info.expires_at, clock),
        node=tenure.node,
        owner=tenure.owner,
        generation=tenure.generation,
    )


def _half(
    sa: SecurityAssociation | None, placement: SaPlacement | None, packets: int, byte_count: int
) -> pb.ChildSaHalf | None:
    if sa is None:
        return None
    return pb.ChildSaHalf(
        sa_id=sa.sa_id,
        spi=f"{sa.spi:08x}",
        packets=packets,
        bytes=byte_count,
        placement=None if placement is None else ENGINE.write(placement.engine),
        placement_reason="" if placement is None else placement.reason,
        requested=write_placement(sa.placement),
        refusals=() if placement is None else write_refusals(placement.refusals),
    )


def write_status(status: GatewayStatus) -> pb.GetStatusResponse:
    """Return the controller at a glance."""
    return pb.GetStatusResponse(
        version=status.version,
        start_time=write_timestamp(status.started_at),
        datapath_address=status.datapath_address,
        datapath=None if status.datapath is None else write_capabilities(status.datapath),
        datapath_problem=status.datapath_problem,
        connections=status.connections,
        ike_sas=status.ike_sas,
        half_open_ike_sas=status.half_open_ike_sas,
        child_sas=status.child_sas,
        ike_drops=write_drops(status.ike_drops),
        datapath_drops=write_drops(status.datapath_drops),
        warnings=status.warnings,
        node=status.node,
        desired_state=status.desired_state,
        generation=status.generation,
    )


def write_facts(facts: Iterable[Fact]) -> list[pb.Fact]:
    """Return facts for a person."""
    return [pb.Fact(topic=fact.topic, text=fact.text, advice=fact.advice) for fact in facts]


# --- events -------------------------------------------------------------------------------------


def write_event(event: ControlEvent, clock: ClockReading, tenure: Tenure) -> pb.Event:
    """Return the message of one event."""
    message = pb.Event(sequence=event.sequence, time=write_timestamp(event.at))
    match event.event:
        case IkeSaEstablished(ike_sa=ike_sa):
            message.ike_sa_established.ike_sa.CopyFrom(write_ike_sa(ike_sa, clock, tenure))
        case IkeSaRekeyed(old=old_ike_sa, new=new_ike_sa):
            message.ike_sa_rekeyed.old.CopyFrom(write_ike_sa(old_ike_sa, clock, tenure))
            message.ike_sa_rekeyed.new.CopyFrom(write_ike_sa(new_ike_sa, clock, tenure))
        case IkeSaFailed(ike_sa=ike_sa, failure=failure):
            message.ike_sa_failed.CopyFrom(
                pb.IkeSaFailed(ike_sa=write_ike_sa(ike_sa, clock, tenure), failure=write_failure(failure))
            )
        case IkeSaDeleted(ike_sa=ike_sa, failure=failure):
            message.ike_sa_deleted.CopyFrom(
                pb.IkeSaDeleted(ike_sa=write_ike_sa(ike_sa, clock, tenure), failure=write_failure(failure))
            )
        case ChildSaEstablished(child_sa=child_sa):
            message.child_sa_established.child_sa.CopyFrom(_bare_child_sa(child_sa, clock, tenure))
        case ChildSaRekeyed(old=old_child_sa, new=new_child_sa):
            message.child_sa_rekeyed.old.CopyFrom(_bare_child_sa(old_child_sa, clock, tenure))
            message.child_sa_rekeyed.new.CopyFrom(_bare_child_sa(new_child_sa, clock, tenure))
        case ChildSaFailed() as failed:
            message.child_sa_failed.CopyFrom(
                pb.ChildSaFailed(
                    ike_sa_id=failed.ike_sa_id,
                    connection=failed.connection,
                    child=failed.child,
                    failure=write_failure(failed.failure),
                    replaces=failed.replaces,
                )
            )
        case ChildSaDeleted(child_sa=child_sa, failure=failure):
            message.child_sa_deleted.CopyFrom(
                pb.ChildSaDeleted(
                    child_sa=_bare_child_sa(child_sa, clock, tenure), failure=write_failure(failure)
                )
            )
        case PathChanged(ike_sa=ike_sa, old=old_path, new=new_path):
            message.path_changed.CopyFrom(
                pb.PathChanged(
                    ike_sa=write_ike_sa(ike_sa, clock, tenure), old=_peer(old_path), new=_peer(new_path)
                )
            )
        case ConnectionApplied(name=name, applied=applied):
            message.connection_applied.CopyFrom(
                pb.ConnectionApplied(connection=name, applied=APPLIED.write(applied))
            )
        case OperationFinished(operation=operation):
            message.operation_finished.operation.CopyFrom(write_operation(operation))
        case DatapathAvailability(available=available, detail=detail):
            message.datapath_availability.CopyFrom(
                pb.DatapathAvailability(available=available, detail=detail)
            )
        case datapath_event:
            message.datapath.CopyFrom(write_datapath_event(datapath_event, event.at))
    return message


def _bare_child_sa(info: ChildSaInfo, clock: ClockReading, tenure: Tenure) -> pb.ChildSa:
    return write_child_sa(ChildSaStatus(info=info), clock, tenure)


def _peer(path: Path) -> Endpoint:
    return write_endpoint(path.remote, path.remote_port)
