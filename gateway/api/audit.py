"""The audit log: one line for every call that can change something, with who, what and how it ended.

It goes through the subsystem `audit` at INFO. Names are logged, contents are not: requests carry keys.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from gateway.api.control.v1 import control_pb2 as cpb
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.log.v1 import log_pb2 as lpb
from gateway.observe.logs import get_logger

MAX_NAMES: Final = 20
"""Of one call; how many more there were is told."""

_log = get_logger("audit")


class Asked:
    """What one call was about: of its request, or of all that came on its stream."""

    def __init__(self, request: Message | None = None) -> None:
        self._names: list[str] = []
        self._count = 0
        if request is not None:
            self.add(request)

    def add(self, request: Message) -> None:
        """Take note of a request."""
        names = _what(request)
        self._count += len(names)
        self._names += names[: MAX_NAMES - len(self._names)]

    def shown(self) -> list[str]:
        """Return the names that are logged, and how many are not."""
        more = self._count - len(self._names)
        return [*self._names, *([f"+{more}"] if more else [])]


def audit(caller: str, method: str, asked: Asked, outcome: str) -> None:
    """Write the line of one call."""
    _log.info("call", who=caller, method=method.rpartition("/")[2], what=asked.shown(), outcome=outcome)


def _what(request: Message) -> Sequence[str]:
    describe = _DESCRIBE.get(type(request))
    return [] if describe is None else describe(request)


def _applied(request: cpb.ApplyConnectionsRequest | cpb.StreamConnectionsRequest) -> list[str]:
    flags = [name for name in ("validate_only", "prune") if getattr(request, name)]
    return [*flags, *(connection.name for connection in request.connections)]


def _deleted(request: cpb.DeleteConnectionsRequest) -> list[str]:
    return [*(["validate_only"] if request.validate_only else []), *request.names]


def _target(request: cpb.InitiateRequest | cpb.TerminateRequest | cpb.RekeyRequest) -> list[str]:
    target = request.target
    named = [
        *([target.connection] if target.connection else []),
        *([f"child {target.child}"] if target.child else []),
        *([f"IKE SA {target.ike_sa_id}"] if target.HasField("ike_sa_id") else []),
        *([f"Child SA {target.child_sa_id}"] if target.HasField("child_sa_id") else []),
    ]
    return [*named, *(["reauthenticate"] if getattr(request, "reauthenticate", False) else [])]


def _installed(request: dpb.InstallSasRequest) -> list[str]:
    return [f"{sa.connection}/{sa.child} SPI {sa.spi:08x}" for sa in request.sas]


# Each takes the message it stands for.
_DESCRIBE: Final[Mapping[type[Message], Callable[[Any], list[str]]]] = {
    cpb.ApplyConnectionsRequest: _applied,
    cpb.StreamConnectionsRequest: _applied,
    cpb.ExportKeysRequest: lambda request: [request.connection],
    cpb.DeleteConnectionsRequest: _deleted,
    cpb.InitiateRequest: _target,
    cpb.TerminateRequest: _target,
    cpb.RekeyRequest: _target,
    dpb.AllocateSpisRequest: lambda request: [f"{request.count} SPIs"],
    dpb.InstallSasRequest: _installed,
    dpb.RemoveSasRequest: lambda request: list(request.sa_ids),
    dpb.ApplyPoliciesRequest: lambda request: [policy.name for policy in request.policies],
    dpb.RemovePoliciesRequest: lambda request: list(request.names),
    lpb.SetLogLevelsRequest: lambda request: [request.levels],
    dpb.ReconcileRequest: lambda request: [f"generation {request.generation}"],
}
