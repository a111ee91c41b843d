"""The algorithms that an IKE SA runs on, taken out of the proposal both sides agreed on."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.ike.errors import LocalError
from gateway.ipsec.algorithms import (
    ENCR,
    INTEG,
    PRF,
    Encr,
    Integ,
    Ke,
    Prf,
    ProtocolId,
    TransformType,
    iana_name,
)
from gateway.ipsec.implemented import is_implemented
from gateway.ipsec.proposal import Proposal

_IKE_TYPES: Final = (TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.KE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSuite:
    """One algorithm of each kind."""

    encr: Encr
    key_bits: int
    """Of the encryption algorithm, without salt."""
    integ: Integ = Integ.NONE
    prf: Prf
    ke: Ke = Ke.NONE

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, proposal: Proposal) -> "IkeSuite":
        """Return the suite of a chosen IKE proposal.

        Raises:
            LocalError: It does not name exactly one algorithm of each kind, or one that IKE must not use
                (NULL and what only authenticates, RFC 7296 §3.14) or that has no code.
        """
        chosen = {transform.type: transform for transform in proposal.transforms}
        if len(chosen) != len(proposal.transforms):
            raise LocalError("a chosen proposal names one transform of each type")
        for transform in proposal.transforms:
            if transform.type in _IKE_TYPES and not is_implemented(
                ProtocolId.IKE, transform.type, transform.id
            ):
                raise LocalError(f"{iana_name(transform.type, transform.id)} is not implemented for IKE")
        try:
            encr = Encr(chosen[TransformType.ENCR].id)
            prf = Prf(chosen[TransformType.PRF].id)
            integ = chosen.get(TransformType.INTEG)
            ke = chosen.get(TransformType.KE)
            key_bits = chosen[TransformType.ENCR].key_bits
            if not ENCR[encr].accepts(key_bits):
                raise LocalError(f"{encr.name} has no key of {key_bits} bits")
            return cls(
                encr=encr,
                key_bits=ENCR[encr].default_key_bits if key_bits is None else key_bits,
                integ=Integ.NONE if integ is None else Integ(integ.id),
                prf=prf,
                ke=Ke.NONE if ke is None else Ke(ke.id),
            )
        except (KeyError, ValueError):
            raise LocalError(
                "the chosen IKE proposal lacks an algorithm, or names one we do not know"
            ) from None

    @property
    def encryption_key_bytes(self) -> int:
        """Return the length of SK_ei and SK_er, salt included."""
        return ENCR[self.encr].keymat_bytes(self.key_bits)

    @property
    def integrity_key_bytes(self) -> int:
        """Return the length of SK_ai and SK_ar; 0 for an AEAD (RFC 5282 §7.1)."""
        return INTEG[self.integ].key_bytes

    @property
    def prf_key_bytes(self) -> int:
        """Return the length of SK_d, SK_pi and SK_pr."""
        return PRF[self.prf].key_bytes
