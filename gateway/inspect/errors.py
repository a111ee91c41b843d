"""What makes an inspection impossible, as opposed to what it finds."""

from gateway.ipsec.errors import GatewayError


class InspectError(GatewayError):
    """An input cannot be used: not a capture, not a key table, not there."""
