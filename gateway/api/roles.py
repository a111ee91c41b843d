"""Who may call what: roles, which a Unix socket has by its name and a client's certificate by its names.

A certificate carries a role as a URI among its subject alternative names: `urn:ipsecgw:role:operator`. One
without any may ask for health and nothing else. A method that is not in the table needs the highest role of
its service, so that a new one is never open by oversight.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.api.bench.v1 import generator_pb2
from gateway.api.control.v1 import control_pb2
from gateway.api.datapath.v1 import datapath_pb2
from gateway.api.log.v1 import log_pb2
from gateway.ipsec.errors import GatewayError


class Role(Enum):
    """What a client may do; the value is its name in certificates, options and logs."""

    VIEWER = "viewer"
    """See connections, SAs, policies and events: never a secret."""
    OPERATOR = "operator"
    """Also bring connections up and down, and rekey."""
    ADMIN = "admin"
    """Also change what is configured."""
    DATAPATH = "datapath"
    """Install SAs with their keys, and policies: a controller, or an orchestrator with keys of its own."""
    BENCH = "bench"
    """Have a generator of test traffic send and count, and nothing else."""


EVERY_ROLE: Final = frozenset(Role)

URI_PREFIX: Final = "urn:ipsecgw:role:"

_INCLUDED: Final[Mapping[Role, frozenset[Role]]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.VIEWER, Role.OPERATOR}),
    Role.ADMIN: frozenset({Role.VIEWER, Role.OPERATOR, Role.ADMIN}),
    Role.DATAPATH: frozenset({Role.VIEWER, Role.DATAPATH}),
    Role.BENCH: frozenset({Role.BENCH}),
}

CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name
DATAPATH: Final = datapath_pb2.DESCRIPTOR.services_by_name["DatapathService"].full_name
GENERATOR: Final = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
LOG: Final = log_pb2.DESCRIPTOR.services_by_name["LogService"].full_name

_HIGHEST: Final[Mapping[str, Role]] = {
    CONTROL: Role.ADMIN,
    DATAPATH: Role.DATAPATH,
    GENERATOR: Role.BENCH,
    LOG: Role.ADMIN,
}

_NEEDED: Final[Mapping[str, Mapping[str, Role]]] = {
    CONTROL: {
        "ListConnections": Role.VIEWER,
        "GetConnection": Role.VIEWER,
        "GetOperation": Role.VIEWER,
        "ListIkeSas": Role.VIEWER,
        "ListChildSas": Role.VIEWER,
        "GetStatus": Role.VIEWER,
        "Explain": Role.VIEWER,
        "WatchEvents": Role.VIEWER,
        "WatchConnections": Role.VIEWER,
        "Initiate": Role.OPERATOR,
        "Terminate": Role.OPERATOR,
        "Rekey": Role.OPERATOR,
        "ApplyConnections": Role.ADMIN,
        "StreamConnections": Role.ADMIN,
        "ExportKeys": Role.ADMIN,
        "DeleteConnections": Role.ADMIN,
    },
    DATAPATH: {
        "GetCapabilities": Role.VIEWER,
        "ListSas": Role.VIEWER,
        "ListPolicies": Role.VIEWER,
        "GetCounters": Role.VIEWER,
        # Whoever watches a datapath keeps its SAs alive: that is for those who install them.
        "WatchEvents": Role.DATAPATH,
    },
    LOG: {"GetLogLevels": Role.VIEWER},
}


class AccessError(GatewayError):
    """The client's roles do not allow a call; the text says which would."""


def role_needed(method: str) -> Role:
    """Return the role that `/package.Service/Method` of our services needs."""
    service, _, name = method.removeprefix("/").partition("/")
    return _NEEDED.get(service, {}).get(name, _HIGHEST.get(service, Role.ADMIN))


def is_mutating(method: str) -> bool:
    """Say whether a call can change something: such calls are audited."""
    return role_needed(method) is not Role.VIEWER and not method.endswith("/WatchEvents")


def allows(roles: Iterable[Role], needed: Role) -> bool:
    """Say whether one of `roles` is or includes `needed`."""
    return any(needed in _INCLUDED[role] for role in roles)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a name for the audit log, and the roles it has here."""

    name: str
    roles: frozenset[Role]

    def require(self, method: str) -> None:
        """Check that it may call a method.

        Raises:
            AccessError: It may not.
        """
        needed = role_needed(method)
        if not allows(self.roles, needed):
            has = ", ".join(sorted(role.value for role in self.roles)) or "no role"
            call = method.rpartition("/")[2]
            raise AccessError(
                f"{call} needs the role {needed.value}; {self.name} has {has}: use the socket of that role, "
                f"or a certificate with the URI {URI_PREFIX}{needed.value} among its names"
            )


def caller_by_certificate(properties: Mapping[str, Iterable[bytes]]) -> Caller:
    """Return who a TLS client is, by the properties that gRPC has read from its verified certificate."""
    names = [name.decode(errors="replace") for name in properties.get("x509_subject_alternative_name", ())]
    common = [name.decode(errors="replace") for name in properties.get("x509_common_name", ())]
    by_value = {role.value: role for role in Role}
    roles = frozenset(
        by_value[name.removeprefix(URI_PREFIX)]
        for name in names
        if name.startswith(URI_PREFIX) and name.removeprefix(URI_PREFIX) in by_value
    )
    known_as = next(iter(common), "") or next((n for n in names if not n.startswith(URI_PREFIX)), "")
    return Caller(f"certificate:{known_as or '(no name)'}", roles)
