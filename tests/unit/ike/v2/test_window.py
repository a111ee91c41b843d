"""Message IDs, retransmission and the response cache (RFC 7296 §2.1 to §2.4), as tables."""

import pytest

from gateway.ike.errors import LocalError
from gateway.ike.v2.window import (
    MAX_MESSAGE_ID,
    RENEW_MESSAGE_ID,
    Backoff,
    GiveUp,
    Incoming,
    RequestWindow,
    ResponseWindow,
    Retransmit,
)
from gateway.ipsec.connection import IkeOptions

BACKOFF = Backoff(timeout_s=1.0, base=2.0, tries=3)
REQUEST, ANSWER = (b"request",), (b"answer",)


# --- our requests -------------------------------------------------------------------------------


def test_message_ids_start_at_zero_and_count_by_one():
    window = RequestWindow(BACKOFF)

    ids = []
    for _ in range(3):
        ids.append(window.next_id)
        window.send(REQUEST, now=0.0)
        window.complete(ids[-1])

    assert ids == [0, 1, 2]


def test_a_second_request_waits_for_the_first_response():
    window = RequestWindow(BACKOFF)
    window.send(REQUEST, now=0.0)

    assert not window.is_free
    with pytest.raises(LocalError, match="request 0 is outstanding"):
        window.send(REQUEST, now=0.0)
    assert window.next_id == 1  # the refused call left no trace


def test_retransmissions_back_off_and_then_the_peer_is_given_up():
    window = RequestWindow(BACKOFF)
    window.send((b"fragment 1", b"fragment 2"), now=100.0)

    story = []
    while (deadline := window.next_deadline) is not None:
        story.append((deadline, window.tick(deadline)))

    again = Retransmit((b"fragment 1", b"fragment 2"))
    assert story == [
        (101.0, again),
        (103.0, again),
        (107.0, again),
        (115.0, GiveUp(0, 4, 15.0)),
    ]
    assert window.outstanding is None


def test_nothing_is_due_before_the_deadline():
    window = RequestWindow(BACKOFF)
    window.send(REQUEST, now=0.0)

    assert window.tick(0.999) is None
    assert window.outstanding.sent == 1


def test_a_late_tick_sends_once_and_counts_the_wait_from_then():
    window = RequestWindow(BACKOFF)
    window.send(REQUEST, now=0.0)

    assert window.tick(50.0) == Retransmit(REQUEST)

    assert window.tick(50.0) is None
    assert window.next_deadline == 52.0


def test_without_tries_the_first_wait_is_the_last():
    window = RequestWindow(Backoff(timeout_s=1.0, base=2.0, tries=0))
    window.send(REQUEST, now=0.0)

    assert window.tick(1.0) == GiveUp(0, 1, 1.0)


def test_a_response_ends_the_retransmissions():
    window = RequestWindow(BACKOFF)
    window.send(REQUEST, now=0.0)

    answered = window.complete(0)

    assert answered.datagrams == REQUEST
    assert window.next_deadline is None
    assert window.tick(1e9) is None


@pytest.mark.parametrize(
    ("sent", "completed", "received", "expected"),
    [
        # requests sent, responses received, Message ID of the response that arrives
        (0, 0, 0, Incoming.STRAY_RESPONSE),
        (1, 0, 0, Incoming.RESPONSE),
        (1, 0, 1, Incoming.STRAY_RESPONSE),
        (1, 1, 0, Incoming.STRAY_RESPONSE),  # a duplicate
        (2, 1, 0, Incoming.STRAY_RESPONSE),  # a late duplicate of the one before
        (2, 1, 1, Incoming.RESPONSE),
        (2, 1, MAX_MESSAGE_ID, Incoming.STRAY_RESPONSE),
    ],
)
def test_what_a_response_is(sent, completed, received, expected):
    window = RequestWindow(BACKOFF)
    for number in range(sent):
        window.send(REQUEST, now=0.0)
        if number < completed:
            window.complete(number)

    assert window.classify(received) is expected


def test_a_response_to_nothing_is_not_completed():
    window = RequestWindow(BACKOFF)

    with pytest.raises(LocalError):
        window.complete(0)


def test_a_request_restarted_for_a_cookie_keeps_its_message_id_and_starts_its_waits_again():
    window = RequestWindow(BACKOFF)
    window.send((b"IKE_SA_INIT",), now=0.0)
    window.tick(1.0)

    window.restart((b"IKE_SA_INIT with N(COOKIE)",), now=2.0)

    assert window.outstanding.message_id == 0
    assert window.outstanding.sent == 1
    assert window.next_deadline == 3.0
    assert window.tick(3.0) == Retransmit((b"IKE_SA_INIT with N(COOKIE)",))
    assert window.next_id == 1


def test_a_request_in_smaller_fragments_starts_its_waits_again():
    """RFC 7383 §2.5.2: each size that is probed gets the waits of a first sending."""
    window = RequestWindow(BACKOFF)
    window.send(REQUEST, now=0.0)
    window.tick(1.0)

    window.divide((b"fragment 1", b"fragment 2"), now=3.0)

    assert window.next_deadline == 4.0
    assert window.tick(4.0) == Retransmit((b"fragment 1", b"fragment 2"))
    assert window.outstanding.sent == 2
    assert window.outstanding.first_sent_at == 0.0


def test_only_an_outstanding_request_is_restarted_or_divided():
    window = RequestWindow(BACKOFF)

    with pytest.raises(LocalError):
        window.restart(REQUEST, now=0.0)
    with pytest.raises(LocalError):
        window.divide(REQUEST, now=0.0)


def test_an_abandoned_request_is_never_sent_again_and_its_message_id_stays_used():
    window = RequestWindow(BACKOFF)
    window.send(REQUEST, now=0.0)

    window.abandon()

    assert window.tick(1e9) is None
    assert window.classify(0) is Incoming.STRAY_RESPONSE
    assert window.next_id == 1


def test_message_ids_ask_for_a_rekey_in_time_and_never_wrap():
    window = RequestWindow(BACKOFF, first_id=RENEW_MESSAGE_ID)
    assert window.is_nearly_exhausted
    window = RequestWindow(BACKOFF, first_id=MAX_MESSAGE_ID)
    window.send(REQUEST, now=0.0)
    window.complete(MAX_MESSAGE_ID)

    assert not window.is_free
    with pytest.raises(LocalError, match="used up"):
        window.send(REQUEST, now=0.0)


def test_the_backoff_is_what_the_operator_configured():
    options = IkeOptions(retransmit_timeout_s=4.0, retransmit_base=1.5, retransmit_tries=2)

    assert Backoff.of(options) == Backoff(timeout_s=4.0, base=1.5, tries=2)


# --- the peer's requests ------------------------------------------------------------------------


def served(*, answered: int, pending: bool) -> ResponseWindow:
    """A window whose peer had that many requests answered, and perhaps one more is being worked on."""
    window = ResponseWindow()
    for number in range(answered):
        window.accept(number)
        window.respond(number, (b"answer %d" % number,))
    if pending:
        window.accept(answered)
    return window


@pytest.mark.parametrize(
    ("answered", "pending", "received", "expected"),
    [
        (0, False, 0, Incoming.NEW_REQUEST),
        (0, False, 1, Incoming.EARLY_REQUEST),
        (0, False, MAX_MESSAGE_ID, Incoming.EARLY_REQUEST),
        (0, True, 0, Incoming.PENDING_REQUEST),
        (0, True, 1, Incoming.EARLY_REQUEST),  # the peer's window is one
        (1, False, 0, Incoming.ANSWERED_REQUEST),
        (1, False, 1, Incoming.NEW_REQUEST),
        (1, False, 2, Incoming.EARLY_REQUEST),
        (1, True, 0, Incoming.OLD_REQUEST),
        (1, True, 1, Incoming.PENDING_REQUEST),
        (3, False, 0, Incoming.OLD_REQUEST),
        (3, False, 1, Incoming.OLD_REQUEST),
        (3, False, 2, Incoming.ANSWERED_REQUEST),
        (3, False, 3, Incoming.NEW_REQUEST),
    ],
)
def test_what_a_request_is(answered, pending, received, expected):
    assert served(answered=answered, pending=pending).classify(received) is expected


def test_the_response_is_repeated_byte_for_byte_until_the_next_request():
    window = served(answered=1, pending=False)
    assert window.cached_response == (b"answer 0",)

    window.accept(1)

    assert window.cached_response == ()
    window.respond(1, (b"answer 1, fragment 1", b"answer 1, fragment 2"))
    assert window.cached_response == (b"answer 1, fragment 1", b"answer 1, fragment 2")


def test_the_cache_holds_one_response_however_many_were_sent():
    window = served(answered=1000, pending=False)

    assert window.cached_response == (b"answer 999",)


@pytest.mark.parametrize("message_id", [0, 2])
def test_only_the_next_request_is_accepted(message_id):
    window = served(answered=1, pending=False)

    with pytest.raises(LocalError):
        window.accept(message_id)
    assert window.classify(1) is Incoming.NEW_REQUEST


def test_only_the_pending_request_is_answered():
    window = served(answered=1, pending=False)

    with pytest.raises(LocalError):
        window.respond(0, ANSWER)
    window.accept(1)
    with pytest.raises(LocalError):
        window.respond(0, ANSWER)
    assert window.pending_id == 1


def test_an_abandoned_request_has_no_answer_to_repeat():
    window = served(answered=0, pending=True)

    window.abandon()

    assert window.pending_id is None
    assert window.classify(0) is Incoming.OLD_REQUEST
    assert window.classify(1) is Incoming.NEW_REQUEST
