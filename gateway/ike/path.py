"""The addresses and ports of one datagram, seen from this gateway."""

from dataclasses import dataclass

from gateway.ipsec.sa import IpAddress

IKE_PORT = 500
NAT_T_PORT = 4500


@dataclass(frozen=True, slots=True)
class Path:
    """Where a datagram came from or goes to. On port 4500 the non-ESP marker is the shell's business."""

    local: IpAddress
    local_port: int
    remote: IpAddress
    remote_port: int
