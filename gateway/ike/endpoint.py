"""The driving surface of the IKEv2 core: owns all IKE SAs and finds the one a datagram belongs to.

Four kinds of method and no fifth: getters; inputs (`receive`, `tick`, `resolve`, `note_traffic`, ...);
commands (`initiate`, `rekey_*`, `terminate_*`); drains (`datagrams`, `events`, `requests`,
`next_deadline`). After any input or command the caller drains everything. `now` is in seconds of a
monotonic clock and never goes back.
"""

from collections.abc import Callable, Iterable

from gateway.ike.events import (
    ChildSaId,
    ChildSaInfo,
    Event,
    IkeSaId,
    IkeSaInfo,
    Request,
    RequestId,
    Result,
)
from gateway.ike.path import Path
from gateway.ike.v2.options import EndpointOptions
from gateway.ipsec.connection import Connection
from gateway.ipsec.sa import IpAddress, Spi

__all__ = ["Endpoint", "EndpointOptions"]


class Endpoint:
    """One IKEv2 endpoint: any number of connections, in both roles."""

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        connections: Iterable[Connection] = (),
        options: EndpointOptions = EndpointOptions(),
    ) -> None:
        raise NotImplementedError

    # --- commands ---------------------------------------------------------------------------------

    def configure(self, connections: Iterable[Connection], now: float) -> None:
        """Make `connections` the whole configuration.

        A connection that is unchanged keeps its SAs; one that changed or is gone is terminated (its
        IKE SAs are deleted with the peer). Bringing up what is new is the caller's decision.
        """
        raise NotImplementedError

    def initiate(
        self, connection: str, child: str | None, now: float, *, local: IpAddress | None = None
    ) -> IkeSaId:
        """Bring up an IKE SA for `connection`, and `child` with it; return the IKE SA that does it.

        Idempotent: an IKE SA of the connection that is up or coming up is used, and a Child SA that is
        up or coming up is left alone. `child=None` brings up the IKE SA alone (RFC 6023 is not spoken:
        the first configured Child comes up with it where there is one).

        Args:
            connection: Name of a configured connection.
            child: Name of one of its children, or None.
            now: The time.
            local: Our address, where the connection leaves it to the kernel.

        Raises:
            LocalError: No such connection or child, or no address to send to.
        """
        raise NotImplementedError

    def rekey_ike(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Replace an IKE SA by a new one (RFC 7296 §1.3.2)."""
        raise NotImplementedError

    def rekey_child(self, child_sa_id: ChildSaId, now: float) -> None:
        """Replace a Child SA by a new one (RFC 7296 §1.3.3); a no-op while that is under way."""
        raise NotImplementedError

    def terminate_ike(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Delete an IKE SA and its Child SAs with the peer; events follow when it is done."""
        raise NotImplementedError

    def terminate_child(self, child_sa_id: ChildSaId, now: float) -> None:
        """Delete a Child SA with the peer; `ChildSaDeleted` follows when it is done."""
        raise NotImplementedError

    def check_liveness(self, ike_sa_id: IkeSaId, now: float) -> None:
        """Ask the peer for a sign of life now (an empty INFORMATIONAL request, RFC 7296 §2.4)."""
        raise NotImplementedError

    # --- inputs -----------------------------------------------------------------------------------

    def receive(self, datagram: bytes, path: Path, now: float) -> None:
        """Take one IKE datagram (without the non-ESP marker); never raises for what a stranger sends."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Do whatever is due at `now`; call it at `next_deadline()` at the latest."""
        raise NotImplementedError

    def resolve(self, request_id: RequestId, result: Result, now: float) -> None:
        """Answer a request of `requests()`; one that was given up meanwhile is ignored.

        What comes too late is not lost: an SPI or SA that arrives after its exchange ended is given
        back with `RemoveSas` where there is something to remove.

        Raises:
            LocalError: The result does not fit the request.
        """
        raise NotImplementedError

    def note_traffic(self, child_sa_id: ChildSaId, now: float) -> None:
        """Say that an authenticated packet arrived on the inbound SA: the peer lives, and uses this SA."""
        raise NotImplementedError

    def soft_expire(self, spi: Spi, now: float) -> None:
        """Say that the SA with this SPI, inbound or outbound, reached a soft limit at the datapath."""
        raise NotImplementedError

    def expire_child(self, child_sa_id: ChildSaId, now: float) -> None:
        """Say that a Child SA reached a hard limit or was lost: it is deleted with the peer."""
        raise NotImplementedError

    def mapping_changed(self, child_sa_id: ChildSaId, remote: IpAddress, port: int, now: float) -> None:
        """Say that authenticated ESP of this Child SA came from another address or port (NAT rebinding)."""
        raise NotImplementedError

    # --- drains -----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `tick` must be called next; None: not before another input or command."""
        raise NotImplementedError

    def datagrams(self) -> list[tuple[Path, bytes]]:
        """Return the datagrams to send, in order, and forget them. An empty-SPI keepalive is one byte 0xFF."""
        raise NotImplementedError

    def requests(self) -> list[Request]:
        """Return the requests that are new since the last call."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """Return the events since the last call, in order."""
        raise NotImplementedError

    # --- getters ----------------------------------------------------------------------------------

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """Return every IKE SA, oldest first."""
        raise NotImplementedError

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """Return every Child SA, oldest first."""
        raise NotImplementedError

    def find_child_sa(self, spi: Spi) -> ChildSaId | None:
        """Return the Child SA that has this SPI, inbound or outbound; inbound wins."""
        raise NotImplementedError
