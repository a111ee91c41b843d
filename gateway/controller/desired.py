"""What is wanted: every configured connection, how often it changed, and who may change it next.

An `etag` names one state of one connection and never comes again, not even in another life of the
controller unless the state was kept. Whoever gives the etag it has read changes what it has read, or nothing.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.controller.facade import ControlError, ControlErrorReason
from gateway.controller.policies import ProtectKey, protect_keys
from gateway.ipsec.connection import Connection

ANY_ETAG: Final = "*"
"""Stands for the etag of any connection that is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One connection as it is wanted."""

    connection: Connection
    generation: int
    """How often it was changed, its creation counted."""
    etag: str


class DesiredState:
    """Every wanted connection, by name.

    Attributes:
        generation: The highest one of an orchestrator that was applied.
    """

    def __init__(self, make_etag: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._make_etag = make_etag
        self._by_name: dict[str, Desired] = {}
        self._sorted: tuple[str, ...] | None = ()
        self._protected: dict[ProtectKey, str] = {}
        self.generation = 0

    # --- getters --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> Desired | None:
        """Return a connection; `None` where there is none of that name."""
        return self._by_name.get(name)

    def connection(self, name: str) -> Connection | None:
        """Return what a connection is configured as."""
        held = self._by_name.get(name)
        return None if held is None else held.connection

    def connections(self) -> Iterator[Connection]:
        """Yield every connection, in the order in which they came."""
        return (held.connection for held in self._by_name.values())

    def names(self) -> tuple[str, ...]:
        """Return every name, sorted."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self._by_name))
        return self._sorted

    # --- checks ---------------------------------------------------------------------------------

    def check_generation(self, generation: int) -> None:
        """Refuse an orchestrator that a newer one has overtaken; 0 is for those who do not count.

        Raises:
            ControlError: STALE_GENERATION.
        """
        if 0 < generation < self.generation:
            raise ControlError(
                ControlErrorReason.STALE_GENERATION,
                f"generation {generation} is older than {self.generation}, which was applied already: "
                "somebody newer is at work here",
            )

    def check_etags(self, etags: Mapping[str, str]) -> None:
        """Refuse what was decided about another state than this one.

        Raises:
            ControlError: ETAG_MISMATCH.
        """
        for name, wanted in etags.items():
            held = self._by_name.get(name)
            found = "" if held is None else held.etag
            if wanted != found and not (wanted == ANY_ETAG and found):
                was = "is not there" if held is None else "was changed by somebody else"
                raise ControlError(
                    ControlErrorReason.ETAG_MISMATCH,
                    f"connection {name} {was}: nothing was applied; read it again, then decide again",
                )

    def conflicts(self, wanted: Sequence[Connection], gone: Iterable[str]) -> dict[str, str]:
        """Return, by connection, which of `wanted` would compete with another one for the same packets.

        Two PROTECT children with equal selectors, priority and interface: which SA carries a packet would be
        chance.
        """
        replaced = {connection.name for connection in wanted} | set(gone)
        found: dict[str, str] = {}
        while True:
            # What is refused stays as it was, and so does what it protects.
            leaving = replaced - found.keys()
            claimed: dict[ProtectKey, str] = {}
            before = len(found)
            for connection in wanted:
                for key, name in protect_keys(connection) if connection.name not in found else ():
                    held = self._protected.get(key)
                    stays = held is not None and held.partition("/")[0] not in leaving
                    other = held if stays else claimed.setdefault(key, name)
                    if other is not None and other != name:
                        found[connection.name] = (
                            f"{name} protects the same selectors as {other}: "
                            "change one, or give them different priorities or interfaces"
                        )
            if len(found) == before:
                return found

    # --- changes --------------------------------------------------------------------------------

    def successor(self, connection: Connection) -> Desired:
        """Return what `put` would make of a connection that is new or changed."""
        held = self._by_name.get(connection.name)
        return Desired(
            connection=connection,
            generation=1 if held is None else held.generation + 1,
            etag=self._make_etag(),
        )

    def put(self, wanted: Desired) -> None:
        """Take a connection, in place of the one of its name."""
        name = wanted.connection.name
        self._release(name)
        if name not in self._by_name:
            self._sorted = None
        self._by_name[name] = wanted
        for key, policy in protect_keys(wanted.connection):
            self._protected[key] = policy

    def remove(self, name: str) -> None:
        """Forget a connection."""
        self._release(name)
        del self._by_name[name]
        self._sorted = None

    def _release(self, name: str) -> None:
        held = self._by_name.get(name)
        for key, policy in protect_keys(held.connection) if held is not None else ():
            if self._protected.get(key) == policy:
                del self._protected[key]
