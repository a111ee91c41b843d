"""`configure` is declarative: unchanged connections keep their SAs, others are deleted with the peer."""

import pytest

from gateway.ike.errors import LocalError
from gateway.ike.events import FailureReason, IkeSaDeleted
from tests.fakes.pair import Pair, alice_connection


def configure(pair, *connections):
    pair.alice.endpoint.configure(connections, pair.now)
    pair.drain(pair.alice)
    pair.settle()


def test_the_same_configuration_again_changes_nothing():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    configure(pair, alice_connection())

    assert pair.story(since=mark) == []
    pair.check(children=1)


def test_another_connection_beside_it_changes_nothing():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    configure(pair, alice_connection(), alice_connection(name="other", local_id="other"))

    assert pair.story(since=mark) == []
    pair.check(children=1)


@pytest.mark.parametrize("connections", [(), (alice_connection(ike_options={"encapsulation": True}),)])
def test_a_connection_that_is_gone_or_changed_is_deleted_with_the_peer(connections):
    pair = Pair()
    pair.establish()
    mark = pair.mark

    configure(pair, *connections)

    assert pair.story(since=mark) == ["INFORMATIONAL SK {D(IKE)} -->", "<-- INFORMATIONAL SK {}"]
    (deleted,) = pair.alice.events(IkeSaDeleted)
    assert deleted.failure.reason is FailureReason.DELETED_BY_OPERATOR
    pair.check(children=0, ike_sas=0)


def test_a_child_that_changed_what_it_protects_ends_alone():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    configure(pair, alice_connection(local_lan="10.7.0.0/16"))

    # DELETE names the SPI of the Child SA; the IKE SA stays.
    assert pair.story(since=mark) == ["INFORMATIONAL SK {D(ESP)} -->", "<-- INFORMATIONAL SK {D(ESP)}"]
    pair.check(children=0, ike_sas=1)


def test_new_timers_say_nothing_to_the_peer_and_hold_from_now_on():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    configure(pair, alice_connection(ike_options={"dpd_delay_s": 7.0}))
    told = pair.story(since=mark)
    pair.run_for(120.0)

    assert told == []
    # Every 30 seconds before, every 7 since the timer that ran was over.
    assert pair.story(since=mark).count("INFORMATIONAL SK {} -->") > 8
    pair.check(children=1)


def test_a_new_proposal_of_a_child_is_what_its_next_rekey_agrees_on():
    pair = Pair(bob={"esp": "aes256gcm16,aes128gcm16"})
    pair.establish()
    before = pair.alice.child_sa.proposal
    mark = pair.mark

    configure(pair, alice_connection(esp="aes128gcm16"))
    told = pair.story(since=mark)
    pair.alice.rekey_child()
    pair.run_for(10.0)

    assert told == []
    assert pair.alice.child_sa.proposal.key_bits == 128
    assert before.key_bits == 256
    pair.check(children=1)


def test_an_ike_sa_that_is_not_up_yet_begins_anew_when_its_connection_changes():
    pair = Pair()
    pair.alice.initiate()
    pair.run_for(0.015)

    configure(pair, alice_connection(ike_options={"dpd_delay_s": 7.0}))
    pair.run_for(60.0)

    pair.check(children=0, ike_sas=0)


def test_a_changed_connection_comes_up_with_what_it_says_now():
    pair = Pair(bob={"remote_lan": "10.0.0.0/8"})
    pair.establish()

    configure(pair, alice_connection(local_lan="10.7.0.0/16"))
    pair.alice.initiate()
    pair.settle()

    assert str(pair.bob.child_sa.remote_ts[0]) == "10.7.0.0/16"
    pair.check(children=1)


def test_a_connection_that_is_gone_while_it_comes_up_leaves_nothing():
    pair = Pair()
    pair.alice.initiate()
    pair.run_for(0.015)

    configure(pair)
    pair.run_for(60.0)

    pair.check(children=0, ike_sas=0)


def test_what_an_ike_sa_that_is_being_deleted_still_has_does_not_count_as_up():
    pair = Pair()
    pair.establish()
    assert pair.alice.endpoint.is_carried("site", "lan")
    pair.link.fate = lambda packet: ()

    # The connection goes, and its DELETE is lost; then it is wanted again.
    pair.alice.endpoint.configure((), pair.now)
    pair.drain(pair.alice)
    pair.alice.endpoint.configure((alice_connection(),), pair.now)

    (deleting,) = pair.alice.endpoint.ike_sas()
    assert deleting.state == "deleting"
    assert not pair.alice.endpoint.is_carried("site", "lan")
    assert not pair.alice.endpoint.is_carried("site", "")


def test_what_is_not_configured_cannot_be_initiated():
    pair = Pair()

    with pytest.raises(LocalError):
        pair.alice.initiate(connection="elsewhere")
    with pytest.raises(LocalError):
        pair.alice.initiate("no such child")
    assert pair.sent() == []


def test_a_peer_without_an_address_cannot_be_initiated_to():
    pair = Pair(alice={"remote_address": None})

    with pytest.raises(LocalError):
        pair.alice.initiate()
    assert pair.alice.ike_sas == ()
