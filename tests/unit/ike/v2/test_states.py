"""The tables of legal transitions."""

import pytest

from gateway.ike.errors import LocalError
from gateway.ike.v2.states import (
    AUTHENTICATED_STATES,
    CARRYING_STATES,
    CHILD_SA_TRANSITIONS,
    IKE_SA_TRANSITIONS,
    SERVING_STATES,
    ChildSaState,
    ChildSaTrigger,
    IkeSaState,
    IkeSaTrigger,
    next_child_state,
    next_ike_state,
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
