"""The native engine as one `Datapath`: SAs and SPD go to espd, and no packet comes here.

espd outlives the agent. It goes on with what it has, and the next agent adopts it: by its socket, and by the
journal, which has what espd does not keep. When espd itself ends, its SAs are lost, their keys never send
again, and it is started anew; until new SAs are there the protection holds (fail closed).

Rules a change must keep:

- An outbound SA sends below a number only that the journal has: no life of its key begins below it.
- A key that an outbound SA had is never given to another one.
- The guard is in force before the SPD, and steering comes after it.
- What changes the SAD or the SPD holds the lock.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter as Tally
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from gateway.datapath.backend import (
    Acquire,
    BadSpi,
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    HardExpire,
    InstalledSa,
    ItemResult,
    SasLost,
)
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.adoption import (
    LifeNote,
    PolicyNote,
    adopt,
    forget_policy,
    note_life,
    note_policy,
    noted_policies,
    read_life,
)
from gateway.datapath.engine.core import EngineError, EventKind
from gateway.datapath.engine.devices import FIRST_INTERFACE, Devices
from gateway.datapath.engine.espd import SOCKET_NAME, Espd, Launcher, Life, ProgramLauncher
from gateway.datapath.engine.espd_sas import EspdSas
from gateway.datapath.engine.fast_path import FastPath
from gateway.datapath.engine.installation import limits_of, refusal_of
from gateway.datapath.engine.interfaces import Interfaces
from gateway.datapath.engine.options import EngineOptions
from gateway.datapath.engine.outage import Outage
from gateway.datapath.engine.path_errors import PathErrors
from gateway.datapath.engine.policies import PolicyTable
from gateway.datapath.engine.sad import Held, Sad
from gateway.datapath.engine.spd import Carrier, Wanted, compile_spd
from gateway.datapath.engine.xdp_steering import PINS_NAME
from gateway.datapath.events import EventHub
from gateway.datapath.generation import Generation
from gateway.datapath.journal import Journal
from gateway.datapath.protection import Protection
from gateway.datapath.steering import check_policy
from gateway.datapath.watch import Watch
from gateway.esp import ah
from gateway.esp.transform import supported_encryption, supported_integrity
from gateway.host.errors import HostError
from gateway.host.network import Network
from gateway.host.network_watch import NetworkWatch
from gateway.host.privileges import AGENT_CAPABILITIES, Capability, require_capabilities
from gateway.host.sockets import mute
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import (
    MAX_REPLAY_WINDOW,
    IpAddress,
    IpsecProtocol,
    Mode,
    SaId,
    SecurityAssociation,
    Spi,
)
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_MAX_SPIS_AT_ONCE: Final = 10_000
_IPV6_MIN_MTU: Final = 1280
_DEFAULT_TUNNEL_MTU: Final = 1400
_PATH_REFRESH_S: Final = 5.0
_RETRY_S: Final = 1.0


class EngineBackend:
    """A `Datapath` in espd.

    Args:
        options: Names and numbers.
        esp_sockets: The ESP members of the UDP 4500 groups (`PortGroups.esp`); borrowed, and muted: espd sees
            what they would get.
        launcher: Starts espd; by default the program that `options` names.
        entropy: Returns that many unpredictable bytes, for SPIs and names.
    """

    def __init__(
        self,
        options: EngineOptions | None = None,
        esp_sockets: Sequence[socket.socket] = (),
        *,
        launcher: Launcher | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._options = options or EngineOptions()
        self._place = self._options.protection
        self._esp_sockets = tuple(esp_sockets)
        self._has_udp = bool(self._esp_sockets) or not self._options.is_alone
        self._hub = EventHub()
        self._scratch: TemporaryDirectory[str] | None = None
        folder = self._options.state_dir
        if folder is None:
            self._scratch = TemporaryDirectory(prefix="ipsecgw-", ignore_cleanup_errors=True)
        self._journal = Journal(None if folder is None else folder / "engine.journal")
        self._launcher = launcher or ProgramLauncher(self._options.program)
        self._espd = Espd(
            Path(self._scratch.name if self._scratch else folder or "") / SOCKET_NAME,
            self._launcher,
            on_event=self._on_event,
            on_end=self._on_end,
        )
        self._sad = Sad(entropy, self._options.inbound_bits)
        self._entries: dict[str, PolicyNote] = {}
        self._devices = Devices(self._espd, self._options.sending)
        self._network = Network()
        own = (*self._options.interfaces, *self._options.inner_interfaces)
        self._interfaces = Interfaces(
            self._devices,
            self._network,
            self._journal,
            self._place.tag,
            first_number=FIRST_INTERFACE + len(own),
            is_routed=bool(own),
        )
        self._table = PolicyTable(
            self._espd, self._journal, self._options.tunnels, self._interfaces.number_of
        )
        self._sas = EspdSas(
            self._espd,
            self._sad,
            self._journal,
            mark=self._place.mark,
            has_udp=self._has_udp,
            emit=self._hub.emit,
            expire=lambda held: self._spawn(self._expire(held), "expire"),
            follow_inbound=lambda sa, is_there: self._fast.follow_sa(sa, is_there=is_there),
            device_of=self._interfaces.number_of,
        )
        self._path_errors = PathErrors(
            self._place.mark, lambda: self._spawn(self._follow_paths(), "follow-paths"), self._sas.learn
        )
        self._fast = FastPath(
            self._espd,
            self._devices,
            self._network,
            interfaces=self._options.interfaces,
            inner_interfaces=self._options.inner_interfaces,
            folder=None if folder is None else folder / PINS_NAME,
            own_protocol=self._place.routing_protocol,
            ike_per_s=self._options.ike_per_s,
            tunnels=self._interfaces,
        )
        self._watch = NetworkWatch(lambda: self._spawn(self._follow_network(), "follow-network"))
        self._protection = Protection(self._network, self._place)
        self._lock = asyncio.Lock()
        self._life = b""
        self._link = 0
        self._tunnel_mtu = _DEFAULT_TUNNEL_MTU
        self._generation = Generation()
        self._outage: Outage | None = None
        """Since espd ended, while there is another one that does not carry everything again."""
        self._drops_with_espd: Mapping[DropReason, int] = {}
        """What XDP had dropped when there was an espd for sure."""
        self._drops_lately: Mapping[DropReason, int] = {}
        """What it had dropped some time after that; espd may have ended just before."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_useless = False
        """Whether espd was started, and there is nothing in it that is worth to live on."""
        self._is_closed = False

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find espd or start it, adopt what a former life of the agent left, and listen.

        Raises:
            HostError: This machine or espd refused; the text says what to do.
        """
        self._launcher.check()
        require_capabilities((*AGENT_CAPABILITIES, Capability.CAP_IPC_LOCK), "the native engine")
        try:
            async with self._lock:
                self._journal.read()
                known = read_life(self._journal)
                if known is not None:
                    self._sad.keys.fingerprint_key = known.fingerprint_key
                self._table.adopt_numbers()
                self._interfaces.adopt_numbers()
                self._entries = {note.policy.name: note for note in noted_policies(self._journal)}
                self._journal.begin()
                for udp in self._esp_sockets:
                    mute(udp)
                life = await self._espd.start(None if known is None else known.number)
                self._is_useless = life.is_new
                await self._set_up(life)
                await self._adopt()
                await self._adopt_interfaces()
                await self._protection.start(self._link, self._steered())
                await self._protection.guard_policies(self._steered())
                await self._start_over()
                self._watch.start()
                self._fast.watch(lambda: self._spawn(self._follow_routing(), "follow-routing"))
                self._path_errors.open()
                self._is_useless = False
        except (EngineError, OSError, DatapathError) as error:
            await self.close()
            raise HostError(str(error)) from error
        except BaseException:
            await self.close()
            raise
        self._spawn(self._refresh_paths(), "refresh-paths")

    async def _set_up(self, life: Life) -> None:
        """Give espd its devices.

        Raises:
            HostError, EngineError: It did not take them.
        """
        options = self._options
        message = p.Configure(
            workers=len(options.cpus),
            busy_poll=options.busy_poll,
            inbound_bits=options.inbound_bits,
            outbound_sas=options.outbound_sas,
            tunnels=options.tunnels,
            mark=self._place.mark,
            clear_mark=self._place.clear_mark,
            frames=options.frames,
            frame_bytes=options.frame_bytes,
            batch_low=options.batch_low,
            batch_high=options.batch_high,
        )
        pinned = [p.ANY_CPU if cpu is None else cpu for cpu in options.cpus]
        message.cpus[:] = pinned + [p.ANY_CPU] * (p.MAX_WORKERS - len(pinned))
        try:
            await self._fast.configure(message)
        except p.EspdRefused as refusal:
            if refusal.code is not p.ControlError.ORDER:
                raise
            raise HostError(
                "the espd that runs works on other CPUs, polls otherwise or has tables of other sizes than "
                "this agent is told to: give it the options of the agent before it, or end espd first "
                "(`ipsecgw agent --remove-protection`, or SIGTERM to it), and its SAs with it"
            ) from refusal
        note_life(self._journal, LifeNote(life.number, self._sad.keys.fingerprint_key))
        if life.number != self._life:
            self._table.forget()
            self._sas.forget_drops()
        self._life = life.number
        await self._devices.open_all(self._place.tunnel_device)
        link = await self._network.link_index(self._place.tunnel_device)
        if link is None:
            raise HostError(f"espd made no link {self._place.tunnel_device}")
        self._link = link
        await self._network.bring_up(link, mtu_bytes=self._tunnel_mtu, link_local=False)
        await self._interfaces.open_again()
        await self._fast.open()
        self._drops_with_espd = self._drops_lately = self._fast.drops()
        _log.info(
            "espd_ready",
            process=life.process,
            is_new=life.is_new,
            crypto=", ".join(life.crypto),
            devices=self._devices.in_words(),
        )

    async def _adopt(self) -> None:
        """Take over the SAs that espd and journal have."""
        adopted = adopt(self._journal, await self._sas.records(), self._sad)
        await self._sas.take_strange(adopted.strange)
        for held in self._sad:
            self._sas.arm(held)
        self._fast.set_sas(held.sa for held in self._sad if held.is_inbound)
        await self._sas.measure_paths(held for held in self._sad if not held.is_inbound)
        if len(self._sad) or adopted.lost or adopted.strange:
            _log.warning(
                "sas_adopted",
                adopted=len(self._sad),
                lost=len(adopted.lost),
                not_known=len(adopted.strange),
            )

    async def _adopt_interfaces(self) -> None:
        """Go on with the tunnel interfaces of the SPD that the last agent left."""
        await self._interfaces.tunnels.start()
        refused = await self._interfaces.tunnels.claim(self._policies())
        for name, error in refused.items():
            self._interfaces.tunnels.note(name, self._entries[name].policy.interface)
            _log.warning("tunnel_interface_not_adopted", entry=name, reason=str(error))

    async def close(self) -> None:
        """Stop listening. espd goes on with its SAs, and the protection stays.

        Without a directory to be found in again espd ends too.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._watch.close()
        self._path_errors.close()
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for held in self._sad:
            for timer in held.timers:
                timer.cancel()
        if self._scratch is not None or self._is_useless:
            await self._espd.stop()
        self._espd.leave()
        self._fast.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        self._journal.close()
        await self._network.close()
        self._hub.close()

    async def remove_protection(self) -> None:
        """Take away guard, rules and routes, and end espd: nothing keeps traffic from leaving in clear.

        May be called without `start`, to clean up after an agent that is gone.
        """
        async with self._lock:
            await self._protection.remove()
            await self._espd.stop()
            await self._interfaces.tunnels.remove_all()
            await self._fast.remove()
            try:
                self._journal.remove()
            except OSError as error:
                raise HostError(f"cannot remove the journal: {error.strerror}") from error

    # --- Datapath: SAs ------------------------------------------------------------------------------

    async def capabilities(self) -> Capabilities:
        """Return what the core library can do: what the software datapath can, as tests compare."""
        return Capabilities(
            name="engine",
            engines=(Engine.ENGINE,),
            encryption=supported_encryption(),
            integrity=tuple(dict.fromkeys((*supported_integrity(), *ah.supported_integrity()))),
            protocols=(IpsecProtocol.ESP, IpsecProtocol.AH),
            modes=(Mode.TUNNEL, Mode.TRANSPORT),
            esn=True,
            udp_encapsulation=self._has_udp,
            max_replay_window_packets=MAX_REPLAY_WINDOW,
            counters_survive_restart=self._scratch is None,
            max_sas=self._options.outbound_sas,
            io_methods=self._devices.lines(),
        )

    async def allocate_spis(self, count: int, destination: IpAddress | None = None) -> tuple[Spi, ...]:  # noqa: ARG002 - one SPI space serves all our addresses
        """Reserve SPIs whose places in espd's table are free.

        Raises:
            DatapathError: TABLE_FULL: more at once than this datapath gives, or than there is room for.
        """
        if not 0 <= count <= _MAX_SPIS_AT_ONCE:
            raise DatapathError(
                ErrorReason.TABLE_FULL, f"{count} SPIs at once, the limit is {_MAX_SPIS_AT_ONCE}"
            )
        return self._sad.reservations.draw(count, time.monotonic())

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs; outbound ones take over the traffic that they are for."""
        async with self._lock:
            try:
                self._generation.check(generation)
            except DatapathError as error:
                return tuple(ItemResult(name=sa.sa_id, error=error) for sa in sas)
            errors = await self._sas.install(sas, generation)
            await self._follow_sas()
        if self._outage is not None:
            self._outage.carry(sa for sa, error in zip(sas, errors, strict=True) if error is None)
            await self._tell_cost()
        words = self._devices.in_words()
        return tuple(
            ItemResult(
                name=sa.sa_id,
                error=error,
                placement=None if error else Engine.ENGINE,
                placement_reason="" if error else words,
            )
            for sa, error in zip(sas, errors, strict=True)
        )

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs; what they carried asks for others first."""
        async with self._lock:
            gone = [held for sa_id in sa_ids if (held := self._sad.get(sa_id)) is not None]
            for held in gone:
                held.is_expired = True
            await self._follow_sas()
            counted = await self._sas.take_away(gone)
        return tuple(ItemResult(name=sa_id, counters=counted.get(sa_id)) for sa_id in sa_ids)

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every installed SA."""
        words = self._devices.in_words()
        return tuple(
            InstalledSa(
                sa=held.sa,
                placement=Engine.ENGINE,
                placement_reason=words,
                generation=held.generation,
                effective_mtu=held.mtu,
            )
            for held in self._sad
        )

    async def _follow_sas(self) -> None:
        """Have SPD, tunnels and MTU be those of the SAs there are. The caller holds the lock."""
        try:
            await self._put_in_force()
        except (EngineError, DatapathError) as error:
            _log.error("tunnels_not_set", reason=str(error))
        await self._fit_tunnel_mtu()

    async def _fit_tunnel_mtu(self) -> None:
        """Give tunnel devices the MTU of their narrowest SA: the kernel then fragments and answers itself.

        It never goes below 1280: IPv6 would end on the device.
        """
        carried: dict[int, int] = {}
        for held in self._sad:
            if held.mtu and not held.is_expired:
                number = held.sa.interface_id
                carried[number] = min(held.mtu, carried.get(number, held.mtu))
        wanted = max(carried.pop(0, _DEFAULT_TUNNEL_MTU), _IPV6_MIN_MTU)
        await self._interfaces.tunnels.fit_mtu(carried)
        if wanted != self._tunnel_mtu:
            try:
                await self._network.set_mtu(self._link, wanted)
            except HostError as error:
                _log.warning("tunnel_mtu_failed", mtu=wanted, reason=str(error))
            else:
                self._tunnel_mtu = wanted

    # --- Datapath: policies -------------------------------------------------------------------------

    def _policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched."""
        policies = (note.policy for note in self._entries.values())
        return tuple(sorted(policies, key=lambda policy: (policy.priority, policy.name)))

    def _steered(self) -> tuple[Policy, ...]:
        """Return the entries whose traffic is known by its selectors, not by an interface."""
        return tuple(policy for policy in self._policies() if not policy.interface_id)

    def _wanted(self) -> Wanted:
        """Return what espd shall have of the SPD."""
        return compile_spd(self._policies(), self._outbound)

    async def _put_in_force(self) -> None:
        """Have espd, and XDP, know the SPD."""
        await self._table.put_in_force(self._wanted())
        self._fast.set_policies(self._steered())

    async def _start_over(self) -> None:
        """Tell an espd that was somebody else's, or is new, all of SPD and routing."""
        await self._table.start_over(self._wanted())
        self._fast.set_policies(self._steered())
        self._fast.forget_routing()
        await self._fast.mirror()

    def _outbound(self, policy: Policy) -> tuple[Carrier, ...]:
        """Return the SAs that serve an SPD entry, and are of the same interface or of none as it is."""
        return tuple(
            Carrier(held.cookie, held.sa.local_ts, held.sa.remote_ts)
            for held in self._sad.outbound(policy.connection, policy.child)
            if held.sa.interface_id == policy.interface_id
        )

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Install or replace SPD entries."""
        async with self._lock:
            entries = dict(self._entries)
            errors: dict[str, DatapathError] = {}
            for policy in policies:
                try:
                    self._generation.check(generation)
                    check_policy(policy)
                    self._interfaces.number_of(policy.interface_id)
                except DatapathError as error:
                    errors[policy.name] = error
            possible = [policy for policy in policies if policy.name not in errors]
            errors |= await self._interfaces.tunnels.claim(possible)
            for policy in possible:
                if policy.name not in errors:
                    entries[policy.name] = PolicyNote(policy=policy, generation=generation)
            refusal = await self._try_to_protect(entries)
            await self._tidy_interfaces(policy.name for policy in policies)
            return tuple(
                ItemResult(name=policy.name, error=errors.get(policy.name) or refusal) for policy in policies
            )

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries: their traffic is nobody's business any more."""
        async with self._lock:
            gone = frozenset(names)
            kept = {name: note for name, note in self._entries.items() if name not in gone}
            refusal = await self._try_to_protect(kept)
            await self._tidy_interfaces(names)
            return tuple(ItemResult(name=name, error=refusal) for name in names)

    async def _tidy_interfaces(self, names: Iterable[str]) -> None:
        """Have interfaces follow SPD entries as they are now."""
        for name in names:
            note = self._entries.get(name)
            self._interfaces.tunnels.note(name, None if note is None else note.policy.interface)
        await self._interfaces.tunnels.tidy()
        used = {note.policy.interface_id for note in self._entries.values()}
        await self._interfaces.keep_only(used | {held.sa.interface_id for held in self._sad})

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in order."""
        return self._policies()

    async def _try_to_protect(self, entries: dict[str, PolicyNote]) -> DatapathError | None:
        """Put an SPD in force; return why not, and leave the old one in force then.

        The guard comes first: what steering does not catch is dropped, never sent in clear. Steering comes
        last: whatever it brings finds its entry.
        """
        old, self._entries = self._entries, entries
        try:
            self._protection.check(self._steered())
            await self._protection.guard_policies(self._steered())
            await self._put_in_force()
            await self._protection.steer(self._steered())
        except (HostError, DatapathError, EngineError) as error:
            self._entries = old
            with contextlib.suppress(HostError, DatapathError, EngineError):
                await self._protection.guard_policies(self._steered())
                await self._put_in_force()
            if isinstance(error, DatapathError):
                return error
            if isinstance(error, EngineError):
                return refusal_of(error)
            return DatapathError(ErrorReason.SYSTEM, str(error))
        for name in old.keys() - entries.keys():
            forget_policy(self._journal, name)
        for name, note in entries.items():
            if old.get(name) != note:
                note_policy(self._journal, note)
        return None

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove everything older, and what a former life of this agent left in force."""
        async with self._lock:
            self._generation.reconcile(generation)
            sas = [held for held in self._sad if held.generation < generation]
            policies = [name for name, note in self._entries.items() if note.generation < generation]
            for held in sas:
                held.is_expired = True
            self._protection.forget_former_lives()
            kept = {name: note for name, note in self._entries.items() if note.generation >= generation}
            refusal = await self._try_to_protect(kept)
            await self._sas.take_away(sas)
            self._interfaces.tunnels.forget_former()
            await self._tidy_interfaces(policies)
            await self._fit_tunnel_mtu()
            if refusal is not None:
                raise refusal
            return (*(held.sa.sa_id for held in sas), *policies)

    # --- Datapath: counters and events --------------------------------------------------------------

    async def counters(self) -> Counters:
        """Return a snapshot of all counters."""
        try:
            async with self._lock:
                sas, drops = await self._sas.counters()
        except EngineError as error:
            raise refusal_of(error) from error
        return Counters(sas=sas, drops=dict(Tally(drops) + await self._drops_around()))

    async def _drops_around(self) -> "Tally[DropReason]":
        """Return what XDP, at once, and the guard have dropped: whether there is an espd or not."""
        return Tally(self._fast.drops()) + Tally(await self._protection.drops())

    def events(self) -> Watch[DatapathEvent]:
        """Return a stream of events from now on."""
        return self._hub.subscribe()

    # --- what espd tells ----------------------------------------------------------------------------

    def _on_event(self, event: p.EventMessage) -> None:
        match event:
            case p.SaEvent():
                self._on_sa_event(event)
            case p.AcquireEvent():
                self._on_acquire(event)
            case p.BadSpiEvent():
                self._on_bad_spi(event)
            case p.MethodEvent():
                self._devices.follow(event)

    def _on_sa_event(self, message: p.SaEvent) -> None:
        held = self._sad.of_cookie(message.event.cookie)
        if held is None:
            return
        kinds = EventKind(message.event.kinds)
        if kinds & EventKind.RESERVE:
            self._spawn(self._sas.reserve(held, message.sequence), "reserve")
        if kinds & EventKind.NAT_MOVED:
            new = _address(message.event.address, message.event.family), int(message.event.port)
            self._spawn(self._follow_peer(held, new), "follow-peer")
        for limit in limits_of(held, kinds):
            if isinstance(limit, HardExpire):
                held.is_expired = True
                self._spawn(self._follow_loss(), "follow-loss")
            self._hub.emit(limit)

    def _on_acquire(self, event: p.AcquireEvent) -> None:
        name = self._table.name_of(event.policy)
        note = self._entries.get(name or "")
        if note is not None and note.policy.acquire:
            self._hub.emit(
                Acquire(
                    policy=note.policy.name,
                    source=_address(event.source, event.family),
                    destination=_address(event.destination, event.family),
                    protocol=event.protocol,
                    source_port=event.source_port,
                    destination_port=event.destination_port,
                )
            )

    def _on_bad_spi(self, event: p.BadSpiEvent) -> None:
        if not self._sad.reservations.has(event.spi):
            self._hub.emit(
                BadSpi(
                    protocol=IpsecProtocol(event.protocol),
                    spi=Spi(event.spi),
                    source=_address(event.source, event.family),
                    destination=_address(event.destination, event.family),
                )
            )

    async def _follow_peer(self, held: Held, new: tuple[IpAddress, int]) -> None:
        async with self._lock:
            if held.peer != new and self._sad.get(held.sa.sa_id) is held:
                await self._sas.follow_peer(held, new)
                await self._fit_tunnel_mtu()

    async def _follow_loss(self) -> None:
        async with self._lock:
            await self._follow_sas()

    async def _expire(self, held: Held) -> None:
        """End an SA whose hard lifetime in seconds is over; it stays listed until it is removed."""
        async with self._lock:
            if self._sad.get(held.sa.sa_id) is not held or held.final is not None:
                return
            held.is_expired = True
            await self._follow_sas()
            held.final = await self._sas.take_out(held)
        self._hub.emit(HardExpire(sa_id=held.sa.sa_id, spi=held.sa.spi, limit="seconds"))

    # --- when espd ends -----------------------------------------------------------------------------

    def _on_end(self, reason: str) -> None:
        if not self._is_closed:
            self._spawn(self._renew(reason, time.monotonic()), "renew")

    async def _renew(self, reason: str, ended: float) -> None:
        """Find espd again or start it anew, and tell which SAs are lost; until then nothing passes."""
        _log.error("espd_lost", reason=reason, sas=len(self._sad))
        outage, self._outage = self._outage or Outage(ended), None
        with contextlib.suppress(HostError):
            outage.begin_counting(await self._drops_around(), self._drops_with_espd)
        while not self._is_closed:
            async with self._lock:
                try:
                    await self._set_up(await self._espd.start(self._life))
                    outage.lose(self._tell_lost(await self._sas.records(), reason))
                    await self._start_over()
                    await self._protection.use_link(self._link, self._steered())
                except (HostError, EngineError, DatapathError) as error:
                    _log.error("espd_not_renewed", reason=str(error))
                    if not self._espd.is_there:
                        outage.lose(self._tell_lost((), reason))
                else:
                    self._outage = outage
                    break
            await asyncio.sleep(_RETRY_S)
        await self._tell_cost()

    def _tell_lost(self, there: Iterable[p.SaRecord], reason: str) -> Sequence[Held]:
        """Forget the SAs that espd has not, tell of them and return them."""
        cookies = {record.cookie for record in there}
        lost = [held for held in self._sad if held.cookie not in cookies]
        if lost:
            self._hub.emit(SasLost(sa_ids=self._sas.lose(lost), reason=f"espd ended: {reason}"))
        return lost

    async def _tell_cost(self) -> None:
        """Say what an end of espd cost, once everything is carried again that it took."""
        outage, now = self._outage, time.monotonic()
        if outage is None or not outage.is_over:
            return
        self._outage = None
        drops: Mapping[DropReason, int] = {}
        with contextlib.suppress(HostError, DatapathError):
            drops = (await self.counters()).drops
        _log.warning("traffic_resumed", **outage.cost(drops, now))

    # --- the network --------------------------------------------------------------------------------

    async def _follow_network(self) -> None:
        """Put back what the kernel took away with a link or an address, and measure paths anew."""
        async with self._lock:
            try:
                if not await self._network.is_up(self._link):
                    await self._network.bring_up(self._link, mtu_bytes=self._tunnel_mtu, link_local=False)
                await self._protection.steer_again(self._steered())
                await self._interfaces.follow()
                await self._fast.mirror()
            except (HostError, DatapathError, EngineError) as error:
                _log.warning("routing_failed", reason=str(error))
            await self._measure_paths()

    async def _refresh_paths(self) -> None:
        while True:
            await asyncio.sleep(_PATH_REFRESH_S)
            await self._follow_paths()
            if self._espd.is_there:  # or was until a moment ago: it was when we looked the last time
                with contextlib.suppress(HostError):
                    self._drops_with_espd, self._drops_lately = self._drops_lately, self._fast.drops()

    async def _follow_paths(self) -> None:
        async with self._lock:
            await self._measure_paths()
            try:
                await self._fast.look_after()
            except (HostError, EngineError) as error:
                _log.warning("routing_failed", reason=str(error))

    async def _follow_routing(self) -> None:
        async with self._lock:
            try:
                await self._fast.mirror()
            except (HostError, EngineError) as error:
                _log.warning("routing_failed", reason=str(error))

    async def _measure_paths(self) -> None:
        await self._sas.measure_paths(held for held in self._sad if not held.is_inbound)
        await self._fit_tunnel_mtu()

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        if self._is_closed:  # what is watched may still tell while all of it is taken down
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=f"engine-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _address(octets: Iterable[int], family: int) -> IpAddress:
    packed = bytes(octets)
    return ip_address(packed[:4] if family == 4 else packed)
