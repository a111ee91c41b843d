"""All of Wycheproof through our own wrappers, never through the library beneath.

Each table says how many cases of a file must be accepted, refused, or have no form in IKEv2 (a nonce that is
not salt | IV, a compressed point), so that a case can neither be lost nor pass by not running.
"""

from dataclasses import dataclass

import pytest

from gateway.ike.crypto import kex
from gateway.ike.crypto.cipher import IntegrityFailed, build_cipher
from gateway.ike.crypto.prf import prf_function
from gateway.ike.errors import InvalidSyntax
from gateway.ipsec.algorithms import ENCR, INTEG, KE, Encr, Integ, Ke, Prf
from gateway.ipsec.secret import Secret
from tests.vectors.read import wycheproof, wycheproof_size


@dataclass
class Counts:
    accepted: int = 0
    refused: int = 0
    formless: int = 0


def octets(case, *names):
    return [bytes.fromhex(case[name]) for name in names]


def cases(file):
    """Yield group and case, all of them."""
    for group in wycheproof(file):
        for case in group["tests"]:
            yield group, case


def test_the_files_are_whole():
    for file in (*AEADS, *XDH, *ECDH, "aes_gmac", "aes_cmac", *(name for name, _ in HMAC_PRFS)):
        assert len(list(cases(file))) == wycheproof_size(file)


# --- AEADs --------------------------------------------------------------------------------------

AEADS = {
    "aes_gcm": ({128: Encr.AES_GCM_16}, Counts(116, 81, 119)),
    "aes_ccm": ({64: Encr.AES_CCM_8, 96: Encr.AES_CCM_12, 128: Encr.AES_CCM_16}, Counts(18, 0, 534)),
    "chacha20_poly1305": ({128: Encr.CHACHA20_POLY1305}, Counts(256, 60, 9)),
}
"""The nonces of GCM and ChaCha20-Poly1305 have 96 bits, those of CCM 88 (RFC 4106 §4, RFC 4309 §4)."""


@pytest.mark.parametrize("file", AEADS)
def test_aead(file):
    encrs, expected = AEADS[file]
    counts = Counts()
    for group, case in cases(file):
        encr = encrs.get(group["tagSize"])
        key, nonce, aad, message, ciphertext, tag = octets(case, "key", "iv", "aad", "msg", "ct", "tag")
        if encr is None or len(nonce) != ENCR[encr].salt_bytes + ENCR[encr].iv_bytes:
            counts.formless += 1
            continue
        salt, iv = nonce[: ENCR[encr].salt_bytes], nonce[ENCR[encr].salt_bytes :]
        cipher = build_cipher(encr, Secret(key + salt))
        if case["result"] == "valid":
            assert cipher.open(iv, aad, ciphertext + tag) == message, case["tcId"]
            assert cipher.seal(iv, aad, message) == ciphertext + tag, case["tcId"]
            counts.accepted += 1
        else:
            with pytest.raises(IntegrityFailed):
                cipher.open(iv, aad, ciphertext + tag)
            counts.refused += 1

    assert counts == expected


@pytest.mark.parametrize(
    ("encr", "expected"),
    [(Encr.AES_GCM_8, Counts(116, 48, 152)), (Encr.AES_GCM_12, Counts(116, 60, 140))],
)
def test_gcm_with_a_short_tag(encr, expected):
    """NIST SP 800-38D §7.1: a short tag is the leftmost bits of the long one, and all of it counts."""
    size = ENCR[encr].icv_bytes
    counts = Counts()
    for _, case in cases("aes_gcm"):
        key, nonce, aad, message, ciphertext, tag = octets(case, "key", "iv", "aad", "msg", "ct", "tag")
        if len(nonce) != 12:
            counts.formless += 1
            continue
        cipher = build_cipher(encr, Secret(key + nonce[:4]))
        sealed = ciphertext + tag[:size]
        if case["result"] == "valid":
            assert cipher.open(nonce[4:], aad, sealed) == message, case["tcId"]
            assert cipher.seal(nonce[4:], aad, message) == sealed, case["tcId"]
            counts.accepted += 1
        elif cipher.seal(nonce[4:], aad, message)[-size:] == tag[:size]:
            counts.formless += 1  # the changed bits are among those cut off
        else:
            with pytest.raises(IntegrityFailed):
                cipher.open(nonce[4:], aad, sealed)
            counts.refused += 1

    assert counts == expected


def test_gmac_is_gcm_of_nothing():
    """Wycheproof authenticates a message; RFC 4543 §3.3 makes that message of head, IV and payload."""
    counts = Counts()
    for _, case in cases("aes_gmac"):
        key, nonce, message, tag = octets(case, "key", "iv", "msg", "tag")
        if len(nonce) != 12:
            counts.formless += 1
            continue
        gcm = build_cipher(Encr.AES_GCM_16, Secret(key + nonce[:4]))
        gmac = build_cipher(Encr.NULL_AUTH_AES_GMAC, Secret(key + nonce[:4]))
        if case["result"] == "valid":
            assert gcm.seal(nonce[4:], message, b"") == tag, case["tcId"]
            assert gcm.open(nonce[4:], message, tag) == b""
            counts.accepted += 1
        else:
            with pytest.raises(IntegrityFailed):
                gcm.open(nonce[4:], message, tag)
            counts.refused += 1
        wanted = message + gcm.seal(nonce[4:], b"head" + nonce[4:] + message, b"")
        assert gmac.seal(nonce[4:], b"head", message) == wanted

    assert counts == Counts(45, 162, 207)


# --- MACs, as PRF and as integrity algorithm ----------------------------------------------------

HMAC_PRFS = [
    ("hmac_sha1", Prf.HMAC_SHA1),
    ("hmac_sha256", Prf.HMAC_SHA2_256),
    ("hmac_sha384", Prf.HMAC_SHA2_384),
    ("hmac_sha512", Prf.HMAC_SHA2_512),
]


@pytest.mark.parametrize(("file", "prf"), HMAC_PRFS)
def test_hmac_as_a_prf(file, prf):
    function = prf_function(prf)
    counts = Counts()
    for _, case in cases(file):
        key, message, tag = octets(case, "key", "msg", "tag")
        if case["result"] == "valid":
            assert function(key, message)[: len(tag)] == tag, case["tcId"]
            counts.accepted += 1
        else:
            assert function(key, message)[: len(tag)] != tag, case["tcId"]
            counts.refused += 1

    assert counts == (Counts(66, 104) if prf is Prf.HMAC_SHA1 else Counts(66, 108))


def test_cmac_as_a_prf():
    function = prf_function(Prf.AES128_CMAC)
    counts = Counts()
    for _, case in cases("aes_cmac"):
        key, message, tag = octets(case, "key", "msg", "tag")
        if len(key) != 16:
            counts.formless += 1  # AES-192, AES-256 and impossible keys: this PRF is AES-128 (RFC 4615 §3)
        elif case["result"] == "valid":
            assert function(key, message) == tag, case["tcId"]
            counts.accepted += 1
        else:
            assert function(key, message) != tag, case["tcId"]
            counts.refused += 1

    assert counts == Counts(21, 81, 209)


INTEGRITY = [
    ("hmac_sha1", Integ.HMAC_SHA1_96, 20, Counts(27, 40, 103)),
    ("hmac_sha256", Integ.HMAC_SHA2_256_128, 16, Counts(27, 54, 93)),
    ("hmac_sha384", Integ.HMAC_SHA2_384_192, 24, Counts(27, 54, 93)),
    ("hmac_sha512", Integ.HMAC_SHA2_512_256, 32, Counts(27, 54, 93)),
    ("aes_cmac", Integ.AES_CMAC_96, 16, Counts(21, 60, 230)),
]
"""File, algorithm, and the tag length in bytes whose cases fit: ours, or one longer that is cut."""


@pytest.mark.parametrize(("file", "integ", "tag_bytes", "expected"), INTEGRITY)
def test_integrity_algorithm(file, integ, tag_bytes, expected):
    """With NULL encryption the sealed bytes are the message and its ICV."""
    size = INTEG[integ].icv_bytes
    counts = Counts()
    for _, case in cases(file):
        key, message, tag = octets(case, "key", "msg", "tag")
        if len(key) != INTEG[integ].key_bytes or len(tag) != tag_bytes:
            counts.formless += 1
            continue
        cipher = build_cipher(Encr.NULL, Secret(b""), integ, Secret(key))
        right = cipher.seal(b"", b"", message)[len(message) :]
        if case["result"] == "valid":
            assert right == tag[:size], case["tcId"]
            assert cipher.open(b"", b"", message + tag[:size]) == message
            counts.accepted += 1
        elif right == tag[:size]:
            counts.formless += 1  # the changed bits are among those cut off
        else:
            with pytest.raises(IntegrityFailed):
                cipher.open(b"", b"", message + tag[:size])
            counts.refused += 1

    assert counts == expected


# --- key exchange -------------------------------------------------------------------------------


def ours_of(method, private):
    """Our half of a key exchange with this private value: X25519 and X448 take it as it is drawn."""
    return kex.generate(method, lambda size: private)


XDH = {
    "x25519": (Ke.CURVE25519, Counts(487, 31)),
    "x448": (Ke.CURVE448, Counts(487, 23)),
}
"""Acceptable ones are accepted (RFC 7748 §5), but for those whose shared secret is zero (RFC 8031 §5)."""


@pytest.mark.parametrize("file", XDH)
def test_x25519_and_x448(file):
    method, expected = XDH[file]
    counts = Counts()
    for _, case in cases(file):
        private, public, shared = octets(case, "private", "public", "shared")
        ours = ours_of(method, private)
        if case["result"] == "invalid" or not any(shared):
            with pytest.raises(InvalidSyntax):
                ours.compute(public)
            counts.refused += 1
        else:
            assert ours.compute(public) == Secret(shared), case["tcId"]
            counts.accepted += 1

    assert counts == expected


ECDH = {
    "ecdh_secp256r1_ecpoint": (Ke.ECP_256, Counts(330, 16, 9)),
    "ecdh_secp384r1_ecpoint": (Ke.ECP_384, Counts(771, 16, 3)),
    "ecdh_secp521r1_ecpoint": (Ke.ECP_521, Counts(632, 16, 13)),
    "ecdh_brainpoolP256r1": (Ke.BRAINPOOL_256, Counts(9, 0, 1)),
}
"""Compressed points and empty ones have no form in a KE payload (RFC 5903 §7): they are too short for it."""


@pytest.mark.parametrize("file", ECDH)
def test_ecdh(file):
    method, expected = ECDH[file]
    size = KE[method].public_value_bytes
    counts = Counts()
    for _, case in cases(file):
        (public, shared) = octets(case, "public", "shared")
        drawn = (int(case["private"], 16) - 1).to_bytes(100, "big")  # drawn % (n - 1) + 1 is what was wanted
        ours = kex.generate(method, lambda length, drawn=drawn: drawn[-length:])
        point = public[-size - 1 :]  # of an ASN.1 SubjectPublicKeyInfo too, which it ends
        if point[:1] != b"\x04" or len(point) != size + 1:
            with pytest.raises(InvalidSyntax, match="bytes"):
                ours.compute(public[1:])
            counts.formless += 1
        elif case["result"] == "valid":
            assert ours.compute(point[1:]) == Secret(shared), case["tcId"]
            counts.accepted += 1
        else:
            with pytest.raises(InvalidSyntax, match="not a point"):
                ours.compute(point[1:])
            counts.refused += 1

    assert counts == expected
