"""Exceptions without a peer: foreign connections that only let traffic pass or drop it.

In our configuration every connection has a peer, and its children may be such exceptions; which connection
they stand in makes no difference to the SPD.
"""

from dataclasses import dataclass
from typing import Final

from gateway.config.foreign.draft import Draft, Plain, our_name
from gateway.config.foreign.statement import Notes, Place

SHUNTS: Final = ("bypass", "discard")


@dataclass(frozen=True, slots=True)
class Shunt:
    """One exception."""

    name: str
    place: Place
    child: dict[str, Plain]


def adopt_shunts(drafts: list[Draft], shunts: list[Shunt], left_out: list[str], notes: Notes) -> None:
    """Put exceptions without a peer into the first connection that is carried, and tell which."""
    for shunt in shunts:
        if not drafts:
            notes.add(shunt.place, shunt.name, "is an exception, and no connection is carried to put it in")
            left_out.append(shunt.name)
            continue
        host = drafts[0]
        name = our_name(shunt.name, (child["name"] for child in host.children))
        host.children.append({**shunt.child, "name": name})
        notes.add(shunt.place, shunt.name, f"needs no peer: carried as the child {name} of {host.name}")
