"""What an inbound SA accepts, drops, counts and reports (RFC 4303 §3.4, RFC 4301 §5.2, RFC 7296 §2.23)."""

import hmac
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.inbound import InboundSa, OuterHeader, parse_outer
from gateway.esp.packet import PADDING
from gateway.esp.transform import make_seal
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, IpsecProtocol, Mode, UdpEncapsulation
from gateway.ipsec.secret import Secret
from tests.unit.esp.samples import (
    BY_NAME,
    CBC,
    ENCAPSULATION,
    GCM,
    OUTER,
    SPI,
    SUITES,
    Suite,
    association,
    esp_of,
    inbound,
    ip_packet,
    make_entropy,
    outbound,
    outer_header,
    selectors,
)

PACKET = ip_packet(4, b"payload")
HEADER = outer_header()
ONE_OF_EACH = [
    BY_NAME[n] for n in ("aes256gcm16", "aes128gcm8", "aes256-sha256", "null-sha256", "aes128gmac")
]


def sealed_plaintext(plaintext: bytes, suite: Suite = GCM, sequence: int = 1, **changes: object) -> bytes:
    """Return an authentic ESP packet with any plaintext, sensible or not."""
    return make_seal(association(Direction.OUTBOUND, suite, **changes), make_entropy())(sequence, plaintext)


def sealed_payload(payload: bytes, next_header: int, sequence: int = 1, **changes: object) -> bytes:
    pad = -(len(payload) + 2) % 4
    plaintext = payload + PADDING[pad] + bytes((pad, next_header))
    return sealed_plaintext(plaintext, sequence=sequence, **changes)


def drop_of(receiver: InboundSa, esp: bytes, outer: OuterHeader = HEADER) -> DropReason:
    with pytest.raises(PacketDropped) as dropped:
        receiver.open(esp, outer, 0.0)
    return dropped.value.reason


# --- header, replay, integrity --------------------------------------------------------------------


def test_open_returns_packet_next_header_and_sequence() -> None:
    receiver = inbound()

    opened = receiver.open(esp_of(outbound(next_sequence=9).seal(PACKET, 0.0)), HEADER, 12.5)

    assert opened == (PACKET, 4, 9, None)
    assert (receiver.sequence, receiver.usage.packets, receiver.usage.bytes) == (9, 1, len(PACKET))
    assert receiver.usage.last_used == 12.5


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_every_truncation_is_dropped_and_leaves_no_trace(suite: Suite) -> None:
    esp = esp_of(outbound(suite).seal(PACKET, 0.0))
    receiver = inbound(suite)

    for length in range(len(esp)):
        assert drop_of(receiver, esp[:length]) in {
            DropReason.MALFORMED,
            DropReason.PADDING,
            DropReason.INTEGRITY,
        }

    assert receiver.open(esp, HEADER, 0.0).packet == PACKET


@pytest.mark.parametrize("suite", SUITES, ids=str)
@pytest.mark.parametrize("esn", [False, True], ids=["sn32", "esn"])
def test_every_flipped_byte_is_dropped_and_leaves_no_trace(suite: Suite, esn: bool) -> None:
    esp = esp_of(outbound(suite, esn=esn, next_sequence=70).seal(PACKET, 0.0))
    receiver = inbound(suite, esn=esn)
    receiver.window.commit(69)

    for at in range(len(esp)):
        flipped = esp[:at] + bytes((esp[at] ^ (1 << at % 8),)) + esp[at + 1 :]
        expected = DropReason.UNKNOWN_SPI if at < 4 else DropReason.INTEGRITY
        assert drop_of(receiver, flipped) is expected

    assert receiver.sequence == 69
    assert receiver.usage.packets == 0
    assert receiver.open(esp, HEADER, 0.0).packet == PACKET


def test_replayed_packet_is_dropped_before_any_key_is_used() -> None:
    receiver = inbound()
    esp = esp_of(outbound().seal(PACKET, 0.0))
    receiver.open(esp, HEADER, 0.0)

    forged_copy = esp[:-1] + bytes((esp[-1] ^ 1,))

    assert drop_of(receiver, esp) is DropReason.REPLAY
    assert drop_of(receiver, forged_copy) is DropReason.REPLAY
    assert receiver.usage.drops == {DropReason.REPLAY: 2}


def test_forged_high_sequence_number_does_not_move_the_window() -> None:
    receiver = inbound(replay_window_packets=64)
    sender = outbound()
    first, second = (esp_of(sender.seal(PACKET, 0.0)) for _ in range(2))
    receiver.open(first, HEADER, 0.0)

    forged = second[:4] + (4_000_000_000).to_bytes(4) + second[8:]

    assert drop_of(receiver, forged) is DropReason.INTEGRITY
    assert receiver.open(second, HEADER, 0.0).sequence == 2


def test_packet_left_of_the_window_is_dropped() -> None:
    sender, receiver = outbound(), inbound(replay_window_packets=64)
    packets = [esp_of(sender.seal(PACKET, 0.0)) for _ in range(65)]
    receiver.open(packets[64], HEADER, 0.0)

    assert drop_of(receiver, packets[0]) is DropReason.REPLAY_WINDOW
    assert receiver.open(packets[1], HEADER, 0.0).sequence == 2


def test_esn_survives_the_change_of_the_high_half() -> None:
    border = 1 << 32
    sender, receiver = outbound(esn=True, next_sequence=border - 2), inbound(esn=True)
    receiver.window.commit(border - 3)

    sequences = [receiver.open(esp_of(sender.seal(PACKET, 0.0)), HEADER, 0.0).sequence for _ in range(5)]

    assert sequences == [border - 2, border - 1, border, border + 1, border + 2]


@pytest.mark.parametrize("suite", ONE_OF_EACH, ids=str)
def test_esn_high_half_is_authenticated(suite: Suite) -> None:
    sender, receiver = outbound(suite, esn=True, next_sequence=(1 << 32) + 5), inbound(suite, esn=True)

    # The receiver is still in subspace 0 and reconstructs 5.
    assert drop_of(receiver, esp_of(sender.seal(PACKET, 0.0))) is DropReason.INTEGRITY


# --- trailer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ONE_OF_EACH, ids=str)
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(b"\x01\x02\x03\x05\x04\x04", id="one byte out of place"),
        pytest.param(b"\x00\x00\x00\x00\x04\x04", id="zeros"),
        pytest.param(b"\x02\x03\x04\x05\x04\x04", id="off by one"),
        pytest.param(b"\x01\x02\x03\x04\xff\x04", id="longer than the packet"),
    ],
)
def test_wrong_padding_is_dropped(suite: Suite, ending: bytes) -> None:
    plaintext = ip_packet(4, bytes(22)) + ending

    assert len(plaintext) == 48
    assert drop_of(inbound(suite), sealed_plaintext(plaintext, suite)) is DropReason.PADDING


def test_longest_padding_is_accepted() -> None:
    packet = ip_packet(4, bytes(3))
    esp = sealed_plaintext(packet + PADDING[255] + bytes((255, 4)))

    assert inbound().open(esp, HEADER, 0.0).packet == packet


def test_plaintext_of_nothing_but_a_trailer_is_malformed_inside() -> None:
    assert drop_of(inbound(), sealed_plaintext(b"\x01\x02\x02\x04")) is DropReason.MALFORMED


def test_partial_block_does_not_disturb_later_packets_of_cbc() -> None:
    # An authentic packet whose ciphertext is not a whole number of blocks, from a broken peer.
    sender, receiver = outbound(CBC), inbound(CBC)
    good = esp_of(sender.seal(PACKET, 0.0))
    odd = good[:-20]
    odd += hmac.digest(CBC.integrity_key, odd, "sha256")[:16]

    assert drop_of(receiver, odd) is DropReason.PADDING
    assert receiver.open(good, HEADER, 0.0).packet == PACKET


# --- tunnel mode ----------------------------------------------------------------------------------


def test_dummy_packet_is_dropped_and_its_number_used_up() -> None:
    receiver = inbound()
    dummy = sealed_payload(b"nothing at all", 59)

    assert drop_of(receiver, dummy) is DropReason.DUMMY
    assert drop_of(receiver, dummy) is DropReason.REPLAY
    assert receiver.usage.packets == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("padding", [1, 2, 3, 100, 1000])
def test_tfc_padding_is_cut_off(version: int, padding: int) -> None:
    packet = ip_packet(version, b"payload")
    next_header = 4 if version == 4 else 41

    opened = inbound().open(sealed_payload(packet + b"\xaa" * padding, next_header), HEADER, 0.0)

    assert opened.packet == packet


@pytest.mark.parametrize("version", [4, 6])
def test_tfc_padding_is_sent_up_to_the_size_asked_for(version: int) -> None:
    sender, plain, receiver = outbound(tfc_padding_bytes=600), outbound(), inbound()
    short, long = ip_packet(version, b"x"), ip_packet(version, b"x" * 700)

    lengths = {len(sender.seal(packet, 0.0)) for packet in (short, ip_packet(version, b"y" * 300))}

    assert lengths == {len(plain.seal(ip_packet(4, bytes(580)), 0.0))}
    assert len(sender.seal(long, 0.0)) == len(plain.seal(long, 0.0))
    assert receiver.open(esp_of(sender.seal(short, 0.0)), HEADER, 0.0).packet == short


@pytest.mark.parametrize(
    ("payload", "next_header", "reason"),
    [
        pytest.param(PACKET, 6, DropReason.MODE_MISMATCH, id="TCP on a tunnel SA"),
        pytest.param(PACKET, 97, DropReason.MODE_MISMATCH, id="Ethernet on a tunnel SA"),
        pytest.param(PACKET, 41, DropReason.MALFORMED, id="IPv4 announced as IPv6"),
        pytest.param(ip_packet(6, b""), 4, DropReason.MALFORMED, id="IPv6 announced as IPv4"),
        pytest.param(PACKET[:19], 4, DropReason.MALFORMED, id="short IPv4 header"),
        pytest.param(ip_packet(6)[:39], 41, DropReason.MALFORMED, id="short IPv6 header"),
        pytest.param(PACKET[:-1], 4, DropReason.MALFORMED, id="IPv4 length beyond the end"),
        pytest.param(ip_packet(6, b"x")[:-1], 41, DropReason.MALFORMED, id="IPv6 length beyond the end"),
        pytest.param(b"\x44" + PACKET[1:], 4, DropReason.MALFORMED, id="IPv4 header of 16"),
        pytest.param(b"\x4f" + PACKET[1:], 4, DropReason.MALFORMED, id="IPv4 header beyond the total length"),
        pytest.param(b"", 4, DropReason.MALFORMED, id="nothing"),
    ],
)
def test_impossible_inner_packets_are_dropped(payload: bytes, next_header: int, reason: DropReason) -> None:
    assert drop_of(inbound(), sealed_payload(payload, next_header)) is reason


# --- selectors ------------------------------------------------------------------------------------

LAN = {"local_ts": selectors("10.2.0.0/16"), "remote_ts": selectors("10.1.0.0/16")}


def test_packet_inside_the_selectors_passes() -> None:
    receiver = inbound(**LAN)

    assert receiver.open(esp_of(outbound().seal(PACKET, 0.0)), HEADER, 0.0).packet == PACKET


@pytest.mark.parametrize(
    "addresses",
    [("10.3.0.1", "10.2.0.1"), ("10.1.0.1", "10.3.0.1"), ("10.2.0.1", "10.1.0.1")],
    ids=["foreign source", "foreign destination", "the wrong way round"],
)
def test_packet_outside_the_selectors_is_dropped(addresses: tuple[str, str]) -> None:
    receiver = inbound(**LAN)
    esp = esp_of(outbound().seal(ip_packet(4, b"x", addresses={4: addresses}), 0.0))

    assert drop_of(receiver, esp) is DropReason.SELECTOR_MISMATCH
    assert receiver.usage.drops == {DropReason.SELECTOR_MISMATCH: 1}
    assert receiver.usage.packets == 0


# --- NAT ------------------------------------------------------------------------------------------

NAT = {"encapsulation": UdpEncapsulation(source_port=31000, destination_port=4500)}
MOVED = outer_header(udp_source_port=31001)
HOME = outer_header(udp_source_port=31000)


def test_new_mapping_is_told_once() -> None:
    sender, receiver = outbound(), inbound(**NAT)
    address = ip_address(OUTER[4][0])

    told = [
        receiver.open(esp_of(sender.seal(PACKET, 0.0)), outer, 0.0).new_source
        for outer in (HOME, MOVED, MOVED, HOME)
    ]

    assert told == [None, (address, 31001), None, (address, 31000)]


def test_new_address_is_a_new_mapping() -> None:
    receiver = inbound(**NAT)
    other = ip_address("198.51.100.7")

    opened = receiver.open(esp_of(outbound().seal(PACKET, 0.0)), HOME._replace(source=other.packed), 0.0)

    assert opened.new_source == (other, 31000)


def test_mapping_is_not_followed_for_forged_old_or_plain_packets() -> None:
    sender, receiver = outbound(), inbound(**NAT)
    first, second, third = (esp_of(sender.seal(PACKET, 0.0)) for _ in range(3))
    receiver.open(second, HOME, 0.0)

    drop_of(receiver, third[:-1] + bytes((third[-1] ^ 1,)), MOVED)

    assert receiver.open(first, MOVED, 0.0).new_source is None, (
        "an old packet, held back and sent from elsewhere"
    )
    assert receiver.open(third, outer_header(), 0.0).new_source is None, "ESP without UDP has no mapping"


def test_new_mapping_of_a_packet_that_is_dropped_later_is_not_lost() -> None:
    receiver = inbound(**NAT)
    moved = (ip_address(OUTER[4][0]), 31001)

    assert drop_of(receiver, sealed_payload(b"", 59, sequence=1), MOVED) is DropReason.DUMMY

    assert receiver.open(sealed_payload(PACKET, 4, sequence=2), MOVED, 0.0).new_source == moved


def test_sa_without_encapsulation_has_no_mapping() -> None:
    opened = inbound().open(esp_of(outbound().seal(PACKET, 0.0)), MOVED, 0.0)

    assert opened.new_source is None


# --- outer headers --------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("udp", [False, True])
def test_parse_outer_takes_off_what_seal_put_on(outer: int, udp: bool) -> None:
    sealed = outbound(outer=outer, encapsulation=ENCAPSULATION if udp else None).seal(
        ip_packet(4, b"x", tos=0xB8), 0.0
    )

    header, esp = parse_outer(sealed)

    source, destination = OUTER[outer]
    assert (header.source, header.destination) == (ip_address(source).packed, ip_address(destination).packed)
    assert (header.tos, header.ttl) == (0xB8, 64)
    assert header.udp_source_port == (4500 if udp else None)
    assert header.header == sealed[: 20 if outer == 4 else 40]
    assert esp[:4] == SPI.to_bytes(4)
    assert inbound(outer=outer).open(esp, header, 0.0).packet == ip_packet(4, b"x", tos=0xB8)


def test_parse_outer_drops_fragments_other_protocols_and_lies() -> None:
    sealed = outbound().seal(PACKET, 0.0)
    fragment = sealed[:6] + b"\x20\x00" + sealed[8:]
    cases = [
        (fragment, DropReason.FRAGMENT),
        (sealed[:9] + b"\x06" + sealed[10:], DropReason.UNSUPPORTED),
        (sealed[:2] + b"\xff\xff" + sealed[4:], DropReason.MALFORMED),
        (sealed[:2] + b"\x00\x13" + sealed[4:], DropReason.MALFORMED),
        (ip_packet(4, b"1234", protocol=17), DropReason.MALFORMED),
        (b"", DropReason.MALFORMED),
        (b"\x45", DropReason.MALFORMED),
        (b"\x60" + bytes(20), DropReason.MALFORMED),
    ]
    for packet, reason in cases:
        with pytest.raises(PacketDropped) as dropped:
            parse_outer(packet)
        assert dropped.value.reason is reason


@given(st.binary(max_size=120))
def test_parse_outer_of_any_bytes_returns_or_drops(packet: bytes) -> None:
    for start in (b"", b"\x45", b"\x60"):
        try:
            parse_outer(start + packet)
        except PacketDropped:
            continue


# --- SAs that are refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"protocol": IpsecProtocol.AH}, "protocol"),
        ({"encryption": Encr.TRIPLE_DES}, "encryption"),
        ({"integrity": Integ.HMAC_SHA2_256_128}, "integrity"),
        ({"encryption": Encr.AES_CBC, "integrity": Integ.NONE}, "integrity"),
        ({"encryption": Encr.NULL, "integrity": Integ.NONE, "key_bits": 0}, "integrity"),
        ({"encryption": Encr.AES_CBC, "integrity": Integ.AES_128_GMAC}, "integrity"),
        ({"key_bits": 64}, "key_bits"),
        ({"key_bits": 128}, "encryption_key"),
        ({"encryption_key": Secret(bytes(32))}, "encryption_key"),
        ({"replay_window_packets": 0, "esn": True}, "replay_window_packets"),
    ],
)
def test_sa_that_cannot_be_carried_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(UnsupportedSa) as refused:
        inbound(**changes)

    assert refused.value.field == field
    assert GCM.encryption_key.hex() not in str(refused.value)


def test_outbound_sa_is_refused() -> None:
    with pytest.raises(UnsupportedSa) as refused:
        InboundSa(association(Direction.OUTBOUND))

    assert refused.value.field == "direction"


def test_integrity_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(UnsupportedSa) as refused:
        inbound(CBC, integrity_key=Secret(bytes(31)))

    assert refused.value.field == "integrity_key"
    assert str(refused.value) == "integrity key is 31 bytes, expected 32"


# --- transport mode -------------------------------------------------------------------------------


@pytest.mark.parametrize("next_header", [4, 41])
def test_tunnel_packet_on_a_transport_sa_is_dropped(next_header: int) -> None:
    receiver = inbound(mode=Mode.TRANSPORT)
    esp = sealed_payload(PACKET, next_header, mode=Mode.TRANSPORT)

    assert drop_of(receiver, esp) is DropReason.MODE_MISMATCH


def test_ip_in_ip_passes_a_transport_sa_whose_selectors_name_it() -> None:
    ts = selectors("192.0.2.0/24[ipip]")
    receiver = inbound(mode=Mode.TRANSPORT, local_ts=ts, remote_ts=ts)

    opened = receiver.open(sealed_payload(PACKET, 4, mode=Mode.TRANSPORT), HEADER, 0.0)

    assert opened.packet == ip_packet(4, PACKET, protocol=4, addresses=OUTER)


def test_dummy_on_a_transport_sa_is_dropped() -> None:
    receiver = inbound(mode=Mode.TRANSPORT)

    assert drop_of(receiver, sealed_payload(b"", 59, mode=Mode.TRANSPORT)) is DropReason.DUMMY
