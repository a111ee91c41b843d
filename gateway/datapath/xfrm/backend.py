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
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Final

from gateway.datapath.backend import (
    Capabilities,
    Counters,
    DatapathError,
    DatapathEvent,
    ErrorReason,
    InstalledSa,
    ItemResult,
    SasLost,
    first_wanted,
)
from gateway.datapath.events import EventHub
from gateway.datapath.watch import Watch
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.algorithms import check_suite
from gateway.datapath.xfrm.bad_spi import BadSpiWatch
from gateway.datapath.xfrm.errors import EventsLostError, KernelRefusedError, XfrmDecodeError, XfrmError
from gateway.datapath.xfrm.installation import (
    Placing,
    Whereabouts,
    counters_of,
    kernel_sa,
    whereabouts_of,
)
from gateway.datapath.xfrm.kernel import (
    allocate_spis,
    change_policies,
    delete_policies,
    delete_sas,
    move_sa,
    put_sa,
)
from gateway.datapath.xfrm.netlink import XfrmListener, XfrmSocket, XfrmThread
from gateway.datapath.xfrm.notifications import (
    GROUPS,
    Meaning,
    from_peer_at,
    meaning_of,
    to_peer_at,
)
from gateway.datapath.xfrm.options import XfrmOptions
from gateway.datapath.xfrm.probe import KernelAbility, explain_refusal, missing_option, probe_kernel
from gateway.datapath.xfrm.routes import Routes
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Entry, Key, Serves, Spd
from gateway.datapath.xfrm.statistics import drops_of, read_statistics
from gateway.esp.mtu import effective_mtu
from gateway.host.errors import HostError
from gateway.host.network import Network, drain_change_monitor, open_change_monitor, probe_path
from gateway.host.privileges import Capability, require_capabilities
from gateway.host.sockets import UDP_ENCAP, UDP_ENCAP_ESPINUDP
from gateway.ipsec.algorithms import Integ
from gateway.ipsec.placement import Engine, in_words
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import (
    MAX_REPLAY_WINDOW,
    Direction,
    IpAddress,
    IpsecProtocol,
    Mode,
    SaId,
    SecurityAssociation,
    Spi,
)

logger = logging.getLogger(__name__)

_MAX_SPIS_AT_ONCE: Final = 10_000
_DEFAULT_PATH_MTU: Final = 1500
_MESSAGES_AT_ONCE: Final = 64
_SETTLE_S: Final = 0.2


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
        self._bad_spis = BadSpiWatch(self._is_in_kernel, self._hub.emit)
        self._monitor: socket.socket | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self._ability: KernelAbility | None = None
        self._listener: XfrmListener | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._generation = 0
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
            self._ability = await self._thread.run(
                lambda xfrm: probe_kernel(xfrm, lambda: self._sad.reserve(now))
            )
            self._listener = XfrmListener(GROUPS)
            self._monitor = open_change_monitor()
            self._decapsulate()
        except XfrmError as error:
            await self.close()
            raise HostError(str(error)) from error
        except BaseException:
            await self.close()
            raise
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener.fileno(), self._on_notification)
        loop.add_reader(self._monitor.fileno(), self._on_change)
        self._bad_spis.start()

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
        for watched in (self._listener, self._monitor):
            if watched is not None:
                loop.remove_reader(watched.fileno())
                watched.close()
        if self._settling is not None:
            self._settling.cancel()
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._bad_spis.close()
        await self._thread.close()
        await self._network.close()
        self._hub.close()

    async def remove_protection(self) -> None:
        """Take away our policies and SAs: from here on nothing keeps traffic from leaving in clear.

        May be called without `start`, to clean up after an agent that is gone.
        """
        async with self._lock:
            try:
                await self._thread.run(self._remove_all)
                await self._routes.remove()
            except XfrmError as error:
                raise HostError(str(error)) from error

    def _remove_all(self, xfrm: XfrmSocket) -> None:
        """Remove everything with our tag; in the netlink thread."""
        delete_sas(xfrm, [sa.body.id for sa in xfrm.sas() if self._is_ours(sa.body.selector)])
        delete_policies(
            xfrm,
            [
                Key(policy.body.direction, policy.body.selector)
                for policy in xfrm.policies()
                if self._is_ours(policy.body.selector)
            ],
        )

    def _is_ours(self, selector: r.Selector) -> bool:
        return selector.user == self._options.number

    # --- Datapath: SAs ------------------------------------------------------------------------------

    async def capabilities(self) -> Capabilities:
        """Return what the kernel took at the start."""
        ability = self._known()
        return Capabilities(
            name="xfrm",
            engines=(Engine.KERNEL,),
            encryption=ability.encryption,
            integrity=ability.integrity,
            protocols=ability.protocols,
            modes=(Mode.TUNNEL, Mode.TRANSPORT),
            esn=True,
            udp_encapsulation=bool(self._esp_sockets),
            max_replay_window_packets=MAX_REPLAY_WINDOW,
            counters_survive_restart=True,
        )

    def _known(self) -> KernelAbility:
        if self._ability is None:
            raise DatapathError(ErrorReason.UNAVAILABLE, "the xfrm datapath is not started")
        return self._ability

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
            return tuple(self._sad.reserve(now) for _ in range(count))
        spis: list[Spi] = []
        while len(spis) < count:
            left = count - len(spis)
            try:
                given = await self._thread.run(partial(allocate_spis, count=left, destination=destination))
            except XfrmError as error:
                raise DatapathError(ErrorReason.SYSTEM, str(error)) from error
            spis += [Spi(spi) for spi in given if self._sad.note_reserved(Spi(spi), now)]
        return tuple(spis)

    async def install_sas(
        self, sas: Sequence[SecurityAssociation], generation: int = 0
    ) -> tuple[ItemResult, ...]:
        """Install SAs, and the policies that lead to them."""
        async with self._lock:
            return tuple([await self._install_one(sa, generation) for sa in sas])

    async def _install_one(self, sa: SecurityAssociation, generation: int) -> ItemResult:
        try:
            held = await self._install(sa, generation)
        except DatapathError as error:
            return ItemResult(name=sa.sa_id, error=error, refusals=error.refusals)
        return ItemResult(
            name=sa.sa_id,
            placement=held.engine,
            placement_reason=in_words(held.refusals),
            refusals=held.refusals,
        )

    async def _install(self, sa: SecurityAssociation, generation: int) -> Held:
        self._check_generation(generation)
        there = self._sad.get(sa.sa_id)
        if there is not None:
            if there.sa != sa:
                raise DatapathError(ErrorReason.SPI_IN_USE, f"SPI {sa.spi:08x} has an SA with other contents")
            there.generation = generation
            return there
        self._check_sa(sa)
        engine = first_wanted(sa.placement, (Engine.KERNEL,))
        if sa.direction is Direction.OUTBOUND:
            self._sad.spend_key(sa)
        held = Held(sa=sa, generation=generation, engine=engine, at=whereabouts_of(sa))
        try:
            await self._put(held)
        except XfrmError as error:
            self._sad.unspend_key(sa)
            raise _refused(error, sa) from error
        self._sad.add(held)
        refusal = await self._follow(held.serves)
        if refusal is not None:
            await self._take_away([held])
            raise refusal
        await self._steer(
            entry for entry in self._spd.entries_of(held.serves) if self._routes.misses(entry.policy.name)
        )
        return held

    async def _put(self, held: Held) -> None:
        sa = held.sa
        placing = Placing(
            reqid=self._sad.reqid(held.serves),
            tag=self._options.number,
            knows_direction=self._known().knows_direction,
        )
        info, attributes = kernel_sa(sa, placing, held.at)
        is_reserved = self._sad.is_reserved(sa.spi)
        await self._thread.run(lambda xfrm: put_sa(xfrm, info, attributes, replaces_larval=is_reserved))

    def _check_sa(self, sa: SecurityAssociation) -> None:
        ability = self._known()
        check_suite(sa)
        is_esp = sa.protocol is IpsecProtocol.ESP
        if sa.protocol not in ability.protocols or (is_esp and sa.source.version not in ability.versions):
            raise DatapathError(
                ErrorReason.ALGORITHM_UNSUPPORTED, missing_option(sa.protocol, sa.source.version)
            )
        if is_esp and (sa.encryption, sa.key_bits) not in ability.encryption:
            raise DatapathError(
                ErrorReason.ALGORITHM_UNSUPPORTED,
                f"this kernel has no {sa.encryption.name} with keys of {sa.key_bits} bits",
            )
        if sa.integrity is not Integ.NONE and sa.integrity not in ability.integrity:
            raise DatapathError(ErrorReason.ALGORITHM_UNSUPPORTED, f"this kernel has no {sa.integrity.name}")
        if sa.encapsulation is not None and not self._esp_sockets:
            raise DatapathError(
                ErrorReason.MODE_UNSUPPORTED,
                "UDP encapsulation needs the UDP 4500 sockets, and there are none",
            )

    async def remove_sas(self, sa_ids: Sequence[SaId]) -> tuple[ItemResult, ...]:
        """Remove SAs; policies that led to them ask for others first."""
        async with self._lock:
            there = [held for sa_id in sa_ids if (held := self._sad.get(sa_id)) is not None]
            refusal = await self._take_away(there)
        return tuple(ItemResult(name=sa_id, error=refusal) for sa_id in sa_ids)

    async def _take_away(self, there: Iterable[Held]) -> DatapathError | None:
        """Remove SAs from our tables, then from the policies, then from the kernel."""
        gone = [held for held in there if self._sad.remove(held.sa.sa_id) is not None]
        refusal = None
        for serves in dict.fromkeys(held.serves for held in gone):
            refusal = await self._follow(serves) or refusal
        try:
            await self._thread.run(lambda xfrm: delete_sas(xfrm, [held.kernel_id for held in gone]))
        except XfrmError as error:
            refusal = DatapathError(ErrorReason.SYSTEM, str(error))
        return refusal

    async def list_sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA that was installed here."""
        return tuple(
            InstalledSa(
                sa=held.sa,
                placement=held.engine,
                placement_reason=in_words(held.refusals),
                refusals=held.refusals,
                generation=held.generation,
                effective_mtu=None if held.is_inbound else _effective_mtu(held),
            )
            for held in self._sad
        )

    # --- Datapath: policies -------------------------------------------------------------------------

    async def apply_policies(self, policies: Sequence[Policy], generation: int = 0) -> tuple[ItemResult, ...]:
        """Install or replace SPD entries."""
        async with self._lock:
            before = {policy.name: self._spd.get(policy.name) for policy in policies}
            errors: dict[str, DatapathError] = {}
            for policy in policies:
                try:
                    self._check_generation(generation)
                    self._check_policy(policy)
                    self._spd.put(policy, generation, self._sad.carriers(_serves(policy)))
                except DatapathError as error:
                    errors[policy.name] = error
            refusal = await self._settle()
            if refusal is not None:
                await self._put_back(before)
            await self._steer(entry for name in before if (entry := self._spd.get(name)) is not None)
            return tuple(
                ItemResult(name=policy.name, error=errors.get(policy.name) or refusal) for policy in policies
            )

    async def remove_policies(self, names: Sequence[str]) -> tuple[ItemResult, ...]:
        """Remove SPD entries: their traffic is nobody's business any more."""
        async with self._lock:
            before = {name: self._spd.drop(name) for name in names}
            refusal = await self._settle()
            if refusal is not None:
                await self._put_back(before)
            else:
                await self._steer_no_more(names)
            return tuple(ItemResult(name=name, error=refusal) for name in names)

    async def list_policies(self) -> tuple[Policy, ...]:
        """Return the SPD in order."""
        return tuple(entry.policy for entry in self._spd.entries())

    def _check_policy(self, policy: Policy) -> None:
        if not policy.name:
            raise DatapathError(ErrorReason.POLICY_CONFLICT, "a policy needs a name")

    async def _follow(self, serves: Serves) -> DatapathError | None:
        """Have the policies of a (connection, child) lead to the SAs it has now."""
        entries = self._spd.entries_of(serves)
        if not entries:
            return None
        carriers = self._sad.carriers(serves)
        try:
            for entry in entries:
                self._spd.follow(entry.policy.name, carriers)
        except DatapathError as error:
            return error
        return await self._settle()

    async def _settle(self) -> DatapathError | None:
        """Tell the kernel what it has not heard yet; return its refusal, if it refused."""
        changes = self._spd.changes()
        if not changes:
            return None
        try:
            progress = await self._thread.run(lambda xfrm: change_policies(xfrm, changes))
        except XfrmError as error:
            return DatapathError(ErrorReason.SYSTEM, str(error))
        for change in progress.done:
            self._spd.note(change.key, change.policy)
        return None if progress.error is None else DatapathError(ErrorReason.SYSTEM, str(progress.error))

    async def _put_back(self, before: dict[str, Entry | None]) -> None:
        """Want again what was wanted before the kernel refused."""
        for name, entry in before.items():
            self._spd.drop(name)
            if entry is not None:
                self._spd.put(entry.policy, entry.generation, self._sad.carriers(_serves(entry.policy)))
        refusal = await self._settle()
        if refusal is not None:
            logger.error("event=policies_not_put_back reason=%r", str(refusal))

    # --- routes ---------------------------------------------------------------------------------------

    async def _steer(self, entries: Iterable[Entry]) -> None:
        """See that the routing finds a way for the traffic of these entries.

        What it does not find is unreachable, and not in clear: a failure is told and not an error.
        """
        try:
            for entry in entries:
                outbound = self._sad.carriers(_serves(entry.policy)).outbound
                peers = [carrier.destination for carrier in outbound]
                if entry.policy.remote_address is not None:
                    peers.append(entry.policy.remote_address)
                await self._routes.follow(entry.policy, peers)
            await self._routes.put_in_force()
        except HostError as error:
            logger.warning("event=routing_failed reason=%r", str(error))

    async def _steer_no_more(self, names: Iterable[str]) -> None:
        for name in names:
            self._routes.forget(name)
        await self._steer(())

    def _on_change(self) -> None:
        """Look again after links, addresses or routes changed and have settled."""
        assert self._monitor is not None
        drain_change_monitor(self._monitor)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(_SETTLE_S, self._on_settled)

    def _on_settled(self) -> None:
        self._settling = None
        self._spawn(self._follow_network(), "follow-network")

    async def _follow_network(self) -> None:
        async with self._lock:
            self._routes.distrust()
            await self._steer(self._spd.entries())

    async def reconcile(self, generation: int) -> tuple[str, ...]:
        """Remove everything older."""
        async with self._lock:
            self._generation = max(self._generation, generation)
            sas = [held for held in self._sad if held.generation < generation]
            policies = [entry.policy.name for entry in self._spd.entries() if entry.generation < generation]
            for name in policies:
                self._spd.drop(name)
            refusal = await self._take_away(sas) or await self._settle()
            if refusal is not None:
                raise refusal
            await self._steer_no_more(policies)
            return (*(held.sa.sa_id for held in sas), *policies)

    def _check_generation(self, generation: int) -> None:
        """Refuse what a controller says that has been superseded; 0 is for those who do not count."""
        if 0 < generation < self._generation:
            raise DatapathError(
                ErrorReason.STALE_GENERATION,
                f"generation {generation} is over, {self._generation} is in force",
            )

    # --- Datapath: counters and events --------------------------------------------------------------

    async def counters(self) -> Counters:
        """Return a snapshot of all counters; those without an SA are of the whole network namespace."""
        try:
            listed, statistics = await self._thread.run(lambda xfrm: (xfrm.sas(), read_statistics()))
        except XfrmError as error:
            raise DatapathError(ErrorReason.SYSTEM, str(error)) from error
        now_s = time.time()
        found = []
        for message in listed:
            held = self._sad.of_kernel(message.body.id)
            if held is not None:
                sa = held.sa
                found.append(counters_of(sa.sa_id, sa.direction, message.body, message.attributes, now_s))
        return Counters(sas=tuple(found), drops=drops_of(statistics))

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
                logger.warning("event=notification_not_understood reason=%r", str(error))
                continue
            if not messages:
                return
            for message in messages:
                self._act(meaning_of(message, self._sad, self._spd))

    def _act(self, meaning: Meaning) -> None:
        if meaning.gone is not None:
            self._sad.remove(meaning.gone.sa.sa_id)
            self._spawn(self._follow_loss(meaning.gone.serves), "follow-loss")
        if meaning.moved is not None and meaning.peer is not None:
            self._spawn(self._follow_peer(meaning.moved, meaning.peer), "follow-peer")
        if meaning.event is not None:
            self._hub.emit(meaning.event)
        if meaning.is_unsure:
            self._spawn(self._compare_with_kernel("another process flushed the SAs"), "compare")

    async def _follow_loss(self, serves: Serves) -> None:
        async with self._lock:
            refusal = await self._follow(serves)
        if refusal is not None:
            logger.error("event=policies_not_followed reason=%r", str(refusal))

    async def _follow_peer(self, held: Held, peer: tuple[IpAddress, int]) -> None:
        """Send to where an authenticated peer is now (RFC 7296 §2.23)."""
        async with self._lock:
            if self._sad.get(held.sa.sa_id) is not held:
                return
            self._sad.move(held, from_peer_at(held, peer))
            partner = self._sad.partner(held)
            at = None if partner is None else to_peer_at(partner, peer)
            if partner is None or at is None:
                return
            try:
                await self._move(partner, at)
            except XfrmError as error:
                logger.error("event=peer_not_followed sa_id=%s reason=%r", partner.sa.sa_id, str(error))
                await self._compare(f"it could not follow its peer: {error}")
            else:
                refusal = await self._follow(partner.serves)
                if refusal is not None:
                    logger.error("event=policies_not_followed reason=%r", str(refusal))

    async def _move(self, held: Held, at: Whereabouts) -> None:
        """Give an outbound SA another destination address or port."""
        placing = Placing(
            reqid=self._sad.reqid(held.serves),
            tag=self._options.number,
            knows_direction=self._known().knows_direction,
        )
        old = held.kernel_id
        info, attributes = kernel_sa(held.sa, placing, at)
        if at.destination == held.at.destination:
            await self._thread.run(lambda xfrm: xfrm.update_sa(info, attributes))
        else:
            await self._thread.run(lambda xfrm: move_sa(xfrm, old, info, attributes))
        self._sad.move(held, at)

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
            await self._compare(reason)

    async def _compare(self, reason: str) -> None:
        """Find SAs that the kernel does not have any more, and tell of them."""
        try:
            listed = await self._thread.run(lambda xfrm: xfrm.sas())
        except XfrmError as error:
            logger.error("event=sas_not_listed reason=%r", str(error))
            return
        there = {message.body.id for message in listed}
        lost = [held for held in self._sad if held.kernel_id not in there]
        if lost:
            await self._take_away(lost)
            self._hub.emit(SasLost(sa_ids=tuple(held.sa.sa_id for held in lost), reason=reason))

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"xfrm-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()


def _serves(policy: Policy) -> Serves:
    return policy.connection, policy.child


def _refused(error: XfrmError, sa: SecurityAssociation) -> DatapathError:
    """Return the kernel's refusal of an SA in our words."""
    if not isinstance(error, KernelRefusedError):
        return DatapathError(ErrorReason.SYSTEM, str(error))
    if error.code == errno.EEXIST:
        return DatapathError(
            ErrorReason.SPI_IN_USE, f"the kernel has another SA with SPI {sa.spi:08x} to {sa.destination}"
        )
    text = explain_refusal(error, sa.protocol, sa.source.version)
    reason = ErrorReason.TABLE_FULL if error.code in (errno.ENOMEM, errno.ENOBUFS) else ErrorReason.SYSTEM
    return DatapathError(reason, text)


def _effective_mtu(held: Held) -> int:
    """Return the largest packet that an outbound SA carries in one piece, in bytes."""
    path = probe_path(held.at.destination, source=held.at.source, heeds_policies=False)
    return effective_mtu(held.sa, _DEFAULT_PATH_MTU if path is None else path.mtu_bytes)
