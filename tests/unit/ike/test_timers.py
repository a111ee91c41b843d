"""The table that knows what is due next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ike.timers import Timer, TimerKey, TimerTable

A = TimerKey(1, Timer.RETRANSMIT)
B = TimerKey(1, Timer.LIVENESS)
C = TimerKey(2, Timer.PAUSE, 7)


def due(table, now):
    keys = []
    while (key := table.pop_due(now)) is not None:
        keys.append(key)
    return keys


def test_an_empty_table_waits_for_nothing():
    table = TimerTable()

    assert table.next_deadline() is None
    assert table.pop_due(1e9) is None


def test_timers_come_in_the_order_of_their_deadlines_and_only_once():
    table = TimerTable()
    table.set(B, 20.0)
    table.set(A, 10.0)
    table.set(C, 15.0)

    assert table.next_deadline() == 10.0
    assert due(table, 15.0) == [A, C]
    assert due(table, 15.0) == []
    assert table.next_deadline() == 20.0


def test_equal_deadlines_come_in_the_order_they_were_set():
    table = TimerTable()
    for key in (C, A, B):
        table.set(key, 5.0)

    assert due(table, 5.0) == [C, A, B]


@pytest.mark.parametrize("later", [5.0, 50.0])
def test_a_timer_that_is_set_again_has_only_its_new_deadline(later):
    table = TimerTable()
    table.set(A, 10.0)
    table.set(A, later)

    assert len(table) == 1
    assert table.deadline(A) == table.next_deadline() == later
    assert due(table, 100.0) == [A]


def test_a_cancelled_timer_never_comes():
    table = TimerTable()
    table.set(A, 10.0)
    table.set(B, 11.0)
    table.cancel(A)
    table.cancel(C)

    assert A not in table
    assert table.next_deadline() == 11.0
    assert due(table, 100.0) == [B]


def test_an_owner_takes_all_its_timers_along():
    table = TimerTable()
    for key in (A, B, C):
        table.set(key, 1.0)
    table.cancel_owner(1)

    assert due(table, 1.0) == [C]


def test_a_timer_that_moves_for_ever_takes_no_more_memory():
    table = TimerTable()
    for step in range(100_000):
        table.set(A, float(step))

    assert len(table) == 1
    assert len(table._heap) <= 66


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "cancel", "owner", "pop"]), st.integers(1, 3), st.integers(0, 40))
    )
)
def test_the_table_agrees_with_a_plain_dictionary(actions):
    table, model = TimerTable(), {}
    for action, owner, number in actions:
        key = TimerKey(owner, Timer.PAUSE, number % 3)
        if action == "set":
            table.set(key, float(number))
            model[key] = float(number)
        elif action == "cancel":
            table.cancel(key)
            model.pop(key, None)
        elif action == "owner":
            table.cancel_owner(owner)
            model = {k: v for k, v in model.items() if k.owner != owner}
        else:
            popped = due(table, float(number))
            assert set(popped) == {k for k, v in model.items() if v <= number}
            model = {k: v for k, v in model.items() if v > number}
        assert len(table) == len(model)
        assert table.next_deadline() == min(model.values(), default=None)
