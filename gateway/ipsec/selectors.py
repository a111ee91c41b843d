"""Traffic selectors: address, protocol and port ranges, and narrowing (RFC 7296 §2.9, §3.13.1).

Text form, as strongSwan writes it: `10.1.0.0/16`, `10.1.0.1-10.1.0.9`, `2001:db8::/32[tcp/443]`,
`0.0.0.0/0[udp/1000-2000]`, `10.0.0.1/32[icmp/8]`, `10.0.0.1/32[icmp/3(4)]`, `10.0.0.0/8[tcp/opaque]`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)
from itertools import islice
from typing import Final

from gateway.ipsec.errors import GatewayError, VocabularyError

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

ANY_PROTOCOL: Final = 0
MAX_PORT: Final = 65535
MAX_SELECTORS: Final = 255
"""The count field of a TS payload is one octet (RFC 7296 §3.13)."""
_MAX_OVERLAPS: Final = 4 * MAX_SELECTORS
"""So many overlaps of a peer's selectors with ours are looked at: each is compared with all before it."""

_PROTOCOL_NUMBERS: Final = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "mh": 135,
    "udplite": 136,
}
_PROTOCOL_NAMES: Final = {number: name for name, number in _PROTOCOL_NUMBERS.items()}
_PROTOCOL_ALIASES: Final = {"ipv6-icmp": 58, "icmp6": 58, "any": ANY_PROTOCOL, "%any": ANY_PROTOCOL}
_ICMP: Final = frozenset({1, 58})
_TYPE_CODE: Final = re.compile(r"([0-9]{1,3})(?:\(([0-9]{1,3})\))?")


class TsUnacceptable(GatewayError):
    """Nothing of what was offered is allowed (RFC 7296 §2.9).

    Attributes:
        offered: The peer's selectors.
        configured: Ours.
    """

    def __init__(
        self, offered: tuple["TrafficSelector", ...], configured: tuple["TrafficSelector", ...]
    ) -> None:
        super().__init__(
            "no traffic selector in common: "
            f"offered {format_selectors(offered)}, configured {format_selectors(configured)}"
        )
        self.offered = offered
        self.configured = configured


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """A range of addresses of one family, an IP protocol (0: any) and a range of ports.

    For ICMP the "ports" are type * 256 + code (RFC 4301 §4.4.1.1). OPAQUE is start 65535, end 0.

    Raises:
        VocabularyError: The range is empty, mixes families, or a number is out of its field.
    """

    start: IpAddress
    end: IpAddress
    protocol: int = ANY_PROTOCOL
    start_port: int = 0
    end_port: int = MAX_PORT

    def __post_init__(self) -> None:
        if self.start.version != self.end.version:
            raise VocabularyError(f"a range has one address family, got {self.start} to {self.end}")
        if int(self.start) > int(self.end):
            raise VocabularyError(f"a range goes upwards, got {self.start} to {self.end}")
        if not 0 <= self.protocol <= 255:
            raise VocabularyError(f"an IP protocol is 0 to 255, got {self.protocol}")
        if not (0 <= self.start_port <= MAX_PORT and 0 <= self.end_port <= MAX_PORT):
            raise VocabularyError(f"ports are 0 to 65535, got {self.start_port} to {self.end_port}")
        if self.start_port > self.end_port and not self.is_opaque:
            raise VocabularyError(f"a port range goes upwards, got {self.start_port} to {self.end_port}")

    # --- making --------------------------------------------------------------------------------

    @classmethod
    def from_prefix(
        cls,
        prefix: IpNetwork | IpAddress,
        protocol: int = ANY_PROTOCOL,
        start_port: int = 0,
        end_port: int = MAX_PORT,
    ) -> "TrafficSelector":
        """Return the selector of a network, or of one address."""
        if isinstance(prefix, IPv4Address | IPv6Address):
            return cls(prefix, prefix, protocol, start_port, end_port)
        return cls(prefix.network_address, prefix.broadcast_address, protocol, start_port, end_port)

    @classmethod
    def parse(cls, text: str) -> "TrafficSelector":
        """Parse the text form of the module's docstring.

        Raises:
            VocabularyError: The text is something else; `column` is the offset of the wrong part.
        """
        address, bracket, rest = text.partition("[")
        start, end = _parse_addresses(address)
        if not bracket:
            return cls(start, end)
        if not rest.rstrip().endswith("]"):
            raise VocabularyError(f"the '[' in {text!r} is not closed by ']'", column=len(address))
        protocol, start_port, end_port = _parse_upper(rest.rstrip()[:-1], len(address) + 1)
        return cls(start, end, protocol, start_port, end_port)

    def __str__(self) -> str:
        """Return the text form that `parse` reads back to an equal selector."""
        return f"{self._format_addresses()}{self._format_upper()}"

    def _format_addresses(self) -> str:
        size = int(self.end) - int(self.start) + 1
        if size & (size - 1) or int(self.start) % size:
            return f"{self.start}-{self.end}"
        return f"{self.start}/{self.start.max_prefixlen - size.bit_length() + 1}"

    def _format_upper(self) -> str:
        if self.protocol == ANY_PROTOCOL and self.has_any_port:
            return ""
        name = _PROTOCOL_NAMES.get(self.protocol, str(self.protocol or "any"))
        return f"[{name}]" if self.has_any_port else f"[{name}/{self._format_ports()}]"

    def _format_ports(self) -> str:
        if self.is_opaque:
            return "opaque"
        first, last = self.start_port, self.end_port
        if self.protocol not in _ICMP:
            return str(first) if first == last else f"{first}-{last}"
        if first % 256 == 0 and last % 256 == 255:
            low, high = str(first // 256), str(last // 256)
        else:
            low, high = f"{first // 256}({first % 256})", f"{last // 256}({last % 256})"
        return low if low == high else f"{low}-{high}"

    # --- asking --------------------------------------------------------------------------------

    @property
    def is_opaque(self) -> bool:
        """Whether the ports are OPAQUE: for packets whose ports cannot be seen (RFC 4301 §4.4.1.1)."""
        return self.start_port == MAX_PORT and self.end_port == 0

    @property
    def has_any_port(self) -> bool:
        """Whether the ports are ANY, which includes OPAQUE."""
        return self.start_port == 0 and self.end_port == MAX_PORT

    @property
    def is_host(self) -> bool:
        """Whether the range is one address."""
        return self.start == self.end

    @property
    def version(self) -> int:
        """The address family: 4 or 6."""
        return self.start.version

    def contains(self, address: IpAddress, protocol: int = ANY_PROTOCOL, port: int | None = None) -> bool:
        """Say whether one side of a packet is inside.

        Args:
            address: The packet's address on this side.
            protocol: Its IP protocol.
            port: Its port on this side (ICMP: type * 256 + code); `None` where it has none or it cannot be
                seen, as in a fragment: only ANY and OPAQUE take that.
        """
        if address.version != self.start.version or not int(self.start) <= int(address) <= int(self.end):
            return False
        if self.protocol not in (ANY_PROTOCOL, protocol):
            return False
        if self.has_any_port:
            return True
        return self.is_opaque if port is None else self.start_port <= port <= self.end_port

    def is_subset(self, other: "TrafficSelector") -> bool:
        """Say whether everything this selector matches, `other` matches too."""
        if self.start.version != other.start.version or other.protocol not in (ANY_PROTOCOL, self.protocol):
            return False
        if not int(other.start) <= int(self.start) <= int(self.end) <= int(other.end):
            return False
        if other.has_any_port or (self.start_port, self.end_port) == (other.start_port, other.end_port):
            return True
        if self.is_opaque or other.is_opaque:
            return False
        return other.start_port <= self.start_port <= self.end_port <= other.end_port

    def intersect(self, other: "TrafficSelector") -> "TrafficSelector | None":
        """Return what both match, or `None`."""
        return _intersect(self, other)

    def prefixes(self) -> tuple[IpNetwork, ...]:
        """Return the fewest networks that cover exactly the address range, in order."""
        if isinstance(self.start, IPv4Address) and isinstance(self.end, IPv4Address):
            return tuple(summarize_address_range(self.start, self.end))
        if isinstance(self.start, IPv6Address) and isinstance(self.end, IPv6Address):
            return tuple(summarize_address_range(self.start, self.end))
        raise AssertionError("one family: __post_init__ has checked it")


# Many peers ask for the same as the one before, and are allowed the same.
@lru_cache(maxsize=1024)
def _intersect(one: TrafficSelector, other: TrafficSelector) -> TrafficSelector | None:
    if one.start.version != other.start.version:
        return None
    if int(one.start) > int(other.end) or int(other.start) > int(one.end):
        return None
    start, end = max(one.start, other.start, key=int), min(one.end, other.end, key=int)
    if one.protocol and other.protocol and one.protocol != other.protocol:
        return None
    ports = _intersect_ports(one, other)
    return None if ports is None else TrafficSelector(start, end, one.protocol or other.protocol, *ports)


def _intersect_ports(one: TrafficSelector, other: TrafficSelector) -> tuple[int, int] | None:
    if one.has_any_port:
        return other.start_port, other.end_port
    if other.has_any_port:
        return one.start_port, one.end_port
    if one.is_opaque or other.is_opaque:
        return (MAX_PORT, 0) if one.is_opaque and other.is_opaque else None
    first, last = max(one.start_port, other.start_port), min(one.end_port, other.end_port)
    return (first, last) if first <= last else None


ANY_IPV4: Final = TrafficSelector(IPv4Address(0), IPv4Address(2**32 - 1))
ANY_IPV6: Final = TrafficSelector(IPv6Address(0), IPv6Address(2**128 - 1))


# --- packets ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PacketSelectors:
    """What the SPD looks at in one packet, seen from this gateway (RFC 4301 §4.4.1.1).

    Of an outbound packet `local` is the source, of an inbound one the destination. An ICMP packet has
    type * 256 + code as both ports. `None`: no ports, or not visible.
    """

    local: IpAddress
    remote: IpAddress
    protocol: int
    local_port: int | None = None
    remote_port: int | None = None

    def matches(self, local_ts: Iterable[TrafficSelector], remote_ts: Iterable[TrafficSelector]) -> bool:
        """Say whether both sides of the packet are inside the selectors of an SA or a policy."""
        return any(ts.contains(self.local, self.protocol, self.local_port) for ts in local_ts) and any(
            ts.contains(self.remote, self.protocol, self.remote_port) for ts in remote_ts
        )


# --- lists --------------------------------------------------------------------------------------


def format_selectors(selectors: Iterable[TrafficSelector]) -> str:
    """Return selectors joined by commas, for operators."""
    return ", ".join(map(str, selectors)) or "nothing"


def narrow(
    offered: Sequence[TrafficSelector], configured: Sequence[TrafficSelector]
) -> tuple[TrafficSelector, ...]:
    """Return the part of `offered` that `configured` allows (RFC 7296 §2.9).

    The order of `offered` is kept, so that the initiator's first choice comes first where it is allowed;
    a selector that lies inside another of the result is merged into it, at the earlier place. Of offers that
    overlap each other beyond all reason only a part is granted: the work is bounded (`_MAX_OVERLAPS`).

    Raises:
        TsUnacceptable: Nothing in `offered` is allowed.
    """
    result: list[TrafficSelector] = []
    for common in islice(_overlaps(offered, configured), _MAX_OVERLAPS):
        _merge(result, common)
        if len(result) == MAX_SELECTORS:
            break
    if not result:
        raise TsUnacceptable(tuple(offered), tuple(configured))
    return tuple(result)


def _overlaps(
    offered: Iterable[TrafficSelector], configured: Sequence[TrafficSelector]
) -> Iterator[TrafficSelector]:
    for theirs in offered:
        for ours in configured:
            common = theirs.intersect(ours)
            if common is not None:
                yield common


def is_narrowing(narrowed: Sequence[TrafficSelector], offered: Sequence[TrafficSelector]) -> bool:
    """Say whether an answer is not empty and nowhere wider than the offer (RFC 7296 §2.9)."""
    return bool(narrowed) and all(any(ts.is_subset(o) for o in offered) for ts in narrowed)


def _merge(result: list[TrafficSelector], new: TrafficSelector) -> None:
    if any(new.is_subset(old) for old in result):
        return
    inside = [i for i, old in enumerate(result) if old.is_subset(new)]
    if not inside:
        result.append(new)
        return
    result[inside[0]] = new
    for i in reversed(inside[1:]):
        del result[i]


# --- parsing ------------------------------------------------------------------------------------


def _parse_addresses(text: str) -> tuple[IpAddress, IpAddress]:
    stripped = text.strip()
    if not stripped:
        raise VocabularyError(
            "a traffic selector begins with addresses, such as 10.1.0.0/16, 10.1.0.1-10.1.0.9 or 0.0.0.0/0",
            column=0,
        )
    low, dash, high = stripped.partition("-")
    if dash:
        return _parse_address(low, 0), _parse_address(high, text.index("-") + 1)
    if "/" in stripped:
        return _parse_network(stripped)
    address = _parse_address(stripped, 0)
    return address, address


def _parse_address(text: str, column: int) -> IpAddress:
    try:
        address = ip_address(text.strip())
    except ValueError:
        raise VocabularyError(f"{text.strip()!r} is not an IPv4 or IPv6 address", column=column) from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise VocabularyError(f"{address} has a zone; traffic selectors have none", column=column)
    return address


def _parse_network(text: str) -> tuple[IpAddress, IpAddress]:
    """Return the first and the last address of a prefix."""
    head, _, length = text.partition("/")
    first = _parse_address(head, 0)
    bits = first.max_prefixlen
    if length.isascii() and length.isdecimal() and int(length) <= bits:
        # As nearly all are written, and much quicker than a network is made.
        host_part = (1 << bits - int(length)) - 1
        if not int(first) & host_part:
            return first, type(first)(int(first) | host_part)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise VocabularyError(
            f"{text!r} is not a prefix; a length of 0 to 32 (IPv4) or 0 to 128 (IPv6) follows the '/'",
            column=text.index("/") + 1,
        ) from None
    if first != network.network_address:
        raise VocabularyError(f"{text} has bits set right of its length; did you mean {network}?", column=0)
    return network.network_address, network.broadcast_address


def _parse_upper(text: str, column: int) -> tuple[int, int, int]:
    """Return protocol, first and last port of what stands in brackets."""
    name, slash, ports = text.partition("/")
    protocol = _parse_protocol(name.strip().lower(), column)
    if not slash or ports.strip().lower() in ("any", "%any"):
        return protocol, 0, MAX_PORT
    if ports.strip().lower() == "opaque":
        return protocol, MAX_PORT, 0
    at = column + len(name) + 1
    low, dash, high = ports.partition("-")
    first = _parse_port(low, protocol, at)
    last = _parse_port(high, protocol, at + len(low) + 1) if dash else first
    if first[0] > last[1]:
        raise VocabularyError(f"the port range {ports.strip()} goes downwards", column=at)
    return protocol, first[0], last[1]


def _parse_protocol(name: str, column: int) -> int:
    number = _PROTOCOL_NUMBERS.get(name, _PROTOCOL_ALIASES.get(name))
    if number is not None:
        return number
    if re.fullmatch("[0-9]{1,3}", name) and int(name) <= 255:
        return int(name)
    raise VocabularyError(
        f"{name!r} is not an IP protocol: a number up to 255 or one of {', '.join(_PROTOCOL_NUMBERS)}",
        column=column,
    )


def _parse_port(text: str, protocol: int, column: int) -> tuple[int, int]:
    """Return the range that one port, or one ICMP type with or without code, stands for."""
    text = text.strip()
    if protocol in _ICMP:
        match = _TYPE_CODE.fullmatch(text)
        type_, code = (int(match[1]), int(match[2] or 0)) if match else (256, 256)
        if match is None or type_ > 255 or code > 255:
            raise VocabularyError(
                f"{text!r} is not an ICMP type (8) or type with code (3(4)), each up to 255", column=column
            )
        return (type_ * 256 + code, type_ * 256 + (code if match[2] else 255))
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MAX_PORT:
        raise VocabularyError(f"{text!r} is not a port number from 0 to 65535", column=column)
    return int(text), int(text)
