"""Give each SA to the backend that its placement says, and when that refuses to the next one.

Rules a change must keep:

- A key sends on one engine only. An outbound SA goes to another engine only if the first one refused it,
  which means that it was never used there (`Datapath`); else sequence numbers, and so IVs, would begin anew.
- Both directions of a Child SA are at one backend, and an SA is where its SPD entry is: where a packet is
  protected by one backend and checked by another, it is dropped.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.agent.placed_sas import PlacedSa, PlacedSas
from gateway.agent.spd_placing import SpdPlacing
from gateway.datapath.ability import NIC_ENGINES
from gateway.datapath.backend import Datapath, DatapathError, ErrorReason, InstalledSa, ItemResult
from gateway.datapath.select import Choice, Surroundings, choose
from gateway.ipsec.placement import Engine, Placement, PlacementReason, PlacementRefusal, in_words
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation, UdpEncapsulation
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

#: What a backend's refusal means for the placement. Any other ends the matter: no backend would do better.
_NEXT: Final = {
    ErrorReason.ALGORITHM_UNSUPPORTED: PlacementReason.ALG_UNSUPPORTED,
    ErrorReason.KEY_LENGTH: PlacementReason.KEYLEN,
    ErrorReason.MODE_UNSUPPORTED: PlacementReason.MODE,
    ErrorReason.WINDOW_UNSUPPORTED: PlacementReason.REPLAY_WINDOW,
    ErrorReason.TABLE_FULL: PlacementReason.SA_TABLE_FULL,
    ErrorReason.ADDRESS_FAMILY: PlacementReason.BACKEND_REFUSED,
    ErrorReason.PLACEMENT_UNAVAILABLE: PlacementReason.BACKEND_REFUSED,
    ErrorReason.UNAVAILABLE: PlacementReason.BACKEND_REFUSED,
    ErrorReason.SYSTEM: PlacementReason.BACKEND_REFUSED,
}
#: The error of an SA that nothing took, by why the last engine did not.
_ERRORS: Final = {
    PlacementReason.ALG_UNSUPPORTED: ErrorReason.ALGORITHM_UNSUPPORTED,
    PlacementReason.ICV: ErrorReason.ALGORITHM_UNSUPPORTED,
    PlacementReason.KEYLEN: ErrorReason.KEY_LENGTH,
    PlacementReason.MODE: ErrorReason.MODE_UNSUPPORTED,
    PlacementReason.ENCAP: ErrorReason.MODE_UNSUPPORTED,
    PlacementReason.REPLAY_WINDOW: ErrorReason.WINDOW_UNSUPPORTED,
    PlacementReason.SA_TABLE_FULL: ErrorReason.TABLE_FULL,
}


_MAX_AVOIDED: Final = 4096
AVOID_S: Final = 600.0
"""How long a Child's inbound SAs avoid a backend that refused its outbound one."""


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One SA of a batch on its way to a backend."""

    index: int
    """In the batch."""
    sa: SecurityAssociation
    refused: dict[Engine, PlacementRefusal] = field(default_factory=dict)
    """Engines that said no."""
    last_error: DatapathError | None = None
    engine: Engine = Engine.SOFTWARE
    device: str = ""
    refusals: tuple[PlacementRefusal, ...] = ()
    """Why none of the engines that were preferred to `engine`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Avoided:
    """Engines that a Child does not try for a while."""

    engines: Mapping[Engine, PlacementRefusal]
    until: float
    """In seconds of the event loop's clock."""


class SaPlacing:
    """The SAs of this node over several backends.

    Args:
        backends: By name, in the order of preference.
        owners: Name of the backend that drives each engine.
        placed: What is where; kept by this object.
        spd: Follows the outbound SAs.
        on_placed: Told of each new SA, with the newest one of the same Child and direction before it.
    """

    def __init__(
        self,
        *,
        backends: Mapping[str, Datapath],
        owners: Mapping[Engine, str],
        placed: PlacedSas,
        spd: SpdPlacing,
        on_placed: Callable[[PlacedSa, PlacedSa | None], None],
    ) -> None:
        self._backends = backends
        self._owners = owners
        self._placed = placed
        self._spd = spd
        self._on_placed = on_placed
        self._avoided: dict[tuple[str, str], _Avoided] = {}

    async def install(
        self, sas: Sequence[SecurityAssociation], generation: int, look: Callable[[], Awaitable[Surroundings]]
    ) -> tuple[ItemResult, ...]:
        """Install SAs, the inbound ones first; each is answered with where it landed and why not better."""
        results: dict[int, ItemResult] = {}
        for direction in (Direction.INBOUND, Direction.OUTBOUND):
            pending = [
                _Attempt(index=index, sa=sa) for index, sa in enumerate(sas) if sa.direction is direction
            ]
            while pending:
                pending = await self._one_round(pending, generation, await look(), results)
        return tuple(results[index] for index in range(len(sas)))

    async def _one_round(
        self,
        pending: Sequence[_Attempt],
        generation: int,
        here: Surroundings,
        results: dict[int, ItemResult],
    ) -> list[_Attempt]:
        """Give every SA to its best engine; return those that were refused and have others to try."""
        planned = Counter(self._placed.used)
        here = replace(here, used=planned)
        batches: dict[str, list[_Attempt]] = {}
        for attempt in pending:
            if self._aim(attempt, here):
                planned[attempt.engine, attempt.device] += 1
                batches.setdefault(self._owners[attempt.engine], []).append(attempt)
            else:
                self._learn(attempt)
                results[attempt.index] = ItemResult(name=attempt.sa.sa_id, error=_nothing_took(attempt))
        again = []
        for backend, batch in batches.items():
            for attempt, answer in zip(batch, await self._give(backend, batch, generation), strict=True):
                result = await self._settle(attempt, answer, backend)
                if result is None:
                    again.append(attempt)
                else:
                    results[attempt.index] = result
        return again

    # --- choosing -----------------------------------------------------------------------------------

    def _aim(self, attempt: _Attempt, here: Surroundings) -> bool:
        """Choose the engine for an attempt; say whether there is one."""
        known = self._placed.get(attempt.sa.sa_id)
        if known is not None:
            attempt.engine, attempt.device, attempt.refusals = known.asked, known.device, known.refusals
            return True
        choice = self._choose(attempt, here)
        attempt.refusals = choice.refusals
        if choice.ability is None:
            return False
        attempt.engine, attempt.device = choice.ability.engine, choice.ability.device
        return True

    def _choose(self, attempt: _Attempt, here: Surroundings) -> Choice:
        """Choose the engine; for an inbound SA one at a backend that can take the outbound half too."""
        sa, barred = attempt.sa, self._ties(attempt.sa)
        while True:
            choice = choose(sa, here, attempt.refused, barred)
            if choice.ability is None or sa.direction is Direction.OUTBOUND or len(self._backends) == 1:
                return choice
            backend = self._owners[choice.ability.engine]
            other = choose(
                _turned(sa), here, barred=self._all_but(backend, PlacementReason.OTHER_DIRECTION, "")
            )
            if other.ability is not None:
                return choice
            own = [refusal for refusal in other.refusals if self._owners.get(refusal.engine) == backend]
            text = f"{backend} cannot take its outbound half: {in_words(own)}"
            for engine in self._engines_of(backend):
                barred[engine] = _refusal(engine, PlacementReason.OTHER_DIRECTION, text)

    def _ties(self, sa: SecurityAssociation) -> dict[Engine, PlacementRefusal]:
        """Return the engines that are out of the question for what else this SA must be together with."""
        if len(self._backends) == 1:
            return {}
        partner = self._placed.partner(sa)
        avoided = self._avoided.get((sa.connection, sa.child))
        if partner is None and avoided is not None and avoided.until > asyncio.get_running_loop().time():
            return dict(avoided.engines)
        if partner is not None:
            text = f"its {partner.sa.direction.value} half is at {partner.backend}"
            return self._all_but(partner.backend, PlacementReason.OTHER_DIRECTION, text)
        tie = self._spd.tied_to(sa.connection, sa.child)
        if tie is not None:
            text = f"its SPD entry overlaps {tie[1]}, whose SAs are at {tie[0]}"
            return self._all_but(tie[0], PlacementReason.POLICY_FORBIDS, text)
        return {}

    def _learn(self, attempt: _Attempt) -> None:
        """Have the next attempt of a Child avoid the backend that took its inbound half and not this one.

        The inbound half stays where it is: moved, it would forget which packets it has seen.
        """
        sa, partner = attempt.sa, self._placed.partner(attempt.sa)
        was_barred = any(refusal.reason is PlacementReason.OTHER_DIRECTION for refusal in attempt.refusals)
        if partner is None or sa.direction is Direction.INBOUND or not was_barred:
            return
        text = f"{partner.backend} did not take its outbound half: {in_words(attempt.refused.values())}"
        self._avoided[sa.connection, sa.child] = _Avoided(
            engines={
                engine: _refusal(engine, PlacementReason.OTHER_DIRECTION, text)
                for engine in self._engines_of(partner.backend)
            },
            until=asyncio.get_running_loop().time() + AVOID_S,
        )
        while len(self._avoided) > _MAX_AVOIDED:
            del self._avoided[next(iter(self._avoided))]

    def _all_but(self, backend: str, reason: PlacementReason, text: str) -> dict[Engine, PlacementRefusal]:
        return {
            engine: _refusal(engine, reason, text)
            for engine, owner in self._owners.items()
            if owner != backend
        }

    def _engines_of(self, backend: str) -> tuple[Engine, ...]:
        return tuple(engine for engine, owner in self._owners.items() if owner == backend)

    # --- giving -------------------------------------------------------------------------------------

    async def _give(self, backend: str, batch: Sequence[_Attempt], generation: int) -> tuple[ItemResult, ...]:
        wanted = [
            replace(attempt.sa, placement=Placement(prefer=(attempt.engine,), require=attempt.engine))
            for attempt in batch
        ]
        try:
            return await self._backends[backend].install_sas(wanted, generation)
        except DatapathError as error:
            # Nobody knows what became of them: an outbound SA may be there and sending.
            await self._remove(backend, [sa.sa_id for sa in wanted if self._placed.get(sa.sa_id) is None])
            return tuple(
                ItemResult(
                    name=sa.sa_id,
                    error=DatapathError(
                        error.reason, str(error), why=error.why, is_spent=sa.direction is Direction.OUTBOUND
                    ),
                )
                for sa in wanted
            )

    async def _settle(self, attempt: _Attempt, answer: ItemResult, backend: str) -> ItemResult | None:
        """Take note of a backend's answer and return ours; `None`: try another engine."""
        sa, known = attempt.sa, self._placed.get(attempt.sa.sa_id)
        if answer.error is not None:
            return self._refused(attempt, answer.error)
        achieved = answer.placement or attempt.engine
        if known is None and achieved is not attempt.engine:
            ignored = _ignored(attempt, answer, achieved)
            if sa.direction is Direction.INBOUND or achieved not in sa.placement.wanted:
                await self._remove(backend, [sa.sa_id])
                attempt.refused[attempt.engine] = ignored
                if sa.direction is Direction.INBOUND:
                    return None
                attempt.refusals = (*attempt.refusals, ignored)
                return ItemResult(name=sa.sa_id, error=_nothing_took(attempt, is_spent=True))
            attempt.refusals = (*attempt.refusals, ignored, *_passed_over(attempt, achieved))
        placed = PlacedSa(
            sa=sa,
            backend=backend,
            asked=attempt.engine,
            engine=achieved,
            device=attempt.device if achieved in NIC_ENGINES else "",
            refusals=attempt.refusals,
        )
        if known is None:
            error = await self._take_over(placed)
            if error is not None:
                return ItemResult(name=sa.sa_id, error=error)
        return ItemResult(
            name=sa.sa_id,
            placement=achieved if known is None else known.engine,
            placement_reason=reason_of(attempt.refusals, answer),
            refusals=attempt.refusals,
        )

    def _refused(self, attempt: _Attempt, error: DatapathError) -> ItemResult | None:
        reason = error.why or _NEXT.get(error.reason)
        if reason is None or error.is_spent or self._placed.get(attempt.sa.sa_id) is not None:
            return ItemResult(name=attempt.sa.sa_id, error=error)
        attempt.refused[attempt.engine] = _refusal(attempt.engine, reason, str(error))
        attempt.last_error = error
        return None

    async def _take_over(self, placed: PlacedSa) -> DatapathError | None:
        """Let an SA serve from now on; return why it cannot, and leave nothing of it then."""
        sa = placed.sa
        predecessors = self._placed.of_child(sa.connection, sa.child, sa.direction)
        if sa.direction is Direction.OUTBOUND:
            try:
                await self._spd.lead(sa.connection, sa.child, placed.backend)
            except DatapathError as error:
                await self._remove(placed.backend, [sa.sa_id])
                return DatapathError(
                    error.reason,
                    f"{placed.backend} does not take the SPD entries of {sa.connection}/{sa.child}: {error}",
                    is_spent=True,
                )
        self._placed.put(placed)
        self._on_placed(placed, predecessors[-1] if predecessors else None)
        return None

    async def _remove(self, backend: str, sa_ids: Sequence[SaId]) -> None:
        try:
            await self._backends[backend].remove_sas(sa_ids)
        except DatapathError as error:
            _log.warning("sas_not_removed", backend=backend, sas=list(sa_ids), error=str(error))


def reason_of(refusals: Sequence[PlacementRefusal], answer: ItemResult | InstalledSa) -> str:
    """Return why an SA is on no better engine, and what its backend says of where it is."""
    # What a backend refused itself is among `refusals` already.
    said = "" if answer.refusals else answer.placement_reason
    return "; ".join(part for part in (in_words(refusals), said) if part)


def _refusal(engine: Engine, reason: PlacementReason, text: str) -> PlacementRefusal:
    return PlacementRefusal(engine=engine, reason=reason, text=text)


def _ignored(attempt: _Attempt, answer: ItemResult, achieved: Engine) -> PlacementRefusal:
    """Return what is to be said of an engine that was asked and that the backend passed over."""
    for refusal in answer.refusals:
        if refusal.engine is attempt.engine:
            return refusal
    text = answer.placement_reason or f"it was accepted, and is on {achieved.value} all the same"
    return _refusal(attempt.engine, PlacementReason.KERNEL_IGNORED_OFFLOAD, text)


def _passed_over(attempt: _Attempt, achieved: Engine) -> tuple[PlacementRefusal, ...]:
    """Return what is to be said of the engines between the one that was asked and the one it landed on."""
    wanted = attempt.sa.placement.wanted
    between = wanted[wanted.index(attempt.engine) + 1 : wanted.index(achieved)]
    text = f"it may have sent packets on {achieved.value} already, and its sequence numbers cannot move"
    return tuple(_refusal(engine, PlacementReason.BACKEND_REFUSED, text) for engine in between)


def _nothing_took(attempt: _Attempt, *, is_spent: bool = False) -> DatapathError:
    """Return the error of an SA that no engine of its wish took; its code is that of the last engine."""
    refusals = attempt.refusals
    reason = ErrorReason.PLACEMENT_UNAVAILABLE
    if refusals:
        reason = _ERRORS.get(refusals[-1].reason, reason)
        if attempt.last_error is not None and refusals[-1].engine in attempt.refused:
            reason = attempt.last_error.reason
    verb = "prefers" if attempt.sa.placement.require is None else "requires"
    wanted = ", ".join(engine.value for engine in attempt.sa.placement.wanted) or "nothing"
    return DatapathError(
        reason, f"it {verb} {wanted}, and {in_words(refusals)}", refusals=refusals, is_spent=is_spent
    )


def _turned(sa: SecurityAssociation) -> SecurityAssociation:
    """Return what the outbound half of an inbound SA will be like, as far as placement goes."""
    ports = sa.encapsulation
    return replace(
        sa,
        direction=Direction.OUTBOUND,
        source=sa.destination,
        destination=sa.source,
        encapsulation=None
        if ports is None
        else UdpEncapsulation(source_port=ports.destination_port, destination_port=ports.source_port),
    )
