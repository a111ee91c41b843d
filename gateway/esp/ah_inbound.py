"""One packet in through one AH SA: the steps of RFC 4302 §3.4 and RFC 4301 §5.2, in their order."""

from gateway.esp.ah import AhOpen
from gateway.esp.errors import PacketDropped
from gateway.esp.flow import SelectorSet
from gateway.esp.inbound import Opened, OuterHeader, check_selectors, rebuild
from gateway.esp.packet import IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_AH
from gateway.esp.replay import ReplayWindow
from gateway.esp.transport import with_payload
from gateway.esp.tunnel import decapsulate, make_bare_header
from gateway.esp.usage import Expiry, Usage
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Mode, SecurityAssociation


class AhInboundSa:
    """The receiving side of one AH SA."""

    def __init__(self, sa: SecurityAssociation) -> None:
        """Prepare everything that is the same for each packet.

        Raises:
            UnsupportedSa: This core cannot carry it.
        """
        self._ah = AhOpen(sa)
        self.sa = sa
        self.window = ReplayWindow(sa.replay_window_packets, esn=sa.esn)
        self.usage = Usage(sa.lifetime, (1 << 64) - 1 if sa.esn else (1 << 32) - 1)
        self._selectors = SelectorSet(sa.local_ts, sa.remote_ts)
        self._is_tunnel = sa.mode is Mode.TUNNEL

    def open(self, ah: bytes, outer: OuterHeader, now: float) -> Opened:
        """Return the packet that AH protects.

        Args:
            ah: From AH to the end of the packet, without what is before AH.
            outer: Facts of the outer headers. Over IPv4 it must have the header itself; over IPv6 without
                extension headers the addresses will do.
            now: Seconds.

        Raises:
            PacketDropped: Any inbound reason; counted already. Never anything else, whatever the bytes are.
        """
        try:
            return self._open(ah, outer, now)
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

    # --- RFC 4302 §3.4, step by step ----------------------------------------------------------------

    def _open(self, ah: bytes, outer: OuterHeader, now: float) -> Opened:
        next_header, size, sequence_low = self._ah.parse(ah)
        if self.usage.is_expired:
            raise PacketDropped(DropReason.SA_EXPIRED, "a hard lifetime was reached")
        sequence = self.window.check(sequence_low)
        header = _outer_header(outer, ah)
        self._ah.verify(header, ah, sequence)
        self.window.commit(sequence)
        payload = ah[size:]
        if self._is_tunnel:
            packet = decapsulate(payload, next_header, outer.tos)
        else:
            packet = rebuild(payload, next_header, outer._replace(header=header), self._selectors)
        check_selectors(packet, self._selectors)
        carried = len(packet) if self._is_tunnel else len(payload)
        self.usage.admit(carried)
        self.usage.account(carried, sequence, now)
        return Opened(packet, next_header, sequence, None)


def _outer_header(outer: OuterHeader, ah: bytes) -> bytes:
    """Return the headers before AH, as the peer authenticated them.

    Raises:
        PacketDropped: MALFORMED or UNSUPPORTED.
    """
    if outer.udp_source_port is not None:
        raise PacketDropped(DropReason.UNSUPPORTED, "AH in UDP")
    if outer.header:
        least = IPV4_HEADER_BYTES if outer.header[0] >> 4 == 4 else IPV6_HEADER_BYTES
        if len(outer.header) < least:
            raise PacketDropped(DropReason.MALFORMED, f"IP header of {len(outer.header)} bytes")
        return outer.header
    if len(outer.source) == 4:
        raise PacketDropped(DropReason.MALFORMED, "AH over IPv4 without the IP header that it authenticates")
    bare = make_bare_header(outer.source, outer.destination, outer.tos, outer.ttl)
    return with_payload(bare, PROTOCOL_AH, ah)[: len(bare)]
