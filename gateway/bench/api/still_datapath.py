"""A datapath that keeps policies and SAs and carries nothing: what a controller costs is its own work."""

from collections.abc import Sequence
from itertools import count

from gateway.datapath.backend import (
    Capabilities,
    Counters,
    DatapathEvent,
    InstalledSa,
    ItemResult,
)
from gateway.datapath.watch import EventQueue
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import MIN_SPI, IpAddress, IpsecProtocol, Mode, SaId, SecurityAssociation, Spi

_BACKLOG = 1024


class StillDatapath:
    """See module (`Datapath`)."""

    def __init__(self) -> None:
        self.policies: dict[str, tuple[Policy, int]] = {}
        self.sas: dict[SaId, InstalledSa] = {}
        self._spis = count(MIN_SPI)

    async def capabilities(self) -> Capabilities:
        """Return what it would take."""
        return Capabilities(
            name="still",
            engines=(Engine.SOFTWARE,),
            encryption=((Encr.AES_GCM_16, 256),),
            integrity=(Integ.HMAC_SHA2_256_128,),
            protocols=(IpsecProtocol.ESP,),
            modes=(Mode.TUNNEL,),
            esn=True,
            udp_encapsulation=True,
            max_replay_window_packets=4096,
            counters_survive_restart=True,
        )

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:  # noqa: ARG002 - the same for all
        """Count on."""
        return tuple(Spi(next(self._spis)) for _ in range(count))

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Keep them."""
        for sa in sas:
            self.sas[sa.sa_id] = InstalledSa(sa=sa, placement=Engine.SOFTWARE, generation=generation)
        return tuple(ItemResult(name=sa.sa_id, placement=Engine.SOFTWARE) for sa in sas)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Forget them."""
        for sa_id in sa_ids:
            self.sas.pop(sa_id, None)
        return tuple(ItemResult(name=sa_id) for sa_id in sa_ids)

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Keep them."""
        for policy in policies:
            self.policies[policy.name] = (policy, generation)
        return tuple(ItemResult(name=policy.name) for policy in policies)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Forget them."""
        for name in names:
            self.policies.pop(name, None)
        return tuple(ItemResult(name=name) for name in names)

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return what is kept."""
        return tuple(self.sas.values())

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return what is kept, in the order of search."""
        return tuple(
            sorted((policy for policy, _ in self.policies.values()), key=lambda p: (p.priority, p.name))
        )

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Forget what is older."""
        old_sas = [sa_id for sa_id, item in self.sas.items() if item.generation < generation]
        old_policies = [name for name, (_, number) in self.policies.items() if number < generation]
        for sa_id in old_sas:
            del self.sas[sa_id]
        for name in old_policies:
            del self.policies[name]
        return (*old_sas, *old_policies)

    async def counters(self) -> Counters:
        """Return that nothing was carried."""
        return Counters(sas=(), drops={})

    def events(self) -> EventQueue[DatapathEvent]:
        """Return a stream in which nothing happens."""
        return EventQueue(_BACKLOG, lambda _: None)

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
