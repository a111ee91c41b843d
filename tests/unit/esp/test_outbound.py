"""What an outbound SA sends, refuses and counts (RFC 4303 §3.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.outbound import OutboundSa
from gateway.esp.transform import layout
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, Mode
from tests.unit.esp.samples import (
    BY_NAME,
    CBC,
    ENCAPSULATION,
    OUTER,
    SUITES,
    Suite,
    association,
    esp_of,
    ip_packet,
    outbound,
)

PACKET = ip_packet(4, b"payload")


def drop_of(sender: OutboundSa, packet: bytes) -> DropReason:
    with pytest.raises(PacketDropped) as dropped:
        sender.seal(packet, 0.0)
    return dropped.value.reason


def sequence_of(sealed: bytes) -> int:
    return int.from_bytes(esp_of(sealed)[4:8])


def test_sequence_starts_at_one_and_counts_up() -> None:
    sender = outbound()

    assert [sequence_of(sender.seal(PACKET, 0.0)) for _ in range(3)] == [1, 2, 3]
    assert sender.sequence == 3


def test_sequence_goes_on_from_where_it_is_told() -> None:
    assert sequence_of(outbound(next_sequence=1000).seal(PACKET, 0.0)) == 1000


@pytest.mark.parametrize(("esn", "last"), [(False, (1 << 32) - 1), (True, (1 << 64) - 1)])
def test_sequence_never_cycles(esn: bool, last: int) -> None:
    sender = outbound(esn=esn, next_sequence=last)

    assert sequence_of(sender.seal(PACKET, 0.0)) == 0xFFFFFFFF
    for _ in range(3):
        assert drop_of(sender, PACKET) is DropReason.SEQUENCE_OVERFLOW
    assert sender.sequence == last
    assert sender.usage.drops == {DropReason.SEQUENCE_OVERFLOW: 3}
    assert [tuple(e) for e in sender.drain_expiries()] == [(False, "sequence"), (True, "sequence")]
    assert sender.drain_expiries() == ()


def test_esn_goes_over_the_32_bits() -> None:
    sender = outbound(esn=True, next_sequence=(1 << 32) - 1)

    assert [sequence_of(sender.seal(PACKET, 0.0)) for _ in range(3)] == [0xFFFFFFFF, 0, 1]


COUNTER_IV = [suite for suite in SUITES if suite.encryption not in {Encr.AES_CBC, Encr.NULL}]


@pytest.mark.parametrize("suite", COUNTER_IV, ids=str)
@pytest.mark.parametrize("esn", [False, True])
def test_iv_of_counter_modes_is_the_sequence_number(suite: Suite, esn: bool) -> None:
    start = (9 << 32) + 5 if esn else 5
    sender = outbound(suite, esn=esn, next_sequence=start)

    ivs = [int.from_bytes(esp_of(sender.seal(PACKET, 0.0))[8:16]) for _ in range(4)]

    assert ivs == [start, start + 1, start + 2, start + 3]


def test_iv_of_cbc_never_repeats_even_for_equal_packets() -> None:
    sender = outbound(CBC)

    ivs = {esp_of(sender.seal(PACKET, 0.0))[8:24] for _ in range(200)}

    assert len(ivs) == 200


def test_iv_of_cbc_follows_the_entropy_and_not_the_sequence() -> None:
    sa = association(Direction.OUTBOUND, CBC)
    one = OutboundSa(sa, entropy=lambda size: b"\x01" * size)
    other = OutboundSa(sa, entropy=lambda size: b"\x02" * size)

    assert esp_of(one.seal(PACKET, 0.0))[8:24] != esp_of(other.seal(PACKET, 0.0))[8:24]


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_what_is_encrypted_fills_whole_blocks_with_as_little_padding_as_possible(suite: Suite) -> None:
    sender, sizes = outbound(suite), layout(association(Direction.OUTBOUND, suite))
    block = 16 if suite.encryption is Encr.AES_CBC else 4

    for size in range(20):
        packet = ip_packet(4, bytes(size))
        esp = sender.seal_payload(packet, 0.0).payload
        encrypted = len(esp) - 8 - sizes.iv_bytes - sizes.icv_bytes
        assert encrypted % block == 0
        assert 2 <= encrypted - len(packet) < block + 2


def test_dropped_packet_uses_no_sequence_number() -> None:
    sender = outbound()

    assert drop_of(sender, b"") is DropReason.MALFORMED
    assert drop_of(sender, b"\x45" * 19) is DropReason.MALFORMED
    assert drop_of(sender, b"\x60" * 39) is DropReason.MALFORMED
    assert drop_of(sender, b"\x50" * 60) is DropReason.MALFORMED
    assert sequence_of(sender.seal(PACKET, 0.0)) == 1


@pytest.mark.parametrize("suite", SUITES, ids=str)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("udp", [False, True])
def test_too_long_packet_is_dropped_and_never_overflows_a_length(suite: Suite, outer: int, udp: bool) -> None:
    sender = outbound(suite, outer=outer, encapsulation=ENCAPSULATION if udp else None)
    longest = ip_packet(4, bytes(sender.effective_mtu(65535) - 60))

    assert 65535 - 80 <= len(sender.seal(longest, 0.0)) <= 65535
    assert drop_of(sender, ip_packet(4, bytes(65535 - 20))) is DropReason.TOO_BIG


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize("outer", [4, 6])
def test_seal_payload_is_seal_without_the_outer_header(outer: int, udp: bool) -> None:
    encapsulation = ENCAPSULATION if udp else None
    whole = outbound(outer=outer, encapsulation=encapsulation).seal(PACKET, 0.0)
    told = outbound(outer=outer, encapsulation=encapsulation).seal_payload(PACKET, 0.0)

    assert whole.endswith(told.payload)
    assert len(whole) - len(told.payload) == (20 if outer == 4 else 40) + (8 if udp else 0)
    assert told.ttl == 64


def test_usage_counts_inner_bytes() -> None:
    sender = outbound()

    sender.seal(PACKET, 1.0)
    sender.seal_payload(PACKET, 2.0)

    assert (sender.usage.packets, sender.usage.bytes, sender.usage.last_used) == (2, 2 * len(PACKET), 2.0)


def test_inbound_sa_is_refused() -> None:
    with pytest.raises(UnsupportedSa) as refused:
        OutboundSa(association(Direction.INBOUND), entropy=bytes)

    assert refused.value.field == "direction"


def test_transport_mode_follows_a_new_port_and_no_new_address() -> None:
    sender = outbound(mode=Mode.TRANSPORT, encapsulation=ENCAPSULATION)
    packet = ip_packet(4, b"x", addresses=OUTER)

    sender.move(sender.sa.destination, 31337)

    assert IP(sender.seal(packet, 0.0))[UDP].dport == 31337
    with pytest.raises(UnsupportedSa) as refused:
        sender.move(sender.sa.destination + 1, 31337)
    assert refused.value.field == "mode"


def test_only_an_encapsulated_sa_of_that_family_follows_a_mapping() -> None:
    with pytest.raises(UnsupportedSa) as refused:
        outbound().move(outbound().sa.destination, 4501)
    assert refused.value.field == "encapsulation"
    with pytest.raises(UnsupportedSa) as refused:
        outbound(encapsulation=ENCAPSULATION).move(outbound(outer=6).sa.destination, 4501)
    assert refused.value.field == "destination"


@given(st.binary(max_size=100))
def test_any_bytes_are_sealed_or_dropped(packet: bytes) -> None:
    senders = [
        outbound(BY_NAME[name], mode=mode, outer=outer)
        for name, mode, outer in (
            ("aes256gcm16", Mode.TUNNEL, 4),
            ("aes256-sha256", Mode.TRANSPORT, 4),
            ("aes128gcm16", Mode.TRANSPORT, 6),
        )
    ]
    for sender in senders:
        for start in (b"", b"\x45", b"\x60"):
            for seal in (sender.seal, sender.seal_payload):
                try:
                    seal(start + packet, 0.0)
                except PacketDropped:
                    continue


def test_outer_checksum_is_right_for_every_length() -> None:
    sender = outbound()
    for size in range(0, 300, 7):
        sealed = sender.seal(ip_packet(4, bytes(size)), 0.0)
        rebuilt = IP(sealed)
        del rebuilt.chksum
        assert bytes(rebuilt) == sealed
