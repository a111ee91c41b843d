"""Lifetimes (RFC 7296 §2.8, RFC 4301 §4.4.2.1): rekey at the soft limit, end at the hard one, with jitter."""

import pytest

from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaFailed,
    ChildSaRekeyed,
    FailureReason,
    IkeSaDeleted,
    IkeSaRekeyed,
    InstallRequest,
)
from gateway.ipsec.lifetime import Limit
from tests.fakes.pair import Pair

NO_DPD = {"dpd_delay_s": 0.0}


def with_child(alice=None, bob=None, **both):
    """A pair whose Child has these options on one side or both."""
    return Pair(
        both={"ike_options": NO_DPD},
        alice={"child_options": both | (alice or {})},
        bob={"child_options": both | (bob or {})},
    )


NEVER = {"rekey": Limit()}


# --- Child SAs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_side_whose_soft_lifetime_ends_first_rekeys(who):
    other = "bob" if who == "alice" else "alice"
    pair = with_child(**{who: {"rekey": Limit(seconds=100.0), "jitter": 0.0}, other: NEVER})
    pair.establish()
    old = pair.alice.child_sa

    pair.run_for(99.0)
    assert pair.alice.child_sa == old
    pair.run_for(11.0)

    assert pair.alice.child_sa.child_sa_id != old.child_sa_id
    assert len(pair.alice.events(ChildSaRekeyed)) == 1
    pair.check(children=1)


def test_a_rekeyed_child_sa_has_a_lifetime_of_its_own():
    pair = with_child(alice={"rekey": Limit(seconds=100.0), "jitter": 0.0}, bob=NEVER)
    pair.establish()

    pair.run_for(550.0)

    assert len(pair.alice.events(ChildSaRekeyed)) == 5
    pair.check(children=1)


def test_jitter_only_ever_shortens():
    pair = with_child(rekey=Limit(seconds=1000.0), jitter=0.2)
    pair.establish()

    for host in pair.hosts:
        sa = host.child_sa
        assert 800.0 <= sa.rekey_at - sa.established_at <= 1000.0
        assert sa.expires_at - sa.established_at == pytest.approx(1100.0)


def test_both_sides_draw_their_own_jitter():
    pair = with_child(rekey=Limit(seconds=1000.0), jitter=0.2)
    pair.establish()

    due = {host.child_sa.rekey_at - host.child_sa.established_at for host in pair.hosts}
    assert len(due) == 2


def test_equal_lifetimes_on_both_sides_rekey_once_each_time():
    pair = with_child(rekey=Limit(seconds=100.0), jitter=0.1)
    pair.establish()

    pair.run_for(1000.0)

    assert 10 <= len(pair.alice.events(ChildSaRekeyed)) <= 12
    pair.check(children=1)


def test_a_child_sa_that_cannot_be_rekeyed_is_tried_again_and_ends_at_its_hard_lifetime():
    pair = with_child(alice={"rekey": Limit(seconds=100.0), "over": 0.5, "jitter": 0.0}, bob=NEVER)
    pair.establish()
    old = pair.alice.child_sa
    pair.bob.answer(InstallRequest, refuse="TABLE_FULL")

    pair.run_for(149.0)
    failures = pair.alice.events(ChildSaFailed)
    assert len(failures) >= 2
    assert {failure.replaces for failure in failures} == {old.child_sa_id}
    assert pair.alice.child_sa.child_sa_id == old.child_sa_id
    pair.run_for(2.0)

    (deleted,) = pair.alice.events(ChildSaDeleted)
    assert deleted.failure.reason is FailureReason.LIFETIME_EXPIRED
    (theirs,) = pair.bob.events(ChildSaDeleted)
    assert theirs.failure.reason is FailureReason.DELETED_BY_PEER
    pair.check(children=0)


def test_a_rekey_that_is_retried_succeeds_in_the_end():
    pair = with_child(alice={"rekey": Limit(seconds=100.0), "over": 0.5, "jitter": 0.0}, bob=NEVER)
    pair.establish()
    pair.bob.answer(InstallRequest, refuse="TABLE_FULL", times=1)

    pair.run_for(140.0)

    assert len(pair.alice.events(ChildSaRekeyed)) == 1
    assert pair.alice.events(ChildSaDeleted) == []
    pair.check(children=1)


def test_three_quarters_of_the_sequence_space_are_the_datapaths_soft_limit():
    pair = with_child(**NEVER)
    pair.establish()

    for sa in (pair.alice.child_sa.inbound, pair.alice.child_sa.outbound):
        assert sa.lifetime.soft.packets == 3 * 2**30
        assert sa.lifetime.hard.packets == 2**32 - 1


def test_limits_in_bytes_and_packets_reach_the_datapath():
    pair = with_child(rekey=Limit(bytes=1_000_000, packets=1000), jitter=0.0, over=0.5)
    pair.establish()

    lifetime = pair.alice.child_sa.outbound.lifetime
    assert (lifetime.soft.bytes, lifetime.hard.bytes) == (1_000_000, 1_500_000)
    assert (lifetime.soft.packets, lifetime.hard.packets) == (1000, 1500)


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_soft_expiry_at_the_datapath_is_a_rekey(who, direction):
    pair = with_child(**NEVER)
    pair.establish()
    host = getattr(pair, who)
    old = host.child_sa

    host.endpoint.soft_expire(getattr(old, direction).spi, pair.now)
    pair.drain(host)
    pair.settle()
    pair.run_for(10.0)

    assert host.child_sa.child_sa_id != old.child_sa_id
    pair.check(children=1)


def test_a_soft_expiry_told_again_and_again_is_one_rekey():
    pair = with_child(**NEVER)
    pair.establish()
    old = pair.alice.child_sa

    for _ in range(5):
        for sa in (old.inbound, old.outbound):
            pair.alice.endpoint.soft_expire(sa.spi, pair.now)
            pair.drain(pair.alice)
    pair.run_for(20.0)
    pair.alice.endpoint.soft_expire(old.inbound.spi, pair.now)
    pair.drain(pair.alice)
    pair.run_for(20.0)

    assert len(pair.alice.events(ChildSaRekeyed)) == 1
    pair.check(children=1)


def test_a_hard_expiry_at_the_datapath_is_a_deletion():
    pair = with_child(**NEVER)
    pair.establish()

    pair.alice.endpoint.expire_child(pair.alice.child_sa.child_sa_id, pair.now)
    pair.drain(pair.alice)
    pair.settle()

    (deleted,) = pair.alice.events(ChildSaDeleted)
    assert deleted.failure.reason is FailureReason.LIFETIME_EXPIRED
    pair.check(children=0)


def test_nothing_is_sent_beyond_the_hard_limit_even_while_the_peer_is_silent():
    # RFC 4301 §4.4.2.1: the SA ends, whether or not the DELETE can be sent or is answered.
    pair = with_child(**NEVER)
    pair.establish()
    pair.link.fate = lambda packet: ()
    pair.alice.check_liveness()

    pair.alice.endpoint.expire_child(pair.alice.child_sa.child_sa_id, pair.now)
    pair.drain(pair.alice)

    assert not pair.alice.sad.sas


# --- IKE SAs ------------------------------------------------------------------------------------


def ike_lifetime(**options):
    return NO_DPD | options


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_ike_sa_is_rekeyed_at_its_soft_lifetime(who):
    other = "bob" if who == "alice" else "alice"
    pair = Pair(
        **{
            who: {"ike_options": ike_lifetime(rekey_s=500.0, jitter=0.0), "child_options": NEVER},
            other: {"ike_options": ike_lifetime(rekey_s=0.0), "child_options": NEVER},
        }
    )
    pair.establish()
    old = pair.alice.ike_sa

    pair.run_for(499.0)
    assert pair.alice.ike_sa.ike_sa_id == old.ike_sa_id
    pair.run_for(20.0)

    assert len(pair.alice.events(IkeSaRekeyed)) == 1
    assert pair.alice.events(IkeSaDeleted) == []
    pair.check(children=1)


def test_both_sides_draw_their_own_jitter_for_the_ike_sa():
    pair = Pair(both={"ike_options": ike_lifetime(rekey_s=1000.0, jitter=0.2)})
    pair.establish()

    due = {host.ike_sa.rekey_at - host.ike_sa.established_at for host in pair.hosts}
    assert len(due) == 2
    assert all(800.0 <= seconds < 1000.0 for seconds in due)


def test_an_ike_sa_that_cannot_be_rekeyed_ends_at_its_hard_lifetime():
    # Bob answers liveness checks but no CREATE_CHILD_SA request ever reaches him.
    pair = Pair(
        alice={
            "ike_options": {"rekey_s": 500.0, "over_s": 60.0, "jitter": 0.0, "retransmit_tries": 20},
            "child_options": NEVER,
        },
        bob={"ike_options": ike_lifetime(rekey_s=0.0), "child_options": NEVER},
    )
    pair.establish()
    pair.link.fate = lambda packet: () if packet.sent_at > 1499.0 and packet.sent_at < 1561.0 else (0.0,)

    pair.run_for(559.0)
    assert pair.alice.events(IkeSaDeleted) == []
    pair.run_for(2.0)

    (deleted,) = pair.alice.events(IkeSaDeleted)
    assert deleted.failure.reason is FailureReason.LIFETIME_EXPIRED
    assert not pair.alice.sad.sas


def test_without_a_lifetime_nothing_is_rekeyed():
    pair = Pair(both={"ike_options": ike_lifetime(rekey_s=0.0), "child_options": NEVER})
    pair.establish()
    mark = pair.mark

    pair.run_for(1_000_000.0)

    assert pair.story(since=mark) == []
    pair.check(children=1)


def test_a_day_of_rekeys_on_both_sides():
    pair = Pair(
        both={"ike_options": ike_lifetime(rekey_s=3000.0), "child_options": {"rekey": Limit(seconds=1000.0)}}
    )
    pair.establish()

    pair.run_for(86_400.0)

    for host in pair.hosts:
        assert host.events(ChildSaDeleted, IkeSaDeleted, ChildSaFailed) == []
    assert len(pair.alice.events(IkeSaRekeyed)) >= 28
    pair.check(children=1)
