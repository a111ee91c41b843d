"""What the ESP core raises: packets it drops, and SAs it cannot carry."""

from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.errors import GatewayError


class EspError(GatewayError):
    """Root of everything `gateway.esp` raises."""


class PacketDropped(EspError):
    """One packet ends here; the SA lives on.

    Attributes:
        reason: Which counter it goes to.
        detail: What was expected and what came; may be empty.
    """

    __slots__ = ("detail", "reason")

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


class UnsupportedSa(EspError, ValueError):
    """An SA this core cannot carry.

    Attributes:
        field: The field of `SecurityAssociation` that is in the way.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
