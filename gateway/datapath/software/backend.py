"""The software datapath as one `Datapath`: the portable, slow path.

Joins the SAD, the SPD and the forwarder to this machine: the tunnel device, the sockets of the outside,
routes (`steering`) and the guard (`gateway.host.nftables`). It keeps nothing across a restart, least of all
sequence numbers; so it says `counters_survive_restart=False`, and who drives it must negotiate anew.

Fail closed: policies are in force, in the guard, before `apply_policies` answers; and guard, rules and
unreachable routes stay when this process ends, however it ends. What a former life left behind stays in
force until `reconcile` says that every policy is known here.

Packets are moved in the callbacks of the event loop, a bounded number in each, so that gRPC on the same loop
is served also under a flood.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Final

from gateway.datapath.backend import (
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    InstalledSa,
    ItemResult,
    SaCounters,
    first_wanted,
)
from gateway.datapath.events import EventHub
from gateway.datapath.generation import Generation
from gateway.datapath.protection import Protection
from gateway.datapath.software.forwarder import Forwarder, SendResult
from gateway.datapath.software.interfaces import Interfaces
from gateway.datapath.software.options import SoftwareOptions
from gateway.datapath.software.outer import FromWire, OuterSockets
from gateway.datapath.software.sad import (
    MAX_SAS,
    Entry,
    InboundCore,
    InboundEntry,
    OutboundCore,
    OutboundEntry,
    Sad,
)
from gateway.datapath.software.spd import Spd, SpdEntry, make_entry
from gateway.datapath.software.tun import Tun
from gateway.datapath.steering import check_no_marks, check_policy
from gateway.datapath.watch import Watch
from gateway.esp import ah
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.esp.errors import UnsupportedSa
from gateway.esp.flow import SelectorSet
from gateway.esp.icmp import TooBig, parse_too_big_about_ah
from gateway.esp.inbound import InboundSa
from gateway.esp.outbound import OutboundSa, Sealed
from gateway.esp.replay import MAX_WINDOW_PACKETS
from gateway.esp.transform import supported_encryption, supported_integrity
from gateway.host.errors import HostError
from gateway.host.network import Network, probe_path
from gateway.host.network_watch import NetworkWatch
from gateway.host.privileges import AGENT_CAPABILITIES, require_capabilities
from gateway.ipsec.lifetime import Limit
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, Mode, SaId, SecurityAssociation, Spi
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_BATCH_PACKETS: Final = 32
_IPV6_MIN_MTU: Final = 1280
_DEFAULT_PATH_MTU: Final = 1500
_DEFAULT_TUNNEL_MTU: Final = 1400
_PATH_REFRESH_S: Final = 5.0
_LEARNT_MTU_S: Final = 600.0
"""As long as Linux believes what it learnt by itself; RFC 8201 §4 wants 5 minutes or more."""
_RENEW_S: Final = 1.0
_MAX_SPIS_AT_ONCE: Final = 10_000

_UNSUPPORTED_REASONS: Final = {
    "encryption": ErrorReason.ALGORITHM_UNSUPPORTED,
    "integrity": ErrorReason.ALGORITHM_UNSUPPORTED,
    "protocol": ErrorReason.ALGORITHM_UNSUPPORTED,
    "encryption_key": ErrorReason.KEY_LENGTH,
    "integrity_key": ErrorReason.KEY_LENGTH,
    "key_bits": ErrorReason.KEY_LENGTH,
    "mode": ErrorReason.MODE_UNSUPPORTED,
    "encapsulation": ErrorReason.MODE_UNSUPPORTED,
    "replay_window_packets": ErrorReason.WINDOW_UNSUPPORTED,
    "source": ErrorReason.ADDRESS_FAMILY,
    "destination": ErrorReason.ADDRESS_FAMILY,
}


class SoftwareBackend:
    """A `Datapath` in pure Python.

    Args:
        options: Names and numbers.
        esp_sockets: The ESP members of the UDP 4500 groups (`PortGroups.esp`); borrowed.
        entropy: Returns that many unpredictable bytes, for SPIs and CBC IVs.
    """

    def __init__(
        self,
        options: SoftwareOptions | None = None,
        esp_sockets: Sequence[socket.socket] = (),
        *,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._options = options or SoftwareOptions()
        self._esp_sockets = tuple(esp_sockets)
        self._entropy = entropy
        self._hub = EventHub()
        self._sad = Sad(entropy)
        self._network = Network()
        self._place = self._options.protection
        self._protection = Protection(self._network, self._place)
        self._tun: Tun | None = None
        self._outer: OuterSockets | None = None
        self._watch = NetworkWatch(lambda: self._spawn(self._follow_network(), "follow-network"))
        self._forwarder = Forwarder(self._sad, self, self._options.limits)
        self._interfaces = Interfaces(
            self._network,
            self._place.tag,
            lambda packet, number: self._forwarder.from_tunnel(packet, self.now(), number),
        )
        self._spd_lock = asyncio.Lock()
        self._link = 0
        self._tunnel_mtu = _DEFAULT_TUNNEL_MTU
        self._carried: dict[int, int] = {}
        """By interface id: what its SAs carry in one piece, in bytes."""
        self._generation = Generation()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refresher: asyncio.TimerHandle | None = None
        self._is_closed = False

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Create the tunnel device, open the sockets and begin to carry packets.

        Rules and guard of a former life are left in force.

        Raises:
            HostError: This machine refused; the text says what to do.
        """
        require_capabilities(AGENT_CAPABILITIES, "the software datapath")
        loop = asyncio.get_running_loop()
        try:
            await self._open_tunnel()
            self._outer = OuterSockets(
                self._esp_sockets, mark=self._place.mark, clear_mark=self._place.clear_mark
            )
            self._hear_own_sas()
            self._watch.start()
            async with self._spd_lock:
                await self._protection.start(self._link)
                await self._interfaces.tunnels.start()
        except BaseException:
            await self.close()
            raise
        self._watch_tunnel()
        for raw in self._outer.raw:
            loop.add_reader(raw.fileno(), self._on_raw, raw, self._forwarder.from_wire)
        for raw in self._outer.raw_ah:
            loop.add_reader(raw.fileno(), self._on_raw, raw, self._forwarder.ah_from_wire)
        for icmp in self._outer.icmp:
            loop.add_reader(icmp.fileno(), self._on_icmp, icmp)
        for udp in self._outer.udp:
            loop.add_reader(udp.fileno(), self._on_udp, udp)
        self._refresher = loop.call_later(_PATH_REFRESH_S, self._on_refresh)

    async def _open_tunnel(self) -> None:
        self._tun = Tun(self._place.tunnel_device)
        link = await self._network.link_index(self._place.tunnel_device)
        if link is None:
            raise HostError(f"the link {self._place.tunnel_device} vanished as soon as it was made")
        self._link = link
        await self._network.bring_up(link, mtu_bytes=self._tunnel_mtu, link_local=False)

    def _watch_tunnel(self) -> None:
        assert self._tun is not None
        asyncio.get_running_loop().add_reader(self._tun.descriptor, self._on_tunnel)

    def _close_tunnel(self) -> None:
        if self._tun is not None:
            asyncio.get_running_loop().remove_reader(self._tun.descriptor)
            self._tun.close()
            self._tun = None

    async def close(self) -> None:
        """Stop carrying packets; the guard, the rules and the unreachable routes stay (fail closed)."""
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        self._watch.close()
        if self._refresher is not None:
            self._refresher.cancel()
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._close_tunnel()
        self._interfaces.close()
        if self._outer is not None:
            outer = self._outer
            for sock in (*outer.raw, *outer.raw_ah, *outer.icmp, *outer.udp):
                loop.remove_reader(sock.fileno())
            self._outer.close()
        for entry in self._sad:
            self._sad.remove(entry.sa.sa_id)
        await self._network.close()
        self._hub.close()

    async def remove_protection(self) -> None:
        """Take away guard, rules and routes: from here on nothing keeps traffic from leaving in clear.

        May be called without `start`, to clean up after an agent that is gone.
        """
        async with self._spd_lock:
            await self._protection.remove()
            await self._interfaces.tunnels.remove_all()

    # --- Datapath: SAs ------------------------------------------------------------------------------

    async def capabilities(self) -> Capabilities:
        """Return what the ESP core can do."""
        return Capabilities(
            name="software",
            engines=(Engine.SOFTWARE,),
            encryption=supported_encryption(),
            integrity=tuple(dict.fromkeys((*supported_integrity(), *ah.supported_integrity()))),
            protocols=(IpsecProtocol.ESP, IpsecProtocol.AH),
            modes=(Mode.TUNNEL, Mode.TRANSPORT),
            esn=True,
            udp_encapsulation=bool(self._esp_sockets),
            max_replay_window_packets=MAX_WINDOW_PACKETS,
            counters_survive_restart=False,
            max_sas=MAX_SAS,
        )

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:  # noqa: ARG002 - one SPI space serves all our addresses
        """Reserve SPIs.

        Raises:
            DatapathError: TABLE_FULL: more at once than this datapath gives.
        """
        if not 0 <= count <= _MAX_SPIS_AT_ONCE:
            raise DatapathError(
                ErrorReason.TABLE_FULL, f"{count} SPIs at once, the limit is {_MAX_SPIS_AT_ONCE}"
            )
        return self._sad.reservations.draw(count, self.now())

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs; traffic that waited for one leaves at once."""
        results = tuple(self._install_one(sa, generation) for sa in sas)
        self._hear_own_sas()
        fitting = self._fit_tunnel_mtu()
        if fitting is not None:
            await fitting
        self._forwarder.sas_changed(self.now())
        return results

    def _install_one(self, sa: SecurityAssociation, generation: int) -> ItemResult:
        try:
            self._install(sa, generation)
        except UnsupportedSa as error:
            reason = _UNSUPPORTED_REASONS.get(error.field, ErrorReason.ALGORITHM_UNSUPPORTED)
            return ItemResult(name=sa.sa_id, error=DatapathError(reason, str(error)))
        except DatapathError as error:
            return ItemResult(name=sa.sa_id, error=error)
        return ItemResult(name=sa.sa_id, placement=Engine.SOFTWARE)

    def _install(self, sa: SecurityAssociation, generation: int) -> None:
        self._generation.check(generation)
        there = self._sad.get(sa.sa_id)
        if there is not None:
            if there.sa != sa:
                raise DatapathError(ErrorReason.SPI_IN_USE, f"SPI {sa.spi:08x} has an SA with other contents")
            there.generation = generation
            return
        self._check_sa(sa)
        entry = self._make_inbound(sa, generation) if _is_inbound(sa) else self._make_outbound(sa, generation)
        self._sad.add(entry)
        self._arm(entry, "soft", sa.lifetime.soft)
        self._arm(entry, "hard", sa.lifetime.hard)

    def _check_sa(self, sa: SecurityAssociation) -> None:
        if len(self._sad) >= MAX_SAS:
            raise DatapathError(ErrorReason.TABLE_FULL, f"{MAX_SAS} SAs are the limit")
        first_wanted(sa.placement, (Engine.SOFTWARE,))
        check_no_marks(sa.mark, sa.set_mark)
        if sa.encapsulation is not None and not self._esp_sockets:
            raise DatapathError(
                ErrorReason.MODE_UNSUPPORTED,
                "UDP encapsulation needs the UDP 4500 sockets, and there are none",
            )

    def _hear_own_sas(self) -> None:
        """Beside another backend, have the kernel keep packets of other SAs from our raw sockets."""
        if self._options.is_alone or self._outer is None:
            return
        spis: dict[IpsecProtocol, list[int]] = {}
        for protocol, spi, _ in self._sad.inbound:
            spis.setdefault(protocol, []).append(spi)
        self._outer.hear_only(spis)

    def _make_inbound(self, sa: SecurityAssociation, generation: int) -> InboundEntry:
        port = sa.encapsulation.source_port if sa.encapsulation else 0
        core: InboundCore = AhInboundSa(sa) if sa.protocol is IpsecProtocol.AH else InboundSa(sa)
        return InboundEntry(sa=sa, core=core, generation=generation, peer=(sa.source.packed, port))

    def _make_outbound(self, sa: SecurityAssociation, generation: int) -> OutboundEntry:
        core: OutboundCore = (
            AhOutboundSa(sa) if sa.protocol is IpsecProtocol.AH else OutboundSa(sa, entropy=self._entropy)
        )
        entry = OutboundEntry(
            sa=sa, core=core, generation=generation, selectors=SelectorSet(sa.local_ts, sa.remote_ts)
        )
        self._measure_path(entry)
        self._sad.keys.spend(self._sad.keys.fingerprint(sa))
        return entry

    def _arm(self, entry: Entry, kind: str, limit: Limit) -> None:
        """Start the timer of a lifetime in seconds."""
        if limit.seconds is None:
            return
        is_hard = kind == "hard"
        timer = asyncio.get_running_loop().call_later(
            limit.seconds, lambda: self._forwarder.expire(entry, "seconds", is_hard=is_hard)
        )
        entry.timers.append(timer)

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs."""
        now = self.now()
        gone = [self._sad.remove(sa_id) for sa_id in sa_ids]
        self._hear_own_sas()
        self._forwarder.sas_changed(now)
        return tuple(
            ItemResult(name=sa_id, counters=None if entry is None else _count(entry, now))
            for sa_id, entry in zip(sa_ids, gone, strict=True)
        )

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every installed SA."""
        return tuple(
            InstalledSa(
                sa=entry.sa,
                placement=Engine.SOFTWARE,
                generation=entry.generation,
                effective_mtu=entry.mtu if isinstance(entry, OutboundEntry) else None,
            )
            for entry in self._sad
        )

    # --- Datapath: policies -------------------------------------------------------------------------

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Install or replace SPD entries."""
        async with self._spd_lock:
            entries = {entry.policy.name: entry for entry in self._forwarder.spd.entries}
            errors: dict[str, DatapathError] = {}
            for policy in policies:
                try:
                    self._generation.check(generation)
                    check_policy(policy)
                except DatapathError as error:
                    errors[policy.name] = error
            possible = [policy for policy in policies if policy.name not in errors]
            errors |= await self._interfaces.tunnels.claim(possible)
            for policy in possible:
                if policy.name not in errors:
                    entries[policy.name] = make_entry(policy, generation)
            refusal = await self._try_to_protect(entries.values())
            await self._tidy_interfaces([policy.name for policy in policies])
            return tuple(
                ItemResult(name=policy.name, error=errors.get(policy.name) or refusal) for policy in policies
            )

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries: their traffic is nobody's business any more."""
        async with self._spd_lock:
            gone = frozenset(names)
            kept = [entry for entry in self._forwarder.spd.entries if entry.policy.name not in gone]
            refusal = await self._try_to_protect(kept)
            await self._tidy_interfaces(names)
            return tuple(ItemResult(name=name, error=refusal) for name in names)

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in order."""
        return self._forwarder.spd.policies

    async def _tidy_interfaces(self, names: Iterable[str]) -> None:
        """Have interfaces follow SPD entries as they are now."""
        there = {entry.policy.name: entry.policy.interface for entry in self._forwarder.spd.entries}
        for name in names:
            self._interfaces.tunnels.note(name, there.get(name))
        await self._interfaces.tunnels.tidy()

    async def _try_to_protect(self, entries: Iterable[SpdEntry]) -> DatapathError | None:
        """Put an SPD in force; return why not, and leave the old one in force then.

        The guard comes first: what steering does not catch is dropped, never sent in clear. Steering comes
        last: whatever it brings finds its entry.
        """
        old, new = self._forwarder.spd, Spd(entries)
        try:
            self._protection.check(new.steered)
        except DatapathError as error:
            return error
        try:
            await self._protection.guard_policies(new.steered)
            self._forwarder.use_spd(new, self.now())
            await self._protection.steer(new.steered)
        except (HostError, DatapathError) as error:
            with contextlib.suppress(HostError):
                await self._protection.guard_policies(old.steered)
            self._forwarder.use_spd(old, self.now())
            if isinstance(error, DatapathError):
                return error
            return DatapathError(ErrorReason.SYSTEM, str(error))
        return None

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove everything older, and what a former life of this agent left in force."""
        async with self._spd_lock:
            self._generation.reconcile(generation)
            sas = [entry.sa.sa_id for entry in self._sad if entry.generation < generation]
            for sa_id in sas:
                self._sad.remove(sa_id)
            entries = self._forwarder.spd.entries
            policies = [entry.policy.name for entry in entries if entry.generation < generation]
            self._protection.forget_former_lives()
            refusal = await self._try_to_protect(entry for entry in entries if entry.generation >= generation)
            self._interfaces.tunnels.forget_former()
            await self._tidy_interfaces(policies)
            self._hear_own_sas()
            self._forwarder.sas_changed(self.now())
            if refusal is not None:
                raise refusal
            return (*sas, *policies)

    # --- Datapath: counters and events --------------------------------------------------------------

    async def counters(self) -> Counters:
        """Return a snapshot of all counters."""
        now = self.now()
        drops = dict(self._forwarder.drops)
        for reason, count in (await self._protection.drops()).items():
            drops[reason] = drops.get(reason, 0) + count
        return Counters(sas=tuple(_count(entry, now) for entry in self._sad), drops=drops)

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on."""
        return self._hub.subscribe()

    # --- the loop -----------------------------------------------------------------------------------

    def _on_tunnel(self) -> None:
        for _ in range(_BATCH_PACKETS):
            if self._tun is None:
                return
            try:
                packet = self._tun.read()
            except OSError as error:
                _log.warning("tunnel_device_lost", device=self._tun.name, reason=str(error))
                self._close_tunnel()
                self._spawn(self._renew_tunnel(), "renew-tunnel")
                return
            if packet is None:
                return
            self._forwarder.from_tunnel(packet, self.now())

    async def _renew_tunnel(self) -> None:
        """Make the tunnel device anew after somebody removed it, and lead traffic into it again.

        Until that is done the guard and the unreachable routes hold (fail closed).
        """
        async with self._spd_lock:
            while not self._is_closed:
                try:
                    await self._open_tunnel()
                    await self._protection.use_link(self._link, self._forwarder.spd.steered)
                except (HostError, DatapathError) as error:
                    self._close_tunnel()
                    _log.warning("tunnel_device_not_renewed", reason=str(error))
                    await asyncio.sleep(_RENEW_S)
                else:
                    self._watch_tunnel()
                    _log.warning("tunnel_device_renewed", device=self._place.tunnel_device)
                    return

    def _on_raw(self, raw: socket.socket, handle: FromWire) -> None:
        assert self._outer is not None
        for _ in range(_BATCH_PACKETS):
            try:
                if not self._outer.receive_raw(raw, handle):
                    return
            except OSError:
                # An ICMP error about something we sent; most likely "fragmentation needed".
                self._outer.forget_errors(raw)
                self._measure_paths()
                return

    def _on_icmp(self, icmp: socket.socket) -> None:
        """Learn path MTUs of AH over IPv6, which the kernel does not."""
        assert self._outer is not None
        for _ in range(_BATCH_PACKETS):
            message = self._outer.receive_icmp(icmp)
            if message is None:
                return
            report = parse_too_big_about_ah(message)
            if report is not None:
                self._learn_path_mtu(report)

    def _learn_path_mtu(self, report: TooBig) -> None:
        """Believe a router about an SA of ours, for some minutes (RFC 4301 §8.2.1, RFC 8201 §4)."""
        entry = self._sad.outbound(IpsecProtocol.AH, report.destination, report.spi)
        if entry is None or entry.sa.source != report.source:
            return
        mtu = max(report.mtu, _IPV6_MIN_MTU)
        if mtu < (entry.path_mtu or _DEFAULT_PATH_MTU):
            entry.learnt_mtu, entry.learnt_until = mtu, self.now() + _LEARNT_MTU_S
            self.path_shrank(entry)

    def _on_udp(self, udp: socket.socket) -> None:
        assert self._outer is not None
        for _ in range(_BATCH_PACKETS):
            try:
                if not self._outer.receive_udp(udp, self._forwarder.from_wire, self._forwarder.count_drop):
                    return
            except OSError:
                self._measure_paths()
                return

    async def _follow_network(self) -> None:
        """Put back what the kernel took away with a link or an address, and measure paths anew."""
        async with self._spd_lock:
            try:
                if not await self._network.is_up(self._link):
                    await self._network.bring_up(self._link, mtu_bytes=self._tunnel_mtu, link_local=False)
                await self._protection.steer_again(self._forwarder.spd.steered)
                await self._interfaces.tunnels.follow()
            except (HostError, DatapathError) as error:
                _log.warning("routing_failed", reason=str(error))
        self._measure_paths()

    def _on_refresh(self) -> None:
        self._measure_paths()
        self._refresher = asyncio.get_running_loop().call_later(_PATH_REFRESH_S, self._on_refresh)

    # --- MTU ----------------------------------------------------------------------------------------

    def _measure_paths(self) -> None:
        for entry in self._sad:
            if isinstance(entry, OutboundEntry):
                self._measure_path(entry)
        self._fit_tunnel_mtu()

    def _measure_path(self, entry: OutboundEntry) -> None:
        """Ask the kernel for the path MTU of an SA, what ICMP taught it included."""
        path = probe_path(entry.core.destination, source=entry.sa.source, mark=self._place.mark)
        if path is not None:
            entry.path_mtu = path.mtu_bytes
        if entry.learnt_until > self.now():
            entry.path_mtu = min(entry.path_mtu or _DEFAULT_PATH_MTU, entry.learnt_mtu)
        entry.mtu = entry.core.effective_mtu(entry.path_mtu or _DEFAULT_PATH_MTU)

    def _fit_tunnel_mtu(self) -> asyncio.Task[None] | None:
        """Give the tunnel device the MTU of the narrowest SA: the kernel then fragments and answers itself.

        It never goes below 1280: IPv6 would end on the device. Returns the task that does it, if it must.
        """
        carried: dict[int, int] = {}
        for entry in self._sad:
            if isinstance(entry, OutboundEntry):
                number = entry.sa.interface_id
                carried[number] = min(entry.mtu, carried.get(number, entry.mtu))
        wanted = max(carried.pop(0, _DEFAULT_TUNNEL_MTU), _IPV6_MIN_MTU)
        if self._is_closed or (wanted == self._tunnel_mtu and carried == self._carried):
            return None
        self._tunnel_mtu, self._carried = wanted, carried
        return self._spawn(self._set_tunnel_mtu(wanted, carried), "tunnel-mtu")

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _set_tunnel_mtu(self, mtu_bytes: int, carried: Mapping[int, int]) -> None:
        await self._interfaces.tunnels.fit_mtu(carried)
        if self._tun is None:
            return
        try:
            await self._network.set_mtu(self._link, mtu_bytes)
        except HostError as error:
            _log.warning("tunnel_mtu_failed", mtu=mtu_bytes, reason=str(error))

    # --- what the forwarder needs (Surroundings) ----------------------------------------------------

    def send(self, packet: bytes) -> SendResult:
        """Send a whole IP packet that is protected."""
        return self._outer.send(packet) if self._outer is not None else SendResult.FAILED

    def send_clear(self, packet: bytes) -> SendResult:
        """Send a whole IP packet that needs no protection."""
        return self._outer.send_clear(packet) if self._outer is not None else SendResult.FAILED

    def send_fragmented(self, entry: OutboundEntry, sealed: Sealed) -> SendResult:
        """Send an ESP packet in as many pieces as needed."""
        return self._outer.send_fragmented(entry, sealed) if self._outer is not None else SendResult.FAILED

    def deliver(self, packet: bytes, interface_id: int) -> bool:
        """Hand a packet to the kernel."""
        if interface_id:
            return self._interfaces.deliver(packet, interface_id)
        return self._tun is not None and self._tun.write(packet)

    def source_towards(self, destination: IpAddress) -> IpAddress | None:
        """Return our address towards a host."""
        path = probe_path(destination, mark=self._place.mark)
        return None if path is None else path.source

    def emit(self, event: DatapathEvent) -> None:
        """Tell the subscribers."""
        self._hub.emit(event)

    def path_shrank(self, entry: OutboundEntry) -> None:
        """Measure the path of an SA anew."""
        self._measure_path(entry)
        self._fit_tunnel_mtu()

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Run something later."""
        return asyncio.get_running_loop().call_later(delay_s, callback)


def _is_inbound(sa: SecurityAssociation) -> bool:
    return sa.direction is Direction.INBOUND


def _count(entry: Entry, now: float) -> SaCounters:
    usage = entry.core.usage
    return SaCounters(
        sa_id=entry.sa.sa_id,
        packets=usage.packets,
        bytes=usage.bytes,
        sequence=entry.core.sequence,
        drops=dict(usage.drops),
        last_used_s_ago=None if usage.last_used is None else now - usage.last_used,
    )
