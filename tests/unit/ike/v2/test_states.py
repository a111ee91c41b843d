"""The tables of legal transitions, and those of collisions (RFC 7296 §2.25)."""

from itertools import product

import pytest

from gateway.ike.errors import LocalError
from gateway.ike.v2.states import (
    AUTHENTICATED_STATES,
    CARRYING_STATES,
    CHILD_SA_COLLISIONS,
    CHILD_SA_TRANSITIONS,
    IKE_SA_COLLISIONS,
    IKE_SA_TRANSITIONS,
    REKEY_OUTCOMES,
    SERVING_STATES,
    ChildSaState,
    ChildSaTrigger,
    ChildSituation,
    Contest,
    IkeSaState,
    IkeSaTrigger,
    IkeSituation,
    PeerRequest,
    RekeyAnswer,
    RekeyOutcome,
    Reply,
    next_child_state,
    next_ike_state,
    rekey_contest,
)


@pytest.mark.parametrize(
    ("table", "states", "end"),
    [
        (IKE_SA_TRANSITIONS, IkeSaState, IkeSaState.DELETED),
        (CHILD_SA_TRANSITIONS, ChildSaState, ChildSaState.DELETED),
    ],
)
def test_every_state_but_the_last_can_be_left_and_ends_there(table, states, end):
    for state in states:
        reachable, new = set(), {state}
        while new:
            reachable |= new
            new = {after for (before, _), after in table.items() if before in reachable} - reachable

        assert end in reachable
        assert (state is end) == (not any(before is state for before, _ in table))


@pytest.mark.parametrize(
    ("table", "trigger"),
    [(IKE_SA_TRANSITIONS, IkeSaTrigger.GONE), (CHILD_SA_TRANSITIONS, ChildSaTrigger.GONE)],
)
def test_whatever_lives_can_be_gone(table, trigger):
    for state in {before for before, _ in table}:
        assert table[state, trigger].value == "deleted"


@pytest.mark.parametrize("trigger", [IkeSaTrigger.AUTH_RECEIVED, IkeSaTrigger.INIT_DONE, IkeSaTrigger.GONE])
def test_no_step_before_authentication_leads_to_an_authenticated_state(trigger):
    for state in IkeSaState:
        after = IKE_SA_TRANSITIONS.get((state, trigger))
        if state not in AUTHENTICATED_STATES:
            assert after not in AUTHENTICATED_STATES


def test_only_an_authenticated_ike_sa_serves():
    assert SERVING_STATES < AUTHENTICATED_STATES


def test_what_carries_traffic_can_be_replaced_and_what_is_replaced_does_not_carry():
    for state in CARRYING_STATES:
        assert next_child_state(state, ChildSaTrigger.REPLACED) is ChildSaState.REKEYED
    assert ChildSaState.REKEYED not in CARRYING_STATES


def test_a_replaced_ike_sa_never_serves_again():
    reachable = {after for (before, _), after in IKE_SA_TRANSITIONS.items() if before is IkeSaState.REKEYED}

    assert reachable == {IkeSaState.DELETING, IkeSaState.DELETED}


def test_an_impossible_step_is_our_own_mistake():
    with pytest.raises(LocalError, match="an IKE SA that is deleted cannot follow 'rekey"):
        next_ike_state(IkeSaState.DELETED, IkeSaTrigger.REKEY_STARTED)
    with pytest.raises(LocalError, match="a Child SA that is deleting cannot follow"):
        next_child_state(ChildSaState.DELETING, ChildSaTrigger.BOTH_INSTALLED)


# --- collisions ---------------------------------------------------------------------------------


def test_every_collision_has_an_answer():
    named = (PeerRequest.REKEY_CHILD, PeerRequest.DELETE_CHILD)

    assert IKE_SA_COLLISIONS.keys() == set(product(IkeSituation, PeerRequest))
    assert CHILD_SA_COLLISIONS.keys() == set(product(ChildSituation, named))


#: The rules of RFC 7296 §2.25, in its order and words: what is received, what we are doing, the answer.
CHILD_RULES = [
    (PeerRequest.REKEY_CHILD, ChildSituation.CLOSING, Reply.TEMPORARY_FAILURE),
    (PeerRequest.REKEY_CHILD, ChildSituation.REKEYING, Reply.NONCES_DECIDE),
    (PeerRequest.REKEY_CHILD, ChildSituation.UNKNOWN, Reply.CHILD_SA_NOT_FOUND),
    (PeerRequest.DELETE_CHILD, ChildSituation.CLOSING, Reply.WITHOUT_DELETE),
    (PeerRequest.DELETE_CHILD, ChildSituation.REKEYING, Reply.AS_USUAL),
    (PeerRequest.DELETE_CHILD, ChildSituation.UNKNOWN, Reply.WITHOUT_DELETE),
]
IKE_RULES = [
    (PeerRequest.REKEY_IKE, IkeSituation.CHILD_WORK, Reply.TEMPORARY_FAILURE),
    (PeerRequest.REKEY_IKE, IkeSituation.REKEYING, Reply.NONCES_DECIDE),
    (PeerRequest.REKEY_IKE, IkeSituation.CLOSING, Reply.TEMPORARY_FAILURE),
    (PeerRequest.DELETE_IKE, IkeSituation.REKEYING, Reply.FORGET_OURS),
    (PeerRequest.DELETE_IKE, IkeSituation.CLOSING, Reply.FORGET_OURS),
    (PeerRequest.NEW_CHILD, IkeSituation.REKEYING, Reply.TEMPORARY_FAILURE),
    (PeerRequest.REKEY_CHILD, IkeSituation.REKEYING, Reply.TEMPORARY_FAILURE),
    (PeerRequest.DELETE_CHILD, IkeSituation.REKEYING, Reply.AS_USUAL),
]


@pytest.mark.parametrize(("asked", "doing", "answer"), CHILD_RULES)
def test_the_rules_about_child_sas(asked, doing, answer):
    # §2.25.1
    assert CHILD_SA_COLLISIONS[doing, asked] is answer


@pytest.mark.parametrize(("asked", "doing", "answer"), IKE_RULES)
def test_the_rules_about_ike_sas(asked, doing, answer):
    # §2.25.2, and the last of §2.25.1
    assert IKE_SA_COLLISIONS[doing, asked] is answer


def test_a_peer_that_closes_is_never_told_to_wait():
    for table in (IKE_SA_COLLISIONS, CHILD_SA_COLLISIONS):
        for (_, asked), answer in table.items():
            if asked in (PeerRequest.DELETE_CHILD, PeerRequest.DELETE_IKE, PeerRequest.OTHER):
                assert answer is not Reply.TEMPORARY_FAILURE


def test_every_answer_to_a_rekey_has_an_outcome_with_and_without_a_rival():
    for answer in RekeyAnswer:
        assert (answer, Contest.NONE) in REKEY_OUTCOMES
        assert (answer, Contest.SETTLED) in REKEY_OUTCOMES
    assert {contest for answer, contest in REKEY_OUTCOMES if answer is RekeyAnswer.MADE} == set(Contest)


def test_of_two_sides_that_rekey_at_once_exactly_one_takes_over():
    # What is lowest for one side is the other's for the other.
    outcomes = {REKEY_OUTCOMES[RekeyAnswer.MADE, c] for c in (Contest.OURS_LOWEST, Contest.THEIRS_LOWEST)}

    assert outcomes == {RekeyOutcome.DELETE_OURS, RekeyOutcome.TAKE_OVER}


LOW, HIGH, SHORT = b"\x01" + bytes(31), b"\x02" + bytes(31), b"\x02" + bytes(15)


@pytest.mark.parametrize(
    ("ours", "theirs", "contest"),
    [
        ((LOW, HIGH), (HIGH, HIGH), Contest.OURS_LOWEST),
        ((HIGH, LOW), (HIGH, HIGH), Contest.OURS_LOWEST),
        ((HIGH, HIGH), (LOW, HIGH), Contest.THEIRS_LOWEST),
        ((HIGH, HIGH), (HIGH, LOW), Contest.THEIRS_LOWEST),
        # "If you reach the end of one nonce, that nonce is the lower one."
        ((SHORT, HIGH), (HIGH, HIGH), Contest.OURS_LOWEST),
        # No large integers: the first octet decides, not the length.
        ((HIGH, HIGH), (LOW + bytes(32), HIGH), Contest.THEIRS_LOWEST),
    ],
)
def test_nonces_are_compared_octet_by_octet(ours, theirs, contest):
    # §2.8.1
    assert rekey_contest(ours, theirs) is contest
