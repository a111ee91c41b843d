"""The IKE exceptions: `LocalError` (we were misused) and `PeerError` (the peer broke the RFC)."""

from gateway.ipsec.errors import GatewayError


class IkeError(GatewayError):
    """Root of everything `gateway.ike` raises."""


class LocalError(IkeError):
    """The caller asked for something impossible: an unknown connection, an IKE SA that is gone, ..."""


class PeerError(IkeError):
    """The peer broke the protocol or was refused.

    Attributes:
        notify: The notify message type to answer with (RFC 7296 §3.10.1), or None for none.
        data: Notification data that goes with it.
    """

    def __init__(self, message: str, notify: int | None = None, data: bytes = b"") -> None:
        super().__init__(message)
        self.notify = notify
        self.data = data


class InvalidSyntax(PeerError):
    """The message is malformed: a length, count or value that RFC 7296 does not allow (INVALID_SYNTAX)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, notify=7)
