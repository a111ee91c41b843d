"""Garbage in, `PacketDropped` out, and nothing else: the inbound ESP path under any bytes and any peer.

Two attackers are played: one without the key, whose every packet must fail before it leaves a trace, and one
with it (a broken or hostile peer), whose authentic packets may hold any plaintext.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.esp.errors import PacketDropped
from gateway.esp.inbound import InboundSa, OuterHeader, parse_outer
from gateway.esp.transform import make_seal
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, Mode
from tests.unit.esp.samples import (
    BY_NAME,
    ENCAPSULATION,
    OUTER,
    SPI,
    association,
    esp_of,
    inbound,
    ip_packet,
    make_entropy,
    outbound,
    outer_header,
)

SUITE_NAMES = ("aes256gcm16", "aes128gcm8", "aes128ccm12", "chacha20poly1305", "aes256-sha256", "null-sha1")
SUITE = st.sampled_from([BY_NAME[name] for name in SUITE_NAMES])
MODE = st.sampled_from(list(Mode))
VERSION = st.sampled_from([4, 6])
BEFORE_AUTHENTICATION = {
    DropReason.MALFORMED,
    DropReason.PADDING,
    DropReason.INTEGRITY,
    DropReason.UNKNOWN_SPI,
    DropReason.REPLAY,
    DropReason.REPLAY_WINDOW,
}


def receive(receiver: InboundSa, esp: bytes, outer: OuterHeader) -> bytes | DropReason:
    try:
        return receiver.open(esp, outer, 0.0).packet
    except PacketDropped as dropped:
        return dropped.reason


@settings(max_examples=300)
@given(
    suite=SUITE,
    mode=MODE,
    outer=VERSION,
    esn=st.booleans(),
    has_spi=st.booleans(),
    data=st.binary(max_size=200),
)
def test_bytes_from_a_stranger_are_dropped_without_a_trace(
    *, suite: object, mode: Mode, outer: int, esn: bool, has_spi: bool, data: bytes
) -> None:
    receiver = inbound(suite, mode=mode, outer=outer, esn=esn)

    verdict = receive(receiver, (SPI.to_bytes(4) if has_spi else b"") + data, outer_header(outer))

    assert verdict in BEFORE_AUTHENTICATION
    assert receiver.sequence == 0
    assert receiver.usage.packets == 0
    assert receiver.usage.drops == {verdict: 1}


@settings(max_examples=300)
@given(
    suite=SUITE,
    mode=MODE,
    outer=VERSION,
    body=st.binary(max_size=120),
    pad=st.integers(0, 20),
    next_header=st.sampled_from([0, 1, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 97, 135, 255]),
    tos=st.integers(0, 255),
    start=st.sampled_from([b"", b"\x45", b"\x46", b"\x60"]),
    udp=st.booleans(),
)
def test_any_authentic_plaintext_is_opened_or_dropped(
    *,
    suite: object,
    mode: Mode,
    outer: int,
    body: bytes,
    pad: int,
    next_header: int,
    tos: int,
    start: bytes,
    udp: bool,
) -> None:
    encapsulation = ENCAPSULATION if udp else None
    sa = association(Direction.OUTBOUND, suite, mode=mode, outer=outer)
    payload = start + body
    payload += bytes(-(len(payload) + pad + 2) % 16)
    plaintext = payload + bytes(range(1, pad + 1)) + bytes((pad, next_header))
    esp = make_seal(sa, make_entropy())(1, plaintext)
    receiver = inbound(suite, mode=mode, outer=outer, encapsulation=encapsulation)
    facts = outer_header(outer, tos=tos, udp_source_port=4500 if udp else None)

    verdict = receive(receiver, esp, facts)

    assert isinstance(verdict, (bytes, DropReason))
    assert verdict is not DropReason.INTEGRITY
    assert receiver.sequence == 1
    assert receive(receiver, esp, facts) is DropReason.REPLAY


@settings(max_examples=300)
@given(
    suite=SUITE,
    mode=MODE,
    inner=VERSION,
    outer=VERSION,
    esn=st.booleans(),
    payload=st.binary(max_size=300),
    dscp=st.integers(0, 63),
    data=st.data(),
)
def test_what_is_sealed_opens_and_a_flipped_bit_does_not(
    *,
    suite: object,
    mode: Mode,
    inner: int,
    outer: int,
    esn: bool,
    payload: bytes,
    dscp: int,
    data: st.DataObject,
) -> None:
    if mode is Mode.TRANSPORT:
        inner = outer
    addresses = OUTER if mode is Mode.TRANSPORT else None
    packet = ip_packet(inner, payload, tos=dscp << 2, addresses=addresses)
    sealed = outbound(suite, mode=mode, outer=outer, esn=esn).seal(packet, 0.0)
    header, esp = parse_outer(sealed)
    assert esp == esp_of(sealed)
    receiver = inbound(suite, mode=mode, outer=outer, esn=esn)
    bit = data.draw(st.integers(0, len(esp) * 8 - 1))

    flipped = (int.from_bytes(esp) ^ (1 << bit)).to_bytes(len(esp))
    verdict = receive(receiver, flipped, header)

    assert verdict in BEFORE_AUTHENTICATION
    assert receiver.sequence == 0
    assert receive(receiver, esp, header) == packet
    assert receive(receiver, esp, header) is DropReason.REPLAY


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=60), st.booleans())
def test_no_packet_is_delivered_twice_in_any_order(arrivals: list[tuple[int, bool]], esn: bool) -> None:
    sender, receiver = outbound(esn=esn), inbound(esn=esn, replay_window_packets=64)
    packets = [esp_of(sender.seal(ip_packet(4, n.to_bytes(2)), 0.0)) for n in range(1, 401)]
    delivered: list[bytes] = []

    for number, is_damaged in arrivals:
        esp = packets[number - 1]
        if is_damaged:
            esp = esp[:-1] + bytes((esp[-1] ^ 0x80,))
        verdict = receive(receiver, esp, outer_header())
        if isinstance(verdict, bytes):
            delivered.append(verdict)
            assert not is_damaged

    assert len(delivered) == len(set(delivered)) == receiver.usage.packets
