"""Several IKE SAs with one pair of identities: which of them stays (RFC 7296 §2.4, §2.8.2, §2.8.3).

They come about in four ways, and each has its own answer:

- Both sides started at once. The IKE SA with the lowest nonce goes, as of two successors of a rekey
  (§2.8.2): its initiator deletes it, and if it does not (others need not), we do it a little later.
- One side authenticates anew (§2.8.3, there is no exchange for it): the old one goes, as soon as the new one
  carries its Child SAs. Make before break: whoever began it deletes it.
- The peer has restarted and says INITIAL_CONTACT: what is older has ended at its end, and ends here at once.
- The peer has restarted and does not say so, or it is another device with the same identity. Nobody can tell
  which; the operator's policy decides (`ipsec.connection.Unique`).

Nothing is ever taken away before something else carries its traffic, except by INITIAL_CONTACT and where
there are more than the operator allows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from gateway.ike.events import Failure, FailureReason
from gateway.ike.timers import Timer
from gateway.ike.v2.context import Context
from gateway.ike.v2.exchange import Denied, Plan, PlanKind
from gateway.ike.v2.ike_sa import IkeSa
from gateway.ike.v2.ike_sa_table import IkeSaTable
from gateway.ike.v2.states import CARRYING_STATES, SERVING_STATES, ChildSaState
from gateway.ipsec.connection import Unique

CROSSING_S: Final = 30.0
"""An IKE SA that stood this long before another one began, in seconds, surely did not cross with it: that is
longer than an IKE_SA_INIT request is repeated. What is nearer together may look otherwise to the peer, and
each side would delete the other one."""


class Actions(Protocol):
    """What the runner does for us."""

    def ask(self, ike_sa: IkeSa, plan: Plan, *, first: bool = False) -> None:
        """Do something as soon as the request window is free."""

    def end(self, ike_sa: IkeSa, failure: Failure) -> None:
        """End an IKE SA and everything in it, and tell why."""

    def end_with_delete(self, ike_sa: IkeSa, failure: Failure) -> None:
        """The same, and say so to the peer once."""


class Why(Enum):
    """Why one IKE SA takes the place of another; the value is what the operator is told."""

    CROSSED = "both sides started at once; the other IKE SA stays"
    REAUTHENTICATED = "a new IKE SA was authenticated in its place"
    REPLACED = "a newer IKE SA with the same identities carries its traffic"


@dataclass(slots=True)
class _Succession:
    """One IKE SA that goes as soon as another one carries its Child SAs."""

    loser: IkeSa
    why: Why
    was_checked: bool = False
    """The peer was asked for a sign of life on it, or (crossed, reauthenticated) for what is missing."""


class Uniqueness:
    """See module; owned by the runner."""

    __slots__ = ("_actions", "_context", "_ike_sas", "_successions", "_winners")

    def __init__(self, context: Context, ike_sas: IkeSaTable, actions: Actions) -> None:
        self._context = context
        self._ike_sas = ike_sas
        self._actions = actions
        self._successions: dict[int, list[_Succession]] = {}
        """By the number of the IKE SA that stays."""
        self._winners: dict[int, IkeSa] = {}
        """That IKE SA, by the number of the one that goes."""

    # --- before there is another one ----------------------------------------------------------------

    def refusal(self, ike_sa: IkeSa) -> Denied | None:
        """Return why the authenticated peer of a new IKE SA may not have it, if so.

        The older one may be dead without our knowledge: the peer is asked for a sign of life there.
        """
        if ike_sa.connection.ike.unique is not Unique.REJECT:
            return None
        rival = next((o for o in self._ike_sas.same_pair(ike_sa) if not _is_same_place(ike_sa, o)), None)
        if rival is None:
            return None
        self._actions.ask(rival, Plan(kind=PlanKind.LIVENESS))
        return Denied("NOT_UNIQUE", f"{ike_sa.remote_id} has an IKE SA from {rival.path.remote} already")

    def supersede(self, winner: IkeSa, loser: IkeSa, why: Why) -> None:
        """Let `winner` take the place of `loser` as soon as it carries its Child SAs."""
        if loser.id in self._winners:
            return
        self._successions.setdefault(winner.id, []).append(_Succession(loser, why))
        self._winners[loser.id] = winner

    # --- as things happen -----------------------------------------------------------------------------

    def established(self, ike_sa: IkeSa) -> None:
        """Both sides of a new IKE SA are authenticated: decide about those with the same identities."""
        for other in self._ike_sas.same_pair(ike_sa):
            self._settle(ike_sa, other)
        self._enforce_limit(ike_sa)
        for succession in self._successions.get(ike_sa.id, ()):
            self._bring_over(ike_sa, succession)

    def at_rest(self, ike_sa: IkeSa) -> None:
        """An exchange of this IKE SA ended: perhaps it, or another, can go now."""
        if not self._successions:
            return
        winner = self._winners.get(ike_sa.id, ike_sa)
        for succession in tuple(self._successions.get(winner.id, ())):
            self._retire(winner, succession)

    def inherit(self, old: IkeSa, new: IkeSa) -> None:
        """An IKE rekey made `new` from `old`: what was to happen to the one happens to the other."""
        if new.is_doomed:
            return
        for succession in self._successions.pop(old.id, ()):
            self._winners[succession.loser.id] = new
            self._successions.setdefault(new.id, []).append(succession)
        winner = self._winners.pop(old.id, None)
        if winner is not None:
            self._winners[new.id] = winner
            for succession in self._successions[winner.id]:
                if succession.loser is old:
                    succession.loser = new

    def ended(self, ike_sa: IkeSa) -> None:
        """An IKE SA is gone: what it was to replace stays; by the clock, it is tried again a little later."""
        for succession in self._successions.pop(ike_sa.id, ()):
            del self._winners[succession.loser.id]
            loser = succession.loser
            if succession.why is Why.REAUTHENTICATED and loser.state in SERVING_STATES and loser.reauth_at:
                retry_at = self._context.now + self._context.options.rekey_retry_s
                loser.set_timer(Timer.IKE_REAUTH, retry_at)
        winner = self._winners.get(ike_sa.id)
        if winner is not None:
            self._forget(winner, ike_sa)

    def winner_of(self, ike_sa: IkeSa) -> IkeSa | None:
        """Return the IKE SA that takes the place of this one."""
        return self._winners.get(ike_sa.id)

    def is_under_way(self, ike_sa: IkeSa) -> bool:
        """Say whether something takes the place of this IKE SA already."""
        return ike_sa.id in self._winners

    # --- decisions --------------------------------------------------------------------------------------

    def _settle(self, ike_sa: IkeSa, other: IkeSa) -> None:
        """Decide about an older IKE SA with the same identities."""
        assert other.established_at is not None
        policy = ike_sa.connection.ike.unique
        stood_s = ike_sa.began_at - other.established_at
        if other.established_at >= ike_sa.began_at:
            self._settle_crossing(ike_sa, other)
        elif self._is_gone_at_peer(ike_sa, other, policy):
            detail = "the peer made INITIAL_CONTACT: it has lost this IKE SA"
            self._actions.end(other, Failure(reason=FailureReason.REPLACED, detail=detail))
        elif policy in (Unique.REPLACE, Unique.REJECT) and stood_s > CROSSING_S:
            self.supersede(ike_sa, other, Why.REPLACED)

    def _is_gone_at_peer(self, ike_sa: IkeSa, other: IkeSa, policy: Unique) -> bool:
        if not ike_sa.had_initial_contact or not self._context.options.accept_initial_contact:
            return False
        return policy is not Unique.NEVER and (policy is not Unique.REJECT or _is_same_place(ike_sa, other))

    def _settle_crossing(self, ike_sa: IkeSa, other: IkeSa) -> None:
        if ike_sa.is_initiator is other.is_initiator:
            return
        if ike_sa.connection.ike.unique in (Unique.ALLOW, Unique.NEVER) and not _is_same_place(ike_sa, other):
            return
        loser, winner = sorted((ike_sa, other), key=lambda sa: min(sa.nonce_i, sa.nonce_r))
        if loser.is_initiator:
            self.supersede(winner, loser, Why.CROSSED)
            self.at_rest(winner)
        else:
            loser.set_timer(Timer.IKE_LINGER, self._context.now + self._context.options.duplicate_grace_s)

    def _enforce_limit(self, ike_sa: IkeSa) -> None:
        """Let the oldest go where one pair of identities has more IKE SAs than the operator allows."""
        staying = (other for other in self._ike_sas.same_pair(ike_sa) if not self.is_under_way(other))
        others = sorted(staying, key=lambda sa: sa.established_at or 0.0)
        allowed = ike_sa.connection.ike.ike_sas_per_peer
        for oldest in others[: max(0, len(others) + 1 - allowed)]:
            detail = f"the peer has more than {allowed} IKE SAs; this was the oldest"
            self._actions.end_with_delete(oldest, Failure(reason=FailureReason.REPLACED, detail=detail))

    # --- make before break ------------------------------------------------------------------------------

    def _bring_over(self, winner: IkeSa, succession: _Succession) -> None:
        """Ask for every Child SA of the one that goes, where it is for us to do so."""
        if succession.why is not Why.REAUTHENTICATED:
            return
        first = None if winner.initiating is None else winner.initiating.plan
        for name in _carried(succession.loser):
            if first is None or first.child != name:
                winner.plan(Plan(kind=PlanKind.NEW_CHILD, child=name))

    def _retire(self, winner: IkeSa, succession: _Succession) -> None:
        loser = succession.loser
        if winner.state not in SERVING_STATES or loser.state not in SERVING_STATES:
            if winner.established_at is not None or loser.state not in SERVING_STATES:
                self._forget(winner, loser)
            return
        if not _is_at_rest(winner) or not _is_at_rest(loser):
            return
        missing = [name for name in _carried(loser) if name not in set(_carried(winner))]
        if missing and not self._is_given_up(winner, succession, missing):
            return
        self._forget(winner, loser)
        failure = Failure(reason=FailureReason.REPLACED, detail=succession.why.value)
        self._actions.ask(loser, Plan(kind=PlanKind.DELETE_IKE, failure=failure), first=True)

    def _is_given_up(self, winner: IkeSa, succession: _Succession, missing: Iterable[str]) -> bool:
        """See to Child SAs that are missing in the one that stays; say whether it stays all the same."""
        first_time, succession.was_checked = not succession.was_checked, True
        if succession.why is Why.REPLACED:
            # The peer decides which Child SAs it brings up. If it is gone where the others are, we learn it.
            if first_time:
                self._actions.ask(succession.loser, Plan(kind=PlanKind.LIVENESS))
            return False
        if succession.why is Why.CROSSED and not first_time:
            return True
        for name in missing:
            plan = Plan(kind=PlanKind.NEW_CHILD, child=name)
            if first_time:
                self._actions.ask(winner, plan)
            elif not any(delayed.child == name for delayed in winner.delayed.values()):
                winner.delay(plan, self._context.options.rekey_retry_s)
        return False

    def _forget(self, winner: IkeSa, loser: IkeSa) -> None:
        left = [s for s in self._successions.pop(winner.id, ()) if s.loser is not loser]
        if left:
            self._successions[winner.id] = left
        self._winners.pop(loser.id, None)


def _is_same_place(one: IkeSa, other: IkeSa) -> bool:
    return one.path.remote == other.path.remote


def _is_at_rest(ike_sa: IkeSa) -> bool:
    """Tell whether nothing is under way that may change which Child SAs there are."""
    return not (ike_sa.initiating or ike_sa.responding or ike_sa.background or ike_sa.plans)


def _carried(ike_sa: IkeSa) -> list[str]:
    """Return the names of the Children whose traffic an IKE SA carries."""
    carrying = CARRYING_STATES | {ChildSaState.CREATING}
    names = (c.parameters.child.name for c in ike_sa.children.values() if c.state in carrying)
    return list(dict.fromkeys(names))
