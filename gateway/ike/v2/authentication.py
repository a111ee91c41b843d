"""What the AUTH payload covers, and the pre-shared key's way of filling it (RFC 7296 §2.15).

```
SignedOctets(initiator) = RealMessage1 | NonceRData | prf(SK_pi, IDi')
SignedOctets(responder) = RealMessage2 | NonceIData | prf(SK_pr, IDr')
AUTH                    = prf( prf(Shared Secret, "Key Pad for IKEv2"), SignedOctets )
```

RealMessage is the sender's own IKE_SA_INIT message, whole and as sent (the last one, with cookie and the
accepted KE, when there were several); the nonce is the *other* side's; ID' is the ID payload without its
generic header.
"""

from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from gateway.ike.crypto.prf import PrfFunction
from gateway.ike.errors import PeerError
from gateway.ike.wire.notify import NotifyType
from gateway.ipsec.secret import Secret

KEY_PAD: Final = b"Key Pad for IKEv2"
"""17 ASCII octets without a terminator (RFC 7296 §2.15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationInput:
    """Everything one side's AUTH payload depends on, apart from its credential."""

    message: bytes
    """That side's IKE_SA_INIT message, header included."""
    peer_nonce: bytes
    """The other side's nonce, without payload header."""
    id_body: bytes
    """That side's ID payload after the generic header: type, three RESERVED octets as sent, data."""
    sk_p: Secret
    """SK_pi for the initiator's AUTH, SK_pr for the responder's."""


def signed_octets(prf: PrfFunction, given: AuthenticationInput) -> bytes:
    """Return what a signature covers and a shared-key MAC is computed over."""
    return given.message + given.peer_nonce + prf(given.sk_p.reveal(), given.id_body)


def compute_psk_auth(prf: PrfFunction, psk: Secret, given: AuthenticationInput) -> bytes:
    """Return the Authentication Data of a Shared Key Message Integrity Code (method 2)."""
    return prf(prf(psk.reveal(), KEY_PAD), signed_octets(prf, given))


def verify_psk_auth(prf: PrfFunction, psk: Secret, given: AuthenticationInput, received: bytes) -> None:
    """Check the peer's Authentication Data in constant time.

    Raises:
        PeerError: It is not what this key gives; carries AUTHENTICATION_FAILED.
    """
    if not compare_digest(compute_psk_auth(prf, psk, given), received):
        raise PeerError("the AUTH payload does not fit our pre-shared key", NotifyType.AUTHENTICATION_FAILED)
