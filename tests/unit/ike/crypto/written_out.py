"""CCM written out from its document, block by block: an oracle for the tag lengths nobody printed vectors of.

Of AES only the block cipher is borrowed. `test_vectors.py` holds Wycheproof against it, over all nonce and
tag lengths, before anything of ours is compared with it.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16


def aes(key: bytes, block: bytes) -> bytes:
    """Return one encrypted block."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=False))


def blocks(data: bytes) -> list[bytes]:
    """Return the data in blocks, the last one filled with zeros."""
    return [data[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(data), BLOCK)]


def ccm(key: bytes, nonce: bytes, aad: bytes, message: bytes, tag_bytes: int) -> bytes:
    """Return ciphertext and tag as RFC 3610 section 2 makes them; up to 65279 bytes of `aad`."""
    length_bytes = 15 - len(nonce)
    # 2.2: B_0 says whether there is additional data, and the lengths of tag and length field.
    flags = 64 * bool(aad) + 8 * ((tag_bytes - 2) // 2) + (length_bytes - 1)
    first = bytes([flags]) + nonce + len(message).to_bytes(length_bytes, "big")
    head = len(aad).to_bytes(2, "big") + aad if aad else b""
    mac = bytes(BLOCK)
    for block in [first, *blocks(head), *blocks(message)]:
        mac = aes(key, xor(mac, block))
    # 2.3: S_0 masks the tag, S_1 and further mask the message.
    stream = [
        aes(key, bytes([length_bytes - 1]) + nonce + number.to_bytes(length_bytes, "big"))
        for number in range(len(blocks(message)) + 1)
    ]
    return xor(message, b"".join(stream[1:])) + xor(mac[:tag_bytes], stream[0])
