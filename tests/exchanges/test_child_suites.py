"""Every suite of ESP and AH: what two IKE cores derive, two packet cores use (RFC 7296 §2.17).

KEYMAT gives a key with its salt: 4 octets for AES-GCM (RFC 4106 §8.1), AES-CTR (RFC 3686 §5.1), AES-GMAC
(RFC 4543 §5.4) and ChaCha20-Poly1305 (RFC 7634 §2), 3 for AES-CCM (RFC 4309 §7.1); none for AES-CBC and MACs.
"""

import pytest

from gateway.esp import ah, transform
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.esp.inbound import InboundSa, parse_outer
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.algorithms import ENCR, Encr, Integ
from gateway.ipsec.connection import Child
from gateway.ipsec.implemented import IMPLEMENTED
from gateway.ipsec.proposal import ProtocolId, Transform, TransformType, format_transform
from gateway.ipsec.sa import IpsecProtocol
from tests.fakes.entropy import Entropy
from tests.fakes.pair import Pair, proposals, selectors
from tests.unit.esp.samples import ip_packet

SALT = {
    **dict.fromkeys((Encr.AES_GCM_8, Encr.AES_GCM_12, Encr.AES_GCM_16), 4),
    **dict.fromkeys((Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16), 3),
    **dict.fromkeys((Encr.AES_CTR, Encr.CHACHA20_POLY1305, Encr.NULL_AUTH_AES_GMAC), 4),
    **dict.fromkeys((Encr.AES_CBC, Encr.NULL), 0),
}
ADDRESSES = {4: ("10.1.0.1", "10.2.0.1")}


def esp_words():
    """Every cipher and key length, those that need one with each integrity algorithm."""
    macs = sorted(IMPLEMENTED[ProtocolId.ESP][TransformType.INTEG] - {Integ.NONE})
    for encr in sorted(IMPLEMENTED[ProtocolId.ESP][TransformType.ENCR]):
        info = ENCR[Encr(encr)]
        for bits in info.key_bits if info.key_length_attribute else (None,):
            word = format_transform(Transform(TransformType.ENCR, encr, bits))
            if info.aead:
                yield word
            else:
                yield from (f"{word}-{format_transform(Transform(TransformType.INTEG, m))}" for m in macs)


def ah_words():
    for integ in sorted(IMPLEMENTED[ProtocolId.AH][TransformType.INTEG]):
        yield format_transform(Transform(TransformType.INTEG, integ))


def pair_of(words, protocol):
    lans = selectors("10.1.0.0/16"), selectors("10.2.0.0/16")
    wanted = proposals(words, protocol)
    return Pair(
        alice={"children": [Child(name="lan", local_ts=lans[0], remote_ts=lans[1], proposals=wanted)]},
        bob={"children": [Child(name="lan", local_ts=lans[1], remote_ts=lans[0], proposals=wanted)]},
    )


def carried(sender, receiver):
    """Send a packet from one side's SA to the other side's."""
    packet = ip_packet(4, b"payload", addresses=ADDRESSES)
    outer, data = parse_outer(sender.seal(packet, 0.0), sender.sa.protocol)
    return receiver.open(data, outer, 0.0).packet == packet


@pytest.mark.parametrize("words", tuple(esp_words()))
@pytest.mark.parametrize("esn", ["", "-esn"])
def test_packet_core_carries_what_ike_derived_for_esp(words, esn):
    pair = pair_of(words + esn, ProtocolId.ESP)

    pair.establish()
    sending, receiving = pair.alice.child_sa.outbound, pair.bob.child_sa.inbound

    assert sending.protocol is IpsecProtocol.ESP
    assert len(sending.encryption_key) == sending.key_bits // 8 + SALT[sending.encryption]
    assert carried(OutboundSa(sending, entropy=Entropy(1)), InboundSa(receiving))
    back = OutboundSa(pair.bob.child_sa.outbound, entropy=Entropy(2))
    assert back.sa.encryption_key != sending.encryption_key or not len(sending.encryption_key)
    assert back.sa.integrity_key != sending.integrity_key or not len(sending.integrity_key)


@pytest.mark.parametrize("words", tuple(ah_words()))
@pytest.mark.parametrize("esn", ["", "-esn"])
def test_packet_core_carries_what_ike_derived_for_ah(words, esn):
    pair = pair_of(words + esn, ProtocolId.AH)

    pair.establish()

    sending, receiving = pair.alice.child_sa.outbound, pair.bob.child_sa.inbound
    assert carried(AhOutboundSa(sending), AhInboundSa(receiving))
    assert pair.bob.child_sa.outbound.integrity_key != sending.integrity_key


def test_suites_are_those_of_the_packet_core():
    macs = IMPLEMENTED[ProtocolId.ESP][TransformType.INTEG]
    assert macs - {Integ.NONE} == set(transform.supported_integrity())
    assert IMPLEMENTED[ProtocolId.ESP][TransformType.ENCR] == {e for e, _ in transform.supported_encryption()}
    assert IMPLEMENTED[ProtocolId.AH][TransformType.INTEG] == set(ah.supported_integrity())
