"""When a new Child SA takes over traffic that another one carries without being its rekey (RFC 7296 §2.8.3).

That is so where the peer authenticates anew, has restarted without our knowledge, or where both sides made
a Child SA at once. At a rekey the exchanges themselves know which one replaces which (`rekey_child_sa.py`);
here only the traffic tells. Two rules keep packets from being lost:

- The responder of the new Child SA goes on sending on the old one for a moment, since the peer may receive
  on the new one only when it has our answer: until traffic comes on the new one, `takeover_s` have passed,
  or the peer deletes the old one.
- A DELETE of the old one, or of its IKE SA, is answered only when the new outbound SA is installed: the peer
  stops receiving on the old one when it has the answer.
"""

from collections.abc import Iterator
from typing import Protocol

from gateway.ike.timers import Timer, TimerKey
from gateway.ike.v2.child_sa import ChildSa
from gateway.ike.v2.context import Context
from gateway.ike.v2.exchange import AwaitTakeover, LetTakeOver
from gateway.ike.v2.ike_sa import IkeSa, Task
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.states import ChildSaState


class Actions(Protocol):
    """What the runner does for us."""

    def resume(self, task: Task) -> None:
        """Go on with a task that waited."""

    def is_installing(self, child_sa: ChildSa) -> bool:
        """Say whether the datapath was asked for one of the SAs of a Child SA and has not answered."""


class Takeovers:
    """The tasks that wait for a takeover, or for the time of one; owned by the runner."""

    __slots__ = ("_actions", "_context", "_ike_sas", "_parked")

    def __init__(self, context: Context, ike_sas: IkeSaTable, actions: Actions) -> None:
        self._context = context
        self._ike_sas = ike_sas
        self._actions = actions
        self._parked: dict[int, Task] = {}

    # --- steps ------------------------------------------------------------------------------------

    def park(self, task: Task, step: AwaitTakeover | LetTakeOver) -> bool:
        """Say whether a task has to wait at this step; if so it is resumed when it need not any more."""
        if isinstance(step, AwaitTakeover):
            if not self._is_served(task.ike_sa, step.child_sa):
                return False
            limit_s = self._context.options.takeover_s
        else:
            self._bring_forward(task.ike_sa, step)
            if not self._has_coming(task.ike_sa, step):
                return False
            limit_s = self._context.options.request_deadline_s
        task.pending = step
        self._parked[task.task_id] = task
        self._context.timers.set(TimerKey(task.task_id, Timer.PAUSE), self._context.now + limit_s)
        return True

    def forget(self, task: Task) -> None:
        """Wait for nothing on behalf of a task that goes on or is over."""
        if self._parked.pop(task.task_id, None) is not None:
            self._context.timers.cancel(TimerKey(task.task_id, Timer.PAUSE))

    # --- as things happen -------------------------------------------------------------------------

    def note_traffic(self, child_sa: ChildSa) -> None:
        """The peer sends on a Child SA: it can receive on it too."""
        for task in tuple(self._parked.values()):
            if isinstance(task.pending, AwaitTakeover) and task.pending.child_sa is child_sa:
                self._actions.resume(task)

    def settle(self) -> None:
        """Something was installed, refused, or ended: perhaps a DELETE can be answered now."""
        if not self._parked:
            return
        for task in tuple(self._parked.values()):
            step = task.pending
            if isinstance(step, LetTakeOver) and not self._has_coming(task.ike_sa, step):
                self._actions.resume(task)

    # --- who carries what -------------------------------------------------------------------------

    def _is_served(self, ike_sa: IkeSa, child_sa: ChildSa) -> bool:
        """Tell whether we send the traffic of a new Child SA on another one."""
        twins = (owner.find_twin(child_sa) for owner in self._owners(ike_sa))
        return any(twin is not None and twin.is_outbound_installed for twin in twins)

    def _bring_forward(self, ike_sa: IkeSa, step: LetTakeOver) -> None:
        """Wait no longer with what is to carry the traffic of Child SAs that go."""
        coming = tuple(self._coming(ike_sa, step))
        for task in tuple(self._parked.values()):
            if isinstance(task.pending, AwaitTakeover) and task.pending.child_sa in coming:
                self._actions.resume(task)

    def _has_coming(self, ike_sa: IkeSa, step: LetTakeOver) -> bool:
        return any(self._actions.is_installing(child_sa) for child_sa in self._coming(ike_sa, step))

    def _coming(self, ike_sa: IkeSa, step: LetTakeOver) -> Iterator[ChildSa]:
        """Yield the Child SAs that are about to carry the traffic of one that goes."""
        for owner in self._owners(ike_sa):
            for child_sa in owner.children.values():
                is_new = child_sa.state is ChildSaState.CREATING and child_sa.replaces is None
                if is_new and any(going.is_carried_by(child_sa) for going in step.child_sas):
                    yield child_sa

    def _owners(self, ike_sa: IkeSa) -> tuple[IkeSa, ...]:
        return (ike_sa, *self._ike_sas.same_pair(ike_sa))
