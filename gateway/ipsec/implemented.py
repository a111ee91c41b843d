"""What this build can run: the algorithms that have code, for each security protocol.

The tables of `algorithms` know more than the code, so that a proposal that names an algorithm we lack is told
so, and a peer's offer can be printed whole. What stands here must run, and was held against a second source:
`tests/unit/ipsec/test_implemented.py` says which tests see to that. Whether an operator may use it is not
said here: weak algorithms have code too, and are refused unless `allow_weak` names them (`check_strength`).
"""

from collections.abc import Mapping
from typing import Final

from gateway.ipsec.algorithms import Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType

_KEY_EXCHANGES: Final = frozenset(
    {
        *(Ke.CURVE25519, Ke.CURVE448),
        *(Ke.ECP_256, Ke.ECP_384, Ke.ECP_521),
        *(Ke.BRAINPOOL_256, Ke.BRAINPOOL_384, Ke.BRAINPOOL_512),
        *(Ke.MODP_2048, Ke.MODP_3072, Ke.MODP_4096, Ke.MODP_6144, Ke.MODP_8192),
        # Weak: RFC 8247 §2.4 says SHOULD NOT.
        *(Ke.MODP_1024, Ke.MODP_1536),
    }
)
"""IKE runs those of Child SAs too (RFC 7296 §1.3.1)."""

_MACS: Final = frozenset(
    {
        *(Integ.HMAC_SHA1_96, Integ.AES_XCBC_96, Integ.AES_CMAC_96),
        *(Integ.HMAC_SHA2_256_128, Integ.HMAC_SHA2_384_192, Integ.HMAC_SHA2_512_256),
    }
)
"""Of ESP and AH."""

IMPLEMENTED: Final[Mapping[ProtocolId, Mapping[TransformType, frozenset[int]]]] = {
    ProtocolId.IKE: {
        TransformType.ENCR: frozenset(
            {
                *(Encr.AES_GCM_8, Encr.AES_GCM_12, Encr.AES_GCM_16),
                *(Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16),
                *(Encr.AES_CBC, Encr.AES_CTR, Encr.CHACHA20_POLY1305, Encr.CAMELLIA_CBC),
                # Weak: blocks of 64 bits.
                Encr.TRIPLE_DES,
            }
        ),
        TransformType.PRF: frozenset(
            {
                *(Prf.HMAC_SHA1, Prf.HMAC_SHA2_256, Prf.HMAC_SHA2_384, Prf.HMAC_SHA2_512),
                *(Prf.AES128_XCBC, Prf.AES128_CMAC),
                # Weak: RFC 8247 §2.2 says MUST NOT.
                Prf.HMAC_MD5,
            }
        ),
        TransformType.INTEG: frozenset(
            {
                *(Integ.NONE, Integ.HMAC_SHA1_96, Integ.AES_XCBC_96, Integ.AES_CMAC_96),
                *(Integ.HMAC_SHA2_256_128, Integ.HMAC_SHA2_384_192, Integ.HMAC_SHA2_512_256),
                # Weak: RFC 8247 §2.3 says MUST NOT.
                Integ.HMAC_MD5_96,
            }
        ),
        TransformType.KE: _KEY_EXCHANGES,
    },
    ProtocolId.ESP: {
        TransformType.ENCR: frozenset(
            {
                *(Encr.AES_GCM_8, Encr.AES_GCM_12, Encr.AES_GCM_16),
                *(Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16),
                *(Encr.AES_CBC, Encr.AES_CTR, Encr.CHACHA20_POLY1305),
                # By name only: nothing is encrypted.
                *(Encr.NULL, Encr.NULL_AUTH_AES_GMAC),
            }
        ),
        TransformType.INTEG: _MACS | {Integ.NONE},
        TransformType.KE: _KEY_EXCHANGES | {Ke.NONE},
        TransformType.SN: frozenset({Sn.NO_ESN, Sn.ESN}),
    },
    ProtocolId.AH: {
        TransformType.INTEG: _MACS | {Integ.AES_128_GMAC, Integ.AES_192_GMAC, Integ.AES_256_GMAC},
        TransformType.KE: _KEY_EXCHANGES | {Ke.NONE},
        TransformType.SN: frozenset({Sn.NO_ESN, Sn.ESN}),
    },
}
"""By security protocol and transform type; additional key exchanges are absent: none of them."""


def is_implemented(protocol: ProtocolId, type_: TransformType, id_: int) -> bool:
    """Say whether this build has code for the algorithm in SAs of this protocol."""
    return id_ in IMPLEMENTED[protocol].get(type_, frozenset())
