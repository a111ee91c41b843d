"""Several IKE SAs with one pair of identities: the four policies (RFC 7296 §2.4)."""

from ipaddress import ip_address

import pytest

from gateway.ike.events import FailureReason, IkeSaDeleted, IkeSaFailed
from gateway.ike.wire.notify import NotifyType
from gateway.ipsec.connection import Unique
from tests.fakes.pair import ALICE, Pair

ELSEWHERE = ip_address("192.0.2.99")


def restarted(unique, *, initial_contact=False, **ike_options):
    """Alice comes back without any memory, and is up again."""
    pair = Pair(
        bob={"remote_address": None, "ike_options": {"unique": unique, "dpd_delay_s": 0.0} | ike_options}
    )
    pair.establish()
    pair.run_for(60.0)
    restart(pair, initial_contact=initial_contact)
    return pair


def restart(pair, *, initial_contact=False):
    options = pair.alice._options
    pair.alice._options = options.__class__(send_initial_contact=initial_contact)
    pair.alice.restart()
    pair.alice._options = options
    pair.alice.initiate()
    pair.run_for(1.0)


def up(host):
    return [sa for sa in host.ike_sas if sa.state == "established"]


def test_replace_ends_the_older_one_as_soon_as_the_newer_one_carries_its_traffic():
    pair = restarted(Unique.REPLACE)

    (new,) = up(pair.bob)
    assert new.spi_i == pair.alice.ike_sa.spi_i
    assert pair.bob.sad.outbound("site", "lan").spi == pair.alice.child_sa.inbound.spi
    pair.run_for(60.0)
    (ended,) = pair.bob.events(IkeSaDeleted)
    assert ended.failure.reason in (FailureReason.REPLACED, FailureReason.PEER_UNRESPONSIVE)
    pair.check(children=1)


@pytest.mark.parametrize("unique", [Unique.ALLOW, Unique.NEVER])
def test_allow_and_never_leave_both(unique):
    pair = restarted(unique)

    pair.run_for(60.0)

    assert len(up(pair.bob)) == 2
    assert pair.bob.events(IkeSaDeleted) == []


@pytest.mark.parametrize("unique", [Unique.REPLACE, Unique.ALLOW, Unique.REJECT])
def test_initial_contact_ends_the_older_one_at_once(unique):
    pair = restarted(unique, initial_contact=True)

    (ended,) = pair.bob.events(IkeSaDeleted)
    assert ended.failure.reason is FailureReason.REPLACED
    pair.check(children=1)


def test_never_does_not_care_for_initial_contact():
    # Peers that share an identity: each of them says it, and means itself.
    pair = restarted(Unique.NEVER, initial_contact=True)

    assert len(up(pair.bob)) == 2


def test_reject_lets_the_same_host_come_back():
    pair = restarted(Unique.REJECT)

    assert len(up(pair.bob)) == 1
    assert up(pair.bob)[0].spi_i == pair.alice.ike_sa.spi_i


@pytest.mark.parametrize("initial_contact", [False, True])
def test_reject_refuses_another_host_with_the_same_identity(initial_contact):
    pair = Pair(
        alice={"local_address": None},
        bob={"remote_address": None, "ike_options": {"unique": Unique.REJECT, "dpd_delay_s": 0.0}},
    )
    pair.alice.endpoint.initiate("site", "lan", pair.now, local=ALICE)
    pair.drain(pair.alice)
    pair.settle()
    pair.run_for(60.0)
    first = up(pair.bob)
    alice = pair.alice.endpoint

    pair.alice._options = pair.alice._options.__class__(send_initial_contact=initial_contact)
    pair.alice.restart()
    pair.alice.address = ELSEWHERE
    pair.alice.endpoint.initiate("site", "lan", pair.now, local=ELSEWHERE)
    pair.drain(pair.alice)
    pair.settle()

    (failed,) = pair.alice.events(IkeSaFailed)
    assert failed.failure.notify == "AUTHENTICATION_FAILED"
    assert [sa.spi_i for sa in up(pair.bob)] == [sa.spi_i for sa in first]
    # The one that is there was asked for a sign of life; were it dead, the next attempt would succeed.
    assert "<-- INFORMATIONAL SK {}" in pair.story()
    assert alice is not pair.alice.endpoint
    pair.run_for(60.0)
    assert up(pair.bob) == []
    pair.alice.endpoint.initiate("site", "lan", pair.now, local=ELSEWHERE)
    pair.drain(pair.alice)
    pair.settle()
    assert len(up(pair.bob)) == 1


@pytest.mark.parametrize("unique", [Unique.ALLOW, Unique.NEVER])
def test_no_pair_of_identities_has_more_than_its_share(unique):
    pair = restarted(unique, ike_sas_per_peer=3)
    for _ in range(10):
        pair.run_for(1.0)
        restart(pair)

    assert len(pair.bob.ike_sas) == 3
    assert len(pair.bob.child_sas) == 3
    newest = max(pair.bob.ike_sas, key=lambda sa: sa.established_at)
    assert newest.spi_i == pair.alice.ike_sa.spi_i
    ended = pair.bob.events(IkeSaDeleted)
    assert {event.failure.reason for event in ended} == {FailureReason.REPLACED}
    assert len(ended) == 9


def test_a_replaced_ike_sa_whose_children_are_not_all_there_yet_is_asked_for_a_sign_of_life():
    pair = Pair(bob={"remote_address": None, "ike_options": {"dpd_delay_s": 0.0}})
    pair.establish()
    pair.run_for(60.0)
    options = pair.alice._options
    pair.alice._options = options.__class__(send_initial_contact=False)
    pair.alice.restart()
    mark = pair.mark

    pair.alice.initiate(None)
    pair.run_for(2.0)

    assert "<-- INFORMATIONAL SK {}" in pair.story(since=mark)
    assert len(pair.bob.child_sas) == 1
    pair.run_for(60.0)
    pair.check(children=0)


def test_one_that_is_being_replaced_does_not_count():
    pair = Pair(both={"ike_options": {"ike_sas_per_peer": 1, "unique": Unique.ALLOW}})
    pair.establish()
    flow = pair.start_flow()
    pair.run_for(1.0)

    pair.alice.endpoint.reauthenticate(pair.alice.ike_sa.ike_sa_id, pair.now)
    pair.drain(pair.alice)
    pair.run_until(lambda: len(pair.alice.ike_sas) == 1, 30.0)

    assert [line for line in flow.missing if "alice has no outbound" in line] == []


@pytest.mark.parametrize(("unique", "is_said"), [(Unique.REPLACE, True), (Unique.NEVER, False)])
def test_who_shares_its_identity_with_others_does_not_say_initial_contact(unique, is_said):
    pair = Pair(alice={"ike_options": {"unique": unique}})

    pair.establish()

    assert (pair.messages()[2].notify(NotifyType.INITIAL_CONTACT) is not None) is is_said
