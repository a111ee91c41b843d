"""Pseudorandom functions and prf+ (RFC 7296 §2.13)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from gateway.ike.crypto.xcbc import aes_xcbc
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import PRF, Prf

PrfFunction = Callable[[bytes, bytes], bytes]
"""`prf(key, data)`."""

_BLOCK: Final = 16
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "md5": hashes.MD5(),  # noqa: S303 - an HMAC does not need collision resistance
    "sha1": hashes.SHA1(),  # noqa: S303 - likewise
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
"""By the names of `PrfInfo.hash_name`."""


def prf_function(prf: Prf) -> PrfFunction:
    """Return the function `prf(key, data)`; choose it once per IKE SA.

    Raises:
        LocalError: We do not implement this PRF.
    """
    if prf is Prf.AES128_XCBC:
        return _aes128_xcbc
    if prf is Prf.AES128_CMAC:
        return _aes128_cmac
    algorithm = _HASHES.get(PRF[prf].hash_name)
    if algorithm is None:
        raise LocalError(f"PRF {prf.name} is not implemented")
    return partial(_hmac, algorithm)


def expand(prf: Prf, key: bytes, seed: bytes, size: int) -> bytes:
    """Return the first `size` bytes of prf+, as `prf_plus` does, in one call of the library where it can.

    HKDF-Expand (RFC 5869 §2.3) is prf+ with an HMAC: it took the construction from IKEv2.
    """
    algorithm = _HASHES.get(PRF[prf].hash_name)
    if algorithm is None or size > 255 * algorithm.digest_size:
        return prf_plus(prf_function(prf), key, seed, size)
    return HKDFExpand(algorithm, size, seed).derive(key)


def prf_plus(prf: PrfFunction, key: bytes, seed: bytes, size: int) -> bytes:
    """Return the first `size` bytes of prf+ (RFC 7296 §2.13).

    prf+ (K,S) = T1 | T2 | T3 | ..., T1 = prf (K, S | 0x01), T2 = prf (K, T1 | S | 0x02), ...
    """
    output = bytearray()
    block = b""
    counter = 0
    while len(output) < size:
        counter += 1
        if counter > 255:
            raise LocalError(f"prf+ cannot give {size} bytes: its counter is one byte")
        block = prf(key, block + seed + counter.to_bytes(1, "big"))
        output += block
    return bytes(output[:size])


def _hmac(algorithm: hashes.HashAlgorithm, key: bytes, data: bytes) -> bytes:
    mac = HMAC(key, algorithm)
    mac.update(data)
    return mac.finalize()


def _aes128_xcbc(key: bytes, data: bytes) -> bytes:
    """RFC 4434 §2: short keys are padded with zeros, long ones are hashed by XCBC itself."""
    if len(key) > _BLOCK:
        key = aes_xcbc(bytes(_BLOCK), key)
    return aes_xcbc(key.ljust(_BLOCK, b"\0"), data)


def _aes128_cmac(key: bytes, data: bytes) -> bytes:
    """RFC 4615 §3: a key of any other length than 16 is first brought to it by CMAC under a zero key."""
    if len(key) != _BLOCK:
        key = aes_cmac(bytes(_BLOCK), key)
    return aes_cmac(key, data)


def aes_cmac(key: bytes, data: bytes) -> bytes:
    """Return the 16-byte AES-CMAC (RFC 4493)."""
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()
