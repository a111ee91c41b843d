"""Put SPD entries in force at the backend whose SAs serve them, and move them without a moment in clear.

Rules a change must keep:

- An entry is in force at its new backend before it is taken away from the old one. While it is at both, a
  packet may be lost, but none leaves in clear.
- Entries that overlap are at one backend (`SpdHomes`). So an entry that would join groups that are in use at
  different backends is refused.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence

from gateway.agent.placed_sas import PlacedSas
from gateway.agent.spd_homes import HomedPolicy, SpdHomes
from gateway.datapath.backend import Datapath, DatapathError, ErrorReason, ItemResult
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction
from gateway.observe.logs import get_logger

_log = get_logger(__name__)


class SpdPlacing:
    """The SPD of this node over several backends.

    Args:
        backends: By name, in the order of preference.
        placed: The SAs; read only.
    """

    def __init__(self, backends: Mapping[str, Datapath], placed: PlacedSas) -> None:
        self._backends = backends
        self._placed = placed
        self._homes = SpdHomes()
        self._leftovers: dict[str, set[str]] = {}

    # --- looking ------------------------------------------------------------------------------------

    def policy(self, name: str) -> Policy | None:
        """Return an entry, if it is there."""
        entry = self._homes.get(name)
        return None if entry is None else entry.policy

    def policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched."""
        policies = (entry.policy for entry in self._homes.all())
        return tuple(sorted(policies, key=lambda policy: (policy.priority, policy.name)))

    def tied_to(self, connection: str, child: str) -> tuple[str, str] | None:
        """Return the backend that SAs of a (connection, child) must be at, and the entry that binds them."""
        if len(self._backends) == 1:
            return None
        entries = self._homes.of_child(connection, child)
        own = {entry.policy.name for entry in entries}
        for other in self._homes.group(entry.policy for entry in entries):
            backend = self._in_use_at(other.policy) if other.policy.name not in own else None
            if backend is not None:
                return backend, other.policy.name
        return None

    def _in_use_at(self, policy: Policy) -> str | None:
        """Return the backend with the newest outbound SA that serves an entry."""
        if policy.action is not Action.PROTECT:
            return None
        serving = self._placed.of_child(policy.connection, policy.child, Direction.OUTBOUND)
        return serving[-1].backend if serving else None

    # --- changing -----------------------------------------------------------------------------------

    def adopt(self, policy: Policy, home: str) -> None:
        """Take note of an entry that was in force before us; of one at two backends the first counts."""
        if self._homes.get(policy.name) is None:
            self._homes.put(HomedPolicy(policy=policy, generation=0, home=home))
        else:
            self._leftovers.setdefault(home, set()).add(policy.name)

    async def apply(
        self, policies: Sequence[Policy], generation: int, expected: Mapping[str, str]
    ) -> tuple[ItemResult, ...]:
        """Put entries in force, and with them those that they overlap.

        Args:
            policies: The entries.
            generation: Of who asks.
            expected: By name of an entry, the backend where its SAs will probably be.
        """
        await self._sweep()
        before: dict[str, HomedPolicy | None] = {}
        errors: dict[str, DatapathError] = {}
        for policy in policies:
            try:
                self._plan(policy, generation, expected[policy.name], before)
            except DatapathError as error:
                errors[policy.name] = error
        errors |= await self._carry_out(before)
        return tuple(ItemResult(name=policy.name, error=errors.get(policy.name)) for policy in policies)

    async def lead(self, connection: str, child: str, backend: str) -> None:
        """Move the entries that a (connection, child) serves, and what overlaps them, to its backend.

        Raises:
            DatapathError: The backend does not take one of them; all are where they were.
        """
        entries = self._homes.of_child(connection, child)
        if all(entry.home == backend for entry in entries):
            return
        before: dict[str, HomedPolicy | None] = {}
        self._move(self._homes.group(entry.policy for entry in entries), backend, before)
        _log.info(
            "policies_follow_sa", connection=connection, child=child, backend=backend, policies=len(before)
        )
        errors = await self._carry_out(before, together=True)
        for error in errors.values():
            raise error

    async def remove(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Take entries away, wherever they are; one that nobody knows is looked for everywhere."""
        await self._sweep()
        by_home: dict[str, list[str]] = {}
        for name in names:
            entry = self._homes.get(name)
            for home in self._backends if entry is None else (entry.home,):
                by_home.setdefault(home, []).append(name)
        errors: dict[str, DatapathError] = {}
        for home, at_home in by_home.items():
            for answer in await _asked(self._backends[home].remove_policies(at_home), at_home):
                if answer.error is not None:
                    errors[answer.name] = answer.error
        for name in names:
            if name not in errors:
                self._homes.drop(name)
        return tuple(ItemResult(name=name, error=errors.get(name)) for name in names)

    def forget(self, names: Iterable[str]) -> None:
        """Drop entries that a backend has removed itself."""
        for name in names:
            self._homes.drop(name)

    # --- the work -----------------------------------------------------------------------------------

    def _plan(
        self, policy: Policy, generation: int, expected: str, before: dict[str, HomedPolicy | None]
    ) -> None:
        """Decide where an entry and what it overlaps have to be, and note it as if it were done.

        Raises:
            DatapathError: POLICY_CONFLICT: it joins entries in use at different backends.
        """
        neighbours = self._neighbours(policy)
        in_use: dict[str, str] = {}
        for other in (policy, *(entry.policy for entry in neighbours)):
            backend = self._in_use_at(other)
            if backend is not None:
                in_use.setdefault(backend, other.name)
        if len(in_use) > 1:
            raise DatapathError(
                ErrorReason.POLICY_CONFLICT,
                f"{policy.name} overlaps entries whose SAs are at different backends ("
                + ", ".join(f"{name} at {backend}" for backend, name in in_use.items())
                + "); such entries must be at one",
            )
        home = next(iter(in_use), neighbours[0].home if neighbours else expected)
        before.setdefault(policy.name, self._homes.get(policy.name))
        self._homes.put(HomedPolicy(policy=policy, generation=generation, home=home))
        self._move(neighbours, home, before)

    def _neighbours(self, policy: Policy) -> list[HomedPolicy]:
        if len(self._backends) == 1:
            return []
        return [entry for entry in self._homes.group([policy]) if entry.policy.name != policy.name]

    def _move(self, entries: Iterable[HomedPolicy], home: str, before: dict[str, HomedPolicy | None]) -> None:
        for entry in entries:
            if entry.home != home:
                before.setdefault(entry.policy.name, entry)
                self._homes.move(entry.policy.name, home)

    async def _carry_out(
        self, before: Mapping[str, HomedPolicy | None], *, together: bool = False
    ) -> dict[str, DatapathError]:
        """Put what was planned in force, then take it away from where it was; return what was refused.

        Args:
            before: The entries that change, as they are in force now.
            together: Undo everything if one is refused.
        """
        batches: dict[tuple[str, int], list[Policy]] = {}
        for name in before:
            entry = self._homes.get(name)
            assert entry is not None
            batches.setdefault((entry.home, entry.generation), []).append(entry.policy)
        errors: dict[str, DatapathError] = {}
        for (home, generation), batch in batches.items():
            names = [policy.name for policy in batch]
            for answer in await _asked(self._backends[home].apply_policies(batch, generation), names):
                if answer.error is not None:
                    errors[answer.name] = answer.error
        for name, old in before.items():
            entry = self._homes.get(name)
            assert entry is not None
            if name in errors or (together and errors):
                if name in errors:
                    _log.warning(
                        "policy_not_placed", policy=name, backend=entry.home, error=str(errors[name])
                    )
                elif old is None or old.home != entry.home:
                    self._leftovers.setdefault(entry.home, set()).add(name)
                self._restore(name, old)
            elif old is not None and old.home != entry.home:
                self._leftovers.setdefault(old.home, set()).add(name)
        await self._sweep()
        return errors

    def _restore(self, name: str, old: HomedPolicy | None) -> None:
        if old is None:
            self._homes.drop(name)
        else:
            self._homes.put(old)

    async def _sweep(self) -> None:
        """Take entries away from where they are not at home any more; what fails is tried again later."""
        for home, names in tuple(self._leftovers.items()):
            gone = sorted(name for name in names if not self._is_at(name, home))
            for answer in await _asked(self._backends[home].remove_policies(gone), gone):
                if answer.error is None:
                    names.discard(answer.name)
                else:
                    _log.warning(
                        "policy_left_behind", policy=answer.name, backend=home, error=str(answer.error)
                    )
            names.intersection_update(gone)
            if not names:
                del self._leftovers[home]

    def _is_at(self, name: str, home: str) -> bool:
        entry = self._homes.get(name)
        return entry is not None and entry.home == home


async def _asked(answers: Awaitable[tuple[ItemResult, ...]], names: Sequence[str]) -> tuple[ItemResult, ...]:
    """Return a backend's answers; if it fails as a whole, that for every item."""
    try:
        return await answers
    except DatapathError as error:
        return tuple(ItemResult(name=name, error=error) for name in names)
