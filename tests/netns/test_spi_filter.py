"""The kernel gives a raw socket the packets of the SPIs it asked for, and no others."""

import socket
import struct
from collections.abc import Collection

import pytest

from gateway.datapath.software.spi_filter import MAX_SPIS, spi_filter
from gateway.host.sockets import attach_filter
from gateway.ipsec.sa import IpsecProtocol
from tests.conformance.namespace import fresh_network_namespace

pytestmark = pytest.mark.netns

OURS = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def heard(
    family: socket.AddressFamily, protocol: IpsecProtocol, wanted: Collection[int], sent: Collection[int]
) -> list[int]:
    """Return the SPIs of the packets that a filtered raw socket receives."""
    with (
        socket.socket(family, socket.SOCK_RAW, protocol) as witness,
        socket.socket(family, socket.SOCK_RAW, protocol) as receiver,
        socket.socket(family, socket.SOCK_RAW, protocol) as sender,
    ):
        program = spi_filter(wanted, protocol, has_header=family == socket.AF_INET)
        attach_filter(receiver, program)
        receiver.setblocking(False)
        before = b"" if protocol is IpsecProtocol.ESP else bytes(4)
        for spi in sent:
            sender.sendto(before + struct.pack("!II", spi, 1) + bytes(16), (OURS[family], 0))
        witness.settimeout(60.0)
        for _ in sent:
            witness.recv(2048)
        spis = []
        while True:
            try:
                packet = receiver.recv(2048)
            except BlockingIOError:
                return spis
            start = ((packet[0] & 15) * 4 if family == socket.AF_INET else 0) + len(before)
            spis.append(struct.unpack_from("!I", packet, start)[0])


@pytest.mark.parametrize("protocol", list(IpsecProtocol), ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("family", list(OURS), ids=lambda family: family.name)
def test_a_raw_socket_hears_of_its_own_spis_only(
    family: socket.AddressFamily, protocol: IpsecProtocol
) -> None:
    with fresh_network_namespace("192.0.2.1/24", "2001:db8::1/64"):
        assert heard(family, protocol, [0x1001, 0xFFFF0001], [0x1001, 0x1002, 0xFFFF0001, 0x1001]) == [
            0x1001,
            0xFFFF0001,
            0x1001,
        ]
        assert heard(family, protocol, [], [0x1001, 0x1002]) == []


def test_the_longest_program_is_taken_and_with_more_spis_everything_is_heard() -> None:
    with fresh_network_namespace("192.0.2.1/24"):
        most = range(0x1000, 0x1000 + MAX_SPIS)
        last = most[-1]
        assert heard(socket.AF_INET, IpsecProtocol.ESP, most, [last, last + 1]) == [last]

        too_many = range(0x1000, 0x1001 + MAX_SPIS)
        assert heard(socket.AF_INET, IpsecProtocol.ESP, too_many, [last, 0x9999]) == [last, 0x9999]
