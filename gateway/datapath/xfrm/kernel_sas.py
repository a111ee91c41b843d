"""Our SAs in the kernel: put there, looked after, and taken away, with the policies that lead to them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from gateway.datapath.backend import DatapathError, ErrorReason, SasLost, SoftExpire, first_wanted
from gateway.datapath.select import our_address
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.algorithms import check_suite
from gateway.datapath.xfrm.devices import Devices
from gateway.datapath.xfrm.errors import XfrmError
from gateway.datapath.xfrm.forwarding import Forwarding
from gateway.datapath.xfrm.installation import (
    SEQUENCE_SOFT_PACKETS,
    KernelName,
    Placing,
    Whereabouts,
    kernel_name,
    kernel_sa,
    sequence_number,
    whereabouts_of,
)
from gateway.datapath.xfrm.journal import Journal, SaNote
from gateway.datapath.xfrm.kernel import delete_sas, move_sa
from gateway.datapath.xfrm.netlink import Sa, XfrmSocket, XfrmThread
from gateway.datapath.xfrm.notifications import Asked, from_peer_at, to_peer_at
from gateway.datapath.xfrm.placing import (
    ENGINES,
    Device,
    Request,
    engine_of,
    offload_of,
    place,
    policy_refused,
)
from gateway.datapath.xfrm.policies import PolicyKeeper
from gateway.datapath.xfrm.probe import KernelAbility, missing_option
from gateway.datapath.xfrm.sad import Held, Sad
from gateway.datapath.xfrm.spd import Serves, Spd
from gateway.esp.mtu import effective_mtu
from gateway.host.errors import HostError
from gateway.host.network import probe_path
from gateway.ipsec.algorithms import Integ
from gateway.ipsec.placement import Engine, PlacementRefusal, in_words
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

DEFAULT_PATH_MTU: Final = 1500


async def ask(thread: XfrmThread, call: Callable[[XfrmSocket], T]) -> T:
    """Ask the kernel.

    Raises:
        DatapathError: SYSTEM: it refused; or what the call raises.
    """
    try:
        return await thread.run(call)
    except XfrmError as error:
        raise DatapathError(ErrorReason.SYSTEM, str(error)) from error


def carried_bytes(sa: SecurityAssociation, at: Whereabouts) -> int:
    """Return the largest packet that an outbound SA carries in one piece now, in bytes."""
    return effective_mtu(sa, _path_mtu(at))


def _path_mtu(at: Whereabouts) -> int:
    path = probe_path(at.destination, source=at.source, heeds_policies=False)
    return DEFAULT_PATH_MTU if path is None else path.mtu_bytes


def _carried(sas: Sequence[tuple[SecurityAssociation, Whereabouts]]) -> list[int]:
    """Return what SAs carry in one piece, in bytes; each path is asked for once."""
    paths: dict[tuple[IpAddress, IpAddress], int] = {}
    found = []
    for sa, at in sas:
        way = (at.source, at.destination)
        if way not in paths:
            paths[way] = _path_mtu(at)
        found.append(effective_mtu(sa, paths[way]))
    return found


class KernelSas:
    """The SAD of this room and the kernel's, kept together. Calls must not overlap.

    Args:
        thread: To the kernel.
        sad: What is ours.
        policies: Led to what is installed.
        devices: Says which interface has an address.
        journal: Remembers what is installed.
        tag: In the selectors of what is ours.
        mark: SO_MARK of our own packets.
        has_udp: Whether there are sockets for ESP in UDP.
        forwarding: Stops before an SA goes; `None`: nobody forwards past the kernel.
    """

    def __init__(
        self,
        thread: XfrmThread,
        sad: Sad,
        policies: PolicyKeeper,
        devices: Devices,
        journal: Journal,
        *,
        tag: int,
        mark: int,
        has_udp: bool,
        forwarding: Forwarding | None = None,
    ) -> None:
        self._thread = thread
        self._sad = sad
        self._policies = policies
        self._devices = devices
        self._journal = journal
        self._tag = tag
        self._mark = mark
        self._has_udp = has_udp
        self._forwarding = forwarding
        self._ability: KernelAbility | None = None
        self._asked: dict[Serves, int] = {}
        """Numbers of the last ACQUIRE for Children whose SA has not come."""

    @property
    def ability(self) -> KernelAbility:
        """Return what the kernel can do.

        Raises:
            DatapathError: UNAVAILABLE: nobody has asked it yet.
        """
        if self._ability is None:
            raise DatapathError(ErrorReason.UNAVAILABLE, "the xfrm datapath is not started")
        return self._ability

    @ability.setter
    def ability(self, ability: KernelAbility) -> None:
        self._ability = ability

    def note_asked(self, asked: Asked) -> None:
        """Note that traffic waits for an SA: the next that goes out says that it is the answer."""
        self._asked[asked.serves] = asked.sequence

    def forget_asked(self, spd: Spd) -> None:
        """Forget what was asked for Children that have no SPD entry any more: their SAs do not come."""
        self._asked = {serves: number for serves, number in self._asked.items() if spd.entries_of(serves)}

    async def install(self, sa: SecurityAssociation, generation: int) -> Held:
        """Install an SA, and the policies that lead to it; one that is there already gets the generation.

        Raises:
            DatapathError: It is not installed, and was never used; or POLICY_CONFLICT: the kernel refused the
                policies, and a packet may have used it by older ones. Its key is spent then.
        """
        there = self._sad.get(sa.sa_id)
        if there is not None:
            if there.sa != sa:
                raise DatapathError(ErrorReason.SPI_IN_USE, f"SPI {sa.spi:08x} has an SA with other contents")
            there.generation = generation
            self._note(there)
            return there
        self._check_sa(sa)
        if sa.direction is Direction.OUTBOUND:
            self._sad.keys.spend(self._sad.keys.fingerprint(sa))
        try:
            return await self._place(sa, generation)
        except DatapathError as error:
            if sa.direction is Direction.OUTBOUND and error.reason is not ErrorReason.POLICY_CONFLICT:
                self._sad.keys.unspend(self._sad.keys.fingerprint(sa))
            raise

    async def _place(self, sa: SecurityAssociation, generation: int) -> Held:
        """Put an SA where it is wanted most.

        Raises:
            DatapathError: It is nowhere.
        """
        first_wanted(sa.placement, ENGINES)
        refusals: list[PlacementRefusal] = []
        error: DatapathError | None = None
        for engine in sa.placement.wanted:
            if engine not in ENGINES:
                continue
            try:
                held = await self._try(sa, generation, engine)
            except DatapathError as refusal:
                if refusal.why is None:
                    raise
                refusals.append(PlacementRefusal(engine=engine, reason=refusal.why, text=str(refusal)))
                error = refusal
            else:
                held.refusals = tuple(refusals)
                self._note(held)
                return held
        assert error is not None
        raise (
            error
            if len(refusals) == 1
            else DatapathError(error.reason, in_words(refusals), why=error.why, refusals=tuple(refusals))
        )

    async def _try(self, sa: SecurityAssociation, generation: int, engine: Engine) -> Held:
        at = whereabouts_of(sa)
        device = None if engine is Engine.KERNEL else await self._device(our_address(sa))
        offload = offload_of(sa, engine, device)
        serves = sa.connection, sa.child
        placing = self._placing(serves, offload)
        if sa.direction is Direction.OUTBOUND:
            # Else the kernel would go on waiting, and not ask again if this SA went before that is over.
            placing = replace(placing, answers=self._asked.get(serves, 0))
        info, attributes = kernel_sa(sa, placing, at)
        request = Request(
            sa=sa,
            engine=engine,
            device=device,
            info=info,
            attributes=attributes,
            replaces_larval=self._sad.reservations.has(sa.spi),
        )
        placed = (await ask(self._thread, lambda xfrm: place(xfrm, request))).attributes.offload
        if sa.direction is Direction.OUTBOUND:
            self._asked.pop(serves, None)
        held = Held(
            sa=sa,
            generation=generation,
            engine=engine_of(placed),
            at=at,
            offload=placed,
            device=device.name if placed is not None and device is not None else "",
            mtu_bytes=carried_bytes(sa, at) if sa.direction is Direction.OUTBOUND else 0,
        )
        offloads_before = {carrier.offload for carrier in self._sad.carriers(held.serves).outbound}
        self._sad.add(held)
        refusal = await self._policies.follow(held.serves)
        if refusal is None:
            return held
        await self.take_away([held])
        packet_offload = held.carrier().offload
        if device is not None and packet_offload is not None and packet_offload not in offloads_before:
            # Policies that are not offloaded do not lead to such an SA: it was never used.
            raise policy_refused(refusal, device)
        raise DatapathError(ErrorReason.POLICY_CONFLICT, f"the policies of the SA were refused: {refusal}")

    async def _device(self, address: IpAddress) -> Device | None:
        try:
            return await self._devices.of(address)
        except HostError as error:
            raise DatapathError(ErrorReason.SYSTEM, str(error)) from error

    def _placing(self, serves: Serves, offload: r.Offload | None = None) -> Placing:
        return Placing(
            reqid=self._sad.reqid(serves),
            tag=self._tag,
            knows_direction=self.ability.knows_direction,
            knows_cpu=self.ability.cpus > 0,
            offload=offload,
            mark=self._mark,
        )

    def _check_sa(self, sa: SecurityAssociation) -> None:
        ability = self.ability
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
        if sa.encapsulation is not None and not self._has_udp:
            raise DatapathError(
                ErrorReason.MODE_UNSUPPORTED,
                "UDP encapsulation needs the UDP 4500 sockets, and there are none",
            )

    def _note(self, held: Held) -> None:
        self._journal.note_sa(
            SaNote(
                sa=held.sa,
                at=held.at,
                generation=held.generation,
                reqid=self._sad.reqid(held.serves),
                device=held.device,
            )
        )

    def forget(self, held: Held) -> bool:
        """Take an SA out of our tables; return whether it was there."""
        self._journal.forget_sa(held.sa.sa_id)
        return self._sad.remove(held.sa.sa_id) is not None

    async def take_away(self, there: Iterable[Held]) -> DatapathError | None:
        """Remove SAs from our tables, then from the policies, then from the kernel."""
        there = tuple(there)
        if self._forwarding is not None:
            await self._forwarding.withdraw(there)
        gone = [held for held in there if self.forget(held)]
        refusal = None
        for serves in dict.fromkeys(held.serves for held in gone):
            refusal = await self._policies.follow(serves) or refusal
        try:
            await ask(self._thread, lambda xfrm: delete_sas(xfrm, map(_name, gone)))
        except DatapathError as error:
            refusal = error
        return refusal

    # --- upkeep -------------------------------------------------------------------------------------

    async def follow_peer(self, held: Held, peer: tuple[IpAddress, int]) -> tuple[SasLost, ...]:
        """Send to where the authenticated peer of an inbound SA is now (RFC 7296 §2.23).

        Returns:
            What was lost on the way.
        """
        if self._sad.get(held.sa.sa_id) is not held:
            return ()
        self._sad.move(held, from_peer_at(held, peer))
        self._note(held)
        partner = self._sad.partner(held)
        at = None if partner is None else to_peer_at(partner, peer)
        if partner is None or at is None:
            return ()
        try:
            await self._move(partner, at)
        except XfrmError as error:
            _log.error("peer_not_followed", sa_id=partner.sa.sa_id, reason=str(error))
            return await self.find_lost(f"it could not follow its peer: {error}")
        refusal = await self._policies.follow(partner.serves)
        if refusal is not None:
            _log.error("policies_not_followed", reason=str(refusal))
        return ()

    async def _move(self, held: Held, at: Whereabouts) -> None:
        """Give an outbound SA another destination address or port."""
        if self._forwarding is not None:
            await self._forwarding.withdraw((held,))
        old, is_renamed = held.kernel_id, at.destination != held.at.destination
        # First in our tables: the kernel will say that the old one was deleted.
        self._sad.move(held, at)
        info, attributes = kernel_sa(held.sa, self._placing(held.serves, held.offload), at)
        if is_renamed:
            await self._thread.run(lambda xfrm: move_sa(xfrm, old, info, attributes))
        else:
            await self._thread.run(lambda xfrm: xfrm.update_sa(info, attributes))
        self._note(held)

    async def measure_paths(self) -> tuple[SecurityAssociation, ...]:
        """Return the outbound SAs that carry more or less in one piece than before, and note how much.

        The kernel learns the MTU of a path from routers, and tells nobody.
        """
        outbound = [held for held in self._sad if not held.is_inbound]
        measured = await asyncio.to_thread(_carried, [(held.sa, held.at) for held in outbound])
        changed = []
        for held, mtu_bytes in zip(outbound, measured, strict=True):
            if mtu_bytes != held.mtu_bytes and self._sad.get(held.sa.sa_id) is held:
                self._sad.refit(held, mtu_bytes)
                changed.append(held.sa)
        return tuple(changed)

    async def find_worn(self) -> tuple[SoftExpire, ...]:
        """Find offloaded SAs whose sequence numbers run out (RFC 4303 §3.3.3).

        Of others the kernel tells by their packets; here it counts what the NIC will segment as one.
        """
        events = []
        for held in self._sad:
            if held.is_inbound or held.sa.esn or held.offload is None or held.is_worn:
                continue
            try:
                attributes = (await self._thread.run(partial(_get_sa, name=_name(held)))).attributes
            except XfrmError:
                # Gone, as the kernel will tell or `find_lost` find.
                continue
            if sequence_number(attributes, Direction.OUTBOUND) >= SEQUENCE_SOFT_PACKETS:
                held.is_worn = True
                events.append(SoftExpire(sa_id=held.sa.sa_id, spi=held.sa.spi, limit="sequence"))
        return tuple(events)

    async def find_lost(self, reason: str) -> tuple[SasLost, ...]:
        """Forget SAs that the kernel does not have any more.

        Args:
            reason: Of those that no device carried.
        """
        try:
            listed = await self._thread.run(lambda xfrm: xfrm.sas())
        except XfrmError as error:
            _log.error("sas_not_listed", reason=str(error))
            return ()
        there = {message.body.id for message in listed}
        lost: dict[str, list[Held]] = {}
        for held in self._sad:
            if held.kernel_id not in there:
                why = f"{held.device} went down, and with it the SAs it carried" if held.device else reason
                lost.setdefault(why, []).append(held)
        await self.take_away(held for gone in lost.values() for held in gone)
        return tuple(
            SasLost(sa_ids=tuple(held.sa.sa_id for held in gone), reason=why) for why, gone in lost.items()
        )


def _name(held: Held) -> KernelName:
    return kernel_name(held.kernel_id, held.sa)


def _get_sa(xfrm: XfrmSocket, name: KernelName) -> Sa:
    return xfrm.sa(name.id, name.attributes)
