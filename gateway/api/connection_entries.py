"""Connections as messages, and as a stream of what changes: made once for all who ask.

An entry is written when somebody wants it and its connection was touched since; a thousand watchers at the
same place get the same message.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.convert_control import write_applied, write_entry, write_wanted
from gateway.api.filter import Matches, parse_filter
from gateway.api.selection import masked, read_mask
from gateway.api.violations import Violations
from gateway.controller.facade import (
    Applied,
    ApplyResult,
    ConnectionStatus,
    ControlFacade,
    WantedConnection,
)
from gateway.controller.ledger import Changes, Ledger

CHUNK: Final = 256
"""Connections in one message of a watch."""
_CHANGED: Final = (Applied.CREATED, Applied.UPDATED)
_SHARED: Final = 8
"""Looks that are kept for those who look from the same place."""
_TURN: Final = 32
"""Connections after which others get their turn."""
BOOKMARK_S: Final = 15.0
"""After so much silence a watcher is told that nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What one watcher wants to be told."""

    key: tuple[str, tuple[str, ...]]
    """Equal for those who want the same."""
    matches: Matches | None
    mask: FieldMask | None


class ConnectionEntries:
    """The entries of one controller's connections."""

    def __init__(self, controller: ControlFacade) -> None:
        self._controller = controller
        #: By name: the revision and the whole; the etag and what is wanted, which is most of it.
        self._written: dict[str, tuple[int, pb.ConnectionEntry]] = {}
        self._wanted: dict[str, tuple[str, cpb.Connection]] = {}
        #: What was told last: by place, filter and mask.
        self._shared: dict[tuple[object, ...], list[pb.WatchConnectionsResponse]] = {}

    def entry(self, name: str) -> pb.ConnectionEntry | None:
        """Return one entry, which nobody may change; `None` where there is no such connection."""
        revision = self._controller.ledger().revision_of(name)
        known = self._written.get(name)
        if known is not None and known[0] == revision and revision:
            return known[1]
        status = self._controller.connection(name)
        if status is None:
            self._written.pop(name, None)
            return None
        entry = write_entry(status, self._controller.clock(), self._wanted_of(status))
        self._written[name] = (revision, entry)
        return entry

    def _wanted_of(self, status: ConnectionStatus) -> cpb.Connection:
        name = status.connection.name
        known = self._wanted.get(name)
        if known is None or known[0] != status.etag:
            known = self._wanted[name] = (status.etag, write_wanted(status))
        return known[1]

    async def prepare(self, wanted: Iterable[WantedConnection], results: Iterable[ApplyResult]) -> None:
        """Write what was applied, which is most of an entry, before somebody waits for it."""
        for i, (item, result) in enumerate(zip(wanted, results, strict=False)):
            if i % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            if result.applied in _CHANGED:
                self._wanted[result.name] = (result.etag, write_applied(item))

    def forget(self, names: Sequence[str]) -> None:
        """Connections are gone: keep nothing of them."""
        for name in names:
            self._written.pop(name, None)
            self._wanted.pop(name, None)

    def revision(self) -> str:
        """Return the revision of this moment."""
        ledger = self._controller.ledger()
        return _revision(ledger, ledger.last)

    # --- watching -------------------------------------------------------------------------------

    async def watch(
        self, request: pb.WatchConnectionsRequest
    ) -> AsyncGenerator[pb.WatchConnectionsResponse, None]:
        """Yield what there is, where it was not known, and from then on what changes.

        Raises:
            InvalidArgument: The filter or the mask is wrong.
        """
        violations = Violations()
        mask = read_mask(request.read_mask, pb.ConnectionEntry.DESCRIPTOR, violations)
        violations.raise_if_any()
        if mask is not None:
            mask.paths.append("connection.name")
        wish = _Wish(
            key=(request.filter, () if mask is None else tuple(mask.paths)),
            matches=parse_filter(request.filter, pb.ConnectionEntry.DESCRIPTOR),
            mask=mask,
        )
        ledger = self._controller.ledger()
        known = _read_revision(request.revision, ledger)
        if known is not None:
            yield pb.WatchConnectionsResponse(revision=_revision(ledger, known), synced=known == ledger.last)
        while True:
            if known is not None and known >= ledger.settled:
                await _change_or_silence(ledger, known)
            if known is None or not ledger.can_resume(known):
                yield pb.WatchConnectionsResponse(resync=True)
                known = 0
            # Of a snapshot nothing may be missing; what comes later is told to all at the same time.
            changes = ledger.since(known, max(known, ledger.settled) if known else ledger.last)
            for response in self._responses(known, changes, wish):
                yield response
            known = changes.upto

    def _responses(self, known: int, changes: Changes, wish: _Wish) -> Iterator[pb.WatchConnectionsResponse]:
        """Yield the messages that tell some changes; the last one has the revision."""
        if len(changes.names) > CHUNK:
            # A snapshot is made as it is read, so that it is not kept as a whole.
            return self._make(changes, wish)
        key = (known, changes.upto, *wish.key)
        shared = self._shared.get(key)
        if shared is None:
            while len(self._shared) >= _SHARED:
                del self._shared[next(iter(self._shared))]
            shared = self._shared[key] = list(self._make(changes, wish))
        return iter(shared)

    def _make(self, changes: Changes, wish: _Wish) -> Iterator[pb.WatchConnectionsResponse]:
        self.forget(changes.removed)
        revision = _revision(self._controller.ledger(), changes.upto)
        chunks = [changes.names[i : i + CHUNK] for i in range(0, len(changes.names), CHUNK)] or [()]
        for i, names in enumerate(chunks):
            response = pb.WatchConnectionsResponse()
            for name in names:
                entry = self.entry(name)
                if entry is not None and (wish.matches is None or wish.matches(entry)):
                    response.changes.add(upserted=masked(entry, wish.mask))
                else:
                    response.changes.add(removed=name)
            if i == len(chunks) - 1:
                for name in changes.removed:
                    response.changes.add(removed=name)
                response.revision = revision
                response.synced = True
            yield response


async def _change_or_silence(ledger: Ledger, known: int) -> None:
    """Return as soon as something changed, or when nothing did for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BOOKMARK_S):
            await ledger.wait_beyond(known)


def _revision(ledger: Ledger, number: int) -> str:
    return f"{ledger.life}-{number}"


def _read_revision(text: str, ledger: Ledger) -> int | None:
    """Return how far a client knows this life of the controller; `None`: it does not."""
    life, _, number = text.partition("-")
    if life != ledger.life or not number.isdecimal() or not ledger.can_resume(int(number)):
        return None
    return int(number)
