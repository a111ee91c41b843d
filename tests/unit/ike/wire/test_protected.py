"""SK and SKF: sealing, opening, IVs, fragments."""

import pytest

from gateway.ike.crypto.cipher import IntegrityFailed, build_cipher
from gateway.ike.crypto.keymat import derive_ike_keys
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.message import encode_message, parse_message
from gateway.ike.wire.notify import NotifyType, parse_window_size
from gateway.ike.wire.payloads import NotifyPayload, find_notify
from gateway.ike.wire.protected import (
    MAX_FRAGMENTS,
    SkOpener,
    SkProtection,
    SkSealer,
    strip_padding,
)
from gateway.ike.wire.reassembly import Reassembly
from gateway.ipsec.algorithms import ENCR, Encr, Integ, Prf
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.secret import Secret
from tests.vectors.read import kdf

HEADER = IkeHeader.build(
    spi_i=b"initiatr",
    spi_r=b"respondr",
    exchange_type=ExchangeType.INFORMATIONAL,
    is_initiator=True,
    is_response=False,
    message_id=5,
)
PAYLOADS = (NotifyPayload(NotifyType.INITIAL_CONTACT), NotifyPayload(NotifyType.COOKIE, b"c" * 1000))
WORDS = (
    "aes256gcm16-prfsha384-x25519",
    "aes128gcm16-prfsha256-x25519",
    "aes256-sha256-modp2048",
    "aes128-sha2_512-modp2048",
    "aes192ccm12-prfsha256-x25519",
    "chacha20poly1305-prfsha256-x25519",
    "aes128ctr-aesxcbc-modp2048",
    "3des-sha1-modp2048",
)


def counting_entropy():
    state = [0]

    def entropy(size):
        state[0] += 1
        return state[0].to_bytes(size, "big")

    return entropy


def pair(words):
    suite = IkeSuite.of(parse_proposal(words, ProtocolId.IKE, implemented_only=False))
    keys = derive_ike_keys(
        suite,
        shared_secret=Secret(b"shared"),
        nonce_i=b"i" * 32,
        nonce_r=b"r" * 32,
        spi_i=b"initiatr",
        spi_r=b"respondr",
    )
    return tuple(
        SkProtection(suite, keys, is_initiator=role, entropy=counting_entropy()) for role in (True, False)
    )


@pytest.mark.parametrize("words", WORDS)
class TestEverySuite:
    def test_each_side_opens_what_the_other_sealed(self, words):
        initiator, responder = pair(words)

        assert responder.open(parse_message(initiator.seal(HEADER, PAYLOADS))).payloads() == PAYLOADS
        assert initiator.open(parse_message(responder.seal(HEADER, ()))).payloads() == ()

    def test_no_side_opens_what_it_sealed_itself(self, words):
        """The directions have their own keys (RFC 7296 §2.14): reflection fails."""
        initiator, _ = pair(words)

        with pytest.raises(IntegrityFailed):
            initiator.open(parse_message(initiator.seal(HEADER, PAYLOADS)))

    def test_every_byte_of_the_message_is_authenticated(self, words):
        initiator, responder = pair(words)
        datagram = initiator.seal(HEADER, PAYLOADS[:1])

        for position in range(len(datagram)):
            wrong = bytearray(datagram)
            wrong[position] ^= 0x01
            try:
                message = parse_message(bytes(wrong))
            except (InvalidSyntax, LocalError):
                continue  # a length or version: the message does not even parse
            with pytest.raises(IntegrityFailed):
                responder.open(message)

    def test_ivs_never_repeat(self, words):
        initiator, _ = pair(words)
        cipher = initiator._sealer._cipher

        ivs = [initiator.seal(HEADER, ())[32 : 32 + cipher.iv_bytes] for _ in range(20)]
        fragments = initiator.seal_fragments(HEADER, PAYLOADS, 300)
        ivs += [fragment[36 : 36 + cipher.iv_bytes] for fragment in fragments]

        assert len(set(ivs)) == len(ivs)

    @pytest.mark.parametrize("max_bytes", [120, 300, 576, 1200])
    def test_fragments_stay_below_the_limit_and_come_together_in_any_order(self, words, max_bytes):
        initiator, responder = pair(words)

        fragments = initiator.seal_fragments(HEADER, PAYLOADS, max_bytes)

        if len(fragments) > 1:
            assert all(len(fragment) <= max_bytes for fragment in fragments)
        messages = [parse_message(fragment) for fragment in reversed(fragments)]
        if len(messages) == 1:
            assert responder.open(messages[0]).payloads() == PAYLOADS
            return
        reassembly = Reassembly()
        results = [reassembly.add(m.protected, responder.open(m)) for m in messages]
        assert results[:-1] == [None] * (len(messages) - 1)
        assert results[-1].payloads() == PAYLOADS


def test_rfc_7634_appendix_b_message_opens_and_is_sealed_byte_for_byte():
    vector = kdf("rfc7634_appendixB_message.json")
    packet = bytes.fromhex(vector["packet"])
    cipher = build_cipher(Encr.CHACHA20_POLY1305, Secret(bytes.fromhex(vector["SK_e"])))

    message = parse_message(packet)
    plaintext = SkOpener(cipher).open(message)
    sealer = SkSealer(cipher, lambda size: b"")
    sealer._counter = int(vector["iv"], 16)

    assert parse_window_size(find_notify(plaintext.payloads(), NotifyType.SET_WINDOW_SIZE).data) == 10
    assert sealer.seal(message.header, plaintext.payloads()) == packet


def test_counter_iv_stops_before_it_would_repeat():
    sealer = SkSealer(build_cipher(Encr.AES_GCM_16, Secret(bytes(36))), lambda size: b"")
    sealer._counter = 2**64 - 1

    sealer.seal(HEADER, ())

    with pytest.raises(LocalError, match="used up"):
        sealer.seal(HEADER, ())


def test_cbc_iv_is_drawn_from_entropy():
    cipher = build_cipher(Encr.AES_CBC, Secret(bytes(16)), Integ.HMAC_SHA1_96, Secret(bytes(20)))
    sealer = SkSealer(cipher, lambda size: b"\xab" * size)

    assert sealer.seal(HEADER, ())[32:48] == b"\xab" * 16


def test_message_without_encrypted_payload_does_not_open():
    _, responder = pair(WORDS[0])

    with pytest.raises(IntegrityFailed, match="no Encrypted payload"):
        responder.open(parse_message(encode_message(HEADER, PAYLOADS)))


def test_keys_may_be_wiped_after_the_ciphers_were_chosen():
    suite = IkeSuite(encr=Encr.AES_CBC, key_bits=128, integ=Integ.HMAC_SHA2_256_128, prf=Prf.HMAC_SHA2_256)
    keys = derive_ike_keys(
        suite,
        shared_secret=Secret(b"s"),
        nonce_i=bytes(16),
        nonce_r=bytes(16),
        spi_i=bytes(8),
        spi_r=bytes(8),
    )
    initiator, responder = (
        SkProtection(suite, keys, is_initiator=role, entropy=counting_entropy()) for role in (True, False)
    )

    keys.wipe()

    assert responder.open(parse_message(initiator.seal(HEADER, PAYLOADS))).payloads() == PAYLOADS


@pytest.mark.parametrize("padded", [b"", b"\x01", b"ab\x03", b"\xff" * 20])
def test_impossible_pad_length_is_invalid_syntax(padded):
    with pytest.raises(InvalidSyntax, match="Pad Length"):
        strip_padding(padded)


def test_padding_of_any_content_is_taken_off():
    assert strip_padding(b"data\xde\xad\x02") == b"data"
    assert strip_padding(b"\x00") == b""


def test_cbc_is_padded_to_blocks_and_an_aead_is_not():
    initiator, _ = pair("aes128-sha256-modp2048")
    for size in range(20):
        datagram = initiator.seal(HEADER, (NotifyPayload(NotifyType.COOKIE, bytes(size)),))
        assert (len(datagram) - 32 - 16 - 16) % ENCR[Encr.AES_CBC].block_bytes == 0
    initiator, _ = pair("aes128gcm16-prfsha256-x25519")
    sizes = {len(initiator.seal(HEADER, (NotifyPayload(16390, bytes(size)),))) for size in range(20)}
    assert len(sizes) == 20


def test_only_the_first_fragment_tells_the_type_of_the_first_payload():
    """RFC 7383 §2.5: Next Payload is that of the first inner payload in fragment 1, and 0 in all others."""
    initiator, _ = pair(WORDS[0])

    fragments = [parse_message(d).protected for d in initiator.seal_fragments(HEADER, PAYLOADS, 300)]

    assert [fragment.first_payload for fragment in fragments] == [41] + [0] * (len(fragments) - 1)
    assert [(f.number, f.total) for f in fragments] == [(n, 5) for n in range(1, 6)]


@pytest.mark.parametrize("words", WORDS)
def test_fragments_fill_the_limit_as_far_as_blocks_allow(words):
    initiator, _ = pair(words)
    block_bytes = initiator._sealer._cipher.block_bytes

    fragments = initiator.seal_fragments(HEADER, PAYLOADS, 400)

    assert all(400 - 2 * block_bytes < len(fragment) <= 400 for fragment in fragments[:-1])


def test_a_message_that_would_need_too_many_fragments_gets_larger_ones():
    initiator, responder = pair(WORDS[0])
    payloads = (NotifyPayload(16390, bytes(60000)),)

    fragments = initiator.seal_fragments(HEADER, payloads, 100)

    assert len(fragments) == MAX_FRAGMENTS
    reassembly = Reassembly()
    parts = [parse_message(fragment) for fragment in fragments]
    whole = [reassembly.add(m.protected, responder.open(m)) for m in parts][-1]
    assert whole.payloads() == payloads


def test_a_limit_without_room_for_data_is_our_mistake():
    initiator, _ = pair(WORDS[0])

    with pytest.raises(LocalError, match="no room"):
        initiator.seal_fragments(HEADER, PAYLOADS, 50)
