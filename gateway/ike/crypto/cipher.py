"""Ciphers as IKE and ESP use them: AEADs, and encryption followed by a MAC (RFC 7296 §3.14, RFC 5282).

A `Cipher` is one direction under one key. It works on explicit parts, IV, associated data and payload,
and knows nothing of message layouts. It never chooses an IV: who calls it owns the counter or entropy.
"""

import hmac
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5, Blowfish, Camellia, TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher as LibraryCipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR, GCM

from gateway.ike.crypto.prf import aes_cmac
from gateway.ike.crypto.xcbc import aes_xcbc
from gateway.ike.errors import LocalError, PeerError
from gateway.ipsec.algorithms import ENCR, INTEG, Encr, Integ
from gateway.ipsec.secret import Secret

_TAG_BYTES: Final = 16


class IntegrityFailed(PeerError):
    """The ICV is wrong: this was not made with our key, or was changed on the way. Nothing is answered."""


class Cipher(Protocol):
    """One direction under one key."""

    iv_bytes: int
    icv_bytes: int
    block_bytes: int
    """The plaintext must be a multiple of this."""
    counter_iv: bool
    """True: an IV must never repeat, a counter is right. False: it must be unpredictable (CBC)."""

    def seal(self, iv: bytes, associated: bytes, plaintext: bytes, implicit: bytes = b"") -> bytes:
        """Return ciphertext followed by ICV.

        Args:
            iv: `iv_bytes` long, as it goes over the wire.
            associated: Authenticated, sent before the IV.
            plaintext: Already padded.
            implicit: Authenticated after the ciphertext but not sent; for MACs only (RFC 4303 §2.2.1).
        """

    def open(self, iv: bytes, associated: bytes, sealed: bytes, implicit: bytes = b"") -> bytes:
        """Return the plaintext of ciphertext followed by ICV, still padded.

        Raises:
            IntegrityFailed: The ICV is wrong, or the length is impossible.
        """


def build_cipher(
    encr: Encr,
    encryption_key: Secret,
    integ: Integ = Integ.NONE,
    integrity_key: Secret = Secret(b""),  # noqa: B008 - an empty Secret is nobody's
) -> Cipher:
    """Return the cipher of a suite; choose it once per SA.

    Args:
        encr: The encryption algorithm.
        encryption_key: Key, then salt where the algorithm has one (RFC 4106 §8.1, RFC 5282 §7.1).
        integ: The integrity algorithm beside it; NONE for an AEAD.
        integrity_key: Its key.

    Raises:
        LocalError: We do not implement the algorithm, a key has the wrong length, or nothing would
            protect integrity (RFC 7296 §3.3.3, RFC 4301 §4.1).
    """
    if ENCR[encr].aead:
        return _build_aead(encr, *_split_key(encr, encryption_key))
    if integ is Integ.NONE:
        raise LocalError(f"{encr.name} without an integrity algorithm is refused")
    return _EncryptThenMac(
        encr, build_coder(encr, encryption_key), integ, integrity_function(integ), integrity_key.reveal()
    )


def _split_key(encr: Encr, secret: Secret) -> tuple[bytes, bytes]:
    """Return key and salt, of lengths that the algorithm has."""
    octets = secret.reveal()
    salt_bytes = ENCR[encr].salt_bytes
    split = len(octets) - salt_bytes
    if split * 8 not in ENCR[encr].key_bits:
        raise LocalError(f"{encr.name} has no key of {split * 8} bits with {salt_bytes} bytes of salt")
    return octets[:split], octets[split:]


# --- integrity algorithms -----------------------------------------------------------------------

IntegrityFunction = Callable[[bytes, bytes], bytes]
"""`icv(key, data)`."""


def integrity_function(integ: Integ) -> IntegrityFunction:
    """Return the function that computes the ICV of an integrity algorithm.

    Raises:
        LocalError: We do not implement it.
    """
    info = INTEG[integ]
    if integ is Integ.NONE:
        return _no_icv
    if integ is Integ.AES_XCBC_96:
        return partial(_truncated, aes_xcbc, info.icv_bytes)
    if integ is Integ.AES_CMAC_96:
        return partial(_truncated, aes_cmac, info.icv_bytes)
    if not info.hash_name:
        raise LocalError(f"integrity algorithm {integ.name} is not implemented")
    return partial(_hmac, info.hash_name, info.icv_bytes)


def _no_icv(key: bytes, data: bytes) -> bytes:  # noqa: ARG001 - the shape of IntegrityFunction
    return b""


def _truncated(mac: IntegrityFunction, size: int, key: bytes, data: bytes) -> bytes:
    return mac(key, data)[:size]


def _hmac(hash_name: str, size: int, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hash_name)[:size]


# --- encryption without integrity ---------------------------------------------------------------


class Coder(Protocol):
    """Encryption alone; only of use with a MAC around it."""

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        """Return the ciphertext; the plaintext is in whole blocks."""

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes:
        """Return the plaintext; the ciphertext is in whole blocks."""


class _BlockMode:
    """A block cipher in a mode that the IV makes."""

    __slots__ = ("_algorithm", "_mode")

    def __init__(self, algorithm: BlockCipherAlgorithm, mode: Callable[[bytes], CBC | CTR]) -> None:
        self._algorithm = algorithm
        self._mode = mode

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        encryptor = LibraryCipher(self._algorithm, self._mode(iv)).encryptor()
        return encryptor.update(plaintext) + encryptor.finalize()

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes:
        decryptor = LibraryCipher(self._algorithm, self._mode(iv)).decryptor()
        return decryptor.update(ciphertext) + decryptor.finalize()


class _Null:
    """RFC 2410: the plaintext is the ciphertext."""

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:  # noqa: ARG002 - the shape of Coder
        return plaintext

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes:  # noqa: ARG002 - the shape of Coder
        return ciphertext


def _counter_mode(salt: bytes, iv: bytes) -> CTR:
    """RFC 3686 §4: counter block = nonce | IV | 32-bit block counter, starting at 1."""
    return CTR(salt + iv + b"\0\0\0\1")


def build_coder(encr: Encr, encryption_key: Secret) -> Coder:
    """Return the encryption of a suite without its integrity.

    Raises:
        LocalError: We do not implement the algorithm, or the key has the wrong length.
    """
    key, salt = _split_key(encr, encryption_key)
    match encr:
        case Encr.NULL:
            return _Null()
        case Encr.AES_CBC:
            return _BlockMode(AES(key), CBC)
        case Encr.AES_CTR:
            return _BlockMode(AES(key), partial(_counter_mode, salt))
        case Encr.TRIPLE_DES:
            return _BlockMode(TripleDES(key), CBC)
        case Encr.DES:
            # Three equal keys make TripleDES single DES; for old captures, no proposal names it.
            return _BlockMode(TripleDES(key * 3), CBC)
        case Encr.BLOWFISH:
            return _BlockMode(Blowfish(key), CBC)
        case Encr.CAST:
            return _BlockMode(CAST5(key), CBC)
        case Encr.CAMELLIA_CBC:
            return _BlockMode(Camellia(key), CBC)
    raise LocalError(f"encryption algorithm {encr.name} is not implemented")


class _EncryptThenMac:
    """A cipher without integrity, and a MAC over everything sent (RFC 7296 §3.14, RFC 4303 §3.3.2.1)."""

    __slots__ = ("_coder", "_icv", "_integrity_key", "block_bytes", "counter_iv", "icv_bytes", "iv_bytes")

    def __init__(
        self, encr: Encr, coder: Coder, integ: Integ, icv: IntegrityFunction, integrity_key: bytes
    ) -> None:
        if len(integrity_key) != INTEG[integ].key_bytes:
            raise LocalError(
                f"{integ.name} has a key of {INTEG[integ].key_bytes} bytes, got {len(integrity_key)}"
            )
        self.iv_bytes = ENCR[encr].iv_bytes
        self.block_bytes = ENCR[encr].block_bytes
        self.icv_bytes = INTEG[integ].icv_bytes
        self.counter_iv = encr is Encr.AES_CTR
        self._coder = coder
        self._icv = icv
        self._integrity_key = integrity_key

    def seal(self, iv: bytes, associated: bytes, plaintext: bytes, implicit: bytes = b"") -> bytes:
        ciphertext = self._coder.encrypt(iv, plaintext)
        return ciphertext + self._icv(self._integrity_key, associated + iv + ciphertext + implicit)

    def open(self, iv: bytes, associated: bytes, sealed: bytes, implicit: bytes = b"") -> bytes:
        split = len(sealed) - self.icv_bytes
        if split < 0:
            raise IntegrityFailed(f"{len(sealed)} bytes are less than an ICV of {self.icv_bytes}")
        ciphertext = sealed[:split]
        expected = self._icv(self._integrity_key, associated + iv + ciphertext + implicit)
        if not hmac.compare_digest(expected, sealed[split:]):
            raise IntegrityFailed("the integrity check value is wrong")
        if len(ciphertext) % self.block_bytes:
            raise IntegrityFailed(
                f"ciphertext of {len(ciphertext)} bytes is not in blocks of {self.block_bytes}"
            )
        return self._coder.decrypt(iv, ciphertext)


# --- AEAD ---------------------------------------------------------------------------------------


class _AesGcm:
    """AES-GCM with a short tag, which has no one-shot interface (RFC 4106, RFC 5282); nonce = salt | IV."""

    __slots__ = ("_algorithm", "_salt", "block_bytes", "counter_iv", "icv_bytes", "iv_bytes")

    def __init__(self, encr: Encr, key: bytes, salt: bytes) -> None:
        self.iv_bytes = ENCR[encr].iv_bytes
        self.icv_bytes = ENCR[encr].icv_bytes
        self.block_bytes = 1
        self.counter_iv = True
        self._algorithm = AES(key)
        self._salt = salt

    def seal(self, iv: bytes, associated: bytes, plaintext: bytes, implicit: bytes = b"") -> bytes:
        _check_no_implicit(implicit)
        encryptor = LibraryCipher(self._algorithm, GCM(self._salt + iv)).encryptor()
        encryptor.authenticate_additional_data(associated)
        ciphertext = encryptor.update(plaintext) + encryptor.finalize()
        return ciphertext + encryptor.tag[: self.icv_bytes]

    def open(self, iv: bytes, associated: bytes, sealed: bytes, implicit: bytes = b"") -> bytes:
        _check_no_implicit(implicit)
        split = len(sealed) - self.icv_bytes
        if split < 0:
            raise IntegrityFailed(f"{len(sealed)} bytes are less than an ICV of {self.icv_bytes}")
        mode = GCM(self._salt + iv, sealed[split:], min_tag_length=self.icv_bytes)
        decryptor = LibraryCipher(self._algorithm, mode).decryptor()
        decryptor.authenticate_additional_data(associated)
        try:
            return decryptor.update(sealed[:split]) + decryptor.finalize()
        except InvalidTag:
            raise IntegrityFailed("the integrity check value is wrong") from None


class _AesGmac:
    """ENCR_NULL_AUTH_AES_GMAC: everything is authenticated, nothing encrypted (RFC 4543 §3)."""

    __slots__ = ("_gcm", "block_bytes", "counter_iv", "icv_bytes", "iv_bytes")

    def __init__(self, encr: Encr, key: bytes, salt: bytes) -> None:
        self._gcm = _AesGcm(encr, key, salt)
        self.iv_bytes = self._gcm.iv_bytes
        self.icv_bytes = self._gcm.icv_bytes
        self.block_bytes = 1
        self.counter_iv = True

    def seal(self, iv: bytes, associated: bytes, plaintext: bytes, implicit: bytes = b"") -> bytes:
        return plaintext + self._gcm.seal(iv, associated + iv + plaintext, b"", implicit)

    def open(self, iv: bytes, associated: bytes, sealed: bytes, implicit: bytes = b"") -> bytes:
        split = max(len(sealed) - self.icv_bytes, 0)
        self._gcm.open(iv, associated + iv + sealed[:split], sealed[split:], implicit)
        return sealed[:split]


class _LibraryAead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class _OneShotAead:
    """AES-GCM with its whole tag, AES-CCM, ChaCha20-Poly1305 (RFC 5282, RFC 7634); nonce = salt | IV."""

    __slots__ = ("_aead", "_salt", "block_bytes", "counter_iv", "icv_bytes", "iv_bytes")

    def __init__(self, encr: Encr, aead: _LibraryAead, salt: bytes) -> None:
        self.iv_bytes = ENCR[encr].iv_bytes
        self.icv_bytes = ENCR[encr].icv_bytes
        self.block_bytes = 1
        self.counter_iv = True
        self._aead = aead
        self._salt = salt

    def seal(self, iv: bytes, associated: bytes, plaintext: bytes, implicit: bytes = b"") -> bytes:
        _check_no_implicit(implicit)
        return self._aead.encrypt(self._salt + iv, plaintext, associated)

    def open(self, iv: bytes, associated: bytes, sealed: bytes, implicit: bytes = b"") -> bytes:
        _check_no_implicit(implicit)
        if len(sealed) < self.icv_bytes:
            raise IntegrityFailed(f"{len(sealed)} bytes are less than an ICV of {self.icv_bytes}")
        try:
            return self._aead.decrypt(self._salt + iv, sealed, associated)
        except InvalidTag:
            raise IntegrityFailed("the integrity check value is wrong") from None


def _check_no_implicit(implicit: bytes) -> None:
    if implicit:
        raise LocalError("an AEAD has the high sequence bits in its associated data (RFC 4106 §5)")


def _build_aead(encr: Encr, key: bytes, salt: bytes) -> Cipher:
    match encr:
        case Encr.AES_GCM_16:
            return _OneShotAead(encr, AESGCM(key), salt)
        case Encr.AES_GCM_8 | Encr.AES_GCM_12:
            return _AesGcm(encr, key, salt)
        case Encr.NULL_AUTH_AES_GMAC:
            return _AesGmac(encr, key, salt)
        case Encr.AES_CCM_8 | Encr.AES_CCM_12 | Encr.AES_CCM_16:
            return _OneShotAead(encr, AESCCM(key, tag_length=ENCR[encr].icv_bytes), salt)
        case Encr.CHACHA20_POLY1305:
            return _OneShotAead(encr, ChaCha20Poly1305(key), salt)
    raise LocalError(f"encryption algorithm {encr.name} is not implemented")
