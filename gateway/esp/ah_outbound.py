"""One packet out through one AH SA: the steps of RFC 4302 §3.3, in its order."""

from collections.abc import Callable
from typing import Final, TypeVar

from gateway.esp.ah import AhSeal
from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.fragment import fragment
from gateway.esp.mtu import effective_mtu
from gateway.esp.outbound import choose_df, tos_mask
from gateway.esp.packet import (
    IPV4_HEADER_BYTES,
    IPV6_HEADER_BYTES,
    MAX_IP_PACKET_BYTES,
    PROTOCOL_AH,
)
from gateway.esp.transport import split, with_payload
from gateway.esp.tunnel import DfPolicy, inspect_inner, make_outer
from gateway.esp.usage import Expiry, Usage
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import IpAddress, Mode, SecurityAssociation

T = TypeVar("T")

_DF: Final = 0x40


class AhOutboundSa:
    """The sending side of one AH SA. It owns the sequence number: never have two of them for one key."""

    encapsulation: Final = None
    """AH has no UDP encapsulation."""

    def __init__(
        self, sa: SecurityAssociation, *, next_sequence: int = 1, df: DfPolicy | None = None
    ) -> None:
        """Prepare everything that is the same for each packet.

        Args:
            sa: An outbound AH SA.
            next_sequence: First number to send; more than 1 only where all lower ones may have been sent.
            df: What the outer DF bit becomes; by default copied, or cleared where `sa.copy_df` is off.

        Raises:
            UnsupportedSa: This core cannot carry it.
        """
        self._seal = AhSeal(sa)
        self.sa = sa
        self._last_sequence = (1 << 64) - 1 if sa.esn else (1 << 32) - 1
        self.sequence = next_sequence - 1
        """The last sequence number sent."""
        self.usage = Usage(sa.lifetime, self._last_sequence)
        self._tos_mask = tos_mask(sa)
        self._df_policy = choose_df(sa, df)
        self.destination: IpAddress = sa.destination
        """Where packets go: always `sa.destination`, no NAT is followed."""
        self._outer = make_outer(sa.source, sa.destination, None, protocol=PROTOCOL_AH)
        self._outer_bytes = IPV4_HEADER_BYTES if sa.source.version == 4 else IPV6_HEADER_BYTES
        self._is_tunnel = sa.mode is Mode.TUNNEL

    def seal(self, packet: bytes, now: float) -> bytes:
        """Return the complete IP packet that carries `packet`.

        In transport mode `packet` is a whole IP packet too, with the SA's addresses.

        Raises:
            PacketDropped: SA_EXPIRED, SEQUENCE_OVERFLOW, TOO_BIG, MALFORMED, FRAGMENT, or UNSUPPORTED
                (headers whose fate on the way cannot be told); counted already.
        """
        return self._counting_drops(lambda: self._protect(packet, now)[0])

    def seal_in_pieces(self, packet: bytes, path_mtu: int, now: float) -> tuple[bytes, ...]:
        """Return the same in IP fragments of at most `path_mtu` bytes (RFC 4302 §3.3.4).

        Raises:
            PacketDropped: As `seal`.
        """

        def protect() -> tuple[bytes, ...]:
            protected, at = self._protect(packet, now)
            return fragment(protected, at, path_mtu, (self.sa.spi + self.sequence) & 0xFFFFFFFF)

        return self._counting_drops(protect)

    def move(self, destination: IpAddress, destination_port: int) -> None:  # noqa: ARG002  as OutboundSa.move
        """Refuse: the ICV covers the addresses, so that no NAT can be between us and the peer.

        Raises:
            UnsupportedSa: Always.
        """
        raise UnsupportedSa("encapsulation", "AH does not follow a NAT mapping")

    def effective_mtu(self, path_mtu: int) -> int:
        """Return the largest packet that `seal` turns into an outer packet of at most `path_mtu` bytes."""
        return effective_mtu(self.sa, path_mtu)

    def drain_expiries(self) -> tuple[Expiry, ...]:
        """Return the limits reached since the last call; whether there are any, `usage.expiries` tells."""
        return self.usage.drain()

    # --- RFC 4302 §3.3, step by step ----------------------------------------------------------------

    def _counting_drops(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except PacketDropped as dropped:
            self.usage.count_drop(dropped.reason)
            raise

    def _protect(self, packet: bytes, now: float) -> tuple[bytes, int]:
        """Return the protected packet, and where AH is in it."""
        return self._protect_tunnel(packet, now) if self._is_tunnel else self._protect_transport(packet, now)

    def _protect_tunnel(self, packet: bytes, now: float) -> tuple[bytes, int]:
        inner = inspect_inner(packet)
        size, at = len(packet), self._outer_bytes
        sequence = self._admit(size, at)
        is_df = inner.is_df if self._df_policy is DfPolicy.COPY else self._df_policy is DfPolicy.SET
        ah = self._seal.header(inner.next_header, sequence)
        outer = self._outer(ah + packet, inner.tos & self._tos_mask, is_df, self._identification())
        protected = self._seal.sign(outer, at, sequence)
        self.usage.account(size, sequence, now)
        return protected, at

    def _protect_transport(self, packet: bytes, now: float) -> tuple[bytes, int]:
        header, protocol, payload = split(packet)
        if header[0] >> 4 != self.sa.source.version:
            raise PacketDropped(DropReason.MODE_MISMATCH, "packet and SA are of different families")
        size, at = len(payload), len(header)
        sequence = self._admit(size, at)
        whole = with_payload(
            self._with_identification(header), PROTOCOL_AH, self._seal.header(protocol, sequence) + payload
        )
        protected = self._seal.sign(whole, at, sequence)
        self.usage.account(size, sequence, now)
        return protected, at

    def _admit(self, size: int, headers: int) -> int:
        """Return the number of one more packet (RFC 4302 §3.3.2): never cycling, never given out twice."""
        if headers + self._seal.header_bytes + size > MAX_IP_PACKET_BYTES:
            raise PacketDropped(DropReason.TOO_BIG, f"{size} bytes do not fit one packet with AH before them")
        self.usage.admit(size)
        sequence = self.sequence + 1
        if sequence > self._last_sequence:
            raise PacketDropped(DropReason.SEQUENCE_OVERFLOW, f"{self.sequence} was the last sequence number")
        self.sequence = sequence
        return sequence

    def _identification(self) -> int:
        """Return the outer IPv4 identification, which the ICV covers: never 0, which Linux would replace."""
        return (self.sa.spi + self.sequence) % 0xFFFF + 1

    def _with_identification(self, header: bytes) -> bytes:
        """Give an IPv4 header without DF an identification if it has none: Linux would, behind the ICV."""
        if header[0] >> 4 != 4 or header[4] or header[5] or header[6] & _DF:
            return header
        return header[:4] + self._identification().to_bytes(2, "big") + header[6:]
