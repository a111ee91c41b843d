"""Making the desired state so: what changes, what that costs, and all of it in one order, or nothing.

The order of a change, and why nothing is half-applied wherever it ends:

1. What is refused is refused: the rest of this is about what is not.
2. Policies go in force at the datapath. Ended here, the next controller puts those of the old state in force
   again, and what is new is removed by generation.
3. The state is kept, in one transaction. From here on a restart finds the new one.
4. The core and everyone else take it, in one go, without waiting for anything.
5. Policies that nobody wants any more are withdrawn; ended before that, the next controller does it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.controller.connections import ChildKey, Connections
from gateway.controller.core import Core
from gateway.controller.credentials import Credentials
from gateway.controller.datapath_link import CALL_TIMEOUT_S
from gateway.controller.desired import Desired, DesiredState
from gateway.controller.facade import (
    NO_ETAGS,
    NO_IMPACT,
    Applied,
    ApplyResult,
    ConnectionApplied,
    ControlError,
    ControlErrorReason,
    Impact,
    WantedConnection,
)
from gateway.controller.history import History
from gateway.controller.ledger import Ledger
from gateway.controller.protection import Protection
from gateway.controller.tally import Tally
from gateway.controller.uniqueness import is_carrying, is_serving
from gateway.datapath.backend import DatapathError
from gateway.ike.errors import LocalError
from gateway.ike.events import IkeSaInfo
from gateway.ike.v2.change import Change, Effect, change_of
from gateway.ipsec.authentication import AuthMethod
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.secret import Secret
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

NOT_PROTECTED_YET: Final = (
    "the datapath does not answer: the policies are put in force when it does, before there is any SA"
)
CHUNK: Final = 64
"""Connections after which others get their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One connection as a `DesiredStore` keeps it."""

    name: str
    generation: int
    etag: str
    document: Secret | None
    """As it was asked for, secrets included."""


class StoreError(GatewayError):
    """The desired state cannot be written; the text says why and what to do."""


class DesiredStore(Protocol):
    """Keeps the desired state where it outlives the controller."""

    async def save(self, changed: Sequence[Kept], removed: Sequence[str], generation: int) -> None:
        """Keep all of it or, after an error, nothing of it; on disk when this returns.

        Raises:
            StoreError: It cannot be kept.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One connection of an apply that is not refused and not as it was."""

    item: WantedConnection
    applied: Applied
    desired: Desired
    change: Change | None
    """`None`: it is new."""
    impact: Impact


class Applying:
    """See module. The controller owns it and everything it is given.

    Args:
        desired: What is wanted; changed here only.
        store: Where it is kept, or None.
        core: The IKE core.
        connections: Brings Child SAs up.
        credentials: Keys, private keys, CRLs.
        protection: The policies.
        history: Takes what was applied.
        ledger: Takes which connection changed.
        tally: Counters by connection.
        has_datapath: Says whether the datapath is there.
        removed: Told of each connection that is gone.
    """

    def __init__(
        self,
        *,
        desired: DesiredState,
        store: DesiredStore | None,
        core: Core,
        connections: Connections,
        credentials: Credentials,
        protection: Protection,
        history: History,
        ledger: Ledger,
        tally: Tally,
        has_datapath: Callable[[], bool],
        removed: Callable[[str], None],
    ) -> None:
        self._desired = desired
        self._store = store
        self._core = core
        self._connections = connections
        self._credentials = credentials
        self._protection = protection
        self._history = history
        self._ledger = ledger
        self._tally = tally
        self._has_datapath = has_datapath
        self._removed = removed
        #: The generation of each connection whose policies are, or were last, in force.
        self._in_force: dict[str, int] = {}
        #: Changes that were taken while the datapath was away.
        self._to_rekey: list[_Plan] = []

    def observed_generation(self, name: str) -> int:
        """Return the generation of a connection that is in force, or was when the datapath was there."""
        return self._in_force.get(name, 0)

    def note_all_in_force(self) -> None:
        """The datapath was met, and given every policy: what waited for that is done."""
        self._in_force = {name: held.generation for name, held in self._held(self._desired)}
        waiting, self._to_rekey = self._to_rekey, []
        self._rekey(waiting)

    async def apply(
        self,
        wanted: Sequence[WantedConnection],
        *,
        validate_only: bool,
        prune: bool,
        generation: int,
        etags: Mapping[str, str] = NO_ETAGS,
        kept: Mapping[str, Kept] | None = None,
    ) -> tuple[ApplyResult, ...]:
        """Make connections so; see `ControlFacade.apply`.

        Args:
            wanted: The connections.
            validate_only: Only say what would be done.
            prune: Delete what is not among them.
            generation: The orchestrator's.
            etags: What the connections must be.
            kept: What is already kept, when it is applied again after a restart: it is not written again.
        """
        self._desired.check_generation(generation)
        self._desired.check_etags(etags)
        named = {item.connection.name for item in wanted}
        doomed = [name for name in self._desired.names() if name not in named] if prune else []
        plans, refused = await self._plan(wanted, doomed, kept or {})
        in_force = False
        if not validate_only:
            not_protected, in_force = await self._protect(plans)
            refused |= not_protected
            plans = {name: plan for name, plan in plans.items() if name not in refused}
        ends = {
            name: self._impact(name, change_of(held.connection, None)) for name, held in self._held(doomed)
        }
        if not validate_only:
            if kept is None:
                await self._keep(plans, doomed, generation)
            self._desired.generation = max(self._desired.generation, generation)
            if plans or doomed:
                await self._take(plans, doomed, in_force=in_force)
        warnings = () if validate_only or in_force else (NOT_PROTECTED_YET,)
        results = [self._result(item, plans, refused, warnings) for item in wanted]
        results += [ApplyResult(name=name, applied=Applied.DELETED, impact=ends[name]) for name in doomed]
        return tuple(results)

    async def delete(
        self, names: Sequence[str], *, validate_only: bool, generation: int, etags: Mapping[str, str]
    ) -> tuple[ApplyResult, ...]:
        """Forget connections; see `ControlFacade.delete`."""
        self._desired.check_generation(generation)
        self._desired.check_etags(etags)
        doomed = [name for name in dict.fromkeys(names) if name in self._desired]
        ends = {
            name: self._impact(name, change_of(held.connection, None)) for name, held in self._held(doomed)
        }
        if not validate_only:
            await self._keep({}, doomed, generation)
            self._desired.generation = max(self._desired.generation, generation)
            if doomed:
                await self._take({}, doomed, in_force=True)
        return tuple(
            ApplyResult(
                name=name,
                applied=Applied.DELETED if name in ends else Applied.UNCHANGED,
                impact=ends.get(name, NO_IMPACT),
            )
            for name in names
        )

    def _held(self, names: Iterable[str]) -> list[tuple[str, Desired]]:
        return [(name, held) for name in names if (held := self._desired.get(name)) is not None]

    # --- before anything happens ------------------------------------------------------------------

    async def _plan(
        self, wanted: Sequence[WantedConnection], doomed: Sequence[str], kept: Mapping[str, Kept]
    ) -> tuple[dict[str, _Plan], dict[str, ControlError]]:
        """Return what is to be done, and what is refused, by name; what is neither is so already."""
        refused: dict[str, ControlError] = {}
        differing: list[tuple[WantedConnection, Applied]] = []
        for i, item in enumerate(wanted):
            if i % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
            missing = self._missing_credential(item)
            if missing is not None:
                refused[item.connection.name] = missing
                continue
            applied = self._difference(item)
            if applied is not Applied.UNCHANGED:
                differing.append((item, applied))
        for name, why in self._desired.conflicts([item.connection for item, _ in differing], doomed).items():
            refused[name] = ControlError(ControlErrorReason.CONFLICT, why)
        plans = {}
        for i, (item, applied) in enumerate(differing):
            if i % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
            name = item.connection.name
            if name not in refused:
                plans[name] = self._planned(item, applied, kept.get(name))
        return plans, refused

    def _planned(self, item: WantedConnection, applied: Applied, kept: Kept | None) -> _Plan:
        name = item.connection.name
        held = self._desired.get(name)
        change = None if held is None else change_of(held.connection, item.connection)
        if kept is None:
            desired = self._desired.successor(item.connection)
        else:
            desired = Desired(connection=item.connection, generation=kept.generation, etag=kept.etag)
        return _Plan(
            item=item,
            applied=applied,
            desired=desired,
            change=change,
            impact=NO_IMPACT if change is None else self._impact(name, change),
        )

    def _difference(self, item: WantedConnection) -> Applied:
        name = item.connection.name
        connection = self._desired.connection(name)
        if connection is None:
            return Applied.CREATED
        held = self._credentials
        is_same = (
            connection == item.connection
            and (item.psk is None or held.is_psk(name, item.psk))
            and (item.crls is None or held.are_crls(name, item.crls))
        )
        # Private keys are known by their public halves, which are part of the connection.
        return Applied.UNCHANGED if is_same else Applied.UPDATED

    def _missing_credential(self, item: WantedConnection) -> ControlError | None:
        """Return what is wrong with what a connection says to keep."""
        connection, held = item.connection, self._credentials
        methods = (connection.local.auth.method, connection.remote.auth.method)
        if AuthMethod.PSK in methods and item.psk is None and not held.has_psk(connection.name):
            return ControlError(
                ControlErrorReason.NO_PSK,
                f"connection {connection.name} says to keep its pre-shared key, but none is held: give one",
            )
        if item.private_keys is None and not held.can_sign(connection):
            return ControlError(
                ControlErrorReason.NO_CREDENTIAL,
                f"connection {connection.name} says to keep its private key, but none is held that fits",
            )
        if item.crls is None and not held.has_crls(connection.name):
            return ControlError(
                ControlErrorReason.NO_CREDENTIAL,
                f"connection {connection.name} says to keep its CRLs, but none is held: give them",
            )
        return None

    def _impact(self, name: str, change: Change) -> Impact:
        """Return what a change does to the SAs that a connection has now."""
        ike_sas, child_sas = self._core.sas_of(name)
        ike = sum(is_serving(sa) and not sa.is_replaced for sa in ike_sas)
        children = dict.fromkeys(Effect, 0)
        for child_sa in child_sas:
            if is_carrying(child_sa):
                children[change.of_child(child_sa.child)] += 1
        return Impact(
            ike_sa_rekeys=ike if change.ike is Effect.REKEY else 0,
            child_sa_rekeys=children[Effect.REKEY],
            ike_sa_restarts=ike if change.ike is Effect.RESTART else 0,
            child_sa_restarts=children[Effect.RESTART],
            ike_sa_ends=ike if change.ike is Effect.END else 0,
            child_sa_ends=children[Effect.END],
        )

    def _result(
        self,
        item: WantedConnection,
        plans: Mapping[str, _Plan],
        refused: Mapping[str, ControlError],
        warnings: tuple[str, ...],
    ) -> ApplyResult:
        name = item.connection.name
        held = self._desired.get(name)
        etag, generation = ("", 0) if held is None else (held.etag, held.generation)
        if name in refused:
            return ApplyResult(
                name=name, applied=Applied.REFUSED, error=refused[name], etag=etag, generation=generation
            )
        plan = plans.get(name)
        if plan is None:
            return ApplyResult(name=name, applied=Applied.UNCHANGED, etag=etag, generation=generation)
        return ApplyResult(
            name=name,
            applied=plan.applied,
            changed_fields=self._changed_fields(plan),
            impact=plan.impact,
            warnings=warnings,
            etag=etag,
            generation=generation,
        )

    def _changed_fields(self, plan: _Plan) -> tuple[str, ...]:
        if plan.change is None:
            return ()
        # The rest of what an update can be about is no part of the connection.
        return plan.change.fields or ("credentials",)

    # --- policies, then the store -----------------------------------------------------------------

    async def _protect(self, plans: Mapping[str, _Plan]) -> tuple[dict[str, ControlError], bool]:
        """Put the policies of what is about to be configured in force.

        Returns:
            What the datapath refuses; and whether all else is in force now, or will be when it is met again.
        """
        if not plans or not self._has_datapath():
            return {}, False
        changed = {
            policy.name: policy
            for policy in self._protection.changes(plan.item.connection for plan in plans.values())
        }
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                refused = await self._protection.put_in_force(tuple(changed.values()))
                # A connection is taken whole or not at all: what it had before must not lose its protection.
                halves = {changed[name].connection for name in refused}
                await self._protection.put_back(
                    [policy for policy in changed.values() if policy.connection in halves]
                )
        except (DatapathError, TimeoutError) as error:
            # It is done when the datapath is met again, before anything else.
            self._protection.fall_behind("policies_not_applied_yet", changed, error)
            return {}, False
        return {
            changed[name].connection: ControlError(
                ControlErrorReason.DATAPATH_REFUSED, f"policy {name}: {error}"
            )
            for name, error in refused.items()
        }, True

    async def _keep(self, plans: Mapping[str, _Plan], doomed: Sequence[str], generation: int) -> None:
        """Write the new state, if there is one and it is to be kept.

        Raises:
            ControlError: STATE_NOT_KEPT; policies are as before.
        """
        if self._store is None or not (plans or doomed or generation > self._desired.generation):
            return
        changed = [
            Kept(
                name=name,
                generation=plan.desired.generation,
                etag=plan.desired.etag,
                document=plan.item.document,
            )
            for name, plan in plans.items()
        ]
        try:
            await self._store.save(changed, doomed, max(generation, self._desired.generation))
        except StoreError as error:
            await self._unprotect(plans)
            raise ControlError(ControlErrorReason.STATE_NOT_KEPT, str(error)) from error

    async def _unprotect(self, plans: Mapping[str, _Plan]) -> None:
        changed = self._protection.changes(plan.item.connection for plan in plans.values())
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._protection.put_back(changed)
        except (DatapathError, TimeoutError) as error:
            self._protection.fall_behind("policies_not_put_back_yet", [p.name for p in changed], error)

    # --- taking effect ----------------------------------------------------------------------------

    async def _take(self, plans: Mapping[str, _Plan], doomed: Sequence[str], *, in_force: bool) -> None:
        with_new_crls = [
            name
            for name, plan in plans.items()
            if plan.item.crls is not None and not self._credentials.are_crls(name, plan.item.crls)
        ]
        interrupted = [key for plan in plans.values() for key in self._interrupted(plan)]
        for name, plan in plans.items():
            self._desired.put(plan.desired)
            self._credentials.configure(plan.item.connection, plan.item.private_keys, plan.item.crls)
            if plan.item.psk is not None:
                self._credentials.set_psk(name, plan.item.psk)
            if in_force:
                self._in_force[name] = plan.desired.generation
        for name in doomed:
            self._desired.remove(name)
            self._in_force.pop(name, None)
        changed = [plan.item.connection for plan in plans.values()]
        self._core.command(lambda endpoint, now: endpoint.update(changed, doomed, now))
        self._review_trust(with_new_crls)
        self._connections.update(changed, doomed)
        self._protection.update(changed, doomed)
        self._tell(plans, doomed)
        if self._has_datapath():
            await self._protection.withdraw()
        for key in interrupted:
            self._connections.revive(key)
        # Also what was to be withdrawn may have shown that the datapath is not there.
        if self._has_datapath():
            self._connections.begin_for(plans)
            self._rekey(plans.values())
        else:
            self._to_rekey += plans.values()

    def _tell(self, plans: Mapping[str, _Plan], doomed: Sequence[str]) -> None:
        for name in doomed:
            self._credentials.forget(name)
            self._ledger.remove(name)
            self._removed(name)
        if doomed:
            self._tally.keep_only(self._desired)
        self._ledger.touch_together(plans)
        told = [(name, plan.applied) for name, plan in plans.items()]
        for name, applied in (*told, *((name, Applied.DELETED) for name in doomed)):
            _log.info("connection_applied", connection=name, applied=applied.value)
            self._history.record(ConnectionApplied(name=name, applied=applied))

    def _interrupted(self, plan: _Plan) -> list[ChildKey]:
        """Return the children that carry traffic now and that the change ends, to be brought up again."""
        if plan.change is None:
            return []
        name = plan.item.connection.name
        return [
            (name, sa.child)
            for sa in self._core.sas_of(name)[1]
            if is_carrying(sa) and plan.change.of_child(sa.child) is Effect.RESTART
        ]

    def _rekey(self, plans: Iterable[_Plan]) -> None:
        """Rekey what only that makes as it is configured; what cannot now follows with its next rekey."""
        for plan in plans:
            name, change = plan.item.connection.name, plan.change
            if change is None or plan.impact == NO_IMPACT:
                continue
            ike_sas, child_sas = self._core.sas_of(name)
            try:
                for ike_sa in ike_sas:
                    if change.ike is Effect.REKEY and _may_be_rekeyed(ike_sa):
                        self._core.rekey_ike(ike_sa.ike_sa_id)
                for child_sa in child_sas:
                    if change.of_child(child_sa.child) is Effect.REKEY and is_carrying(child_sa):
                        self._core.rekey_child(child_sa.child_sa_id)
            except LocalError as error:
                _log.debug("not_rekeyed_now", connection=name, error=str(error))

    def _review_trust(self, connections: Sequence[str]) -> None:
        """Cut off peers whose certificates are revoked by now."""
        for name in connections:
            for ike_sa in self._core.sas_of(name)[0]:
                if self._credentials.may_be_revoked(name, ike_sa.remote_certificates):
                    self._core.review_trust(ike_sa.ike_sa_id)


def _may_be_rekeyed(ike_sa: IkeSaInfo) -> bool:
    return is_serving(ike_sa) and not ike_sa.is_replaced
