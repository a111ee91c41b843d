"""What is so about a connection, and since when, in three answers an orchestrator can wait for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gateway.controller.facade import Condition, ConditionStatus, ConditionType, ConnectionState
from gateway.ike.events import Failure

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

# Nearly every connection has these.
_IN_FORCE = Condition(type=ConditionType.PROTECTED, status=_TRUE, reason="policies_in_force")
_AUTHENTICATED = Condition(type=ConditionType.ESTABLISHED, status=_TRUE, reason="authenticated")
_NOT_ESTABLISHED = {
    state: Condition(type=ConditionType.ESTABLISHED, status=_FALSE, reason=state.value)
    for state in ConnectionState
}
_AS_WANTED = Condition(type=ConditionType.CARRYING, status=_TRUE, reason="as_wanted")

Conditions = tuple[Condition, ...]
"""All conditions of one connection, in the order of their types."""

#: Where nothing is the matter: the very same objects for thousands of connections, so that what is made of
#: them is made once.
_USUAL: Final[Mapping[ConnectionState, Conditions]] = {
    state: (
        _IN_FORCE,
        _AUTHENTICATED if state is ConnectionState.UP else _NOT_ESTABLISHED[state],
        _AS_WANTED,
    )
    for state in ConnectionState
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the conditions of one connection follow from."""

    state: ConnectionState
    failure: Failure | None
    """The last one."""
    has_datapath: bool
    datapath_problem: str
    policy_problems: Mapping[str, str]
    """Why SPD entries are not in force, by name."""
    missing: tuple[str, ...]
    """Children that are to be up and carry nothing."""


def conditions_of(standing: Standing) -> Conditions:
    """Return every condition, without the time of its last change."""
    is_usual = standing.has_datapath and not standing.policy_problems and not standing.missing
    if is_usual and (standing.failure is None or standing.state is not ConnectionState.FAILED):
        return _USUAL[standing.state]
    return (_protected(standing), _established(standing), _carrying(standing))


def _protected(standing: Standing) -> Condition:
    kind = ConditionType.PROTECTED
    if standing.policy_problems:
        text = "; ".join(f"{name}: {why}" for name, why in standing.policy_problems.items())
        return Condition(type=kind, status=_FALSE, reason="policies_refused", message=text)
    if not standing.has_datapath:
        # What was in force stays so without us, but nobody can be asked.
        return Condition(
            type=kind, status=_UNKNOWN, reason="datapath_unavailable", message=standing.datapath_problem
        )
    return _IN_FORCE


def _established(standing: Standing) -> Condition:
    kind = ConditionType.ESTABLISHED
    if standing.state is ConnectionState.UP:
        return _AUTHENTICATED
    if standing.state is ConnectionState.FAILED and standing.failure is not None:
        return Condition(
            type=kind, status=_FALSE, reason=standing.failure.reason.value, message=standing.failure.detail
        )
    return _NOT_ESTABLISHED[standing.state]


def _carrying(standing: Standing) -> Condition:
    if standing.missing:
        text = f"down: {', '.join(standing.missing)}"
        return Condition(type=ConditionType.CARRYING, status=_FALSE, reason="children_down", message=text)
    return _AS_WANTED


@dataclass(frozen=True, slots=True)
class _Dated:
    undated: Conditions
    at: float
    """When the newest of them became so."""
    dated: Conditions


class Transitions:
    """Remembers when each condition of each connection changed its status.

    Args:
        touched_at: When something about a connection changed last: that is what made its conditions change.
    """

    def __init__(self, touched_at: Callable[[str], float]) -> None:
        self._touched_at = touched_at
        self._known: dict[str, _Dated] = {}
        #: The last one that was new as a whole: what was applied together has it together.
        self._newest = _Dated((), 0.0, ())

    def dated(self, connection: str, conditions: Conditions) -> Conditions:
        """Return all conditions of a connection, each with the time at which it became what it is."""
        before = self._known.get(connection)
        if before is not None and (before.undated is conditions or before.undated == conditions):
            return before.dated
        at = self._touched_at(connection)
        known = self._new(conditions, at) if before is None else _changed(before, conditions, at)
        self._known[connection] = known
        return known.dated

    def _new(self, conditions: Conditions, at: float) -> _Dated:
        newest = self._newest
        if newest.undated is not conditions or newest.at != at:
            dated = tuple(replace(condition, changed_at=at) for condition in conditions)
            newest = self._newest = _Dated(conditions, at, dated)
        return newest

    def forget(self, connection: str) -> None:
        """A connection is gone."""
        self._known.pop(connection, None)


def _changed(before: _Dated, conditions: Conditions, at: float) -> _Dated:
    """Return conditions that are others than before; what kept its status keeps its time."""
    old = {condition.type: condition for condition in before.dated}
    dated = []
    for condition in conditions:
        was = old[condition.type]
        dated.append(replace(condition, changed_at=was.changed_at if was.status is condition.status else at))
    return _Dated(conditions, at, tuple(dated))
