"""Key exchange: X25519, X448, ECP, brainpool and MODP from injected entropy, with the checks of RFC 6989.

Public values are as they stand in the KE payload: MODP padded to the prime's length (RFC 7296 §3.4), ECP and
brainpool as x | y (RFC 5903 §7, RFC 6954 §3), curves as RFC 8031 has them. Shared secrets keep their leading
zeros (§2.14). All arithmetic on secrets is OpenSSL's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    BrainpoolP256R1,
    BrainpoolP384R1,
    BrainpoolP512R1,
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


# --- X25519, X448 (RFC 7748, RFC 8031) ------------------------------------------------------------


def _generate_x25519(method: Ke, entropy: Entropy) -> KeyExchange:
    private = X25519PrivateKey.from_private_bytes(entropy(32))

    def agree(peer: bytes) -> bytes:
        return _refuse_zero(method, lambda: private.exchange(X25519PublicKey.from_public_bytes(peer)))

    return KeyExchange(method, private.public_key().public_bytes_raw(), agree)


def _generate_x448(method: Ke, entropy: Entropy) -> KeyExchange:
    private = X448PrivateKey.from_private_bytes(entropy(56))

    def agree(peer: bytes) -> bytes:
        return _refuse_zero(method, lambda: private.exchange(X448PublicKey.from_public_bytes(peer)))

    return KeyExchange(method, private.public_key().public_bytes_raw(), agree)


def _refuse_zero(method: Ke, exchange: Callable[[], bytes]) -> bytes:
    """Run an exchange; the library refuses the all-zero result (RFC 8031 §5), and so do we."""
    try:
        secret = exchange()
    except ValueError:
        secret = b""
    if not any(secret):
        raise InvalidSyntax(f"public value of {method.name} is of small order")
    return secret


# --- ECP and brainpool (RFC 5903, RFC 6954) --------------------------------------------------------

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
    Ke.BRAINPOOL_256: (
        BrainpoolP256R1(),
        0xA9FB57DB_A1EEA9BC_3E660A90_9D838D71_8C397AA3_B561A6F7_901E0E82_974856A7,
    ),
    Ke.BRAINPOOL_384: (
        BrainpoolP384R1(),
        0x8CB91E82_A3386D28_0F5D6F7E_50E641DF_152F7109_ED5456B3_1F166E6C_AC0425A7_CF3AB6AF_6B7FC310_3B883202_E9046565,
    ),
    Ke.BRAINPOOL_512: (
        BrainpoolP512R1(),
        0xAADD9DB8_DBE9C48B_3FD4E6AE_33C9FC07_CB308DB3_B3C9D20E_D6639CCA_70330870_553E5C41_4CA92619_41866119_7FAC1047_1DB1D381_085DDADD_B5879682_9CA90069,
    ),
}
"""Curve and order of its base point (RFC 5903 §3, RFC 5639 §3)."""


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
    size = modp.EXPONENT_BYTES[method]
    # The top bit is set: never a small exponent, whatever the entropy source gives, and all of one length.
    exponent = modp.Exponent(method, int.from_bytes(entropy(size), "big") | 1 << (8 * size - 1))

    def agree(peer: bytes) -> bytes:
        value = int.from_bytes(peer, "big")
        # All these primes are safe, so the range is the whole test (RFC 6989 §2.1).
        if not 1 < value < prime - 1:
            raise InvalidSyntax(f"public value of {method.name} is not between 1 and p-1")
        return exponent.power(value)

    return KeyExchange(method, exponent.power(modp.GENERATOR), agree)


# --- choice ---------------------------------------------------------------------------------------

_GENERATORS: Final[Mapping[Ke, Callable[[Ke, Entropy], KeyExchange]]] = {
    Ke.CURVE25519: _generate_x25519,
    Ke.CURVE448: _generate_x448,
    **dict.fromkeys(_CURVES, _generate_ecp),
    **dict.fromkeys(modp.EXPONENT_BYTES, _generate_modp),
}


def generate(method: Ke, entropy: Entropy) -> KeyExchange:
    """Return a fresh half of a key exchange.

    Raises:
        LocalError: We do not implement the method.
    """
    if method not in _GENERATORS:
        raise LocalError(f"key exchange method {method.name} is not implemented")
    return _GENERATORS[method](method, entropy)
