"""Any two exchanges that cross: every order of their messages, with every single fault (RFC 7296 §2.8,
§2.25).

What must hold is said in `tests/fakes/story.py` and at the end of `tests/fakes/explorer.py`: at every
instant what one side sends with the other can receive, unless something is deleted; at last both sides
agree about every SA, the datapaths have exactly those, and nothing is left to do.
"""

from functools import cache
from itertools import product

import pytest

from tests.fakes.explorer import DATAPATH_FAULTS, FAULTS, MESSAGES, Crossing, Fault, paths, struck

ACTIONS = ("create child", "rekey child", "delete child", "rekey IKE", "delete IKE", "DPD")
PAIRS = tuple(product(ACTIONS, ACTIONS))
CONTESTED = ("create child", "rekey child", "rekey IKE")
"""What makes two where one is wanted when both sides do it: the nonces decide."""
NONCES = MESSAGES[:4]
FEW = 2
"""Situations in which each fault of a message strikes in the short run."""
TWICE = tuple(f"{first}, {second}" for first, second in product(ACTIONS[:5], ACTIONS[:5]))
"""Two commands of one side, of which the second one waits for its turn."""


@cache
def orders_of(ours, theirs):
    """Every order of events of a crossing without a fault."""
    return [tuple(path.events) for path in paths(Crossing(ours, theirs))]


def messages_of(ours, theirs):
    """The messages that appear in any order of a crossing."""
    return sorted({event for events in orders_of(ours, theirs) for event in events} & set(MESSAGES))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_order_of_delivery_ends_in_agreement(ours, theirs):
    assert len(orders_of(ours, theirs)) >= 4


@pytest.mark.parametrize("lowest", NONCES)
@pytest.mark.parametrize("both", CONTESTED)
def test_every_order_ends_in_agreement_whoever_has_the_lowest_nonce(both, lowest):
    assert sum(1 for _ in paths(Crossing(both, both, lowest=lowest))) >= 4


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_one_message_lost_or_doubled_or_late_changes_nothing(ours, theirs):
    faults = [Fault(kind, name) for name in messages_of(ours, theirs) for kind in FAULTS]
    for fault in faults:
        played = list(struck(Crossing(ours, theirs), fault, orders_of(ours, theirs), FEW))
        assert played, fault
        assert all(fault.subject in path.events for path in played)
    assert len(faults) >= 12


@pytest.mark.parametrize(("ours", "theirs"), [pair for pair in PAIRS if pair != ("DPD", "DPD")])
@pytest.mark.parametrize("fault", DATAPATH_FAULTS, ids=str)
def test_a_datapath_that_is_slow_or_refuses_leaves_nothing_behind(ours, theirs, fault):
    assert sum(1 for _ in paths(Crossing(ours, theirs, fault), 2)) >= 1


@pytest.mark.parametrize("theirs", ACTIONS)
@pytest.mark.parametrize("ours", TWICE)
def test_two_commands_of_one_side_and_one_of_the_other_end_in_agreement(ours, theirs):
    assert sum(1 for _ in paths(Crossing(ours, theirs), 1)) == 1
    assert sum(1 for _ in paths(Crossing(theirs, ours), 1)) == 1


# --- the same without limit ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_one_message_lost_or_doubled_or_late_in_every_order(ours, theirs):
    played = 0
    for name in messages_of(ours, theirs):
        for kind in FAULTS:
            played += sum(1 for _ in paths(Crossing(ours, theirs, Fault(kind, name))))
    assert played > 8


@pytest.mark.slow
@pytest.mark.parametrize("fault", DATAPATH_FAULTS, ids=str)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_a_datapath_that_is_slow_or_refuses_in_every_order(ours, theirs, fault):
    assert sum(1 for _ in paths(Crossing(ours, theirs, fault))) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("lowest", NONCES)
@pytest.mark.parametrize("both", CONTESTED)
def test_every_fault_in_every_order_whoever_has_the_lowest_nonce(both, lowest):
    faults = [Fault(kind, name) for name in messages_of(both, both) for kind in FAULTS]
    for fault in (*faults, *DATAPATH_FAULTS):
        assert sum(1 for _ in paths(Crossing(both, both, fault, lowest))) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("theirs", ACTIONS)
@pytest.mark.parametrize("ours", TWICE)
def test_two_commands_of_one_side_and_one_of_the_other_in_many_orders(ours, theirs):
    assert sum(1 for _ in paths(Crossing(ours, theirs), 60)) >= 2
    assert sum(1 for _ in paths(Crossing(theirs, ours), 60)) >= 2
