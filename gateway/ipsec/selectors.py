"""Traffic selectors: address, protocol and port ranges, and narrowing (RFC 7296 §2.9, §3.13.1)."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

IpAddress = IPv4Address | IPv6Address

ANY_PROTOCOL = 0
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """A range of addresses of one family, an IP protocol (0: any) and a range of ports.

    For ICMP the "ports" are type * 256 + code (RFC 4301 §4.4.1.1). OPAQUE is start 65535, end 0.
    """

    start: IpAddress
    end: IpAddress
    protocol: int = ANY_PROTOCOL
    start_port: int = 0
    end_port: int = MAX_PORT

    # to be completed: parse, __str__, from_prefix, intersect, contains, prefixes, narrow
