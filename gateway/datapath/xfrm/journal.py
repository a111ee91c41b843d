"""What the kernel does not keep of our SAs and policies, for the next life of the agent: no keys.

What has no line, or one that makes no sense, is not adopted, but stays in force until `reconcile`.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from gateway.datapath import journal
from gateway.datapath.journal import Json, encode_ports, parse_ports
from gateway.datapath.xfrm.installation import Whereabouts
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import SaId, SecurityAssociation

_SA: Final = "sa"
_POLICY: Final = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaNote:
    """One SA, its keys left out."""

    sa: SecurityAssociation
    at: Whereabouts
    generation: int
    reqid: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNote:
    """One SPD entry."""

    policy: Policy
    generation: int
    label: int


def encode_sa(note: SaNote) -> Json:
    """Return a note as JSON, without keys."""
    return {
        **journal.encode_sa(note.sa),
        "at": [str(note.at.source), str(note.at.destination), encode_ports(note.at.encapsulation)],
        "generation": note.generation,
        "reqid": note.reqid,
        "device": note.device,
    }


def parse_sa(value: Json) -> SaNote:
    """Return the note in a line; its SA has no keys.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    source, destination, ports = value["at"]
    return SaNote(
        sa=journal.parse_sa(value),
        at=Whereabouts(
            source=ip_address(source),
            destination=ip_address(destination),
            encapsulation=parse_ports(ports),
        ),
        generation=value["generation"],
        reqid=value["reqid"],
        device=value["device"],
    )


def encode_policy(note: PolicyNote) -> Json:
    """Return a note as JSON."""
    return {**journal.encode_policy(note.policy), "generation": note.generation, "label": note.label}


def parse_policy(value: Json) -> PolicyNote:
    """Return the note in a line.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    return PolicyNote(
        policy=journal.parse_policy(value), generation=value["generation"], label=value["label"]
    )


class Journal:
    """Notes of SAs and SPD entries; without a path nothing is remembered.

    Args:
        path: Of the file; only its owner may read it.
    """

    def __init__(self, path: Path | None) -> None:
        self._notes = journal.Journal(path)

    def open(self) -> tuple[tuple[SaNote, ...], tuple[PolicyNote, ...]]:
        """Return what the last life noted, and begin to note.

        Raises:
            OSError: The file cannot be read or written.
        """
        self._notes.read()
        sas = tuple(self._notes.parsed(_SA, parse_sa))
        policies = tuple(self._notes.parsed(_POLICY, parse_policy))
        self._notes.begin()
        return sas, policies

    def note_sa(self, note: SaNote) -> None:
        """Note that an SA is there."""
        self._notes.note(_SA, note.sa.sa_id, encode_sa(note))

    def forget_sa(self, sa_id: SaId) -> None:
        """Note that an SA is gone."""
        self._notes.forget(_SA, sa_id)

    def note_policy(self, note: PolicyNote) -> None:
        """Note that an SPD entry is there."""
        self._notes.note(_POLICY, note.policy.name, encode_policy(note))

    def forget_policy(self, name: str) -> None:
        """Note that an SPD entry is gone."""
        self._notes.forget(_POLICY, name)

    def remove(self) -> None:
        """Forget everything, and the file."""
        self._notes.remove()

    def close(self) -> None:
        """Close the file."""
        self._notes.close()
