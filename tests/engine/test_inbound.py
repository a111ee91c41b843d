"""What the engine believes of packets that come in: replay, selectors, ECN, padding, modes, NATs."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gateway.datapath.engine.core import Crypto, EventKind, Refusal, Refused, Worker
from gateway.esp.errors import PacketDropped
from gateway.esp.inbound import InboundSa, parse_outer
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, Mode, Spi, UdpEncapsulation
from tests.unit.esp.ah_samples import ah_association
from tests.unit.esp.samples import (
    BY_NAME,
    ENCAPSULATION,
    OUTER,
    Suite,
    association,
    ip_packet,
    make_entropy,
    material,
    selectors,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "replay"
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(VECTORS.glob("*.json"))
    for case in json.loads(path.read_text())["cases"]
]


def sealer(next_sequence: int = 1, **changes: Any) -> OutboundSa:
    return OutboundSa(
        association(Direction.OUTBOUND, **changes), entropy=make_entropy(), next_sequence=next_sequence
    )


def sealed(packet: bytes, **changes: Any) -> bytes:
    return sealer(**changes).seal(packet, 0.0)


# --- replay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_follows_the_replay_tables_with_real_packets(worker: Worker, case: dict[str, Any]) -> None:
    changes = {"esn": case["esn"]}
    worker.add(association(Direction.INBOUND, replay_window_packets=case["window"], **changes))
    seen = []
    for step in case["steps"]:
        full = step[2] if step[1] == "accept" else step[0]
        # A number of 0 is never sent: what counts of a packet that is dropped are its low 32 bits.
        packet = bytearray(sealed(ip_packet(), next_sequence=max(full, 1), **changes))
        if full == 0:
            packet[24:28] = bytes(4)
        (outcome,) = worker.open([bytes(packet)])
        seen.append([step[0], outcome.drop.value] if outcome.drop else [step[0], "accept", outcome.sequence])

    assert seen == case["steps"]


def test_of_two_copies_in_one_burst_one_passes(worker: Worker) -> None:
    ref = worker.add(association(Direction.INBOUND))
    packet = sealed(ip_packet())

    outcomes = worker.open([packet, packet, packet])

    assert [outcome.drop for outcome in outcomes] == [None, DropReason.REPLAY, DropReason.REPLAY]
    assert worker.usage(ref).drops == {DropReason.REPLAY: 2}


def test_a_packet_that_is_not_authentic_moves_no_window(worker: Worker) -> None:
    ref = worker.add(association(Direction.INBOUND))
    forged = bytearray(sealed(ip_packet(), next_sequence=100_000))
    forged[-1] ^= 1

    assert worker.open([bytes(forged)])[0].drop is DropReason.INTEGRITY
    assert worker.usage(ref).sequence == 0
    assert worker.open([sealed(ip_packet())])[0].drop is None


def test_without_a_window_copies_pass(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND, replay_window_packets=0))
    packet = sealed(ip_packet())

    assert [outcome.drop for outcome in worker.open([packet, packet])] == [None, None]


# --- finding the SA -------------------------------------------------------------------------------


def test_the_low_bits_of_the_spi_are_only_where_the_sa_is_looked_for(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND, spi=Spi(0x1000_0001)))

    outcomes = worker.open(
        [sealed(ip_packet(), spi=Spi(0x2000_0001)), sealed(ip_packet(), spi=Spi(0x1000_0002))]
    )

    assert [outcome.drop for outcome in outcomes] == [DropReason.UNKNOWN_SPI] * 2
    assert worker.drops() == {DropReason.UNKNOWN_SPI: 2}


def test_the_destination_must_be_that_of_the_sa(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND))
    packet = bytearray(sealed(ip_packet()))
    packet[19] ^= 1

    assert worker.open([bytes(packet)])[0].drop is DropReason.UNKNOWN_SPI


def test_an_sa_over_ipv6_is_not_found_over_ipv4(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND, outer=6))

    assert worker.open([sealed(ip_packet())])[0].drop is DropReason.UNKNOWN_SPI


def test_two_spis_of_one_place_cannot_both_be_installed(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND, spi=Spi(0x1000_0001)))

    with pytest.raises(Refused) as refused:
        worker.add(association(Direction.INBOUND, spi=Spi(0x2000_0001)))

    assert refused.value.reason is Refusal.TAKEN


def test_ethernet_padding_behind_the_packet_is_not_part_of_it(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND))
    packet = ip_packet()

    (outcome,) = worker.open([sealed(packet) + bytes(18)])

    assert outcome.packet == packet


@pytest.mark.parametrize("fragment", [0x2000, 0x0001])
def test_fragments_are_not_opened(worker: Worker, fragment: int) -> None:
    worker.add(association(Direction.INBOUND))
    packet = bytearray(sealed(ip_packet()))
    packet[6:8] = fragment.to_bytes(2, "big")

    assert worker.open([bytes(packet)])[0].drop is DropReason.FRAGMENT


# --- what is inside -------------------------------------------------------------------------------


def verdict(reader: InboundSa, packet: bytes) -> tuple[bytes, DropReason | None]:
    outer, esp = parse_outer(packet)
    try:
        return reader.open(esp, outer, 0.0).packet, None
    except PacketDropped as dropped:
        return b"", dropped.reason


@pytest.mark.parametrize(("outer", "inner"), list(product((4, 6), (4, 6))))
def test_combines_ecn_as_rfc_6040_says(worker: Worker, outer: int, inner: int) -> None:
    worker.add(association(Direction.INBOUND, outer=outer, copy_dscp=False))
    reader = InboundSa(association(Direction.INBOUND, outer=outer, copy_dscp=False))
    source = sealer(outer=outer)
    for inner_ecn, outer_ecn in product(range(4), range(4)):
        packet = bytearray(source.seal(ip_packet(inner, b"x", tos=0xB8 | inner_ecn), 0.0))
        if outer == 4:
            packet[1] = packet[1] & 0xFC | outer_ecn
        else:
            packet[1] = packet[1] & 0xCF | outer_ecn << 4

        (outcome,) = worker.open([bytes(packet)])

        assert (outcome.packet, outcome.drop) == verdict(reader, bytes(packet)), (inner_ecn, outer_ecn)


SELECTORS = [
    ("10.1.0.0/16", "10.2.0.0/16"),
    ("10.2.0.0/16", "10.1.0.0/16"),
    ("10.2.0.1/32[17/53]", "10.1.0.1/32[17]"),
    ("10.2.0.1/32[17/53]", "10.1.0.1/32[6]"),
    ("10.2.0.0/16[17/5000-6000]", "10.1.0.0/16[17]"),
    ("10.2.0.0/16[1]", "10.1.0.0/16[1]"),
    ("2001:db8:2::/64", "2001:db8:1::/64"),
]


@pytest.mark.parametrize(("local", "remote"), SELECTORS)
def test_lets_in_what_the_selectors_say(worker: Worker, local: str, remote: str) -> None:
    changes = {"local_ts": selectors(local), "remote_ts": selectors(remote)}
    worker.add(association(Direction.INBOUND, **changes))
    reader = InboundSa(association(Direction.INBOUND, **changes))
    source = sealer()
    packets = [
        ip_packet(4, bytes.fromhex("d431003500080000"), protocol=17),
        ip_packet(4, bytes.fromhex("d431140000080000"), protocol=17),
        ip_packet(4, bytes.fromhex("d4310035") + bytes(16), protocol=6),
        ip_packet(4, bytes.fromhex("0800") + bytes(6), protocol=1),
        ip_packet(4, b"", protocol=17),
        ip_packet(6, bytes.fromhex("d431003500080000"), protocol=17),
        ip_packet(4, b"anything"),
    ]
    found = [source.seal(packet, 0.0) for packet in packets]

    outcomes = worker.open(found)

    assert [(o.packet, o.drop) for o in outcomes] == [verdict(reader, packet) for packet in found]


def test_many_selectors_are_all_looked_at(worker: Worker) -> None:
    local = selectors(*(f"10.{n}.0.0/16" for n in range(2, 32)))
    remote = selectors(*(f"10.{n}.0.0/16" for n in range(100, 131)), "10.1.0.0/16")
    worker.add(association(Direction.INBOUND, local_ts=local, remote_ts=remote))

    assert worker.open([sealed(ip_packet())])[0].drop is None


def test_too_many_selectors_are_refused(worker: Worker) -> None:
    many = selectors(*(f"10.{n}.0.0/16" for n in range(65)))

    with pytest.raises(Refused) as refused:
        worker.add(association(Direction.INBOUND, local_ts=many))

    assert refused.value.reason is Refusal.UNSUPPORTED


def test_transport_mode_packets_find_no_tunnel_and_the_other_way_round(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND))
    transport = sealed(ip_packet(4, b"data", protocol=17, addresses=OUTER), mode=Mode.TRANSPORT)

    assert worker.open([transport])[0].drop is DropReason.MODE_MISMATCH


def test_a_tunnel_packet_on_a_transport_sa_is_dropped(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND, mode=Mode.TRANSPORT))

    assert worker.open([sealed(ip_packet())])[0].drop is DropReason.MODE_MISMATCH


def test_tfc_padding_is_cut_off(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND))
    packet = ip_packet(4, b"short")
    padded = sealed(packet, tfc_padding_bytes=1000)

    (outcome,) = worker.open([padded])

    assert len(padded) > 1000
    assert outcome.packet == packet


# --- UDP encapsulation and NATs -------------------------------------------------------------------


def udp_packet(version: int) -> bytes:
    return ip_packet(version, bytes.fromhex("d43100350010abcd") + b"question", protocol=17, addresses=OUTER)


@pytest.mark.parametrize("version", [4, 6])
def test_transport_mode_behind_a_nat_gets_a_right_checksum(worker: Worker, version: int) -> None:
    changes: dict[str, Any] = {"mode": Mode.TRANSPORT, "outer": version, "encapsulation": ENCAPSULATION}
    worker.add(association(Direction.INBOUND, **changes))
    reader = InboundSa(association(Direction.INBOUND, **changes))
    packet = bytearray(sealed(udp_packet(version), **changes))
    packet[15 if version == 4 else 23] ^= 0x55  # what a NAT does to the source

    (outcome,) = worker.open([bytes(packet)])

    assert (outcome.packet, outcome.drop) == verdict(reader, bytes(packet))
    assert outcome.drop is None


def test_tells_where_the_peer_moved_to_when_the_newest_packet_says_so(worker: Worker) -> None:
    ref = worker.add(association(Direction.INBOUND, encapsulation=ENCAPSULATION), cookie=77)
    old, new = sealer(encapsulation=ENCAPSULATION), sealer(next_sequence=9, encapsulation=ENCAPSULATION)
    moved = bytearray(new.seal(ip_packet(), 0.0))
    moved[12:16], moved[20:22] = bytes((203, 0, 113, 9)), (61000).to_bytes(2, "big")
    late = bytearray(old.seal(ip_packet(), 0.0))
    late[12:16] = bytes((198, 51, 100, 1))
    forged = bytearray(moved)
    forged[-1] ^= 1

    assert worker.open([bytes(forged)])[0].drop is DropReason.INTEGRITY
    assert worker.drain_events() == []
    worker.open([bytes(moved)])
    (event,) = worker.drain_events()
    worker.open([bytes(late)])

    assert (event.ref, event.cookie, event.kinds) == (ref, 77, EventKind.NAT_MOVED)
    assert (event.address, event.port) == (bytes((203, 0, 113, 9)), 61000)
    assert worker.drain_events() == []


def test_esp_in_udp_is_taken_though_no_nat_was_found(worker: Worker) -> None:
    """RFC 7296 §2.23 has every implementation process it."""
    worker.add(association(Direction.INBOUND))
    packet = ip_packet(4, b"data")

    (outcome,) = worker.open(
        [sealed(packet, encapsulation=UdpEncapsulation(source_port=1, destination_port=4500))]
    )

    assert outcome.packet == packet
    assert worker.drain_events() == []


@pytest.mark.parametrize("payload", [b"", b"\xff", bytes(4), b"\0\0\0\0" + bytes(28)])
def test_what_else_comes_to_port_4500_is_no_esp(worker: Worker, payload: bytes) -> None:
    worker.add(association(Direction.INBOUND, encapsulation=ENCAPSULATION))
    udp = (4500).to_bytes(2, "big") * 2 + (8 + len(payload)).to_bytes(2, "big") + bytes(2)

    (outcome,) = worker.open([ip_packet(4, udp + payload, protocol=17, addresses=OUTER)])

    assert outcome.drop in (DropReason.MALFORMED, DropReason.UNKNOWN_SPI)


def test_one_burst_may_hold_packets_of_many_sas_and_of_none(worker: Worker) -> None:
    count = 150
    refs = [worker.add(association(Direction.INBOUND, spi=Spi(0x3000_0000 + n))) for n in range(count)]
    packets = [sealed(ip_packet(4, material(str(n), n)), spi=Spi(0x3000_0000 + n)) for n in range(count)]
    packets[70:70] = [b"", b"\x45", ip_packet(4, b"clear")]

    outcomes = worker.open(packets)

    drops = [outcome.drop for outcome in outcomes]
    assert drops[70:73] == [DropReason.MALFORMED, DropReason.MALFORMED, DropReason.UNSUPPORTED]
    assert drops[:70] + drops[73:] == [None] * count
    assert [outcome.ref for outcome in outcomes if outcome.drop is None] == refs


@pytest.mark.parametrize("mode", Mode)
def test_a_packet_that_the_selectors_refuse_does_not_say_where_the_peer_is(
    worker: Worker, mode: Mode
) -> None:
    changes: dict[str, Any] = {"mode": mode, "encapsulation": ENCAPSULATION}
    worker.add(association(Direction.INBOUND, remote_ts=selectors("10.99.0.0/16"), **changes))
    moved = bytearray(sealed(ip_packet(4, b"data", addresses=OUTER), **changes))
    moved[20:22] = (61000).to_bytes(2, "big")

    assert worker.open([bytes(moved)])[0].drop is DropReason.SELECTOR_MISMATCH
    assert worker.drain_events() == []


@pytest.mark.parametrize(
    "suite", [BY_NAME[name] for name in ("aes256gcm16", "aes256-sha256", "null-sha512")], ids=str
)
def test_the_largest_packets_are_carried(worker: Worker, suite: Suite, crypto: Crypto) -> None:
    ref = worker.add(association(Direction.OUTBOUND, suite), crypto=crypto)
    worker.add(association(Direction.INBOUND, suite), crypto=crypto)
    packet = ip_packet(4, material("large", 65400))

    (outcome,) = worker.seal([(ref, packet)])

    assert worker.open([outcome.packet])[0].packet == packet


def test_ah_larger_than_the_crypto_library_takes_is_refused_alone(worker: Worker, crypto: Crypto) -> None:
    """One job that ipsec-mb refuses would take the others of its burst with it."""
    ref = worker.add(ah_association(Direction.OUTBOUND), crypto=crypto)
    worker.add(ah_association(Direction.INBOUND), crypto=crypto)
    good = worker.seal([(ref, ip_packet())])[0].packet
    header = bytearray(ip_packet(4, good[20:] + bytes(65535 - len(good)), protocol=51, addresses=OUTER))
    header[31] = 200

    outcomes = worker.open([bytes(header), good])

    assert len(header) == 65535
    assert [outcome.drop for outcome in outcomes] == [DropReason.UNSUPPORTED, None]
    large = ip_packet(4, bytes(65480))
    assert worker.seal([(ref, large)])[0].drop is DropReason.TOO_BIG


def test_opening_needs_no_room_around_a_packet_but_for_the_esn_of_ah(worker: Worker) -> None:
    worker.add(association(Direction.INBOUND, esn=True))
    ah_ref = worker.add(ah_association(Direction.OUTBOUND, esn=True))
    worker.add(ah_association(Direction.INBOUND, spi=Spi(0x2001), esn=True))
    (signed,) = worker.seal([(ah_ref, ip_packet())])
    named = signed.packet[:24] + (0x2001).to_bytes(4, "big") + signed.packet[28:]

    assert worker.open([sealed(ip_packet(), esn=True)], tailroom=0)[0].drop is None
    assert worker.open([named], tailroom=0)[0].drop is DropReason.UNSUPPORTED
    assert worker.open([named], tailroom=4)[0].drop is DropReason.INTEGRITY
