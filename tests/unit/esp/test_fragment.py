"""Fragments of protected packets, put together again by scapy (RFC 791 section 3.2, RFC 8200 section 4.5)."""

import pytest
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert, IPOption_RR, defragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, defragment6
from scapy.packet import Raw

from gateway.esp.errors import PacketDropped
from gateway.esp.fragment import fragment
from gateway.ipsec.drop_reason import DropReason
from tests.unit.esp.samples import OUTER

DATA = bytes(range(256)) * 12
SOURCE_4, DESTINATION_4 = OUTER[4]
SOURCE_6, DESTINATION_6 = OUTER[6]


@pytest.mark.parametrize("mtu", [576, 1280, 1500, 3000])
def test_ipv4_pieces_make_the_packet_again(mtu: int) -> None:
    packet = bytes(IP(src=SOURCE_4, dst=DESTINATION_4, id=7, proto=51) / Raw(DATA))

    pieces = fragment(packet, 20, mtu, 0)

    assert all(len(piece) <= mtu for piece in pieces)
    assert len(pieces) == -(-len(DATA) // ((mtu - 20) // 8 * 8))
    for piece in pieces:
        assert bytes(IP(piece)) == piece
        again = IP(piece)
        del again.chksum
        assert IP(bytes(again)).chksum == IP(piece).chksum
    (whole,) = defragment([IP(piece) for piece in pieces])
    assert bytes(whole) == packet


def test_only_copied_ipv4_options_are_in_later_pieces() -> None:
    options = [IPOption_RR(routers=["192.0.2.9"]), IPOption_Router_Alert()]
    packet = bytes(IP(src=SOURCE_4, dst=DESTINATION_4, id=7, proto=51, options=options) / Raw(DATA))
    at = (packet[0] & 15) * 4

    first, second, *_ = fragment(packet, at, 1400, 0)

    assert first[20:at] == packet[20:at]
    assert second[20:at] == b"\x01" * 7 + packet[27:at]


@pytest.mark.parametrize("mtu", [1280, 1500])
def test_ipv6_pieces_make_the_packet_again(mtu: int) -> None:
    headers = bytes(IPv6(src=SOURCE_6, dst=DESTINATION_6) / IPv6ExtHdrHopByHop())
    packet = bytes(IPv6(src=SOURCE_6, dst=DESTINATION_6) / IPv6ExtHdrHopByHop() / UDP() / Raw(DATA))

    pieces = fragment(packet, len(headers), mtu, 0x12345678)

    assert all(len(piece) <= mtu for piece in pieces)
    parsed = [IPv6(piece) for piece in pieces]
    assert {piece[IPv6ExtHdrFragment].id for piece in parsed} == {0x12345678}
    assert [piece[IPv6ExtHdrFragment].m for piece in parsed] == [1] * (len(parsed) - 1) + [0]
    assert bytes(defragment6(parsed)) == packet


def test_packet_that_fits_is_left_alone() -> None:
    packet = bytes(IP(src=SOURCE_4, dst=DESTINATION_4) / Raw(b"data"))

    assert fragment(packet, 20, len(packet), 0) == (packet,)


def test_mtu_below_one_unit_is_refused() -> None:
    packet = bytes(IP(src=SOURCE_4, dst=DESTINATION_4) / Raw(DATA))

    with pytest.raises(PacketDropped) as dropped:
        fragment(packet, 20, 27, 0)
    assert dropped.value.reason is DropReason.TOO_BIG
