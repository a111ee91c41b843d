"""PRFs and prf+ against NIST CAVP, RFC 4434, RFC 4615 and Wycheproof."""

import pytest

from gateway.ike.crypto.prf import aes_cmac, prf_function, prf_plus
from gateway.ike.crypto.xcbc import aes_xcbc
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import Prf
from tests.vectors.read import kdf, wycheproof

CAVP = kdf("strongswan_cavp_kdf.json")["vectors"]


@pytest.mark.parametrize("vector", CAVP, ids=[vector["name"] for vector in CAVP])
def test_cavp_vector_of_skeyseed_or_prf_plus_is_met(vector):
    prf = prf_function(Prf[vector["prf"].removeprefix("PRF_")])
    key, salt, out = (bytes.fromhex(vector[name]) for name in ("key", "salt", "out"))

    if vector["op"].startswith("prf+"):
        assert prf_plus(prf, key, salt, len(out)) == out
    else:
        assert prf(salt, key) == out


@pytest.mark.parametrize(
    ("key", "out"),
    [  # RFC 4434 §2.1
        ("000102030405060708090a0b0c0d0e0f", "47f51b4564966215b8985c63055ed308"),
        ("00010203040506070809", "0fa087af7d866e7653434e602fdde835"),
        ("000102030405060708090a0b0c0d0e0fedcb", "8cd3c93ae598a9803006ffb67c40e9e4"),
    ],
)
def test_aes_xcbc_prf_meets_rfc_4434(key, out):
    assert prf_function(Prf.AES128_XCBC)(bytes.fromhex(key), bytes(range(20))).hex() == out


@pytest.mark.parametrize(
    ("key", "out"),
    [  # RFC 4615 §4
        ("000102030405060708090a0b0c0d0e0fedcb", "84a348a4a45d235babfffc0d2b4da09a"),
        ("000102030405060708090a0b0c0d0e0f", "980ae87b5f4c9c5214f5b6a8455e4c2d"),
        ("00010203040506070809", "290d9e112edb09ee141fcf64c0b72f3d"),
    ],
)
def test_aes_cmac_prf_meets_rfc_4615(key, out):
    assert prf_function(Prf.AES128_CMAC)(bytes.fromhex(key), bytes(range(20))).hex() == out


@pytest.mark.parametrize(
    ("size", "out"),
    [  # RFC 3566 §4.6, messages 00 01 02 ...
        (0, "75f0251d528ac01c4573dfd584d79f29"),
        (3, "5b376580ae2f19afe7219ceef172756f"),
        (16, "d2a246fa349b68a79998a4394ff7a263"),
        (20, "47f51b4564966215b8985c63055ed308"),
        (32, "f54f0ec8d2b9f3d36807734bd5283fd4"),
        (34, "becbb3bccdb518a30677d5481fb6b4d8"),
    ],
)
def test_aes_xcbc_mac_meets_rfc_3566(size, out):
    assert aes_xcbc(bytes(range(16)), bytes(range(size))).hex() == out


def test_aes_cmac_meets_wycheproof():
    checked = 0
    for group in wycheproof("aes_cmac"):
        for case in group["tests"]:
            mac = aes_cmac(bytes.fromhex(case["key"]), bytes.fromhex(case["msg"]))
            assert (mac.hex() == case["tag"]) == (case["result"] == "valid"), case["tcId"]
            checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("file", "prf"),
    [
        ("hmac_sha1", Prf.HMAC_SHA1),
        ("hmac_sha256", Prf.HMAC_SHA2_256),
        ("hmac_sha384", Prf.HMAC_SHA2_384),
        ("hmac_sha512", Prf.HMAC_SHA2_512),
    ],
)
def test_hmac_prf_meets_wycheproof(file, prf):
    function = prf_function(prf)
    checked = 0
    for group in wycheproof(file):
        for case in group["tests"]:
            mac = function(bytes.fromhex(case["key"]), bytes.fromhex(case["msg"]))
            tag = bytes.fromhex(case["tag"])
            assert (mac[: len(tag)] == tag) == (case["result"] == "valid"), case["tcId"]
            checked += 1
    assert checked > 80


def test_hmac_md5_prf_meets_rfc_2202():
    out = prf_function(Prf.HMAC_MD5)(b"Jefe", b"what do ya want for nothing?")

    assert out.hex() == "750c783e6ab0b503eaa86e310a5db738"


def test_prf_without_code_is_refused():
    with pytest.raises(LocalError, match="HMAC_TIGER"):
        prf_function(Prf.HMAC_TIGER)


def test_prf_plus_stops_where_its_counter_would_wrap():
    prf = prf_function(Prf.HMAC_MD5)

    assert len(prf_plus(prf, b"k", b"s", 255 * 16)) == 255 * 16
    with pytest.raises(LocalError, match="counter"):
        prf_plus(prf, b"k", b"s", 255 * 16 + 1)
