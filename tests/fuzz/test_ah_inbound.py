"""Garbage in, `PacketDropped` out, and nothing else: the inbound AH path under any bytes and any peer."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.esp.ah import AhSeal
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.errors import PacketDropped
from gateway.esp.inbound import OuterHeader, parse_outer
from gateway.esp.mutable import outbound_cover
from gateway.esp.packet import PROTOCOL_AH
from gateway.esp.transport import with_payload
from gateway.esp.tunnel import make_bare_header
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, Mode
from tests.unit.esp.ah_samples import AH_SUITES, AhSuite, ah_association, ah_inbound, ah_outbound
from tests.unit.esp.samples import OUTER, SPI, ip_packet, outer_header

SUITE = st.sampled_from(AH_SUITES)
MODE = st.sampled_from(list(Mode))
VERSION = st.sampled_from([4, 6])
BEFORE_AUTHENTICATION = {
    DropReason.MALFORMED,
    DropReason.UNSUPPORTED,
    DropReason.FRAGMENT,
    DropReason.INTEGRITY,
    DropReason.UNKNOWN_SPI,
    DropReason.REPLAY_WINDOW,
}


def receive(receiver: AhInboundSa, ah: bytes, outer: OuterHeader) -> bytes | DropReason:
    try:
        return receiver.open(ah, outer, 0.0).packet
    except PacketDropped as dropped:
        return dropped.reason


@settings(max_examples=400)
@given(
    suite=SUITE,
    mode=MODE,
    outer=VERSION,
    esn=st.booleans(),
    has_head=st.booleans(),
    header=st.binary(max_size=100),
    data=st.binary(max_size=200),
)
def test_bytes_from_a_stranger_are_dropped_without_a_trace(
    *, suite: AhSuite, mode: Mode, outer: int, esn: bool, has_head: bool, header: bytes, data: bytes
) -> None:
    receiver = ah_inbound(suite, mode=mode, outer=outer, esn=esn)
    head = AhSeal(ah_association(Direction.OUTBOUND, suite, outer=outer)).header(4, 1)[:12]
    start = b"\x45" if outer == 4 else b"\x60"
    facts = outer_header(outer, header=start + header if header else b"")

    verdict = receive(receiver, (head if has_head else b"") + data, facts)

    assert verdict in BEFORE_AUTHENTICATION
    assert receiver.sequence == 0
    assert receiver.usage.packets == 0
    assert receiver.usage.drops == {verdict: 1}


@settings(max_examples=400)
@given(
    suite=SUITE,
    mode=MODE,
    outer=VERSION,
    body=st.binary(max_size=120),
    next_header=st.sampled_from([0, 1, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 97, 135, 255]),
    tos=st.integers(0, 255),
    start=st.sampled_from([b"", b"\x45", b"\x46", b"\x60"]),
)
def test_any_authentic_payload_is_opened_or_dropped(
    *, suite: AhSuite, mode: Mode, outer: int, body: bytes, next_header: int, tos: int, start: bytes
) -> None:
    seal = AhSeal(ah_association(Direction.OUTBOUND, suite, mode=mode, outer=outer))
    source, destination = outer_header(outer)[:2]
    bare = make_bare_header(source, destination, tos, 64)
    packet = with_payload(bare, PROTOCOL_AH, seal.header(next_header, 1) + start + body)
    facts, ah = parse_outer(seal.sign(packet, len(bare), 1), PROTOCOL_AH)
    receiver = ah_inbound(suite, mode=mode, outer=outer)

    verdict = receive(receiver, ah, facts)

    assert isinstance(verdict, (bytes, DropReason))
    assert verdict is not DropReason.INTEGRITY
    assert receiver.sequence == 1
    assert receive(receiver, ah, facts) is DropReason.REPLAY


@settings(max_examples=300)
@given(
    suite=SUITE,
    mode=MODE,
    inner=VERSION,
    outer=VERSION,
    esn=st.booleans(),
    payload=st.binary(max_size=300),
    data=st.data(),
)
def test_what_is_sealed_opens_and_a_flipped_bit_does_not(
    *, suite: AhSuite, mode: Mode, inner: int, outer: int, esn: bool, payload: bytes, data: st.DataObject
) -> None:
    if mode is Mode.TRANSPORT:
        inner = outer
    packet = ip_packet(inner, payload, addresses=OUTER if mode is Mode.TRANSPORT else None)
    if inner == 4:
        packet = packet[:4] + SPI.to_bytes(4)[:2] + packet[6:]  # else a sender may put an identification in
        packet = with_payload(packet[:20], packet[9], packet[20:])
    sealed = ah_outbound(suite, mode=mode, outer=outer, esn=esn).seal(packet, 0.0)
    header, ah = parse_outer(sealed, PROTOCOL_AH)
    receiver = ah_inbound(suite, mode=mode, outer=outer, esn=esn)
    bit = data.draw(st.integers(0, len(ah) * 8 - 1))

    flipped = (int.from_bytes(ah) ^ (1 << bit)).to_bytes(len(ah))
    verdict = receive(receiver, flipped, header)

    assert verdict in BEFORE_AUTHENTICATION | {DropReason.REPLAY}
    assert receiver.sequence == 0
    assert receive(receiver, ah, header) == packet


@given(st.sampled_from([b"\x45", b"\x46", b"\x4f", b"\x60"]), st.binary(min_size=39, max_size=120))
def test_mutable_fields_of_any_header_are_told_or_the_packet_is_dropped(start: bytes, rest: bytes) -> None:
    header = start + rest
    if start != b"\x60":
        header = header[: (header[0] & 15) * 4]
    try:
        covered = outbound_cover(header)
    except PacketDropped:
        return
    assert len(covered) == len(header)
