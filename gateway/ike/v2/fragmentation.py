"""Fragmented messages of one IKE SA: how large ours may be, and the peer's that are not whole yet (RFC 7383).

Both sides must have said IKEV2_FRAGMENTATION_SUPPORTED in IKE_SA_INIT, which is never fragmented itself; a
rekey inherits that. Rules a change must keep: a fragment is kept only if it is of a message that the windows
await, its ICV was verified, and its exchange is legal; and of each direction one message is kept at most.
"""

from dataclasses import dataclass
from typing import Final

from gateway.ike.errors import InvalidSyntax
from gateway.ike.path import NAT_T_PORT, Path
from gateway.ike.wire.header import NON_ESP_MARKER, IkeHeader
from gateway.ike.wire.message import EncryptedFragment
from gateway.ike.wire.protected import MAX_FRAGMENTS, Plaintext
from gateway.ike.wire.reassembly import Reassembly

PROBED_PACKET_BYTES: Final = (1280, 576)
"""IP packet sizes to fall back to: those RFC 7383 §2.5.1 names for IPv6 and IPv4 (§2.5.2)."""
SENDINGS_BEFORE_SMALLER: Final = 3
"""So often a request goes unanswered before it is divided into smaller fragments (RFC 7383 §2.5.2)."""

_UDP_HEADER_BYTES: Final = 8
_IP_HEADER_BYTES: Final = {4: 20, 6: 40}


def max_message_bytes(path: Path, packet_bytes: int) -> int:
    """Return the largest IKE message that fits an IP packet of `packet_bytes` on this path."""
    marker_bytes = len(NON_ESP_MARKER) if NAT_T_PORT in (path.local_port, path.remote_port) else 0
    return packet_bytes - _IP_HEADER_BYTES[path.remote.version] - _UDP_HEADER_BYTES - marker_bytes


def packet_bytes_of(path: Path, message: bytes) -> int:
    """Return the size of the IP packet that carries an IKE message on this path."""
    return len(message) - max_message_bytes(path, 0)


def smaller_packet_bytes(path: Path, packet_bytes: int, message: bytes) -> int | None:
    """Return the next packet size to try when this message seems not to arrive (RFC 7383 §2.5.2).

    Args:
        path: Where the message goes.
        packet_bytes: The size that was tried.
        message: Its only datagram, or its first fragment.

    Returns:
        The largest size that makes a difference; None if there is none.
    """
    size = packet_bytes_of(path, message)
    return next((probe for probe in PROBED_PACKET_BYTES if probe < min(size, packet_bytes)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A message that was put together."""

    plaintext: Plaintext
    first_fragment: bytes
    """The datagram of fragment 1: a retransmission is known by it (RFC 7383 §2.6.1), none is longer."""


@dataclass(slots=True, kw_only=True)
class _Incomplete:
    """The fragments of one message that are here."""

    message_id: int
    exchange_type: int
    reassembly: Reassembly
    first_fragment: bytes = b""


class FragmentQueue:
    """The incomplete messages of one IKE SA: at most one request and one response."""

    __slots__ = ("_request", "_response")

    def __init__(self) -> None:
        self._request: _Incomplete | None = None
        self._response: _Incomplete | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is held."""
        return self._request is None and self._response is None

    def is_wanted(self, header: IkeHeader, fragment: EncryptedFragment) -> bool:
        """Tell whether a fragment would be kept if it were authentic (RFC 7383 §2.6)."""
        known = self._find(header)
        if known is None:
            return fragment.total <= MAX_FRAGMENTS
        return known.exchange_type == header.exchange_type and known.reassembly.is_wanted(fragment)

    def add(
        self,
        header: IkeHeader,
        fragment: EncryptedFragment,
        plaintext: Plaintext,
        datagram: bytes,
        max_bytes: int,
    ) -> Whole | None:
        """Keep a verified fragment that is wanted; return the message if it is whole now, and forget it.

        Args:
            header: Of the fragment.
            fragment: As it came.
            plaintext: What was inside.
            datagram: All of it.
            max_bytes: How many bytes of plaintext this message may have; held is at most twice that.

        Raises:
            InvalidSyntax: The message is longer than that; nothing is kept of it.
        """
        known = self._find(header)
        if known is None:
            known = _Incomplete(
                message_id=header.message_id,
                exchange_type=header.exchange_type,
                reassembly=Reassembly(max_bytes),
            )
            self._put(header, known)
        if fragment.number == 1:
            known.first_fragment = datagram
        try:
            whole = known.reassembly.add(fragment, plaintext)
        except InvalidSyntax:
            self.discard(is_response=header.is_response)
            raise
        if whole is None:
            return None
        self.discard(is_response=header.is_response)
        return Whole(plaintext=whole, first_fragment=known.first_fragment)

    def discard(self, *, is_response: bool) -> None:
        """Forget what there is of the request, or of the response, that is awaited."""
        if is_response:
            self._response = None
        else:
            self._request = None

    def clear(self) -> None:
        """Forget everything."""
        self._request = self._response = None

    def _find(self, header: IkeHeader) -> _Incomplete | None:
        known = self._response if header.is_response else self._request
        return known if known is not None and known.message_id == header.message_id else None

    def _put(self, header: IkeHeader, incomplete: _Incomplete) -> None:
        if header.is_response:
            self._response = incomplete
        else:
            self._request = incomplete
