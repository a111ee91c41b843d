"""AH by the steps of RFC 4302: layout, mutable fields, replay, ESN, fragments, what is refused."""

import hmac
from struct import pack_into

import pytest
from scapy.layers.inet import IP, UDP, IPOption_LSRR, IPOption_SSRR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.packet import Raw

from gateway.esp.ah import header_bytes
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.checksum import internet_checksum
from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.inbound import parse_outer
from gateway.esp.mutable import inbound_cover, outbound_cover
from gateway.esp.packet import PROTOCOL_AH
from gateway.esp.tunnel import DfPolicy
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.sa import Direction, Mode
from gateway.ipsec.secret import Secret
from tests.unit.esp.ah_samples import (
    AH_SUITES,
    GMAC,
    SHA256,
    AhSuite,
    ah_association,
    ah_inbound,
    ah_outbound,
)
from tests.unit.esp.samples import (
    ENCAPSULATION,
    INNER,
    OUTER,
    SPI,
    association,
    ip_packet,
    outer_header,
    selectors,
)

PACKET = ip_packet(4, b"payload")


def open_whole(receiver: AhInboundSa, packet: bytes) -> bytes:
    """Return what is inside a whole packet, as it came over the wire."""
    outer, ah = parse_outer(packet, PROTOCOL_AH)
    return receiver.open(ah, outer, 0.0).packet


def drop_of(receiver: AhInboundSa, packet: bytes) -> DropReason:
    with pytest.raises(PacketDropped) as dropped:
        open_whole(receiver, packet)
    return dropped.value.reason


def changed(packet: bytes, **fields: bytes | int) -> bytes:
    """Return a packet with bytes replaced: `at20=b"..."`, or one byte as a number."""
    copy = bytearray(packet)
    for name, value in fields.items():
        at = int(name.removeprefix("at"))
        new = bytes((value,)) if isinstance(value, int) else value
        copy[at : at + len(new)] = new
    return bytes(copy)


# --- layout -----------------------------------------------------------------------------------------------

SIZES = {
    # 12 bytes, ICV, padding to 4 bytes over IPv4 and to 8 over IPv6 (RFC 4302 section 2.2).
    Integ.HMAC_SHA1_96: (24, 24),
    Integ.HMAC_SHA2_256_128: (28, 32),
    Integ.HMAC_SHA2_384_192: (36, 40),
    Integ.HMAC_SHA2_512_256: (44, 48),
    Integ.AES_XCBC_96: (24, 24),
    Integ.AES_CMAC_96: (24, 24),
    Integ.AES_128_GMAC: (36, 40),
    Integ.AES_192_GMAC: (36, 40),
    Integ.AES_256_GMAC: (36, 40),
}


@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
@pytest.mark.parametrize("outer", [4, 6])
def test_header_has_the_length_and_fields_of_rfc_4302(suite: AhSuite, outer: int) -> None:
    size = SIZES[suite.integrity][0 if outer == 4 else 1]
    at = 20 if outer == 4 else 40

    sealed = ah_outbound(suite, outer=outer).seal(PACKET, 0.0)

    assert len(sealed) == at + size + len(PACKET)
    assert sealed[at] == 4  # next header
    assert (sealed[at + 1] + 2) * 4 == size
    assert sealed[at + 2 : at + 4] == b"\0\0"
    assert sealed[at + 4 : at + 8] == SPI.to_bytes(4)
    assert sealed[at + 8 : at + 12] == (1).to_bytes(4)
    assert sealed[at + size :] == PACKET
    assert header_bytes(ah_association(Direction.OUTBOUND, suite, outer=outer)) == size


def test_iv_of_gmac_is_the_sequence_number() -> None:
    sender = ah_outbound(GMAC, esn=True, next_sequence=(7 << 32) + 5)

    assert sender.seal(PACKET, 0.0)[32:40] == ((7 << 32) + 5).to_bytes(8)
    assert sender.seal(PACKET, 0.0)[32:40] == ((7 << 32) + 6).to_bytes(8)


def test_padding_to_64_bits_over_ipv4_is_accepted_and_authenticated() -> None:
    # Linux sends it with HMAC-SHA2-256-128 unless it is told `flag align4`.
    suite = SHA256
    packet = ah_outbound(suite).seal(PACKET, 0.0)
    padded = signed_anew(packet[:20] + changed(packet[20:48], at1=6) + b"pad!" + packet[48:], suite)

    assert open_whole(ah_inbound(suite), padded) == PACKET
    assert drop_of(ah_inbound(suite), changed(padded, at48=b"dap!")) is DropReason.INTEGRITY


def signed_anew(packet: bytes, suite: AhSuite) -> bytes:
    """Return an IPv4 packet with its length, checksum and HMAC-SHA2-256-128 made right."""
    whole = bytearray(packet)
    pack_into("!H", whole, 2, len(whole))
    whole[10:12] = b"\0\0"
    whole[10:12] = internet_checksum(bytes(whole[:20])).to_bytes(2)
    covered = bytearray(whole)
    for at, size in ((1, 1), (6, 3), (10, 2), (32, 16)):
        covered[at : at + size] = bytes(size)
    whole[32:48] = hmac.digest(suite.key, bytes(covered), "sha256")[:16]
    return bytes(whole)


# --- mutable and immutable fields (RFC 4302 section 3.3.3.1, Appendix A) -----------------------------------

IPV4_MUTABLE = {"tos": {"at1": 0xB8}, "df": {"at6": 0x40}, "ttl": {"at8": 3}, "checksum": {"at10": b"\0\0"}}
IPV4_IMMUTABLE = {
    "identification": {"at4": b"\x55\x55"},
    "source": {"at12": b"\xc6\x33\x64\x01"},
    "destination": {"at16": b"\xc6\x33\x64\x01"},
}


@pytest.mark.parametrize("change", IPV4_MUTABLE.values(), ids=IPV4_MUTABLE)
def test_what_routers_change_of_ipv4_does_not_matter(change: dict[str, int | bytes]) -> None:
    sealed = ah_outbound().seal(PACKET, 0.0)

    assert open_whole(ah_inbound(), changed(sealed, **change)) == PACKET


@pytest.mark.parametrize("change", IPV4_IMMUTABLE.values(), ids=IPV4_IMMUTABLE)
@pytest.mark.parametrize("suite", [SHA256, GMAC], ids=str)
def test_what_routers_leave_of_ipv4_is_authenticated(suite: AhSuite, change: dict[str, bytes]) -> None:
    sealed = ah_outbound(suite).seal(PACKET, 0.0)

    assert drop_of(ah_inbound(suite), changed(sealed, **change)) is DropReason.INTEGRITY


IPV6_MUTABLE = {"class and label": {"at0": b"\x6b\x81\x23\x45"}, "hop limit": {"at7": 3}}
IPV6_IMMUTABLE = {"source": {"at8": b"\x20\x02"}, "destination": {"at24": b"\x20\x02"}}


@pytest.mark.parametrize("change", IPV6_MUTABLE.values(), ids=IPV6_MUTABLE)
def test_what_routers_change_of_ipv6_does_not_matter(change: dict[str, int | bytes]) -> None:
    sealed = ah_outbound(outer=6).seal(ip_packet(6, b"payload"), 0.0)

    assert open_whole(ah_inbound(outer=6), changed(sealed, **change)) == ip_packet(6, b"payload")


@pytest.mark.parametrize("change", IPV6_IMMUTABLE.values(), ids=IPV6_IMMUTABLE)
def test_what_routers_leave_of_ipv6_is_authenticated(change: dict[str, bytes]) -> None:
    sealed = ah_outbound(outer=6).seal(ip_packet(6, b"payload"), 0.0)

    assert drop_of(ah_inbound(outer=6), changed(sealed, **change)) is DropReason.INTEGRITY


@pytest.mark.parametrize("kind", [IPOption_LSRR, IPOption_SSRR])
def test_source_route_is_signed_with_the_address_where_it_ends(kind: type) -> None:
    source, final = OUTER[4]
    hop = "192.0.2.77"
    # To the hop first; the route, with the pointer at its first entry, ends where the SA does.
    sent = IP(src=source, dst=hop, id=9, options=[kind(routers=[final])]) / UDP(sport=1, dport=2)

    on_the_way = IP(ah_outbound(mode=Mode.TRANSPORT).seal(bytes(sent), 0.0))
    # The hop takes the address out of the route, puts its own in and moves the pointer (RFC 791 section 3.1).
    on_the_way.dst = final
    on_the_way.options = [kind(routers=["198.51.100.3"], pointer=8)]
    del on_the_way.chksum

    opened = IP(open_whole(ah_inbound(mode=Mode.TRANSPORT), bytes(on_the_way)))
    assert (opened.dst, opened[UDP].dport) == (final, 2)


def test_options_by_the_classes_of_appendix_a1() -> None:
    immutable = (0, 1, 130, 133, 134, 148, 149)
    mutable = (131, 68, 7, 137, 82, 136, 11, 12, 145, 10, 205, 142, 15, 144, 147, 99)
    for kind in immutable + mutable:
        option = bytes((kind,)) * 8 if kind < 2 else bytes((kind, 8, 9, 1, 2, 3, 4, 5))
        header = b"\x47" + bytes(19) + option

        covered = inbound_cover(header)[20:]

        assert covered == (option if kind in immutable else bytes(8)), kind


@pytest.mark.parametrize("options", ["07000000", "07010000", "07090000", "830304c0", "94"])
def test_impossible_ipv4_options_are_dropped(options: str) -> None:
    # All of them would be signed; a source route must have room for an address.
    header = b"\x46" + bytes(19) + bytes.fromhex(options)

    with pytest.raises(PacketDropped) as dropped:
        outbound_cover(header)
    assert dropped.value.reason is DropReason.MALFORMED


def test_two_hops_of_a_routing_header_are_predicted() -> None:
    a, b, c = "2001:db8::a", "2001:db8::b", OUTER[6][1]
    sent = bytes(IPv6(src=OUTER[6][0], dst=a, nh=43, plen=99) / IPv6ExtHdrRouting(addresses=[b, c], nh=51))
    arrived = bytes(
        IPv6(src=OUTER[6][0], dst=c, nh=43, plen=99) / IPv6ExtHdrRouting(addresses=[a, b], segleft=0, nh=51)
    )

    assert outbound_cover(sent) == inbound_cover(arrived)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (IPv6ExtHdrRouting(type=4, nh=51), DropReason.UNSUPPORTED),
        (IPv6ExtHdrRouting(addresses=["::1"], segleft=1, nh=51), DropReason.MALFORMED),
        (IPv6ExtHdrFragment(nh=51), DropReason.FRAGMENT),
        (
            IPv6ExtHdrHopByHop(bytes(IPv6ExtHdrHopByHop(nh=51))[:2] + b"\x1e\x09\0\0\0\0"),
            DropReason.MALFORMED,
        ),
    ],
    ids=["routing type 4", "not where it ends", "fragment", "option beyond its header"],
)
def test_ipv6_headers_that_cannot_be_authenticated_are_dropped(header: object, reason: DropReason) -> None:
    chain = bytes(IPv6(src="::1", dst="::2") / header)

    with pytest.raises(PacketDropped) as dropped:
        inbound_cover(chain)
    assert dropped.value.reason is reason


# --- inbound ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [SHA256, GMAC], ids=str)
@pytest.mark.parametrize("esn", [False, True])
def test_every_flipped_byte_of_ah_and_payload_is_dropped_without_a_trace(suite: AhSuite, esn: bool) -> None:
    sealed = ah_outbound(suite, esn=esn).seal(PACKET, 0.0)
    receiver = ah_inbound(suite, esn=esn)

    for at in range(20, len(sealed)):
        reason = drop_of(receiver, changed(sealed, **{f"at{at}": sealed[at] ^ 0x01}))
        assert reason in {
            DropReason.INTEGRITY,
            DropReason.MALFORMED,
            DropReason.UNKNOWN_SPI,
            DropReason.REPLAY_WINDOW,
        }

    assert receiver.sequence == 0
    assert receiver.usage.packets == 0
    assert open_whole(receiver, sealed) == PACKET


def test_every_truncation_is_dropped() -> None:
    sealed = ah_outbound().seal(PACKET, 0.0)
    outer, ah = parse_outer(sealed, PROTOCOL_AH)
    receiver = ah_inbound()

    for length in range(len(ah)):
        with pytest.raises(PacketDropped) as dropped:
            receiver.open(ah[:length], outer, 0.0)
        assert dropped.value.reason in {DropReason.MALFORMED, DropReason.INTEGRITY}


def test_replayed_packet_is_dropped_and_counted() -> None:
    sealed = ah_outbound().seal(PACKET, 0.0)
    receiver = ah_inbound()

    assert open_whole(receiver, sealed) == PACKET
    assert drop_of(receiver, sealed) is DropReason.REPLAY
    assert receiver.usage.drops == {DropReason.REPLAY: 1}
    assert (receiver.usage.packets, receiver.usage.bytes) == (1, len(PACKET))


def test_packet_left_of_the_window_is_dropped() -> None:
    sender, receiver = ah_outbound(), ah_inbound(replay_window_packets=64)
    packets = [sender.seal(PACKET, 0.0) for _ in range(70)]

    open_whole(receiver, packets[-1])

    assert drop_of(receiver, packets[5]) is DropReason.REPLAY_WINDOW
    assert open_whole(receiver, packets[6]) == PACKET


@pytest.mark.parametrize("suite", [SHA256, GMAC], ids=str)
def test_esn_survives_the_change_of_the_high_half_and_authenticates_it(suite: AhSuite) -> None:
    first = (1 << 32) - 2
    sender, receiver = ah_outbound(suite, esn=True, next_sequence=first), ah_inbound(suite, esn=True)
    receiver.window.commit(first - 1)
    packets = [sender.seal(PACKET, 0.0) for _ in range(4)]

    for packet in packets:
        assert open_whole(receiver, packet) == PACKET

    assert receiver.sequence == first + 3
    other = ah_inbound(suite, esn=True)
    other.window.commit((1 << 33) + 10)
    assert (
        drop_of(other, ah_outbound(suite, esn=True, next_sequence=20).seal(PACKET, 0.0))
        is DropReason.INTEGRITY
    )


def test_fragment_is_discarded() -> None:
    sealed = ah_outbound().seal(PACKET, 0.0)
    outer, ah = parse_outer(sealed, PROTOCOL_AH)
    receiver = ah_inbound()

    for place in (b"\x20\x00", b"\x00\x01"):
        with pytest.raises(PacketDropped) as dropped:
            receiver.open(ah, outer._replace(header=changed(outer.header, at6=place)), 0.0)
        assert dropped.value.reason is DropReason.FRAGMENT


def test_ah_in_udp_is_refused() -> None:
    sealed = ah_outbound().seal(PACKET, 0.0)
    outer, ah = parse_outer(sealed, PROTOCOL_AH)

    with pytest.raises(PacketDropped) as dropped:
        ah_inbound().open(ah, outer._replace(udp_source_port=4500), 0.0)
    assert dropped.value.reason is DropReason.UNSUPPORTED


def test_ipv4_without_its_header_is_refused_and_ipv6_made_up() -> None:
    _, ah_4 = parse_outer(ah_outbound().seal(PACKET, 0.0), PROTOCOL_AH)
    _, ah_6 = parse_outer(ah_outbound(outer=6).seal(PACKET, 0.0), PROTOCOL_AH)

    with pytest.raises(PacketDropped) as dropped:
        ah_inbound().open(ah_4, outer_header(4), 0.0)
    assert dropped.value.reason is DropReason.MALFORMED
    assert ah_inbound(outer=6).open(ah_6, outer_header(6), 0.0).packet == PACKET


def test_packet_outside_the_selectors_is_dropped() -> None:
    sealed = ah_outbound().seal(PACKET, 0.0)
    receiver = ah_inbound(local_ts=selectors("10.9.0.0/16"), remote_ts=selectors("10.1.0.0/16"))

    assert drop_of(receiver, sealed) is DropReason.SELECTOR_MISMATCH


def test_tunnel_packet_on_a_transport_sa_is_dropped_and_the_reverse() -> None:
    tunnel = ah_outbound().seal(PACKET, 0.0)
    transport = ah_outbound(mode=Mode.TRANSPORT).seal(ip_packet(4, b"data", addresses=OUTER), 0.0)

    assert drop_of(ah_inbound(mode=Mode.TRANSPORT), tunnel) is DropReason.MODE_MISMATCH
    assert drop_of(ah_inbound(), transport) is DropReason.MODE_MISMATCH


def test_congestion_seen_by_the_tunnel_is_told_to_the_inner_packet() -> None:
    packet = ip_packet(4, b"data", tos=0x02)
    sealed = ah_outbound().seal(packet, 0.0)

    opened = open_whole(ah_inbound(), changed(sealed, at1=0x03))

    assert sealed[1] == 0x02
    assert opened[1] == 0x03


# --- outbound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
def test_effective_mtu_is_exact(suite: AhSuite, mode: Mode, outer: int) -> None:
    sender = ah_outbound(suite, mode=mode, outer=outer)
    mtu = sender.effective_mtu(1500)
    addresses = INNER if mode is Mode.TUNNEL else OUTER
    header = 20 if outer == 4 else 40

    fitting = sender.seal(ip_packet(outer, bytes(mtu - header), addresses=addresses), 0.0)
    longer = sender.seal(ip_packet(outer, bytes(mtu - header + 1), addresses=addresses), 0.0)

    assert (len(fitting), len(longer)) == (1500, 1501)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("mode", list(Mode))
def test_pieces_carry_one_packet_with_one_icv(mode: Mode, outer: int) -> None:
    sender, receiver = ah_outbound(mode=mode, outer=outer), ah_inbound(mode=mode, outer=outer)
    addresses = INNER if mode is Mode.TUNNEL else OUTER
    packet = ip_packet(outer, bytes(2000), addresses=addresses)

    pieces = sender.seal_in_pieces(packet, 1280, 0.0)

    assert [len(piece) <= 1280 for piece in pieces] == [True, True]
    at = 20 if outer == 4 else 48
    ah = b"".join(piece[at:] for piece in pieces)
    header = pieces[0][:at]
    if outer == 4:
        # What the receiving kernel leaves of them after reassembly: the length of the whole, no offset.
        header = changed(header, at2=(at + len(ah)).to_bytes(2), at6=b"\0\0")
        outer_facts = outer_header(4, header=header)
    else:
        outer_facts = outer_header(6)
    opened = receiver.open(ah, outer_facts, 0.0).packet
    assert opened[20 if outer == 4 else 40 :] == packet[20 if outer == 4 else 40 :]
    assert sender.sequence == 1


def test_identification_is_never_left_for_the_kernel_to_fill_in() -> None:
    tunnel = ah_outbound()
    identifications = {tunnel.seal(PACKET, 0.0)[4:6] for _ in range(0x10000)}
    assert b"\0\0" not in identifications

    transport = ah_outbound(mode=Mode.TRANSPORT)
    without_df = bytes(IP(src=OUTER[4][0], dst=OUTER[4][1], id=0) / Raw(b"data"))
    with_df = bytes(IP(src=OUTER[4][0], dst=OUTER[4][1], id=0, flags="DF") / Raw(b"data"))
    assert transport.seal(without_df, 0.0)[4:6] != b"\0\0"
    assert transport.seal(with_df, 0.0)[4:6] == b"\0\0", "Linux leaves it alone beside DF"


def test_transport_mode_takes_no_fragments() -> None:
    fragment = bytes(IP(src=OUTER[4][0], dst=OUTER[4][1], flags="MF") / Raw(bytes(16)))

    with pytest.raises(PacketDropped) as dropped:
        ah_outbound(mode=Mode.TRANSPORT).seal(fragment, 0.0)
    assert dropped.value.reason is DropReason.FRAGMENT


def test_sequence_number_never_cycles() -> None:
    sender = ah_outbound(next_sequence=(1 << 32) - 1)
    sender.seal(PACKET, 0.0)

    with pytest.raises(PacketDropped) as dropped:
        sender.seal(PACKET, 0.0)

    assert dropped.value.reason is DropReason.SEQUENCE_OVERFLOW
    assert sender.usage.drops == {DropReason.SEQUENCE_OVERFLOW: 1}


def test_hard_lifetime_ends_the_sa_in_both_directions() -> None:
    lifetime = Lifetime(hard=Limit(packets=1))
    sender, receiver = ah_outbound(lifetime=lifetime), ah_inbound(lifetime=lifetime)
    endless = ah_outbound()

    sender.seal(PACKET, 0.0)
    open_whole(receiver, endless.seal(PACKET, 0.0))

    with pytest.raises(PacketDropped) as dropped:
        sender.seal(PACKET, 0.0)
    assert dropped.value.reason is DropReason.SA_EXPIRED
    assert drop_of(receiver, endless.seal(PACKET, 0.0)) is DropReason.SA_EXPIRED
    assert [expiry.limit for expiry in sender.drain_expiries()] == ["packets"]


@pytest.mark.parametrize(("policy", "df"), [(DfPolicy.SET, 0x40), (DfPolicy.CLEAR, 0), (None, 0)])
def test_outer_df_follows_the_policy(policy: DfPolicy | None, df: int) -> None:
    assert ah_outbound(df=policy).seal(PACKET, 0.0)[6] == df


def test_packet_of_the_other_family_is_dropped_in_transport_mode() -> None:
    with pytest.raises(PacketDropped) as dropped:
        ah_outbound(mode=Mode.TRANSPORT).seal(ip_packet(6, b"x"), 0.0)
    assert dropped.value.reason is DropReason.MODE_MISMATCH


def test_packet_that_no_ip_length_can_hold_is_dropped() -> None:
    with pytest.raises(PacketDropped) as dropped:
        ah_outbound().seal(ip_packet(4, bytes(65535 - 20)), 0.0)
    assert dropped.value.reason is DropReason.TOO_BIG


# --- SAs that are refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"integrity": Integ.NONE}, "integrity"),
        ({"integrity": Integ.HMAC_MD5_96}, "integrity"),
        ({"integrity_key": Secret(bytes(31))}, "integrity_key"),
        ({"encryption": Encr.AES_CBC}, "encryption"),
        ({"encryption_key": Secret(bytes(16))}, "encryption"),
    ],
)
def test_sa_that_cannot_be_carried_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    for make in (ah_inbound, ah_outbound):
        with pytest.raises(UnsupportedSa) as refused:
            make(**changes)
        assert refused.value.field == field


def test_esp_sa_and_the_other_direction_are_refused() -> None:
    for sa in (association(Direction.INBOUND), ah_association(Direction.OUTBOUND)):
        with pytest.raises(UnsupportedSa):
            AhInboundSa(sa)


def test_ah_cannot_cross_a_nat() -> None:
    with pytest.raises(ValueError, match="NAT"):
        ah_outbound(encapsulation=ENCAPSULATION)
    with pytest.raises(UnsupportedSa, match="NAT"):
        ah_outbound().move(ah_outbound().destination, 4500)
