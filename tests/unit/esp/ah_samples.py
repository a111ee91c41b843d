"""AH suites and SAs that the tests of AH share."""

from dataclasses import dataclass
from typing import Any

from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.ipsec.algorithms import INTEG, Encr, Integ
from gateway.ipsec.sa import Direction, IpsecProtocol, SecurityAssociation
from gateway.ipsec.secret import Secret
from tests.unit.esp.samples import association, material


@dataclass(frozen=True)
class AhSuite:
    """One integrity algorithm as IKE would negotiate it."""

    integrity: Integ

    @property
    def key(self) -> bytes:
        info = INTEG[self.integrity]
        return material(f"AH {self.integrity.name}", info.key_bytes + info.salt_bytes)

    @property
    def is_gmac(self) -> bool:
        return bool(INTEG[self.integrity].salt_bytes)

    def __str__(self) -> str:
        return self.integrity.name.lower()


AH_SUITES = tuple(
    AhSuite(integrity)
    for integrity in (
        Integ.HMAC_SHA1_96,
        Integ.HMAC_SHA2_256_128,
        Integ.HMAC_SHA2_384_192,
        Integ.HMAC_SHA2_512_256,
        Integ.AES_XCBC_96,
        Integ.AES_CMAC_96,
        Integ.AES_128_GMAC,
        Integ.AES_192_GMAC,
        Integ.AES_256_GMAC,
    )
)
SHA256 = AhSuite(Integ.HMAC_SHA2_256_128)
GMAC = AhSuite(Integ.AES_256_GMAC)


def ah_association(direction: Direction, suite: AhSuite = SHA256, **changes: Any) -> SecurityAssociation:
    fields: dict[str, Any] = {
        "protocol": IpsecProtocol.AH,
        "encryption": Encr.NULL,
        "encryption_key": Secret(b""),
        "key_bits": 0,
        "integrity": suite.integrity,
        "integrity_key": Secret(suite.key),
    }
    return association(direction, **(fields | changes))


def ah_outbound(
    suite: AhSuite = SHA256, *, next_sequence: int = 1, df: Any = None, **changes: Any
) -> AhOutboundSa:
    sa = ah_association(Direction.OUTBOUND, suite, **changes)
    return AhOutboundSa(sa, next_sequence=next_sequence, df=df)


def ah_inbound(suite: AhSuite = SHA256, **changes: Any) -> AhInboundSa:
    return AhInboundSa(ah_association(Direction.INBOUND, suite, **changes))
