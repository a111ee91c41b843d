"""The names Wireshark's key tables use for algorithms, read generously.

The same algorithm is spelled in several ways by versions and by daemons that write such tables, with and
without `[RFC...]`, key length or ICV length. Names are compared without case, punctuation and brackets.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.ike.crypto.cipher import integrity_function
from gateway.ipsec.algorithms import INTEG, Encr, Integ


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """One encryption algorithm of a key table."""

    encr: Encr | None
    """None: we know the name and cannot decrypt it."""
    key_bits: int | None = None
    """Without salt, where the name says it."""
    any_icv: bool = False
    """A GCM without ICV length in its name: the authentication column tells it."""
    implicit_iv: bool = False
    """RFC 8750: the IV is the sequence number and not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """One integrity algorithm of a key table."""

    icv_bytes: int
    icv: Callable[[bytes, bytes], bytes] | None = None
    """`icv(key, data)`; None where nothing is to be checked."""
    is_any: bool = False
    """One of Wireshark's `ANY ... [no checking]`."""


def parse_encryption(name: str) -> Encryption | None:
    """Return what a name of the encryption column means, or None if it means nothing to us."""
    plain = _plain(name)
    exact = _ENCRYPTIONS.get(plain)
    if exact is not None:
        return exact
    match = _AES.fullmatch(plain)
    if match is None:
        return None
    mode, key_bits, icv = match["mode"], match["bits"], match["icv"]
    bits = int(key_bits) if key_bits else None
    if mode in ("cbc", "ctr"):
        encr = Encr.AES_CBC if mode == "cbc" else Encr.AES_CTR
        return None if icv else Encryption(encr=encr, key_bits=bits)
    sizes = _GCM if mode == "gcm" else _CCM
    return Encryption(
        encr=sizes[int(icv or 16)],
        key_bits=bits,
        any_icv=mode == "gcm" and icv is None,
        implicit_iv=match["iiv"] is not None,
    )


def parse_authentication(name: str) -> Authentication | None:
    """Return what a name of the authentication column means, or None if it means nothing to us."""
    plain = _plain(name)
    match = _ANY.fullmatch(plain)
    if match is not None:
        return Authentication(icv_bytes=int(match[1]) // 8, is_any=True)
    return _AUTHENTICATIONS.get(plain)


def agreed_authentication(integ: Integ) -> Authentication:
    """Return how to check the ICV of an agreed integrity algorithm; NONE: there is none but an AEAD's.

    Raises:
        LocalError: It is not implemented.
    """
    return Authentication(icv_bytes=0) if integ is Integ.NONE else _integ(integ)


def gcm_of(icv_bytes: int) -> Encr | None:
    """Return the AES-GCM with this ICV length."""
    return _GCM.get(icv_bytes)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\[.*?\]", "", name).lower())


_GCM: Final = {8: Encr.AES_GCM_8, 12: Encr.AES_GCM_12, 16: Encr.AES_GCM_16}
_CCM: Final = {8: Encr.AES_CCM_8, 12: Encr.AES_CCM_12, 16: Encr.AES_CCM_16}
_AES: Final = re.compile(
    r"(?:encr)?aes(?P<mode>cbc|ctr|gcm|ccm)(?P<bits>128|192|256)?"
    r"(?P<iiv>withiivand)?(?:with)?(?:(?P<icv>8|12|16)(?:octet)?(?:icv)?)?"
)
_ANY: Final = re.compile(r"any(64|96|128|160|192|256|384|512)bits?(?:of)?authentication(?:nochecking)?")

_CHACHA: Final = Encryption(encr=Encr.CHACHA20_POLY1305)
_ENCRYPTIONS: Final = {
    "null": Encryption(encr=Encr.NULL),
    "3des": Encryption(encr=Encr.TRIPLE_DES),
    "3descbc": Encryption(encr=Encr.TRIPLE_DES),
    "tripledescbc": Encryption(encr=Encr.TRIPLE_DES),
    "descbc": Encryption(encr=Encr.DES),
    "blowfishcbc": Encryption(encr=Encr.BLOWFISH),
    "cast5cbc": Encryption(encr=Encr.CAST),
    "twofishcbc": Encryption(encr=None),
    "camelliacbc": Encryption(encr=Encr.CAMELLIA_CBC),
    "camelliacbc128": Encryption(encr=Encr.CAMELLIA_CBC, key_bits=128),
    "camelliacbc192": Encryption(encr=Encr.CAMELLIA_CBC, key_bits=192),
    "camelliacbc256": Encryption(encr=Encr.CAMELLIA_CBC, key_bits=256),
    "aesgmac": Encryption(encr=Encr.NULL_AUTH_AES_GMAC),
    "nullauthaesgmac": Encryption(encr=Encr.NULL_AUTH_AES_GMAC),
    "chacha20poly1305": _CHACHA,
    "chacha20withpoly1305": _CHACHA,
    "chacha20poly1305with16octeticv": _CHACHA,
    "chacha20withpoly1305andiiv": Encryption(encr=Encr.CHACHA20_POLY1305, implicit_iv=True),
}


def _integ(integ: Integ, icv_bytes: int | None = None) -> Authentication:
    size = INTEG[integ].icv_bytes if icv_bytes is None else icv_bytes
    return Authentication(icv_bytes=size, icv=partial(_first_bytes, integrity_function(integ), size))


def _first_bytes(icv: Callable[[bytes, bytes], bytes], size: int, key: bytes, data: bytes) -> bytes:
    return icv(key, data)[:size]


def _ripemd160(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "ripemd160")


_NONE: Final = Authentication(icv_bytes=0)
# What a Linux kernel before 2.6.33 called HMAC-SHA-256: 96 bits of the ICV (an early draft's length).
_SHA256_96: Final = _integ(Integ.HMAC_SHA2_256_128, 12)
_RIPEMD: Final = Authentication(
    icv_bytes=12,
    icv=partial(_first_bytes, _ripemd160, 12) if "ripemd160" in hashlib.algorithms_available else None,
)
_AUTHENTICATIONS: Final = {
    "null": _NONE,
    "none": _NONE,
    "hmacmd596": _integ(Integ.HMAC_MD5_96),
    "hmacmd5128": _integ(Integ.HMAC_MD5_128),
    "hmacsha196": _integ(Integ.HMAC_SHA1_96),
    "hmacsha1160": _integ(Integ.HMAC_SHA1_160),
    "hmacsha25696": _SHA256_96,
    "hmacsha225696": _SHA256_96,
    "hmacsha256128": _integ(Integ.HMAC_SHA2_256_128),
    "hmacsha2256128": _integ(Integ.HMAC_SHA2_256_128),
    "hmacsha384192": _integ(Integ.HMAC_SHA2_384_192),
    "hmacsha2384192": _integ(Integ.HMAC_SHA2_384_192),
    "hmacsha512256": _integ(Integ.HMAC_SHA2_512_256),
    "hmacsha2512256": _integ(Integ.HMAC_SHA2_512_256),
    "macripemd16096": _RIPEMD,
    "hmacripemd16096": _RIPEMD,
    "aesxcbc96": _integ(Integ.AES_XCBC_96),
    "aesxcbcmac96": _integ(Integ.AES_XCBC_96),
    "aescmac96": _integ(Integ.AES_CMAC_96),
}
