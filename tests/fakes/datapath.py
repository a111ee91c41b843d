"""A datapath that carries nothing: it keeps SAs and policies as a real one would, in memory.

`FakeSad` is the state, with plain calls, for tests of the IKE core; `FakeDatapath` is the same behind the
`Datapath` protocol, for tests of the controller and the API, and passes the conformance suite as far as it
goes without packets.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from gateway.datapath.backend import (
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    InstalledSa,
    ItemResult,
    SaCounters,
)
from gateway.host.errors import HostError
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, Mode, SaId, SecurityAssociation, Spi


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the SAD's history."""

    verb: str
    """`install` or `remove`."""
    sa: SecurityAssociation


class FakeSad:
    """SAD and SPD of one node.

    Args:
        first_spi: The SPIs it gives out count up from here.
        max_sas: Refuse more with TABLE_FULL.
    """

    def __init__(self, first_spi: int = 0x1001, max_sas: int | None = None) -> None:
        self._next_spi = first_spi
        self._max_sas = max_sas
        self.reserved: set[Spi] = set()
        self.sas: dict[SaId, InstalledSa] = {}
        self.policies: dict[str, tuple[Policy, int]] = {}
        self.history: list[Change] = []

    def allocate_spi(self) -> Spi:
        """Reserve an SPI that was never given out before."""
        spi = Spi(self._next_spi)
        self._next_spi += 1
        self.reserved.add(spi)
        return spi

    def install(
        self, sa: SecurityAssociation, generation: int = 0, placement: Engine = Engine.SOFTWARE
    ) -> ItemResult:
        """Install one SA; the same again is a success without effect."""
        there = self.sas.get(sa.sa_id)
        if there is not None and there.sa != sa:
            return _refused(sa.sa_id, ErrorReason.SPI_IN_USE, f"SPI {sa.spi:08x} has another SA")
        if there is None and self._max_sas is not None and len(self.sas) >= self._max_sas:
            return _refused(sa.sa_id, ErrorReason.TABLE_FULL, f"{self._max_sas} SAs are the limit")
        if there is None:
            self.history.append(Change("install", sa))
        if there is not None:
            placement = there.placement
        self.sas.pop(sa.sa_id, None)
        self.sas[sa.sa_id] = InstalledSa(sa=sa, placement=placement, generation=generation)
        return ItemResult(name=sa.sa_id, placement=placement)

    def remove(self, sa_id: SaId) -> ItemResult:
        """Remove one SA; one that is not there is a success."""
        gone = self.sas.pop(sa_id, None)
        if gone is not None:
            self.history.append(Change("remove", gone.sa))
            if gone.sa.direction is Direction.INBOUND:
                self.reserved.discard(gone.sa.spi)
        counters = None if gone is None else SaCounters(sa_id=sa_id, packets=0, bytes=0, sequence=0)
        return ItemResult(name=sa_id, counters=counters)

    def inbound(self, spi: Spi) -> SecurityAssociation | None:
        """Return the inbound SA with this SPI."""
        return next(
            (
                held.sa
                for held in self.sas.values()
                if held.sa.spi == spi and held.sa.direction is Direction.INBOUND
            ),
            None,
        )

    def outbound(self, connection: str, child: str) -> SecurityAssociation | None:
        """Return the outbound SA that serves (connection, child): the one installed last."""
        serving = None
        for held in self.sas.values():
            names = (held.sa.connection, held.sa.child)
            if held.sa.direction is Direction.OUTBOUND and names == (connection, child):
                serving = held.sa
        return serving

    def apply_policy(self, policy: Policy, generation: int = 0) -> ItemResult:
        """Install or replace an SPD entry."""
        self.policies[policy.name] = (policy, generation)
        return ItemResult(name=policy.name)

    def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove what is older than `generation`."""
        sas = [sa_id for sa_id, held in self.sas.items() if held.generation < generation]
        policies = [name for name, (_, born) in self.policies.items() if born < generation]
        for sa_id in sas:
            self.remove(sa_id)
        for name in policies:
            del self.policies[name]
        return (*sas, *policies)


def _refused(name: str, reason: ErrorReason, text: str) -> ItemResult:
    return ItemResult(name=name, error=DatapathError(reason, text))


FAKE_CAPABILITIES = Capabilities(
    name="fake",
    engines=(Engine.SOFTWARE,),
    encryption=((Encr.AES_GCM_16, 128), (Encr.AES_GCM_16, 256), (Encr.AES_CBC, 256)),
    integrity=(Integ.HMAC_SHA2_256_128,),
    protocols=(IpsecProtocol.ESP,),
    modes=(Mode.TUNNEL, Mode.TRANSPORT),
    esn=True,
    udp_encapsulation=True,
    max_replay_window_packets=4096,
    counters_survive_restart=False,
)


class FakeDatapath:
    """`FakeSad` behind the `Datapath` protocol.

    Attributes:
        sad: The state, to look at.
        refusals: Errors that the next installations get, in order, instead of success.
        silent: Where an SA lands for which this engine was required, without a word.
        policy_refusals: Errors that entries get by name.
        start_error: What `start` and `remove_protection` raise.
        gate: While it is not set, installations wait.
    """

    def __init__(self, sad: FakeSad | None = None, capabilities: Capabilities = FAKE_CAPABILITIES) -> None:
        self.sad = FakeSad() if sad is None else sad
        self._capabilities = capabilities
        self.silent: dict[Engine, Engine] = {}
        self.policy_refusals: dict[str, DatapathError] = {}
        self.start_error: HostError | None = None
        self.has_protection = True
        self.refusals: list[DatapathError] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_closed = False
        self._watchers: list[asyncio.Queue[DatapathEvent | None]] = []

    async def start(self) -> None:
        if self.start_error is not None:
            raise self.start_error

    async def remove_protection(self) -> None:
        if self.start_error is not None:
            raise self.start_error
        self.has_protection = False

    def emit(self, event: DatapathEvent) -> None:
        """Tell every watcher of an event, as a datapath would on its own."""
        for watcher in self._watchers:
            watcher.put_nowait(event)

    async def capabilities(self) -> Capabilities:
        return self._capabilities

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        return tuple(self.sad.allocate_spi() for _ in range(count))

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        await self.gate.wait()
        return tuple(self._install(sa, generation) for sa in sas)

    def _install(self, sa: SecurityAssociation, generation: int) -> ItemResult:
        if self.refusals:
            return ItemResult(name=sa.sa_id, error=self.refusals.pop(0))
        engines = [engine for engine in sa.placement.wanted if engine in self._capabilities.engines]
        engine = engines[0] if engines else self._capabilities.engines[0]
        return self.sad.install(sa, generation, self.silent.get(engine, engine))

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        return tuple(self.sad.remove(sa_id) for sa_id in sa_ids)

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        return tuple(
            self.sad.apply_policy(policy, generation)
            if policy.name not in self.policy_refusals
            else ItemResult(name=policy.name, error=self.policy_refusals[policy.name])
            for policy in policies
        )

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        for name in names:
            self.sad.policies.pop(name, None)
        return tuple(ItemResult(name=name) for name in names)

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        return tuple(self.sad.sas.values())

    async def list_policies(self) -> tuple[Policy, ...]:
        policies = [policy for policy, _ in self.sad.policies.values()]
        return tuple(sorted(policies, key=lambda policy: (policy.priority, policy.name)))

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        return self.sad.reconcile(generation)

    async def counters(self) -> Counters:
        return Counters(
            sas=tuple(SaCounters(sa_id=sa_id, packets=0, bytes=0, sequence=0) for sa_id in self.sad.sas),
            drops={},
        )

    def events(self) -> AsyncGenerator[DatapathEvent, None]:
        queue: asyncio.Queue[DatapathEvent | None] = asyncio.Queue()
        self._watchers.append(queue)
        return self._watch(queue)

    async def _watch(self, queue: asyncio.Queue[DatapathEvent | None]) -> AsyncGenerator[DatapathEvent, None]:
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._watchers.remove(queue)

    async def close(self) -> None:
        self.is_closed = True
        for watcher in self._watchers:
            watcher.put_nowait(None)
