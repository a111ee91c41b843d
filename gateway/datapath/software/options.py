"""How a software datapath sits in its machine: names and numbers."""

from dataclasses import dataclass, field
from typing import Final

from gateway.datapath.backend import DEFAULT_MARK
from gateway.datapath.software.forwarder import ForwarderLimits

DEFAULT_TABLE: Final = 4500
DEFAULT_PREFERENCE: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareOptions:
    """Names and numbers. Two agents in one network namespace need other ones."""

    tunnel_device: str = "ipsecgw0"
    tag: str = "0"
    """Ends the name of the nftables table."""
    mark: int = DEFAULT_MARK
    """Of what is protected, and of IKE; the guard lets it pass."""
    table: int = DEFAULT_TABLE
    """Routing table of the protected prefixes."""
    first_preference: int = DEFAULT_PREFERENCE
    """Of the policy rules that lead there."""
    udp_ports: tuple[int, ...] = (500, 4500)
    """Where IKE and UDP-encapsulated ESP come in; the guard lets them."""
    is_alone: bool = True
    """Not so beside a backend in the kernel: raw sockets then hear only of our own SAs' packets, and nobody
    is told of unknown SPIs."""
    limits: ForwarderLimits = field(default_factory=ForwarderLimits)

    @property
    def clear_mark(self) -> int:
        """Return the mark of what is sent on in clear: it is not steered again, but it is guarded."""
        return self.mark + 1
