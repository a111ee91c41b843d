"""What is so about a connection, and since when, in three answers an orchestrator can wait for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.controller.facade import Condition, ConditionStatus, ConditionType, ConnectionState
from gateway.ike.events import Failure

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


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
    return Condition(type=kind, status=_TRUE, reason="policies_in_force")


def _established(standing: Standing) -> Condition:
    kind = ConditionType.ESTABLISHED
    if standing.state is ConnectionState.UP:
        return Condition(type=kind, status=_TRUE, reason="authenticated")
    if standing.state is ConnectionState.FAILED and standing.failure is not None:
        return Condition(
            type=kind, status=_FALSE, reason=standing.failure.reason.value, message=standing.failure.detail
        )
    return Condition(type=kind, status=_FALSE, reason=standing.state.value)


def _carrying(standing: Standing) -> Condition:
    kind = ConditionType.CARRYING
    if standing.missing:
        text = f"down: {', '.join(standing.missing)}"
        return Condition(type=kind, status=_FALSE, reason="children_down", message=text)
    return Condition(type=kind, status=_TRUE, reason="as_wanted")


class Transitions:
    """Remembers when each condition of each connection changed its status.

    Args:
        touched_at: When something about a connection changed last: that is what made its conditions change.
    """

    def __init__(self, touched_at: Callable[[str], float]) -> None:
        self._touched_at = touched_at
        self._known: dict[str, dict[ConditionType, tuple[ConditionStatus, float]]] = {}

    def since(self, connection: str, condition: Condition) -> float:
        """Return when a condition became what it is."""
        known = self._known.setdefault(connection, {})
        status, at = known.get(condition.type, (None, 0.0))
        if status is not condition.status:
            at = self._touched_at(connection)
            known[condition.type] = (condition.status, at)
        return at

    def forget(self, connection: str) -> None:
        """A connection is gone."""
        self._known.pop(connection, None)
