"""Proposals between vocabulary and wire, and what RFC 7296 §3.3.6 wants refused."""

import pytest

from gateway.ike.errors import LocalError
from gateway.ike.wire import sa_payload
from gateway.ike.wire.sa_payload import (
    Attribute,
    WireProposal,
    WireTransform,
    encode_proposals,
    parse_proposals,
    wire_proposals,
)
from gateway.ipsec.proposal import ProtocolId, parse_proposal

GCM = WireTransform(1, 20, (Attribute(14, 256),))
PRF = WireTransform(2, 5)
X25519 = WireTransform(4, 31)


def offer(*transforms, protocol=1):
    return WireProposal(number=1, protocol=protocol, transforms=transforms)


@pytest.mark.parametrize(
    ("text", "protocol", "spi"),
    [
        ("aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp384", ProtocolId.IKE, b""),
        ("aes256-aes128-sha256-sha512-modp2048-modp4096", ProtocolId.IKE, b"8 bytes."),
        ("chacha20poly1305-prfsha512-ecp521", ProtocolId.IKE, b""),
        ("aes256gcm16-x25519", ProtocolId.ESP, b"\1\2\3\4"),
        ("aes128-sha256-esn-noesn", ProtocolId.ESP, b"\1\2\3\4"),
    ],
)
def test_proposal_survives_the_wire(text, protocol, spi):
    proposal = parse_proposal(text, protocol, implemented_only=False)
    second = parse_proposal("aes128-sha256" + ("-x25519" if protocol is ProtocolId.IKE else ""), protocol)

    octets = encode_proposals(wire_proposals((proposal, second), spi))
    parsed = parse_proposals(octets)

    assert [item.proposal for item in parsed] == [proposal, second]
    assert [item.number for item in parsed] == [1, 2]
    assert {item.spi for item in parsed} == {spi}


def test_unknown_transform_type_makes_a_proposal_unacceptable():
    assert offer(GCM, PRF, X25519).proposal is not None
    assert offer(GCM, PRF, X25519, WireTransform(200, 1)).proposal is None


def test_unknown_protocol_makes_a_proposal_unacceptable():
    assert offer(GCM, protocol=4).proposal is None


@pytest.mark.parametrize(
    "attributes",
    [
        (Attribute(99, 1),),
        (Attribute(14, 128), Attribute(99, b"long")),
        (Attribute(14, b"\1\0"),),
        (Attribute(14, 128), Attribute(14, 256)),
    ],
)
def test_transform_with_unknown_attribute_is_left_out_and_its_siblings_stay(attributes):
    strange = WireTransform(1, 20, attributes)

    assert offer(strange, GCM, PRF, X25519).proposal == offer(GCM, PRF, X25519).proposal
    # Without a sibling nothing can be chosen of this type: an AEAD proposal must not become one without.
    assert offer(strange, PRF, X25519).proposal is None


def test_unknown_transform_id_is_kept_for_selection_to_pass_over():
    proposal = offer(WireTransform(1, 250), GCM, PRF, X25519).proposal

    assert proposal is not None
    assert [transform.id for transform in proposal.transforms] == [250, 20, 5, 31]


def test_unknown_things_are_sent_back_as_they_came():
    proposals = (
        offer(WireTransform(200, 7, (Attribute(99, b"abc"), Attribute(3, 5))), GCM),
        WireProposal(number=2, protocol=77, spi=b"odd", transforms=()),
    )

    assert parse_proposals(encode_proposals(proposals)) == proposals


def test_empty_offer_is_our_mistake():
    with pytest.raises(LocalError, match="at least one proposal"):
        encode_proposals(())


def test_memory_of_what_was_read_is_bounded_whatever_strangers_send():
    """Short lists of transforms are kept up to a number, long ones not at all."""
    remembered = sa_payload._remembered_transforms
    remembered.cache_clear()

    for number in range(300):
        many = tuple(WireTransform(1, number * 100 + i) for i in range(100))
        parse_proposals(encode_proposals([offer(*many)]))
    assert remembered.cache_info().currsize == 0

    for number in range(300):
        parse_proposals(encode_proposals([offer(WireTransform(1, number))]))
    assert 1 < remembered.cache_info().currsize < 300


def test_what_was_read_before_is_read_alike():
    octets = encode_proposals([offer(GCM, PRF, X25519)])
    other = octets[:-1] + bytes([octets[-1] ^ 1])

    assert parse_proposals(octets) == parse_proposals(octets)
    assert parse_proposals(octets) != parse_proposals(other)
