"""Link layers, IP headers, fragments and UDP ports: what is ours is found, whole and once."""

from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether, Loopback
from scapy.packet import Raw

from gateway.inspect.capture import Frame
from gateway.inspect.packet import MAX_PENDING, Defragmenter, Finder, IpPacket, Kind, strip_link_layer

# With its addresses given, scapy asks no network for them.
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
ETHER = Ether(**MACS)
V4 = IP(src="192.0.2.1", dst="192.0.2.2")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
ESP_BYTES = b"\x12\x34\x56\x78\0\0\0\1" + bytes(40)
IKE = Raw(b"an IKE message")
MARKED = Raw(bytes(4) + b"an IKE message")


def find(packet, link_type=1):
    data = bytes(packet) if not isinstance(packet, bytes) else packet
    return Finder().find(Frame(number=7, time_ns=5, link_type=link_type, data=data))


@pytest.mark.parametrize("ip", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(
    ("upper", "kind", "data"),
    [
        (UDP(sport=500, dport=500) / IKE, Kind.IKE, b"an IKE message"),
        (UDP(sport=61234, dport=500) / IKE, Kind.IKE, b"an IKE message"),
        (UDP(sport=500, dport=61234) / IKE, Kind.IKE, b"an IKE message"),
        (UDP(sport=4500, dport=4500) / MARKED, Kind.IKE, b"an IKE message"),
        (UDP(sport=1025, dport=4500) / MARKED, Kind.IKE, b"an IKE message"),
        (UDP(sport=4500, dport=1025) / Raw(ESP_BYTES), Kind.ESP, ESP_BYTES),
        (UDP(sport=4500, dport=4500) / Raw(b"\xff"), Kind.KEEPALIVE, b"\xff"),
    ],
)
def test_what_is_ours_in_udp_is_found(ip, upper, kind, data):
    found = find(ETHER / ip / upper)

    assert (found.kind, found.data) == (kind, data)
    assert (str(found.source), str(found.destination)) == (ip.src, ip.dst)
    assert (found.source_port, found.destination_port) == (upper.sport, upper.dport)
    assert (found.frame, found.time_ns) == (7, 5)


@pytest.mark.parametrize(("protocol", "kind"), [(50, Kind.ESP), (51, Kind.AH)])
def test_esp_and_ah_on_ip_are_found(protocol, kind):
    assert find(ETHER / IP(src="192.0.2.1", dst="192.0.2.2", proto=protocol) / Raw(ESP_BYTES)).kind is kind
    found = find(ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2", nh=protocol) / Raw(ESP_BYTES))
    assert (found.kind, found.data, found.source_port) == (kind, ESP_BYTES, 0)


UDP500 = UDP(sport=500, dport=500) / IKE


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, ETHER / Dot1Q(vlan=7) / V4 / UDP500),
        (1, Ether(**MACS, type=0x88A8) / Dot1Q(vlan=7) / Dot1Q(vlan=8) / V4 / UDP500),
        (101, V4 / UDP500),
        (12, V6 / UDP500),
        (228, V4 / UDP500),
        (229, V6 / UDP500),
        (113, CookedLinux(proto=0x0800) / V4 / UDP500),
        (276, bytes.fromhex("0800000000000001000100060200000000010000") + bytes(V4 / UDP500)),
        (0, Loopback(type=2) / V4 / UDP500),
        (108, bytes.fromhex("00000018") + bytes(V6 / UDP500)),
        (1, bytes(14)[:12] + bytes.fromhex("8864110000010018") + b"\0\x21" + bytes(V4 / UDP500)),
    ],
    ids=["vlan", "qinq", "raw", "raw12", "ipv4", "ipv6", "sll", "sll2", "null", "loop", "pppoe"],
)
def test_every_link_layer(link_type, frame):
    assert find(frame, link_type).data == b"an IKE message"


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, Ether(**MACS, type=0x0806) / Raw(bytes(28))),
        (1, ETHER / V4 / UDP(sport=53, dport=53) / Raw(b"dns")),
        (1, ETHER / V4 / ICMP()),
        (1, b""),
        (101, b""),
        (101, b"\x00" * 40),
        (113, b"short"),
        (276, b"short"),
        (0, b"\x02\0\0\0"),
        (0, b"\x02\0\0\0\x10"),
        (147, bytes(V4 / UDP500)),
        (1, bytes(12) + b"\x88\x64"),
    ],
)
def test_what_is_not_ours_is_passed_over(link_type, frame):
    assert find(frame, link_type) is None


def test_ethernet_padding_and_bytes_after_the_udp_length_are_cut_off():
    packet = bytes(ETHER / V4 / UDP(sport=500, dport=500, len=8 + 5) / IKE) + bytes(30)

    assert find(packet).data == b"an IK"


def test_ipv6_extension_headers_are_passed_over():
    assert find(ETHER / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP500).data == b"an IKE message"


def test_packet_that_the_capture_cut_says_so():
    whole = bytes(ETHER / V4 / UDP(sport=500, dport=500) / Raw(bytes(200)))

    assert not find(whole).is_cut
    assert find(whole[:100]).is_cut


def fragments_of(ip):
    payload = UDP(sport=500, dport=500) / Raw(bytes(range(256)) * 12)
    if ip is V4:
        return fragment(IP(src=ip.src, dst=ip.dst, id=77) / payload, fragsize=600)
    return fragment6(IPv6(src=ip.src, dst=ip.dst) / IPv6ExtHdrFragment(id=77) / payload, 700)


@pytest.mark.parametrize("ip", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("seed", range(5))
def test_ip_fragments_in_any_order_are_one_message_found_once(ip, seed):
    packets = [bytes(packet) for packet in fragments_of(ip)]
    Random(seed).shuffle(packets)
    finder = Finder()

    found = [finder.find(Frame(number=n, time_ns=0, link_type=101, data=p)) for n, p in enumerate(packets)]

    assert next(item for item in found if item).data == bytes(range(256)) * 12
    assert found[:-1] == [None] * (len(packets) - 1)
    assert len(packets) > 3


def test_fragments_of_different_packets_do_not_mix():
    first = [bytes(p) for p in fragment(V4 / UDP(sport=500, dport=500) / Raw(b"a" * 1200), fragsize=600)]
    second = [
        bytes(p)
        for p in fragment(
            IP(src=V4.src, dst=V4.dst, id=9) / UDP(sport=500, dport=500) / Raw(b"b" * 1200), fragsize=600
        )
    ]
    finder = Finder()
    order = [packet for packets in zip(first, second, strict=True) for packet in packets]

    found = [finder.find(Frame(number=1, time_ns=0, link_type=101, data=packet)) for packet in order]

    assert [set(item.data) for item in found if item] == [{ord("a")}, {ord("b")}]


def part(identification, offset, payload, more=True):
    return IpPacket(
        ip_address("192.0.2.1"), ip_address("192.0.2.2"), 17, payload, identification, offset, more
    )


def test_awaited_fragments_are_bounded_in_number_and_size():
    defragmenter = Defragmenter()
    for identification in range(MAX_PENDING + 10):
        assert defragmenter.add(part(identification, 0, b"first888")) is None

    assert len(defragmenter._pending) == MAX_PENDING
    # The oldest was forgotten: its second half alone is not a packet.
    assert defragmenter.add(part(0, 8, b"last", more=False)) is None
    assert defragmenter.add(part(MAX_PENDING + 5, 8, b"last", more=False)).payload == b"first888last"
    assert defragmenter.add(part(99999, 65528, b"far too far", more=False)) is None


def test_unknown_link_type_has_no_packet():
    assert strip_link_layer(147, bytes(100)) is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0, 1, 12, 101, 108, 113, 228, 229, 276, 999]), st.lists(st.binary(max_size=120)))
def test_any_bytes_in_any_frame_are_found_or_passed_over(link_type, frames):
    finder = Finder()
    for data in frames:
        finder.find(Frame(number=1, time_ns=0, link_type=link_type, data=data))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0x45, 0x4F, 0x60]), st.binary(min_size=19, max_size=120))
def test_any_ip_packet_is_found_or_passed_over(first, rest):
    Finder().find(Frame(number=1, time_ns=0, link_type=101, data=bytes([first]) + rest))
