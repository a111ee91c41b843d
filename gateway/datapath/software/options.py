"""How a software datapath sits in its machine: names and numbers."""

from dataclasses import dataclass, field
from typing import Final

from gateway.datapath.protection import ProtectionOptions
from gateway.datapath.software.forwarder import ForwarderLimits

DEFAULT_PROTECTION: Final = ProtectionOptions(
    tunnel_device="ipsecgw0", tag="0", table=4500, first_preference=5000, routing_protocol=45
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareOptions:
    """Names and numbers. Two agents in one network namespace need other ones."""

    protection: ProtectionOptions = DEFAULT_PROTECTION
    is_alone: bool = True
    """Not so beside a backend in the kernel: raw sockets then hear only of our own SAs' packets, and nobody
    is told of unknown SPIs."""
    limits: ForwarderLimits = field(default_factory=ForwarderLimits)
