"""The MACs of ESP and AH: HMAC, AES-XCBC and AES-CMAC (RFC 2404, RFC 4868, RFC 3566, RFC 4494).

A MAC is chosen once, when its SA is created; what remains is one callable from data to ICV. AES-GMAC is not
here: it needs an IV, so that ESP has it as an encryption algorithm and AH beside its MACs (RFC 4543).
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from gateway.ipsec.algorithms import INTEG, Integ

Mac = Callable[[bytes], bytes]
"""(data) -> ICV, truncated as the algorithm wants it."""

_BLOCK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class MacSuite:
    """One integrity algorithm."""

    make: Callable[[bytes], Mac]
    """(key) -> the MAC under it."""
    key_bytes: int
    icv_bytes: int


def _hmac(digest: str, icv_bytes: int, key: bytes) -> Mac:
    compute = hmac.digest
    return lambda data: compute(key, data, digest)[:icv_bytes]


def _cmac(icv_bytes: int, key: bytes) -> Mac:
    # The subkeys are derived once; a copy of the fresh context serves each packet.
    fresh = CMAC(AES(key))

    def mac(data: bytes) -> bytes:
        context = fresh.copy()
        context.update(data)
        return context.finalize()[:icv_bytes]

    return mac


def _xcbc(icv_bytes: int, key: bytes) -> Mac:
    """RFC 3566 §4: CBC under K1, the last block masked with K2 (whole) or K3 (padded with 10...0)."""
    derive = Cipher(AES(key), modes.ECB()).encryptor()  # noqa: S305  one block of a constant each, by the RFC
    k1, k2, k3 = (derive.update(bytes((n,)) * _BLOCK_BYTES) for n in (1, 2, 3))
    whole_mask, padded_mask = int.from_bytes(k2, "big"), int.from_bytes(k3, "big")
    aes, mode = AES(k1), modes.CBC(bytes(_BLOCK_BYTES))

    def mac(data: bytes) -> bytes:
        start = (len(data) - 1) // _BLOCK_BYTES * _BLOCK_BYTES if data else 0
        last, mask = data[start:], whole_mask
        if len(last) < _BLOCK_BYTES:
            last, mask = (last + b"\x80").ljust(_BLOCK_BYTES, b"\0"), padded_mask
        masked = (int.from_bytes(last, "big") ^ mask).to_bytes(_BLOCK_BYTES, "big")
        chain = Cipher(aes, mode).encryptor().update(data[:start] + masked)
        return chain[-_BLOCK_BYTES:][:icv_bytes]

    return mac


def _suite(integ: Integ) -> MacSuite:
    info = INTEG[integ]
    if info.hash_name:
        make = partial(_hmac, info.hash_name, info.icv_bytes)
    else:
        make = partial(_BLOCK_CIPHER_MACS[integ], info.icv_bytes)
    return MacSuite(make, info.key_bytes, info.icv_bytes)


_BLOCK_CIPHER_MACS: Final[dict[Integ, Callable[[int, bytes], Mac]]] = {
    Integ.AES_XCBC_96: _xcbc,
    Integ.AES_CMAC_96: _cmac,
}
MACS: Final = {
    integ: _suite(integ)
    for integ in (
        Integ.HMAC_SHA1_96,
        Integ.HMAC_SHA2_256_128,
        Integ.HMAC_SHA2_384_192,
        Integ.HMAC_SHA2_512_256,
        Integ.AES_XCBC_96,
        Integ.AES_CMAC_96,
    )
}
"""Every MAC of this core."""
