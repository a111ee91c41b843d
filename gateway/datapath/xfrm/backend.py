"""The kernel's own ESP and AH as one `Datapath`: XFRM in software, with AES-NI, or offloaded to a NIC.

Joins the SPD (`spd`) and the SAD (`sad`) of this room to the kernel's. The kernel carries the packets, and
goes on when this process ends, however it ends: its SAs and sequence numbers outlive it, and so does the
protection, which is in the policies. A new life finds what is ours by the tag in every selector, and the rest
in its journal (`journal`); what is not in there stays in force until `reconcile`.

SAs and policies of others, without our tag, are never touched.
"""

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

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
from gateway.datapath.events import EventHub
from gateway.datapath.generation import Generation
from gateway.datapath.tunnels import TunnelKind, Tunnels
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.adoption import Leftovers, adopt, find_leftovers
from gateway.datapath.xfrm.ah_path_errors import AhPathErrors
from gateway.datapath.xfrm.bad_spi import BadSpiWatch
from gateway.datapath.xfrm.cpu_steering import CpuSteering
from gateway.datapath.xfrm.devices import Devices
from gateway.datapath.xfrm.errors import EventsLostError, KernelRefusedError, XfrmDecodeError, XfrmError
from gateway.datapath.xfrm.forwarding import Forwarding
from gateway.datapath.xfrm.installation import counters_of, kernel_name
from gateway.datapath.xfrm.journal import Journal
from gateway.datapath.xfrm.kernel import allocate_spis, read_sas
from gateway.datapath.xfrm.kernel_sas import KernelSas, ask, carried_bytes
from gateway.datapath.xfrm.mss import MssClamp
from gateway.datapath.xfrm.netlink import Sa, XfrmListener, XfrmThread
from gateway.datapath.xfrm.notifications import GROUPS, KINDS, Meaning, meaning_of
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.datapath.xfrm.placing import ENGINES
from gateway.datapath.xfrm.policies import PolicyKeeper
from gateway.datapath.xfrm.probe import probe_kernel
from gateway.datapath.xfrm.routes import Routes
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Serves, Spd
from gateway.datapath.xfrm.statistics import drops_of, read_statistics
from gateway.host.errors import HostError
from gateway.host.links import XFRM, Links
from gateway.host.network import Network
from gateway.host.network_watch import NetworkWatch
from gateway.host.privileges import Capability, require_capabilities
from gateway.host.sockets import UDP_ENCAP, UDP_ENCAP_ESPINUDP
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.placement import Engine, in_words
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import (
    MAX_REPLAY_WINDOW,
    IpAddress,
    Mode,
    SaId,
    SecurityAssociation,
    Spi,
)
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

_MAX_SPIS_AT_ONCE: Final = 10_000
_MESSAGES_AT_ONCE: Final = 64
_PATHS_S: Final = 10.0
"""Until then senders learn from the kernel that their packets are too big, as they are for the first time."""
_SEQUENCES_S: Final = 10.0
"""At 100 Gb/s a quarter of 2**32 packets of 1400 bytes takes two minutes."""


class XfrmBackend:
    """A `Datapath` in the kernel.

    Args:
        options: Names and numbers.
        esp_sockets: The ESP members of the UDP 4500 groups (`PortGroups.esp`); borrowed. The kernel takes the
            ESP out of them from `start` on.
        entropy: Returns that many unpredictable bytes, for SPIs.
    """

    def __init__(
        self,
        options: XfrmOptions | None = None,
        esp_sockets: Sequence[socket.socket] = (),
        *,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._options = options or XfrmOptions()
        self._esp_sockets = tuple(esp_sockets)
        self._hub = EventHub()
        self._thread = XfrmThread()
        self._sad = Sad(entropy)
        self._spd = Spd(self._options.number)
        self._network = Network()
        self._routes = Routes(self._network, self._options)
        self._devices = Devices(self._network)
        self._tunnels = Tunnels(
            self._network, TunnelKind(kind=XFRM, make=self._make_interface), self._options.tag
        )
        self._mss = MssClamp(self._options.tag)
        self._carried: dict[int, dict[Serves, int]] = {}
        """By interface id and what an SA of it serves: what the SA carries in one piece, in bytes."""
        self._journal = Journal(self._options.journal)
        self._forwarding = Forwarding(
            self._options.forward_interfaces,
            self._options.forward_inbound,
            thread=self._thread,
            network=self._network,
            sad=self._sad,
            spd=self._spd,
        )
        self._policies = PolicyKeeper(
            self._thread, self._spd, self._sad, self._routes, self._journal, forwarding=self._forwarding
        )
        self._sas = KernelSas(
            self._thread,
            self._sad,
            self._policies,
            self._devices,
            self._journal,
            tag=self._options.number,
            mark=self._options.mark,
            has_udp=bool(self._esp_sockets),
            forwarding=self._forwarding,
        )
        self._steering = CpuSteering() if self._options.spreads_esp else None
        self._bad_spis = BadSpiWatch(self._is_in_kernel, self._hub.emit)
        self._ah_path_errors = AhPathErrors(self._source_of)
        self._watch = NetworkWatch(lambda: self._spawn(self._follow_network(), "follow-network"))
        self._route_watch = NetworkWatch(self._forwarding.note_change)
        self._lock = asyncio.Lock()
        self._listener: XfrmListener | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._leftovers = Leftovers()
        self._generation = Generation()
        self._is_closed = False

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Learn what the kernel can do, adopt what a former life left, and listen.

        Raises:
            HostError: The kernel has no ESP, or refused; the text says what to do.
        """
        require_capabilities((Capability.CAP_NET_ADMIN,), "the xfrm datapath")
        now = self.now()
        try:
            self._sas.ability = await self._thread.run(
                lambda xfrm: probe_kernel(xfrm, lambda: self._sad.reservations.draw(1, now)[0])
            )
            self._listener = XfrmListener(GROUPS, kinds=KINDS)
            self._decapsulate()
            self._watch.start(with_routes=False)
            await self._forwarding.start()
            if self._forwarding.is_wanted:
                self._route_watch.start()
            async with self._lock:
                await self._adopt()
        except (XfrmError, DatapathError, OSError) as error:
            await self.close()
            raise HostError(str(error)) from error
        except BaseException:
            await self.close()
            raise
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener.fileno(), self._on_notification)
        self._bad_spis.start()
        self._ah_path_errors.open()
        self._spawn(self._watch_sequences(), "watch-sequences")
        self._spawn(self._watch_paths(), "watch-paths")
        if self._forwarding.is_wanted:
            self._spawn(self._keep_forwarding(), "keep-forwarding")

    async def _adopt(self) -> None:
        """Take over what a former life left, and put it in force again."""
        tag = self._options.number
        found = await self._thread.run(lambda xfrm: find_leftovers(xfrm, tag))
        self._leftovers = adopt(found, self._journal, self._sad, self._spd)
        await self._tunnels.start()
        for entry in self._spd.entries():
            self._tunnels.note(entry.policy.name, entry.policy.interface)
        await self._tunnels.follow()
        await self._use_addresses()
        if self._leftovers.policies:
            await self._routes.keep_former()
        await self._policies.steer(self._spd.entries())
        await self._clamp_mss()
        await self._spread(self._sad, are_all=True)
        if found.sas or found.policies:
            _log.warning(
                "leftovers_found",
                sas=len(found.sas),
                adopted=len(self._sad),
                policies=len(found.policies),
                not_known=len(self._leftovers.policies),
            )

    async def _use_addresses(self) -> None:
        """Have the policies know our addresses, and the kernel the policies."""
        addresses = await self._network.addresses()
        self._spd.use_addresses(
            local.address for local in addresses if local.is_global or local.address.is_loopback
        )
        refusal = await self._policies.settle()
        if refusal is not None:
            raise refusal

    def _decapsulate(self) -> None:
        """Have the kernel take ESP out of the UDP sockets."""
        for udp in self._esp_sockets:
            try:
                udp.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
            except OSError as error:
                raise HostError(f"the kernel takes no ESP out of UDP port 4500: {error.strerror}") from error

    async def close(self) -> None:
        """Stop listening. SAs and policies stay in the kernel: traffic flows on, and none in clear."""
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            loop.remove_reader(self._listener.fileno())
            self._listener.close()
        self._watch.close()
        self._route_watch.close()
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._bad_spis.close()
        self._ah_path_errors.close()
        if self._steering is not None:
            await asyncio.to_thread(self._steering.close)
        await self._forwarding.close()
        await self._thread.close()
        await self._network.close()
        self._journal.close()
        self._hub.close()

    async def remove_protection(self) -> None:
        """Take away our policies and SAs: from here on nothing keeps traffic from leaving in clear.

        May be called without `start`, to clean up after an agent that is gone.
        """
        tag = self._options.number
        async with self._lock:
            # Nothing in clear past the kernel either.
            await self._forwarding.close()
            try:
                await self._thread.run(lambda xfrm: find_leftovers(xfrm, tag).remove(xfrm))
                await self._routes.remove()
                await self._tunnels.remove_all()
                await self._mss.remove()
                self._journal.remove()
            except (XfrmError, OSError) as error:
                raise HostError(str(error)) from error

    # --- Datapath: SAs ------------------------------------------------------------------------------

    async def capabilities(self) -> Capabilities:
        """Return what the kernel took at the start."""
        ability = self._sas.ability
        return Capabilities(
            name="xfrm",
            engines=ENGINES,
            encryption=ability.encryption,
            integrity=ability.integrity,
            protocols=ability.protocols,
            modes=(Mode.TUNNEL, Mode.TRANSPORT),
            esn=True,
            udp_encapsulation=bool(self._esp_sockets),
            max_replay_window_packets=MAX_REPLAY_WINDOW,
            counters_survive_restart=True,
            cpus=ability.cpus,
        )

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:
        """Reserve SPIs: with a destination at the kernel (ALLOCSPI), which other key managers ask too.

        Raises:
            DatapathError: TABLE_FULL: more at once than this datapath gives. SYSTEM: the kernel gives none.
        """
        if not 0 <= count <= _MAX_SPIS_AT_ONCE:
            raise DatapathError(
                ErrorReason.TABLE_FULL, f"{count} SPIs at once, the limit is {_MAX_SPIS_AT_ONCE}"
            )
        now = self.now()
        if destination is None:
            return self._sad.reservations.draw(count, now)
        spis: list[Spi] = []
        while len(spis) < count:
            left = count - len(spis)
            given = await ask(self._thread, partial(allocate_spis, count=left, destination=destination))
            spis += [Spi(spi) for spi in given if self._sad.reservations.note(Spi(spi), now)]
        return tuple(spis)

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs, and the policies that lead to them."""
        async with self._lock:
            results = tuple([await self._install_one(sa, generation) for sa in sas])
            await self._policies.steer(())
            await self._fit_interfaces(sas)
            await self._spread(self._sad.get(sa.sa_id) for sa in sas)
            self._forwarding.note_change()
            return results

    async def _fit_interfaces(self, sas: Iterable[SecurityAssociation]) -> None:
        """Have the MTU of interfaces follow the SAs that were installed, and the MSS of what is forwarded."""
        changed: dict[int, None] = {}
        for sa in sas:
            held = self._sad.get(sa.sa_id)
            if held is not None and sa.interface_id and not held.is_inbound:
                self._carried.setdefault(sa.interface_id, {})[held.serves] = held.mtu_bytes
                changed[sa.interface_id] = None
        for number in changed:
            carried = self._carried[number]
            for serves in [serves for serves in carried if not self._sad.carriers(serves).outbound]:
                del carried[serves]
        await self._tunnels.fit_mtu({number: min(self._carried[number].values()) for number in changed})
        await self._clamp_mss()

    async def _clamp_mss(self) -> None:
        await self._mss.follow(self._sad.narrowest_bytes, self._tunnels.names)

    async def _spread(self, installed: Iterable[Held | None], *, are_all: bool = False) -> None:
        """Have the CPUs share what comes in for SAs of the kernel; where `are_all`, for no others."""
        if self._steering is None:
            return
        devices = {} if are_all else self._steering.devices
        for address in {held.at.destination for held in installed if held is not None and _is_spread(held)}:
            try:
                device = await self._devices.of(address)
            except HostError as error:
                _log.warning("esp_not_spread", reason=str(error))
                return
            if device is not None:
                devices[device.name] = device.index
        if devices != self._steering.devices:
            await asyncio.to_thread(self._steering.follow, devices)

    async def _spread_words(self, held: Held) -> str:
        """Return what XDP does with what comes in for an SA; empty where it has no say."""
        if self._steering is None or not _is_spread(held):
            return ""
        device = await self._devices.of(held.at.destination)
        return "" if device is None else self._steering.words(device.name)

    async def _install_one(self, sa: SecurityAssociation, generation: int) -> ItemResult:
        try:
            self._generation.check(generation)
            held = await self._sas.install(sa, generation)
        except DatapathError as error:
            return ItemResult(name=sa.sa_id, error=error, refusals=error.refusals)
        return ItemResult(
            name=sa.sa_id,
            placement=held.engine,
            placement_reason=in_words(held.refusals),
            refusals=held.refusals,
        )

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs; policies that led to them ask for others first."""
        async with self._lock:
            there = [held for sa_id in sa_ids if (held := self._sad.get(sa_id)) is not None]
            counted = await self._count(there)
            refusal = await self._sas.take_away(there)
            await self._clamp_mss()
        return tuple(ItemResult(name=sa_id, error=refusal, counters=counted.get(sa_id)) for sa_id in sa_ids)

    async def _count(self, wanted: Sequence[Held]) -> dict[SaId, SaCounters]:
        """Return what SAs have counted so far, of those that the kernel tells."""
        names = [kernel_name(held.kernel_id, held.sa) for held in wanted]
        try:
            found = await ask(self._thread, lambda xfrm: read_sas(xfrm, names))
        except DatapathError as error:
            _log.warning("counters_not_read", reason=str(error))
            return {}
        return {
            held.sa.sa_id: self._counters_of(held, found[held.kernel_id])
            for held in wanted
            if held.kernel_id in found
        }

    @staticmethod
    def _counters_of(held: Held, message: Sa) -> SaCounters:
        return counters_of(held.sa.sa_id, held.sa.direction, message.body, message.attributes, time.time())

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA that was installed here."""
        forwarded = self._forwarding.words()
        return tuple(
            [
                InstalledSa(
                    sa=held.sa,
                    placement=held.engine,
                    placement_reason="; ".join(
                        filter(
                            None,
                            (
                                in_words(held.refusals),
                                await self._spread_words(held),
                                forwarded.get(held.sa.sa_id, ""),
                            ),
                        )
                    ),
                    refusals=held.refusals,
                    generation=held.generation,
                    effective_mtu=None if held.is_inbound else carried_bytes(held.sa, held.at),
                )
                for held in self._sad
            ]
        )

    # --- Datapath: policies -------------------------------------------------------------------------

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Install or replace SPD entries."""
        async with self._lock:
            try:
                self._generation.check(generation)
            except DatapathError as error:
                return tuple(ItemResult(name=policy.name, error=error) for policy in policies)
            self._forwarding.hold()
            refused = await self._tunnels.claim(policies)
            possible = [policy for policy in policies if policy.name not in refused]
            errors, refusal = await self._policies.apply(possible, generation)
            await self._tidy_up(policy.name for policy in policies)
            return tuple(
                ItemResult(
                    name=policy.name,
                    error=refused.get(policy.name) or errors.get(policy.name) or refusal,
                )
                for policy in policies
            )

    async def _tidy_up(self, names: Iterable[str]) -> None:
        """Have all that hangs on SPD entries follow these as they are now."""
        self._sas.forget_asked(self._spd)
        for name in names:
            entry = self._spd.get(name)
            self._tunnels.note(name, None if entry is None else entry.policy.interface)
        await self._tunnels.tidy()
        await self._clamp_mss()

    async def _make_interface(self, interface: TunnelInterface) -> None:
        links = Links(self._network)
        if await links.get(interface.name) is None:
            await links.add_xfrm(interface.name, interface.id)

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries: their traffic is nobody's business any more."""
        async with self._lock:
            self._forwarding.hold()
            refusal = await self._policies.withdraw(names)
            await self._tidy_up(names)
            return tuple(ItemResult(name=name, error=refusal) for name in names)

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in order."""
        return tuple(entry.policy for entry in self._spd.entries())

    # --- routes ---------------------------------------------------------------------------------------

    async def _follow_network(self) -> None:
        """Find what went with a link: SAs that it carried, and routes."""
        self._devices.distrust()
        async with self._lock:
            if any(held.offload is not None for held in self._sad):
                await self._tell_lost("the kernel does not have it any more")
            try:
                await self._use_addresses()
            except (DatapathError, HostError) as error:
                _log.error("addresses_not_followed", reason=str(error))
            self._routes.distrust()
            await self._tunnels.follow()
            await self._follow_paths()
            await self._policies.steer(self._spd.entries())
            await self._spread(self._sad, are_all=True)
            self._forwarding.note_change()

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove everything older."""
        async with self._lock:
            self._generation.reconcile(generation)
            self._forwarding.hold()
            sas = [held for held in self._sad if held.generation < generation]
            policies = [entry.policy.name for entry in self._spd.entries() if entry.generation < generation]
            refusal = await self._policies.withdraw(policies) or await self._sas.take_away(sas)
            if refusal is not None:
                raise refusal
            leftovers, self._leftovers = self._leftovers, Leftovers()
            await ask(self._thread, partial(leftovers.remove, but=self._spd))
            self._routes.forget_former()
            await self._policies.steer(())
            self._tunnels.forget_former()
            await self._tidy_up(policies)
            return (*(held.sa.sa_id for held in sas), *policies)

    # --- Datapath: counters and events --------------------------------------------------------------

    async def counters(self) -> Counters:
        """Return a snapshot of all counters; those without an SA are of the whole network namespace."""
        listed, statistics = await ask(self._thread, lambda xfrm: (xfrm.sas(), read_statistics()))
        found = [
            self._counters_of(held, message)
            for message in listed
            if (held := self._sad.of_kernel(message.body.id)) is not None
        ]
        drops = Counter(drops_of(statistics))
        drops.update(self._forwarding.drops())
        return Counters(sas=tuple(found), drops=drops)

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on."""
        return self._hub.subscribe()

    # --- notifications ------------------------------------------------------------------------------

    def _on_notification(self) -> None:
        assert self._listener is not None
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                messages = self._listener.receive()
            except EventsLostError:
                self._spawn(self._compare_with_kernel("notifications of the kernel were lost"), "compare")
                continue
            except XfrmDecodeError as error:
                _log.warning("notification_not_understood", reason=str(error))
                continue
            if not messages:
                return
            for message in messages:
                self._act(meaning_of(message, self._sad, self._spd))

    def _act(self, meaning: Meaning) -> None:
        if meaning.gone is not None:
            self._forwarding.forget(meaning.gone)
            self._sas.forget(meaning.gone)
            self._spawn(self._follow_loss(meaning.gone.serves), "follow-loss")
        if meaning.moved is not None and meaning.peer is not None:
            self._spawn(self._follow_peer(meaning.moved, meaning.peer), "follow-peer")
        if meaning.asked is not None:
            self._sas.note_asked(meaning.asked)
        if meaning.event is not None:
            self._hub.emit(meaning.event)
        if meaning.is_unsure:
            self._spawn(self._compare_with_kernel("another process flushed the SAs"), "compare")

    async def _keep_forwarding(self) -> None:
        while True:
            await self._forwarding.wait()
            async with self._lock:
                await self._forwarding.follow()

    async def _watch_sequences(self) -> None:
        while True:
            await asyncio.sleep(_SEQUENCES_S)
            for event in await self._sas.find_worn():
                self._hub.emit(event)

    async def _watch_paths(self) -> None:
        while True:
            await asyncio.sleep(_PATHS_S)
            async with self._lock:
                await self._follow_paths()

    async def _follow_paths(self) -> None:
        """Have interfaces, and TCP that is forwarded, follow the MTU of paths."""
        changed = await self._sas.measure_paths()
        if changed:
            await self._fit_interfaces(changed)

    async def _follow_loss(self, serves: Serves) -> None:
        async with self._lock:
            refusal = await self._policies.follow(serves)
        if refusal is not None:
            _log.error("policies_not_followed", reason=str(refusal))

    def _source_of(self, kernel_id: r.SaId) -> IpAddress | None:
        """Return the address that an outbound SA of ours sends from."""
        held = self._sad.of_kernel(kernel_id)
        return None if held is None or held.is_inbound else held.at.source

    async def _is_in_kernel(self, kernel_id: r.SaId) -> bool:
        """Return whether the kernel has an SA, whosever; if it does not answer, as if it had."""
        if self._sad.of_kernel(kernel_id) is not None:
            return True
        try:
            await self._thread.run(lambda xfrm: xfrm.sa(kernel_id))
        except KernelRefusedError as error:
            return error.code != errno.ESRCH
        except XfrmError:
            return True
        return True

    async def _compare_with_kernel(self, reason: str) -> None:
        async with self._lock:
            await self._tell_lost(reason)

    async def _tell_lost(self, reason: str) -> None:
        for event in await self._sas.find_lost(reason):
            self._hub.emit(event)

    async def _follow_peer(self, held: Held, peer: tuple[IpAddress, int]) -> None:
        async with self._lock:
            for event in await self._sas.follow_peer(held, peer):
                self._hub.emit(event)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"xfrm-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()


def _is_spread(held: Held) -> bool:
    """Return whether the CPUs decrypt what comes in for an SA."""
    return held.is_inbound and held.engine is Engine.KERNEL
