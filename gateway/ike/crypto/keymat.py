"""Derivation of all keys: SKEYSEED, SK_*, and the KEYMAT of Child SAs (RFC 7296 §2.14, §2.17, §2.18).

`additional` shared secrets are those of RFC 9370 §2.2.2 and §2.2.4, in the order they were agreed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.ike.crypto.prf import expand, prf_function
from gateway.ike.crypto.suite import IkeSuite
from gateway.ipsec.algorithms import ENCR, INTEG, PRF, Encr, Integ, Prf
from gateway.ipsec.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeKeys:
    """The keys of one IKE SA, in the order of RFC 7296 §2.14."""

    sk_d: Secret
    sk_ai: Secret
    sk_ar: Secret
    sk_ei: Secret
    """Key, then salt for an AEAD or counter mode."""
    sk_er: Secret
    sk_pi: Secret
    sk_pr: Secret

    def wipe(self) -> None:
        """Overwrite all of them."""
        for secret in (self.sk_d, self.sk_ai, self.sk_ar, self.sk_ei, self.sk_er, self.sk_pi, self.sk_pr):
            secret.wipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildKeys:
    """The keys of one Child SA: encryption then integrity, initiator to responder first (§2.17)."""

    encryption_i: Secret
    """Of the SA from the exchange's initiator to its responder; key, then salt."""
    integrity_i: Secret
    encryption_r: Secret
    integrity_r: Secret


def derive_ike_keys(
    suite: IkeSuite, *, shared_secret: Secret, nonce_i: bytes, nonce_r: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """Return the keys of an IKE SA made by IKE_SA_INIT (RFC 7296 §2.14)."""
    skeyseed = derive_skeyseed(suite.prf, shared_secret, nonce_i, nonce_r)
    return expand_skeyseed(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def derive_skeyseed(prf: Prf, shared_secret: Secret, nonce_i: bytes, nonce_r: bytes) -> Secret:
    """Return SKEYSEED of an IKE SA made by IKE_SA_INIT: prf(Ni | Nr, g^ir) (RFC 7296 §2.14)."""
    info = PRF[prf]
    # A PRF with a fixed key length takes half its key from each nonce (§2.14).
    half = info.key_bytes // 2
    key = nonce_i[:half] + nonce_r[:half] if info.fixed_key else nonce_i + nonce_r
    return Secret(prf_function(prf)(key, shared_secret.reveal()))


def derive_updated_ike_keys(
    suite: IkeSuite,
    *,
    sk_d: Secret,
    shared_secret: Secret,
    nonce_i: bytes,
    nonce_r: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """Return the keys of an IKE SA after one more key exchange in IKE_INTERMEDIATE (RFC 9370 §2.2.2).

    SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr), which is how a rekey makes it from one key exchange.
    """
    skeyseed = derive_rekeyed_skeyseed(
        suite.prf, sk_d, shared_secret=shared_secret, nonce_i=nonce_i, nonce_r=nonce_r
    )
    return expand_skeyseed(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def derive_rekeyed_ike_keys(
    suite: IkeSuite,
    *,
    old_prf: Prf,
    old_sk_d: Secret,
    shared_secret: Secret,
    additional: Sequence[Secret] = (),
    nonce_i: bytes,
    nonce_r: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """Return the keys of an IKE SA made by a rekey (RFC 7296 §2.18).

    SPIs and nonces are those of the rekey exchange.
    """
    skeyseed = derive_rekeyed_skeyseed(
        old_prf,
        old_sk_d,
        shared_secret=shared_secret,
        additional=additional,
        nonce_i=nonce_i,
        nonce_r=nonce_r,
    )
    return expand_skeyseed(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def derive_rekeyed_skeyseed(
    old_prf: Prf,
    old_sk_d: Secret,
    *,
    shared_secret: Secret,
    additional: Sequence[Secret] = (),
    nonce_i: bytes,
    nonce_r: bytes,
) -> Secret:
    """Return SKEYSEED of an IKE SA made by a rekey, with the PRF of the old one (RFC 7296 §2.18).

    SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), and after Ni | Nr what RFC 9370 §2.2.4 adds.
    """
    material = shared_secret.reveal() + nonce_i + nonce_r
    material += b"".join(secret.reveal() for secret in additional)
    return Secret(prf_function(old_prf)(old_sk_d.reveal(), material))


def derive_child_keymat(
    prf: Prf,
    sk_d: Secret,
    *,
    encr: Encr,
    key_bits: int,
    integ: Integ = Integ.NONE,
    nonce_i: bytes,
    nonce_r: bytes,
    shared_secret: Secret | None = None,
    additional: Sequence[Secret] = (),
) -> ChildKeys:
    """Return the keys of a Child SA (RFC 7296 §2.17).

    KEYMAT = prf+(SK_d, Ni | Nr), or prf+(SK_d, g^ir (new) | Ni | Nr) with a key exchange of its own.

    Args:
        prf: The PRF of the IKE SA.
        sk_d: SK_d of the IKE SA.
        encr: Encryption algorithm of the Child SA; NULL for AH.
        key_bits: Its key length without salt; 0 for NULL.
        integ: Integrity algorithm; NONE for an AEAD.
        nonce_i: Of the exchange that makes the Child SA: IKE_SA_INIT's for the first one.
        nonce_r: Likewise.
        shared_secret: Of the key exchange in CREATE_CHILD_SA, if there was one (PFS).
        additional: Of further key exchanges (RFC 9370 §2.2.4).
    """
    seed = (b"" if shared_secret is None else shared_secret.reveal()) + nonce_i + nonce_r
    seed += b"".join(secret.reveal() for secret in additional)
    encryption_bytes = ENCR[encr].keymat_bytes(key_bits)
    integrity_bytes = INTEG[integ].keymat_bytes
    keymat = expand(prf, sk_d.reveal(), seed, 2 * (encryption_bytes + integrity_bytes))
    sizes = (encryption_bytes, integrity_bytes, encryption_bytes, integrity_bytes)
    encryption_i, integrity_i, encryption_r, integrity_r = _split(keymat, sizes)
    return ChildKeys(
        encryption_i=encryption_i, integrity_i=integrity_i, encryption_r=encryption_r, integrity_r=integrity_r
    )


def expand_skeyseed(suite: IkeSuite, skeyseed: Secret, seed: bytes) -> IkeKeys:
    """Return all keys of an IKE SA (RFC 7296 §2.14); `seed` is Ni | Nr | SPIi | SPIr.

    {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr)
    """
    prf, integ, encr = suite.prf_key_bytes, suite.integrity_key_bytes, suite.encryption_key_bytes
    sizes = (prf, integ, integ, encr, encr, prf, prf)
    keymat = expand(suite.prf, skeyseed.reveal(), seed, sum(sizes))
    sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr = _split(keymat, sizes)
    return IkeKeys(sk_d=sk_d, sk_ai=sk_ai, sk_ar=sk_ar, sk_ei=sk_ei, sk_er=sk_er, sk_pi=sk_pi, sk_pr=sk_pr)


def _split(keymat: bytes, sizes: Sequence[int]) -> list[Secret]:
    parts, offset = [], 0
    for size in sizes:
        parts.append(Secret(keymat[offset : offset + size]))
        offset += size
    return parts
