"""The authoritative SAD and SPD of this node: what was asked for, by whom (generation), and where it landed.

Pure bookkeeping: it decides whether a wish is new, already true or in conflict, and never touches a packet.
Two rules a change must keep: an item that is already there with equal contents is a success without
effect, and no two outbound SAs ever have the same key, wherever they are and whether the first is still
there: sequence numbers begin anew, and the second would send the same IVs again (RFC 4106 §2).
"""

from collections.abc import Iterable
from dataclasses import replace

from gateway.datapath.backend import DatapathError, ErrorReason, InstalledSa, ItemResult
from gateway.datapath.spent_keys import SpentKeys
from gateway.ipsec.placement import Engine
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation


class Sad:
    """SAs by id and policies by name, each with the generation of the one who asked for it.

    Args:
        fingerprint_key: Random bytes of this process; spent keys are remembered only as keyed hashes.
    """

    def __init__(self, fingerprint_key: bytes) -> None:
        self._keys = SpentKeys(fingerprint_key)
        self._sas: dict[SaId, InstalledSa] = {}
        self._policies: dict[str, Policy] = {}
        self._floor = 0

    # --- SAs ------------------------------------------------------------------------------------

    def admit(self, sa: SecurityAssociation, generation: int) -> None:
        """Say whether `sa` may be installed: it is new, or already there with equal contents.

        The key of a new outbound one is spent from now on, unless it is given up (`give_up`).

        Raises:
            DatapathError: Older than the last reconcile, in conflict with an SA that is there, or with the
                key of another outbound SA.
        """
        self.check_generation(generation)
        known = self._sas.get(sa.sa_id)
        # The wish where it should be is no part of what an SA is: it stays where it is.
        if known is not None and known.sa != replace(sa, placement=known.sa.placement):
            raise DatapathError(
                ErrorReason.SPI_IN_USE, f"{sa.sa_id} is installed with other contents; choose another SPI"
            )
        if known is None and sa.direction is Direction.OUTBOUND:
            self._keys.spend(self._keys.fingerprint(sa))

    def give_up(self, sa: SecurityAssociation, *, is_spent: bool) -> None:
        """Note that an admitted SA is not there; spent: something may have been sent with its key."""
        if sa.direction is Direction.OUTBOUND and sa.sa_id not in self._sas:
            note = self._keys.retire if is_spent else self._keys.unspend
            note(self._keys.fingerprint(sa))

    def adopt(self, installed: InstalledSa) -> None:
        """Record an SA that the backend carries since before this process began."""
        self._sas[installed.sa.sa_id] = installed
        if installed.sa.direction is Direction.OUTBOUND:
            self._keys.adopt(self._keys.fingerprint(installed.sa))

    def add_sa(self, sa: SecurityAssociation, generation: int, answer: ItemResult) -> None:
        """Record an SA that the backend now carries; one that is there only gets the newer generation."""
        known = self._sas.get(sa.sa_id)
        self._sas[sa.sa_id] = InstalledSa(
            sa=sa,
            placement=answer.placement or Engine.SOFTWARE,
            placement_reason=answer.placement_reason,
            refusals=answer.refusals,
            generation=generation if known is None else max(known.generation, generation),
        )

    def drop_sas(self, sa_ids: Iterable[SaId]) -> tuple[SaId, ...]:
        """Forget SAs, and remember the keys of the outbound ones as spent; return those that were there."""
        dropped = []
        for sa_id in sa_ids:
            installed = self._sas.pop(sa_id, None)
            if installed is None:
                continue
            dropped.append(sa_id)
            if installed.sa.direction is Direction.OUTBOUND:
                self._keys.retire(self._keys.fingerprint(installed.sa))
        return tuple(dropped)

    def move_sa(self, sa_id: SaId, placement: Engine, reason: str) -> None:
        """Record that the backend moved an SA to another engine."""
        known = self._sas.get(sa_id)
        if known is not None and known.placement is not placement:
            self._sas[sa_id] = replace(known, placement=placement, placement_reason=reason, refusals=())

    def sa(self, sa_id: SaId) -> InstalledSa | None:
        """Return one SA, or None."""
        return self._sas.get(sa_id)

    def sas(self) -> tuple[InstalledSa, ...]:
        """Return every SA in the order of installation."""
        return tuple(self._sas.values())

    # --- policies -------------------------------------------------------------------------------

    def add_policy(self, policy: Policy) -> None:
        """Record a policy that is now in force, in place of any of the same name."""
        self._policies[policy.name] = policy

    def drop_policies(self, names: Iterable[str]) -> tuple[str, ...]:
        """Forget policies; return the names of those that were there."""
        return tuple(name for name in names if self._policies.pop(name, None) is not None)

    def has_policy(self, name: str) -> bool:
        """Say whether a policy of that name is in force."""
        return name in self._policies

    def policies(self) -> tuple[Policy, ...]:
        """Return the SPD in the order in which it is searched: priority, then name."""
        return tuple(sorted(self._policies.values(), key=lambda policy: (policy.priority, policy.name)))

    # --- generations ----------------------------------------------------------------------------

    def raise_floor(self, generation: int) -> None:
        """Refuse anything older than `generation` from now on.

        Raises:
            DatapathError: STALE_GENERATION, the floor is higher already.
        """
        self.check_generation(generation)
        self._floor = generation

    def check_generation(self, generation: int) -> None:
        """Refuse what is older than the last reconcile; 0 is for those who do not count generations.

        Raises:
            DatapathError: STALE_GENERATION.
        """
        if 0 < generation < self._floor:
            raise DatapathError(
                ErrorReason.STALE_GENERATION,
                f"generation {generation} is older than {self._floor}, which was reconciled already",
            )
