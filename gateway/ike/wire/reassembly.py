"""Putting the fragments of one message together again (RFC 7383 §2.6).

Rules a change must keep: a fragment is looked at closely only after `is_wanted`, kept only after its ICV was
verified, and what is kept is bounded in number and in bytes. A number that is here already is never replaced:
what came first stays, so that fragments of two divisions of a message never mix.
"""

from typing import Final

from gateway.ike.errors import InvalidSyntax
from gateway.ike.wire.message import EncryptedFragment
from gateway.ike.wire.protected import MAX_FRAGMENTS, Plaintext

MAX_REASSEMBLED_BYTES: Final = 65535


class Reassembly:
    """The fragments of one message that are here.

    Args:
        max_bytes: How many bytes of plaintext are held at most.
    """

    __slots__ = ("_bytes", "_first_payload", "_max_bytes", "_parts", "_total")

    def __init__(self, max_bytes: int = MAX_REASSEMBLED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: dict[int, bytes] = {}
        self._total = 0
        self._first_payload = 0
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """Return how many bytes of plaintext are held."""
        return self._bytes

    def is_wanted(self, fragment: EncryptedFragment) -> bool:
        """Tell whether a fragment would be kept if it were authentic; costs nothing and changes nothing.

        A repetition is not, nor one of fewer fragments than before (§2.6), nor one of more than we hold.
        """
        if fragment.total > MAX_FRAGMENTS or fragment.total < self._total:
            return False
        return fragment.total > self._total or fragment.number not in self._parts

    def add(self, fragment: EncryptedFragment, plaintext: Plaintext) -> Plaintext | None:
        """Add one verified fragment; return the whole plaintext when it was the last one missing.

        One that is not wanted changes nothing. A larger total than before starts over (§2.6): the sender
        divided its message anew (§2.5.2).

        Raises:
            InvalidSyntax: More bytes than we hold; nothing is kept of the message.
        """
        if not self.is_wanted(fragment):
            return None
        if fragment.total > self._total:
            self._parts.clear()
            self._total = fragment.total
            self._bytes = 0
        self._bytes += len(plaintext.data)
        if self._bytes > self._max_bytes:
            self._parts.clear()
            self._total = self._bytes = 0
            raise InvalidSyntax(f"reassembled message is longer than {self._max_bytes} bytes")
        self._parts[fragment.number] = plaintext.data
        if fragment.number == 1:
            self._first_payload = plaintext.first_payload
        if len(self._parts) < self._total:
            return None
        return Plaintext(
            self._first_payload, b"".join(self._parts[number] for number in range(1, self._total + 1))
        )
