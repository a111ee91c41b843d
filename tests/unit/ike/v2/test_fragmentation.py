"""Sizes of fragments, and which size comes next when one does not arrive (RFC 7383 §2.5)."""

from ipaddress import ip_address

import pytest

from gateway.ike.path import Path
from gateway.ike.v2.fragmentation import max_message_bytes, packet_bytes_of, smaller_packet_bytes

V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")


@pytest.mark.parametrize(
    ("address", "port", "room"),
    [
        # IPv4 header 20, UDP 8, non-ESP marker 4; IPv6 header 40.
        (V4, 500, 1280 - 20 - 8),
        (V4, 4500, 1280 - 20 - 8 - 4),
        (V6, 500, 1280 - 40 - 8),
        (V6, 4500, 1280 - 40 - 8 - 4),
    ],
)
def test_a_message_leaves_room_for_what_goes_around_it(address, port, room):
    path = Path(address, port, address, port)

    assert max_message_bytes(path, 1280) == room
    assert packet_bytes_of(path, bytes(room)) == 1280


def test_a_peer_behind_a_nat_is_on_another_port_and_the_marker_counts_all_the_same():
    assert max_message_bytes(Path(V4, 4500, V4, 40001), 576) == 576 - 32


@pytest.mark.parametrize(
    ("tried", "message_bytes", "expected"),
    [
        (9000, 9000, 1280),
        (9000, 1253, 1280),
        # A packet of 1280 bytes exactly: the next size that divides it is 576.
        (9000, 1252, 576),
        (1280, 1252, 576),
        (1280, 549, 576),
        # It fits 576 as it is.
        (1280, 548, None),
        (576, 548, None),
        (256, 228, None),
    ],
)
def test_the_next_size_is_the_largest_that_divides_the_message(tried, message_bytes, expected):
    path = Path(V4, 500, V4, 500)

    assert smaller_packet_bytes(path, tried, bytes(message_bytes)) == expected
