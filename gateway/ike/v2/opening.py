"""Verifying and opening protected messages, whole or in fragments (RFC 7296 §3.14, RFC 7383).

Nothing is believed here and no window moves: a message comes out authentic and readable, authentic and
malformed, or not at all; then it was dropped, or it is a fragment and others are missing.
"""

from dataclasses import dataclass

from gateway.ike.crypto.cipher import IntegrityFailed
from gateway.ike.errors import InvalidSyntax, PeerError
from gateway.ike.events import DatagramDropped
from gateway.ike.path import Path
from gateway.ike.timers import Timer
from gateway.ike.v2.context import Context
from gateway.ike.v2.dispatch import is_legal
from gateway.ike.v2.fragmentation import PROBED_PACKET_BYTES, packet_bytes_of
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.states import IkeSaState
from gateway.ike.wire.message import EncryptedFragment, Message
from gateway.ike.wire.payloads import Payload
from gateway.ike.wire.protected import Plaintext
from gateway.ike.wire.reassembly import MAX_REASSEMBLED_BYTES
from gateway.ipsec.drop_reason import DropReason


@dataclass(frozen=True, slots=True)
class Opened:
    """An authentic message."""

    payloads: tuple[Payload, ...] | PeerError
    """What is inside, or why that cannot be read."""
    datagram: bytes
    """As it came; of a fragmented message, the first fragment."""


class Opener:
    """Opens what the windows of the IKE SAs of one endpoint await."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def open(self, ike_sa: IkeSa, message: Message, path: Path) -> Opened | None:
        """Verify and read a message that is awaited; None if it was dropped, or fragments are missing."""
        fragment = message.protected
        if isinstance(fragment, EncryptedFragment):
            return self._open_fragment(ike_sa, message, fragment, path)
        plaintext = self.unseal(ike_sa, message, path)
        if plaintext is None:
            return None
        if not ike_sa.fragments.is_empty:
            # Whole in one datagram after all: fragments of it are of no use any more.
            self._forget_fragments(ike_sa, is_response=message.header.is_response)
        return Opened(_payloads(plaintext), message.datagram)

    def unseal(self, ike_sa: IkeSa, message: Message, path: Path) -> Plaintext | PeerError | None:
        """Verify and decrypt one datagram; the error of an authentic but malformed one; None if dropped."""
        if ike_sa.protection is None or message.protected is None:
            self._drop(path, DropReason.IKE_UNEXPECTED, "a protected message was expected")
            return None
        try:
            return ike_sa.protection.open(message)
        except IntegrityFailed as error:
            self._drop(path, DropReason.IKE_INTEGRITY, str(error))
            return None
        except InvalidSyntax as error:
            return error

    # --- fragments (RFC 7383 §2.6) ----------------------------------------------------------------

    def _open_fragment(
        self, ike_sa: IkeSa, message: Message, fragment: EncryptedFragment, path: Path
    ) -> Opened | None:
        """Take one fragment, in the order of §2.6: of use, authentic, kept; return what is whole then."""
        header = message.header
        if ike_sa.max_packet_bytes is None:
            self._drop(path, DropReason.IKE_UNEXPECTED, "a fragment, and fragmentation was not agreed on")
            return None
        if not ike_sa.fragments.is_wanted(header, fragment):
            detail = f"fragment {fragment.number} of {fragment.total} is of no use"
            self._drop(path, DropReason.IKE_MESSAGE_ID, detail)
            return None
        plaintext = self.unseal(ike_sa, message, path)
        if plaintext is None:
            return None
        if isinstance(plaintext, PeerError):
            self._forget_fragments(ike_sa, is_response=header.is_response)
            return Opened(plaintext, message.datagram)
        if header.is_request and not is_legal(ike_sa, header.exchange_type):
            detail = f"a fragment of exchange {header.exchange_type} while {ike_sa.state.value}"
            self._drop(path, DropReason.IKE_UNEXPECTED, detail)
            return None
        return self._keep(ike_sa, message, fragment, plaintext, path)

    def _keep(
        self, ike_sa: IkeSa, message: Message, fragment: EncryptedFragment, plaintext: Plaintext, path: Path
    ) -> Opened | None:
        """Add an authentic fragment to what is here."""
        header, fragments, options = message.header, ike_sa.fragments, self._context.options
        is_stranger = ike_sa.state is IkeSaState.HALF_OPEN
        max_bytes = options.half_open_message_bytes if is_stranger else MAX_REASSEMBLED_BYTES
        was_empty = fragments.is_empty
        try:
            whole = fragments.add(header, fragment, plaintext, message.datagram, max_bytes)
        except InvalidSyntax as error:
            self._forget_fragments(ike_sa, is_response=header.is_response)
            self._drop(path, DropReason.IKE_UNEXPECTED, str(error))
            return None
        if whole is None:
            if was_empty:
                ike_sa.set_timer(Timer.REASSEMBLY, self._context.now + options.reassembly_timeout_s)
            return None
        self._forget_fragments(ike_sa, is_response=header.is_response)
        if header.is_request:
            _answer_alike(ike_sa, path, whole.first_fragment)
        return Opened(_payloads(whole.plaintext), whole.first_fragment)

    def _forget_fragments(self, ike_sa: IkeSa, *, is_response: bool) -> None:
        ike_sa.fragments.discard(is_response=is_response)
        if ike_sa.fragments.is_empty:
            ike_sa.cancel_timer(Timer.REASSEMBLY)

    def _drop(self, path: Path, reason: DropReason, detail: str) -> None:
        self._context.emit(DatagramDropped(reason=reason, path=path, detail=detail))


def _payloads(plaintext: Plaintext | PeerError) -> tuple[Payload, ...] | PeerError:
    """Read what was inside; return the error where that cannot be."""
    if isinstance(plaintext, PeerError):
        return plaintext
    try:
        return plaintext.payloads()
    except PeerError as error:
        return error


def _answer_alike(ike_sa: IkeSa, path: Path, fragment: bytes) -> None:
    """Send fragments no larger than the peer's: it may have found out that larger ones do not arrive."""
    assert ike_sa.max_packet_bytes is not None
    size = max(packet_bytes_of(path, fragment), PROBED_PACKET_BYTES[-1])
    ike_sa.max_packet_bytes = min(ike_sa.max_packet_bytes, size)
