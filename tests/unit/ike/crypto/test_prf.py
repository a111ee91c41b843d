"""prf+ against NIST CAVP, the MAC below a PRF, and limits. More: `test_vectors`, `test_wycheproof`."""

import pytest

from gateway.ike.crypto.prf import expand, prf_function, prf_plus
from gateway.ike.crypto.xcbc import aes_xcbc
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import Prf
from tests.vectors.read import kdf

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


def test_prf_without_code_is_refused():
    with pytest.raises(LocalError, match="HMAC_TIGER"):
        prf_function(Prf.HMAC_TIGER)


@pytest.mark.parametrize(
    "prf", [Prf.HMAC_MD5, Prf.HMAC_SHA1, Prf.HMAC_SHA2_256, Prf.HMAC_SHA2_512, Prf.AES128_CMAC]
)
@pytest.mark.parametrize("size", [0, 1, 20, 64, 65, 168])
@pytest.mark.parametrize("key", [b"", b"short", bytes(range(200))], ids=["empty", "short", "long"])
def test_keys_are_expanded_as_prf_plus_says(prf, size, key):
    assert expand(prf, key, b"Ni | Nr", size) == prf_plus(prf_function(prf), key, b"Ni | Nr", size)


@pytest.mark.parametrize("prf", [Prf.HMAC_MD5, Prf.HMAC_SHA1])
def test_expansion_stops_where_the_counter_would_wrap(prf):
    most = 255 * len(prf_function(prf)(b"k", b""))

    assert len(expand(prf, b"k", b"s", most)) == most
    with pytest.raises(LocalError, match="counter"):
        expand(prf, b"k", b"s", most + 1)


def test_prf_plus_stops_where_its_counter_would_wrap():
    prf = prf_function(Prf.HMAC_MD5)

    assert len(prf_plus(prf, b"k", b"s", 255 * 16)) == 255 * 16
    with pytest.raises(LocalError, match="counter"):
        prf_plus(prf, b"k", b"s", 255 * 16 + 1)
