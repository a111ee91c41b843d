"""What the machine refused, and what to do about it."""

from gateway.ipsec.errors import GatewayError


class HostError(GatewayError):
    """The kernel or a tool of this machine refused something; the text says what to do next."""


class PortInUseError(HostError):
    """Another process has a UDP port that the gateway needs.

    Attributes:
        address: The address that was to be bound.
        port: The port.
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__(
            f"UDP port {port} on {address} is in use by another process: "
            f"find it with `ss -lunp 'sport = :{port}'` and stop it"
        )
        self.address = address
        self.port = port


class MissingCapabilityError(HostError):
    """This process lacks a capability.

    Attributes:
        missing: Names of the capabilities, as capabilities(7) spells them.
    """

    def __init__(self, missing: tuple[str, ...], purpose: str) -> None:
        names = " and ".join(missing)
        super().__init__(
            f"{purpose} needs {names}: run it as root, or give the service "
            f"AmbientCapabilities={' '.join(missing)}"
        )
        self.missing = missing
