"""What an import makes: connections as plain data, spelled as in our configuration file.

A secret stands in it as a `Secret`, so that whoever writes the file decides whether it becomes a file beside
it or a value in it. Values that are absent mean our default and are left away.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.config.foreign.statement import Note, Notes, Place

# What YAML holds, and secrets.
Plain = Any

MAX_NAME: Final = 64
"""Characters of a connection's or child's name."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """One connection to be."""

    name: str
    place: Place
    local: dict[str, Plain]
    remote: dict[str, Plain]
    ike: dict[str, Plain]
    children: list[dict[str, Plain]]
    allow_weak: list[str] = field(default_factory=list)

    def identities(self) -> tuple[str, str]:
        """Return what the two sides call themselves, or where they are."""
        ours, theirs = (
            str(side.get("id", side.get("address", side.get("addresses", "%any"))))
            for side in (self.local, self.remote)
        )
        return ours, theirs

    def plain(self) -> dict[str, Plain]:
        """Return it as the configuration file has it."""
        whole = {
            "name": self.name,
            "local": self.local,
            "remote": self.remote,
            "ike": self.ike,
            "children": self.children,
            "allow_weak": self.allow_weak,
        }
        return {key: value for key, value in whole.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The outcome of an import."""

    connections: tuple[dict[str, Plain], ...]
    notes: tuple[Note, ...]
    left_out: tuple[str, ...]
    """Names of connections, or `CONNECTION/CHILD`, that are not in `connections`."""


def without_defaults(mapping: Mapping[str, Plain]) -> dict[str, Plain]:
    """Return a mapping without the keys that have no value."""
    return {key: value for key, value in mapping.items() if value is not None and value not in ((), [], {})}


def our_name(name: str, taken: Iterable[str]) -> str:
    """Return a name that our configuration allows and nobody has yet."""
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:MAX_NAME] or "connection"
    chosen, number = clean, 2
    others = set(taken)
    while chosen in others:
        end = f"-{number}"
        chosen, number = clean[: MAX_NAME - len(end)] + end, number + 1
    return chosen


def keep_apart(drafts: Iterable[Draft], notes: Notes) -> None:
    """Let connections between the same identities stand side by side.

    With `unique: replace` the IKE SA of one would end that of another.
    """
    by_ids: dict[tuple[str, str], list[Draft]] = {}
    for draft in drafts:
        by_ids.setdefault(draft.identities(), []).append(draft)
    for same in by_ids.values():
        for draft in same:
            if len(same) == 1 or draft.ike.get("unique") in ("allow", "never"):
                continue
            draft.ike["unique"] = "never"
            others = ", ".join(other.name for other in same if other is not draft)
            notes.add(
                draft.place,
                draft.name,
                f"is between the same identities as {others}: carried with `unique: never`, "
                "so that their IKE SAs do not end each other",
            )
