"""Sealing and opening of protected messages: SK, and the fragments SKF (RFC 7296 §3.14, RFC 5282, RFC 7383).

```
 SK body:  | IV | ciphertext of (payloads | padding | Pad Length) | ICV |
 SKF body: the same of a part of the payloads, Fragment Number and Total Fragments before it
```

A `SkSealer` owns everything that makes IVs under its key; there is exactly one per key, and a retransmission
sends the bytes it made once, so that no IV is used twice. Rules a change must keep: verify, then decrypt,
then parse; nothing of a message that fails verification is looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ike.crypto.cipher import Cipher, IntegrityFailed, build_cipher
from gateway.ike.crypto.keymat import IkeKeys
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.header import HEADER_BYTES, IkeHeader
from gateway.ike.wire.message import (
    FRAGMENT_HEADER_BYTES,
    GENERIC_HEADER_BYTES,
    Message,
    encode_encrypted_head,
    encode_payloads,
    first_type,
    parse_payloads,
)
from gateway.ike.wire.payloads import Payload, PayloadType

MAX_FRAGMENTS: Final = 64
"""Of one message, ours or the peer's: a thousand may be, and nobody needs them (RFC 7383 §2.5)."""
_COUNTER_IV_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Plaintext:
    """What was inside an Encrypted payload, verified, without padding."""

    first_payload: int
    data: bytes

    def payloads(self) -> tuple[Payload, ...]:
        """Read the chain of payloads.

        Raises:
            InvalidSyntax: It is broken.
        """
        return parse_payloads(self.first_payload, self.data)


class SkSealer:
    """Makes protected messages under one key."""

    __slots__ = ("_cipher", "_counter", "_entropy")

    def __init__(self, cipher: Cipher, entropy: Callable[[int], bytes]) -> None:
        self._cipher = cipher
        self._entropy = entropy
        self._counter = 0

    def seal(self, header: IkeHeader, payloads: Sequence[Payload]) -> bytes:
        """Return the message with all of `payloads` inside SK."""
        return self._seal(header, first_type(payloads), encode_payloads(payloads), None)

    def seal_fragments(
        self, header: IkeHeader, payloads: Sequence[Payload], max_bytes: int
    ) -> tuple[bytes, ...]:
        """Return the message in as many SKF messages as needed, or in one SK (RFC 7383 §2.5).

        A message that would take more than `MAX_FRAGMENTS` is divided into that many larger ones.

        Args:
            header: Of every fragment.
            payloads: What goes inside.
            max_bytes: Largest IKE message, UDP header and non-ESP marker excluded.

        Raises:
            LocalError: `max_bytes` leaves no room for data.
        """
        plaintext, first = encode_payloads(payloads), first_type(payloads)
        overhead = HEADER_BYTES + GENERIC_HEADER_BYTES + self._overhead_bytes
        if overhead + len(plaintext) <= max_bytes:
            return (self._seal(header, first, plaintext, None),)
        room = max_bytes - overhead - FRAGMENT_HEADER_BYTES
        if room < 1:
            raise LocalError(f"a fragment of {max_bytes} bytes has no room for data")
        room = max(room, -(-len(plaintext) // MAX_FRAGMENTS))
        parts = [plaintext[start : start + room] for start in range(0, len(plaintext), room)]
        # Only the first fragment tells the type of the first payload (§2.5).
        return tuple(
            self._seal(header, first if number == 1 else PayloadType.NONE, part, (number, len(parts)))
            for number, part in enumerate(parts, start=1)
        )

    @property
    def _overhead_bytes(self) -> int:
        """IV, ICV, Pad Length and the most padding there can be."""
        return self._cipher.iv_bytes + self._cipher.icv_bytes + self._cipher.block_bytes

    def _seal(
        self, header: IkeHeader, first_payload: int, plaintext: bytes, fragment: tuple[int, int] | None
    ) -> bytes:
        cipher = self._cipher
        pad = -(len(plaintext) + 1) % cipher.block_bytes
        padded = plaintext + bytes(pad) + pad.to_bytes(1, "big")
        associated = encode_encrypted_head(
            header,
            first_payload=first_payload,
            body_bytes=cipher.iv_bytes + len(padded) + cipher.icv_bytes,
            fragment=fragment,
        )
        iv = self._next_iv()
        return associated + iv + cipher.seal(iv, associated, padded)

    def _next_iv(self) -> bytes:
        if not self._cipher.counter_iv:
            return self._entropy(self._cipher.iv_bytes) if self._cipher.iv_bytes else b""
        if self._counter >> (8 * _COUNTER_IV_BYTES):
            raise LocalError("the IV counter of this key is used up")
        iv = self._counter.to_bytes(_COUNTER_IV_BYTES, "big")
        self._counter += 1
        return iv


class SkOpener:
    """Verifies and opens protected messages under one key."""

    __slots__ = ("_cipher",)

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def open(self, message: Message) -> Plaintext:
        """Verify and decrypt what is in SK, or this fragment's part of it in SKF.

        Raises:
            IntegrityFailed: There is nothing protected, or the ICV is wrong: drop it, answer nothing.
            InvalidSyntax: Authentic, but its padding is impossible.
        """
        protected = message.protected
        if protected is None:
            raise IntegrityFailed("the message has no Encrypted payload")
        cipher = self._cipher
        iv, sealed = protected.body[: cipher.iv_bytes], protected.body[cipher.iv_bytes :]
        if len(iv) != cipher.iv_bytes:
            raise IntegrityFailed(f"Encrypted payload of {len(protected.body)} bytes has no room for an IV")
        padded = cipher.open(iv, message.datagram[: protected.associated_bytes], sealed)
        return Plaintext(protected.first_payload, strip_padding(padded))


class SkProtection:
    """Both directions of one IKE SA: seals with our keys, opens with the peer's."""

    __slots__ = ("_opener", "_sealer")

    def __init__(
        self, suite: IkeSuite, keys: IkeKeys, *, is_initiator: bool, entropy: Callable[[int], bytes]
    ) -> None:
        """Choose both ciphers.

        Args:
            suite: What the IKE SA runs on.
            keys: Its keys; copied, so that they may be wiped.
            is_initiator: Whether we are the original initiator of this IKE SA.
            entropy: For the IVs of CBC; `entropy(n)` gives n unpredictable bytes.
        """
        from_initiator = build_cipher(suite.encr, keys.sk_ei, suite.integ, keys.sk_ai)
        from_responder = build_cipher(suite.encr, keys.sk_er, suite.integ, keys.sk_ar)
        self._sealer = SkSealer(from_initiator if is_initiator else from_responder, entropy)
        self._opener = SkOpener(from_responder if is_initiator else from_initiator)

    def seal(self, header: IkeHeader, payloads: Sequence[Payload]) -> bytes:
        """Return the message with all of `payloads` inside SK; keep it for retransmissions."""
        return self._sealer.seal(header, payloads)

    def seal_fragments(
        self, header: IkeHeader, payloads: Sequence[Payload], max_bytes: int
    ) -> tuple[bytes, ...]:
        """Return the message in SKF fragments of at most `max_bytes`, or in one SK if it fits."""
        return self._sealer.seal_fragments(header, payloads, max_bytes)

    def open(self, message: Message) -> Plaintext:
        """Verify and decrypt what is in SK, or one fragment's part in SKF.

        Raises:
            IntegrityFailed: Drop the message, answer nothing.
            InvalidSyntax: Authentic, but its padding is impossible.
        """
        return self._opener.open(message)


def strip_padding(padded: bytes) -> bytes:
    """Return a decrypted Encrypted payload without padding and Pad Length (§3.14).

    Raises:
        InvalidSyntax: Pad Length is more than there is.
    """
    if not padded or padded[-1] >= len(padded):
        raise InvalidSyntax("the Pad Length of the Encrypted payload is impossible")
    return padded[: len(padded) - 1 - padded[-1]]
