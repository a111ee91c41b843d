"""The MODP groups with 2 as generator, from their definitions (RFC 7296 App. B, RFC 2409 §6, RFC 3526)."""

from functools import cache
from typing import Final

from gateway.ipsec.algorithms import Ke

GENERATOR: Final = 2

_SIZE_AND_CONSTANT: Final = {
    Ke.MODP_2048: (2048, 124476),
    Ke.MODP_3072: (3072, 1690314),
    Ke.MODP_4096: (4096, 240904),
    Ke.MODP_6144: (6144, 929484),
    Ke.MODP_8192: (8192, 4743158),
}
"""Bits n and constant c of p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + c) (RFC 3526)."""

EXPONENT_BYTES: Final = {
    Ke.MODP_2048: 40,
    Ke.MODP_3072: 53,
    Ke.MODP_4096: 60,
    Ke.MODP_6144: 68,
    Ke.MODP_8192: 78,
}
"""Twice the strength that RFC 3526 §8 credits each group with at most (its estimate 2)."""


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
