"""Pseudorandom functions and prf+ (RFC 7296 §2.13)."""

import hmac
from collections.abc import Callable
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from gateway.ike.crypto.xcbc import aes_xcbc
from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import PRF, Prf

PrfFunction = Callable[[bytes, bytes], bytes]
"""`prf(key, data)`."""

_BLOCK: Final = 16


def prf_function(prf: Prf) -> PrfFunction:
    """Return the function `prf(key, data)`; choose it once per IKE SA.

    Raises:
        LocalError: We do not implement this PRF.
    """
    if prf is Prf.AES128_XCBC:
        return _aes128_xcbc
    if prf is Prf.AES128_CMAC:
        return _aes128_cmac
    hash_name = PRF[prf].hash_name
    if not hash_name:
        raise LocalError(f"PRF {prf.name} is not implemented")
    return partial(_hmac, hash_name)


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


def _hmac(hash_name: str, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hash_name)


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
