"""MACs that neither scapy nor tshark has, written out from their documents: oracles, block by block.

Of AES only the block cipher is borrowed. `test_integrity.py` holds the documents' own vectors against them.
"""

from typing import Any, Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16


def aes(key: bytes, block: bytes) -> bytes:
    """Return one encrypted block."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def xcbc(key: bytes, message: bytes) -> bytes:
    """Return the 128-bit AES-XCBC-MAC, step by step as RFC 3566 section 4 counts them."""
    k1, k2, k3 = (aes(key, bytes([n]) * BLOCK) for n in (1, 2, 3))
    blocks = [message[at : at + BLOCK] for at in range(0, len(message), BLOCK)] or [b""]
    e = bytes(BLOCK)
    for block in blocks[:-1]:
        e = aes(k1, xor(block, e))
    last = blocks[-1]
    if len(last) == BLOCK:
        return aes(k1, xor(xor(last, e), k2))
    return aes(k1, xor(xor(last + b"\x80" + bytes(BLOCK - 1 - len(last)), e), k3))


class XcbcMac:
    """`xcbc` with the interface that scapy wants of a MAC."""

    def __init__(self, key: bytes, *unused: Any) -> None:
        self._key = key
        self._message = b""

    @classmethod
    def make(cls, key: bytes, *unused: Any) -> Self:
        return cls(key)

    def update(self, data: bytes) -> None:
        self._message += data

    def finalize(self) -> bytes:
        return xcbc(self._key, self._message)


def multiply(x: int, y: int) -> int:
    """Return the product in GF(2^128) (SP 800-38D §6.3)."""
    z = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def gcm(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
    """Return ciphertext and full tag (SP 800-38D §7.1, with a nonce of 96 bits)."""

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % BLOCK)

    stream = b"".join(aes(key, nonce + n.to_bytes(4)) for n in range(2, len(plaintext) // BLOCK + 3))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream, strict=False))
    hashed = pad(aad) + pad(ciphertext) + (len(aad) * 8).to_bytes(8) + (len(ciphertext) * 8).to_bytes(8)
    h, ghash = int.from_bytes(aes(key, bytes(BLOCK))), 0
    for at in range(0, len(hashed), BLOCK):
        ghash = multiply(ghash ^ int.from_bytes(hashed[at : at + BLOCK]), h)
    return ciphertext, (ghash ^ int.from_bytes(aes(key, nonce + b"\0\0\0\1"))).to_bytes(BLOCK)
