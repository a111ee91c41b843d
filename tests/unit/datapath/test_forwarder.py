"""The packet path of the software datapath without a machine around it."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    DatapathEvent,
    HardExpire,
    MappingChange,
    SoftExpire,
)
from gateway.datapath.events import MAX_WAITING, EventHub
from gateway.datapath.software.forwarder import Forwarder, ForwarderLimits, SendResult, may_fragment_outside
from gateway.datapath.software.sad import InboundEntry, OutboundCore, OutboundEntry, Sad
from gateway.datapath.software.spd import Spd, make_entry
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.esp.flow import SelectorSet
from gateway.esp.inbound import InboundSa, OuterHeader, parse_outer
from gateway.esp.outbound import OutboundSa, Sealed
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import (
    Direction,
    IpAddress,
    IpsecProtocol,
    Mode,
    SecurityAssociation,
    Spi,
    UdpEncapsulation,
)
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

OURS, PEER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LIMITS = ForwarderLimits(
    held_packets=3, hold_s=10.0, acquire_interval_s=2.0, bad_spi_per_s=2.0, early_packets=3, early_s=1.0
)


class Machine:
    """Surroundings that remember, with a clock that the test moves."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.clear: list[bytes] = []
        self.fragmented: list[Sealed] = []
        self.delivered: list[bytes] = []
        self.delivered_to: list[int] = []
        self.events: list[DatapathEvent] = []
        self.shrunk: list[OutboundEntry] = []
        self.answer = SendResult.SENT
        self.clock = 100.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def send(self, packet: bytes) -> SendResult:
        if self.answer is SendResult.SENT:
            self.sent.append(packet)
        return self.answer

    def send_clear(self, packet: bytes) -> SendResult:
        self.clear.append(packet)
        return SendResult.SENT

    def send_fragmented(self, entry: OutboundEntry, sealed: Sealed) -> SendResult:
        self.fragmented.append(sealed)
        return SendResult.SENT

    def deliver(self, packet: bytes, interface_id: int) -> bool:
        self.delivered.append(packet)
        self.delivered_to.append(interface_id)
        return True

    def source_towards(self, destination: IpAddress) -> IpAddress | None:
        return ip_address("10.1.0.1")

    def emit(self, event: DatapathEvent) -> None:
        self.events.append(event)

    def path_shrank(self, entry: OutboundEntry) -> None:
        self.shrunk.append(entry)
        entry.mtu = 1000

    def now(self) -> float:
        return self.clock

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        self._timers.append((self.clock + delay_s, callback))
        return None

    def advance(self, seconds: float) -> None:
        self.clock += seconds
        due = [callback for when, callback in self._timers if when <= self.clock]
        self._timers = [(when, callback) for when, callback in self._timers if when > self.clock]
        for callback in due:
            callback()


class Path:
    """One forwarder with a SAD of its own."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.sad = Sad(_entropy())
        self.forwarder = Forwarder(self.sad, self.machine, LIMITS)

    def policies(self, *policies: Policy) -> None:
        self.forwarder.use_spd(Spd(make_entry(policy, 0) for policy in policies), self.machine.clock)

    def install(self, sa: SecurityAssociation) -> Any:
        if sa.direction is Direction.INBOUND:
            port = sa.encapsulation.source_port if sa.encapsulation else 0
            receiver = AhInboundSa(sa) if sa.protocol is IpsecProtocol.AH else InboundSa(sa)
            inbound = InboundEntry(sa=sa, core=receiver, generation=0, peer=(sa.source.packed, port))
            self.sad.add(inbound)
            return inbound
        core: OutboundCore = (
            AhOutboundSa(sa) if sa.protocol is IpsecProtocol.AH else OutboundSa(sa, entropy=_entropy())
        )
        outbound = OutboundEntry(
            sa=sa, core=core, generation=0, selectors=SelectorSet(sa.local_ts, sa.remote_ts), mtu=1400
        )
        self.sad.add(outbound)
        self.forwarder.sas_changed(self.machine.clock)
        return outbound

    def out(self, packet: bytes) -> None:
        self.forwarder.from_tunnel(packet, self.machine.clock)


def _entropy() -> Callable[[int], bytes]:
    state = bytearray(b"\x40\0\0\0")

    def entropy(count: int) -> bytes:
        for index in reversed(range(4)):
            state[index] = (state[index] + 1) & 0xFF
            if state[index]:
                break
        return bytes(state[-count:]) if count <= 4 else bytes(state) + bytes(count - 4)

    return entropy


def outbound(spi: int = 0x2000, **changes: Any) -> SecurityAssociation:
    made = SecurityAssociation(
        spi=Spi(spi),
        direction=Direction.OUTBOUND,
        source=OURS,
        destination=PEER,
        encryption=Encr.AES_GCM_16,
        encryption_key=Secret(spi.to_bytes(36, "big")),
        key_bits=256,
        local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
        remote_ts=(TrafficSelector.parse("10.2.0.0/16"),),
        connection="paris",
        child="lan",
    )
    return replace(made, **changes)


def policy(name: str = "paris/lan", **changes: Any) -> Policy:
    made = Policy(
        name=name,
        action=Action.PROTECT,
        local_ts=(TrafficSelector.parse("10.1.0.0/16"),),
        remote_ts=(TrafficSelector.parse("10.2.0.0/16"),),
        connection="paris",
        child="lan",
    )
    return replace(made, **changes)


def packet(
    source: str = "10.1.0.9",
    destination: str = "10.2.0.9",
    *,
    size: int = 60,
    df: bool = False,
    offset: int = 0,
) -> bytes:
    """Return a UDP packet from port 1000 to 2000, or a later fragment of one."""
    header = bytearray(20)
    header[0] = 0x45
    header[2:4] = size.to_bytes(2, "big")
    header[6:8] = (0x4000 * df | offset).to_bytes(2, "big")
    header[8], header[9] = 64, 17
    header[12:16], header[16:20] = ip_address(source).packed, ip_address(destination).packed
    return bytes(header) + (1000).to_bytes(2, "big") + (2000).to_bytes(2, "big") + bytes(size - 24)


@pytest.fixture
def path() -> Path:
    return Path()


# --- SPD ------------------------------------------------------------------------------------------


def test_newest_sa_of_the_policy_carries_the_packet(path: Path) -> None:
    path.policies(policy())
    path.install(outbound(0x2000))
    path.install(outbound(0x2001))

    path.out(packet())

    assert path.machine.sent[0][20:24] == (0x2001).to_bytes(4, "big")
    path.sad.remove(outbound(0x2001).sa_id)
    path.forwarder.sas_changed(path.machine.clock)
    path.out(packet())
    assert path.machine.sent[1][20:24] == (0x2000).to_bytes(4, "big")


def test_sa_of_another_child_serves_nothing(path: Path) -> None:
    path.policies(policy(acquire=False))
    path.install(outbound(child="dmz"))

    path.out(packet())
    path.machine.advance(LIMITS.hold_unasked_s)

    assert path.machine.sent == []
    assert path.forwarder.drops == {DropReason.NO_SA: 1}


def test_priority_then_name_decides(path: Path) -> None:
    path.install(outbound())
    path.policies(policy("b", action=Action.DISCARD), policy("a"))

    path.out(packet())
    assert len(path.machine.sent) == 1

    path.policies(policy("b", action=Action.DISCARD, priority=5), policy("a"))
    path.out(packet())
    assert len(path.machine.sent) == 1
    assert path.forwarder.drops == {DropReason.POLICY_DISCARD: 1}


def test_bypass_goes_on_in_clear_where_the_guard_still_looks(path: Path) -> None:
    path.policies(policy("a", action=Action.BYPASS))

    path.out(packet())

    assert path.machine.clear == [packet()]
    assert path.machine.sent == []


def test_packet_that_a_rule_could_not_tell_apart_goes_on_but_noise_of_the_link_does_not(path: Path) -> None:
    anywhere = TrafficSelector.parse("0.0.0.0/0[udp/3000]")
    path.policies(policy(local_ts=(TrafficSelector.parse("0.0.0.0/0"),), remote_ts=(anywhere,)))

    path.out(packet())
    path.out(packet("169.254.0.1"))
    path.out(packet("10.1.0.9", "224.0.0.1"))

    assert path.machine.clear == [packet()]
    assert path.forwarder.drops == {DropReason.NO_POLICY: 2}


def test_packet_whose_source_a_nat_changed_on_its_way_here_does_not_leave_in_clear(path: Path) -> None:
    # It matched PROTECT when it was routed into the device. `masquerade` without an output interface is a
    # common mistake; the guard looks at packets before source NAT, and this one comes after it.
    path.policies(policy())
    path.install(outbound())

    path.out(packet(str(OURS)))

    assert path.machine.clear == []
    assert path.forwarder.drops == {DropReason.NO_POLICY: 1}


def test_later_fragment_that_may_need_protection_is_dropped(path: Path) -> None:
    path.policies(policy(remote_ts=(TrafficSelector.parse("10.2.0.0/16[udp/2000]"),)))

    path.out(packet(offset=100))

    assert path.forwarder.drops == {DropReason.FRAGMENT: 1}
    assert path.machine.clear == []


@pytest.mark.parametrize("junk", [b"", b"\x45", b"\x60" + bytes(10), b"\x00" * 60, b"\xff" * 60])
def test_junk_on_the_device_is_dropped_with_a_reason(path: Path, junk: bytes) -> None:
    path.policies(policy())

    path.out(junk)

    assert sum(path.forwarder.drops.values()) == 1


# --- tunnel interfaces ----------------------------------------------------------------------------


def test_packet_of_an_interface_finds_only_entries_of_that_interface(path: Path) -> None:
    path.policies(policy("a", action=Action.DISCARD), policy(interface_id=42))
    path.install(outbound(interface_id=42))

    path.forwarder.from_tunnel(packet(), path.machine.clock, 42)
    path.forwarder.from_tunnel(packet(), path.machine.clock, 43)
    path.out(packet())

    assert len(path.machine.sent) == 1
    assert path.forwarder.drops == {DropReason.NO_POLICY: 1, DropReason.POLICY_DISCARD: 1}


def test_packet_of_an_interface_that_no_entry_matches_never_goes_on_in_clear(path: Path) -> None:
    anywhere = TrafficSelector.parse("0.0.0.0/0[udp/3000]")
    path.policies(policy(local_ts=(anywhere,), remote_ts=(anywhere,), interface_id=42))

    path.forwarder.from_tunnel(packet(), path.machine.clock, 42)

    assert path.machine.clear == []
    assert path.forwarder.drops == {DropReason.NO_POLICY: 1}


def test_packet_of_an_interface_waits_for_an_sa_and_leaves_by_it(path: Path) -> None:
    path.policies(policy(interface_id=42))

    path.forwarder.from_tunnel(packet(), path.machine.clock, 42)
    assert [type(event) for event in path.machine.events] == [Acquire]
    path.install(outbound(interface_id=42))

    assert len(path.machine.sent) == 1


# --- waiting --------------------------------------------------------------------------------------


def test_packets_wait_for_the_sa_in_order_and_only_so_many(path: Path) -> None:
    path.policies(policy())

    for size in (61, 62, 63, 64):
        path.out(packet(size=size))

    assert path.machine.events == [
        Acquire(
            policy="paris/lan",
            source=ip_address("10.1.0.9"),
            destination=ip_address("10.2.0.9"),
            protocol=17,
            source_port=1000,
            destination_port=2000,
        )
    ]
    assert path.forwarder.drops == {DropReason.NO_SA: 1}
    entry = path.install(outbound())
    assert entry.core.usage.bytes == 61 + 62 + 63


def test_entry_that_asks_for_none_waits_a_moment_for_the_sa_of_a_responder(path: Path) -> None:
    path.policies(policy(acquire=False))
    path.out(packet())
    path.machine.advance(LIMITS.hold_unasked_s / 2)

    path.install(outbound())

    assert len(path.machine.sent) == 1
    assert path.machine.events == []


def test_acquire_is_said_again_while_packets_come_and_nobody_answers(path: Path) -> None:
    path.policies(policy())

    for _ in range(5):
        path.out(packet())
        path.machine.advance(1.0)

    assert len(path.machine.events) == 3  # at 0, 2 and 4 seconds


def test_what_waited_too_long_is_dropped_and_the_rest_waits_on(path: Path) -> None:
    path.policies(policy())
    path.out(packet())
    path.machine.advance(6.0)
    path.out(packet())

    path.machine.advance(4.1)
    assert path.forwarder.drops == {DropReason.NO_SA: 1}
    path.machine.advance(6.0)
    assert path.forwarder.drops == {DropReason.NO_SA: 2}


def test_waiting_packets_of_a_removed_policy_are_dropped(path: Path) -> None:
    path.policies(policy())
    path.out(packet())

    path.policies()
    path.install(outbound())

    assert path.machine.sent == []
    assert path.forwarder.drops == {DropReason.NO_SA: 1}


# --- size -----------------------------------------------------------------------------------------


def test_packet_that_is_too_big_is_answered_with_the_size(path: Path) -> None:
    path.policies(policy())
    entry = path.install(outbound())

    path.out(packet(size=1401, df=True))

    (answer,) = path.machine.clear
    assert answer[9] == 1
    assert (answer[20], answer[21], int.from_bytes(answer[26:28], "big")) == (3, 4, 1400)
    assert entry.core.usage.drops == {DropReason.TOO_BIG: 1}


def test_packet_that_may_be_fragmented_goes_out_in_pieces(path: Path) -> None:
    path.policies(policy())
    path.install(outbound())

    path.out(packet(size=1401))

    assert len(path.machine.fragmented) == 1
    assert path.machine.clear == []


def test_path_that_shrank_is_noticed_by_the_refusal(path: Path) -> None:
    path.policies(policy())
    entry = path.install(outbound())
    path.machine.answer = SendResult.TOO_BIG

    path.out(packet(size=1200, df=True))

    assert path.machine.shrunk == [entry]
    assert int.from_bytes(path.machine.clear[0][26:28], "big") == 1000


def test_refused_packet_is_counted_at_its_sa(path: Path) -> None:
    path.policies(policy())
    entry = path.install(outbound())
    path.machine.answer = SendResult.FAILED

    path.out(packet())

    assert entry.core.usage.drops == {DropReason.SEND_FAILED: 1}


@pytest.mark.parametrize(
    ("inner", "copy_df", "may"),
    [
        (packet(df=True), True, False),
        (packet(df=True), False, True),
        (packet(df=False), True, True),
        (b"\x60" + bytes(1279), True, True),
        (b"\x60" + bytes(1280), False, False),
    ],
)
def test_outer_fragmentation_follows_df_and_the_minimum_of_ipv6(
    inner: bytes, copy_df: bool, may: bool
) -> None:
    assert may_fragment_outside(inner, copy_df=copy_df) is may


# --- inbound --------------------------------------------------------------------------------------


def linked(**changes: Any) -> tuple[Path, Path, SecurityAssociation, SecurityAssociation]:
    """Return two paths with one SA from the first to the second."""
    ours, theirs = Path(), Path()
    sent = outbound(**changes)
    received = replace(sent, direction=Direction.INBOUND, local_ts=sent.remote_ts, remote_ts=sent.local_ts)
    ours.policies(policy())
    ours.install(sent)
    theirs.install(received)
    return ours, theirs, sent, received


def outer(**changes: Any) -> OuterHeader:
    return OuterHeader(OURS.packed, PEER.packed)._replace(**changes)


def test_packet_comes_out_as_it_went_in() -> None:
    ours, theirs, _, _ = linked()

    ours.out(packet())
    theirs.forwarder.from_wire(ours.machine.sent[0][20:], outer(), 1.0)

    assert theirs.machine.delivered == [packet()]
    assert theirs.machine.delivered_to == [0]


def test_packet_of_an_interface_comes_out_of_that_of_the_receiving_sa() -> None:
    ours, theirs, _, _ = linked(interface_id=42)
    ours.policies(policy(interface_id=42))

    ours.forwarder.from_tunnel(packet(), 1.0, 42)
    theirs.forwarder.from_wire(ours.machine.sent[0][20:], outer(), 1.0)

    assert theirs.machine.delivered == [packet()]
    assert theirs.machine.delivered_to == [42]


def test_unknown_spi_is_counted_always_and_told_sometimes(path: Path) -> None:
    for number in range(5):
        path.forwarder.from_wire(
            (0xBAD0 + number).to_bytes(4, "big") + bytes(40), outer(), path.machine.clock
        )

    assert path.forwarder.drops == {DropReason.UNKNOWN_SPI: 5}
    assert path.machine.events == [
        BadSpi(spi=Spi(0xBAD0), source=OURS, destination=PEER),
        BadSpi(spi=Spi(0xBAD1), source=OURS, destination=PEER),
    ]


def overtaking() -> tuple[Path, Path, SecurityAssociation]:
    """Return two paths and the inbound SA of the second, which has only reserved the SPI of it so far."""
    ours, theirs = Path(), Path()
    (spi,) = theirs.sad.reservations.draw(1, theirs.machine.clock)
    sent = outbound(spi)
    ours.policies(policy())
    ours.install(sent)
    received = replace(sent, direction=Direction.INBOUND, local_ts=sent.remote_ts, remote_ts=sent.local_ts)
    return ours, theirs, received


def carry(ours: Path, theirs: Path, *sizes: int) -> None:
    for size in sizes:
        ours.out(packet(size=size))
        theirs.forwarder.from_wire(ours.machine.sent[-1][20:], outer(), theirs.machine.clock)


def stand(path: Path, sa: SecurityAssociation) -> None:
    path.install(sa)
    path.forwarder.sas_changed(path.machine.clock)


def test_packets_that_overtake_the_answer_wait_for_the_sa_it_makes() -> None:
    ours, theirs, received = overtaking()

    carry(ours, theirs, 61, 62)
    assert theirs.machine.delivered == []
    stand(theirs, received)

    assert theirs.machine.delivered == [packet(size=61), packet(size=62)]
    theirs.machine.advance(10.0)
    assert theirs.forwarder.drops == {}
    assert theirs.machine.events == []


def test_early_packets_are_few_and_wait_a_moment_only() -> None:
    ours, theirs, _ = overtaking()

    carry(ours, theirs, 61, 62)
    theirs.machine.advance(0.6)
    carry(ours, theirs, 63, 64)
    assert theirs.forwarder.drops == {DropReason.UNKNOWN_SPI: 1}
    theirs.machine.advance(0.6)
    assert theirs.forwarder.drops == {DropReason.UNKNOWN_SPI: 3}
    theirs.machine.advance(0.6)
    assert theirs.forwarder.drops == {DropReason.UNKNOWN_SPI: 4}
    assert {type(event) for event in theirs.machine.events} == {BadSpi}


def test_early_packets_of_another_sa_wait_on() -> None:
    ours, theirs, received = overtaking()
    (other,) = theirs.sad.reservations.draw(1, theirs.machine.clock)

    carry(ours, theirs, 61)
    stand(theirs, replace(received, spi=other))
    assert theirs.machine.delivered == []
    stand(theirs, received)

    assert theirs.machine.delivered == [packet(size=61)]


def test_same_spi_to_another_address_is_unknown() -> None:
    ours, theirs, _, _ = linked()

    ours.out(packet())
    theirs.forwarder.from_wire(ours.machine.sent[0][20:], outer(destination=OURS.packed), 1.0)

    assert theirs.machine.delivered == []
    assert theirs.forwarder.drops == {DropReason.UNKNOWN_SPI: 1}


@pytest.mark.parametrize("size", range(8))
def test_runts_are_malformed(path: Path, size: int) -> None:
    path.forwarder.from_wire(bytes(size), outer(), 1.0)

    assert path.forwarder.drops == {DropReason.MALFORMED: 1}


def test_moved_peer_is_followed_after_authentication_only() -> None:
    ours, theirs, sent, received = linked(
        encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500), child_sa_id=7
    )
    back = replace(
        received,
        spi=Spi(0x3000),
        direction=Direction.OUTBOUND,
        source=PEER,
        destination=OURS,
        encryption_key=Secret(bytes(36)),
    )
    entry = theirs.install(back)
    ours.out(packet())
    esp = ours.machine.sent[0][28:]
    moved = outer(source=ip_address("198.51.100.7").packed, udp_source_port=61000)

    theirs.forwarder.from_wire(esp[:-1] + bytes([esp[-1] ^ 1]), moved, 1.0)
    assert theirs.machine.events == []
    assert entry.core.destination == OURS

    theirs.forwarder.from_wire(esp, moved, 1.0)
    new = (ip_address("198.51.100.7"), 61000)
    assert theirs.machine.events == [
        MappingChange(sa_id=received.sa_id, spi=sent.spi, old=(OURS, 4500), new=new)
    ]
    assert entry.core.destination == new[0]
    assert entry.core.encapsulation is not None
    assert entry.core.encapsulation.destination_port == 61000


# --- limits ---------------------------------------------------------------------------------------


def test_soft_then_hard_limit_and_then_a_new_sa_is_asked_for(path: Path) -> None:
    path.policies(policy())
    sa = outbound(lifetime=Lifetime(soft=Limit(packets=1), hard=Limit(packets=2)))
    path.install(sa)

    for _ in range(3):
        path.out(packet())

    assert [type(event) for event in path.machine.events] == [SoftExpire, HardExpire, Acquire]
    assert len(path.machine.sent) == 2


def test_expired_inbound_sa_carries_nothing() -> None:
    ours, theirs, _, received = linked()
    entry = theirs.sad.get(received.sa_id)
    assert entry is not None
    theirs.forwarder.expire(entry, "seconds", is_hard=True)

    ours.out(packet())
    theirs.forwarder.from_wire(ours.machine.sent[0][20:], outer(), 1.0)

    assert theirs.machine.delivered == []
    assert entry.core.usage.drops == {DropReason.SA_EXPIRED: 1}


# --- SAD ------------------------------------------------------------------------------------------


def test_transport_mode_partner_cannot_move_but_the_event_is_told() -> None:
    ours, theirs, _, received = linked(
        mode=Mode.TRANSPORT,
        encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500),
        local_ts=(TrafficSelector.parse("192.0.2.1"),),
        remote_ts=(TrafficSelector.parse("0.0.0.0/0"),),
    )
    ours.policies(
        policy(
            local_ts=(TrafficSelector.parse("192.0.2.1"),), remote_ts=(TrafficSelector.parse("192.0.2.2"),)
        )
    )
    theirs.install(
        replace(received, spi=Spi(0x3000), direction=Direction.OUTBOUND, encryption_key=Secret(bytes(36)))
    )
    ours.out(packet("192.0.2.1", "192.0.2.2"))

    theirs.forwarder.from_wire(ours.machine.sent[0][28:], outer(udp_source_port=61000), 1.0)

    assert [type(event) for event in theirs.machine.events] == [MappingChange]


# --- events ---------------------------------------------------------------------------------------


async def test_events_reach_every_subscriber_from_then_on() -> None:
    hub = EventHub()
    lost = SoftExpire(sa_id=outbound().sa_id, spi=Spi(0x2000), limit="bytes")
    seen = HardExpire(sa_id=outbound().sa_id, spi=Spi(0x2000), limit="bytes")

    hub.emit(lost)
    streams = [hub.subscribe(), hub.subscribe()]
    hub.emit(seen)
    hub.close()

    assert [[event async for event in stream] for stream in streams] == [[seen], [seen]]


async def test_slow_subscriber_loses_only_what_will_be_said_again() -> None:
    hub = EventHub()
    stream = hub.subscribe()
    bad = BadSpi(spi=Spi(0x2000), source=OURS, destination=PEER)
    expired = HardExpire(sa_id=outbound().sa_id, spi=Spi(0x2000), limit="bytes")

    for _ in range(MAX_WAITING + 5):
        hub.emit(bad)
    hub.emit(expired)
    hub.close()

    events = [event async for event in stream]
    assert len(events) == MAX_WAITING + 1
    assert events[-1] == expired


async def test_unsubscribed_stream_ends() -> None:
    hub = EventHub()
    stream = hub.subscribe()

    await stream.aclose()
    hub.emit(BadSpi(spi=Spi(0x2000), source=OURS, destination=PEER))

    assert [event async for event in stream] == []


# --- AH ---------------------------------------------------------------------------------------------


def ah(sa: SecurityAssociation, **changes: Any) -> SecurityAssociation:
    """Return an SA of AH with the addresses, selectors and SPI of one of ESP."""
    fields: dict[str, Any] = {
        "protocol": IpsecProtocol.AH,
        "encryption": Encr.NULL,
        "encryption_key": Secret(b""),
        "key_bits": 0,
        "integrity": Integ.HMAC_SHA2_256_128,
        "integrity_key": Secret(bytes(32)),
    }
    return replace(sa, **(fields | changes))


def test_ah_carries_what_its_policy_protects_out_and_in() -> None:
    here, there = Path(), Path()
    here.policies(policy())
    here.install(ah(outbound()))
    there.install(ah(mirrored(outbound())))

    here.out(packet())
    (sealed,) = here.machine.sent
    header, data = parse_outer(sealed, IpsecProtocol.AH)
    there.forwarder.ah_from_wire(data, header, 100.0)

    assert sealed[9] == 51
    assert there.machine.delivered == [packet()]


def mirrored(sa: SecurityAssociation) -> SecurityAssociation:
    """Return the peer's end of an outbound SA."""
    return replace(sa, direction=Direction.INBOUND, local_ts=sa.remote_ts, remote_ts=sa.local_ts)


def test_esp_and_ah_of_one_spi_and_destination_are_two_sas(path: Path) -> None:
    esp_sa = mirrored(outbound())
    path.install(esp_sa)

    path.forwarder.ah_from_wire(
        b"\x04\x05\0\0" + esp_sa.spi.to_bytes(4) + bytes(60),
        OuterHeader(esp_sa.source.packed, esp_sa.destination.packed),
        100.0,
    )

    assert path.forwarder.drops == {DropReason.UNKNOWN_SPI: 1}
    (event,) = path.machine.events
    assert isinstance(event, BadSpi)
    assert event.protocol is IpsecProtocol.AH


def test_ah_that_is_too_short_for_an_spi_is_malformed(path: Path) -> None:
    path.forwarder.ah_from_wire(bytes(11), OuterHeader(PEER.packed, OURS.packed), 100.0)

    assert path.forwarder.drops == {DropReason.MALFORMED: 1}


def test_ah_makes_its_own_fragments_and_stops_at_the_first_that_is_not_sent(path: Path) -> None:
    path.policies(policy())
    entry = path.install(ah(outbound()))
    entry.path_mtu, entry.mtu = 600, 500

    path.out(packet(size=1000))
    assert [len(piece) <= 600 for piece in path.machine.sent] == [True, True]
    assert path.machine.fragmented == []

    path.machine.sent.clear()
    path.machine.answer = SendResult.FAILED
    path.out(packet(size=1000))
    assert path.machine.sent == []
    assert entry.core.usage.drops == {DropReason.SEND_FAILED: 1}
