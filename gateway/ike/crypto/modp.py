"""The MODP groups with 2 as generator, from their definitions (RFC 7296 App. B, RFC 2409 §6, RFC 3526).

The exponentiation is OpenSSL's: constant-time in the exponent, as Python's `pow` is not, and ten times as
fast. The library has deprecated finite-field Diffie-Hellman in favour of curves. IKEv2 cannot do without
(group 14 is a MUST, RFC 8247 §2.4), hence the upper bound on the library's version in pyproject.toml.
"""

from functools import cache
from typing import Final
from warnings import catch_warnings, simplefilter

from cryptography.utils import CryptographyDeprecationWarning

from gateway.ipsec.algorithms import KE, Ke

with catch_warnings():
    # Nothing an operator could do about it; see above.
    simplefilter("ignore", CryptographyDeprecationWarning)
    from cryptography.hazmat.primitives.asymmetric.dh import (
        DHParameterNumbers,
        DHPrivateKey,
        DHPrivateNumbers,
        DHPublicNumbers,
    )

GENERATOR: Final = 2

_SIZE_AND_CONSTANT: Final = {
    Ke.MODP_1024: (1024, 129093),
    Ke.MODP_1536: (1536, 741804),
    Ke.MODP_2048: (2048, 124476),
    Ke.MODP_3072: (3072, 1690314),
    Ke.MODP_4096: (4096, 240904),
    Ke.MODP_6144: (6144, 929484),
    Ke.MODP_8192: (8192, 4743158),
}
"""Bits n and constant c of p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + c).

RFC 7296 App. B.2 and RFC 3526.
"""

EXPONENT_BYTES: Final = {
    Ke.MODP_1024: 20,
    Ke.MODP_1536: 30,
    Ke.MODP_2048: 40,
    Ke.MODP_3072: 53,
    Ke.MODP_4096: 60,
    Ke.MODP_6144: 68,
    Ke.MODP_8192: 78,
}
"""Twice the strength that RFC 3526 §8 credits each group with at most (estimate 2; MODP_1024's is ours)."""


class Exponent:
    """A secret exponent of one group: raises public numbers to its power. Use it for one exchange."""

    __slots__ = ("_key", "_parameters", "_size")

    def __init__(self, group: Ke, exponent: int) -> None:
        self._parameters = _parameters(group)
        self._size = KE[group].public_value_bytes
        # The library wants the public value beside the private one and never looks at it again, so that the
        # generator may stand in: the public value is what we are about to compute.
        stand_in = DHPublicNumbers(GENERATOR, self._parameters)
        self._key: DHPrivateKey = DHPrivateNumbers(exponent, stand_in).private_key()

    def power(self, base: int) -> bytes:
        """Return base^x mod p, as long as the prime.

        Raises:
            ValueError: The base is not in [2, p-2].
        """
        public = DHPublicNumbers(base, self._parameters).public_key()
        return self._key.exchange(public).rjust(self._size, b"\0")


@cache
def _parameters(group: Ke) -> DHParameterNumbers:
    return DHParameterNumbers(modulus(group), GENERATOR)


@cache
def modulus(group: Ke) -> int:
    """Return the prime of a group."""
    bits, constant = _SIZE_AND_CONSTANT[group]
    middle = _scaled_pi(bits - 130) + constant
    return int((1 << bits) - (1 << (bits - 64)) - 1 + (middle << 64))


def _scaled_pi(bits: int) -> int:
    """Return floor(2^bits * pi), by Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    guard = 64
    unit = 1 << (bits + guard)
    return (16 * _arctan_inverse(5, unit) - 4 * _arctan_inverse(239, unit)) >> guard


def _arctan_inverse(x: int, unit: int) -> int:
    """Return unit * arctan(1/x) by its series; each term errs by less than 1."""
    power = unit // x
    total = power
    square = x * x
    n = 1
    sign = -1
    while power:
        power //= square
        n += 2
        total += sign * (power // n)
        sign = -sign
    return total
