"""Every route of the tables that all packets are looked up in, kept by what the kernel tells. Pure.

To a prefix there may be several routes, of several tables and metrics; the best counts, and when it goes the
next. What notifications do not say for sure is told as doubt: whoever keeps the table reads all of it anew.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.host.route_messages import (
    NLM_F_REPLACE,
    RTM_NEWROUTE,
    Prefix,
    RawRoute,
    RouteKey,
    RouteMessage,
)

_RANKS: Final = {255: 0, 254: 1, 253: 2}
"""Tables in the order in which every machine looks: local, main, default."""

Routes = dict[RouteKey, RawRoute]


class RouteTable:
    """The routes of one machine."""

    def __init__(self) -> None:
        self._routes: dict[Prefix, Routes] = {}
        self._shared: set[tuple[Prefix, RouteKey]] = set()
        """What several routes have: the first counts, and which one goes is not told."""

    def __iter__(self) -> Iterator[Prefix]:
        """Yield every prefix that a route leads to."""
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def load(self, messages: Iterable[RouteMessage]) -> None:
        """Have these routes, and no others."""
        self._routes.clear()
        self._shared.clear()
        for message in messages:
            self.add(message)

    def add(self, message: RouteMessage) -> None:
        """Add one of the routes that a dump tells."""
        if message.key.table not in _RANKS:
            return
        routes = self._routes.setdefault(message.prefix, {})
        if message.key in routes:
            self._shared.add((message.prefix, message.key))
        else:
            routes[message.key] = message.route

    def change(self, message: RouteMessage) -> bool:
        """Follow a notification; return whether the table is still sure.

        It is not where several routes to a prefix have one key, or where one goes that was another here.
        """
        prefix, key = message.prefix, message.key
        if key.table not in _RANKS:
            return True
        there = self._routes.get(prefix, {}).get(key)
        if message.kind == RTM_NEWROUTE:
            self._routes.setdefault(prefix, {})[key] = message.route
            is_clear = there is None or there == message.route or bool(message.flags & NLM_F_REPLACE)
            return is_clear and (prefix, key) not in self._shared
        if there is None:
            return True  # read before it went, or not at all
        routes = self._routes[prefix]
        del routes[key]
        if not routes:
            del self._routes[prefix]
        return _is_same(there, message.route) and (prefix, key) not in self._shared

    def best(self, prefix: Prefix) -> RawRoute | None:
        """Return the route to a prefix that counts, if there is one; not a plain one where TOS decides."""
        routes = self._routes.get(prefix)
        if not routes:
            return None
        usable = [(key, route) for key, route in routes.items() if route.is_usable]
        if not usable:
            return None
        first = min(usable, key=_rank)[1]
        is_one = all(not (key.tos or key.source_bits) for key, _ in usable)
        is_one = is_one and not any((prefix, key) in self._shared for key, _ in usable)
        return first if is_one else first._replace(is_plain=False)


def _rank(item: tuple[RouteKey, RawRoute]) -> tuple[int, int, int]:
    key = item[0]
    return _RANKS[key.table], key.metric, -key.tos


def _is_same(there: RawRoute, gone: RawRoute) -> bool:
    """Tell whether a route that went is the one that was here; flags may have changed on its way out."""
    return (there.type, there.link, there.gateway) == (gone.type, gone.link, gone.gateway)
