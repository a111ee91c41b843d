"""Message IDs, retransmission and the response cache of one IKE SA (RFC 7296 §2.1 to §2.3).

Both directions have a window of one: at most one request of ours is outstanding, and at most one of the
peer's is being worked on or remembered. A message may be several datagrams (RFC 7383 fragments).

Rules a change must keep:

- A Message ID is decided on *after* the message was authenticated, except that a retransmitted request may
  be answered from the cache, because what is sent is what was sent before.
- A response is repeated byte for byte, never made anew (§2.1), until the next request replaces it; or it is
  divided into smaller fragments (RFC 7383 §2.5.2), with the same payloads.
- Nothing is sent by itself: `tick` returns what is due, and its caller sends it.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NewType

from gateway.ike.errors import LocalError
from gateway.ipsec.connection import IkeOptions

MessageId = NewType("MessageId", int)

MAX_MESSAGE_ID: Final = 0xFFFFFFFF
"""The counter never wraps: the IKE SA must have been rekeyed or closed before (RFC 7296 §2.2)."""

RENEW_MESSAGE_ID: Final = MAX_MESSAGE_ID - 0x1000
"""From here on the IKE SA should be rekeyed; the rest is room to do it in."""

Datagrams = tuple[bytes, ...]


class Incoming(Enum):
    """What an incoming message is, by its Message ID and R flag alone."""

    NEW_REQUEST = "new request"
    """The next one in order: authenticate it, `accept` it, work on it, `respond`."""
    ANSWERED_REQUEST = "retransmitted request, answered before"
    """Send `cached_response` again; nothing else may happen (§2.1)."""
    PENDING_REQUEST = "retransmitted request, still being worked on"
    """Drop it: the answer comes when it is ready."""
    OLD_REQUEST = "request older than the window"
    """Its answer was received, or it would not have been followed by another: drop it."""
    EARLY_REQUEST = "request beyond the window"
    """The peer has no business sending it before the one in between was answered (§2.3): drop it."""
    RESPONSE = "response to the outstanding request"
    STRAY_RESPONSE = "response to nothing outstanding"
    """A duplicate, or forged: drop it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often and how long an unanswered request is repeated (RFC 7296 §2.4); without jitter."""

    timeout_s: float = 1.0
    """Wait for the answer before the first retransmission, in seconds."""
    base: float = 1.8
    """Each wait is this many times the one before."""
    tries: int = 5
    """Retransmissions before giving up, after one more wait."""

    @classmethod
    def of(cls, options: IkeOptions) -> "Backoff":
        """Return what the operator configured."""
        return cls(
            timeout_s=options.retransmit_timeout_s,
            base=options.retransmit_base,
            tries=options.retransmit_tries,
        )

    def wait_s(self, sent: int) -> float:
        """Return how long to wait after the `sent`-th sending (the first is 1)."""
        return self.timeout_s * self.base ** (sent - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outstanding:
    """Our request that waits for its response."""

    message_id: MessageId
    datagrams: Datagrams
    sent: int
    """How many times it was sent."""
    first_sent_at: float
    due_at: float
    """When it is sent again, or given up."""


@dataclass(frozen=True, slots=True)
class Retransmit:
    """The outstanding request is due once more: send these datagrams."""

    datagrams: Datagrams


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The last retransmission went unanswered: the peer is dead (RFC 7296 §2.4)."""

    message_id: MessageId
    sent: int
    waited_s: float


class RequestWindow:
    """Our requests: numbering, the one outstanding, its retransmission.

    Args:
        backoff: When to send again.
        first_id: Message ID of the first request; in each direction of every new IKE SA it is 0 (§2.2).
    """

    __slots__ = ("_backoff", "_next_id", "_outstanding")

    def __init__(self, backoff: Backoff, first_id: int = 0) -> None:
        self._backoff = backoff
        self._next_id = first_id
        self._outstanding: Outstanding | None = None

    @property
    def next_id(self) -> MessageId:
        """Return the Message ID that the next request must be built with."""
        return MessageId(self._next_id)

    @property
    def outstanding(self) -> Outstanding | None:
        """Return the request that waits for its response."""
        return self._outstanding

    @property
    def is_free(self) -> bool:
        """Return whether a request may be sent now (window size 1, RFC 7296 §2.3)."""
        return self._outstanding is None and self._next_id <= MAX_MESSAGE_ID

    @property
    def is_nearly_exhausted(self) -> bool:
        """Return whether the Message IDs run out, so that the IKE SA must be rekeyed (RFC 7296 §2.2)."""
        return self._next_id >= RENEW_MESSAGE_ID

    @property
    def next_deadline(self) -> float | None:
        """Return when `tick` has something to say, in seconds of `now`."""
        return None if self._outstanding is None else self._outstanding.due_at

    def send(self, datagrams: Datagrams, now: float) -> None:
        """Note that a request with Message ID `next_id` was sent.

        Raises:
            LocalError: One is outstanding already, or the Message IDs are used up.
        """
        if self._outstanding is not None:
            raise LocalError(
                f"request {self._next_id} must wait: request {self._outstanding.message_id} is outstanding"
            )
        if self._next_id > MAX_MESSAGE_ID:
            raise LocalError("the Message IDs of this IKE SA are used up (RFC 7296 §2.2)")
        self._outstanding = self._first_sending(MessageId(self._next_id), datagrams, now)
        self._next_id += 1

    def restart(self, datagrams: Datagrams, now: float) -> None:
        """Replace the outstanding request by another with the same Message ID, and start its waits again.

        For an IKE_SA_INIT request that must carry a cookie or another KE payload: its Message ID is 0
        again (RFC 7296 §2.6, §1.2).

        Raises:
            LocalError: Nothing is outstanding.
        """
        if self._outstanding is None:
            raise LocalError("there is no outstanding request to restart")
        self._outstanding = self._first_sending(self._outstanding.message_id, datagrams, now)

    def divide(self, datagrams: Datagrams, now: float) -> None:
        """Note that the outstanding request was sent in other, smaller fragments; its waits start again.

        RFC 7383 §2.5.2 wants that, so that one probe does not take the time of the next.

        Raises:
            LocalError: Nothing is outstanding.
        """
        request = self._outstanding
        if request is None:
            raise LocalError("there is no outstanding request to divide")
        again = self._first_sending(request.message_id, datagrams, now)
        self._outstanding = replace(again, first_sent_at=request.first_sent_at)

    def classify(self, message_id: int) -> Incoming:
        """Tell what a response with this Message ID is."""
        if self._outstanding is not None and message_id == self._outstanding.message_id:
            return Incoming.RESPONSE
        return Incoming.STRAY_RESPONSE

    def complete(self, message_id: int) -> Outstanding:
        """Note that the response was received and authenticated; return the request it answers.

        Raises:
            LocalError: It answers nothing that is outstanding.
        """
        request = self._outstanding
        if request is None or request.message_id != message_id:
            raise LocalError(f"response {message_id} answers nothing that is outstanding")
        self._outstanding = None
        return request

    def abandon(self) -> None:
        """Forget the outstanding request; its Message ID stays used."""
        self._outstanding = None

    def tick(self, now: float) -> Retransmit | GiveUp | None:
        """Return what is due at `now`. After `GiveUp` nothing is outstanding."""
        request = self._outstanding
        if request is None or now < request.due_at:
            return None
        if request.sent > self._backoff.tries:
            self._outstanding = None
            return GiveUp(request.message_id, request.sent, now - request.first_sent_at)
        sent = request.sent + 1
        self._outstanding = Outstanding(
            message_id=request.message_id,
            datagrams=request.datagrams,
            sent=sent,
            first_sent_at=request.first_sent_at,
            due_at=now + self._backoff.wait_s(sent),
        )
        return Retransmit(request.datagrams)

    def _first_sending(self, message_id: MessageId, datagrams: Datagrams, now: float) -> Outstanding:
        return Outstanding(
            message_id=message_id,
            datagrams=datagrams,
            sent=1,
            first_sent_at=now,
            due_at=now + self._backoff.wait_s(1),
        )


class ResponseWindow:
    """The peer's requests: which is new, which is a repetition, and the one response kept for those.

    The memory is bounded by the window of one: the last response, nothing else.

    Args:
        first_id: Message ID of the peer's first request; 0, as above.
    """

    __slots__ = ("_cached", "_is_pending", "_next_id", "sent")

    def __init__(self, first_id: int = 0) -> None:
        self._next_id = first_id
        self._is_pending = False
        self._cached: Datagrams | None = None
        self.sent = 0
        """How often the last response was sent, as it is now."""

    @property
    def next_id(self) -> MessageId:
        """Return the Message ID that the peer's next new request has."""
        return MessageId(self._next_id)

    @property
    def pending_id(self) -> MessageId | None:
        """Return the Message ID of the request being worked on."""
        return MessageId(self._next_id - 1) if self._is_pending else None

    @property
    def cached_response(self) -> Datagrams:
        """Return the datagrams of the last response, for an `ANSWERED_REQUEST`; empty if there is none."""
        return self._cached or ()

    def classify(self, message_id: int) -> Incoming:
        """Tell what a request with this Message ID is."""
        if message_id == self._next_id:
            # With a request still pending the peer breaks its window; nothing is lost by dropping it.
            return Incoming.EARLY_REQUEST if self._is_pending else Incoming.NEW_REQUEST
        if message_id > self._next_id:
            return Incoming.EARLY_REQUEST
        if message_id == self._next_id - 1:
            if self._is_pending:
                return Incoming.PENDING_REQUEST
            if self._cached is not None:
                return Incoming.ANSWERED_REQUEST
        return Incoming.OLD_REQUEST

    def accept(self, message_id: int) -> None:
        """Note that the new request was authenticated and is being worked on; forget the last response.

        Raises:
            LocalError: It is not the new request.
        """
        if self.classify(message_id) is not Incoming.NEW_REQUEST:
            raise LocalError(f"request {message_id} is not the next one, {self._next_id}")
        self._next_id += 1
        self._is_pending = True
        self._cached = None

    def respond(self, message_id: int, datagrams: Datagrams) -> None:
        """Note the response that was sent, to be repeated as it is.

        Raises:
            LocalError: That request is not being worked on.
        """
        if self.pending_id != message_id:
            raise LocalError(f"request {message_id} is not being worked on")
        self._is_pending = False
        self._cached = datagrams
        self.sent = 1

    def repeat(self) -> Datagrams:
        """Return the last response, which is sent once more."""
        self.sent += 1
        return self.cached_response

    def divide(self, datagrams: Datagrams) -> None:
        """Note that the last response was sent in other, smaller fragments, and is to be repeated so."""
        self._cached = datagrams
        self.sent = 1

    def abandon(self) -> None:
        """Forget the request being worked on without an answer (the IKE SA is going)."""
        self._is_pending = False
