"""The algorithm tables: complete, consistent with each other and with the standard library."""

import hashlib

import pytest

from gateway.ipsec.algorithms import (
    ENCR,
    INTEG,
    KE,
    PRF,
    PRIVATE_KEYWORDS,
    Encr,
    Integ,
    Ke,
    Prf,
    Status,
    TransformType,
    algorithm_status,
    iana_name,
)
from gateway.ipsec.proposal import ProtocolId, find_keyword


def test_every_number_has_a_table_entry():
    assert set(ENCR) == set(Encr)
    assert set(PRF) == set(Prf)
    assert set(INTEG) == set(Integ)
    assert set(KE) == set(Ke)


# IANA "Internet Key Exchange Version 2 (IKEv2) Parameters", written down here independently of the code.
IANA = [
    (Encr.TRIPLE_DES, 3), (Encr.CAST, 6), (Encr.BLOWFISH, 7), (Encr.NULL, 11), (Encr.AES_CBC, 12),
    (Encr.AES_CTR, 13), (Encr.AES_CCM_8, 14), (Encr.AES_CCM_16, 16), (Encr.AES_GCM_8, 18),
    (Encr.AES_GCM_16, 20), (Encr.NULL_AUTH_AES_GMAC, 21), (Encr.CAMELLIA_CBC, 23), (Encr.CAMELLIA_CTR, 24),
    (Encr.CAMELLIA_CCM_16, 27), (Encr.CHACHA20_POLY1305, 28), (Encr.AES_GCM_16_IIV, 30),
    (Prf.HMAC_SHA1, 2), (Prf.AES128_XCBC, 4), (Prf.HMAC_SHA2_256, 5), (Prf.HMAC_SHA2_512, 7),
    (Prf.AES128_CMAC, 8), (Integ.HMAC_SHA1_96, 2), (Integ.AES_XCBC_96, 5), (Integ.AES_CMAC_96, 8),
    (Integ.AES_256_GMAC, 11), (Integ.HMAC_SHA2_256_128, 12), (Integ.HMAC_SHA2_512_256, 14),
    (Ke.MODP_1536, 5), (Ke.MODP_2048, 14), (Ke.MODP_8192, 18), (Ke.ECP_256, 19), (Ke.ECP_521, 21),
    (Ke.MODP_2048_256, 24), (Ke.ECP_192, 25), (Ke.BRAINPOOL_512, 30), (Ke.CURVE25519, 31),
    (Ke.CURVE448, 32), (Ke.ML_KEM_512, 35), (Ke.ML_KEM_1024, 37), (TransformType.ADDKE1, 6),
    (TransformType.ADDKE7, 12),
]  # fmt: skip


@pytest.mark.parametrize(("member", "number"), IANA, ids=lambda v: str(v))
def test_numbers_are_those_of_iana(member, number):
    assert int(member) == number


@pytest.mark.parametrize(
    ("id_", "key_bits", "key", "salt", "iv", "icv", "block"),
    [
        (Encr.AES_CBC, 256, 32, 0, 16, 0, 16),
        (Encr.AES_CBC, 192, 24, 0, 16, 0, 16),
        (Encr.AES_CTR, 128, 16, 4, 8, 0, 1),
        (Encr.AES_CCM_8, 128, 16, 3, 8, 8, 1),
        (Encr.AES_GCM_16, 128, 16, 4, 8, 16, 1),
        (Encr.AES_GCM_16, 256, 32, 4, 8, 16, 1),
        (Encr.AES_GCM_12, 192, 24, 4, 8, 12, 1),
        (Encr.AES_GCM_16_IIV, 256, 32, 4, 0, 16, 1),
        (Encr.CHACHA20_POLY1305, None, 32, 4, 8, 16, 1),
        (Encr.TRIPLE_DES, None, 24, 0, 8, 0, 8),
        (Encr.NULL, None, 0, 0, 0, 0, 1),
    ],
)
def test_encryption_sizes(id_, key_bits, key, salt, iv, icv, block):  # noqa: PLR0917 - a table
    info = ENCR[id_]

    assert info.accepts(key_bits)
    assert info.key_bytes(key_bits) == key
    assert info.keymat_bytes(key_bits) == key + salt
    assert (info.iv_bytes, info.icv_bytes, info.block_bytes) == (iv, icv, block)
    assert info.aead is (icv > 0)


def test_key_length_attribute_is_demanded_or_refused():
    assert not ENCR[Encr.AES_GCM_16].accepts(None)
    assert not ENCR[Encr.AES_CBC].accepts(160)
    assert not ENCR[Encr.CHACHA20_POLY1305].accepts(256)


@pytest.mark.parametrize("info", [i for i in PRF.values() if i.hash_name], ids=lambda i: i.id.name)
def test_hmac_prf_sizes_are_those_of_the_hash(info):
    assert info.key_bytes == info.output_bytes == hashlib.new(info.hash_name).digest_size


@pytest.mark.parametrize("info", [i for i in INTEG.values() if i.hash_name], ids=lambda i: i.id.name)
def test_hmac_integrity_sizes_are_those_of_the_name(info):
    digest = hashlib.new(info.hash_name).digest_size

    assert info.key_bytes == digest
    assert info.icv_bytes * 8 == int(info.id.name.rsplit("_", 1)[1])
    assert PRF[info.implied_prf].hash_name == info.hash_name


@pytest.mark.parametrize(
    ("id_", "public", "response", "secret"),
    [
        (Ke.MODP_2048, 256, 256, 256),
        (Ke.MODP_3072, 384, 384, 384),
        (Ke.MODP_4096, 512, 512, 512),
        (Ke.ECP_256, 64, 64, 32),
        (Ke.ECP_384, 96, 96, 48),
        (Ke.ECP_521, 132, 132, 66),
        (Ke.CURVE25519, 32, 32, 32),
        (Ke.CURVE448, 56, 56, 56),
        (Ke.ML_KEM_768, 1184, 1088, 32),
    ],
)
def test_key_exchange_sizes(id_, public, response, secret):
    info = KE[id_]

    assert (info.public_value_bytes, info.response_bytes, info.secret_bytes) == (public, response, secret)


@pytest.mark.parametrize(
    ("type_", "id_", "ike", "status"),
    [
        (TransformType.ENCR, Encr.AES_CBC, True, Status.MUST),
        (TransformType.ENCR, Encr.AES_GCM_16, True, Status.SHOULD),
        (TransformType.ENCR, Encr.AES_GCM_16, False, Status.MUST),
        (TransformType.ENCR, Encr.TRIPLE_DES, True, Status.MAY),
        (TransformType.ENCR, Encr.TRIPLE_DES, False, Status.SHOULD_NOT),
        (TransformType.ENCR, Encr.DES, True, Status.MUST_NOT),
        (TransformType.ENCR, Encr.BLOWFISH, False, Status.MUST_NOT),
        (TransformType.PRF, Prf.HMAC_SHA2_256, True, Status.MUST),
        (TransformType.PRF, Prf.HMAC_MD5, True, Status.MUST_NOT),
        (TransformType.INTEG, Integ.HMAC_MD5_96, False, Status.MUST_NOT),
        (TransformType.INTEG, Integ.HMAC_SHA2_512_256, True, Status.SHOULD),
        (TransformType.KE, Ke.MODP_2048, True, Status.MUST),
        (TransformType.KE, Ke.ECP_256, True, Status.SHOULD),
        (TransformType.KE, Ke.MODP_1024, False, Status.SHOULD_NOT),
        (TransformType.KE, Ke.MODP_768, True, Status.MUST_NOT),
        (TransformType.KE, Ke.MODP_1024_160, True, Status.MUST_NOT),
        (TransformType.ADDKE1, Ke.MODP_768, True, Status.MUST_NOT),
        (TransformType.ENCR, 1026, True, Status.UNSPECIFIED),
    ],
)
def test_status_is_that_of_rfc_8247_and_rfc_8221(type_, id_, ike, status):
    assert algorithm_status(type_, id_, ike=ike)[0] is status


def test_private_words_are_not_in_the_tables():
    assert [word for word in PRIVATE_KEYWORDS if find_keyword(word, ProtocolId.ESP)] == []


@pytest.mark.parametrize(
    ("type_", "id_", "name"),
    [
        (TransformType.ENCR, 20, "ENCR_AES_GCM_16"),
        (TransformType.PRF, 5, "PRF_HMAC_SHA2_256"),
        (TransformType.INTEG, 12, "AUTH_HMAC_SHA2_256_128"),
        (TransformType.KE, 31, "CURVE25519"),
        (TransformType.ADDKE2, 36, "ML_KEM_768"),
        (TransformType.SN, 0, "NO_ESN"),
        (TransformType.ENCR, 1026, "ENCR_UNKNOWN_1026"),
        (TransformType.SN, 9, "SN_UNKNOWN_9"),
        (TransformType.KE, 1080, "KE_UNKNOWN_1080"),
    ],
)
def test_names_for_display(type_, id_, name):
    assert iana_name(type_, id_) == name
