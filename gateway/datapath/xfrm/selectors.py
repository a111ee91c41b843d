"""Traffic selectors as the kernel's: prefixes and port masks instead of ranges, and what that cannot say.

A range of addresses becomes prefixes, a range of ports becomes blocks whose size is a power of two; each
combination is one kernel selector. Of ICMP the kernel compares type and code, of Mobility Headers the type
(RFC 4301 §4.4.1.1). It knows no OPAQUE: a packet whose ports cannot be seen, a fragment, has port 0 for it,
so that is what OPAQUE becomes. Where selectors name ports of a protocol that has none for the kernel, a
policy is wider than they are, or, of a BYPASS, left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from itertools import product
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.xfrm import records as r
from gateway.ipsec.selectors import MAX_PORT, TrafficSelector

IpNetwork = IPv4Network | IPv6Network

MAX_CELLS: Final = 4096
"""Kernel selectors of one SPD entry, in each direction."""

PROTOCOLS_WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})
"""Those whose ports the kernel compares (`xfrm_flowi_sport` of `<net/xfrm.h>`)."""
_ICMP: Final = frozenset({1, 58})
_MOBILITY: Final = 135


@dataclass(frozen=True, slots=True)
class Ports:
    """What the kernel compares: (port ^ value) & mask must be 0."""

    value: int = 0
    mask: int = 0


_ANY: Final = Ports()
INVISIBLE: Final = Ports(0, MAX_PORT)
"""Of fragments, whose ports the kernel takes for 0."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one kernel selector can say, seen from this gateway."""

    local: IpNetwork
    remote: IpNetwork
    protocol: int = 0
    local_ports: Ports = _ANY
    remote_ports: Ports = _ANY

    def outbound(self, tag: int) -> r.Selector:
        """Return the selector of packets to the peer; `tag` makes it ours."""
        return _selector(self.local, self.remote, self.protocol, (self.local_ports, self.remote_ports), tag)

    def inbound(self, tag: int) -> r.Selector:
        """Return the selector of packets from the peer; `tag` makes it ours."""
        ports = (self.remote_ports, self.local_ports)
        if self.protocol in _ICMP or self.protocol == _MOBILITY:
            # Type and code are the same both ways.
            ports = (self.local_ports, self.remote_ports)
        return _selector(self.remote, self.local, self.protocol, ports, tag)


def _selector(
    source: IpNetwork, destination: IpNetwork, protocol: int, ports: tuple[Ports, Ports], tag: int
) -> r.Selector:
    return r.Selector(
        source=_interface(source),
        destination=_interface(destination),
        protocol=protocol,
        source_port=ports[0].value,
        source_port_mask=ports[0].mask,
        destination_port=ports[1].value,
        destination_port_mask=ports[1].mask,
        user=tag,
    )


def _interface(network: IpNetwork) -> r.IpPrefix:
    if isinstance(network, IPv4Network):
        return IPv4Interface((network.network_address, network.prefixlen))
    return IPv6Interface((network.network_address, network.prefixlen))


# --- from selectors to cells ----------------------------------------------------------------------


def meet(
    local_ts: Iterable[TrafficSelector], remote_ts: Sequence[TrafficSelector]
) -> Iterator[tuple[TrafficSelector, TrafficSelector]]:
    """Return each pair of a local and a remote selector that some packet can match."""
    for local in local_ts:
        for remote in remote_ts:
            protocols = {local.protocol, remote.protocol} - {0}
            if local.version == remote.version and len(protocols) <= 1:
                yield local, remote


def common(ours: Iterable[TrafficSelector], theirs: Sequence[TrafficSelector]) -> tuple[TrafficSelector, ...]:
    """Return what two lists of selectors of one side both match."""
    parts = (one.intersect(other) for one in ours for other in theirs)
    return tuple(dict.fromkeys(part for part in parts if part is not None))


def cells(
    local_ts: Iterable[TrafficSelector], remote_ts: Sequence[TrafficSelector], *, may_widen: bool
) -> tuple[Cell, ...]:
    """Return the cells of selectors, in their order, each once.

    Args:
        local_ts: Ours.
        remote_ts: The peer's.
        may_widen: Whether to match more, and not less, where the kernel cannot say it exactly.

    Raises:
        DatapathError: TABLE_FULL: more than `MAX_CELLS`.
    """
    found: dict[Cell, None] = {}
    for local, remote in meet(local_ts, remote_ts):
        protocol = local.protocol or remote.protocol
        ports = tuple(_port_pairs(protocol, local, remote, may_widen=may_widen))
        count = len(local.prefixes()) * len(remote.prefixes()) * len(ports)
        if len(found) + count > MAX_CELLS:
            raise DatapathError(
                ErrorReason.TABLE_FULL,
                f"the selectors need more than {MAX_CELLS} kernel policies in each direction: "
                "name prefixes instead of single addresses, and fewer ports",
            )
        for here, there, (local_ports, remote_ports) in product(local.prefixes(), remote.prefixes(), ports):
            found[Cell(here, there, protocol, local_ports, remote_ports)] = None
    return tuple(found)


def hidden_cells(
    local_ts: Iterable[TrafficSelector], remote_ts: Sequence[TrafficSelector]
) -> tuple[Cell, ...]:
    """Return cells of fragments that could belong to what these selectors match by its ports."""
    found: dict[Cell, None] = {}
    for local, remote in meet(local_ts, remote_ts):
        protocol = local.protocol or remote.protocol
        if protocol not in PROTOCOLS_WITH_PORTS or (local.has_any_port and remote.has_any_port):
            continue
        for here, there in product(local.prefixes(), remote.prefixes()):
            found[Cell(here, there, protocol, INVISIBLE, INVISIBLE)] = None
    return tuple(found)


def _port_pairs(
    protocol: int, local: TrafficSelector, remote: TrafficSelector, *, may_widen: bool
) -> Iterator[tuple[Ports, Ports]]:
    if local.has_any_port and remote.has_any_port:
        yield _ANY, _ANY
    elif protocol in PROTOCOLS_WITH_PORTS:
        yield from product(_ports(local, may_widen=may_widen), _ports(remote, may_widen=may_widen))
    elif protocol in _ICMP or protocol == _MOBILITY:
        yield from _types(protocol, local, remote, may_widen=may_widen)
    elif may_widen:
        yield _ANY, _ANY


def _ports(selector: TrafficSelector, *, may_widen: bool) -> tuple[Ports, ...]:
    if selector.has_any_port:
        return (_ANY,)
    if selector.is_opaque:
        return (INVISIBLE,)
    # Port 0 is also that of a fragment of any other port: it does not pass by a rule for some.
    first = selector.start_port if may_widen else max(selector.start_port, 1)
    return tuple(_blocks(first, selector.end_port, bits=16))


def _types(
    protocol: int, local: TrafficSelector, remote: TrafficSelector, *, may_widen: bool
) -> Iterator[tuple[Ports, Ports]]:
    """Yield type and code of ICMP, or the type of a Mobility Header, which both selectors must hold."""
    if local.is_opaque or remote.is_opaque:
        if may_widen:
            yield _ANY, _ANY
        return
    first, last = max(local.start_port, remote.start_port), min(local.end_port, remote.end_port)
    if protocol == _MOBILITY:
        # The type is the high octet of the selector (RFC 4301 §4.4.1.1).
        for block in _blocks(first >> 8, last >> 8, bits=8):
            yield Ports(block.value, block.mask | 0xFF00), _ANY
        return
    for block in _blocks(first, last, bits=16):
        kind, code = Ports(block.value >> 8, block.mask >> 8), Ports(block.value & 0xFF, block.mask & 0xFF)
        yield _octet(kind), _octet(code)


def _octet(ports: Ports) -> Ports:
    """Return what compares one octet; the other one of the kernel's 16 bits is always 0."""
    return Ports(ports.value, ports.mask | 0xFF00) if ports.mask else _ANY


def _blocks(first: int, last: int, *, bits: int) -> Iterator[Ports]:
    """Yield the fewest aligned blocks that cover a range of numbers of so many bits."""
    while first <= last:
        size = first & -first or 1 << bits
        while first + size - 1 > last:
            size >>= 1
        yield Ports(first, ((1 << bits) - 1) & ~(size - 1))
        first += size


# --- the selector of an SA ------------------------------------------------------------------------


def covering_cell(local_ts: Sequence[TrafficSelector], remote_ts: Sequence[TrafficSelector]) -> Cell | None:
    """Return the smallest cell that holds all that selectors match; `None` if they are of both families."""
    pairs = list(meet(local_ts, remote_ts))
    if len({local.version for local, _ in pairs}) != 1:
        return None
    protocols = {local.protocol or remote.protocol for local, remote in pairs}
    protocol = protocols.pop() if len(protocols) == 1 else 0
    local_ports = remote_ports = _ANY
    if len(pairs) == 1 and protocol:
        port_pairs = list(_port_pairs(protocol, *pairs[0], may_widen=True))
        if len(port_pairs) == 1:
            local_ports, remote_ports = port_pairs[0]
    return Cell(
        _covering_prefix([local for local, _ in pairs]),
        _covering_prefix([remote for _, remote in pairs]),
        protocol,
        local_ports,
        remote_ports,
    )


def _covering_prefix(selectors: Iterable[TrafficSelector]) -> IpNetwork:
    """Return the longest prefix that holds every address of selectors of one family."""
    networks = [network for selector in selectors for network in selector.prefixes()]
    lowest = min(int(network.network_address) for network in networks)
    highest = max(int(network.broadcast_address) for network in networks)
    kind = type(networks[0])
    bits = networks[0].max_prefixlen
    length = bits - (lowest ^ highest).bit_length()
    return kind((lowest >> (bits - length) << (bits - length), length))
