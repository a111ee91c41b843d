"""Authentic answers that refuse for good, or again and again, or make no sense (RFC 7296 §2.21.3, §2.25)."""

from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaFailed,
    DatagramDropped,
    FailureReason,
    IkeSaDeleted,
    InstallRequest,
    ReauthenticationDue,
)
from gateway.ike.wire.header import ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload, UnknownPayload
from gateway.ipsec.drop_reason import DropReason
from tests.fakes.pair import Pair, child

NEW_CHILD = "CREATE_CHILD_SA SK {SA, Ni, TSi, TSr} -->"


def established():
    pair = Pair(
        alice={
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16"),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16"),
            ]
        },
        bob={
            "children": [
                child("lan", local="10.2.0.0/16", remote="10.1.0.0/16"),
                child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16"),
            ]
        },
    )
    pair.alice.initiate("lan")
    pair.settle()
    return pair


def answer(pair, payloads, exchange_type):
    """An authentic response of Bob's to Alice's first request after IKE_AUTH."""
    sa = pair.alice.ike_sa
    header = IkeHeader(
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        exchange_type=exchange_type,
        flags=int(HeaderFlag.RESPONSE),
        message_id=2,
    )
    return pair.tap.keys(sa.spi_i, sa.spi_r).seal(header, payloads)


def test_temporary_failure_is_not_asked_about_for_ever():
    # §2.25: the peer should be asked again, "after waiting"; nine times are enough to give up.
    pair = established()
    pair.bob.answer(InstallRequest, refuse="SYSTEM")
    mark = pair.mark

    pair.alice.initiate("dmz")
    pair.run_for(1000.0)

    assert pair.story(since=mark).count(NEW_CHILD) == 9
    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.failure.notify == "TEMPORARY_FAILURE"
    pair.check(children=1)


def test_a_child_sa_that_the_peer_does_not_have_is_ended_and_made_anew():
    # §2.25.1: CHILD_SA_NOT_FOUND.
    pair = established()
    pair.link.fate = lambda packet: ()
    mark = pair.mark
    pair.alice.rekey_child()

    not_found = NotifyPayload(NotifyType.CHILD_SA_NOT_FOUND)
    pair.alice.receive(answer(pair, [not_found], ExchangeType.CREATE_CHILD_SA))

    (deleted,) = pair.alice.events(ChildSaDeleted)
    assert deleted.failure.notify == "CHILD_SA_NOT_FOUND"
    assert pair.story(since=mark)[-1] == NEW_CHILD


def test_an_ike_sa_that_the_peer_cannot_rekey_is_to_be_authenticated_anew():
    # §4: a minimal implementation answers every CREATE_CHILD_SA with NO_ADDITIONAL_SAS.
    pair = established()
    pair.link.fate = lambda packet: ()
    pair.alice.rekey_ike()

    refused = NotifyPayload(NotifyType.NO_ADDITIONAL_SAS)
    pair.alice.receive(answer(pair, [refused], ExchangeType.CREATE_CHILD_SA))
    pair.run_for(0.1)

    assert pair.alice.ike_sa.state == "established"
    assert [e.ike_sa for e in pair.alice.events(ReauthenticationDue)] == [pair.alice.ike_sa]


def test_a_response_of_another_exchange_is_none():
    pair = established()
    mark = pair.mark

    pair.alice.initiate("dmz")
    pair.alice.receive(answer(pair, [], ExchangeType.INFORMATIONAL))
    pair.settle()

    assert pair.alice.events(DatagramDropped)[-1].reason is DropReason.IKE_UNEXPECTED
    assert pair.story(since=mark) == [NEW_CHILD, "<-- CREATE_CHILD_SA SK {SA, Nr, TSi, TSr}"]
    pair.check(children=2)


def test_an_authentic_response_that_breaks_the_rules_ends_the_ike_sa():
    # §2.21.3: the two implementations do not understand each other.
    pair = established()
    pair.alice.check_liveness()

    odd = UnknownPayload(type=222, critical=True, body=b"?")
    pair.alice.receive(answer(pair, [odd], ExchangeType.INFORMATIONAL))

    (deleted,) = pair.alice.events(IkeSaDeleted)
    assert deleted.failure.reason is FailureReason.INVALID_SYNTAX
    assert not pair.alice.sad.sas


def test_a_message_that_comes_back_to_its_sender_is_dropped():
    # §3.1: the Initiator flag says which side of the IKE SA sent it.
    pair = established()
    pair.bob.check_liveness()
    request = pair.sent(pair.bob)[-1].data

    pair.bob.receive(request)
    pair.settle()

    assert pair.bob.events(DatagramDropped)[-1].reason is DropReason.IKE_UNKNOWN_SPI
    pair.check(children=1)
