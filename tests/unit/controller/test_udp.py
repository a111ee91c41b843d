import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from gateway.controller.udp import destination_of, source_control
from gateway.host.sockets import IP_PKTINFO
from gateway.ipsec.sa import IpAddress


def test_the_local_address_of_a_datagram_is_where_it_was_sent_to() -> None:
    # struct in_pktinfo { int ifindex; struct in_addr spec_dst; struct in_addr addr; }
    pktinfo = struct.pack("@i4s4s", 3, IPv4Address("192.0.2.9").packed, IPv4Address("192.0.2.1").packed)

    assert destination_of([(socket.IPPROTO_IP, IP_PKTINFO, pktinfo)]) == IPv4Address("192.0.2.1")


def test_ancillary_data_of_other_kinds_and_of_the_wrong_length_is_passed_over() -> None:
    v6 = IPv6Address("2001:db8::1").packed + struct.pack("@I", 2)

    found = destination_of(
        [
            (socket.IPPROTO_IP, socket.IP_TOS, b"\0"),
            (socket.IPPROTO_IP, IP_PKTINFO, b"short"),
            (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, v6),
        ]
    )

    assert found == IPv6Address("2001:db8::1")
    assert destination_of([]) is None


@pytest.mark.parametrize("address", [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")])
def test_a_datagram_leaves_from_the_address_it_should(address: IpAddress) -> None:
    level, kind, data = source_control(address)

    assert address.packed in data
    if address.version == 4:
        assert (level, kind, len(data)) == (socket.IPPROTO_IP, IP_PKTINFO, 12)
        assert data[4:8] == address.packed  # spec_dst: the source address when sending (ip(7))
    else:
        assert (level, kind, len(data)) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, 20)
