"""Seal and open for each suite: from plaintext with trailer to SPI … ICV and back (RFC 4303 §3.3.2, §3.4.4).

A suite is chosen once, when its SA is created; what remains is one callable without any algorithm `if`.
IVs are never used twice with one key: of counter modes the IV is the 64-bit sequence number, which never
cycles (RFC 4106 §3.1); that of CBC is unpredictable (RFC 3602 §3).
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from gateway.esp.errors import PacketDropped, UnsupportedSa
from gateway.esp.integrity import MACS, MacSuite
from gateway.esp.packet import HEADER, HEADER_BYTES, Layout
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, IpsecProtocol, SecurityAssociation

Seal = Callable[[int, bytes], bytes]
"""(64-bit sequence number, plaintext with trailer) -> the ESP packet from the SPI to the ICV."""
Open = Callable[[bytes, int], bytes]
"""(ESP packet, reconstructed sequence number) -> plaintext with trailer; raises PacketDropped(INTEGRITY)."""
Entropy = Callable[[int], bytes]
"""(count) -> that many unpredictable bytes."""

_LOW: Final = 0xFFFFFFFF
_HEADER_IV: Final = Struct("!IIQ")
"""SPI, sequence number, and the IV that equals the sequence number."""
_ESN_AAD: Final = Struct("!IQ")
"""SPI and the 64-bit sequence number, high half first (RFC 4106 §5)."""
_COUNTER_IV: Final = Struct("!Q")
_SEQUENCE_HIGH: Final = Struct("!I")
_COUNTER_IV_BYTES: Final = 8
_AES_KEY_BITS: Final = (128, 192, 256)
_AES_BLOCK_BYTES: Final = 16


def _bad_icv() -> PacketDropped:
    return PacketDropped(DropReason.INTEGRITY, "the ICV does not verify")


# --- combined mode (RFC 4106, RFC 4309, RFC 7634, RFC 4543) ---------------------------------------


class _AeadCipher(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...


class _TruncatedGcm:
    """AES-GCM with an ICV of 8 or 12 bytes, which the one-shot interface does not verify."""

    __slots__ = ("_aes", "_encrypt", "_excess", "_icv_bytes")

    def __init__(self, key: bytes, icv_bytes: int) -> None:
        self._encrypt = AESGCM(key).encrypt
        self._aes = AES(key)
        self._icv_bytes = icv_bytes
        self._excess = 16 - icv_bytes

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return ciphertext and the leftmost bytes of the tag (SP 800-38D §5.2.1.2)."""
        return self._encrypt(nonce, data, associated_data)[: -self._excess]

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return the plaintext, or raise InvalidTag."""
        mode = modes.GCM(nonce, data[-self._icv_bytes :], min_tag_length=self._icv_bytes)
        decryptor = Cipher(self._aes, mode).decryptor()
        decryptor.authenticate_additional_data(associated_data)
        return decryptor.update(data[: -self._icv_bytes]) + decryptor.finalize()


class _Gmac:
    """AES-GMAC: nothing is secret, everything is authenticated (RFC 4543 §3)."""

    __slots__ = ("_decrypt", "_encrypt")

    def __init__(self, key: bytes) -> None:
        gcm = AESGCM(key)
        self._encrypt = gcm.encrypt
        self._decrypt = gcm.decrypt

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return the data and its tag; the IV is part of what is authenticated."""
        return data + self._encrypt(nonce, b"", associated_data + nonce[-_COUNTER_IV_BYTES:] + data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return the data, or raise InvalidTag."""
        payload, tag = data[:-16], data[-16:]
        self._decrypt(nonce, tag, associated_data + nonce[-_COUNTER_IV_BYTES:] + payload)
        return payload


@dataclass(frozen=True, slots=True)
class _Aead:
    make: Callable[[bytes], _AeadCipher]
    salt_bytes: int
    icv_bytes: int
    key_bits: tuple[int, ...] = _AES_KEY_BITS


_AEADS: Final = {
    Encr.AES_GCM_16: _Aead(AESGCM, 4, 16),
    Encr.AES_GCM_12: _Aead(lambda key: _TruncatedGcm(key, 12), 4, 12),
    Encr.AES_GCM_8: _Aead(lambda key: _TruncatedGcm(key, 8), 4, 8),
    Encr.AES_CCM_16: _Aead(lambda key: AESCCM(key, 16), 3, 16),
    Encr.AES_CCM_12: _Aead(lambda key: AESCCM(key, 12), 3, 12),
    Encr.AES_CCM_8: _Aead(lambda key: AESCCM(key, 8), 3, 8),
    Encr.CHACHA20_POLY1305: _Aead(ChaCha20Poly1305, 4, 16, (256,)),
    Encr.NULL_AUTH_AES_GMAC: _Aead(_Gmac, 4, 16),
}


def _seal_aead(sa: SecurityAssociation, suite: _Aead, entropy: Entropy) -> Seal:  # noqa: ARG001  table signature
    key, salt = _split_salt(sa, suite.salt_bytes)
    encrypt = suite.make(key).encrypt
    spi = sa.spi

    def seal(sequence: int, plaintext: bytes) -> bytes:
        head = _HEADER_IV.pack(spi, sequence, sequence)
        return head + encrypt(salt + head[HEADER_BYTES:], plaintext, head[:HEADER_BYTES])

    def seal_esn(sequence: int, plaintext: bytes) -> bytes:
        head = _HEADER_IV.pack(spi, sequence & _LOW, sequence)
        return head + encrypt(salt + head[HEADER_BYTES:], plaintext, _ESN_AAD.pack(spi, sequence))

    return seal_esn if sa.esn else seal


def _open_aead(sa: SecurityAssociation, suite: _Aead) -> Open:
    key, salt = _split_salt(sa, suite.salt_bytes)
    decrypt = suite.make(key).decrypt
    spi = sa.spi
    start = HEADER_BYTES + _COUNTER_IV_BYTES

    def open_(esp: bytes, sequence: int) -> bytes:  # noqa: ARG001  same signature as open_esn
        try:
            return decrypt(salt + esp[HEADER_BYTES:start], esp[start:], esp[:HEADER_BYTES])
        except InvalidTag:
            raise _bad_icv() from None

    def open_esn(esp: bytes, sequence: int) -> bytes:
        try:
            return decrypt(salt + esp[HEADER_BYTES:start], esp[start:], _ESN_AAD.pack(spi, sequence))
        except InvalidTag:
            raise _bad_icv() from None

    return open_esn if sa.esn else open_


def _split_salt(sa: SecurityAssociation, salt_bytes: int) -> tuple[bytes, bytes]:
    material = sa.encryption_key.reveal()
    return material[: len(material) - salt_bytes], material[len(material) - salt_bytes :]


# --- encryption with separate integrity (RFC 3602, RFC 3686, RFC 2410) ----------------------------

_Encrypt = Callable[[int, bytes], bytes]
"""(sequence number, plaintext) -> IV and ciphertext."""
_Decrypt = Callable[[bytes], bytes]
"""(IV and ciphertext) -> plaintext."""


@dataclass(frozen=True, slots=True)
class _Block:
    make_encrypt: Callable[[bytes, Entropy], _Encrypt]
    make_decrypt: Callable[[bytes], _Decrypt]
    iv_bytes: int
    alignment_bytes: int
    salt_bytes: int = 0
    key_bits: tuple[int, ...] = _AES_KEY_BITS


def _encrypt_null(key: bytes, entropy: Entropy) -> _Encrypt:  # noqa: ARG001  table signature
    return lambda sequence, plaintext: plaintext  # noqa: ARG005  table signature


def _decrypt_null(key: bytes) -> _Decrypt:  # noqa: ARG001  table signature
    return lambda data: data


def _encrypt_cbc(key: bytes, entropy: Entropy) -> _Encrypt:
    # One context for the life of the SA, never finalised: a new one per packet costs more than the
    # encryption. A block of fresh entropy goes in before each packet; what comes out for it,
    # E(entropy XOR last ciphertext block), is as unpredictable as the entropy, and is the IV.
    update = Cipher(AES(key), modes.CBC(bytes(_AES_BLOCK_BYTES))).encryptor().update
    return lambda sequence, plaintext: update(entropy(_AES_BLOCK_BYTES) + plaintext)  # noqa: ARG005


def _decrypt_cbc(key: bytes) -> _Decrypt:
    # A CBC plaintext block depends on its own and the previous ciphertext block only: with the IV fed as a
    # block, whose own decryption is thrown away, one context serves all packets.
    update = Cipher(AES(key), modes.CBC(bytes(_AES_BLOCK_BYTES))).decryptor().update
    return lambda data: update(data)[_AES_BLOCK_BYTES:]


_CTR_FIRST_BLOCK: Final = b"\0\0\0\1"
"""The block counter of a packet starts at one (RFC 3686 §4)."""


def _encrypt_ctr(material: bytes, entropy: Entropy) -> _Encrypt:  # noqa: ARG001  table signature
    aes, nonce = AES(material[:-4]), material[-4:]

    def encrypt(sequence: int, plaintext: bytes) -> bytes:
        iv = _COUNTER_IV.pack(sequence)
        return iv + Cipher(aes, modes.CTR(nonce + iv + _CTR_FIRST_BLOCK)).encryptor().update(plaintext)

    return encrypt


def _decrypt_ctr(material: bytes) -> _Decrypt:
    aes, nonce = AES(material[:-4]), material[-4:]

    def decrypt(data: bytes) -> bytes:
        mode = modes.CTR(nonce + data[:_COUNTER_IV_BYTES] + _CTR_FIRST_BLOCK)
        return Cipher(aes, mode).decryptor().update(data[_COUNTER_IV_BYTES:])

    return decrypt


_BLOCKS: Final = {
    Encr.AES_CBC: _Block(_encrypt_cbc, _decrypt_cbc, iv_bytes=16, alignment_bytes=16),
    Encr.AES_CTR: _Block(_encrypt_ctr, _decrypt_ctr, iv_bytes=8, alignment_bytes=4, salt_bytes=4),
    Encr.NULL: _Block(_encrypt_null, _decrypt_null, iv_bytes=0, alignment_bytes=4, key_bits=(0,)),
}


def _seal_separate(sa: SecurityAssociation, cipher: _Block, suite: MacSuite, entropy: Entropy) -> Seal:
    encrypt = cipher.make_encrypt(sa.encryption_key.reveal(), entropy)
    mac = suite.make(sa.integrity_key.reveal())
    spi = sa.spi

    def seal(sequence: int, plaintext: bytes) -> bytes:
        esp = HEADER.pack(spi, sequence) + encrypt(sequence, plaintext)
        return esp + mac(esp)

    def seal_esn(sequence: int, plaintext: bytes) -> bytes:
        # The high half is authenticated behind the packet and not sent (RFC 4303 §2.2.1).
        esp = HEADER.pack(spi, sequence & _LOW) + encrypt(sequence, plaintext)
        return esp + mac(esp + _SEQUENCE_HIGH.pack(sequence >> 32))

    return seal_esn if sa.esn else seal


def _open_separate(sa: SecurityAssociation, cipher: _Block, suite: MacSuite) -> Open:
    decrypt = cipher.make_decrypt(sa.encryption_key.reveal())
    mac, icv_bytes = suite.make(sa.integrity_key.reveal()), suite.icv_bytes
    is_esn = sa.esn

    def open_(esp: bytes, sequence: int) -> bytes:
        covered = esp[:-icv_bytes]
        signed = covered + _SEQUENCE_HIGH.pack(sequence >> 32) if is_esn else covered
        if not hmac.compare_digest(mac(signed), esp[-icv_bytes:]):
            raise _bad_icv()
        return decrypt(covered[HEADER_BYTES:])

    return open_


# --- the choice, once per SA ----------------------------------------------------------------------


def check_sa(sa: SecurityAssociation, direction: Direction) -> None:
    """Check what both directions need.

    Raises:
        UnsupportedSa: This core cannot carry the SA.
    """
    if sa.direction is not direction:
        raise UnsupportedSa("direction", f"SA is {sa.direction.value}, expected {direction.value}")
    if sa.protocol is not IpsecProtocol.ESP:
        raise UnsupportedSa("protocol", f"{sa.protocol.name} SA where one of ESP is expected")


def layout(sa: SecurityAssociation) -> Layout:
    """Return the sizes of IV, ICV and alignment of an SA's suite.

    Raises:
        UnsupportedSa: No such suite here.
    """
    aead = _AEADS.get(sa.encryption)
    if aead is not None:
        return Layout(_COUNTER_IV_BYTES, aead.icv_bytes, 4)
    cipher, mac = _separate(sa)
    return Layout(cipher.iv_bytes, mac.icv_bytes, cipher.alignment_bytes)


def make_seal(sa: SecurityAssociation, entropy: Entropy) -> Seal:
    """Return the callable that protects the packets of an outbound SA.

    Raises:
        UnsupportedSa: No such suite here, or keys of the wrong length.
    """
    aead = _AEADS.get(sa.encryption)
    if aead is not None:
        _check_aead(sa, aead)
        return _seal_aead(sa, aead, entropy)
    cipher, mac = _separate(sa)
    _check_separate(sa, cipher, mac)
    return _seal_separate(sa, cipher, mac, entropy)


def make_open(sa: SecurityAssociation) -> Open:
    """Return the callable that verifies and decrypts the packets of an inbound SA.

    Raises:
        UnsupportedSa: No such suite here, or keys of the wrong length.
    """
    aead = _AEADS.get(sa.encryption)
    if aead is not None:
        _check_aead(sa, aead)
        return _open_aead(sa, aead)
    cipher, mac = _separate(sa)
    _check_separate(sa, cipher, mac)
    return _open_separate(sa, cipher, mac)


def supported_encryption() -> tuple[tuple[Encr, int], ...]:
    """Return every (algorithm, key bits) pair of this core."""
    pairs = [(encr, bits) for encr, aead in _AEADS.items() for bits in aead.key_bits]
    return tuple(pairs + [(encr, bits) for encr, cipher in _BLOCKS.items() for bits in cipher.key_bits])


def supported_integrity() -> tuple[Integ, ...]:
    """Return every integrity algorithm of this core."""
    return tuple(MACS)


def _separate(sa: SecurityAssociation) -> tuple[_Block, MacSuite]:
    cipher = _BLOCKS.get(sa.encryption)
    if cipher is None:
        raise UnsupportedSa("encryption", f"encryption algorithm {sa.encryption!r} is not supported")
    mac = MACS.get(sa.integrity)
    if mac is None:
        # Encryption without integrity is not offered at all (RFC 8221 §4).
        raise UnsupportedSa("integrity", f"integrity algorithm {sa.integrity!r} is not supported")
    return cipher, mac


def _check_aead(sa: SecurityAssociation, suite: _Aead) -> None:
    if sa.integrity is not Integ.NONE:
        raise UnsupportedSa("integrity", f"{sa.encryption.name} brings its own integrity")
    _check_key(sa, suite.key_bits, suite.salt_bytes)


def _check_separate(sa: SecurityAssociation, cipher: _Block, mac: MacSuite) -> None:
    _check_key(sa, cipher.key_bits, cipher.salt_bytes)
    if len(sa.integrity_key) != mac.key_bytes:
        raise UnsupportedSa(
            "integrity_key", f"integrity key is {len(sa.integrity_key)} bytes, expected {mac.key_bytes}"
        )


def _check_key(sa: SecurityAssociation, key_bits: tuple[int, ...], salt_bytes: int) -> None:
    if sa.key_bits not in key_bits:
        raise UnsupportedSa("key_bits", f"key is {sa.key_bits} bits, expected one of {key_bits}")
    expected = sa.key_bits // 8 + salt_bytes
    if len(sa.encryption_key) != expected:
        raise UnsupportedSa(
            "encryption_key",
            f"key and salt are {len(sa.encryption_key)} bytes, expected {expected}",
        )
