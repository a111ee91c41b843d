"""The SAs in espd: put there, taken out, and looked after. Every change is noted before it can matter."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.datapath.backend import (
    DatapathError,
    DatapathEvent,
    ErrorReason,
    MappingChange,
    SaCounters,
    SoftExpire,
    first_wanted,
)
from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.adoption import forget_sa, note_sa
from gateway.datapath.engine.connection import EspdGoneError
from gateway.datapath.engine.core import EngineError, drops_of, put_bytes
from gateway.datapath.engine.espd import Espd, batches
from gateway.datapath.engine.installation import RESERVED_PACKETS, counters_of, refusal_of, sa_message
from gateway.datapath.engine.sad import Held, Sad, without_keys
from gateway.datapath.journal import Journal
from gateway.datapath.steering import check_no_marks
from gateway.esp.icmp import TooBig
from gateway.esp.mtu import effective_mtu
from gateway.host.network import probe_path
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import Direction, IpAddress, IpsecProtocol, SaId, SecurityAssociation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

_DEFAULT_PATH_MTU: Final = 1500
_IPV6_MIN_MTU: Final = 1280
_LEARNT_MTU_S: Final = 600.0
"""As long as Linux believes what it learnt by itself; RFC 8201 §4 wants 5 minutes or more."""


class EspdSas:
    """The SAs of ours in one espd.

    Args:
        espd: Borrowed.
        sad: Borrowed.
        journal: Borrowed.
        mark: Of our own packets, for questions about their way.
        has_udp: Whether ESP in UDP comes in.
        emit: Tells the subscribers.
        expire: Called when an SA's time is over.
        follow_inbound: Is told which inbound SAs there are.
        device_of: Returns the device of an interface id; raises `DatapathError` where there is none.
    """

    def __init__(
        self,
        espd: Espd,
        sad: Sad,
        journal: Journal,
        *,
        mark: int,
        has_udp: bool,
        emit: Callable[[DatapathEvent], None],
        expire: Callable[[Held], None],
        follow_inbound: Callable[[SecurityAssociation, bool], None],
        device_of: Callable[[int], int],
    ) -> None:
        self._espd = espd
        self._sad = sad
        self._journal = journal
        self._mark = mark
        self._has_udp = has_udp
        self._emit = emit
        self._expire = expire
        self._follow_inbound = follow_inbound
        self._device_of = device_of
        self._learnt: dict[int, tuple[int, float]] = {}
        """By cookie: path MTU of AH over IPv6 as a router said it, and how long that is believed."""
        self._gone_drops: Counter[DropReason] = Counter()
        """Of SAs that are not in espd any more, in its life."""

    # --- installing ---------------------------------------------------------------------------------

    async def install(
        self, sas: Sequence[SecurityAssociation], generation: int
    ) -> list[DatapathError | None]:
        """Install SAs; return why not, one by one."""
        errors: dict[int, DatapathError | None] = {}
        prepared: list[tuple[int, Held, p.SaMessage]] = []
        for index, sa in enumerate(sas):
            try:
                found = self._prepare(sa, generation)
            except DatapathError as error:
                errors[index] = error
            else:
                if found is not None:
                    prepared.append((index, *found))
        for batch in batches(prepared):
            answers = await asyncio.gather(*(self._add(held, message) for _, held, message in batch))
            errors |= {index: answer for (index, _, _), answer in zip(batch, answers, strict=True)}
        return [errors.get(index) for index in range(len(sas))]

    def _prepare(self, sa: SecurityAssociation, generation: int) -> tuple[Held, p.SaMessage] | None:
        """Note an SA that is about to be installed; `None`: it is there.

        Raises:
            DatapathError: It cannot be.
        """
        kept, fingerprint = without_keys(sa), self._sad.keys.fingerprint(sa)
        there = self._sad.get(sa.sa_id)
        if there is not None:
            if there.sa != kept or there.fingerprint != fingerprint:
                raise DatapathError(ErrorReason.SPI_IN_USE, f"SPI {sa.spi:08x} has an SA with other contents")
            there.generation = generation
            note_sa(self._journal, there)
            return None
        self._check(sa)
        held = Held(
            sa=kept,
            fingerprint=fingerprint,
            cookie=self._sad.new_cookie(),
            generation=generation,
            installed_at=time.monotonic(),
            peer=_peer_of(sa),
        )
        if not held.is_inbound:
            self._sad.keys.spend(fingerprint)
            held.sequence_limit = 1 + RESERVED_PACKETS
            self._measure(held, {})
        message = sa_message(held, sa)
        if not note_sa(self._journal, held):
            p.wipe(message)
            if not held.is_inbound:
                self._sad.keys.unspend(fingerprint)
            raise DatapathError(ErrorReason.SYSTEM, "the journal of SAs cannot be written")
        self._sad.add(held)
        return held, message

    def _check(self, sa: SecurityAssociation) -> None:
        first_wanted(sa.placement, (Engine.ENGINE,))
        check_no_marks(sa.mark, sa.set_mark)
        self._device_of(sa.interface_id)
        if sa.encapsulation is not None and sa.protocol is IpsecProtocol.AH:
            # The ICV covers the addresses, which a NAT changes (RFC 4302 §3.3.3, RFC 3948 §1).
            raise DatapathError(
                ErrorReason.MODE_UNSUPPORTED, "AH has no UDP encapsulation: it cannot cross a NAT, ESP can"
            )
        if sa.encapsulation is not None and not self._has_udp:
            raise DatapathError(
                ErrorReason.MODE_UNSUPPORTED,
                "UDP encapsulation needs the UDP 4500 sockets, and there are none",
            )

    async def _add(self, held: Held, message: p.SaMessage) -> DatapathError | None:
        message.device = self._device_of(held.sa.interface_id)
        try:
            await self._espd.ask(p.MessageType.SA_ADD, message, p.SaReply)
        except EngineError as error:
            refusal = refusal_of(error)
            # Without an answer it may be there, and have sent packets.
            refusal.is_spent = isinstance(error, EspdGoneError) and not held.is_inbound
            self._forget(held)
            if not refusal.is_spent:
                self._sad.keys.unspend(held.fingerprint)
            return refusal
        if not held.is_inbound:
            held.mtu = effective_mtu(held.sa, held.path_mtu)
        self.arm(held)
        if held.is_inbound:
            self._follow_inbound(held.sa, True)
        return None

    def arm(self, held: Held) -> None:
        """Start the timers of its lifetime in seconds."""
        loop, age_s = asyncio.get_running_loop(), time.monotonic() - held.installed_at
        soft, hard = held.sa.lifetime.soft.seconds, held.sa.lifetime.hard.seconds
        if soft is not None and soft > age_s:
            event = SoftExpire(sa_id=held.sa.sa_id, spi=held.sa.spi, limit="seconds")
            held.timers.append(loop.call_later(soft - age_s, self._emit, event))
        if hard is not None:
            held.timers.append(loop.call_later(max(hard - age_s, 0.0), self._expire, held))

    # --- taking out ---------------------------------------------------------------------------------

    async def take_away(self, gone: Iterable[Held]) -> dict[SaId, SaCounters]:
        """Take SAs out of espd, and return what they had counted; espd may be gone, and they with it."""
        counted: dict[SaId, SaCounters] = {}
        for batch in batches(gone):
            for held, counters in zip(
                batch, await asyncio.gather(*(self.take_out(held) for held in batch)), strict=True
            ):
                if counters is not None:
                    counted[held.sa.sa_id] = counters
                self._forget(held)
        return counted

    async def take_out(self, held: Held) -> SaCounters | None:
        """Take one SA out of espd, and remember it; return what it had counted."""
        if held.final is not None:
            return held.final
        try:
            said = await self._espd.ask(p.MessageType.SA_REMOVE, p.SaName(cookie=held.cookie), p.SaStateReply)
        except EngineError as error:
            _log.warning("sa_not_removed", sa_id=held.sa.sa_id, reason=str(error))
            return None
        counters = counters_of(held.sa.sa_id, said.sa)
        self._gone_drops.update(counters.drops)
        return counters

    async def take_strange(self, cookies: Iterable[int]) -> None:
        """Take SAs out that are not known here.

        Raises:
            EngineError: espd refused, or is gone.
        """
        for batch in batches(cookies):
            await asyncio.gather(
                *(
                    self._espd.ask(p.MessageType.SA_REMOVE, p.SaName(cookie=cookie), p.SaStateReply)
                    for cookie in batch
                )
            )

    def lose(self, lost: Iterable[Held]) -> tuple[SaId, ...]:
        """Forget SAs that espd has not any more, and return their names; their keys are spent."""
        ids = []
        for held in lost:
            self._forget(held)
            ids.append(held.sa.sa_id)
        return tuple(ids)

    def forget_drops(self) -> None:
        """Note that espd counts from zero: it is in a new life."""
        self._gone_drops.clear()

    def _forget(self, held: Held) -> None:
        self._sad.remove(held.sa.sa_id)
        self._learnt.pop(held.cookie, None)
        if held.is_inbound:
            self._follow_inbound(held.sa, False)
        forget_sa(self._journal, held.sa.sa_id)

    # --- looking after ------------------------------------------------------------------------------

    async def reserve(self, held: Held, sequence: int) -> None:
        """Let an outbound SA go on behind the numbers that it has used: noted first, then granted."""
        held.sequence_limit = max(held.sequence_limit, sequence + RESERVED_PACKETS)
        if not note_sa(self._journal, held):
            return  # it stops at its old limit, and expires
        try:
            await self._espd.do(
                p.MessageType.SA_RESERVE,
                p.SaReserve(cookie=held.cookie, sequence_limit=held.sequence_limit),
            )
        except EngineError as error:
            _log.warning("numbers_not_reserved", sa_id=held.sa.sa_id, reason=str(error))

    async def follow_peer(self, held: Held, new: tuple[IpAddress, int]) -> None:
        """Send to where an authenticated peer is now (RFC 7296 §2.23)."""
        old, held.peer = held.peer, new
        note_sa(self._journal, held)
        partner = self._sad.partner(held)
        if partner is not None:
            message = p.SaMove(cookie=partner.cookie, port=new[1])
            put_bytes(message.destination, new[0].packed)
            try:
                await self._espd.do(p.MessageType.SA_MOVE, message)
            except EngineError as error:
                # Transport mode and manual keys have fixed addresses; the event tells the controller.
                _log.info("sa_not_moved", sa_id=partner.sa.sa_id, reason=str(error))
            else:
                partner.peer = new
                note_sa(self._journal, partner)
                await self.measure_paths([partner])
        self._emit(MappingChange(sa_id=held.sa.sa_id, spi=held.sa.spi, old=old, new=new))

    async def measure_paths(self, outbound: Iterable[Held]) -> None:
        """Ask the kernel for path MTUs, what ICMP taught it included, and tell espd those that changed."""
        known: dict[tuple[IpAddress, IpAddress], int] = {}
        changed = [held for held in outbound if held.final is None and self._measure(held, known)]
        for held in changed:
            held.mtu = effective_mtu(held.sa, held.path_mtu)
        for batch in batches(changed):
            answers = await asyncio.gather(
                *(
                    self._espd.do(
                        p.MessageType.SA_PATH_MTU, p.SaPathMtu(cookie=held.cookie, path_mtu=held.path_mtu)
                    )
                    for held in batch
                ),
                return_exceptions=True,
            )
            for held, answer in zip(batch, answers, strict=True):
                if isinstance(answer, EngineError):
                    _log.warning("path_mtu_not_set", sa_id=held.sa.sa_id, reason=str(answer))
                elif isinstance(answer, BaseException):
                    raise answer

    def learn(self, reports: Iterable[TooBig]) -> None:
        """Believe routers about AH SAs of ours, for some minutes (RFC 4301 §8.2.1, RFC 8201 §4)."""
        said = {(report.spi, report.source, report.destination): report.mtu for report in reports}
        until = time.monotonic() + _LEARNT_MTU_S
        for held in self._sad:
            if not held.is_inbound and held.sa.protocol is IpsecProtocol.AH:
                mtu = said.get((held.sa.spi, held.sa.source, held.peer[0]))
                if mtu is not None:
                    self._learnt[held.cookie] = max(mtu, _IPV6_MIN_MTU), until

    def _learnt_mtu(self, held: Held) -> int:
        mtu, until = self._learnt.get(held.cookie, (0xFFFF, 0.0))
        return mtu if until > time.monotonic() else 0xFFFF

    def _measure(self, held: Held, known: dict[tuple[IpAddress, IpAddress], int]) -> bool:
        """Measure the path of an outbound SA; return whether it is another."""
        way = held.sa.source, held.peer[0]
        if way not in known:
            path = probe_path(way[1], source=way[0], mark=self._mark)
            known[way] = (held.path_mtu or _DEFAULT_PATH_MTU) if path is None else path.mtu_bytes
        path_mtu = min(known[way], self._learnt_mtu(held), 0xFFFF)
        if path_mtu == held.path_mtu:
            return False
        held.path_mtu = path_mtu
        return True

    # --- counting -----------------------------------------------------------------------------------

    async def records(self) -> list[p.SaRecord]:
        """Return what espd says of each SA that it has.

        Raises:
            EngineError: espd refused, or is gone.
        """
        records: list[p.SaRecord] = []
        last = 0
        while True:
            said = await self._espd.ask(p.MessageType.SA_LIST, p.SaName(cookie=last), p.SaListReply)
            records += said.sas[: said.count]
            if said.count < p.SAS_LISTED:
                return records
            last = records[-1].cookie

    async def counters(self) -> tuple[tuple[SaCounters, ...], dict[DropReason, int]]:
        """Return what each SA has counted, and the drops that belong to none.

        Raises:
            EngineError: espd refused, or is gone.
        """
        said = await self._espd.ask(
            p.MessageType.COUNTERS_READ, p.WorkerName(worker=p.ANY_WORKER), p.CountersReply
        )
        # Read before the SAs: what is dropped between both is counted at its SA, and not here too.
        found = {record.cookie: record for record in await self.records()}
        drops = Counter(drops_of(said.drops))
        drops.subtract(self._gone_drops)
        sas = []
        for held in self._sad:
            record = found.get(held.cookie)
            if record is not None:
                counters = counters_of(held.sa.sa_id, record)
                drops.subtract(counters.drops)
                sas.append(counters)
            elif held.final is not None:
                sas.append(held.final)
        return tuple(sas), {reason: count for reason, count in drops.items() if count > 0}


def _peer_of(sa: SecurityAssociation) -> tuple[IpAddress, int]:
    ports = sa.encapsulation
    if sa.direction is Direction.INBOUND:
        return sa.source, ports.source_port if ports else 0
    return sa.destination, ports.destination_port if ports else 0
