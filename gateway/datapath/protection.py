"""What keeps protected traffic out of the clear in the kernel: the guard and the steering, in several lives.

Both stay in force when the agent ends, however it ends. A new agent finds what its former lives left, and
keeps it in force beside its own. When it is told that it has every policy, it takes the rest away: by
`forget_former_lives`, and then the next `guard_policies` and `steer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.datapath.backend import DEFAULT_MARK, DatapathError, ErrorReason
from gateway.datapath.steering import (
    MAX_RULES,
    SteeringOptions,
    frame_rules,
    locals_by_remote_prefix,
    pairs,
    policy_routes,
    policy_rules,
)
from gateway.host.network import (
    IpNetwork,
    Network,
    Route,
    Rule,
    has_ipv6,
    heed_marks_in_reverse_path_filter,
    probe_path,
)
from gateway.host.nftables import (
    Guard,
    GuardCounters,
    apply_guard,
    find_lives,
    mark_arp,
    read_counters,
    remove_guard,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Policy
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import TrafficSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionOptions:
    """How a backend with a tunnel device sits in its machine: two in one network namespace differ in each."""

    tunnel_device: str
    tag: str
    """Ends the name of the nftables table."""
    table: int
    """Routing table of the protected prefixes."""
    first_preference: int
    """Of the policy rules that lead there."""
    routing_protocol: int
    """rtm_protocol of our rules and routes: a number that nobody has in /etc/iproute2/rt_protos."""
    mark: int = DEFAULT_MARK
    """Of what is protected, and of IKE; the guard lets it pass. The one number that all share."""
    udp_ports: tuple[int, ...] = (500, 4500)
    """Where IKE and UDP-encapsulated ESP come in; the guard lets them."""

    @property
    def clear_mark(self) -> int:
        """Return the mark of what is sent on in clear: it is not steered again, but it is guarded."""
        return self.mark + 1


class Protection:
    """The guard and the steering of one agent.

    Args:
        network: Borrowed.
        options: Names and numbers; the same in each life of the agent.
    """

    def __init__(self, network: Network, options: ProtectionOptions) -> None:
        self._network = network
        self._options = options
        self._guard = Guard(
            tag=options.tag,
            tunnel_device=options.tunnel_device,
            mark=options.mark,
            arrival_mark=options.clear_mark,
            udp_ports=options.udp_ports,
        )
        self._steering = SteeringOptions(
            table=options.table,
            first_preference=options.first_preference,
            marks=(options.mark, options.clear_mark),
            tunnel_device=options.tunnel_device,
        )
        self._link = 0
        self._life = 1
        self._former_lives: tuple[int, ...] = ()
        self._former_rules: frozenset[Rule] = frozenset()
        self._former_routes: frozenset[Route] = frozenset()
        self._counters_before = GuardCounters()
        self._is_removed = False

    async def start(self, link: int, policies: Sequence[Policy] = ()) -> None:
        """Find what former lives left in force, and lead our own packets past the tunnel device.

        Args:
            link: Index of the tunnel device.
            policies: An SPD that outlived the former life: its traffic is led into the device without a gap.

        Raises:
            HostError: This machine refused.
        """
        self._link = link
        self._former_lives = await find_lives(self._guard)
        self._life = max(self._former_lives, default=0) + 1
        self._counters_before = await read_counters(self._guard)
        self._former_rules = await self._network.rules(self._options.routing_protocol)
        self._former_routes = frozenset(
            route for route in await self._network.routes(self._options.table) if route.link is None
        )
        heed_marks_in_reverse_path_filter()
        await mark_arp(self._guard)
        await self.steer(policies)

    def forget_former_lives(self) -> None:
        """Leave what former lives protected out of all that is put in force from now on."""
        self._former_lives, self._former_rules, self._former_routes = (), frozenset(), frozenset()

    def check(self, policies: Sequence[Policy]) -> None:
        """Check that an SPD is not more than the kernel should walk for each packet.

        Raises:
            DatapathError: It is.
        """
        count = sum(1 for policy in policies for _ in pairs(policy))
        if count > MAX_RULES:
            raise DatapathError(
                ErrorReason.TABLE_FULL,
                f"the SPD has {count} pairs of local and remote selectors, the limit is {MAX_RULES}",
            )
        policy_rules(policies, self._steering, ())

    async def guard_policies(self, policies: Sequence[Policy]) -> None:
        """Have the guard drop what an SPD, and those of former lives, want protected and is in clear.

        Raises:
            HostError: This machine refused; what was in force still is.
        """
        self._is_removed = False
        await apply_guard(self._guard, policies, life=self._life, previous=self._former_lives)

    async def steer(self, policies: Sequence[Policy]) -> None:
        """Lead the traffic of an SPD into the tunnel device, by the addresses this machine has now.

        Raises:
            HostError: This machine refused.
            DatapathError: The SPD needs too many rules.
        """
        addresses = await self._network.addresses()
        rules = policy_rules(policies, self._steering, [local.address for local in addresses])
        usable = [local.address for local in addresses if local.is_global and not local.address.is_loopback]
        hints: dict[IpNetwork, IpAddress] = {}
        for prefix, selectors in locals_by_remote_prefix(policies).items():
            hint = self._hint(prefix, selectors, usable)
            if hint is not None:
                hints[prefix] = hint
        frame = frame_rules(self._steering, (4, 6) if has_ipv6() else (4,))
        routes = policy_routes(policies, self._steering, link=self._link, hints=hints)
        await self._network.sync_routing(
            rules={*frame, *rules, *self._former_rules},
            routes={*routes, *self._former_routes},
            table=self._options.table,
            protocol=self._options.routing_protocol,
        )

    async def use_link(self, link: int, policies: Sequence[Policy]) -> None:
        """Lead traffic into another tunnel device, after the first was removed; see `steer`."""
        self._link = link
        await self.steer_again(policies)

    async def steer_again(self, policies: Sequence[Policy]) -> None:
        """Put back what the kernel took away with a link or an address; see `steer`."""
        if not self._is_removed:
            await self.steer(policies)

    def _hint(
        self, prefix: IpNetwork, selectors: Sequence[TrafficSelector], usable: Sequence[IpAddress]
    ) -> IpAddress | None:
        """Return the address of ours that protected packets to `prefix` should come from.

        It is the first of those that the first local selector with any holds; one that the kernel would take
        anyway comes before the others.
        """
        for selector in selectors:
            held = [address for address in usable if _holds(selector, address)]
            if len(held) <= 1:
                if held:
                    return held[0]
                continue
            path = probe_path(prefix[0], mark=self._options.mark)
            return path.source if path is not None and path.source in held else held[0]
        return None

    async def drops(self) -> dict[DropReason, int]:
        """Return what the guard dropped in this life, by reason."""
        counted, before = await read_counters(self._guard), self._counters_before
        drops = {
            DropReason.CLEAR_INBOUND: counted.clear_inbound - before.clear_inbound,
            DropReason.NO_SA: counted.clear_outbound - before.clear_outbound,
            DropReason.POLICY_DISCARD: counted.discarded - before.discarded,
        }
        return {reason: count for reason, count in drops.items() if count > 0}

    async def remove(self) -> None:
        """Take everything away; nothing is protected any more.

        Raises:
            HostError: This machine refused.
        """
        self._is_removed = True
        await self._network.sync_routing(
            rules=(), routes=(), table=self._options.table, protocol=self._options.routing_protocol
        )
        await remove_guard(self._guard)


def _holds(selector: TrafficSelector, address: IpAddress) -> bool:
    return selector.version == address.version and (int(selector.start) <= int(address) <= int(selector.end))
