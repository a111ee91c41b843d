"""Routes for protected destinations, where there would be none, or one that gives a wrong source address.

A packet gets to its policy only if the routing finds a way for it, whatever way: the policy then takes it to
the peer. On a gateway with a default route nothing is needed. Otherwise a table of ours has

    REMOTE dev X                  nothing leads to the protected prefix: the link towards the peer
    REMOTE via GW dev X src HINT  what this machine sends itself would have a source outside the selectors:
                                  the same way as ever, with an address of ours that is inside

and two rules lead there before the main table, past which our own marked packets go:

    pref P      from all fwmark MARK  goto P + 2
    pref P + 1  from all              lookup T
    pref P + 2  nop

Neither route takes traffic of others another way than before: the first takes what went nowhere.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateway.datapath.xfrm.options import ROUTING_PROTOCOL, XfrmOptions
from gateway.datapath.xfrm.selectors import meet
from gateway.host.network import LocalAddress, Network, NextHop, Route, Rule, RuleAction, has_ipv6, probe_path
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import TrafficSelector

IpNetwork = IPv4Network | IPv6Network

_METRIC = 100


class Routes:
    """The rules and routes of one agent.

    Args:
        network: Borrowed.
        options: Names and numbers.
    """

    def __init__(self, network: Network, options: XfrmOptions) -> None:
        self._network = network
        self._options = options
        self._wanted: dict[str, frozenset[Route]] = {}
        self._in_force: frozenset[Route] = frozenset()
        self._addresses: Sequence[LocalAddress] | None = None
        self._unreachable: set[str] = set()

    def misses(self, name: str) -> bool:
        """Return whether an SPD entry has a destination that nothing leads to, for want of a known peer."""
        return name in self._unreachable

    async def follow(self, policy: Policy, peers: Sequence[IpAddress]) -> None:
        """Find out which routes an SPD entry needs now.

        Args:
            policy: The entry.
            peers: Outer addresses of the peer, as far as they are known, the best first.

        Raises:
            HostError: This machine refused.
        """
        self._unreachable.discard(policy.name)
        self._wanted[policy.name] = frozenset(await self._needed(policy, peers))

    def forget(self, name: str) -> None:
        """Leave an SPD entry out of what `put_in_force` does."""
        self._unreachable.discard(name)
        self._wanted.pop(name, None)

    async def put_in_force(self) -> None:
        """Make the routes that are needed the only ones of ours.

        Raises:
            HostError: This machine refused.
        """
        wanted = frozenset(route for routes in self._wanted.values() for route in routes)
        if wanted == self._in_force:
            return
        await self._network.sync_routing(
            rules=self._rules() if wanted else (),
            routes=_without_conflicts(wanted),
            table=self._options.table,
            protocol=ROUTING_PROTOCOL,
        )
        self._in_force = wanted

    async def remove(self) -> None:
        """Take everything away.

        Raises:
            HostError: This machine refused.
        """
        self._wanted.clear()
        self._in_force = frozenset()
        await self._network.sync_routing(
            rules=(), routes=(), table=self._options.table, protocol=ROUTING_PROTOCOL
        )

    def distrust(self) -> None:
        """Put all in force again at the next turn: links and addresses may have changed."""
        self._in_force = frozenset()
        self._addresses = None

    def _rules(self) -> Iterable[Rule]:
        first, end = self._options.preference, self._options.preference + 2
        for version in (4, 6) if has_ipv6() else (4,):
            yield Rule(version=version, priority=end, action=RuleAction.NOP)
            yield Rule(
                version=version, priority=first, action=RuleAction.GOTO, goto=end, mark=self._options.mark
            )
            yield Rule(
                version=version, priority=first + 1, action=RuleAction.TABLE, table=self._options.table
            )

    async def _needed(self, policy: Policy, peers: Sequence[IpAddress]) -> list[Route]:
        if policy.action is not Action.PROTECT:
            return []
        if self._addresses is None:
            self._addresses = await self._network.addresses()
        locals_of: dict[IpNetwork, list[TrafficSelector]] = {}
        for local, remote in meet(policy.local_ts, policy.remote_ts):
            for prefix in remote.prefixes():
                locals_of.setdefault(prefix, []).append(local)
        found = []
        for prefix, locals_ in locals_of.items():
            inside = prefix[prefix.num_addresses // 2]
            path = probe_path(inside, mark=self._options.mark, heeds_policies=False)
            if path is not None and any(_holds(local, path.source) for local in locals_):
                continue
            hint = source_hint(locals_, self._addresses)
            if path is None:
                hop = await self._towards(peers)
            else:
                hop = await self._network.next_hop(inside, mark=self._options.mark) if hint else None
            if hop is not None:
                found.append(self._route(prefix, hop, hint))
            elif path is None:
                self._unreachable.add(policy.name)
        return found

    def _route(self, prefix: IpNetwork, hop: NextHop, hint: IpAddress | None) -> Route:
        return Route(
            destination=prefix,
            table=self._options.table,
            metric=_METRIC,
            link=hop.link,
            gateway=hop.gateway,
            source_hint=hint,
        )

    async def _towards(self, peers: Sequence[IpAddress]) -> NextHop | None:
        """Return the link towards the peer; its next hop may be of the other address family."""
        for peer in peers:
            hop = await self._network.next_hop(peer, mark=self._options.mark)
            if hop is not None:
                return NextHop(link=hop.link)
        return None


def source_hint(locals_: Sequence[TrafficSelector], addresses: Iterable[LocalAddress]) -> IpAddress | None:
    """Return an address of ours that is inside a local selector: the source of what we send ourselves."""
    for local in addresses:
        usable = local.is_global and not local.address.is_loopback
        if usable and any(_holds(selector, local.address) for selector in locals_):
            return local.address
    return None


def _holds(selector: TrafficSelector, address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is inside a selector, whatever its protocol."""
    return selector.version == address.version and (int(selector.start) <= int(address) <= int(selector.end))


def _without_conflicts(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return one route for each destination: the kernel has room for one of a metric."""
    by_destination = {route.destination: route for route in sorted(routes, key=str, reverse=True)}
    return tuple(by_destination.values())
