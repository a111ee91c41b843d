"""The SPD entries of all connections, kept in force at the datapath whatever else happens (fail closed).

What the datapath did not do, or did not say that it did, it is told again when it is met again: a call that
fails while it seems to be there is reason enough to meet it again.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.controller.datapath_link import CALL_TIMEOUT_S, failure_text
from gateway.controller.policies import policy_name, wanted_policies
from gateway.datapath.backend import Datapath, DatapathError
from gateway.ike.events import ChildSaInfo
from gateway.ipsec.connection import Child, Connection
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import IpAddress, IpsecProtocol
from gateway.observe.logs import get_logger

_log = get_logger(__name__)


class Protection:
    """What is wanted in the SPD, what is in force, and what the datapath would not take.

    Args:
        datapath: Where the policies go.
        source_address: Which address the kernel would use towards a peer.
        meet_again: Told why the datapath is to be met again: it may be without something that is wanted.
    """

    def __init__(
        self,
        datapath: Datapath,
        source_address: Callable[[IpAddress], IpAddress | None],
        meet_again: Callable[[str], None],
    ) -> None:
        self._datapath = datapath
        self._source_address = source_address
        self._meet_again = meet_again
        self._policies: dict[str, Policy] = {}
        #: Entries whose selectors were only known from a negotiation.
        self._negotiated: dict[str, Policy] = {}
        #: The names of both, by connection.
        self._of: dict[str, set[str]] = {}
        self._to_remove: set[str] = set()
        self._problems: dict[str, str] = {}
        #: Given with everything that is applied.
        self.generation = 0

    @property
    def problems(self) -> Mapping[str, str]:
        """Why policies are not in force, by name."""
        return self._problems

    def configure(self, connections: Iterable[Connection]) -> None:
        """Make `connections` the whole configuration; `withdraw` takes away what is not in it."""
        configured = {item.name: item for item in connections}
        self.update(configured.values(), self._of.keys() - configured.keys())

    def update(self, changed: Iterable[Connection], removed: Iterable[str]) -> None:
        """Want the policies of these connections as they are now, and no more those of others."""
        changed, removed = tuple(changed), tuple(removed)
        children = {item.name: {policy_name(item.name, c.name) for c in item.children} for item in changed}
        now = wanted_policies(changed, self._source_address)
        before = [name for item in (*children, *removed) for name in self._of.get(item, ())]
        for name in before:
            self._policies.pop(name, None)
        self._policies |= now
        for item in removed:
            self._of.pop(item, None)
        for name, of_item in children.items():
            # Of children whose selectors a negotiation told, the entries stay.
            negotiated = (self._of.get(name, set()) & of_item & self._negotiated.keys()) - now.keys()
            self._of[name] = {policy for policy in of_item if policy in now or policy in negotiated}
        left = {policy for item in children for policy in self._of[item]}
        for name in before:
            if name not in left or name in now:
                self._negotiated.pop(name, None)
            if name not in left:
                self._to_remove.add(name)
                self._problems.pop(name, None)
        self._to_remove -= left

    def problems_of(self, connection: str) -> dict[str, str]:
        """Return why policies of one connection are not in force, by name."""
        if not self._problems:
            return {}
        return {
            name: self._problems[name]
            for name in sorted(self._of.get(connection, ()))
            if name in self._problems
        }

    def changes(self, connections: Iterable[Connection]) -> tuple[Policy, ...]:
        """Return the policies that these connections would add or change."""
        future = wanted_policies(connections, self._source_address)
        return tuple(policy for name, policy in future.items() if self._policies.get(name) != policy)

    async def restore(self) -> None:
        """Put everything in force at a datapath that (re)appeared.

        Raises:
            DatapathError: It does not answer.
        """
        await self.put_in_force((*self._policies.values(), *self._negotiated.values()))
        await self._withdraw()

    async def put_in_force(self, policies: Sequence[Policy]) -> dict[str, DatapathError]:
        """Apply SPD entries; return those that were refused, by name.

        Raises:
            DatapathError: The datapath does not answer.
        """
        refused: dict[str, DatapathError] = {}
        if not policies:
            return refused
        for answer in await self._datapath.apply_policies(policies, self.generation):
            self._problems.pop(answer.name, None)
            if answer.error is not None:
                refused[answer.name] = answer.error
                self._problems[answer.name] = str(answer.error)
                _log.error("policy_refused", policy=answer.name, reason=str(answer.error))
        return refused

    async def put_back(self, policies: Sequence[Policy]) -> None:
        """Undo what was applied for a connection that was refused: what was in force before is again.

        Raises:
            DatapathError: The datapath does not answer.
        """
        names = [policy.name for policy in policies]
        before = [self._policies.get(name) or self._negotiated.get(name) for name in names]
        new = [name for name, policy in zip(names, before, strict=True) if policy is None]
        # Before anything can fail: what fails is made up for by `restore`.
        self._to_remove.update(new)
        for name in new:
            self._problems.pop(name, None)
        await self.put_in_force([policy for policy in before if policy is not None])
        await self._withdraw()

    async def withdraw(self) -> None:
        """Take away what is not configured any more; what fails is done when the datapath is met again."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._withdraw()
        except (DatapathError, TimeoutError) as error:
            self.fall_behind("policies_not_removed_yet", self._to_remove, error)

    async def _withdraw(self) -> None:
        if self._to_remove:
            names = tuple(self._to_remove)
            await self._datapath.remove_policies(names)
            self._to_remove.difference_update(names)

    def add_negotiated(self, child_sa: ChildSaInfo, child: Child) -> bool:
        """Want an entry for a Child SA, if the configuration alone did not tell its selectors; say if so."""
        name = policy_name(child_sa.connection, child_sa.child)
        if name in self._policies:
            return False
        self._negotiated[name] = Policy(
            name=name,
            action=child.action,
            local_ts=child_sa.local_ts,
            remote_ts=child_sa.remote_ts,
            priority=child.priority,
            mode=child.mode,
            protocol=IpsecProtocol[child.protocol.name],
            acquire=False,
            connection=child_sa.connection,
            child=child_sa.child,
            placement=child.placement,
            interface_id=child.interface_id,
            interface=child.interface,
            mark_in=child.marks.inbound,
            mark_out=child.marks.outbound,
        )
        self._of.setdefault(child_sa.connection, set()).add(name)
        return True

    async def follow_addresses(self, policies: Sequence[Policy]) -> None:
        """Put policies in force that changed with an address of ours, now or when the datapath is back."""
        self._policies |= {policy.name: policy for policy in policies if policy.name in self._policies}
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self.put_in_force(policies)
        except (DatapathError, TimeoutError) as error:
            self.fall_behind("policies_not_applied_yet", [p.name for p in policies], error)

    async def apply_negotiated(self) -> None:
        """Put what `add_negotiated` wants in force."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self.put_in_force(tuple(self._negotiated.values()))
        except (DatapathError, TimeoutError) as error:
            self.fall_behind("policies_not_applied_yet", self._negotiated, error)

    def fall_behind(self, event: str, policies: Iterable[str], error: Exception) -> None:
        """Note that the datapath may not have what it was told, and have it met again.

        Args:
            event: For the log.
            policies: The entries in question.
            error: What came of the call.
        """
        reason = failure_text(error)
        _log.warning(event, policies=sorted(policies), error=reason)
        self._meet_again(reason)
