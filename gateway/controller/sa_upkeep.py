"""Keeps the datapath's SAs as the core has them: meeting, adopting, renewing what is lost, relaying events.

Meeting a datapath means, always in this order: policies (no clear packet), IKE sockets, SAs that are
missing, attempts. A datapath that lost SAs is never given their keys again: each is replaced by a rekey on
the living IKE SA, and where that fails by a new Child SA. SAs of a controller before this one stay until
new ones stand (`gateway.controller.adoption`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from gateway.controller.adoption import Adoption
from gateway.controller.connections import ChildKey, Connections
from gateway.controller.core import Core
from gateway.controller.datapath_link import CALL_TIMEOUT_S, DatapathLink, failure_text
from gateway.controller.facade import DatapathAvailability
from gateway.controller.history import History
from gateway.controller.protection import Protection
from gateway.controller.sa_binding import SaBinding
from gateway.controller.spi_pool import SpiPool
from gateway.controller.stranger_limit import StrangerLimit
from gateway.controller.tasks import Tasks
from gateway.controller.udp import Transport
from gateway.controller.uniqueness import is_carrying
from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Capabilities,
    Datapath,
    DatapathError,
    DatapathEvent,
    HardExpire,
    InstalledSa,
    MappingChange,
    PlacementChange,
    SasLost,
    SoftExpire,
)
from gateway.host.sockets import IkePorts
from gateway.ike.errors import LocalError
from gateway.ike.events import (
    ChildSaDeleted,
    ChildSaEstablished,
    ChildSaFailed,
    ChildSaId,
    ChildSaInfo,
    ChildSaRekeyed,
    Event,
    IkeSaFailed,
    IkeSaId,
    PathChanged,
)
from gateway.ipsec.connection import Connection
from gateway.ipsec.sa import Direction, IpAddress, SaId
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

ADOPTION_S: Final = 100.0
"""How long SAs of an earlier controller may wait for new ones."""
INBOUND_LINGER_S: Final = 5.0
"""How long an adopted inbound SA stays after a new one stands."""
POLL_S: Final = 2.0
"""How often inbound counters are looked at: traffic is a sign of life (RFC 7296 §2.4)."""
AUDIT_S: Final = 15.0
"""How often the datapath is asked whether it still has every SA."""
FOLLOW_S: Final = 2.0
"""How long a datapath may take to follow a peer that moved, before its Child SAs are rekeyed."""


class SaUpkeep:
    """See module. The controller owns it and everything it is given.

    Args:
        address: Of the datapath, for people.
        datapath: The datapath.
        core: The IKE core.
        binding: What is installed.
        pool: Reserved SPIs.
        protection: The policies.
        connections: Brings Child SAs up.
        transport: Carries IKE.
        history: Takes the datapath's events.
        configured: Returns the whole configuration.
        obtain_ports: Gets the IKE sockets.
        wall_clock: Unix time.
        availability_changed: Told that the datapath has all policies, or is gone.
    """

    def __init__(
        self,
        *,
        address: str,
        datapath: Datapath,
        core: Core,
        binding: SaBinding,
        pool: SpiPool,
        protection: Protection,
        connections: Connections,
        transport: Transport,
        history: History,
        configured: Callable[[], Iterable[Connection]],
        obtain_ports: Callable[[], Awaitable[IkePorts]],
        wall_clock: Callable[[], float],
        availability_changed: Callable[[bool], None],
    ) -> None:
        self._address = address
        self._datapath = datapath
        self._core = core
        self._binding = binding
        self._pool = pool
        self._protection = protection
        self._connections = connections
        self._transport = transport
        self._history = history
        self._configured = configured
        self._obtain_ports = obtain_ports
        self._wall_clock = wall_clock
        self._availability_changed = availability_changed
        self._has_met = False
        self._adoption = Adoption(())
        self._lost: set[SaId] = set()
        self._stranger_limit = StrangerLimit()
        self._followed: dict[ChildSaId, tuple[IpAddress, int]] = {}
        self._inbound_packets: dict[SaId, int] = {}
        self._tasks = Tasks()
        self._timers: set[asyncio.TimerHandle] = set()
        # The configuration must not change between the policies and the first attempt; `Controller.apply`
        # takes the same lock, because it has to wait for the datapath between its check and its effect.
        self.changing = asyncio.Lock()
        self.link = DatapathLink(datapath, self._meet, self._on_datapath_event, self._on_datapath_lost)

    def start(self) -> None:
        """Begin to look for the datapath."""
        self._tasks.spawn(self.link.run(), "datapath-link")
        self._tasks.spawn(self._poll(), "datapath-poll")

    async def stop(self) -> None:
        """End everything this room has begun."""
        for timer in self._timers:
            timer.cancel()
        await self._tasks.cancel()

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)

    # --- meeting and losing the datapath --------------------------------------------------------

    async def _meet(self, capabilities: Capabilities) -> None:
        async with self.changing, asyncio.timeout(4 * CALL_TIMEOUT_S):
            self._core.use_cpus(capabilities.cpus)
            # Those of an orchestrator with keys of its own are none of our business.
            present = [item for item in await self._datapath.list_sas() if not item.owner]
            if not self._has_met:
                newest = max((item.generation for item in present), default=0)
                generation = max(int(self._wall_clock() * 1000), newest + 1)
                self._binding.generation = self._protection.generation = generation
            self._protection.configure(self._configured())
            await self._protection.restore()
            if not self._transport.is_open:
                self._transport.adopt(await self._obtain_ports())
            self._pool.forget()
            await self._pool.fill()
            if self._has_met:
                missing = self._binding.missing_from(present)
                self._on_lost_sas(missing, "missing after the datapath came back")
            else:
                self._adopt(present)
                self._has_met = True
            if self._adoption.is_over:
                await self._datapath.reconcile(self._binding.generation)
        _log.info("datapath_available", address=self._address)
        self._history.record(DatapathAvailability(available=True, detail=self._address))
        self._availability_changed(True)
        self._connections.begin()

    def on_ports_lost(self) -> None:
        """The agent that lent the IKE sockets is gone, and with it the datapath."""
        self.link.interrupt("the datapath agent is gone")

    def _on_datapath_lost(self, reason: str) -> None:
        self._connections.pause()
        self._pool.forget()
        # The next agent cannot bind the ports while we hold sockets of the last one.
        self._transport.release_borrowed()
        self._history.record(DatapathAvailability(available=False, detail=reason))
        self._availability_changed(False)

    # --- adoption -------------------------------------------------------------------------------

    def _adopt(self, present: Sequence[InstalledSa]) -> None:
        """Take note of what an earlier controller left, and let new SAs take its place."""
        known = [
            item
            for item in present
            if self._connections.child((item.sa.connection, item.sa.child)) is not None
        ]
        self._binding.remove(item.sa.sa_id for item in present if item not in known)
        if not known:
            return
        _log.warning("sas_adopted", sas=len(known), seconds=ADOPTION_S)
        self._adoption = Adoption(known)
        self._core.begin_anew(self._configured(), send_initial_contact=False)
        for key in self._adoption.keys:
            self._connections.revive(key)
        self._after(ADOPTION_S, self._end_adoption)

    def _retry_adoption(self, key: ChildKey) -> None:
        if key in self._adoption.keys:
            self._connections.revive(key)

    def _take_over(self, child_sa: ChildSaInfo) -> None:
        outbound, inbound = self._adoption.take_over((child_sa.connection, child_sa.child))
        if not outbound and not inbound:
            return
        _log.info(
            "adopted_sas_replaced",
            connection=child_sa.connection,
            child=child_sa.child,
            sas=len(outbound + inbound),
        )
        self._binding.remove(outbound)
        self._after(INBOUND_LINGER_S, lambda: self._binding.remove(inbound))
        if self._adoption.is_over:
            self._after(INBOUND_LINGER_S + 1.0, self._reconcile)

    def _end_adoption(self) -> None:
        left = self._adoption.give_up()
        if left:
            _log.warning("adopted_sas_given_up", sas=len(left))
            self._binding.remove(left)
            self._after(INBOUND_LINGER_S, self._reconcile)

    def _reconcile(self) -> None:
        async def reconcile() -> None:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    removed = await self._datapath.reconcile(self._binding.generation)
            except (DatapathError, TimeoutError) as error:
                # Meeting the datapath does this too.
                _log.warning("reconcile_failed", error=str(error))
                self.link.interrupt(failure_text(error))
            else:
                _log.info("reconciled", generation=self._binding.generation, removed=len(removed))

        if self.link.capabilities is not None:
            self._tasks.spawn(reconcile(), "reconcile")

    # --- events of the core ---------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Take note of what the core says."""
        match event:
            case ChildSaEstablished(child_sa=child_sa):
                self._on_standing(child_sa)
            case ChildSaRekeyed(old=old, new=child_sa):
                self._forget(old)
                self._on_standing(child_sa)
            case ChildSaDeleted(child_sa=child_sa):
                self._forget(child_sa)
            case ChildSaFailed(replaces=old_id) if old_id is not None:
                if self._is_lost(old_id):
                    self._give_up_lost(old_id)
            case ChildSaFailed(connection=connection, child=child, cpu=None):
                self._retry_adoption((connection, child))
            case IkeSaFailed(ike_sa=ike_sa) if ike_sa.is_initiator:
                for key in self._adoption.keys:
                    if key[0] == ike_sa.connection:
                        self._retry_adoption(key)
            case PathChanged(ike_sa=ike_sa):
                self._after(FOLLOW_S, lambda: self._follow_peer(ike_sa.ike_sa_id))
            case _:
                pass

    def _on_standing(self, child_sa: ChildSaInfo) -> None:
        """A Child SA carries traffic: it may be lost already, or take over from an adopted one."""
        if self._is_lost(child_sa.child_sa_id):
            self._renew(child_sa)
        self._take_over(child_sa)
        child = self._connections.child((child_sa.connection, child_sa.child))
        if child is not None and self._protection.add_negotiated(child_sa, child):
            self._tasks.spawn(self._protection.apply_negotiated(), "apply-negotiated")

    def _forget(self, child_sa: ChildSaInfo) -> None:
        self._followed.pop(child_sa.child_sa_id, None)
        for sa in (child_sa.inbound, child_sa.outbound):
            if sa is not None:
                self._lost.discard(sa.sa_id)

    def refresh_policies(self, connection: Connection) -> None:
        """Put policies in force that depend on addresses of ours, where these have changed."""
        changed = self._protection.changes([connection])
        if changed and self.link.capabilities is not None:
            _log.info("policies_follow_address", connection=connection.name, policies=len(changed))
            self._tasks.spawn(self._protection.follow_addresses(changed), "policies-follow-address")

    # --- events of the datapath -------------------------------------------------------------------

    def _on_datapath_event(self, event: DatapathEvent) -> None:
        if self._stranger_limit.allows(event, asyncio.get_running_loop().time()):
            self._history.record(event)
        match event:
            case Acquire(policy=policy):
                connection, _, child = policy.partition("/")
                _log.info(
                    "acquire",
                    connection=connection,
                    child=child,
                    source=str(event.source),
                    destination=str(event.destination),
                )
                self._connections.acquire((connection, child))
            case BadSpi(spi=spi, source=source):
                self._core.unknown_spi(spi, source)
            case SoftExpire(sa_id=sa_id):
                # By its name: the SPI of an outbound SA is the peer's choice, and two may choose the same.
                child_sa_id = self._child_sa_of(sa_id)
                if child_sa_id is not None:
                    self._core.soft_expire(child_sa_id)
            case HardExpire(sa_id=sa_id):
                child_sa_id = self._child_sa_of(sa_id)
                if child_sa_id is not None:
                    self._core.expire_child(child_sa_id)
            case MappingChange(sa_id=sa_id, new=(address, port)):
                child_sa_id = self._child_sa_of(sa_id)
                if child_sa_id is not None:
                    self._followed[child_sa_id] = (address, port)
                    self._core.mapping_changed(child_sa_id, address, port)
            case SasLost(sa_ids=sa_ids, reason=reason):
                self._on_lost_sas(sa_ids, reason)
            case PlacementChange(sa_id=sa_id, new=engine, reason=reason):
                self._binding.note_placement(sa_id, engine, reason)
                _log.warning("placement_changed", sa_id=sa_id, engine=engine.value, reason=reason)

    def _child_sa_of(self, sa_id: SaId) -> ChildSaId | None:
        installed = self._binding.installed(sa_id)
        return None if installed is None else ChildSaId(installed.sa.child_sa_id)

    def _follow_peer(self, ike_sa_id: IkeSaId) -> None:
        """Rekey the Child SAs of a peer that moved, where the datapath saw no ESP to follow it by."""
        ike_sa = self._core.ike_sa(ike_sa_id)
        if ike_sa is None:
            return
        place = (ike_sa.path.remote, ike_sa.path.remote_port)
        for child_sa in self._core.child_sas():
            outbound = child_sa.outbound
            if child_sa.ike_sa_id != ike_sa_id or outbound is None or not is_carrying(child_sa):
                continue
            if outbound.encapsulation is None:
                continue
            first = (outbound.destination, outbound.encapsulation.destination_port)
            if self._followed.get(child_sa.child_sa_id, first) != place:
                with contextlib.suppress(LocalError):
                    self._core.rekey_child(child_sa.child_sa_id)

    # --- lost SAs ---------------------------------------------------------------------------------

    def _on_lost_sas(self, sa_ids: Iterable[SaId], reason: str) -> None:
        """Replace SAs whose sequence numbers are gone, with new keys, on the IKE SA that lives on."""
        lost = self._binding.forget_lost(sa_ids)
        if not lost:
            return
        _log.warning("sas_lost", sas=len(lost), reason=reason)
        self._lost.update(sa.sa_id for sa in lost)
        for child_sa in self._core.child_sas():
            if is_carrying(child_sa) and self._is_lost(child_sa.child_sa_id):
                self._renew(child_sa)

    def _is_lost(self, child_sa_id: ChildSaId) -> bool:
        child_sa = self._core.child_sa(child_sa_id)
        return child_sa is not None and any(
            sa is not None and sa.sa_id in self._lost for sa in (child_sa.inbound, child_sa.outbound)
        )

    def _renew(self, child_sa: ChildSaInfo) -> None:
        try:
            self._core.rekey_child(child_sa.child_sa_id)
        except LocalError:
            self._give_up_lost(child_sa.child_sa_id)

    def _give_up_lost(self, child_sa_id: ChildSaId) -> None:
        """The rekey did not work: delete what is lost, and begin anew."""
        child_sa = self._core.child_sa(child_sa_id)
        if child_sa is not None:
            self._core.expire_child(child_sa_id)
            self._connections.revive((child_sa.connection, child_sa.child))

    # --- looking at the datapath ------------------------------------------------------------------

    async def _poll(self) -> None:
        """Tell the core of inbound traffic, and compare the datapath's SAs with ours from time to time."""
        loop = asyncio.get_running_loop()
        next_audit = loop.time() + AUDIT_S
        while True:
            await asyncio.sleep(POLL_S)
            if self.link.capabilities is None or not self._binding.all_installed():
                continue
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._note_traffic()
                    if loop.time() >= next_audit:
                        next_audit = loop.time() + AUDIT_S
                        await self._audit()
            except (DatapathError, TimeoutError) as error:
                _log.debug("poll_failed", error=str(error))

    async def _note_traffic(self) -> None:
        counters = await self._datapath.counters()
        before, self._inbound_packets = self._inbound_packets, {}
        for counted in counters.sas:
            installed = self._binding.installed(counted.sa_id)
            if installed is None or installed.sa.direction is not Direction.INBOUND:
                continue
            self._inbound_packets[counted.sa_id] = counted.packets
            if counted.packets > before.get(counted.sa_id, 0):
                self._core.note_traffic(ChildSaId(installed.sa.child_sa_id))

    async def _audit(self) -> None:
        expected = self._binding.all_installed()
        missing = set(self._binding.missing_from(await self._datapath.list_sas()))
        # What was installed while the answer was on its way is not missing.
        self._on_lost_sas([sa_id for sa_id in expected if sa_id in missing], "not at the datapath any more")
