"""Ciphers against Wycheproof and RFC vectors; what they refuse; what a wrong bit does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ike.crypto.cipher import IntegrityFailed, build_cipher, build_coder, integrity_function
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ
from gateway.ipsec.secret import Secret
from tests.vectors.read import wycheproof

SUITES = [
    *((encr, bits, Integ.NONE) for encr in (Encr.AES_GCM_8, Encr.AES_GCM_12) for bits in (128, 256)),
    *((Encr.AES_GCM_16, bits, Integ.NONE) for bits in (128, 192, 256)),
    *((encr, 256, Integ.NONE) for encr in (Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16)),
    (Encr.CHACHA20_POLY1305, 256, Integ.NONE),
    (Encr.NULL_AUTH_AES_GMAC, 128, Integ.NONE),
    *((Encr.AES_CBC, bits, Integ.HMAC_SHA2_256_128) for bits in (128, 192, 256)),
    (Encr.AES_CBC, 256, Integ.HMAC_SHA2_512_256),
    (Encr.AES_CBC, 256, Integ.HMAC_SHA2_384_192),
    (Encr.AES_CBC, 128, Integ.HMAC_SHA1_96),
    (Encr.AES_CBC, 128, Integ.HMAC_MD5_96),
    (Encr.AES_CTR, 128, Integ.AES_XCBC_96),
    (Encr.TRIPLE_DES, 192, Integ.HMAC_SHA1_160),
    (Encr.CAMELLIA_CBC, 256, Integ.AES_CMAC_96),
    (Encr.NULL, 0, Integ.HMAC_SHA2_256_128),
]
IDS = [f"{encr.name}-{bits}-{integ.name}" for encr, bits, integ in SUITES]


def cipher_of(encr, bits, integ):
    key = Secret(bytes(range(ENCR[encr].keymat_bytes(bits))))
    if encr is Encr.TRIPLE_DES:
        key = Secret(bytes(range(1, 25)))
    return build_cipher(encr, key, integ, Secret(bytes(INTEG[integ].key_bytes)))


@pytest.mark.parametrize(("encr", "bits", "integ"), SUITES, ids=IDS)
class TestEverySuite:
    def test_what_was_sealed_opens_and_has_the_length_of_the_table(self, encr, bits, integ):
        cipher = cipher_of(encr, bits, integ)
        iv = bytes(cipher.iv_bytes)
        plaintext = bytes(48)

        sealed = cipher.seal(iv, b"associated", plaintext)

        assert cipher.open(iv, b"associated", sealed) == plaintext
        assert len(sealed) == 48 + (ENCR[encr].icv_bytes or INTEG[integ].icv_bytes)
        assert cipher.block_bytes == (1 if ENCR[encr].aead else ENCR[encr].block_bytes)

    def test_one_wrong_bit_anywhere_is_noticed(self, encr, bits, integ):
        cipher = cipher_of(encr, bits, integ)
        iv = bytes(cipher.iv_bytes)
        sealed = cipher.seal(iv, b"associated", bytes(16))

        for position in range(len(sealed)):
            wrong = bytearray(sealed)
            wrong[position] ^= 0x01
            with pytest.raises(IntegrityFailed):
                cipher.open(iv, b"associated", bytes(wrong))
        with pytest.raises(IntegrityFailed):
            cipher.open(iv, b"associatee", sealed)
        if iv:
            with pytest.raises(IntegrityFailed):
                cipher.open(b"\x01" + iv[1:], b"associated", sealed)

    def test_every_truncation_is_noticed(self, encr, bits, integ):
        cipher = cipher_of(encr, bits, integ)
        iv = bytes(cipher.iv_bytes)
        sealed = cipher.seal(iv, b"", bytes(16))

        for size in range(len(sealed)):
            with pytest.raises(IntegrityFailed):
                cipher.open(iv, b"", sealed[:size])

    def test_key_of_another_length_is_refused(self, encr, bits, integ):
        size = ENCR[encr].keymat_bytes(bits)

        with pytest.raises(LocalError, match="has no key of"):
            build_cipher(encr, Secret(bytes(size + 1)), integ, Secret(bytes(INTEG[integ].key_bytes)))


@pytest.mark.parametrize(
    ("file", "encrs"),
    [
        ("aes_gcm", {128: Encr.AES_GCM_16}),
        ("aes_ccm", {64: Encr.AES_CCM_8, 96: Encr.AES_CCM_12, 128: Encr.AES_CCM_16}),
        ("chacha20_poly1305", {128: Encr.CHACHA20_POLY1305}),
    ],
)
def test_aead_meets_wycheproof(file, encrs):
    checked = 0
    for group in wycheproof(file):
        encr = encrs[group["tagSize"]]
        for case in group["tests"]:
            key, nonce, aad, msg, ct, tag = (
                bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            salt_bytes = ENCR[encr].salt_bytes
            cipher = build_cipher(encr, Secret(key + nonce[:salt_bytes]))
            iv = nonce[salt_bytes:]
            if case["result"] == "invalid":
                with pytest.raises(IntegrityFailed):
                    cipher.open(iv, aad, ct + tag)
            else:
                assert cipher.open(iv, aad, ct + tag) == msg, case["tcId"]
                assert cipher.seal(iv, aad, msg) == ct + tag, case["tcId"]
            checked += 1
    assert checked >= 18


def test_short_gcm_tags_are_the_first_bytes_of_the_long_one():
    """NIST SP 800-38D §7.1 step 6: the tag is the leftmost bits."""
    key = Secret(bytes(range(20)))
    whole = build_cipher(Encr.AES_GCM_16, key).seal(bytes(8), b"a", b"plain")

    assert build_cipher(Encr.AES_GCM_12, key).seal(bytes(8), b"a", b"plain") == whole[:-4]
    assert build_cipher(Encr.AES_GCM_8, key).seal(bytes(8), b"a", b"plain") == whole[:-8]


def test_gmac_is_gcm_of_nothing_and_meets_wycheproof():
    """Wycheproof authenticates a message; RFC 4543 §3.3 makes that message of head, IV and payload."""
    checked = 0
    for group in wycheproof("aes_gmac"):
        for case in group["tests"]:
            key, nonce, message = (bytes.fromhex(case[name]) for name in ("key", "iv", "msg"))
            secret, iv = Secret(key + nonce[:4]), nonce[4:]
            gcm = build_cipher(Encr.AES_GCM_16, secret)
            gmac = build_cipher(Encr.NULL_AUTH_AES_GMAC, secret)

            assert (gcm.seal(iv, message, b"").hex() == case["tag"]) == (case["result"] == "valid")
            assert gmac.seal(iv, b"head", message) == message + gcm.seal(iv, b"head" + iv + message, b"")
            checked += 1
    assert checked > 30


def test_aes_ctr_meets_rfc_3686():
    """RFC 3686 §6, test vector 2: key, nonce, IV."""
    coder = build_coder(Encr.AES_CTR, Secret(bytes.fromhex("7e24067817fae0d743d6ce1f32539163" + "006cb6db")))
    ciphertext = "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28"

    assert coder.encrypt(bytes.fromhex("c0543b59da48d90b"), bytes(range(32))).hex() == ciphertext


def test_aes_cbc_meets_rfc_3602():
    """RFC 3602 §4, case 1."""
    coder = build_coder(Encr.AES_CBC, Secret(bytes.fromhex("06a9214036b8a15b512e03d534120006")))

    ciphertext = coder.encrypt(bytes.fromhex("3dafba429d9eb430b422da802c9fac41"), b"Single block msg")

    assert ciphertext.hex() == "e353779c1079aeb82708942dbe77181a"


def test_camellia_meets_rfc_3713():
    """RFC 3713 Appendix A, 128-bit key; one block of CBC with a zero IV is the cipher itself."""
    block = bytes.fromhex("0123456789abcdeffedcba9876543210")
    coder = build_coder(Encr.CAMELLIA_CBC, Secret(block))

    assert coder.encrypt(bytes(16), block).hex() == "67673138549669730857065648eabe43"


def test_triple_des_with_equal_keys_is_des():
    """FIPS 46-3's well-known example: key 133457799bbcdff1."""
    key, block = bytes.fromhex("133457799bbcdff1"), bytes.fromhex("0123456789abcdef")

    assert build_coder(Encr.DES, Secret(key)).encrypt(bytes(8), block).hex() == "85e813540f0ab405"
    assert build_coder(Encr.TRIPLE_DES, Secret(key * 3)).encrypt(bytes(8), block).hex() == "85e813540f0ab405"


@pytest.mark.parametrize(
    ("file", "integ"),
    [
        ("hmac_sha256", Integ.HMAC_SHA2_256_128),
        ("hmac_sha384", Integ.HMAC_SHA2_384_192),
        ("hmac_sha512", Integ.HMAC_SHA2_512_256),
    ],
)
def test_truncated_hmac_meets_wycheproof(file, integ):
    function = integrity_function(integ)
    checked = 0
    for group in wycheproof(file):
        if group["tagSize"] != INTEG[integ].icv_bytes * 8:
            continue
        for case in group["tests"]:
            icv = function(bytes.fromhex(case["key"]), bytes.fromhex(case["msg"]))
            assert (icv.hex() == case["tag"]) == (case["result"] == "valid"), case["tcId"]
            checked += 1
    assert checked > 20


def test_mac_covers_the_implicit_bytes_it_does_not_send():
    cipher = cipher_of(Encr.AES_CBC, 128, Integ.HMAC_SHA2_256_128)
    sealed = cipher.seal(bytes(16), b"head", bytes(16), b"high")

    assert cipher.open(bytes(16), b"head", sealed, b"high") == bytes(16)
    with pytest.raises(IntegrityFailed):
        cipher.open(bytes(16), b"head", sealed)


def test_aead_refuses_implicit_bytes():
    with pytest.raises(LocalError, match="associated data"):
        cipher_of(Encr.AES_GCM_16, 128, Integ.NONE).seal(bytes(8), b"", b"", b"high")


def test_integrity_key_of_another_length_is_refused():
    with pytest.raises(LocalError, match="HMAC_SHA2_256_128 has a key of 32 bytes, got 20"):
        build_cipher(Encr.AES_CBC, Secret(bytes(16)), Integ.HMAC_SHA2_256_128, Secret(bytes(20)))


@pytest.mark.parametrize("encr", [Encr.RC5, Encr.CAMELLIA_CCM_16, Encr.AES_GCM_16_IIV])
def test_algorithm_without_code_is_refused(encr):
    key = Secret(bytes(ENCR[encr].keymat_bytes()))

    with pytest.raises(LocalError, match="not implemented"):
        build_cipher(encr, key, Integ.HMAC_SHA1_96, Secret(bytes(20)))


def test_encryption_that_nothing_authenticates_is_refused():
    with pytest.raises(LocalError, match="AES_CBC without an integrity algorithm"):
        build_cipher(Encr.AES_CBC, Secret(bytes(16)))


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_any_bytes_under_any_suite_fail_as_integrity_only(sealed, associated):
    for suite in (SUITES[4], SUITES[10], SUITES[13]):
        cipher = cipher_of(*suite)
        with pytest.raises(IntegrityFailed):
            cipher.open(bytes(cipher.iv_bytes), associated, sealed)
