"""The ordered SPD (RFC 4301 §4.4.1): which entry a packet matches first."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.esp.flow import Flow, SelectorSet
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import MAX_PORT, TrafficSelector


@dataclass(slots=True, kw_only=True, eq=False)
class SpdEntry:
    """One policy with its selectors made ready for the packet path."""

    policy: Policy
    generation: int
    selectors: SelectorSet
    any_port: SelectorSet
    """The same without ports: what a later fragment could belong to."""

    @property
    def serves(self) -> tuple[str, str]:
        """Return the (connection, child) whose SAs serve this entry."""
        return self.policy.connection, self.policy.child


class Spd:
    """All entries, in the order in which they are searched."""

    def __init__(self, entries: Iterable[SpdEntry] = ()) -> None:
        self._entries = sorted(entries, key=lambda entry: (entry.policy.priority, entry.policy.name))

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Return the policies in order."""
        return tuple(entry.policy for entry in self._entries)

    @property
    def entries(self) -> tuple[SpdEntry, ...]:
        """Return the entries in order."""
        return tuple(self._entries)

    @property
    def steered(self) -> tuple[Policy, ...]:
        """Return the policies in order whose traffic their selectors tell, and not an interface."""
        return tuple(policy for policy in self.policies if not policy.interface_id)

    def lookup(self, flow: Flow, interface_id: int = 0) -> SpdEntry | None:
        """Return the first entry that an outbound packet of an interface, or of none, matches."""
        of_it = (entry for entry in self._entries if entry.policy.interface_id == interface_id)
        return next((entry for entry in of_it if entry.selectors.permits_outbound(flow)), None)

    def brings_by_rule(self, flow: Flow) -> bool:
        """Whether steering brings a packet that no entry matches: its rules may be wider than selectors.

        Rules have the addresses and the protocol of a PROTECT entry; some ports they cannot say.
        """
        return any(
            entry.any_port.permits_outbound(flow)
            for entry in self._entries
            if entry.policy.action is Action.PROTECT and not entry.policy.interface_id
        )

    def hides_ports(self, flow: Flow) -> bool:
        """Whether a packet without visible ports could, with them, match an entry that is no BYPASS."""
        return flow.source_port is None and any(
            entry.any_port.permits_outbound(flow)
            for entry in self._entries
            if entry.policy.action is not Action.BYPASS and not entry.policy.interface_id
        )


def make_entry(policy: Policy, generation: int) -> SpdEntry:
    """Return the entry of one policy."""
    return SpdEntry(
        policy=policy,
        generation=generation,
        selectors=SelectorSet(policy.local_ts, policy.remote_ts),
        any_port=SelectorSet(map(_any_port, policy.local_ts), map(_any_port, policy.remote_ts)),
    )


def _any_port(selector: TrafficSelector) -> TrafficSelector:
    return replace(selector, start_port=0, end_port=MAX_PORT)
