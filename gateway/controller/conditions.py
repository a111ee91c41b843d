"""What is so about a connection, and since when, in three answers an orchestrator can wait for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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


def conditions_of(standing: Standing) -> tuple[Condition, ...]:
    """Return every condition, without the time of its last change."""
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


class Transitions:
    """Remembers when each condition of each connection changed its status.

    Args:
        touched_at: When something about a connection changed last: that is what made its conditions change.
    """

    def __init__(self, touched_at: Callable[[str], float]) -> None:
        self._touched_at = touched_at
        self._known: dict[str, dict[ConditionType, Condition]] = {}

    def dated(self, connection: str, condition: Condition) -> Condition:
        """Return a condition with the time at which it became what it is."""
        known = self._known.setdefault(connection, {})
        before = known.get(condition.type)
        if before is not None and before.status is condition.status:
            if before.reason == condition.reason and before.message == condition.message:
                return before
            at = before.changed_at
        else:
            at = self._touched_at(connection)
        dated = known[condition.type] = replace(condition, changed_at=at)
        return dated

    def forget(self, connection: str) -> None:
        """A connection is gone."""
        self._known.pop(connection, None)
