"""One side has lost its SAs: what it says, and what the other makes of that (RFC 7296 §1.5, §2.21.4)."""

from ipaddress import ip_address

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import (
    ChildSaEstablished,
    ChildSaRekeyed,
    DatagramDropped,
    Failure,
    FailureReason,
    IkeSaDeleted,
)
from gateway.ike.path import Path
from gateway.ike.v2.exchange import Plan, PlanKind
from gateway.ike.wire.header import ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload
from gateway.ipsec.sa import Spi
from tests.fakes.pair import ALICE, BOB, Pair

ELSEWHERE = ip_address("203.0.113.7")
FAULT = Failure(reason=FailureReason.INTERNAL, detail="a fault")


def established(**changes):
    pair = Pair(**changes)
    pair.establish()
    return pair


def unprotected(pair, notify_type, *, is_response=True, message_id=0):
    """What anybody can say about Alice's IKE SA who has seen its SPIs."""
    sa = pair.alice.ike_sa
    flags = HeaderFlag.RESPONSE if is_response else HeaderFlag(0)
    header = IkeHeader(
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        exchange_type=ExchangeType.INFORMATIONAL,
        flags=flags,
        message_id=message_id,
    )
    return encode_message(header, [NotifyPayload(notify_type)])


# --- saying INVALID_IKE_SPI -----------------------------------------------------------------------


def test_a_request_for_a_lost_ike_sa_is_answered_unprotected_with_its_spis_and_message_id():
    pair = established()
    sa, mark = pair.alice.ike_sa, pair.mark
    pair.bob.restart()

    pair.alice.check_liveness()
    pair.settle()

    # §2.21.4: "the response MUST be sent to the IP address and port from where it came with the same IKE
    # SPIs and the Message ID copied".
    assert pair.story(since=mark) == ["INFORMATIONAL SK {} -->", "<-- INFORMATIONAL {N(INVALID_IKE_SPI)}"]
    header = pair.messages(pair.bob)[-1].message.header
    assert (header.spi_i, header.spi_r, header.message_id) == (sa.spi_i, sa.spi_r, 2)
    assert (header.is_response, header.from_initiator) == (True, False)


def test_one_place_is_told_once_a_second_and_another_is_told_all_the_same():
    pair = established()
    pair.alice.check_liveness()
    lost = pair.sent(pair.alice)[-1].data
    pair.bob.restart()

    def answers(path, times):
        before = len(pair.sent(pair.bob))
        for _ in range(times):
            pair.bob.receive(lost, path)
        return len(pair.sent(pair.bob)) - before

    assert answers(Path(BOB, 500, ALICE, 500), 50) == 1
    assert answers(Path(BOB, 500, ELSEWHERE, 500), 50) == 1
    pair.clock.jump_to(pair.now + 1.0)
    assert answers(Path(BOB, 500, ALICE, 500), 50) == 1


def test_all_places_together_are_told_so_many_times_a_second():
    pair = established(bob_options=EndpointOptions(answers_per_s=20.0))
    pair.alice.check_liveness()
    lost = pair.sent(pair.alice)[-1].data
    pair.bob.restart()
    before = len(pair.sent(pair.bob))

    for number in range(500):
        pair.bob.receive(lost, Path(BOB, 500, ELSEWHERE + number, 500))

    assert len(pair.sent(pair.bob)) - before == 20


@pytest.mark.parametrize(
    ("payloads", "flags"),
    [
        ([NotifyPayload(NotifyType.INVALID_IKE_SPI)], HeaderFlag.RESPONSE),
        ([NotifyPayload(NotifyType.INVALID_IKE_SPI)], HeaderFlag.INITIATOR),
        ([NotifyPayload(NotifyType.INVALID_SPI, bytes(4))], HeaderFlag.INITIATOR),
        ([], HeaderFlag.INITIATOR),
    ],
)
def test_neither_a_response_nor_an_unprotected_notify_is_answered(payloads, flags):
    # §2.21.4: "If the message is marked as a response, the node ... MUST NOT respond."
    pair = Pair()
    header = IkeHeader(
        spi_i=b"somebody",
        spi_r=b"nobody'd",
        exchange_type=ExchangeType.INFORMATIONAL,
        flags=flags,
        message_id=3,
    )

    pair.bob.receive(encode_message(header, payloads))

    assert pair.sent(pair.bob) == []
    assert pair.bob.events(DatagramDropped)[-1].reason == "ike_unknown_spi"


def test_a_protected_response_for_a_lost_ike_sa_is_not_answered():
    pair = established()
    pair.alice.check_liveness()
    pair.settle()
    response = pair.sent(pair.bob)[-1].data
    pair.alice.restart()
    mark = pair.mark

    pair.alice.receive(response)

    assert pair.story(since=mark) == []


def test_the_version_we_speak_is_said_once_a_second():
    pair = Pair()
    pair.alice.initiate()
    data = bytearray(pair.sent(pair.alice)[0].data)
    data[17] = 0x30

    for _ in range(20):
        pair.bob.receive(bytes(data))

    assert len(pair.sent(pair.bob)) == 1


# --- hearing it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notify_type", [NotifyType.INVALID_IKE_SPI, NotifyType.INVALID_MAJOR_VERSION, NotifyType.INVALID_SYNTAX]
)
def test_an_unprotected_error_makes_us_ask_for_a_sign_of_life_and_changes_nothing(notify_type):
    pair = established()
    mark = pair.mark

    pair.alice.receive(unprotected(pair, notify_type))
    pair.settle()

    assert pair.story(since=mark) == ["INFORMATIONAL SK {} -->", "<-- INFORMATIONAL SK {}"]
    pair.check(children=1)


def test_a_flood_of_unprotected_errors_causes_one_liveness_check_in_ten_seconds():
    pair = established()
    mark = pair.mark

    for _ in range(100):
        pair.alice.receive(unprotected(pair, NotifyType.INVALID_IKE_SPI))
        pair.run_for(0.05)
    assert pair.story(since=mark).count("INFORMATIONAL SK {} -->") == 1
    pair.run_for(6.0)
    pair.alice.receive(unprotected(pair, NotifyType.INVALID_IKE_SPI))

    assert pair.story(since=mark).count("INFORMATIONAL SK {} -->") == 2


def test_an_unprotected_error_from_another_address_is_no_hint():
    pair = established()
    mark = pair.mark

    pair.alice.receive(unprotected(pair, NotifyType.INVALID_IKE_SPI), Path(ALICE, 500, ELSEWHERE, 500))
    pair.settle()

    assert pair.story(since=mark) == []


def test_a_status_notify_is_no_hint():
    pair = established()
    mark = pair.mark

    pair.alice.receive(unprotected(pair, NotifyType.INITIAL_CONTACT))
    pair.settle()

    assert pair.story(since=mark) == []


def test_a_peer_that_lost_everything_is_found_out_by_its_silence_alone():
    # The answer INVALID_IKE_SPI to each retransmission is only a hint; nothing ends before the last one.
    pair = established(both={"ike_options": {"retransmit_timeout_s": 0.5, "retransmit_tries": 2}})
    pair.bob.restart()

    pair.alice.check_liveness()
    pair.run_for(1.0)
    assert pair.alice.events(IkeSaDeleted) == []
    pair.run_for(5.0)

    (ended,) = pair.alice.events(IkeSaDeleted)
    assert ended.failure.reason is FailureReason.PEER_UNRESPONSIVE


# --- INVALID_SPI ----------------------------------------------------------------------------------


def test_esp_with_an_unknown_spi_is_reported_inside_the_ike_sa():
    pair = established()
    mark = pair.mark

    pair.bob.endpoint.unknown_spi(Spi(0xABCD1234), ALICE, pair.now)
    pair.drain(pair.bob)
    pair.settle()

    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {N(INVALID_SPI)}", "INFORMATIONAL SK {} -->"]
    reported = pair.messages(pair.bob)[-1].notify(NotifyType.INVALID_SPI)
    assert reported.data == bytes.fromhex("abcd1234")
    pair.check(children=1)


def test_it_is_reported_to_nobody_else_nor_over_and_over():
    pair = established()
    mark = pair.mark

    for number in range(50):
        pair.bob.endpoint.unknown_spi(Spi(0xABCD0000 + number), ELSEWHERE, pair.now)
    pair.bob.endpoint.unknown_spi(pair.bob.child_sa.inbound.spi, ALICE, pair.now)
    pair.drain(pair.bob)
    assert pair.story(since=mark) == []
    for number in range(50):
        pair.bob.endpoint.unknown_spi(Spi(0xABCD0000 + number), ALICE, pair.now)
        pair.drain(pair.bob)
        pair.settle()

    assert pair.story(since=mark).count("<-- INFORMATIONAL SK {N(INVALID_SPI)}") == 1


def test_a_child_sa_that_the_peer_has_lost_is_replaced():
    pair = established()
    lost = pair.bob.child_sa
    bob = pair.bob.endpoint
    # Bob's half is gone without a word, as after a fault; what it knows is only that ESP comes.
    (ike_sa,) = bob._ike_sas.all()
    ike_sa.end_child(ike_sa.children[lost.child_sa_id], FAULT)
    bob.unknown_spi(lost.inbound.spi, ALICE, pair.now)
    pair.drain(pair.bob)

    pair.run_for(60.0)

    pair.check(children=1)
    assert pair.alice.child_sa.outbound.spi != lost.inbound.spi
    assert len(pair.alice.events(ChildSaEstablished, ChildSaRekeyed)) == 2


def test_a_child_sa_that_the_peer_has_after_all_is_rekeyed_once():
    pair = established()
    ours = pair.alice.child_sa.outbound.spi
    mark = pair.mark

    bob = pair.bob.endpoint
    (ike_sa,) = bob._ike_sas.all()
    for _ in range(3):
        bob._runner.ask(ike_sa, Plan(kind=PlanKind.INVALID_SPI, spi=ours))
        pair.drain(pair.bob)
        pair.run_for(2.0)

    assert len(pair.alice.events(ChildSaRekeyed)) == 1
    assert pair.story(since=mark).count("<-- INFORMATIONAL SK {N(INVALID_SPI)}") == 3
    pair.run_for(30.0)
    pair.check(children=1)
