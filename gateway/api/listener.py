"""One place where services are served, and who may use it."""

from dataclasses import dataclass

from gateway.api.address import Address, TlsFiles
from gateway.api.roles import EVERY_ROLE, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One place to listen at."""

    address: Address
    mode: int = 0o600
    """Of a Unix socket: who may write to it may use the service."""
    owner: int | str | None = None
    """Owner of a Unix socket, by ID or name; `None` leaves the process's user."""
    group: int | str | None = None
    """Group of a Unix socket, by ID or name; `None` leaves the process's group."""
    roles: frozenset[Role] = EVERY_ROLE
    """What everybody may do who can write to a Unix socket; at a TCP port certificates tell."""
    tls: TlsFiles | None = None
    """Of a TCP port, which must have it."""
