"""Whose SAs and policies are at this node: the IKE controller's, or an orchestrator's with keys of its own.

RFC 9061 calls the second the IKE-less case. Both may use one node at once: each counts its own generations,
sees everything, and changes nothing of the other's. The IKE controller is the owner without a name. What
others own has the highest generation at the backends, so that no `Reconcile` of theirs removes it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from gateway.datapath.backend import (
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    InstalledSa,
    ItemResult,
)
from gateway.datapath.watch import Watch
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import IpAddress, SaId, SecurityAssociation, Spi

IKE: Final = ""
"""The owner without a name."""
UNKNOWN: Final = "unknown"
"""Owns what another agent before this one was given by somebody else than the IKE controller."""
FOREIGN_GENERATION: Final = (1 << 63) - 1
"""What everything but the IKE controller's has at the backends."""


@dataclass(slots=True)
class Owners:
    """Who owns what, and with which generation; what is not in here is the IKE controller's."""

    sas: dict[SaId, tuple[str, int]] = field(default_factory=dict)
    policies: dict[str, tuple[str, int]] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    """By owner: the last generation that was reconciled."""

    def check_generation(self, owner: str, generation: int) -> None:
        """Refuse what is older than the owner's last reconcile; 0 is for those who do not count.

        Raises:
            DatapathError: STALE_GENERATION.
        """
        floor = self.floors.get(owner, 0)
        if 0 < generation < floor:
            raise DatapathError(
                ErrorReason.STALE_GENERATION,
                f"generation {generation} of {owner} is older than {floor}, which was reconciled already",
            )

    def check_sa(self, sa_id: SaId, owner: str) -> None:
        """Refuse to touch another's SA.

        Raises:
            DatapathError: NOT_OWNER.
        """
        self._check(sa_id, self.sas.get(sa_id, (IKE, 0))[0], owner)

    def check_policy(self, name: str, owner: str) -> None:
        """Refuse to touch another's policy.

        Raises:
            DatapathError: NOT_OWNER.
        """
        self._check(f"policy {name}", self.policies.get(name, (IKE, 0))[0], owner)

    def _check(self, what: str, holder: str, owner: str) -> None:
        if holder not in (owner, UNKNOWN):
            raise DatapathError(
                ErrorReason.NOT_OWNER,
                f"{what} belongs to {holder or 'the IKE controller'}, not to {owner or 'the IKE controller'}",
            )

    def take_sa(self, sa_id: SaId, owner: str, generation: int) -> None:
        """Note that an SA is there and whose it is."""
        if owner == IKE:
            self.sas.pop(sa_id, None)
        else:
            before = self.sas.get(sa_id, (owner, 0))[1]
            self.sas[sa_id] = (owner, max(before, generation))

    def take_policy(self, name: str, owner: str, generation: int) -> None:
        """Note that a policy is in force and whose it is."""
        if owner == IKE:
            self.policies.pop(name, None)
        else:
            self.policies[name] = (owner, generation)

    def drop(self, names: Iterable[str]) -> None:
        """Forget SAs and policies that are gone."""
        for name in names:
            self.sas.pop(SaId(name), None)
            self.policies.pop(name, None)

    def older(self, owner: str, generation: int) -> tuple[tuple[SaId, ...], tuple[str, ...]]:
        """Return an owner's SAs and policies of older generations."""
        return (
            tuple(sa_id for sa_id, (whose, n) in self.sas.items() if whose == owner and n < generation),
            tuple(name for name, (whose, n) in self.policies.items() if whose == owner and n < generation),
        )

    def adopt(self, installed: InstalledSa) -> None:
        """Note an SA that the backend carries since before this agent."""
        if installed.generation == FOREIGN_GENERATION:
            self.sas[installed.sa.sa_id] = (UNKNOWN, 0)

    def adopt_policy(self, name: str) -> None:
        """Note a policy that is in force since before this agent: whoever applies it again has it."""
        self.policies[name] = (UNKNOWN, 0)

    def shown(self, installed: InstalledSa) -> InstalledSa:
        """Return an SA with its owner, and with the generation that the owner gave it."""
        owner, generation = self.sas.get(installed.sa.sa_id, (IKE, installed.generation))
        return replace(installed, owner=owner, generation=generation)


class Shared(Protocol):
    """What an agent does for any owner."""

    async def install_for(
        self, owner: str, sas: Sequence[SecurityAssociation], generation: int
    ) -> tuple[ItemResult, ...]:
        """Install SAs."""

    async def remove_for(self, owner: str, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs."""

    async def apply_for(
        self, owner: str, policies: Sequence[Policy], generation: int
    ) -> tuple[ItemResult, ...]:
        """Put SPD entries in force."""

    async def withdraw_for(self, owner: str, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries."""

    async def reconcile_for(self, owner: str, generation: int) -> tuple[str, ...]:
        """Remove what is of an older generation."""

    async def capabilities(self) -> Capabilities:
        """Return what the datapath can do."""

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve SPIs."""

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA, whoever owns it."""

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD, whoever owns its entries."""

    async def counters(self) -> Counters:
        """Return all counters."""


class OwnedDatapath:
    """An agent as one owner has it (`Datapath`); closing it closes nothing.

    Args:
        agent: The agent.
        owner: Whose calls these are.
        events: Opens a stream of events, by which nothing lives or dies.
    """

    def __init__(self, agent: Shared, owner: str, events: Callable[[], Watch[DatapathEvent]]) -> None:
        self._agent = agent
        self._owner = owner
        self._events = events

    async def capabilities(self) -> Capabilities:
        """Return what the datapath can do."""
        return await self._agent.capabilities()

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve SPIs, of which there is one set for all."""
        return await self._agent.allocate_spis(count, destination)

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs."""
        return await self._agent.install_for(self._owner, sas, generation)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs."""
        return await self._agent.remove_for(self._owner, sa_ids)

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Put SPD entries in force."""
        return await self._agent.apply_for(self._owner, policies, generation)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries."""
        return await self._agent.withdraw_for(self._owner, names)

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA, whoever owns it."""
        return await self._agent.list_sas()

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD, whoever owns its entries."""
        return await self._agent.list_policies()

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove what this owner has of an older generation."""
        return await self._agent.reconcile_for(self._owner, generation)

    async def counters(self) -> Counters:
        """Return all counters."""
        return await self._agent.counters()

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on."""
        return self._events()

    async def close(self) -> None:
        """Do nothing: the agent is somebody else's."""
