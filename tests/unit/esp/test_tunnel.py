"""Outer headers: ECN, DSCP, DF, TTL, ID, checksums (RFC 6040, RFC 4301 §5.1.2, §8.1, RFC 3948)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from gateway.esp.checksum import internet_checksum
from gateway.esp.errors import PacketDropped
from gateway.esp.tunnel import DfPolicy, decrement_ttl
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import UdpEncapsulation
from tests.unit.esp.samples import OUTER, esp_of, inbound, ip_packet, outbound, outer_header

NOT_ECT, ECT_0, ECT_1, CE = 0b00, 0b10, 0b01, 0b11
DROP = None

# RFC 6040 figure 4, in its order of rows and columns. The marks (!) and (!!!) ask for an alarm, not for
# another result.
FIGURE_4 = {
    # arriving outer header:  Not-ECT  ECT(0)   ECT(1)   CE
    NOT_ECT: dict(zip((NOT_ECT, ECT_0, ECT_1, CE), (NOT_ECT, NOT_ECT, NOT_ECT, DROP), strict=True)),
    ECT_0: dict(zip((NOT_ECT, ECT_0, ECT_1, CE), (ECT_0, ECT_0, ECT_1, CE), strict=True)),
    ECT_1: dict(zip((NOT_ECT, ECT_0, ECT_1, CE), (ECT_1, ECT_1, ECT_1, CE), strict=True)),
    CE: dict(zip((NOT_ECT, ECT_0, ECT_1, CE), (CE, CE, CE, CE), strict=True)),
}
DSCP_EF = 46 << 2
FAMILIES = [(4, 4), (4, 6), (6, 4), (6, 6)]


def tos_of(packet: bytes) -> int:
    return IP(packet).tos if packet[0] >> 4 == 4 else IPv6(packet).tc


def checksum_is_right(packet: bytes) -> bool:
    return packet[0] >> 4 == 6 or internet_checksum(packet[: (packet[0] & 15) * 4]) == 0


@pytest.mark.parametrize(("inner", "outer"), FAMILIES)
@pytest.mark.parametrize("arriving_outer", [NOT_ECT, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("arriving_inner", [NOT_ECT, ECT_0, ECT_1, CE])
def test_decapsulation_follows_figure_4_of_rfc_6040(
    arriving_inner: int, arriving_outer: int, inner: int, outer: int
) -> None:
    packet = ip_packet(inner, b"x", tos=DSCP_EF | arriving_inner)
    esp = esp_of(outbound(outer=outer).seal(packet, 0.0))
    receiver = inbound(outer=outer)
    header = outer_header(outer, tos=0x28 | arriving_outer)
    outgoing = FIGURE_4[arriving_inner][arriving_outer]

    if outgoing is None:
        with pytest.raises(PacketDropped) as dropped:
            receiver.open(esp, header, 0.0)
        assert dropped.value.reason is DropReason.ECN_ILLEGAL
        return
    opened = receiver.open(esp, header, 0.0).packet

    assert opened == ip_packet(inner, b"x", tos=DSCP_EF | outgoing)
    assert checksum_is_right(opened)


@pytest.mark.parametrize(("inner", "outer"), FAMILIES)
@pytest.mark.parametrize("ecn", [NOT_ECT, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("copy_dscp", [True, False])
def test_encapsulation_copies_ecn_always_and_dscp_when_asked(
    inner: int, outer: int, ecn: int, copy_dscp: bool
) -> None:
    # RFC 6040 §4.1, normal mode; RFC 4301 §5.1.2.1 for DSCP.
    packet = ip_packet(inner, b"x", tos=DSCP_EF | ecn)

    sealed = outbound(outer=outer, copy_dscp=copy_dscp).seal(packet, 0.0)
    told = outbound(outer=outer, copy_dscp=copy_dscp).seal_payload(packet, 0.0)

    expected = (DSCP_EF if copy_dscp else 0) | ecn
    assert tos_of(sealed) == told.tos == expected
    assert checksum_is_right(sealed)


def with_df(packet: bytes) -> bytes:
    parsed = IP(packet)
    parsed.flags = "DF"
    del parsed.chksum
    return bytes(parsed)


PLAIN, DF, V6 = ip_packet(4, b"x"), with_df(ip_packet(4, b"x")), ip_packet(6, b"x")


@pytest.mark.parametrize(
    ("policy", "copy_df", "packet", "expected"),
    [
        (None, True, PLAIN, False),
        (None, True, DF, True),
        (None, True, V6, True),
        (None, False, PLAIN, False),
        (None, False, DF, False),
        (None, False, V6, False),
        (DfPolicy.COPY, False, DF, True),
        (DfPolicy.SET, False, PLAIN, True),
        (DfPolicy.SET, True, DF, True),
        (DfPolicy.CLEAR, True, DF, False),
        (DfPolicy.CLEAR, True, V6, False),
    ],
)
def test_df_is_copied_set_or_cleared(
    policy: DfPolicy | None, copy_df: bool, packet: bytes, expected: bool
) -> None:
    sealed = outbound(df=policy, copy_df=copy_df).seal(packet, 0.0)
    told = outbound(df=policy, copy_df=copy_df).seal_payload(packet, 0.0)

    assert bool(IP(sealed).flags.DF) is told.is_df is expected
    assert checksum_is_right(sealed)


@pytest.mark.parametrize(("inner", "outer"), FAMILIES)
@pytest.mark.parametrize("encapsulation", [None, UdpEncapsulation(source_port=4500, destination_port=31000)])
def test_outer_header_is_what_scapy_would_build(
    inner: int, outer: int, encapsulation: UdpEncapsulation | None
) -> None:
    source, destination = OUTER[outer]
    sealed = outbound(outer=outer, encapsulation=encapsulation).seal(ip_packet(inner, b"data"), 0.0)
    fixed = (20 if outer == 4 else 40) + (8 if encapsulation else 0)
    body = sealed[fixed:]
    udp = UDP(sport=4500, dport=31000) / Raw(body) if encapsulation else Raw(body)
    if outer == 4:
        if encapsulation:
            udp.chksum = 0  # RFC 3948 §2.1
        flags = "DF" if inner == 6 else 0
        header = IP(
            src=source,
            dst=destination,
            proto=17 if encapsulation else 50,
            id=IP(sealed).id,
            flags=flags,
            ttl=64,
        )
    else:
        header = IPv6(src=source, dst=destination, nh=17 if encapsulation else 50, hlim=64)

    assert sealed == bytes(header / udp)


@given(st.binary(max_size=64))
def test_udp_checksum_over_ipv6_is_right_and_never_zero(data: bytes) -> None:
    encapsulation = UdpEncapsulation(source_port=4500, destination_port=4500)
    sealed = outbound(outer=6, encapsulation=encapsulation).seal(ip_packet(4, data), 0.0)
    pseudo = sealed[8:40] + (len(sealed) - 40).to_bytes(4) + bytes(3) + bytes((17,))

    assert internet_checksum(pseudo + sealed[40:]) == 0
    assert sealed[46:48] != b"\0\0"


def test_outer_ttl_is_ours_and_the_inner_one_untouched() -> None:
    packet = ip_packet(4, b"x", ttl=3)
    sealed = outbound().seal(packet, 0.0)

    assert IP(sealed).ttl == 64
    assert inbound().open(esp_of(sealed), outer_header(ttl=1), 0.0).packet == packet


def test_identification_differs_from_packet_to_packet_and_from_sa_to_sa() -> None:
    one, other = outbound(), outbound(spi=0x2222)

    ids = [IP(sa.seal(PLAIN, 0.0)).id for sa in (one, other) for _ in range(50)]

    assert len(set(ids)) == 100


def test_move_sends_to_the_new_mapping() -> None:
    sender = outbound(encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500))
    address = sender.sa.destination + 7

    sender.move(address, 31337)
    moved = IP(sender.seal(PLAIN, 0.0))

    assert (moved.dst, moved[UDP].sport, moved[UDP].dport) == (str(address), 4500, 31337)
    assert sender.destination == address
    assert sender.encapsulation == UdpEncapsulation(source_port=4500, destination_port=31337)
    assert checksum_is_right(bytes(moved))


@pytest.mark.parametrize("version", [4, 6])
def test_decrement_ttl_counts_one_hop(version: int) -> None:
    assert decrement_ttl(ip_packet(version, b"x", ttl=64)) == ip_packet(version, b"x", ttl=63)
    assert decrement_ttl(ip_packet(version, b"x", ttl=2)) == ip_packet(version, b"x", ttl=1)
    for spent in (0, 1):
        with pytest.raises(PacketDropped) as dropped:
            decrement_ttl(ip_packet(version, b"x", ttl=spent))
        assert dropped.value.reason is DropReason.TTL_EXPIRED


@given(st.binary(min_size=20, max_size=60))
def test_incremental_checksum_equals_the_full_one_whatever_the_header(random: bytes) -> None:
    packet = ip_packet(4, random, tos=random[0] & 0xFC, ttl=max(random[1], 2), protocol=random[2])

    assert decrement_ttl(packet) == ip_packet(
        4, random, tos=random[0] & 0xFC, ttl=max(random[1], 2) - 1, protocol=random[2]
    )
