"""What outlives the agent: notes of what espd does not keep, and how the next agent makes sense of both.

An SA is adopted if espd has it and the journal too. One that only espd has is not known here, and is removed;
one that only the journal has is lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from gateway.datapath.engine import protocol as p
from gateway.datapath.engine.sad import Held, Sad
from gateway.datapath.journal import Journal, Json, encode_policy, encode_sa, parse_policy, parse_sa
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import SaId

_LIFE: Final = "life"
_SA: Final = "sa"
_POLICY: Final = "policy"


class LifeNote(NamedTuple):
    """The espd that an agent had, and the key of its fingerprints."""

    number: bytes
    fingerprint_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNote:
    """One SPD entry of ours."""

    policy: Policy
    generation: int


class Adopted(NamedTuple):
    """What came of the SAs."""

    lost: tuple[SaId, ...]
    strange: tuple[int, ...]
    """Cookies of SAs that are not known here."""


def note_life(journal: Journal, note: LifeNote) -> None:
    """Note which espd there is."""
    journal.note(_LIFE, "espd", {"number": note.number.hex(), "fingerprint_key": note.fingerprint_key.hex()})


def read_life(journal: Journal) -> LifeNote | None:
    """Return which espd the last agent had, if it noted one."""
    return next(iter(journal.parsed(_LIFE, _parse_life)), None)


def _parse_life(value: Json) -> LifeNote:
    return LifeNote(bytes.fromhex(value["number"]), bytes.fromhex(value["fingerprint_key"]))


def note_sa(journal: Journal, held: Held) -> bool:
    """Note that an SA is there; return whether that is written."""
    address, port = held.peer
    return journal.note(
        _SA,
        held.sa.sa_id,
        {
            **encode_sa(held.sa),
            "cookie": held.cookie,
            "fingerprint": held.fingerprint.hex(),
            "generation": held.generation,
            "installed_at": held.installed_at,
            "sequence_limit": held.sequence_limit,
            "peer": [str(address), port],
        },
    )


def forget_sa(journal: Journal, sa_id: SaId) -> None:
    """Note that an SA is gone."""
    journal.forget(_SA, sa_id)


def _parse_held(value: Json) -> Held:
    address, port = value["peer"]
    return Held(
        sa=parse_sa(value),
        fingerprint=bytes.fromhex(value["fingerprint"]),
        cookie=value["cookie"],
        generation=value["generation"],
        installed_at=value["installed_at"],
        peer=(ip_address(address), port),
        sequence_limit=value["sequence_limit"],
    )


def note_policy(journal: Journal, note: PolicyNote) -> None:
    """Note that an SPD entry is there."""
    journal.note(_POLICY, note.policy.name, {**encode_policy(note.policy), "generation": note.generation})


def forget_policy(journal: Journal, name: str) -> None:
    """Note that an SPD entry is gone."""
    journal.forget(_POLICY, name)


def noted_policies(journal: Journal) -> tuple[PolicyNote, ...]:
    """Return the SPD entries that the last agent had."""
    return tuple(journal.parsed(_POLICY, _parse_policy))


def _parse_policy(value: Json) -> PolicyNote:
    return PolicyNote(policy=parse_policy(value), generation=value["generation"])


def adopt(journal: Journal, records: Iterable[p.SaRecord], sad: Sad) -> Adopted:
    """Add the SAs that espd and journal have to the SAD.

    Args:
        journal: Read; what is lost is forgotten there.
        records: What espd has.
        sad: Empty.
    """
    there = {record.cookie: record for record in records}
    lost = []
    for held in journal.parsed(_SA, _parse_held):
        record = there.pop(held.cookie, None)
        if record is None or bytes(record.note)[: record.note_bytes] != held.sa.sa_id.encode():
            lost.append(held.sa.sa_id)
            forget_sa(journal, held.sa.sa_id)
            continue
        held.is_expired = bool(record.usage.expired)
        sad.add(held)
    return Adopted(tuple(lost), tuple(there))
