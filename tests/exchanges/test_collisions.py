"""Exchanges that cross (RFC 7296 §2.8, §2.25): whatever happens, both sides end with the same SAs."""

from itertools import product

import pytest

from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaFailed,
    ChildSaRekeyed,
    IkeSaDeleted,
    IkeSaRekeyed,
    InstallRequest,
)
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NoncePayload, SaPayload
from gateway.ipsec.sa import Direction
from tests.fakes.link import delayed
from tests.fakes.pair import Pair, child

DELAYS = [0.0, 0.005, 0.015, 0.5, 1.5, 4.0]
"""Extra delay of one packet in seconds; the latency is 0.01, the first retransmission comes after 1."""


def two_children():
    return Pair(
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


def established(make=Pair):
    pair = make()
    pair.alice.initiate("lan")
    pair.settle()
    pair.check(children=1)
    return pair


def slow(pair, index, seconds):
    """Delay the packet that is `index` after the next one."""
    pair.link.fate = delayed(seconds, pair.mark + index)


def nonces(pair, already):
    """The nonces of the exchanges since, by who initiated: {host: [Ni, Nr]}."""
    found = {"alice": [], "bob": []}
    for host in pair.hosts:
        for opened in pair.messages(host):
            if opened.message.datagram in already:
                continue
            for payload in opened.payloads:
                if isinstance(payload, NoncePayload):
                    initiator = pair.peer_of(host) if opened.message.header.is_response else host
                    found[initiator.name].append(payload.data)
    return found


# --- both rekey the same Child SA (§2.8.1) ------------------------------------------------------


def test_both_sides_rekey_a_child_sa_at_once_and_the_one_with_the_lowest_nonce_goes():
    pair = established()
    already = {packet.data for packet in pair.sent()}

    pair.alice.rekey_child()
    pair.bob.rekey_child()
    pair.settle()
    pair.run_for(30.0)

    pair.check(children=1)
    used = nonces(pair, already)
    assert [len(values) for values in used.values()] == [2, 2]
    loser = min(used, key=lambda name: min(used[name]))
    winner = "bob" if loser == "alice" else "alice"
    # The SA made by the winner's exchange is left: it has the SPI that the winner offered.
    host = getattr(pair, winner)
    offered = [
        proposal.spi
        for opened in pair.messages(host)
        if opened.message.datagram not in already and opened.message.header.is_request
        for payload in opened.payloads
        if isinstance(payload, SaPayload)
        for proposal in payload.proposals
    ]
    assert host.child_sa.inbound.spi.to_bytes(4) in offered


@pytest.mark.parametrize(("index", "seconds"), list(product(range(6), DELAYS)))
def test_simultaneous_child_rekeys_converge_whatever_overtakes_what(index, seconds):
    pair = established()
    slow(pair, index, seconds)

    pair.alice.rekey_child()
    pair.bob.rekey_child()
    pair.run_for(60.0)

    pair.check(children=1)
    for host in pair.hosts:
        assert host.events(ChildSaDeleted) == []
        assert len(host.events(ChildSaRekeyed)) >= 1


@pytest.mark.parametrize("seconds", DELAYS)
def test_no_packet_is_lost_in_a_simultaneous_rekey(seconds):
    pair = established()
    slow(pair, 1, seconds)
    flow = pair.start_flow()

    pair.alice.rekey_child()
    pair.bob.rekey_child()
    pair.run_for(20.0)

    assert flow.missing == []


def test_a_rekey_that_starts_when_the_peers_is_half_done_converges():
    # §2.8.1, second case: Bob's request comes after Alice's answer was lost.
    pair = established()
    pair.link.fate = lambda packet: () if packet.number == mark + 1 else (0.0,)
    mark = pair.mark
    pair.alice.rekey_child()
    pair.run_for(0.1)

    pair.bob.rekey_child(pair.bob.child_sas[0].child_sa_id)
    pair.run_for(60.0)

    pair.check(children=1)


# --- both rekey the IKE SA (§2.8.2) -------------------------------------------------------------


def test_both_sides_rekey_the_ike_sa_at_once_and_the_one_with_the_lowest_nonce_goes():
    pair = established()
    already = {packet.data for packet in pair.sent()}

    pair.alice.rekey_ike()
    pair.bob.rekey_ike()
    pair.run_for(1.0)

    pair.check(children=1)
    used = nonces(pair, already)
    assert [len(values) for values in used.values()] == [2, 2]
    loser = min(used, key=lambda name: min(used[name]))
    assert pair.alice.ike_sa.is_initiator is (loser == "bob")


@pytest.mark.parametrize(("index", "seconds"), list(product(range(6), DELAYS)))
def test_simultaneous_ike_rekeys_converge_whatever_overtakes_what(index, seconds):
    pair = established()
    slow(pair, index, seconds)

    pair.alice.rekey_ike()
    pair.bob.rekey_ike()
    pair.run_for(90.0)

    pair.check(children=1)
    for host in pair.hosts:
        assert host.events(IkeSaDeleted) == []
        assert host.events(ChildSaDeleted) == []
        assert len(host.events(IkeSaRekeyed)) >= 1


# --- every other pair of exchanges (§2.25) ------------------------------------------------------

ACTIONS = {
    "rekey child": lambda host: host.rekey_child(),
    "rekey IKE": lambda host: host.rekey_ike(),
    "new child": lambda host: host.initiate("dmz"),
    "delete child": lambda host: host.delete_child(),
    "delete IKE": lambda host: host.delete_ike(),
    "liveness": lambda host: host.check_liveness(),
}


def expected_children(*actions):
    if "delete IKE" in actions:
        return 0
    return 1 + ("new child" in actions) - ("delete child" in actions)


@pytest.mark.parametrize(("ours", "theirs"), list(product(ACTIONS, ACTIONS)))
@pytest.mark.parametrize("seconds", [0.0, 0.015, 1.5])
def test_any_two_exchanges_that_cross_end_in_agreement(ours, theirs, seconds):
    pair = established(two_children)
    slow(pair, 0, seconds)

    ACTIONS[ours](pair.alice)
    ACTIONS[theirs](pair.bob)
    pair.run_for(90.0)

    pair.check(children=expected_children(ours, theirs), ike_sas=0 if "delete IKE" in (ours, theirs) else 1)


@pytest.mark.parametrize(("ours", "theirs"), list(product(ACTIONS, ACTIONS)))
@pytest.mark.parametrize("index", [1, 2, 3])
def test_any_two_exchanges_with_a_slow_answer_end_in_agreement(ours, theirs, index):
    pair = established(two_children)
    slow(pair, index, 0.5)

    ACTIONS[ours](pair.alice)
    ACTIONS[theirs](pair.bob)
    pair.run_for(90.0)

    pair.check(children=expected_children(ours, theirs), ike_sas=0 if "delete IKE" in (ours, theirs) else 1)


def test_a_child_rekey_while_the_peer_rekeys_the_ike_sa_is_told_to_wait():
    # §2.25.2: TEMPORARY_FAILURE, and the Child rekey happens later in the new IKE SA.
    pair = established()
    mark, before = pair.mark, pair.alice.child_sa

    pair.bob.rekey_ike()
    pair.alice.rekey_child()
    pair.run_for(60.0)

    assert "<-- CREATE_CHILD_SA SK {N(TEMPORARY_FAILURE)}" in pair.story(since=mark)
    assert pair.alice.child_sa.child_sa_id != before.child_sa_id
    assert pair.alice.events(ChildSaDeleted) == []
    pair.check(children=1)


def test_a_child_sa_asked_for_while_the_peer_rekeys_the_ike_sa_comes_later():
    pair = established(two_children)
    mark = pair.mark

    pair.bob.rekey_ike()
    pair.alice.initiate("dmz")
    pair.run_for(60.0)

    assert "<-- CREATE_CHILD_SA SK {N(TEMPORARY_FAILURE)}" in pair.story(since=mark)
    pair.check(children=2)


def test_an_ike_rekey_while_a_child_sa_is_being_made_is_told_to_wait():
    # §2.25.2, the other side of the same collision.
    pair = established(two_children)
    pair.bob.answer(object, after=0.5)
    mark = pair.mark

    pair.alice.initiate("dmz")
    pair.run_for(0.1)
    pair.bob.answer_normally()
    pair.bob.rekey_ike()
    pair.run_for(60.0)

    assert len(pair.story(since=mark)) > 4
    pair.check(children=2)


def test_a_rekey_of_a_child_sa_the_peer_is_deleting_is_refused():
    # §2.25.1: a request to rekey a Child SA that is being closed gets TEMPORARY_FAILURE.
    pair = established()
    already = {packet.data for packet in pair.sent()}

    pair.bob.delete_child()
    pair.alice.rekey_child()
    pair.run_for(60.0)

    answers = [
        opened
        for opened in pair.messages(pair.bob)
        if opened.message.datagram not in already and opened.message.header.exchange_type == 36
    ]
    refusals = {NotifyType.TEMPORARY_FAILURE, NotifyType.CHILD_SA_NOT_FOUND}
    assert any(answer.notify(refusal) for answer in answers for refusal in refusals)
    pair.check(children=0)


# --- what crosses with an answer that is late ---------------------------------------------------


def half_made():
    """Alice has asked for `dmz`; Bob has it, but his answer was lost and will come with her next request."""
    pair = established(two_children)
    answer = pair.mark + 1
    pair.link.fate = lambda packet: () if packet.number == answer else (0.0,)
    pair.alice.initiate("dmz")
    pair.run_for(0.1)
    (made,) = [sa for sa in pair.bob.child_sas if sa.child == "dmz"]
    return pair, made


def test_a_child_sa_deleted_before_its_maker_has_the_answer_is_gone_on_both_sides():
    pair, made = half_made()

    pair.bob.delete_child(made.child_sa_id)
    pair.run_for(60.0)

    pair.check(children=1)
    assert len(pair.alice.events(ChildSaFailed)) == 1


def test_a_child_sa_rekeyed_before_its_maker_has_the_answer_lives_on():
    pair, made = half_made()

    pair.bob.rekey_child(made.child_sa_id)
    pair.run_for(60.0)

    pair.check(children=2)
    assert pair.alice.events(ChildSaDeleted) + pair.bob.events(ChildSaDeleted) == []
    assert made.child_sa_id not in {sa.child_sa_id for sa in pair.bob.child_sas}


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("rekeyed_by", [None, "alice", "bob"])
def test_a_request_that_is_late_makes_no_second_child_sa_even_of_one_that_was_rekeyed(first, rekeyed_by):
    # One side's request for `dmz` is lost; the other's is done, and rekeyed, before it comes again.
    pair = established(two_children)
    slow_one, quick_one = (pair.alice, pair.bob) if first == "alice" else (pair.bob, pair.alice)
    pair.link.fate = delayed(0.5, pair.mark)

    slow_one.initiate("dmz")
    pair.run_for(0.01)
    quick_one.initiate("dmz")
    pair.run_for(0.1)
    if rekeyed_by == quick_one.name:
        (made,) = [sa for sa in quick_one.child_sas if sa.child == "dmz"]
        quick_one.rekey_child(made.child_sa_id)
    pair.run_for(5.0)
    if rekeyed_by == slow_one.name:
        slow_one.rekey_child(next(sa for sa in slow_one.child_sas if sa.child == "dmz").child_sa_id)
    pair.run_for(90.0)

    pair.check(children=2)


def test_a_rekeyed_child_sa_that_both_delete_while_its_successor_is_installed_is_told_deleted_once():
    # Bob rekeyed it and sends its DELETE; ours (it expired) crosses with that while our datapath is busy
    # (§1.4.1).
    pair = established()
    pair.alice.answer(
        InstallRequest, after=0.5, where=lambda request: request.sa.direction is Direction.OUTBOUND
    )
    old = pair.alice.child_sa.child_sa_id

    pair.bob.rekey_child()
    pair.run_for(0.1)
    pair.alice.endpoint.expire_child(old, pair.now)
    pair.drain(pair.alice)
    pair.run_for(60.0)

    pair.check(children=1)
    assert [event.child_sa.child_sa_id for event in pair.alice.events(ChildSaDeleted)] == [old]
    assert pair.alice.events(ChildSaRekeyed) == []


@pytest.mark.parametrize("act", ["rekey child", "new child", "delete child", "liveness"])
def test_a_successor_that_the_peer_uses_takes_over_while_our_own_rekey_is_unanswered(act):
    # Bob's request and Alice's DELETE of the old IKE SA are slow; Alice goes on in her new IKE SA at once.
    pair = established(two_children)
    mark = pair.mark
    slow_ones = {mark + 1: 1.5, mark + 3: 0.7}
    pair.link.fate = lambda packet: (slow_ones.get(packet.number, 0.0),)

    pair.alice.rekey_ike()
    pair.bob.rekey_ike()
    pair.run_for(0.05)
    ACTIONS[act](pair.alice)
    pair.run_for(90.0)

    pair.check(children=expected_children(act))
    for host in pair.hosts:
        assert host.events(IkeSaDeleted) == []
        assert len(host.events(ChildSaDeleted)) == (act == "delete child")


def test_an_ike_rekey_waits_until_the_first_child_sa_is_installed():
    pair = Pair()
    pair.alice.answer(InstallRequest, after=3.0)
    pair.alice.initiate()
    pair.run_for(0.1)

    pair.bob.rekey_ike()
    pair.run_for(60.0)

    pair.check(children=1)
    assert len(pair.alice.events(IkeSaRekeyed)) == 1
