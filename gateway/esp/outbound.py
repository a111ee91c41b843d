"""One packet out through one SA: the steps of RFC 4303 §3.3, in its order."""

from ipaddress import IPv4Address
from typing import Final, NamedTuple

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.mtu import effective_mtu
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    MAX_IP_PACKET_BYTES,
    PROTOCOL_ESP,
    PROTOCOL_UDP,
    UDP_HEADER_BYTES,
    trailer,
)
from gateway.esp.transform import Entropy, check_sa, layout, make_seal
from gateway.esp.transport import split, with_payload
from gateway.esp.tunnel import OUTER_TTL, DfPolicy, Inner, inspect_inner, make_outer
from gateway.esp.udp_encap import make_udp_header
from gateway.esp.usage import Expiry, Usage
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, IpAddress, Mode, SecurityAssociation, UdpEncapsulation

_ECN: Final = 0x03
_ANY_TOS: Final = 0xFF


class Sealed(NamedTuple):
    """A protected packet for a socket whose IP (and UDP) header the kernel makes."""

    payload: bytes
    """From the SPI to the ICV."""
    tos: int
    """DSCP and ECN of the outer header (IP_TOS, IPV6_TCLASS)."""
    is_df: bool
    """Whether the outer packet must not be fragmented (IPv4)."""
    ttl: int
    """Outer TTL or hop limit."""


def tos_mask(sa: SecurityAssociation) -> int:
    """Return which bits of the inner TOS go to the outer header: all, or ECN only (RFC 4301 §5.1.2)."""
    return _ANY_TOS if sa.copy_dscp else _ECN


def choose_df(sa: SecurityAssociation, wanted: DfPolicy | None) -> DfPolicy:
    """Return what the outer DF bit becomes: what is wanted, else what the SA says (RFC 4301 §8.1)."""
    if wanted is not None:
        return wanted
    return DfPolicy.COPY if sa.copy_df else DfPolicy.CLEAR


class OutboundSa:
    """The sending side of one SA. It owns the sequence number: never have two of them for one key."""

    def __init__(
        self,
        sa: SecurityAssociation,
        *,
        entropy: Entropy,
        next_sequence: int = 1,
        df: DfPolicy | None = None,
    ) -> None:
        """Prepare everything that is the same for each packet.

        Args:
            sa: An outbound ESP SA.
            entropy: Where unpredictable IVs come from.
            next_sequence: First number to send; more than 1 only where all lower ones may have been sent.
            df: What the outer DF bit becomes; by default copied, or cleared where `sa.copy_df` is off.

        Raises:
            UnsupportedSa: This core cannot carry it.
        """
        check_sa(sa, Direction.OUTBOUND)
        self.sa = sa
        self._seal_esp = make_seal(sa, entropy)
        self._layout = layout(sa)
        self._last_sequence = (1 << 64) - 1 if sa.esn else (1 << 32) - 1
        self.sequence = next_sequence - 1
        """The last sequence number sent."""
        self.usage = Usage(sa.lifetime, self._last_sequence)
        self._tos_mask = tos_mask(sa)
        self._df_policy = choose_df(sa, df)
        self._tfc_bytes = sa.tfc_padding_bytes if sa.mode is Mode.TUNNEL else 0
        self._encapsulation = sa.encapsulation
        self.destination: IpAddress = sa.destination
        """Where packets go now; a NAT may have moved it from `sa.destination`."""
        self._set_outer()

    def seal(self, packet: bytes, now: float) -> bytes:
        """Return the complete outer IP packet that carries `packet`.

        In transport mode `packet` is a whole IP packet too, with the SA's addresses.

        Raises:
            PacketDropped: SA_EXPIRED, SEQUENCE_OVERFLOW, TOO_BIG, MALFORMED or FRAGMENT; counted already.
        """
        try:
            if self.sa.mode is Mode.TUNNEL:
                return self._seal_tunnel(packet, now)
            return self._seal_transport(packet, now)
        except PacketDropped as dropped:
            self.usage.count_drop(dropped.reason)
            raise

    def seal_payload(self, packet: bytes, now: float) -> Sealed:
        """Return only the ESP packet, and what the caller must tell the kernel about the outer header.

        For a UDP socket (UDP encapsulation) or a raw ESP socket. IPv4 options and IPv6 extension headers
        of transport mode would be lost on this way, so that such packets are dropped; `seal` keeps them.

        Raises:
            PacketDropped: As `seal`, and UNSUPPORTED.
        """
        try:
            if self.sa.mode is Mode.TUNNEL:
                inner = inspect_inner(packet)
                esp = self._protect(packet, inner.next_header, now)
                return Sealed(esp, inner.tos & self._tos_mask, self._is_df(inner), OUTER_TTL)
            header, protocol, payload = self._split(packet)
            if len(header) not in (IPV4_HEADER_BYTES, IPV6_HEADER_BYTES):
                raise PacketDropped(DropReason.UNSUPPORTED, "options or extension headers in transport mode")
            inner = inspect_inner(packet)
            ttl = header[8] if len(header) == IPV4_HEADER_BYTES else header[7]
            return Sealed(self._protect(payload, protocol, now), inner.tos, inner.is_df, ttl)
        except PacketDropped as dropped:
            self.usage.count_drop(dropped.reason)
            raise

    def move(self, destination: IpAddress, destination_port: int) -> None:
        """Send to another address and port from now on: the peer's NAT mapping changed (RFC 7296 §2.23).

        In transport mode only the port can change: the address is that of the packets themselves.

        Raises:
            UnsupportedSa: The SA is not UDP-encapsulated, or the address cannot be followed.
        """
        if self._encapsulation is None:
            raise UnsupportedSa("encapsulation", "only a UDP-encapsulated SA follows a NAT mapping")
        if destination.version != self.sa.source.version:
            raise UnsupportedSa("destination", f"{destination} is of another family than {self.sa.source}")
        if self.sa.mode is Mode.TRANSPORT and destination != self.sa.destination:
            raise UnsupportedSa("mode", "transport mode has the addresses of its packets")
        self.destination = destination
        self._encapsulation = UdpEncapsulation(
            source_port=self._encapsulation.source_port, destination_port=destination_port
        )
        self._set_outer()

    @property
    def encapsulation(self) -> UdpEncapsulation | None:
        """Return the UDP ports in use now."""
        return self._encapsulation

    def effective_mtu(self, path_mtu: int) -> int:
        """Return the largest packet that `seal` turns into an outer packet of at most `path_mtu` bytes."""
        return effective_mtu(self.sa, path_mtu)

    def drain_expiries(self) -> tuple[Expiry, ...]:
        """Return the limits reached since the last call; whether there are any, `usage.expiries` tells."""
        return self.usage.drain()

    # --- the two modes ----------------------------------------------------------------------------

    def _seal_tunnel(self, packet: bytes, now: float) -> bytes:
        inner = inspect_inner(packet)
        esp = self._protect(packet, inner.next_header, now)
        return self._outer(esp, inner.tos & self._tos_mask, self._is_df(inner), self._identification())

    def _seal_transport(self, packet: bytes, now: float) -> bytes:
        header, protocol, payload = self._split(packet)
        esp = self._protect(payload, protocol, now)
        if self._encapsulation is None:
            return with_payload(header, PROTOCOL_ESP, esp)
        udp = self._encapsulation
        pseudo_addresses = b"" if header[0] >> 4 == 4 else header[8:40]
        return with_payload(header, PROTOCOL_UDP, make_udp_header(udp, esp, pseudo_addresses) + esp)

    def _split(self, packet: bytes) -> tuple[bytes, int, bytes]:
        header, protocol, payload = split(packet)
        if header[0] >> 4 != self.sa.source.version:
            raise PacketDropped(DropReason.MODE_MISMATCH, "packet and SA are of different families")
        return header, protocol, payload

    # --- RFC 4303 §3.3, step by step --------------------------------------------------------------

    def _protect(self, payload: bytes, next_header: int, now: float) -> bytes:
        """Return the ESP packet for one payload."""
        size = len(payload)
        if size > self._max_payload:
            raise PacketDropped(
                DropReason.TOO_BIG, f"{size} bytes do not fit one packet with ESP around them"
            )
        self.usage.admit(size)
        sequence = self._next_sequence()
        esp = self._seal_esp(sequence, self._pad(payload, next_header))
        self.usage.account(size, sequence, now)
        return esp

    def _next_sequence(self) -> int:
        """Return the next sequence number (RFC 4303 §3.3.3): never cycling, never given out twice."""
        sequence = self.sequence + 1
        if sequence > self._last_sequence:
            raise PacketDropped(DropReason.SEQUENCE_OVERFLOW, f"{self.sequence} was the last sequence number")
        self.sequence = sequence
        return sequence

    def _pad(self, payload: bytes, next_header: int) -> bytes:
        """Return payload, TFC padding (RFC 4303 §2.7), padding and trailer (§2.4)."""
        if len(payload) < self._tfc_bytes:
            payload = payload.ljust(self._tfc_bytes, b"\0")
        return payload + trailer(len(payload), next_header, self._layout.alignment_bytes)

    def _is_df(self, inner: Inner) -> bool:
        """Return the outer DF bit (RFC 4301 §8.1)."""
        if self._df_policy is DfPolicy.COPY:
            return inner.is_df
        return self._df_policy is DfPolicy.SET

    def _identification(self) -> int:
        """Return the outer IPv4 identification: a counter, with another start for each SA (RFC 6864 §4.3)."""
        return (self.sa.spi + self.sequence) & 0xFFFF

    def _set_outer(self) -> None:
        self._outer = make_outer(self.sa.source, self.destination, self._encapsulation)
        fixed = UDP_HEADER_BYTES if self._encapsulation else 0
        if isinstance(self.sa.source, IPv4Address):
            fixed += IPV4_HEADER_BYTES
        room = MAX_IP_PACKET_BYTES - fixed - self._layout.overhead_bytes
        self._max_payload = room - self._layout.alignment_bytes
        self._tfc_bytes = min(self._tfc_bytes, self._max_payload)
