"""Verifying and decrypting one protected packet under one row of a key table."""

from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from gateway.ike.crypto.cipher import Cipher, Coder, IntegrityFailed, build_cipher, build_coder
from gateway.ike.errors import LocalError
from gateway.inspect.algorithms import Authentication, Encryption, agreed_authentication, gcm_of
from gateway.ipsec.algorithms import ENCR, Encr, Integ
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.secret import Secret

_IMPLICIT_IV_BYTES: Final = 8


class CannotOpen(VocabularyError):
    """The row's algorithms and keys do not fit together."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The plaintext, still padded."""

    padded: bytes
    is_verified: bool
    """False: there was nothing to verify it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """One direction of one SA, its algorithms chosen."""

    iv_bytes: int
    """On the wire."""
    icv_bytes: int
    block_bytes: int
    implicit_iv: bool
    aead: Cipher | None
    coder: Coder | None
    authentication: Authentication
    encryption_key: Secret
    integrity_key: Secret
    refusal: str = ""
    """Why nothing can be opened with this row, although it is well-formed."""

    def open(self, associated: bytes, body: bytes, *, implicit: bytes = b"", iv: bytes = b"") -> Opened:
        """Verify and decrypt.

        Args:
            associated: Authenticated, before the IV.
            body: IV, ciphertext, ICV.
            implicit: High sequence bits that a MAC covers and nobody sends.
            iv: The IV of an algorithm that does not send it.

        Raises:
            IntegrityFailed: The ICV is wrong, or the length impossible.
        """
        if self.refusal:
            raise IntegrityFailed(self.refusal)
        if len(body) < self.iv_bytes + self.icv_bytes:
            raise IntegrityFailed(
                f"{len(body)} bytes are less than an IV of {self.iv_bytes} and an ICV of {self.icv_bytes}"
            )
        iv = iv if self.implicit_iv else body[: self.iv_bytes]
        sealed = body[self.iv_bytes :]
        if self.aead is not None:
            return Opened(self.aead.open(iv, associated, sealed), is_verified=True)
        split = len(sealed) - self.icv_bytes
        ciphertext = sealed[:split]
        icv = self.authentication.icv
        if icv is not None:
            expected = icv(self.integrity_key.reveal(), associated + iv + ciphertext + implicit)
            if not compare_digest(expected, sealed[split:]):
                raise IntegrityFailed("the integrity check value is wrong")
        if len(ciphertext) % self.block_bytes:
            raise IntegrityFailed(
                f"ciphertext of {len(ciphertext)} bytes is not in blocks of {self.block_bytes}"
            )
        assert self.coder is not None  # one of the two, by construction below
        return Opened(self.coder.decrypt(iv, ciphertext), is_verified=icv is not None)


def build_opener(
    encryption: Encryption, encryption_key: Secret, authentication: Authentication, integrity_key: Secret
) -> Opener:
    """Choose the code for one row of a key table.

    Raises:
        CannotOpen: The key has a length its algorithm does not have.
    """
    encr = _exact_encr(encryption, authentication)
    if encr is None:
        return Opener(
            iv_bytes=0,
            icv_bytes=0,
            block_bytes=1,
            implicit_iv=False,
            aead=None,
            coder=None,
            authentication=authentication,
            encryption_key=encryption_key,
            integrity_key=integrity_key,
            refusal="the encryption algorithm of this key table row is not implemented",
        )
    info = ENCR[encr]
    key_bits = (len(encryption_key) - info.salt_bytes) * 8
    if encryption.key_bits is not None and key_bits != encryption.key_bits:
        raise CannotOpen(
            f"the encryption key is {len(encryption_key)} bytes, "
            f"{info.keymat_bytes(encryption.key_bits)} are wanted ({info.salt_bytes} of them salt)"
        )
    try:
        aead = build_cipher(encr, encryption_key) if info.aead else None
        coder = None if info.aead else build_coder(encr, encryption_key)
    except LocalError as error:
        raise CannotOpen(str(error)) from None
    return Opener(
        iv_bytes=0 if encryption.implicit_iv else info.iv_bytes,
        icv_bytes=info.icv_bytes if info.aead else authentication.icv_bytes,
        block_bytes=info.block_bytes,
        implicit_iv=encryption.implicit_iv,
        aead=aead,
        coder=coder,
        authentication=authentication,
        encryption_key=encryption_key,
        integrity_key=integrity_key,
    )


def build_agreed_opener(encr: Encr, encryption_key: Secret, integ: Integ, integrity_key: Secret) -> Opener:
    """Choose the code for one direction of an SA whose algorithms two peers agreed on.

    Raises:
        CannotOpen: One of them is not implemented.
    """
    try:
        authentication = agreed_authentication(integ)
    except LocalError as error:
        raise CannotOpen(str(error)) from None
    return build_opener(Encryption(encr=encr), encryption_key, authentication, integrity_key)


def _exact_encr(encryption: Encryption, authentication: Authentication) -> Encr | None:
    """Return the algorithm, with the ICV length that an old name leaves to the authentication column."""
    if not (encryption.any_icv and authentication.is_any):
        return encryption.encr
    exact = gcm_of(authentication.icv_bytes)
    if exact is None:
        raise CannotOpen(f"AES-GCM has no ICV of {authentication.icv_bytes * 8} bits")
    return exact
