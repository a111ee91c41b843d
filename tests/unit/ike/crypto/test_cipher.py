"""Ciphers: what they refuse, what a wrong bit does. Their vectors: `test_vectors`, `test_wycheproof`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ike.crypto.cipher import IntegrityFailed, build_cipher, build_coder
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ
from gateway.ipsec.secret import Secret

AEADS = [
    *(Encr.AES_GCM_8, Encr.AES_GCM_12, Encr.AES_GCM_16),
    *(Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16),
    *(Encr.CHACHA20_POLY1305, Encr.NULL_AUTH_AES_GMAC),
]
MACS = [
    *(Integ.HMAC_SHA2_256_128, Integ.HMAC_SHA2_384_192, Integ.HMAC_SHA2_512_256, Integ.HMAC_SHA1_96),
    *(Integ.AES_XCBC_96, Integ.AES_CMAC_96, Integ.HMAC_MD5_96, Integ.HMAC_SHA1_160),
]
SUITES = [
    *((encr, bits, Integ.NONE) for encr in AEADS for bits in ENCR[encr].key_bits),
    *((Encr.AES_CBC, bits, integ) for bits in (128, 192, 256) for integ in MACS),
    *((Encr.AES_CTR, bits, Integ.AES_XCBC_96) for bits in (128, 192, 256)),
    *((Encr.CAMELLIA_CBC, bits, Integ.AES_CMAC_96) for bits in (128, 192, 256)),
    (Encr.TRIPLE_DES, 192, Integ.HMAC_SHA1_160),
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


def test_triple_des_with_equal_keys_is_des():
    """FIPS 46-3's well-known example: key 133457799bbcdff1."""
    key, block = bytes.fromhex("133457799bbcdff1"), bytes.fromhex("0123456789abcdef")

    assert build_coder(Encr.DES, Secret(key)).encrypt(bytes(8), block).hex() == "85e813540f0ab405"
    assert build_coder(Encr.TRIPLE_DES, Secret(key * 3)).encrypt(bytes(8), block).hex() == "85e813540f0ab405"


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
    for suite in (
        (Encr.AES_GCM_16, 128, Integ.NONE),
        (Encr.AES_CCM_8, 256, Integ.NONE),
        (Encr.AES_CBC, 192, Integ.AES_XCBC_96),
        (Encr.AES_CTR, 128, Integ.HMAC_SHA2_512_256),
    ):
        cipher = cipher_of(*suite)
        with pytest.raises(IntegrityFailed):
            cipher.open(bytes(cipher.iv_bytes), associated, sealed)
