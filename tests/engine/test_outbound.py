"""What the engine sends: sizes, headers, limits, sequence blocks, hand-over, tunnels."""

from ipaddress import ip_address
from itertools import product
from typing import Any

import pytest

from gateway.datapath.engine.core import (
    EngineLibrary,
    EventKind,
    Refusal,
    Refused,
    Worker,
)
from gateway.datapath.engine.records import NO_REF
from gateway.esp.errors import PacketDropped
from gateway.esp.inbound import InboundSa, parse_outer
from gateway.esp.mtu import effective_mtu
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.sa import Direction, Mode, Spi
from gateway.ipsec.secret import Secret
from tests.unit.esp.ah_samples import ah_association
from tests.unit.esp.samples import (
    BY_NAME,
    CBC,
    ENCAPSULATION,
    OUTER,
    association,
    ip_packet,
    make_entropy,
    material,
)

SUITES = ("aes256gcm16", "aes256-sha256", "null-sha512", "chacha20poly1305")


def out(**changes: Any) -> Any:
    return association(Direction.OUTBOUND, **changes)


def reference(next_sequence: int = 1, **changes: Any) -> OutboundSa:
    return OutboundSa(out(**changes), entropy=make_entropy(), next_sequence=next_sequence)


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copy_dscp", "copy_df", "outer", "inner"), list(product((False, True), (False, True), (4, 6), (4, 6)))
)
def test_outer_dscp_ecn_and_df_are_those_of_the_reference(
    worker: Worker, copy_dscp: bool, copy_df: bool, outer: int, inner: int
) -> None:
    changes = {"copy_dscp": copy_dscp, "copy_df": copy_df, "outer": outer}
    ref = worker.add(out(**changes))
    expected = reference(**changes)
    packets = [ip_packet(inner, b"data", tos=tos) for tos in (0, 1, 2, 3, 0xB8, 0xFF)]
    if inner == 4:
        packets = [packet[:6] + bytes((df,)) + packet[7:] for packet in packets for df in (0, 0x40)]

    outcomes = worker.seal([(ref, packet) for packet in packets])

    assert [outcome.packet for outcome in outcomes] == [expected.seal(packet, 0.0) for packet in packets]


@pytest.mark.parametrize("bad", [b"", b"\x45", b"\x60" + bytes(38), bytes(40), b"\x55" + bytes(40)])
def test_what_is_no_ip_packet_is_not_sealed(worker: Worker, bad: bytes) -> None:
    ref = worker.add(out())

    (outcome,) = worker.seal([(ref, bad)])

    assert outcome.drop is DropReason.MALFORMED
    assert worker.usage(ref).sequence == 0


EXTENSIONS = {
    "hop by hop": (0, bytes.fromhex("0b00050200000100")),
    "destination options": (60, bytes.fromhex("0b00010400000000")),
    "routing": (43, bytes.fromhex("0b02020100000000") + ip_address("2001:db8::9").packed),
    "fragment": (44, bytes.fromhex("0b00000100000001")),
    "truncated": (0, bytes.fromhex("0bff050200000100")),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_transport_mode_goes_behind_the_headers_for_the_way(worker: Worker, name: str) -> None:
    number, header = EXTENSIONS[name]
    changes: dict[str, Any] = {"mode": Mode.TRANSPORT, "outer": 6}
    ref = worker.add(out(**changes))
    packet = ip_packet(6, header + b"payload", protocol=number, addresses=OUTER)
    try:
        expected: Any = reference(**changes).seal(packet, 0.0)
    except PacketDropped as dropped:
        expected = dropped.reason

    (outcome,) = worker.seal([(ref, packet)])

    assert (outcome.drop or outcome.packet) == expected


def test_transport_mode_keeps_ipv4_options(worker: Worker) -> None:
    ref = worker.add(out(mode=Mode.TRANSPORT))
    worker.add(association(Direction.INBOUND, mode=Mode.TRANSPORT))
    bare = ip_packet(4, b"payload", addresses=OUTER)
    packet = bytes((0x46,)) + bare[1:20] + bytes.fromhex("94040000") + bare[20:]

    (outcome,) = worker.seal([(ref, packet)])

    assert outcome.packet == reference(mode=Mode.TRANSPORT).seal(packet, 0.0)
    (opened,) = worker.open([outcome.packet])
    assert opened.packet[20:] == packet[20:]


def test_transport_mode_takes_no_fragments_and_no_other_family(worker: Worker) -> None:
    ref = worker.add(out(mode=Mode.TRANSPORT))
    packet = ip_packet(4, b"payload", addresses=OUTER)
    fragment = packet[:6] + b"\x20" + packet[7:]

    outcomes = worker.seal([(ref, fragment), (ref, ip_packet(6, b"payload"))])

    assert [outcome.drop for outcome in outcomes] == [DropReason.FRAGMENT, DropReason.MODE_MISMATCH]


def test_follows_the_peer_to_another_address_and_port(worker: Worker) -> None:
    ref = worker.add(out(encapsulation=ENCAPSULATION))
    expected = reference(encapsulation=ENCAPSULATION)
    expected.move(ip_address("203.0.113.7"), 61001)

    worker.move(ref, ip_address("203.0.113.7"), 61001)

    packet = ip_packet(4, b"data")
    assert worker.seal([(ref, packet)])[0].packet == expected.seal(packet, 0.0)


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({}, "203.0.113.7"),
        ({"encapsulation": ENCAPSULATION, "mode": Mode.TRANSPORT}, "203.0.113.7"),
    ],
    ids=["no UDP", "transport mode"],
)
def test_does_not_follow_where_that_is_impossible(
    worker: Worker, changes: dict[str, Any], address: str
) -> None:
    ref = worker.add(out(**changes))

    with pytest.raises(Refused) as refused:
        worker.move(ref, ip_address(address), 61001)

    assert refused.value.reason is Refusal.INVALID


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outer", "udp", "path_mtu"),
    list(product(SUITES, (4, 6), (None, ENCAPSULATION), (576, 1280, 1500, 1501))),
)
def test_seals_what_fits_the_path_and_not_one_byte_more(
    worker: Worker, name: str, outer: int, udp: Any, path_mtu: int
) -> None:
    sa = out(suite=BY_NAME[name], outer=outer, encapsulation=udp)
    ref = worker.add(sa, path_mtu=path_mtu)
    most = effective_mtu(sa, path_mtu)

    fits, too_big = worker.seal([(ref, ip_packet(4, bytes(size - 20))) for size in (most, most + 1)])

    assert worker.usage(ref).effective_mtu == most
    assert len(fits.packet) <= path_mtu
    assert too_big.drop is DropReason.TOO_BIG
    assert worker.usage(ref).sequence == 1


@pytest.mark.parametrize("name", SUITES)
def test_transport_mode_keeps_to_the_path_mtu_too(worker: Worker, name: str) -> None:
    sa = out(suite=BY_NAME[name], mode=Mode.TRANSPORT)
    ref = worker.add(sa, path_mtu=1500)
    most = effective_mtu(sa, 1500)

    fits, too_big = worker.seal(
        [(ref, ip_packet(4, bytes(size - 20), addresses=OUTER)) for size in (most, most + 1)]
    )

    assert len(fits.packet) <= 1500
    assert too_big.drop is DropReason.TOO_BIG


def test_a_path_mtu_that_shrinks_is_followed(worker: Worker) -> None:
    ref = worker.add(out(), path_mtu=1500)
    packet = ip_packet(4, bytes(1400))
    assert worker.seal([(ref, packet)])[0].drop is None

    worker.set_path_mtu(ref, 1280)

    assert worker.seal([(ref, packet)])[0].drop is DropReason.TOO_BIG


def test_a_packet_without_room_around_it_is_refused(worker: Worker) -> None:
    ref = worker.add(out())

    (outcome,) = worker.seal([(ref, ip_packet(4, b"data"))], tailroom=63)

    assert outcome.drop is DropReason.TOO_BIG


@pytest.mark.parametrize("size", [0, 100, 1000, 1400])
def test_tfc_padding_hides_the_size(worker: Worker, size: int) -> None:
    changes = {"tfc_padding_bytes": 1000}
    ref = worker.add(out(**changes))
    packet = ip_packet(4, bytes(size))

    (outcome,) = worker.seal([(ref, packet)])

    assert outcome.packet == reference(**changes).seal(packet, 0.0)
    assert worker.usage(ref).bytes == len(packet)


def test_tfc_padding_does_not_exceed_the_path_mtu(worker: Worker) -> None:
    ref = worker.add(out(tfc_padding_bytes=1500), path_mtu=1400)

    (outcome,) = worker.seal([(ref, ip_packet(4, b"data"))])

    assert 1390 < len(outcome.packet) <= 1400


def test_a_dummy_packet_is_one_that_the_receiver_throws_away(worker: Worker) -> None:
    ref = worker.add(out())
    worker.add(association(Direction.INBOUND))

    (dummy,) = worker.seal([(ref, material("noise", 200))], dummy=True)

    outer, esp = parse_outer(dummy.packet)
    with pytest.raises(PacketDropped) as dropped:
        InboundSa(association(Direction.INBOUND)).open(esp, outer, 0.0)
    assert dropped.value.reason is DropReason.DUMMY
    assert worker.open([dummy.packet])[0].drop is DropReason.DUMMY


@pytest.mark.parametrize(
    "sa", [out(mode=Mode.TRANSPORT), ah_association(Direction.OUTBOUND)], ids=["transport", "AH"]
)
def test_dummy_packets_are_for_esp_tunnels_only(worker: Worker, sa: Any) -> None:
    ref = worker.add(sa)

    (outcome,) = worker.seal([(ref, ip_packet(4, b"x", addresses=OUTER))], dummy=True)

    assert outcome.drop is DropReason.UNSUPPORTED


# --- limits ---------------------------------------------------------------------------------------


def test_soft_and_hard_limits_are_told_once_and_kept(worker: Worker) -> None:
    lifetime = Lifetime(soft=Limit(packets=2, bytes=100), hard=Limit(packets=4))
    ref = worker.add(out(lifetime=lifetime), cookie=5)
    packet = ip_packet(4, bytes(10))  # 30 bytes

    told = []
    for _ in range(6):
        (outcome,) = worker.seal([(ref, packet)])
        told.append((outcome.drop, [event.kinds for event in worker.drain_events()]))

    assert told == [
        (None, []),
        (None, [EventKind.SOFT_PACKETS]),
        (None, []),
        (None, [EventKind.HARD_PACKETS | EventKind.SOFT_BYTES]),
        (DropReason.SA_EXPIRED, []),
        (DropReason.SA_EXPIRED, []),
    ]
    assert worker.usage(ref).is_expired


def test_a_packet_beyond_the_hard_limit_of_bytes_is_not_carried(worker: Worker) -> None:
    ref = worker.add(out(lifetime=Lifetime(hard=Limit(bytes=100))))

    outcomes = worker.seal([(ref, ip_packet(4, bytes(size))) for size in (60, 10, 0)])

    assert [outcome.drop for outcome in outcomes] == [None, DropReason.SA_EXPIRED, DropReason.SA_EXPIRED]
    assert [event.kinds for event in worker.drain_events()] == [EventKind.HARD_BYTES]
    assert worker.usage(ref).bytes == 80


def test_inbound_limits_hold_too(worker: Worker) -> None:
    ref = worker.add(association(Direction.INBOUND, lifetime=Lifetime(hard=Limit(packets=2))))
    source = reference()
    packets = [source.seal(ip_packet(), 0.0) for _ in range(3)]

    first = worker.open(packets[:2])
    last = worker.open(packets[2:])

    assert [outcome.drop for outcome in first + last] == [None, None, DropReason.SA_EXPIRED]
    assert worker.usage(ref).packets == 2


@pytest.mark.parametrize(("esn", "last"), [(False, 2**32 - 1), (True, 2**64 - 1)])
def test_the_sequence_number_never_cycles(worker: Worker, esn: bool, last: int) -> None:
    ref = worker.add(out(esn=esn), next_sequence=last - 1)

    outcomes = worker.seal([(ref, ip_packet())] * 4)

    assert [outcome.sequence for outcome in outcomes] == [last - 1, last, 0, 0]
    assert [outcome.drop for outcome in outcomes][2:] == [DropReason.SEQUENCE_OVERFLOW] * 2
    (event,) = worker.drain_events()
    assert event.kinds == EventKind.SOFT_SEQUENCE | EventKind.HARD_SEQUENCE
    assert worker.seal([(ref, ip_packet())])[0].drop is DropReason.SEQUENCE_OVERFLOW


# --- never an IV twice ----------------------------------------------------------------------------


def test_only_reserved_numbers_are_used(worker: Worker) -> None:
    ref = worker.add(out(), sequence_limit=9)

    outcomes = worker.seal([(ref, ip_packet())] * 10)

    assert [outcome.sequence for outcome in outcomes] == [*range(1, 9), 0, 0]
    assert outcomes[-1].drop is DropReason.SEQUENCE_OVERFLOW
    assert [event.kinds for event in worker.drain_events()] == [EventKind.RESERVE]


def test_a_new_block_is_asked_for_in_time_and_again(worker: Worker) -> None:
    ref = worker.add(out(), sequence_limit=101)
    asked = []
    for _ in range(300):
        (outcome,) = worker.seal([(ref, ip_packet())])
        assert outcome.drop is None
        if any(event.kinds is EventKind.RESERVE for event in worker.drain_events()):
            asked.append(outcome.sequence)
            worker.reserve(ref, outcome.sequence + 101)

    assert asked[0] == 76
    assert len(asked) >= 3


def test_a_reservation_is_never_taken_back(worker: Worker) -> None:
    ref = worker.add(out(), sequence_limit=100)

    with pytest.raises(Refused) as refused:
        worker.reserve(ref, 99)

    assert refused.value.reason is Refusal.INVALID


def test_an_sa_goes_on_in_another_worker_where_it_stopped(library: EngineLibrary, worker: Worker) -> None:
    other = Worker(library, seed=material("other", 32))
    sa, back = out(), association(Direction.INBOUND)
    first = worker.seal([(worker.add(sa), ip_packet())] * 5)
    worker.add(back)
    worker.open([first[0].packet, first[4].packet])

    sent = worker.release(0)
    received = worker.release(0x80000000 | back.spi & 0xFF)
    ref = other.add(sa, state=sent)
    other.add(back, state=received)

    (next_one,) = other.seal([(ref, ip_packet())])
    assert next_one.sequence == 6
    assert other.usage(ref).packets == 6
    drops = [outcome.drop for outcome in other.open([first[0].packet, first[1].packet, first[4].packet])]
    assert drops == [DropReason.REPLAY, None, DropReason.REPLAY]
    assert worker.seal([(0, ip_packet())])[0].drop is DropReason.NO_SA
    other.close()


def test_with_a_window_of_another_size_all_numbers_so_far_count_as_seen(worker: Worker) -> None:
    ref = worker.add(association(Direction.INBOUND, replay_window_packets=64))
    source = reference()
    packets = [source.seal(ip_packet(), 0.0) for _ in range(200)]
    worker.open([packets[99]])

    worker.add(association(Direction.INBOUND, replay_window_packets=1024), state=worker.release(ref))

    outcomes = worker.open([packets[n] for n in (98, 99, 105, 103, 103, 199, 150)])
    replay = DropReason.REPLAY
    assert [outcome.drop for outcome in outcomes] == [replay, replay, None, None, replay, None, None]


def test_a_state_never_sets_an_outbound_number_back(worker: Worker) -> None:
    ref = worker.add(out())
    worker.seal([(ref, ip_packet())] * 5)
    state = worker.release(ref)

    ref = worker.add(out(), next_sequence=1000, state=state)

    assert worker.seal([(ref, ip_packet())])[0].sequence == 1000


def test_the_ivs_of_cbc_are_all_different_and_depend_on_the_seed(library: EngineLibrary) -> None:
    ivs = []
    for seed in ("one", "two"):
        worker = Worker(library, seed=material(seed, 32))
        ref = worker.add(out(suite=CBC))
        for _ in range(10):
            ivs += [outcome.packet[28:44] for outcome in worker.seal([(ref, ip_packet())] * 100)]
        worker.close()

    assert len(set(ivs)) == 2000


# --- tables ---------------------------------------------------------------------------------------


def test_a_rekey_moves_a_tunnel_to_the_new_sa_while_the_old_one_stays(worker: Worker) -> None:
    old = worker.add(out(spi=Spi(0x5001)), index=1)
    worker.set_tunnel(2, [old])
    assert worker.tunnel_sa(2, 0) == old

    new = worker.add(out(spi=Spi(0x5002), encryption_key=Secret(material("new", 36))), index=2)
    worker.set_tunnel(2, [new])

    assert worker.tunnel_sa(2, 0xFFFFFFFF) == new
    assert worker.seal([(old, ip_packet())])[0].drop is None
    worker.remove(old)
    assert worker.tunnel_sa(2, 0) == new


def test_several_sas_share_the_flows_of_a_tunnel(worker: Worker) -> None:
    refs = [worker.add(out(spi=Spi(0x5000 + n)), index=n) for n in range(4)]
    worker.set_tunnel(0, refs)
    hashes = [n << 28 for n in range(16)]

    chosen = [worker.tunnel_sa(0, flow) for flow in hashes]

    assert chosen == [worker.tunnel_sa(0, flow) for flow in hashes]
    assert [chosen.count(ref) for ref in refs] == [4, 4, 4, 4]
    worker.remove(refs[1])
    assert refs[1] not in [worker.tunnel_sa(0, flow) for flow in hashes]


def test_a_tunnel_without_sas_has_none(worker: Worker) -> None:
    assert worker.tunnel_sa(0, 1) == NO_REF
    assert worker.tunnel_sa(99, 1) == NO_REF
    with pytest.raises(Refused):
        worker.set_tunnel(0, [7])


@pytest.mark.parametrize(
    ("changes", "arguments", "reason"),
    [
        ({"encryption_key": Secret(b"short")}, {}, Refusal.KEY),
        ({"integrity_key": Secret(bytes(20))}, {}, Refusal.KEY),
        ({}, {"index": 256}, Refusal.INVALID),
        ({}, {"next_sequence": 0}, Refusal.INVALID),
        ({}, {"next_sequence": 10, "sequence_limit": 9}, Refusal.INVALID),
    ],
    ids=["key", "integrity key", "index", "sequence 0", "nothing reserved"],
)
def test_an_sa_that_makes_no_sense_leaves_no_trace(
    worker: Worker, changes: dict[str, Any], arguments: dict[str, Any], reason: Refusal
) -> None:
    with pytest.raises(Refused) as refused:
        worker.add(out(**changes), **arguments)

    assert refused.value.reason is reason
    assert worker.add(out()) == 0


def test_one_burst_may_mix_suites_modes_and_sas(worker: Worker) -> None:
    names = [*SUITES, "aes128gcm8", "aes256gmac", "aes192ctr-sha1"]
    refs = [
        worker.add(out(suite=BY_NAME[name], spi=Spi(0x6000 + n)), index=n) for n, name in enumerate(names)
    ]
    readers = {
        ref: InboundSa(association(Direction.INBOUND, BY_NAME[name], spi=Spi(0x6000 + ref)))
        for ref, name in zip(refs, names, strict=True)
    }
    packets = [(refs[n % len(refs)], ip_packet(4, material(str(n), n))) for n in range(300)]
    packets[100:100] = [(NO_REF, ip_packet()), (200, ip_packet()), (refs[0], b"")]

    outcomes = worker.seal(packets)

    assert [outcome.drop for outcome in outcomes[100:103]] == [
        DropReason.NO_SA,
        DropReason.NO_SA,
        DropReason.MALFORMED,
    ]
    for (ref, packet), outcome in list(zip(packets, outcomes, strict=True))[:100]:
        outer, esp = parse_outer(outcome.packet)
        assert readers[ref].open(esp, outer, 0.0).packet == packet


# --- fragments before encapsulation ---------------------------------------------------------------


@pytest.mark.parametrize("mtu", [28, 68, 576, 1379, 1400])
def test_fragments_made_before_encapsulation_are_those_of_the_same_packet(
    library: EngineLibrary, mtu: int
) -> None:
    packet = ip_packet(4, material("long", 1380))

    pieces = library.fragment(packet, mtu)

    assert all(len(piece) <= mtu for piece in pieces)
    whole = bytearray(1380)
    for number, piece in enumerate(pieces):
        place = int.from_bytes(piece[6:8], "big")
        assert bool(place & 0x2000) == (number < len(pieces) - 1)
        assert int.from_bytes(piece[2:4], "big") == len(piece)
        assert sum(int.from_bytes(piece[n : n + 2], "big") for n in range(0, 20, 2)) % 0xFFFF == 0
        start = (place & 0x1FFF) * 8
        whole[start : start + len(piece) - 20] = piece[20:]
    assert bytes(whole) == packet[20:]


def test_fragments_of_a_fragment_keep_its_place(library: EngineLibrary) -> None:
    packet = bytearray(ip_packet(4, material("piece", 64)))
    packet[6:8] = (0x2000 | 100).to_bytes(2, "big")

    places = [int.from_bytes(piece[6:8], "big") for piece in library.fragment(bytes(packet), 52)]

    assert places == [0x2000 | 100, 0x2000 | 104]


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x45", ip_packet(6, bytes(100)), b"\x4f" + ip_packet(4, bytes(8))[1:]],
    ids=["empty", "truncated", "IPv6", "IHL beyond the end"],
)
def test_what_must_not_be_cut_gives_no_fragments(library: EngineLibrary, packet: bytes) -> None:
    assert library.fragment(packet, 60) == []


def test_df_forbids_fragments(library: EngineLibrary) -> None:
    packet = ip_packet(4, bytes(100))

    assert library.fragment(packet[:6] + b"\x40" + packet[7:], 60) == []


def test_options_are_copied_only_where_they_say_so(library: EngineLibrary) -> None:
    bare = ip_packet(4, bytes(32))
    options = bytes.fromhex("0703040094040000")  # record route, not copied; router alert, copied; end
    packet = bytes((0x47,)) + bare[1:2] + (60).to_bytes(2, "big") + bare[4:20] + options + bare[20:]

    first, second = library.fragment(packet, 44)

    assert first[20:28] == options
    assert second[20:28] == bytes.fromhex("0101010094040000")
