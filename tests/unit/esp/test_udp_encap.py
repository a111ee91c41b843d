"""What arrives on port 4500 (RFC 3948 §2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.esp.udp_encap import KEEPALIVE, NON_ESP_MARKER, Payload, classify, make_udp_header
from tests.unit.esp.samples import ENCAPSULATION, ip_packet, outbound


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (KEEPALIVE, Payload.KEEPALIVE),
        (NON_ESP_MARKER + bytes(28), Payload.IKE),
        (NON_ESP_MARKER + b"\x01" * 4, Payload.IKE),
        (b"\x00\x00\x01\x00" + bytes(20), Payload.ESP),
        (b"\xff" * 8, Payload.ESP),
        (b"", Payload.MALFORMED),
        (b"\x00", Payload.MALFORMED),
        (b"\xff\xff", Payload.MALFORMED),
        (NON_ESP_MARKER, Payload.MALFORMED),
        (b"\x00\x00\x01\x00" + bytes(3), Payload.MALFORMED),
    ],
)
def test_datagrams_are_told_apart(datagram: bytes, expected: Payload) -> None:
    assert classify(datagram) is expected


def test_what_we_send_is_esp() -> None:
    sealed = outbound(encapsulation=ENCAPSULATION).seal_payload(ip_packet(4), 0.0)

    assert classify(sealed.payload) is Payload.ESP


@given(st.binary(max_size=64))
def test_any_datagram_is_something(datagram: bytes) -> None:
    assert classify(datagram) in Payload


def test_computed_checksum_of_zero_is_sent_as_all_ones() -> None:
    # RFC 768: zero says that there is none, which IPv6 does not allow.
    addresses = bytes(range(32))
    checksum = make_udp_header(ENCAPSULATION, bytes(2), addresses)[6:]

    header = make_udp_header(ENCAPSULATION, checksum, addresses)

    assert header[6:] == b"\xff\xff"
