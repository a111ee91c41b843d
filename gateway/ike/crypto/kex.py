"""Key exchange: X25519, X448, ECP and MODP from injected entropy, with the checks of RFC 6989.

Public values are as they stand in the KE payload: MODP padded to the prime's length (RFC 7296 §3.4), ECP
as x | y (RFC 5903 §7), curves as RFC 8031 has them. Shared secrets keep their leading zeros (§2.14).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.ike.crypto import modp
from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ipsec.algorithms import KE, Ke
from gateway.ipsec.secret import Secret

Entropy = Callable[[int], bytes]
"""`entropy(n)` returns n bytes nobody can predict."""

_MARGIN_BYTES: Final = 8
"""Drawn beyond the group order's length, so that reducing modulo the order leaves no bias to speak of."""


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """Our half of one key exchange; use it once, for one peer's public value."""

    method: Ke
    public: bytes
    """Key Exchange Data of our KE payload."""
    _agree: Callable[[bytes], bytes] = field(repr=False, compare=False)

    def compute(self, peer_public: bytes) -> Secret:
        """Return the shared secret.

        Raises:
            InvalidSyntax: The peer's public value fails a check of RFC 6989 §2, has the wrong length, or
                leads to the all-zero secret (RFC 8031 §5).
        """
        wanted = KE[self.method].public_value_bytes
        if len(peer_public) != wanted:
            raise InvalidSyntax(
                f"public value of {self.method.name} is {len(peer_public)} bytes, it has {wanted}"
            )
        return Secret(self._agree(peer_public))


def generate(method: Ke, entropy: Entropy) -> KeyExchange:
    """Return a fresh half of a key exchange.

    Raises:
        LocalError: We do not implement the method.
    """
    match method:
        case Ke.CURVE25519:
            return _generate_x25519(entropy)
        case Ke.CURVE448:
            return _generate_x448(entropy)
        case Ke.ECP_256 | Ke.ECP_384 | Ke.ECP_521:
            return _generate_ecp(method, entropy)
        case Ke.MODP_2048 | Ke.MODP_3072 | Ke.MODP_4096 | Ke.MODP_6144 | Ke.MODP_8192:
            return _generate_modp(method, entropy)
    raise LocalError(f"key exchange method {method.name} is not implemented")


# --- X25519, X448 (RFC 7748, RFC 8031) ------------------------------------------------------------


def _generate_x25519(entropy: Entropy) -> KeyExchange:
    private = X25519PrivateKey.from_private_bytes(entropy(32))

    def agree(peer: bytes) -> bytes:
        return _refuse_zero(Ke.CURVE25519, lambda: private.exchange(X25519PublicKey.from_public_bytes(peer)))

    return KeyExchange(Ke.CURVE25519, private.public_key().public_bytes_raw(), agree)


def _generate_x448(entropy: Entropy) -> KeyExchange:
    private = X448PrivateKey.from_private_bytes(entropy(56))

    def agree(peer: bytes) -> bytes:
        return _refuse_zero(Ke.CURVE448, lambda: private.exchange(X448PublicKey.from_public_bytes(peer)))

    return KeyExchange(Ke.CURVE448, private.public_key().public_bytes_raw(), agree)


def _refuse_zero(method: Ke, exchange: Callable[[], bytes]) -> bytes:
    """Run an exchange; the library refuses the all-zero result (RFC 8031 §5), and so do we."""
    try:
        secret = exchange()
    except ValueError:
        secret = b""
    if not any(secret):
        raise InvalidSyntax(f"public value of {method.name} is of small order")
    return secret


# --- ECP (RFC 5903) -------------------------------------------------------------------------------

_CURVES: Final[dict[Ke, tuple[EllipticCurve, int]]] = {
    Ke.ECP_256: (
        SECP256R1(),
        0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551,
    ),
    Ke.ECP_384: (
        SECP384R1(),
        0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_C7634D81_F4372DDF_581A0DB2_48B0A77A_ECEC196A_CCC52973,
    ),
    Ke.ECP_521: (
        SECP521R1(),
        0x01FF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFA_51868783_BF2F966B_7FCC0148_F709A5D0_3BB5C9B8_899C47AE_BB6FB71E_91386409,
    ),
}
"""Curve and order of its base point (RFC 5903 §3)."""


def _generate_ecp(method: Ke, entropy: Entropy) -> KeyExchange:
    curve, order = _CURVES[method]
    # FIPS 186-5 A.2.1: extra random bits, then into [1, n-1].
    drawn = int.from_bytes(entropy((curve.key_size + 7) // 8 + _MARGIN_BYTES), "big")
    private = derive_private_key(drawn % (order - 1) + 1, curve)
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def agree(peer: bytes) -> bytes:
        return _agree_ecp(method, private, peer)

    return KeyExchange(method, point[1:], agree)


def _agree_ecp(method: Ke, private: EllipticCurvePrivateKey, peer: bytes) -> bytes:
    """Check that the point is on the curve (RFC 6989 §2.3) and return the x coordinate (RFC 5903 §9)."""
    try:
        public = EllipticCurvePublicKey.from_encoded_point(private.curve, b"\x04" + peer)
        return private.exchange(ECDH(), public)
    except ValueError:
        raise InvalidSyntax(f"public value of {method.name} is not a point of its curve") from None


# --- MODP (RFC 3526) ------------------------------------------------------------------------------


def _generate_modp(method: Ke, entropy: Entropy) -> KeyExchange:
    prime = modp.modulus(method)
    size = KE[method].public_value_bytes
    # The top bit is set: never a small exponent, whatever the entropy source gives.
    exponent = int.from_bytes(entropy(modp.EXPONENT_BYTES[method]), "big")
    exponent |= 1 << (8 * modp.EXPONENT_BYTES[method] - 1)
    public = pow(modp.GENERATOR, exponent, prime).to_bytes(size, "big")

    def agree(peer: bytes) -> bytes:
        value = int.from_bytes(peer, "big")
        # All these primes are safe, so the range is the whole test (RFC 6989 §2.1).
        if not 1 < value < prime - 1:
            raise InvalidSyntax(f"public value of {method.name} is not between 1 and p-1")
        return pow(value, exponent, prime).to_bytes(size, "big")

    return KeyExchange(method, public, agree)
