"""Whatever arrives, the codec answers with a message or a `PeerError`, never with anything else."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ike.crypto.cipher import build_cipher
from gateway.ike.errors import PeerError
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.message import encode_message, parse_message, parse_payloads
from gateway.ike.wire.payloads import IdiPayload, IdrPayload, SaPayload
from gateway.ike.wire.protected import Plaintext, SkOpener
from gateway.ike.wire.rules import check_rules
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.secret import Secret
from tests.vectors.read import ike_datagrams, ikev2_captures

DATAGRAMS = [datagram for path in ikev2_captures() for datagram in ike_datagrams(path)]
OPENER = SkOpener(build_cipher(Encr.AES_GCM_16, Secret(bytes(36))))
FUZZ = settings(max_examples=300, deadline=None)


def use(payloads, header):
    """Do with payloads what exchanges do first: check them, and look at what converts lazily."""
    for payload in payloads:
        if isinstance(payload, SaPayload):
            assert all(
                item.proposal is None or item.proposal.transforms is not None for item in payload.proposals
            )
        if isinstance(payload, IdiPayload | IdrPayload):
            with_identity(payload)
    check_rules(payloads, header.exchange_type, is_response=header.is_response)


def with_identity(payload):
    with contextlib.suppress(PeerError):
        assert payload.identity.data == payload.data


def receive(datagram):
    try:
        message = parse_message(datagram)
        if message.protected is not None:
            with pytest.raises(PeerError):
                OPENER.open(message)
        use(message.payloads, message.header)
    except PeerError:
        pass


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes(datagram):
    receive(datagram)


@FUZZ
@given(
    st.sampled_from([*ExchangeType, 0, 99]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=200),
)
def test_any_bytes_behind_a_valid_header(exchange, flags, next_payload, body):
    header = IkeHeader(spi_i=b"initiatr", exchange_type=exchange, flags=flags, message_id=0)
    datagram = bytearray(encode_message(header, ()) + body)
    datagram[16] = next_payload
    datagram[24:28] = len(datagram).to_bytes(4, "big")

    receive(bytes(datagram))


@FUZZ
@given(st.sampled_from([*range(33, 49), 53, 200]), st.binary(max_size=200))
def test_any_bytes_as_any_first_payload_of_a_chain(first_payload, data):
    with contextlib.suppress(PeerError):
        use(
            Plaintext(first_payload, data).payloads(),
            IkeHeader(spi_i=bytes(8), exchange_type=35, flags=8, message_id=1),
        )


@FUZZ
@given(st.sampled_from([*range(33, 46), 47, 48]), st.binary(max_size=120), st.booleans())
def test_any_body_of_any_payload_with_a_right_length(payload_type, body, critical):
    chain = bytes([0, 0x80 if critical else 0]) + (4 + len(body)).to_bytes(2, "big") + body
    try:
        payloads = parse_payloads(payload_type, chain)
    except PeerError:
        return
    assert len(payloads) == 1


@FUZZ
@given(st.sampled_from(DATAGRAMS), st.data())
def test_captured_messages_with_changed_cut_and_doubled_parts(datagram, data):
    changed = bytearray(datagram)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                changed[position] = data.draw(st.integers(0, 255))
            case 1:
                del changed[position : position + data.draw(st.integers(1, 8))]
            case 2:
                changed[position:position] = changed[position : position + data.draw(st.integers(1, 64))]
        if len(changed) < 29:
            break
    if len(changed) >= 28 and data.draw(st.booleans()):
        changed[24:28] = len(changed).to_bytes(4, "big")

    receive(bytes(changed))
