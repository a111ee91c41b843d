"""What the first bytes of an ESP or AH packet name."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP, IPOption
from scapy.layers.ipsec import AH, ESP

from gateway.datapath.xfrm.bad_spi import Seen, parse_ipv4
from gateway.ipsec.sa import IpsecProtocol

OUTER = IP(src="192.0.2.2", dst="192.0.2.1")
NAMES = (ip_address("192.0.2.2"), ip_address("192.0.2.1"))


def test_spi_and_addresses_are_found_behind_options_too() -> None:
    options = IP(src="192.0.2.2", dst="192.0.2.1", options=[IPOption(b"\x07\x07\x04\x00\x00\x00\x00")])

    esp, ah = ESP(spi=0x1234, data=b"secret"), AH(spi=0x5678, icv=bytes(12))
    assert parse_ipv4(bytes(OUTER / esp)) == Seen(IpsecProtocol.ESP, 0x1234, *NAMES)
    assert parse_ipv4(bytes(OUTER / ah)) == Seen(IpsecProtocol.AH, 0x5678, *NAMES)
    assert parse_ipv4(bytes(options / esp)) == Seen(IpsecProtocol.ESP, 0x1234, *NAMES)


@pytest.mark.parametrize(
    "packet",
    [b"", bytes(OUTER / ESP(spi=0x1234))[:22], bytes(OUTER / UDP()), bytes(OUTER / ESP(spi=255, data=b"x"))],
    ids=["empty", "cut off", "UDP", "a reserved SPI"],
)
def test_what_names_no_sa_is_passed_over(packet: bytes) -> None:
    assert parse_ipv4(packet) is None
