"""Keys that outbound SAs send or sent with: none of them ever sends again, since its IVs would repeat."""

import hashlib
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.ipsec.sa import SecurityAssociation

MAX_RETIRED: Final = 200_000
"""Keys of SAs that are gone which are remembered; at one rekey a second that is two days."""


class SpentKeys:
    """Which keys are spent (RFC 4106 §2), told apart by fingerprints.

    Args:
        fingerprint_key: 32 random bytes.
    """

    def __init__(self, fingerprint_key: bytes) -> None:
        self.fingerprint_key = fingerprint_key
        self._live: set[bytes] = set()
        self._retired: dict[bytes, None] = {}

    def fingerprint(self, sa: SecurityAssociation) -> bytes:
        """Return what tells keys apart without keeping them.

        It is of the key that IVs belong to: another integrity key beside it makes no IV new. The keys are
        random, and longer than what anybody could try; so it tells nothing of them, even to those who
        have `fingerprint_key`.
        """
        digest = hashlib.blake2b(key=self.fingerprint_key, digest_size=16)
        digest.update((sa.encryption_key if len(sa.encryption_key) else sa.integrity_key).reveal())
        return digest.digest()

    def spend(self, fingerprint: bytes) -> None:
        """Note that an outbound SA is about to send with a key.

        Raises:
            DatapathError: SPI_IN_USE: another one does, or did: numbers, and so IVs, would begin anew.
        """
        if fingerprint in self._live or fingerprint in self._retired:
            raise DatapathError(
                ErrorReason.SPI_IN_USE,
                "an outbound SA had this key before: sending with it again would repeat its IVs; "
                "negotiate a new SA",
            )
        self._live.add(fingerprint)

    def adopt(self, fingerprint: bytes) -> None:
        """Note that an outbound SA of a former life of this process sends with a key."""
        self._live.add(fingerprint)

    def retire(self, fingerprint: bytes) -> None:
        """Note that the SA of a key is gone. Of very many the oldest is forgotten."""
        self._live.discard(fingerprint)
        self._retired[fingerprint] = None
        if len(self._retired) > MAX_RETIRED:
            del self._retired[next(iter(self._retired))]

    def unspend(self, fingerprint: bytes) -> None:
        """Forget a key that nothing was sent with."""
        self._live.discard(fingerprint)
        self._retired.pop(fingerprint, None)
