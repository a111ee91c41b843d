"""Keep the kernel's policies what the SPD and the SAD say they must be."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.xfrm.errors import XfrmError
from gateway.datapath.xfrm.forwarding import Forwarding
from gateway.datapath.xfrm.journal import Journal, PolicyNote
from gateway.datapath.xfrm.kernel import change_policies
from gateway.datapath.xfrm.netlink import XfrmThread
from gateway.datapath.xfrm.routes import Routes
from gateway.datapath.xfrm.sad import Sad
from gateway.datapath.xfrm.spd import Change, Entry, Serves, Spd
from gateway.host.errors import HostError
from gateway.ipsec.policy import Policy
from gateway.observe.logs import get_logger

_log = get_logger(__name__)


def serves_of(policy: Policy) -> Serves:
    """Return the (connection, child) whose SAs serve an SPD entry."""
    return policy.connection, policy.child


class PolicyKeeper:
    """Tells the kernel what changes in the SPD. Calls must not overlap.

    Args:
        thread: To the kernel.
        spd: What is wanted.
        sad: The SAs that carry it.
        routes: So that traffic gets to its policy.
        journal: Remembers what was applied.
        forwarding: Stops before a NIC loses a policy; `None`: nobody forwards past the kernel.
    """

    def __init__(
        self,
        thread: XfrmThread,
        spd: Spd,
        sad: Sad,
        routes: Routes,
        journal: Journal,
        *,
        forwarding: Forwarding | None = None,
    ) -> None:
        self._thread = thread
        self._spd = spd
        self._sad = sad
        self._routes = routes
        self._journal = journal
        self._forwarding = forwarding
        self._missing_route: dict[str, None] = {}
        """Entries whose SAs changed since no route was found for want of a known peer."""

    async def apply(
        self, policies: Sequence[Policy], generation: int
    ) -> tuple[Mapping[str, DatapathError], DatapathError | None]:
        """Add or replace entries.

        Returns:
            What is wrong with single ones, by name; and why the kernel refused all, if it did.
        """
        before = {policy.name: self._spd.get(policy.name) for policy in policies}
        errors: dict[str, DatapathError] = {}
        # In the order of the SPD: so its numbers are given out without giving any twice.
        for policy in sorted(policies, key=lambda policy: (policy.priority, policy.name)):
            try:
                if not policy.name:
                    raise DatapathError(ErrorReason.POLICY_CONFLICT, "a policy needs a name")
                self._spd.put(policy, generation, self._sad.carriers(serves_of(policy)))
            except DatapathError as error:
                errors[policy.name] = error
        refusal = await self._settle_or_put_back(before)
        entries = [entry for name in before if (entry := self._spd.get(name)) is not None]
        for entry in entries:
            self._note(entry)
        await self.steer(entries)
        return errors, refusal

    def _note(self, entry: Entry) -> None:
        label = self._spd.label(entry.policy.name)
        self._journal.note_policy(PolicyNote(policy=entry.policy, generation=entry.generation, label=label))

    async def withdraw(self, names: Sequence[str]) -> DatapathError | None:
        """Remove entries; return why the kernel refused, if it did."""
        before = {name: self._spd.drop(name) for name in names}
        refusal = await self._settle_or_put_back(before)
        if refusal is None:
            for name in names:
                self._routes.forget(name)
                self._journal.forget_policy(name)
            await self.steer(())
        return refusal

    async def follow(self, serves: Serves) -> DatapathError | None:
        """Have the policies of a (connection, child) lead to the SAs it has now.

        A new SA may tell how to reach what nothing leads to: `steer` finds out.
        """
        entries = self._spd.entries_of(serves)
        if not entries:
            return None
        carriers = self._sad.carriers(serves)
        try:
            for entry in entries:
                self._spd.follow(entry.policy.name, carriers)
        except DatapathError as error:
            return error
        self._missing_route.update(
            dict.fromkeys(entry.policy.name for entry in entries if self._routes.misses(entry.policy.name))
        )
        return await self.settle()

    async def settle(self) -> DatapathError | None:
        """Tell the kernel what it has not heard yet; return its refusal, if it refused."""
        changes = self._spd.changes()
        if not changes:
            return None
        await self._stop_forwarding(changes)
        try:
            progress = await self._thread.run(lambda xfrm: change_policies(xfrm, changes))
        except XfrmError as error:
            return DatapathError(ErrorReason.SYSTEM, str(error))
        for change in progress.done:
            self._spd.note(change.key, change.policy)
        return None if progress.error is None else DatapathError(ErrorReason.SYSTEM, str(progress.error))

    async def _stop_forwarding(self, changes: Iterable[Change]) -> None:
        """Forward nothing by policies that a device is to lose, or to have otherwise, while it has them."""
        if self._forwarding is None:
            return
        before = (self._spd.in_kernel(change.key) for change in changes)
        offloaded = [policy for policy in before if policy is not None and policy.offload is not None]
        await self._forwarding.withdraw_served(
            {template.reqid for policy in offloaded for template in policy.templates}
        )

    async def _settle_or_put_back(self, before: Mapping[str, Entry | None]) -> DatapathError | None:
        """Settle; if the kernel refuses, want again what was wanted before."""
        refusal = await self.settle()
        if refusal is None:
            return None
        for name, entry in before.items():
            self._spd.drop(name)
            if entry is not None:
                self._spd.put(entry.policy, entry.generation, self._sad.carriers(serves_of(entry.policy)))
        again = await self.settle()
        if again is not None:
            _log.error("policies_not_put_back", reason=str(again))
        return refusal

    async def steer(self, entries: Iterable[Entry]) -> None:
        """See that the routing finds a way for the traffic of these entries, and of those `follow` was about.

        Where it finds none the traffic is unreachable, not in clear: that is told, and no error.
        """
        waiting = [self._spd.get(name) for name in self._missing_route]
        self._missing_route = {}
        try:
            for entry in (*entries, *(entry for entry in waiting if entry is not None)):
                outbound = self._sad.carriers(serves_of(entry.policy)).outbound
                peers = [carrier.destination for carrier in outbound]
                if entry.policy.remote_address is not None:
                    peers.append(entry.policy.remote_address)
                await self._routes.follow(entry.policy, peers)
            await self._routes.put_in_force()
        except HostError as error:
            _log.warning("routing_failed", reason=str(error))
