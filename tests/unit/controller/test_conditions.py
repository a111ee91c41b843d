"""Conditions of connections, and since when they are so."""

from gateway.controller.conditions import Conditions, Standing, Transitions, conditions_of
from gateway.controller.facade import ConditionStatus, ConditionType, ConnectionState
from gateway.ike.events import Failure, FailureReason


def standing(
    state: ConnectionState = ConnectionState.DOWN,
    *,
    failure: Failure | None = None,
    has_datapath: bool = True,
    policy_problems: dict[str, str] | None = None,
    missing: tuple[str, ...] = (),
) -> Standing:
    """Return what the conditions of a connection without any trouble follow from, unless told otherwise."""
    return Standing(
        state=state,
        failure=failure,
        has_datapath=has_datapath,
        datapath_problem="" if has_datapath else "gone",
        policy_problems=policy_problems or {},
        missing=missing,
    )


def told(conditions: Conditions) -> dict[ConditionType, tuple[ConditionStatus, str, str]]:
    """Return status, reason and message by type."""
    return {c.type: (c.status, c.reason, c.message) for c in conditions}


def test_connection_without_trouble_shares_its_conditions_with_all_its_like() -> None:
    assert conditions_of(standing()) is conditions_of(standing())
    assert conditions_of(standing(ConnectionState.UP)) is not conditions_of(standing())


def test_each_trouble_is_told_by_its_condition_alone() -> None:
    refused = told(conditions_of(standing(policy_problems={"paris/lan": "no room"})))
    away = told(conditions_of(standing(has_datapath=False)))
    missing = told(conditions_of(standing(ConnectionState.UP, missing=("lan",))))
    why = Failure(reason=FailureReason.TIMEOUT, detail="nobody answered")
    failed = told(conditions_of(standing(ConnectionState.FAILED, failure=why)))
    usual = told(conditions_of(standing()))

    assert refused == usual | {
        ConditionType.PROTECTED: (ConditionStatus.FALSE, "policies_refused", "paris/lan: no room")
    }
    assert away == usual | {
        ConditionType.PROTECTED: (ConditionStatus.UNKNOWN, "datapath_unavailable", "gone")
    }
    assert missing == told(conditions_of(standing(ConnectionState.UP))) | {
        ConditionType.CARRYING: (ConditionStatus.FALSE, "children_down", "down: lan")
    }
    assert failed == usual | {
        ConditionType.ESTABLISHED: (ConditionStatus.FALSE, why.reason.value, "nobody answered")
    }


def test_failure_of_the_past_says_nothing_of_a_connection_that_is_up() -> None:
    why = Failure(reason=FailureReason.TIMEOUT, detail="nobody answered")

    assert conditions_of(standing(ConnectionState.UP, failure=why)) == conditions_of(
        standing(ConnectionState.UP)
    )


def test_condition_keeps_its_time_until_its_status_is_another() -> None:
    now = 10.0
    transitions = Transitions(lambda _: now)
    first = transitions.dated("paris", conditions_of(standing(missing=("lan",))))
    assert {c.changed_at for c in first} == {10.0}

    now = 20.0
    # Another reason, the same status; and one that is another now.
    second = transitions.dated("paris", conditions_of(standing(ConnectionState.CONNECTING)))

    at = {c.type: (c.changed_at, c.reason) for c in second}
    assert at[ConditionType.ESTABLISHED] == (10.0, "connecting")
    assert at[ConditionType.CARRYING] == (20.0, "as_wanted")
    assert transitions.dated("paris", conditions_of(standing(ConnectionState.CONNECTING))) is second


def test_connections_touched_at_one_time_share_their_dated_conditions() -> None:
    at = {"a": 10.0, "b": 10.0, "c": 11.0}
    transitions = Transitions(at.__getitem__)

    a, b, c = (transitions.dated(name, conditions_of(standing())) for name in "abc")

    assert a is b
    assert c is not b
    assert {condition.changed_at for condition in c} == {11.0}


def test_connection_that_is_made_again_begins_anew() -> None:
    now = 10.0
    transitions = Transitions(lambda _: now)
    transitions.dated("paris", conditions_of(standing()))
    transitions.forget("paris")

    now = 30.0

    assert {c.changed_at for c in transitions.dated("paris", conditions_of(standing()))} == {30.0}
