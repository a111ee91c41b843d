"""Where the peer of a connection is, address by address, and from which of ours to send to it.

A *round* goes through all addresses of a connection: those that are configured, then those that its host
names have at the beginning of the round, both families. One attempt uses one address; when it fails the
next one is tried at once, and only the end of a round is a failure to wait after. An IKE SA that comes up
ends the round, so that the next one begins with the operator's first choice again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.ipsec.connection import Connection
from gateway.ipsec.sa import IpAddress
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

Resolve = Callable[[str], Awaitable[Sequence[IpAddress]]]
"""Returns the addresses of a host name, the best first; raises OSError if there are none."""

#: A resolver that takes longer than this is as good as none, in seconds.
RESOLVE_S = 10.0
MAX_ADDRESSES_PER_NAME = 16


class NowhereToGo(Exception):
    """No address of the peer is known, or none that can be reached from here; the text says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where an attempt goes."""

    local: IpAddress
    remote: IpAddress


@dataclass(slots=True)
class _Round:
    ways: tuple[Way, ...]
    next: int = 0


async def resolve_by_system(name: str) -> Sequence[IpAddress]:
    """Ask the system's resolver; it orders by RFC 6724 what it returns."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ip_address(text) for text in texts]


class Whereabouts:
    """The rounds of all connections.

    Args:
        source_address: Which address the kernel would use towards a peer; None without a route.
        resolve: Finds the addresses of a host name.
    """

    def __init__(
        self,
        source_address: Callable[[IpAddress], IpAddress | None],
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._source_address = source_address
        self._resolve = resolve
        self._rounds: dict[str, _Round] = {}
        self._resolved: dict[str, tuple[IpAddress, ...]] = {}

    def forget(self, connection: str) -> None:
        """End the round of a connection: an IKE SA is up, or the configuration has changed."""
        self._rounds.pop(connection, None)

    def resolved(self, name: str) -> tuple[IpAddress, ...]:
        """Return what a host name was last time it was asked for."""
        return self._resolved.get(name, ())

    def has_more(self, connection: str) -> bool:
        """Say whether the round has an address that was not tried yet."""
        a_round = self._rounds.get(connection)
        return a_round is not None and a_round.next < len(a_round.ways)

    def needs_names(self, connection: Connection) -> bool:
        """Say whether `begin_round` has to come before `next_way`."""
        return bool(connection.remote.names) and not self.has_more(connection.name)

    async def begin_round(self, connection: Connection) -> None:
        """Resolve the names of a connection, and begin with its first address.

        Raises:
            NowhereToGo: There is none.
        """
        self._rounds[connection.name] = _Round(await self._ways(connection))

    def next_way(self, connection: Connection) -> Way:
        """Return where to try next.

        Raises:
            NowhereToGo: There is no such place.
        """
        if not self.has_more(connection.name):
            self._rounds[connection.name] = _Round(self._reachable(connection, connection.remote.addresses))
        a_round = self._rounds[connection.name]
        way = a_round.ways[a_round.next]
        a_round.next += 1
        return way

    async def find_again(self, connection: Connection, present: IpAddress) -> Way | None:
        """Return where a peer with host names is now; None for one without.

        The present address stays where it is still one of them.

        Raises:
            NowhereToGo: The names lead nowhere.
        """
        if not connection.remote.names:
            return None
        ways = await self._ways(connection)
        return next((way for way in ways if way.remote == present), ways[0])

    def source_for(self, connection: Connection, remote: IpAddress) -> IpAddress | None:
        """Return which of our addresses a connection uses towards `remote`.

        Of the configured ones the kernel's own choice, else the first of that family; without any, the
        kernel's choice of this moment.
        """
        chosen = self._source_address(remote)
        configured = [a for a in connection.local.addresses if a.version == remote.version]
        if not connection.local.addresses or chosen in configured:
            return chosen
        return configured[0] if configured else None

    async def _ways(self, connection: Connection) -> tuple[Way, ...]:
        addresses = list(connection.remote.addresses)
        for name in connection.remote.names:
            addresses += await self._addresses_of(connection.name, name)
        if not addresses:
            raise NowhereToGo(f"{', '.join(connection.remote.names)} cannot be resolved to an address")
        return self._reachable(connection, addresses)

    def _reachable(self, connection: Connection, addresses: Sequence[IpAddress]) -> tuple[Way, ...]:
        ways = tuple(
            Way(local, remote)
            for remote in dict.fromkeys(addresses)
            if (local := self.source_for(connection, remote)) is not None
        )
        if not ways:
            there = ", ".join(map(str, addresses))
            raise NowhereToGo(f"there is no route to {there}, or no address of ours of that family")
        return ways

    async def _addresses_of(self, connection: str, name: str) -> Sequence[IpAddress]:
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = tuple(await self._resolve(name))[:MAX_ADDRESSES_PER_NAME]
        except (OSError, UnicodeError, TimeoutError) as error:
            _log.warning("name_not_resolved", connection=connection, name=name, error=str(error) or "timeout")
            return ()
        if found != self._resolved.get(name):
            _log.info("name_resolved", connection=connection, name=name, addresses=[str(a) for a in found])
            self._resolved[name] = found
        return [a for a in found if not (a.is_unspecified or a.is_multicast)]
