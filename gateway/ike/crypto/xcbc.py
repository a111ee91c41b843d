"""AES-XCBC-MAC-128, which the library does not have, on its AES-CBC (RFC 3566 §4)."""

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

_BLOCK: Final = 16


def aes_xcbc(key: bytes, data: bytes) -> bytes:
    """Return the whole 16-byte MAC of `data` under a 16-byte key."""
    # K1, K2, K3 are the encryptions of 0x01, 0x02, 0x03, each repeated over a block.
    derive = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - one block of a constant, as RFC 3566 has it
    subkeys = derive.update(b"\x01" * _BLOCK + b"\x02" * _BLOCK + b"\x03" * _BLOCK)
    k1, k2, k3 = subkeys[:16], subkeys[16:32], subkeys[32:]
    # The last block, whole or padded with 10...0, is masked with K2 or K3.
    full = (len(data) - 1) // _BLOCK * _BLOCK if data else 0
    last = data[full:]
    padded = last if len(last) == _BLOCK else (last + b"\x80").ljust(_BLOCK, b"\0")
    last = _xor(padded, k2 if len(last) == _BLOCK else k3)
    chain = Cipher(AES(k1), CBC(bytes(_BLOCK))).encryptor()
    return chain.update(data[:full] + last)[-_BLOCK:]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
