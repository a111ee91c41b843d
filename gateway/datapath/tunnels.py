"""The virtual interfaces of route-based tunnels: there from the first SPD entry that names one to the last.

An interface that we make has our alias, by which the next life of the agent knows it. One that is there
already and is not ours is used as it is, if it is of the right kind, and is left there: its addresses and
routes are its maker's, so an entry that brings some is refused.

While no SA carries it, what is routed into such an interface is dropped. That is so without us too: the
interface outlives the agent, and the routes with it.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.host.errors import HostError
from gateway.host.links import VRF, XFRM, Link, Links
from gateway.host.network import Network, Route
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.policy import Policy
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

ROUTING_PROTOCOL: Final = 47
"""rtm_protocol of our routes into interfaces: a number that nobody has in /etc/iproute2/rt_protos."""
_MAIN_TABLE: Final = 254
_METRIC: Final = 100
_MIN_MTU_BYTES: Final = 1280
"""IPv6 would end on a device with less (RFC 8200 §5)."""


async def _do_nothing(_name: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKind:
    """How a backend has its interfaces."""

    kind: str
    """As `ip -d link` says."""
    make: Callable[[TunnelInterface], Awaitable[None]]
    """Makes one, or takes over the one of that name and kind; raises `HostError`."""
    leave: Callable[[str], Awaitable[None]] = _do_nothing
    """Is told that one is about to be removed."""
    let_go: Callable[[str], Awaitable[None]] = _do_nothing
    """Is told that one of somebody else's is not needed any more."""


class Tunnels:
    """The interfaces of one backend. Calls must not overlap, save those of `fit_mtu`.

    Args:
        network: Borrowed.
        kind: How they are made.
        tag: Of the agent.
    """

    def __init__(self, network: Network, kind: TunnelKind, tag: str) -> None:
        self._network = network
        self._links = Links(network)
        self._kind = kind
        self._alias = f"ipsecgw {tag}"
        self._users: dict[str, dict[str, TunnelInterface]] = {}
        """By the name of an interface: the SPD entries that name it."""
        self._claims: dict[str, TunnelInterface] = {}
        """By SPD entry."""
        self._name_of: dict[int, str] = {}
        self._carried: dict[int, int] = {}
        """By id: the MTU that fits its SAs, in bytes."""
        self._former: set[str] = set()
        """What a former life made, and may be wanted again."""
        self._unused: set[str] = set()
        """What may be ours and is to be removed."""

    async def start(self) -> None:
        """Find what a former life made.

        Raises:
            HostError: This machine refused.
        """
        self._former = {link.name for link in await self._links.all() if self._is_ours(link)}

    def _is_ours(self, link: Link) -> bool:
        return link.alias == self._alias and link.kind == self._kind.kind

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the interfaces that SPD entries want."""
        return tuple(self._users)

    # --- what SPD entries want --------------------------------------------------------------------

    async def claim(self, policies: Sequence[Policy]) -> dict[str, DatapathError]:
        """See that the interfaces of SPD entries are there, before the entries are in force.

        Returns:
            What is wrong, by name of the entry. POLICY_CONFLICT: it contradicts another entry, or an
            interface of somebody else's. SYSTEM: this machine refused.
        """
        refused: dict[str, DatapathError] = {}
        to_come = {policy.name for policy in policies}
        for policy in policies:
            to_come.discard(policy.name)
            try:
                await self._claim(policy, to_come)
            except DatapathError as error:
                refused[policy.name] = error
        return refused

    async def _claim(self, policy: Policy, to_come: Collection[str]) -> None:
        """See that the interface of one entry is there; what those to come have wanted counts no more."""
        interface = policy.interface
        if interface is not None:
            self._check(interface, {policy.name, *to_come})
            try:
                await self._make(interface, self._settings(policy.name, interface.name))
            except HostError as error:
                raise DatapathError(ErrorReason.SYSTEM, f"interface {interface.name}: {error}") from error
        self.note(policy.name, interface)

    def note(self, entry: str, interface: TunnelInterface | None) -> None:
        """Note what an SPD entry wants now; nothing is made or removed."""
        old = self._claims.pop(entry, None)
        if old is not None:
            del self._users[old.name][entry]
            if not self._users[old.name]:
                del self._users[old.name]
                del self._name_of[old.id]
                self._unused.add(old.name)
        if interface is not None:
            self._claims[entry] = interface
            self._users.setdefault(interface.name, {})[entry] = interface
            self._name_of[interface.id] = interface.name
            self._former.discard(interface.name)
            self._unused.discard(interface.name)

    def _check(self, interface: TunnelInterface, changing: Collection[str]) -> None:
        """Check that an interface does not contradict what other entries want.

        Raises:
            DatapathError: POLICY_CONFLICT: it does.
        """
        for name, other in self._users.get(interface.name, {}).items():
            if other != interface and name not in changing:
                raise DatapathError(
                    ErrorReason.POLICY_CONFLICT,
                    f"interface {interface.name} is wanted otherwise by {name}: say the same of it in both",
                )
        taken = self._name_of.get(interface.id, interface.name)
        if taken != interface.name and self._users[taken].keys() - set(changing):
            raise DatapathError(
                ErrorReason.POLICY_CONFLICT,
                f"interface {interface.name} has the id {interface.id} of {taken}: give it another one",
            )

    def _settings(self, entry: str, name: str) -> TunnelInterface | None:
        """Return what was wanted of an interface until now, by this SPD entry or by another one."""
        users = self._users.get(name, {})
        return users.get(entry) or next(iter(users.values()), None)

    async def tidy(self) -> None:
        """Remove interfaces of ours that no SPD entry names any more."""
        for name in sorted(self._unused):
            self._unused.discard(name)
            try:
                link = await self._links.get(name)
                if link is not None and self._is_ours(link):
                    await self._kind.leave(name)
                    await self._links.remove(link.index)
                else:
                    await self._kind.let_go(name)
            except HostError as error:
                _log.warning("tunnel_interface_not_removed", interface=name, reason=str(error))

    def forget_former(self) -> None:
        """Have `tidy` remove what a former life made and no SPD entry names."""
        self._unused |= self._former
        self._former.clear()

    async def remove_all(self) -> None:
        """Remove every interface of ours.

        Raises:
            HostError: This machine refused.
        """
        for link in await self._links.all():
            if self._is_ours(link):
                await self._kind.leave(link.name)
                await self._links.remove(link.index)

    # --- one interface ----------------------------------------------------------------------------

    async def _make(self, interface: TunnelInterface, before: TunnelInterface | None) -> None:
        """See that an interface is there and as it should be.

        Args:
            interface: What is wanted.
            before: What was wanted of it until now, as far as this life knows.
        """
        link = await self._links.get(interface.name)
        vrf = await self._vrf_of(interface)
        if link is not None and link.alias != self._alias:
            self._check_foreign(interface, link)
            await self._kind.make(interface)
            return
        if link is not None and self._is_usable(interface, link):
            await self._kind.make(interface)
        else:
            await self._kind.leave(interface.name)
            if link is not None:
                await self._links.remove(link.index)
            await self._kind.make(interface)
            link = await self._made(interface)
            await self._links.set_alias(link.index, self._alias)
        await self._furnish(interface, before, link, vrf)

    def _is_usable(self, interface: TunnelInterface, link: Link) -> bool:
        return link.kind == self._kind.kind and (link.kind != XFRM or link.id == interface.id)

    async def _made(self, interface: TunnelInterface) -> Link:
        link = await self._links.get(interface.name)
        if link is None:
            raise HostError(f"the link {interface.name} vanished as soon as it was made")
        return link

    async def _furnish(
        self, interface: TunnelInterface, before: TunnelInterface | None, link: Link, vrf: Link | None
    ) -> None:
        """Give an interface what it should have, and take away what we gave it and it should not."""
        master = 0 if vrf is None else vrf.index
        if not link.is_up or link.vrf != master:
            await self._links.bring_up(link.index, vrf=master)
        mtu_bytes = interface.mtu_bytes or self._carried.get(interface.id, link.mtu_bytes)
        if mtu_bytes != link.mtu_bytes:
            await self._network.set_mtu(link.index, mtu_bytes)
        for address in () if before is None else before.addresses:
            if address not in interface.addresses:
                await self._links.remove_address(link.index, address)
        for address in interface.addresses:
            await self._links.add_address(link.index, address)
        wanted = _routes(interface, link, vrf)
        present = await self._network.routes(_table(vrf), protocol=ROUTING_PROTOCOL)
        destinations = {route.destination for route in wanted}
        stale = [
            route for route in present if route.link == link.index and route.destination not in destinations
        ]
        if wanted or stale:
            await self._network.change_routes(add=wanted, remove=stale, protocol=ROUTING_PROTOCOL)

    async def _vrf_of(self, interface: TunnelInterface) -> Link | None:
        if not interface.vrf:
            return None
        vrf = await self._links.get(interface.vrf)
        if vrf is None or vrf.kind != VRF:
            how = f"`ip link add {interface.vrf} type vrf table N`"
            raise HostError(f"there is no VRF {interface.vrf}: make it with {how}")
        return vrf

    def _check_foreign(self, interface: TunnelInterface, link: Link) -> None:
        """Check that an interface that somebody else made can be used.

        Raises:
            DatapathError: POLICY_CONFLICT: it cannot.
        """
        why = ""
        if link.kind != self._kind.kind:
            why = f"it is of kind {link.kind or 'none'}, not {self._kind.kind}"
        elif link.kind == XFRM and link.id != interface.id:
            why = f"it has if_id {link.id}, and the configuration says {interface.id}"
        elif interface.addresses or interface.routes or interface.vrf or interface.mtu_bytes:
            why = "its addresses, routes, VRF and MTU are its maker's: leave them out, or remove it"
        if why:
            text = f"there is an interface {link.name} that is not ours: {why}"
            raise DatapathError(ErrorReason.POLICY_CONFLICT, text)

    # --- upkeep -----------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Make again what was removed or taken down; what fails is told, and tried at the next change."""
        for users in tuple(self._users.values()):
            interface = next(iter(users.values()))
            try:
                link = await self._links.get(interface.name)
                if link is None or (link.alias == self._alias and not link.is_up):
                    await self._make(interface, interface)
            except (HostError, DatapathError) as error:
                _log.warning("tunnel_interface_not_kept", interface=interface.name, reason=str(error))

    async def fit_mtu(self, carried: Mapping[int, int]) -> None:
        """Give interfaces whose MTU is ours to choose the one that fits their SAs, and not below IPv6's.

        Args:
            carried: By interface id: the largest packet that all its SAs carry in one piece, in bytes.
        """
        for number, mtu_bytes in carried.items():
            wanted = self._carried[number] = max(mtu_bytes, _MIN_MTU_BYTES)
            name = self._name_of.get(number)
            interface = None if name is None else next(iter(self._users[name].values()))
            if interface is None or interface.mtu_bytes:
                continue
            try:
                link = await self._links.get(interface.name)
                if link is not None and link.alias == self._alias and link.mtu_bytes != wanted:
                    await self._network.set_mtu(link.index, wanted)
            except HostError as error:
                _log.warning("tunnel_mtu_failed", interface=name, mtu=wanted, reason=str(error))


def _routes(interface: TunnelInterface, link: Link, vrf: Link | None) -> list[Route]:
    return [
        Route(destination=route, table=_table(vrf), metric=_METRIC, link=link.index)
        for route in interface.routes
    ]


def _table(vrf: Link | None) -> int:
    return _MAIN_TABLE if vrf is None else vrf.table
