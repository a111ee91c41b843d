"""The core's events as log lines: one line, one fact, always with connection, SPIs and peer."""

from collections.abc import Callable

from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaInfo,
    ChildSaRekeyed,
    DatagramDropped,
    Event,
    Failure,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaId,
    IkeSaInfo,
    IkeSaRekeyed,
    PathChanged,
)
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

#: Ends that an operator expects; the others are warnings.
_ORDERLY = frozenset(
    {FailureReason.DELETED_BY_OPERATOR, FailureReason.DELETED_BY_PEER, FailureReason.REPLACED}
)

Fields = dict[str, object]


def ike_fields(ike_sa: IkeSaInfo) -> Fields:
    """Return what every line about an IKE SA carries."""
    return {
        "connection": ike_sa.connection,
        "ike_spi_i": ike_sa.spi_i.hex(),
        "ike_spi_r": ike_sa.spi_r.hex(),
        "peer": f"{ike_sa.path.remote}:{ike_sa.path.remote_port}"
        if ike_sa.path.remote.version == 4
        else f"[{ike_sa.path.remote}]:{ike_sa.path.remote_port}",
        "role": "initiator" if ike_sa.is_initiator else "responder",
    }


def child_fields(child_sa: ChildSaInfo) -> Fields:
    """Return what every line about a Child SA carries, beside the fields of its IKE SA."""
    return {
        "child": child_sa.child,
        "spi_in": "" if child_sa.inbound is None else f"{child_sa.inbound.spi:08x}",
        "spi_out": "" if child_sa.outbound is None else f"{child_sa.outbound.spi:08x}",
    }


def failure_fields(failure: Failure) -> Fields:
    """Return what is known of a failure; empty parts are left out."""
    fields: Fields = {"reason": failure.reason.value, "detail": failure.detail}
    for name in ("notify", "offered", "configured"):
        value = getattr(failure, name)
        if value:
            fields[name] = value
    return fields


class Report:
    """Writes the log lines.

    Args:
        find_ike_sa: Looks up the IKE SA of a Child SA; None when it is gone.
    """

    def __init__(self, find_ike_sa: Callable[[IkeSaId], IkeSaInfo | None]) -> None:
        self._find_ike_sa = find_ike_sa
        # A deleted IKE SA is told after its Child SAs, but may be forgotten by the core before.
        self._known: dict[IkeSaId, IkeSaInfo] = {}

    def on_event(self, event: Event) -> None:
        """Write the line of one event, if it has one."""
        match event:
            case IkeSaEstablished(ike_sa=ike_sa):
                self._known[ike_sa.ike_sa_id] = ike_sa
                _log.info(
                    "ike_sa_established",
                    **ike_fields(ike_sa),
                    proposal=str(ike_sa.proposal),
                    local_id=str(ike_sa.local_id),
                    remote_id=str(ike_sa.remote_id),
                    nat=ike_sa.nat_local or ike_sa.nat_remote,
                )
            case IkeSaRekeyed(old=old, new=new):
                self._known[new.ike_sa_id] = new
                _log.info(
                    "ike_sa_rekeyed",
                    **ike_fields(new),
                    old_ike_spi_i=old.spi_i.hex(),
                    old_ike_spi_r=old.spi_r.hex(),
                )
            case IkeSaFailed(ike_sa=ike_sa, failure=failure):
                self._known.pop(ike_sa.ike_sa_id, None)
                # A stranger can make us fail as responder: that is for the debug log and the counters.
                is_ours = ike_sa.is_initiator or bool(ike_sa.connection)
                line = _log.warning if is_ours else _log.debug
                line("ike_sa_failed", **ike_fields(ike_sa), **failure_fields(failure))
            case IkeSaDeleted(ike_sa=ike_sa, failure=failure):
                self._known.pop(ike_sa.ike_sa_id, None)
                line = _log.info if failure.reason in _ORDERLY else _log.warning
                line("ike_sa_deleted", **ike_fields(ike_sa), **failure_fields(failure))
            case ChildSaEstablished(child_sa=child_sa):
                _log.info(
                    "child_sa_established",
                    **self._of_child(child_sa),
                    proposal=str(child_sa.proposal),
                    local_ts=[str(ts) for ts in child_sa.local_ts],
                    remote_ts=[str(ts) for ts in child_sa.remote_ts],
                )
            case ChildSaRekeyed(old=old_child, new=new_child):
                was = child_fields(old_child)
                _log.info(
                    "child_sa_rekeyed",
                    **self._of_child(new_child),
                    old_spi_in=was["spi_in"],
                    old_spi_out=was["spi_out"],
                )
            case ChildSaFailed(ike_sa_id=ike_sa_id, connection=connection, child=child, failure=failure):
                ike_sa_found = self._ike_sa(ike_sa_id)
                fields = {"connection": connection} if ike_sa_found is None else ike_fields(ike_sa_found)
                _log.warning(
                    "child_sa_failed" if event.replaces is None else "child_sa_rekey_failed",
                    **fields,
                    child=child,
                    **failure_fields(failure),
                )
            case ChildSaDeleted(child_sa=child_sa, failure=failure):
                line = _log.info if failure.reason in _ORDERLY else _log.warning
                line("child_sa_deleted", **self._of_child(child_sa), **failure_fields(failure))
            case PathChanged(ike_sa=ike_sa, old=old_path):
                self._known[ike_sa.ike_sa_id] = ike_sa
                _log.info(
                    "peer_moved", **ike_fields(ike_sa), old_peer=f"{old_path.remote}:{old_path.remote_port}"
                )
            case _:
                pass

    def on_dropped(self, event: DatagramDropped) -> None:
        """Write the line of a dropped datagram, for a developer; a flood of them costs next to nothing."""
        _log.debug("ike_dropped", reason=event.reason.value, peer=event.path.remote, detail=event.detail)

    def _of_child(self, child_sa: ChildSaInfo) -> Fields:
        ike_sa = self._ike_sa(child_sa.ike_sa_id)
        fields = {"connection": child_sa.connection} if ike_sa is None else ike_fields(ike_sa)
        return {**fields, **child_fields(child_sa)}

    def _ike_sa(self, ike_sa_id: IkeSaId) -> IkeSaInfo | None:
        return self._find_ike_sa(ike_sa_id) or self._known.get(ike_sa_id)
