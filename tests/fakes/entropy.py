"""Randomness that repeats: the same test draws the same bytes every time, and SPIs a human can tell apart."""

import hashlib


class Entropy:
    """Deterministic bytes.

    What is eight bytes long counts up (`name` in the first, a number in the last ones), because IKE SPIs are:
    `0a00000000000001` is the first one of the side named `0x0a`. Everything else comes from SHAKE-256 and
    looks random.

    Args:
        name: Distinguishes one side's bytes from another's, 1 to 255.
    """

    def __init__(self, name: int) -> None:
        self._name = name
        self._drawn = 0
        self._counted = 0

    def __call__(self, size: int) -> bytes:
        if size == 8:
            self._counted += 1
            return bytes((self._name,)) + self._counted.to_bytes(7)
        self._drawn += 1
        return hashlib.shake_256(b"%d/%d" % (self._name, self._drawn)).digest(size)
