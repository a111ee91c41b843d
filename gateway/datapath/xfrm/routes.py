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
from typing import Final

from gateway.datapath.xfrm.options import ROUTING_PROTOCOL, XfrmOptions
from gateway.datapath.xfrm.selectors import meet
from gateway.host.network import LocalAddress, Network, NextHop, Route, Rule, RuleAction, has_ipv6, probe_path
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import IpAddress
from gateway.ipsec.selectors import TrafficSelector

IpNetwork = IPv4Network | IPv6Network

_METRIC: Final = 100
_FORMER: Final = ""
"""No SPD entry has this name."""


class Routes:
    """The rules and routes of one agent.

    Args:
        network: Borrowed.
        options: Names and numbers.
    """

    def __init__(self, network: Network, options: XfrmOptions) -> None:
        self._network = network
        self._options = options
        self._wanted: dict[str, tuple[Route, ...]] = {}
        self._wishes: dict[IpNetwork, dict[str, Route]] = {}
        """By destination and SPD entry: the kernel has room for one route of each destination."""
        self._in_force: dict[IpNetwork, Route] = {}
        self._changed: dict[IpNetwork, None] = {}
        self._is_sure = False
        """Whether nothing else of ours is in the kernel; a former life may have left something."""
        self._addresses: Sequence[LocalAddress] | None = None
        self._unreachable: set[str] = set()
        self._links_towards: dict[IpAddress, NextHop | None] = {}
        """By the address of a peer; of what is followed until all is put in force."""

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
        self._want(policy.name, tuple(await self._needed(policy, peers)))

    def forget(self, name: str) -> None:
        """Leave an SPD entry out of what `put_in_force` does."""
        self._unreachable.discard(name)
        self._want(name, ())

    async def keep_former(self) -> None:
        """Keep what a former life left, until `forget_former`.

        Raises:
            HostError: This machine refused.
        """
        self._want(_FORMER, tuple(await self._network.routes(self._options.table)))

    def forget_former(self) -> None:
        """Leave what a former life left out of what `put_in_force` does."""
        self._want(_FORMER, ())

    def _want(self, name: str, routes: tuple[Route, ...]) -> None:
        for route in self._wanted.pop(name, ()):
            wishes = self._wishes[route.destination]
            del wishes[name]
            if not wishes:
                del self._wishes[route.destination]
            self._changed[route.destination] = None
        for route in routes:
            self._wishes.setdefault(route.destination, {})[name] = route
            self._changed[route.destination] = None
        if routes:
            self._wanted[name] = routes

    def _chosen(self, destination: IpNetwork) -> Route | None:
        return min(self._wishes.get(destination, {}).values(), key=str, default=None)

    async def put_in_force(self) -> None:
        """Make the routes that are needed the only ones of ours.

        Raises:
            HostError: This machine refused.
        """
        self._links_towards.clear()
        if not self._is_sure or bool(self._wishes) is not bool(self._in_force):
            await self._put_all_in_force()
            return
        add, remove = [], []
        for destination in self._changed:
            old, new = self._in_force.get(destination), self._chosen(destination)
            if old != new:
                remove += [old] if old is not None else []
                add += [new] if new is not None else []
        if add or remove:
            await self._network.change_routes(add=add, remove=remove, protocol=ROUTING_PROTOCOL)
        self._note(self._changed)

    async def _put_all_in_force(self) -> None:
        routes = [route for destination in self._wishes if (route := self._chosen(destination)) is not None]
        await self._network.sync_routing(
            rules=self._rules() if routes else (),
            routes=routes,
            table=self._options.table,
            protocol=ROUTING_PROTOCOL,
        )
        self._in_force.clear()
        self._is_sure = True
        self._note(self._wishes)

    def _note(self, destinations: Iterable[IpNetwork]) -> None:
        """Note that what is chosen for these is in force."""
        for destination in destinations:
            chosen = self._chosen(destination)
            if chosen is None:
                self._in_force.pop(destination, None)
            else:
                self._in_force[destination] = chosen
        self._changed = {}

    async def remove(self) -> None:
        """Take everything away.

        Raises:
            HostError: This machine refused.
        """
        self._wanted.clear()
        self._wishes.clear()
        self._changed.clear()
        self._in_force.clear()
        await self._network.sync_routing(
            rules=(), routes=(), table=self._options.table, protocol=ROUTING_PROTOCOL
        )

    def distrust(self) -> None:
        """Put all in force again at the next turn: links and addresses may have changed."""
        self._is_sure = False
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
        # What is routed into a virtual interface is led there by the operator's routes.
        if policy.action is not Action.PROTECT or policy.interface_id:
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
            if peer not in self._links_towards:
                self._links_towards[peer] = await self._network.next_hop(peer, mark=self._options.mark)
            hop = self._links_towards[peer]
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
