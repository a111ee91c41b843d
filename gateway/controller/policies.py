"""The SPD entries that a configuration wants at the datapath, with or without an SA (fail closed)."""

from collections.abc import Callable, Iterable, Iterator

from gateway.ipsec.connection import Child, Connection, LossAction, Start
from gateway.ipsec.mark import Mark
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import IpAddress, IpsecProtocol
from gateway.ipsec.selectors import TrafficSelector


def policy_name(connection: str, child: str) -> str:
    """Return the name of a child's SPD entry."""
    return f"{connection}/{child}"


def child_policy(
    connection: Connection, child: Child, source_address: Callable[[IpAddress], IpAddress | None]
) -> Policy | None:
    """Return the SPD entry of one child; None where its selectors are only known once there is an SA.

    Empty selectors mean the IKE SA's own addresses (host to host); they are known beforehand when the
    operator wrote the address, or the kernel would choose one.
    """
    remote_addresses = connection.remote.addresses
    local_addresses = connection.local.addresses
    if not local_addresses:
        chosen = (source_address(remote) for remote in remote_addresses)
        local_addresses = tuple(dict.fromkeys(address for address in chosen if address is not None))
    local_ts = child.local_ts or tuple(TrafficSelector(a, a) for a in local_addresses)
    remote_ts = child.remote_ts or tuple(TrafficSelector(a, a) for a in remote_addresses)
    if not local_ts or not remote_ts:
        return None
    return Policy(
        name=policy_name(connection.name, child.name),
        action=child.action,
        local_ts=local_ts,
        remote_ts=remote_ts,
        priority=child.priority,
        mode=child.mode,
        protocol=IpsecProtocol[child.protocol.name],
        local_address=local_addresses[0] if len(local_addresses) == 1 else None,
        remote_address=remote_addresses[0] if len(remote_addresses) == 1 else None,
        acquire=connection.remote.is_known and _may_acquire(child),
        connection=connection.name,
        child=child.name,
        placement=child.placement,
        interface_id=child.interface_id,
        interface=child.interface,
        mark_in=child.marks.inbound,
        mark_out=child.marks.outbound,
    )


def _may_acquire(child: Child) -> bool:
    """Say whether a packet may bring a Child SA up, from the beginning or after it was lost."""
    after_loss = (child.on_loss(by_peer=True), child.on_loss(by_peer=False))
    return child.start is Start.ON_TRAFFIC or LossAction.TRAP in after_loss


def wanted_policies(
    connections: Iterable[Connection], source_address: Callable[[IpAddress], IpAddress | None]
) -> dict[str, Policy]:
    """Return every SPD entry that can be known now, by name."""
    wanted: dict[str, Policy] = {}
    for connection in connections:
        for child in connection.children:
            policy = child_policy(connection, child, source_address)
            if policy is not None:
                wanted[policy.name] = policy
    return wanted


ProtectKey = tuple[frozenset[TrafficSelector], frozenset[TrafficSelector], int, int, Mark | None]
"""What a PROTECT entry is about, its place in the order of the SPD, the id of its interface, and its mark."""


def protect_keys(connection: Connection) -> Iterator[tuple[ProtectKey, str]]:
    """Yield what a connection's PROTECT children are about, where it is known, with their entries' names."""
    for child in connection.children:
        if child.action is Action.PROTECT and child.local_ts and child.remote_ts:
            selectors = frozenset(child.local_ts), frozenset(child.remote_ts)
            key = (*selectors, child.priority, child.interface_id, child.marks.outbound)
            yield key, policy_name(connection.name, child.name)
