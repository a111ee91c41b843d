"""Stateless cookies against floods of half-open IKE SAs (RFC 7296 §2.6).

A cookie proves that the initiator receives what is sent to its address; making and checking one costs a
MAC and no memory. When to ask for one is the endpoint's decision, not this file's.

```
 0        1                                 33
+--------+----------------------------------+
|version | HMAC-SHA-256(secret, Ni|IPi|SPIi) |
+--------+----------------------------------+
```

`version` numbers the secret (§2.6: `<VersionIDofSecret>`), so that a cookie made just before a rotation is
still recognised just after it.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.ipsec.sa import IpAddress
from gateway.ipsec.secret import Secret

SECRET_BYTES: Final = 32
ROTATION_S: Final = 120.0
"""RFC 7296 §2.6 wants the secret changed frequently; a cookie lives between one and two of these."""


@dataclass(frozen=True, slots=True)
class _Generation:
    version: int
    secret: Secret
    born_at: float


class CookieSecrets:
    """The current cookie secret and the one before it.

    Args:
        entropy: Returns that many random bytes.
        rotation_s: Age at which the secret is replaced, in seconds.
    """

    def __init__(self, entropy: Callable[[int], bytes], rotation_s: float = ROTATION_S) -> None:
        self._entropy = entropy
        self._rotation_s = rotation_s
        self._current: _Generation | None = None
        self._previous: _Generation | None = None

    def make(self, *, nonce_i: bytes, source: IpAddress, spi_i: bytes, now: float) -> bytes:
        """Return the cookie an IKE_SA_INIT request from `source` must repeat."""
        return _encode(self._rotate(now), nonce_i, source, spi_i)

    def is_valid(self, cookie: bytes, *, nonce_i: bytes, source: IpAddress, spi_i: bytes, now: float) -> bool:
        """Tell, in constant time for a known version, whether this cookie was made for these values."""
        current = self._rotate(now)
        for generation in (current, self._previous):
            if generation is None or cookie[:1] != bytes((generation.version,)):
                continue
            return hmac.compare_digest(cookie, _encode(generation, nonce_i, source, spi_i))
        return False

    def _rotate(self, now: float) -> _Generation:
        """Return the secret of `now`, replacing it when it is too old; at most one older one is kept."""
        current = self._current
        if current is not None and now - current.born_at < self._rotation_s:
            return current
        if self._previous is not None:
            self._previous.secret.wipe()
        # A secret that has been idle for two periods is not worth accepting any more.
        is_recent = current is not None and now - current.born_at < 2 * self._rotation_s
        self._previous = current if is_recent else None
        version = 0 if current is None else (current.version + 1) % 256
        self._current = _Generation(version, Secret(self._entropy(SECRET_BYTES)), now)
        return self._current


def _encode(generation: _Generation, nonce_i: bytes, source: IpAddress, spi_i: bytes) -> bytes:
    # The lengths keep (nonce, address) pairs of different lengths from meaning the same string.
    lengths = bytes((len(source.packed),)) + len(nonce_i).to_bytes(2)
    mac = hmac.digest(generation.secret.reveal(), lengths + nonce_i + source.packed + spi_i, "sha256")
    return bytes((generation.version,)) + mac
