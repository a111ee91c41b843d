"""An SA as a message for espd, and espd's words about it as ours."""

import ctypes
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason, HardExpire, SaCounters, SoftExpire
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.core import (
    EngineError,
    EventKind,
    Refusal,
    Refused,
    drops_of,
    make_params,
    put_bytes,
)
from gateway.datapath.engine.sad import Held
from gateway.ipsec.sa import SaId, SecurityAssociation

RESERVED_PACKETS: Final = 1 << 28
"""Sequence numbers that espd may use before it asks: at 6 million packets a second it asks after half a
minute, and an agent that is gone has ten seconds to come back. A sixteenth of what an SA without ESN has."""

_NS: Final = 1_000_000_000
_REASONS: Final = {
    Refusal.UNSUPPORTED: ErrorReason.ALGORITHM_UNSUPPORTED,
    Refusal.KEY: ErrorReason.KEY_LENGTH,
    Refusal.TAKEN: ErrorReason.TABLE_FULL,
    Refusal.MEMORY: ErrorReason.TABLE_FULL,
    p.ControlError.FULL: ErrorReason.TABLE_FULL,
}
_LIMITS: Final[dict[EventKind, tuple[type[SoftExpire] | type[HardExpire], str]]] = {
    EventKind.SOFT_PACKETS: (SoftExpire, "packets"),
    EventKind.SOFT_BYTES: (SoftExpire, "bytes"),
    EventKind.SOFT_SEQUENCE: (SoftExpire, "sequence"),
    EventKind.HARD_PACKETS: (HardExpire, "packets"),
    EventKind.HARD_BYTES: (HardExpire, "bytes"),
    EventKind.HARD_SEQUENCE: (HardExpire, "sequence"),
}


def sa_message(held: Held, sa: SecurityAssociation) -> p.SaMessage:
    """Return the request that installs an SA; it holds the keys of `sa`.

    Raises:
        DatapathError: espd has no room for what it says.
    """
    try:
        params = make_params(sa)
    except Refused as error:
        reason = ErrorReason.TABLE_FULL if "selectors" in str(error) else ErrorReason.KEY_LENGTH
        raise DatapathError(reason, str(error)) from error
    params.cookie = held.cookie
    if not held.is_inbound:
        params.next_sequence = 1
        params.sequence_limit = held.sequence_limit
        params.path_mtu = held.path_mtu
    note = sa.sa_id.encode()
    message = p.SaMessage(worker=p.ANY_WORKER, note_bytes=len(note), params=params)
    ctypes.memset(ctypes.byref(params), 0, ctypes.sizeof(params))
    put_bytes(message.note, note)
    return message


def refusal_of(error: EngineError) -> DatapathError:
    """Return why espd did not do something, as the datapath says it."""
    if isinstance(error, p.EspdRefused):
        reason = ErrorReason.SYSTEM if error.code is None else _REASONS.get(error.code, ErrorReason.SYSTEM)
        return DatapathError(reason, str(error))
    return DatapathError(ErrorReason.UNAVAILABLE, str(error))


def counters_of(sa_id: SaId, record: p.SaRecord) -> SaCounters:
    """Return what an SA has counted."""
    usage = record.usage
    return SaCounters(
        sa_id=sa_id,
        packets=usage.packets,
        bytes=usage.bytes,
        sequence=usage.sequence,
        drops=drops_of(usage.drops),
        last_used_s_ago=(record.now_ns - usage.last_used_ns) / _NS if usage.last_used_ns else None,
    )


def limits_of(held: Held, kinds: EventKind) -> list[SoftExpire | HardExpire]:
    """Return the limits that an SA has reached, as events."""
    return [
        event(sa_id=held.sa.sa_id, spi=held.sa.spi, limit=limit)
        for kind, (event, limit) in _LIMITS.items()
        if kinds & kind
    ]
