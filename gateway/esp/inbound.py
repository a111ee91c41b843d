"""One packet in through one SA: the steps of RFC 4303 §3.4 and RFC 4301 §5.2, in their order."""

from ipaddress import ip_address
from typing import NamedTuple

from gateway.esp.errors import PacketDropped
from gateway.esp.flow import SelectorSet, parse_flow
from gateway.esp.packet import (
    HEADER,
    IPV6_HEADER_BYTES,
    PROTOCOL_ESP,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_NONE,
    PROTOCOL_UDP,
    TRAILER_BYTES,
    UDP_HEADER_BYTES,
    strip_trailer,
)
from gateway.esp.replay import ReplayWindow
from gateway.esp.transform import check_sa, layout, make_open
from gateway.esp.transport import fix_transport_checksum, with_payload
from gateway.esp.tunnel import decapsulate, make_bare_header
from gateway.esp.usage import Expiry, Usage
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, IpAddress, Mode, SecurityAssociation


class OuterHeader(NamedTuple):
    """What a packet's outer headers said; addresses packed, as sockets and headers have them."""

    source: bytes
    """4 or 16 bytes."""
    destination: bytes
    tos: int = 0
    """TOS or traffic class."""
    ttl: int = 64
    udp_source_port: int | None = None
    """`None` where ESP came without UDP."""
    header: bytes = b""
    """The IP header with its options or extension headers, where the socket shows it; transport mode keeps
    it, and AH authenticates it. Empty: one is made from the other fields."""


class Opened(NamedTuple):
    """A packet that passed every check."""

    packet: bytes
    """The inner packet (tunnel mode), or the outer one made whole (transport mode)."""
    next_header: int
    """Of the ESP trailer."""
    sequence: int
    new_source: tuple[IpAddress, int] | None
    """Address and port of a peer that moved behind its NAT: authenticated, newest, and told once."""


def parse_outer(packet: bytes, protocol: int = PROTOCOL_ESP) -> tuple[OuterHeader, bytes]:
    """Take the outer headers off a whole IP packet that carries ESP, with or without UDP, or AH.

    For sockets and captures that show the IP header.

    Args:
        packet: From the IP header on.
        protocol: ESP or AH: what is expected.

    Raises:
        PacketDropped: MALFORMED, UNSUPPORTED (another protocol), or FRAGMENT (RFC 4303 §3.4.1, RFC 4302
            §3.4.1).
    """
    flow = parse_flow(packet)
    if flow.is_fragment:
        raise PacketDropped(DropReason.FRAGMENT, "a fragment that should have been reassembled before ESP")
    offset = flow.transport_offset
    if flow.version == 4:
        source, destination, tos, ttl = packet[12:16], packet[16:20], packet[1], packet[8]
        end = packet[2] << 8 | packet[3]
    else:
        source, destination, ttl = packet[8:24], packet[24:40], packet[7]
        tos = (packet[0] << 4 | packet[1] >> 4) & 0xFF
        end = IPV6_HEADER_BYTES + (packet[4] << 8 | packet[5])
    if not offset <= end <= len(packet):
        raise PacketDropped(DropReason.MALFORMED, f"IP length {end}, {len(packet)} bytes")
    outer = OuterHeader(source, destination, tos, ttl, None, packet[:offset])
    if flow.protocol == protocol:
        return outer, packet[offset:end]
    if flow.protocol != PROTOCOL_UDP or protocol != PROTOCOL_ESP:
        raise PacketDropped(DropReason.UNSUPPORTED, f"protocol {flow.protocol}, expected {protocol}")
    if end < offset + UDP_HEADER_BYTES:
        raise PacketDropped(DropReason.MALFORMED, "UDP header is truncated")
    return outer._replace(udp_source_port=flow.source_port), packet[offset + UDP_HEADER_BYTES : end]


class InboundSa:
    """The receiving side of one SA."""

    def __init__(self, sa: SecurityAssociation) -> None:
        """Prepare everything that is the same for each packet.

        Raises:
            UnsupportedSa: This core cannot carry it.
        """
        check_sa(sa, Direction.INBOUND)
        self.sa = sa
        self._spi = sa.spi
        self._open_esp = make_open(sa)
        self._layout = layout(sa)
        self._min_bytes = self._layout.overhead_bytes
        self._fixed_bytes = self._layout.overhead_bytes - TRAILER_BYTES
        self.window = ReplayWindow(sa.replay_window_packets, esn=sa.esn)
        self.usage = Usage(sa.lifetime, (1 << 64) - 1 if sa.esn else (1 << 32) - 1)
        self._selectors = SelectorSet(sa.local_ts, sa.remote_ts)
        self._is_tunnel = sa.mode is Mode.TUNNEL
        self._source = (sa.source.packed, sa.encapsulation.source_port) if sa.encapsulation else None

    def open(self, esp: bytes, outer: OuterHeader, now: float) -> Opened:
        """Return the packet inside an ESP packet.

        Args:
            esp: From the SPI to the ICV, without IP and UDP headers.
            outer: Facts of the outer headers.
            now: Seconds.

        Raises:
            PacketDropped: Any inbound reason; counted already. Never anything else, whatever the bytes are.
        """
        try:
            return self._open(esp, outer, now)
        except PacketDropped as dropped:
            self.usage.count_drop(dropped.reason)
            raise

    @property
    def sequence(self) -> int:
        """Return the highest authenticated sequence number."""
        return self.window.highest

    def drain_expiries(self) -> tuple[Expiry, ...]:
        """Return the limits reached since the last call; whether there are any, `usage.expiries` tells."""
        return self.usage.drain()

    # --- RFC 4303 §3.4, step by step --------------------------------------------------------------

    def _open(self, esp: bytes, outer: OuterHeader, now: float) -> Opened:
        sequence = self._check_header(esp)
        plaintext = self._open_esp(esp, sequence)
        is_highest = self.window.commit(sequence)
        payload, next_header = strip_trailer(plaintext)
        if next_header == PROTOCOL_NONE:
            raise PacketDropped(DropReason.DUMMY)
        if self._is_tunnel:
            packet = decapsulate(payload, next_header, outer.tos)
        else:
            packet = rebuild(payload, next_header, outer, self._selectors)
        check_selectors(packet, self._selectors)
        size = len(packet) if self._is_tunnel else len(payload)
        self.usage.admit(size)
        self.usage.account(size, sequence, now)
        new_source = self._follow_nat(outer) if is_highest and self._source else None
        return Opened(packet, next_header, sequence, new_source)

    def _check_header(self, esp: bytes) -> int:
        """Check size, SPI and replay without touching a key; return the full sequence number (§3.4.3)."""
        if len(esp) < self._min_bytes:
            raise PacketDropped(DropReason.MALFORMED, f"{len(esp)} bytes, expected {self._min_bytes} or more")
        spi, sequence_low = HEADER.unpack_from(esp)
        if spi != self._spi:
            raise PacketDropped(DropReason.UNKNOWN_SPI, f"SPI {spi:08x} on the SA {self._spi:08x}")
        if (len(esp) - self._fixed_bytes) % self._layout.alignment_bytes:
            # A partial block would also upset the cipher context that CBC keeps between packets.
            raise PacketDropped(DropReason.PADDING, f"{len(esp)} bytes do not end on a block")
        if self.usage.is_expired:
            raise PacketDropped(DropReason.SA_EXPIRED, "a hard lifetime was reached")
        return self.window.check(sequence_low)

    def _follow_nat(self, outer: OuterHeader) -> tuple[IpAddress, int] | None:
        """Return the peer's address and port if they changed (RFC 7296 §2.23).

        Only the newest authenticated packet is believed, so that an old one, held back and sent again from
        elsewhere, moves nothing.
        """
        if outer.udp_source_port is None or (outer.source, outer.udp_source_port) == self._source:
            return None
        self._source = (outer.source, outer.udp_source_port)
        return ip_address(outer.source), outer.udp_source_port


def rebuild(payload: bytes, next_header: int, outer: OuterHeader, selectors: SelectorSet) -> bytes:
    """Return the whole packet of transport mode (RFC 4303 §3.4.4.1, step 5; RFC 4302 §3.1.1).

    Raises:
        PacketDropped: MODE_MISMATCH, MALFORMED or TOO_BIG.
    """
    if next_header in (PROTOCOL_IPV4, PROTOCOL_IPV6) and not selectors.names_protocol(next_header):
        raise PacketDropped(DropReason.MODE_MISMATCH, f"next header {next_header} in transport mode")
    header = outer.header or make_bare_header(outer.source, outer.destination, outer.tos, outer.ttl)
    packet = with_payload(header, next_header, payload)
    if outer.udp_source_port is None:
        return packet
    return fix_transport_checksum(packet, next_header, len(header))


def check_selectors(packet: bytes, selectors: SelectorSet) -> None:
    """Check that the packet is one that the SA may carry (RFC 4301 §5.2, step 4).

    Raises:
        PacketDropped: SELECTOR_MISMATCH, or what `parse_flow` raises.
    """
    flow = parse_flow(packet)
    if not selectors.permits_inbound(flow):
        raise PacketDropped(
            DropReason.SELECTOR_MISMATCH,
            f"{flow.source_address} {flow.source_port} -> {flow.destination_address}"
            f" {flow.destination_port} protocol {flow.protocol}",
        )
