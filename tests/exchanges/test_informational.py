"""INFORMATIONAL (RFC 7296 §1.4, §1.4.1, §2.4, §2.25): deletion by either side, liveness, dead peers."""

import pytest

from gateway.ike.events import (
    ChildSaDeleted,
    DatagramDropped,
    FailureReason,
    IkeSaDeleted,
    IkeSaFailed,
    InstallRequest,
)
from gateway.ike.v2.informational import MAX_EARLY_DELETES
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import DeletePayload, NotifyPayload, UnknownPayload
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import Direction
from tests.fakes.link import lost
from tests.fakes.pair import Pair
from tests.fakes.tap import request_header


def exchange(who, request, response):
    """An exchange by Alice or Bob as the story tells it."""
    if who == "alice":
        return [f"{request} -->", f"<-- {response}"]
    return [f"<-- {request}", f"{response} -->"]


def authentic(pair, payloads, message_id=2, exchange_type=ExchangeType.INFORMATIONAL):
    """A request by Alice that Bob takes for real."""
    sa = pair.alice.ike_sa
    header = request_header(spi_i=sa.spi_i, spi_r=sa.spi_r, exchange=exchange_type, message_id=message_id)
    return pair.tap.keys(sa.spi_i, sa.spi_r).seal(header, payloads)


# --- deletion (§1.4.1) --------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_either_side_deletes_a_child_sa_in_both_directions(who):
    pair = Pair()
    pair.establish()
    mark, already = pair.mark, len(pair.messages())
    asker = getattr(pair, who)
    spi = {host.name: host.child_sa.inbound.spi.to_bytes(4) for host in pair.hosts}

    asker.delete_child()
    pair.settle()

    ask = "INFORMATIONAL SK {D(ESP)}"
    assert pair.story(since=mark) == exchange(who, ask, ask)
    # Each side names the SPI it receives with.
    named = [
        p.spis
        for opened in pair.messages()[already:]
        for p in opened.payloads
        if isinstance(p, DeletePayload)
    ]
    assert named == [(spi[who],), (spi[pair.peer_of(asker).name],)]
    pair.check(children=0)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_deleted_child_sa_is_told_once_with_who_wanted_it(who):
    pair = Pair()
    pair.establish()
    asker = getattr(pair, who)

    asker.delete_child()
    pair.settle()

    (ours,) = asker.events(ChildSaDeleted)
    (theirs,) = pair.peer_of(asker).events(ChildSaDeleted)
    assert ours.failure.reason is FailureReason.DELETED_BY_OPERATOR
    assert theirs.failure.reason is FailureReason.DELETED_BY_PEER


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_either_side_deletes_the_ike_sa_and_the_child_sas_go_with_it(who):
    # §1.4.1: the response to the deletion of the IKE SA is empty.
    pair = Pair()
    pair.establish()
    mark = pair.mark
    asker = getattr(pair, who)

    asker.delete_ike()
    pair.settle()

    assert pair.story(since=mark) == exchange(who, "INFORMATIONAL SK {D(IKE)}", "INFORMATIONAL SK {}")
    pair.check(children=0, ike_sas=0)
    for host, reason in (
        (asker, FailureReason.DELETED_BY_OPERATOR),
        (pair.peer_of(asker), FailureReason.DELETED_BY_PEER),
    ):
        kinds = [type(event) for event in host.events(ChildSaDeleted, IkeSaDeleted)]
        assert kinds == [ChildSaDeleted, IkeSaDeleted]
        assert host.events(IkeSaDeleted)[0].failure.reason is reason


def test_deletions_of_the_same_child_sa_that_cross_are_answered_with_nothing():
    # §1.4.1: "If by chance both ends of a set of SAs independently decide to close them ... the
    # responses ... MUST NOT include delete payloads for the other directions" of what is going already.
    pair = Pair()
    pair.establish()
    mark = pair.mark

    pair.alice.delete_child()
    pair.bob.delete_child()
    pair.settle()

    assert sorted(pair.story(since=mark)) == sorted(
        [
            "INFORMATIONAL SK {D(ESP)} -->",
            "<-- INFORMATIONAL SK {D(ESP)}",
            "INFORMATIONAL SK {} -->",
            "<-- INFORMATIONAL SK {}",
        ]
    )
    pair.check(children=0)


def test_a_lost_answer_to_the_deletion_of_the_ike_sa_is_repeated_for_a_while():
    # §2.1: the responder remembers its answer, even when that was the last one.
    pair = Pair()
    pair.establish()
    mark = pair.mark
    pair.link.fate = lost(mark + 1)

    pair.alice.delete_ike()
    pair.run_for(5.0)

    assert pair.story(since=mark) == [
        "INFORMATIONAL SK {D(IKE)} -->",
        "<-- INFORMATIONAL SK {}",
        "INFORMATIONAL SK {D(IKE)} again -->",
        "<-- INFORMATIONAL SK {} again",
    ]
    (deleted,) = pair.alice.events(IkeSaDeleted)
    assert deleted.failure.reason is FailureReason.DELETED_BY_OPERATOR
    pair.check(children=0, ike_sas=0)
    request = pair.sent(pair.alice)[-1].data
    pair.run_for(60.0)
    pair.bob.receive(request)
    assert pair.bob.events(DatagramDropped)[-1].reason is DropReason.IKE_UNKNOWN_SPI


def test_deletions_of_the_ike_sa_that_cross_both_succeed():
    pair = Pair()
    pair.establish()

    pair.alice.delete_ike()
    pair.bob.delete_ike()
    pair.settle()
    pair.run_for(30.0)

    pair.check(children=0, ike_sas=0)
    for host in pair.hosts:
        assert len(host.events(IkeSaDeleted)) == 1
        assert len(host.events(ChildSaDeleted)) == 1


def test_whoever_deletes_a_child_sa_stops_sending_on_it_first():
    pair = Pair()
    pair.establish()

    pair.alice.delete_child()

    assert pair.story()[-1] == "INFORMATIONAL SK {D(ESP)} -->"
    assert pair.alice.sad.outbound("site", "lan") is None
    assert pair.alice.sad.inbound(pair.alice.child_sas[0].inbound.spi) is not None


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_child_sa_that_is_deleted_while_its_outbound_sa_is_being_installed_leaves_nothing(who):
    pair = Pair()
    for host in pair.hosts:
        host.answer(
            InstallRequest, after=1.0, where=lambda request: request.sa.direction is Direction.OUTBOUND
        )
    pair.alice.initiate()
    pair.run_for(0.1)
    host = getattr(pair, who)

    host.delete_child(host.child_sas[0].child_sa_id)
    pair.run_for(60.0)

    pair.check(children=0)


def test_what_a_peer_deletes_that_nobody_knows_yet_is_remembered_within_bounds():
    # It may be what our own request makes, whose answer is late; more than some are not believed.
    pair = Pair()
    pair.establish()
    pair.link.fate = lambda packet: ()
    pair.bob.rekey_child()
    spis = tuple(number.to_bytes(4) for number in range(0x1000, 0x1000 + 5000))

    pair.bob.receive(authentic(pair, [DeletePayload(ProtocolId.ESP, spis)]))

    (ike_sa,) = pair.bob.endpoint._ike_sas.all()
    assert len(ike_sa.early_deletes) == MAX_EARLY_DELETES


def test_deleting_an_spi_that_is_unknown_is_answered_with_nothing():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    pair.bob.receive(authentic(pair, [DeletePayload(ProtocolId.ESP, (b"\xde\xad\xbe\xef",))]))

    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {}"]
    pair.settle()
    pair.check(children=1)


# --- liveness (§2.4) ----------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_liveness_check_is_an_empty_exchange(who):
    pair = Pair()
    pair.establish()
    mark = pair.mark

    getattr(pair, who).check_liveness()
    pair.settle()

    assert pair.story(since=mark) == exchange(who, "INFORMATIONAL SK {}", "INFORMATIONAL SK {}")
    pair.check(children=1)


def test_silence_asks_for_a_sign_of_life():
    pair = Pair(
        alice={"ike_options": {"dpd_delay_s": 30.0}},
        bob={"ike_options": {"dpd_delay_s": 0.0}},
    )
    pair.establish()
    mark = pair.mark

    pair.run_for(29.0)
    assert pair.story(since=mark) == []
    pair.run_for(2.0)

    assert pair.story(since=mark) == ["INFORMATIONAL SK {} -->", "<-- INFORMATIONAL SK {}"]


def test_silence_asks_again_and_again():
    pair = Pair(alice={"ike_options": {"dpd_delay_s": 30.0}}, bob={"ike_options": {"dpd_delay_s": 0.0}})
    pair.establish()
    mark = pair.mark

    pair.run_for(155.0)

    assert pair.story(since=mark) == ["INFORMATIONAL SK {} -->", "<-- INFORMATIONAL SK {}"] * 5


def test_traffic_is_a_sign_of_life():
    pair = Pair(both={"ike_options": {"dpd_delay_s": 30.0}})
    pair.establish()
    mark = pair.mark
    pair.start_flow(interval_s=1.0)

    pair.run_for(100.0)

    assert pair.story(since=mark) == []


def test_a_peer_that_asks_is_not_asked():
    pair = Pair(both={"ike_options": {"dpd_delay_s": 30.0}})
    pair.establish()
    mark = pair.mark

    pair.run_for(45.0)

    assert len(pair.story(since=mark)) <= 4


def test_a_dead_peer_is_noticed_after_the_last_retransmission():
    options = {
        "dpd_delay_s": 10.0,
        "retransmit_timeout_s": 1.0,
        "retransmit_base": 2.0,
        "retransmit_tries": 3,
    }
    pair = Pair(alice={"ike_options": options}, bob={"ike_options": {"dpd_delay_s": 0.0}})
    pair.establish()
    pair.link.fate = lambda packet: ()
    mark = pair.mark

    pair.run_for(10.0 + 1.0 + 2.0 + 4.0 + 7.9)
    assert pair.alice.events(IkeSaDeleted) == []
    pair.run_for(1.0)

    lines = pair.story(since=mark)
    assert lines == ["INFORMATIONAL SK {} -->", *["INFORMATIONAL SK {} again -->"] * 3]
    (deleted,) = pair.alice.events(IkeSaDeleted)
    assert deleted.failure.reason is FailureReason.PEER_UNRESPONSIVE
    (child_deleted,) = pair.alice.events(ChildSaDeleted)
    assert child_deleted.failure.reason is FailureReason.PEER_UNRESPONSIVE
    assert pair.alice.ike_sas == ()
    assert not pair.alice.sad.sas


def test_a_peer_that_never_answers_the_first_message_is_a_failure():
    pair = Pair()
    pair.link.fate = lambda packet: ()

    pair.alice.initiate()
    pair.run_for(120.0)

    (failed,) = pair.alice.events(IkeSaFailed)
    assert failed.failure.reason is FailureReason.PEER_UNRESPONSIVE
    assert pair.alice.ike_sas == ()
    assert pair.alice.endpoint.next_deadline() is None


def test_one_lost_answer_does_not_make_a_peer_dead():
    pair = Pair()
    pair.establish()
    pair.link.fate = lost(pair.mark + 1)

    pair.alice.check_liveness()
    pair.run_for(10.0)

    assert pair.alice.events(IkeSaDeleted) == []
    pair.check(children=1)


# --- what strangers and odd peers say -----------------------------------------------------------


@pytest.mark.parametrize(
    "notify_type",
    [NotifyType.AUTHENTICATION_FAILED, NotifyType.INVALID_IKE_SPI, NotifyType.INVALID_SYNTAX],
)
def test_an_unprotected_error_does_not_end_an_ike_sa(notify_type):
    # §2.21.4, §1.5: it may be a forgery.
    pair = Pair()
    pair.establish()
    sa = pair.alice.ike_sa
    header = request_header(spi_i=sa.spi_i, spi_r=sa.spi_r, exchange=ExchangeType.INFORMATIONAL, message_id=2)

    pair.bob.receive(encode_message(header, [NotifyPayload(notify_type)]))
    pair.run_for(10.0)

    pair.check(children=1)


def test_a_request_for_an_ike_sa_nobody_has_is_dropped_or_told_so():
    # §1.5: INVALID_IKE_SPI, unprotected; with the same SPIs and Message ID.
    pair = Pair()
    pair.establish()
    sa = pair.alice.ike_sa
    datagram = authentic(pair, [])
    pair.bob.restart()
    mark = len(pair.sent(pair.bob))

    pair.bob.receive(datagram)

    assert pair.bob.events(DatagramDropped)[-1].reason.value == "ike_unknown_spi"
    answers = [pair.tap.open(packet.data) for packet in pair.sent(pair.bob)[mark:]]
    assert [str(answer) for answer in answers] in ([], ["INFORMATIONAL {N(INVALID_IKE_SPI)}"])
    for answer in answers:
        assert (answer.message.header.spi_i, answer.message.header.spi_r) == (sa.spi_i, sa.spi_r)
        assert answer.message.header.message_id == 2


def test_an_unknown_critical_payload_in_an_authentic_request_is_refused_by_number():
    pair = Pair()
    pair.establish()
    mark, already = pair.mark, len(pair.messages())

    pair.bob.receive(authentic(pair, [UnknownPayload(type=222, critical=True, body=b"?")]))

    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {N(UNSUPPORTED_CRITICAL_PAYLOAD)}"]
    notify = pair.messages()[already].notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD)
    assert notify.data == bytes((222,))
    pair.settle()
    pair.check(children=1)


def test_an_unknown_payload_in_an_authentic_request_is_skipped():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    pair.bob.receive(authentic(pair, [UnknownPayload(type=222, critical=False, body=b"?")]))

    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {}"]


@pytest.mark.parametrize("notify_type", [16384 + 9999, 40960])
def test_an_unknown_status_notify_is_ignored(notify_type):
    # §3.10.1
    pair = Pair()
    pair.establish()
    mark = pair.mark

    pair.bob.receive(authentic(pair, [NotifyPayload(notify_type, b"?")]))

    assert pair.story(since=mark) == ["<-- INFORMATIONAL SK {}"]
    pair.settle()
    pair.check(children=1)


@pytest.mark.parametrize("message_id", [0, 1, 3, 4, 0xFFFFFFFF])
def test_a_message_id_outside_the_window_changes_nothing(message_id):
    pair = Pair()
    pair.establish()
    payloads = [DeletePayload(ProtocolId.IKE)]

    pair.bob.receive(authentic(pair, payloads, message_id=message_id))
    pair.settle()

    pair.check(children=1)
