"""Carry one packet: from the tunnel device through an outbound SA, or from the wire through an inbound one.

ESP and AH differ in the core of their SAs, and in who makes fragments; all else is the same for both.

What happens to a packet is decided here; how it is read and written is injected, so that this file needs no
socket. The order outbound is the one of RFC 4301 §5.1: selectors, SPD, SA, protection; inbound of §5.2: SA by
SPI, checks, decryption, selectors.

The kernel has counted the hop of a packet that it forwarded into the tunnel device, and will count one for a
packet that we hand back: the TTL is not touched here (RFC 4301 §5.1.2.1, note 3).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Final, NamedTuple, Protocol

from gateway.datapath.backend import Acquire, BadSpi, DatapathEvent, HardExpire, MappingChange, SoftExpire
from gateway.datapath.software.early import EarlyPacket, EarlyPackets
from gateway.datapath.software.sad import Entry, InboundEntry, OutboundEntry, Sad
from gateway.datapath.software.spd import Spd, SpdEntry
from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.flow import Flow, parse_flow
from gateway.esp.icmp import too_big
from gateway.esp.inbound import OuterHeader
from gateway.esp.mtu import clamp_mss
from gateway.esp.outbound import OutboundSa, Sealed
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import IpAddress, IpsecProtocol, Spi

_TCP: Final = 6
_TCP_SYN: Final = 0x02
_UDP: Final = 17
_ICMPV6: Final = 58
_IPV6_MIN_MTU: Final = 1280
_MAX_CACHED_FLOWS: Final = 8192
_MIN_BYTES: Final = {IpsecProtocol.ESP: 8, IpsecProtocol.AH: 12}
"""SPI and sequence number, and what AH has before them."""
_SPI: Final = {IpsecProtocol.ESP: slice(0, 4), IpsecProtocol.AH: slice(4, 8)}


class SendResult(Enum):
    """What the kernel said to a packet."""

    SENT = "sent"
    TOO_BIG = "too_big"
    FAILED = "failed"


class Surroundings(Protocol):
    """What the forwarder needs of the machine."""

    def send(self, packet: bytes) -> SendResult:
        """Send a whole IP packet that is protected, by the routes that the rest of the machine uses."""

    def send_clear(self, packet: bytes) -> SendResult:
        """Send a whole IP packet that needs no protection, by the same routes."""

    def send_fragmented(self, entry: OutboundEntry, sealed: Sealed) -> SendResult:
        """Send an ESP packet whose IP header the kernel makes, and fragments where it must."""

    def deliver(self, packet: bytes, interface_id: int) -> bool:
        """Hand a packet to the kernel as if it had come in over an interface, or with 0 the tunnel device."""

    def source_towards(self, destination: IpAddress) -> IpAddress | None:
        """Return our address towards a host."""

    def emit(self, event: DatapathEvent) -> None:
        """Tell the subscribers."""

    def path_shrank(self, entry: OutboundEntry) -> None:
        """Learn the path MTU of an SA anew, because a packet did not fit."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Run something later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderLimits:
    """Bounds of memory and of what strangers can make us say."""

    held_packets: int = 64
    """Per SPD entry, while its SA is negotiated."""
    hold_s: float = 30.0
    """How long a packet waits for the SA that it asked for."""
    hold_unasked_s: float = 1.0
    """The same where the entry asks for none: a responder's outbound SA follows its answer by a moment."""
    acquire_interval_s: float = 2.0
    """An SPD entry asks again after this, if packets still come and there is still no SA."""
    early_packets: int = 1024
    """In all, of inbound SAs that are about to be installed."""
    early_s: float = 1.0
    """How long each of these waits."""
    bad_spi_per_s: float = 10.0
    icmp_per_s: float = 100.0


class _Verdict(Enum):
    SEND = "send"
    HOLD = "hold"
    BYPASS = "bypass"
    DROP = "drop"


class _Decision(NamedTuple):
    verdict: _Verdict
    sa: OutboundEntry | None = None
    entry: SpdEntry | None = None
    reason: DropReason = DropReason.NO_POLICY


@dataclass(slots=True)
class _TokenBucket:
    """Allow so many of something per second, with as many at once."""

    per_s: float
    tokens: float = field(init=False)
    last: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.per_s

    def take(self, now: float) -> bool:
        self.tokens = min(self.per_s, self.tokens + (now - self.last) * self.per_s)
        self.last = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(slots=True)
class _Hold:
    """Packets of one SPD entry that wait for an SA."""

    longest_s: float
    packets: deque[tuple[float, bytes]] = field(default_factory=deque)
    last_acquire: float | None = None
    is_timed: bool = False


class Forwarder:
    """The packet path over one SAD and one SPD."""

    def __init__(self, sad: Sad, surroundings: Surroundings, limits: ForwarderLimits | None = None) -> None:
        self._sad = sad
        self._around = surroundings
        self._limits = limits or ForwarderLimits()
        self._spd = Spd()
        self._flows: dict[tuple[object, ...], _Decision] = {}
        self._holds: dict[str, _Hold] = {}
        self._early = EarlyPackets(self._limits.early_packets, self._limits.early_s)
        self._bad_spi = _TokenBucket(self._limits.bad_spi_per_s)
        self._icmp = _TokenBucket(self._limits.icmp_per_s)
        self.drops: dict[DropReason, int] = {}
        """Drops that belong to no SA."""

    @property
    def spd(self) -> Spd:
        """Return the SPD in force."""
        return self._spd

    def use_spd(self, spd: Spd, now: float) -> None:
        """Search another SPD from now on; packets that waited for an entry are looked up again."""
        self._spd = spd
        self.sas_changed(now)
        for name in [
            name for name in self._holds if name not in {entry.policy.name for entry in spd.entries}
        ]:
            hold = self._holds.pop(name)
            for _ in hold.packets:
                self.count_drop(DropReason.NO_SA)

    def sas_changed(self, now: float) -> None:
        """Forget what was decided about flows; send and receive what waited for an SA that is there now."""
        self._flows.clear()
        if self._early:
            for early in self._early.take(lambda packet: self._find_inbound(packet) is not None):
                self._receive(early.protocol, early.packet, early.outer, now)
        for entry in self._spd.entries:
            hold = self._holds.get(entry.policy.name)
            if hold is not None and hold.packets and self._sad.serving(*entry.serves):
                waiting, hold.packets = hold.packets, deque()
                for _, packet in waiting:
                    self.from_tunnel(packet, now, entry.policy.interface_id)

    def count_drop(self, reason: DropReason) -> None:
        """Count a drop that belongs to no SA."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # --- outbound ---------------------------------------------------------------------------------

    def from_tunnel(self, packet: bytes, now: float, interface_id: int = 0) -> None:
        """Carry a packet that the kernel routed into an interface, or with 0 into the tunnel device."""
        try:
            flow = parse_flow(packet)
        except PacketDropped as dropped:
            self.count_drop(dropped.reason)
            return
        key = (interface_id, *flow[:6])
        decision = self._flows.get(key)
        if decision is None:
            decision = self._decide(flow, interface_id)
            if len(self._flows) >= _MAX_CACHED_FLOWS:
                self._flows.clear()
            self._flows[key] = decision
        if decision.sa is not None:
            self._protect(packet, decision.sa, now)
        elif decision.verdict is _Verdict.HOLD and decision.entry is not None:
            self._hold(packet, flow, decision.entry, now)
        elif decision.verdict is _Verdict.BYPASS:
            if self._around.send_clear(packet) is not SendResult.SENT:
                self.count_drop(DropReason.SEND_FAILED)
        else:
            self.count_drop(decision.reason)

    def _decide(self, flow: Flow, interface_id: int) -> _Decision:
        entry = self._spd.lookup(flow, interface_id)
        if entry is None:
            # What routes led into an interface has no other way.
            return _Decision(_Verdict.DROP) if interface_id else self._decide_unmatched(flow)
        if entry.policy.action is Action.BYPASS:
            return _Decision(_Verdict.BYPASS, entry=entry)
        if entry.policy.action is Action.DISCARD:
            return _Decision(_Verdict.DROP, entry=entry, reason=DropReason.POLICY_DISCARD)
        for sa in self._sad.serving(*entry.serves):
            if sa.selectors.permits_outbound(flow):
                return _Decision(_Verdict.SEND, sa=sa, entry=entry)
        return _Decision(_Verdict.HOLD, entry=entry)

    def _decide_unmatched(self, flow: Flow) -> _Decision:
        """Decide about a packet that was routed here without being in any selector.

        Rules cannot match all that selectors can (ICMP types), so such a packet goes on by the other routes.
        What the kernel says on the device of its own accord stays on it. Any other packet had to be protected
        when it was routed here, and its addresses were changed after that (source NAT on the way into the
        device): it must not leave in clear, and the guard would not know it any more.
        """
        if self._spd.hides_ports(flow):
            return _Decision(_Verdict.DROP, reason=DropReason.FRAGMENT)
        if not self._spd.brings_by_rule(flow):
            return _Decision(_Verdict.DROP, reason=DropReason.NO_POLICY)
        source, destination = flow.source_address, flow.destination_address
        if (
            source.is_link_local
            or source.is_unspecified
            or destination.is_multicast
            or destination.is_link_local
        ):
            return _Decision(_Verdict.DROP, reason=DropReason.NO_POLICY)
        return _Decision(_Verdict.BYPASS)

    def _protect(self, packet: bytes, entry: OutboundEntry, now: float) -> None:
        """Send a packet through its SA."""
        core = entry.core
        if may_be_syn(packet):
            packet = clamp_mss(packet, entry.mtu)
        try:
            if len(packet) <= entry.mtu:
                result = self._around.send(core.seal(packet, now))
            elif may_fragment_outside(packet, copy_df=entry.sa.copy_df):
                result = self._send_in_pieces(packet, entry, now)
            else:
                core.usage.count_drop(DropReason.TOO_BIG)
                self._say_too_big(packet, entry.mtu, now)
                return
        except PacketDropped:
            result = SendResult.SENT  # counted at the SA already
        if result is not SendResult.SENT:
            self._send_failed(packet, entry, result, now)
        if core.usage.expiries:
            self.report_expiries(entry)

    def _send_in_pieces(self, packet: bytes, entry: OutboundEntry, now: float) -> SendResult:
        """Send a packet that does not fit in IP fragments: of the kernel's, or of AH's own.

        Raises:
            PacketDropped: Counted already.
        """
        core = entry.core
        if isinstance(core, OutboundSa):
            return self._around.send_fragmented(entry, core.seal_payload(packet, now))
        for piece in core.seal_in_pieces(packet, entry.path_mtu or _IPV6_MIN_MTU, now):
            result = self._around.send(piece)
            if result is not SendResult.SENT:
                return result
        return SendResult.SENT

    def _send_failed(self, packet: bytes, entry: OutboundEntry, result: SendResult, now: float) -> None:
        if result is SendResult.FAILED:
            entry.core.usage.count_drop(DropReason.SEND_FAILED)
            return
        entry.core.usage.count_drop(DropReason.TOO_BIG)
        self._around.path_shrank(entry)
        if len(packet) > entry.mtu:
            self._say_too_big(packet, entry.mtu, now)

    def _say_too_big(self, packet: bytes, mtu: int, now: float) -> None:
        """Tell the sender which size fits (RFC 4301 §8.2.1)."""
        if not self._icmp.take(now):
            return
        sender = ip_address(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])
        source = self._around.source_towards(sender)
        message = None if source is None else too_big(packet, mtu, source)
        if message is not None:
            self._around.send_clear(message)

    # --- waiting for an SA ------------------------------------------------------------------------

    def _hold(self, packet: bytes, flow: Flow, entry: SpdEntry, now: float) -> None:
        """Keep a packet until there is an SA, and ask for one where the entry says so."""
        name, asks = entry.policy.name, entry.policy.acquire
        longest_s = self._limits.hold_s if asks else self._limits.hold_unasked_s
        hold = self._holds.setdefault(name, _Hold(longest_s))
        hold.longest_s = longest_s
        if len(hold.packets) < self._limits.held_packets:
            hold.packets.append((now, packet))
            self._watch(hold)
        else:
            self.count_drop(DropReason.NO_SA)
        if asks and (hold.last_acquire is None or now - hold.last_acquire >= self._limits.acquire_interval_s):
            hold.last_acquire = now
            self._around.emit(
                Acquire(
                    policy=name,
                    source=flow.source_address,
                    destination=flow.destination_address,
                    protocol=flow.protocol or 0,
                    source_port=flow.source_port or 0,
                    destination_port=flow.destination_port or 0,
                )
            )

    def _watch(self, hold: _Hold) -> None:
        """See to it that nothing waits longer than it may."""
        if not hold.is_timed and hold.packets:
            hold.is_timed = True
            waited = self._around.now() - hold.packets[0][0]
            self._around.call_later(hold.longest_s - waited, lambda: self._give_up(hold))

    def _give_up(self, hold: _Hold) -> None:
        """Drop what has waited too long; wait on for the rest."""
        hold.is_timed = False
        # A timer may fire a little early.
        too_old = self._around.now() - hold.longest_s + 0.001
        while hold.packets and hold.packets[0][0] <= too_old:
            hold.packets.popleft()
            self.count_drop(DropReason.NO_SA)
        self._watch(hold)

    # --- inbound ----------------------------------------------------------------------------------

    def from_wire(self, esp: bytes, outer: OuterHeader, now: float) -> None:
        """Carry an ESP packet that came in, raw or out of UDP."""
        self._receive(IpsecProtocol.ESP, esp, outer, now)

    def ah_from_wire(self, ah: bytes, outer: OuterHeader, now: float) -> None:
        """Carry an AH packet that came in; `outer` has its IP header."""
        self._receive(IpsecProtocol.AH, ah, outer, now)

    def _receive(self, protocol: IpsecProtocol, packet: bytes, outer: OuterHeader, now: float) -> None:
        if len(packet) < _MIN_BYTES[protocol]:
            self.count_drop(DropReason.MALFORMED)
            return
        spi = int.from_bytes(packet[_SPI[protocol]], "big")
        entry = self._sad.inbound.get((protocol, spi, outer.destination))
        if entry is None:
            if self._early.has_room and self._sad.reservations.has(spi):
                self._keep_early(EarlyPacket(now, protocol, spi, packet, outer))
            else:
                self._unknown_spi(protocol, spi, outer, now)
            return
        core = entry.core
        try:
            opened = core.open(packet, outer, now)
        except PacketDropped:
            opened = None  # counted at the SA already
        if opened is not None:
            if opened.new_source is not None:
                self._follow(entry, opened.new_source)
            inner = opened.packet
            if may_be_syn(inner):
                inner = self._clamp_inbound(inner, entry)
            if not self._around.deliver(inner, entry.sa.interface_id):
                core.usage.count_drop(DropReason.SEND_FAILED)
        if core.usage.expiries:
            self.report_expiries(entry)

    def _find_inbound(self, early: EarlyPacket) -> InboundEntry | None:
        return self._sad.inbound.get((early.protocol, early.spi, early.outer.destination))

    def _keep_early(self, packet: EarlyPacket) -> None:
        """Keep a packet for an SA that is about to be installed."""
        self._early.add(packet)
        self._watch_early()

    def _watch_early(self) -> None:
        """See to it that no early packet waits longer than it may."""
        oldest_at = self._early.oldest_at
        if oldest_at is not None and not self._early.is_timed:
            self._early.is_timed = True
            waited_s = self._around.now() - oldest_at
            self._around.call_later(self._early.longest_s - waited_s, self._give_up_early)

    def _give_up_early(self) -> None:
        """Treat what has waited too long as packets of an unknown SPI; wait on for the rest."""
        self._early.is_timed = False
        now = self._around.now()
        # A timer may fire a little early.
        for early in self._early.take_older(now - self._early.longest_s + 0.001):
            self._unknown_spi(early.protocol, early.spi, early.outer, now)
        self._watch_early()

    def _unknown_spi(self, protocol: IpsecProtocol, spi: int, outer: OuterHeader, now: float) -> None:
        self.count_drop(DropReason.UNKNOWN_SPI)
        if self._bad_spi.take(now):
            self._around.emit(
                BadSpi(
                    protocol=protocol,
                    spi=Spi(spi),
                    source=ip_address(outer.source),
                    destination=ip_address(outer.destination),
                )
            )

    def _clamp_inbound(self, packet: bytes, entry: InboundEntry) -> bytes:
        """Clamp the MSS of the peer's SYN by what fits on the way back."""
        partner = self._sad.partner(entry.sa)
        return packet if partner is None else clamp_mss(packet, partner.mtu)

    def _follow(self, entry: InboundEntry, new: tuple[IpAddress, int]) -> None:
        """Send to where an authenticated peer is now (RFC 7296 §2.23)."""
        old_address, old_port = entry.peer
        entry.peer = new[0].packed, new[1]
        partner = self._sad.partner(entry.sa)
        if partner is not None:
            try:
                partner.core.move(*new)
            except UnsupportedSa:
                pass  # transport mode and manual keys have fixed addresses; the event tells the controller
            else:
                self._around.path_shrank(partner)
        self._around.emit(
            MappingChange(
                sa_id=entry.sa.sa_id, spi=entry.sa.spi, old=(ip_address(old_address), old_port), new=new
            )
        )

    # --- limits -----------------------------------------------------------------------------------

    def report_expiries(self, entry: Entry) -> None:
        """Tell of every limit that an SA has reached; one that expired serves no more."""
        for expiry in entry.core.drain_expiries():
            self.expire(entry, expiry.limit, is_hard=expiry.is_hard)

    def expire(self, entry: Entry, limit: str, *, is_hard: bool) -> None:
        """Tell of one limit of an SA."""
        sa = entry.sa
        if not is_hard:
            self._around.emit(SoftExpire(sa_id=sa.sa_id, spi=sa.spi, limit=limit))
            return
        entry.core.usage.is_expired = True
        if isinstance(entry, OutboundEntry):
            self._sad.stop_serving(entry)
            self._flows.clear()
        self._around.emit(HardExpire(sa_id=sa.sa_id, spi=sa.spi, limit=limit))


def may_be_syn(packet: bytes) -> bool:
    """Whether a packet may open a TCP connection: cheap, and right for all without extension headers."""
    if packet[0] >> 4 == 4:
        flags = ((packet[0] & 0x0F) << 2) + 13
        return packet[9] == _TCP and len(packet) > flags and bool(packet[flags] & _TCP_SYN)
    if packet[6] == _TCP:
        return len(packet) > 53 and bool(packet[53] & _TCP_SYN)
    return packet[6] not in (_UDP, _ICMPV6)


def may_fragment_outside(packet: bytes, *, copy_df: bool) -> bool:
    """Whether the outer packet of one that does not fit may be fragmented (RFC 4301 §8.1, RFC 8200 §5)."""
    if packet[0] >> 4 == 4:
        return not (packet[6] & 0x40 and copy_df)
    # An IPv6 sender is never told to go below 1280: what is smaller goes out in pieces.
    return len(packet) <= _IPV6_MIN_MTU
