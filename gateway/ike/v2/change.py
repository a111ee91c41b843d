"""What a changed configuration means for the SAs there are: nothing, a rekey, or beginning anew.

Every field of a connection is in one of the tables below; a test holds them against the records. What only
timers and later negotiations ask for takes effect by itself. What was negotiated, but is agreed on again by
a rekey, costs one: make before break, no packet is lost. What only a new IKE_SA_INIT, IKE_AUTH or
CREATE_CHILD_SA of another Child SA settles ends what there is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from gateway.ipsec.connection import Child, Connection, IkeOptions


class Effect(IntEnum):
    """What a change costs, the more the higher."""

    NONE = 0
    """It takes effect by itself, at the latest with the next rekey."""
    REKEY = 1
    """It takes effect when the SA is rekeyed; until then the old agreement holds."""
    RESTART = 2
    """The SA ends and is made anew."""
    END = 3
    """The SA ends: nobody wants it any more."""


#: Of `Connection`; what is not here is looked at in detail.
CONNECTION_EFFECTS: Final[Mapping[str, Effect]] = {
    "name": Effect.RESTART,
    "local": Effect.RESTART,
    "remote": Effect.RESTART,
    "allow_weak": Effect.NONE,
}
IKE_EFFECTS: Final[Mapping[str, Effect]] = {
    "proposals": Effect.REKEY,
    "rekey_s": Effect.NONE,
    "over_s": Effect.NONE,
    "jitter": Effect.NONE,
    "dpd_delay_s": Effect.NONE,
    "retransmit_timeout_s": Effect.NONE,
    "retransmit_base": Effect.NONE,
    "retransmit_tries": Effect.NONE,
    # Settled in IKE_SA_INIT, or in IKE_AUTH (RFC 7383 §2.3, RFC 3948, RFC 6023).
    "encapsulation": Effect.RESTART,
    "fragmentation": Effect.RESTART,
    "fragment_packet_bytes": Effect.RESTART,
    "childless": Effect.RESTART,
    "unique": Effect.NONE,
    "ike_sas_per_peer": Effect.NONE,
    "reauth_s": Effect.NONE,
}
CHILD_EFFECTS: Final[Mapping[str, Effect]] = {
    "name": Effect.RESTART,
    "local_ts": Effect.RESTART,
    "remote_ts": Effect.RESTART,
    "mode": Effect.RESTART,
    "action": Effect.RESTART,
    "proposals": Effect.REKEY,
    "start": Effect.NONE,
    "rekey": Effect.NONE,
    "over": Effect.NONE,
    "jitter": Effect.NONE,
    # Of the SA at the datapath: the next one has it.
    "replay_window_packets": Effect.REKEY,
    "copy_dscp": Effect.REKEY,
    "copy_df": Effect.REKEY,
    "placement": Effect.REKEY,
    "interface": Effect.RESTART,
    "marks": Effect.RESTART,
    # Agreed on with the peer for each new Child SA.
    "per_cpu_sas": Effect.RESTART,
    # Of the SPD entry only.
    "priority": Effect.NONE,
    "dpd_action": Effect.NONE,
    "close_action": Effect.NONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What separates two states of one connection.

    Where `ike` is RESTART or END, so is everything below it.
    """

    fields: tuple[str, ...]
    """Paths of what differs, by the names of the records: `ike.proposals`, `children[lan].local_ts`."""
    ike: Effect = Effect.NONE
    children: Mapping[str, Effect] = field(default_factory=dict)
    """Of the children there were, by name; those that are not named are as they were."""

    def of_child(self, name: str) -> Effect:
        """Return what happens to the Child SAs of one child."""
        if self.ike >= Effect.RESTART:
            return Effect.RESTART if self.ike is Effect.RESTART else Effect.END
        return self.children.get(name, Effect.NONE)


def change_of(old: Connection, new: Connection | None) -> Change:
    """Return what changes from `old` to `new`; `None`: it goes."""
    if new is None:
        return Change(fields=(), ike=Effect.END)
    found = [(name, CONNECTION_EFFECTS[name]) for name in _differing(old, new) if name in CONNECTION_EFFECTS]
    found += [(f"ike.{name}", IKE_EFFECTS[name]) for name in _differing(old.ike, new.ike)]
    fields = [path for path, _ in found]
    children: dict[str, Effect] = {}
    before = {child.name: child for child in old.children}
    after = {child.name: child for child in new.children}
    for name, child in before.items():
        if name not in after:
            fields.append(f"children[{name}]")
            children[name] = Effect.END
            continue
        differing = list(_differing(child, after[name]))
        fields += [f"children[{name}].{part}" for part in differing]
        if differing:
            children[name] = _effect_on_child(child, after[name], differing)
    fields += [f"children[{name}]" for name in after if name not in before]
    return Change(
        fields=tuple(fields), ike=max((effect for _, effect in found), default=Effect.NONE), children=children
    )


def _effect_on_child(old: Child, new: Child, differing: list[str]) -> Effect:
    if old.protocol is not new.protocol:
        return Effect.RESTART
    return max(CHILD_EFFECTS[part] for part in differing)


def _differing(old: Connection | IkeOptions | Child, new: Connection | IkeOptions | Child) -> Iterator[str]:
    for name in type(old).__dataclass_fields__:
        if getattr(old, name) != getattr(new, name):
            yield name
