"""One place where services are served, and who may use it."""

from dataclasses import dataclass

from gateway.api.address import Address, TcpAddress, TlsFiles
from gateway.api.roles import EVERY_ROLE, Role
from gateway.ipsec.errors import GatewayError


class ListenError(GatewayError):
    """A listener cannot be opened; the text says why and what to do."""


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

    def check(self) -> None:
        """Check what can be told before it is opened: that TCP has certificates, and that they can be used.

        Raises:
            ListenError: It has none.
            AddressError: They cannot be used.
        """
        if not isinstance(self.address, TcpAddress):
            return
        if self.tls is None:
            raise ListenError(
                f"listening on TCP at {self.address} needs mutual TLS: give a certificate, its key and the CA"
                " of the clients, or listen on unix:PATH"
            )
        self.tls.read()
