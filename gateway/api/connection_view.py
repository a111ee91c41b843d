"""A client's view of all connections, kept right by a watch across restarts of the controller and of itself.

Between two answers the view is what some moment's was; whenever `is_synced`, it is the present one. While a
resync is under way nothing is forgotten: what it does not name goes when it is complete.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc

from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_client import ControlClient
from gateway.api.errors import ApiError

FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 5.0
_GROWTH: Final = 2.0
_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN})
"""What a controller that goes away, or comes back, answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What an answer changed in a view."""

    upserted: tuple[pb.ConnectionEntry, ...] = ()
    removed: tuple[str, ...] = ()
    problem: str = ""
    """Why nothing is known at the moment; empty while the watch is in place."""


class ConnectionView:
    """See module.

    Attributes:
        entries: The connections, by name.
        revision: Where the next watch goes on.
        is_synced: Whether this is the present.
    """

    def __init__(self) -> None:
        self.entries: dict[str, pb.ConnectionEntry] = {}
        self.revision = ""
        self.is_synced = False
        self._unconfirmed: set[str] | None = None

    def take(self, response: pb.WatchConnectionsResponse) -> Difference:
        """Take one message of a watch; return what it changed."""
        if response.resync:
            self._unconfirmed = set(self.entries)
        upserted, removed = [], []
        for change in response.changes:
            if change.HasField("upserted"):
                name = change.upserted.connection.name
                if self._unconfirmed is not None:
                    self._unconfirmed.discard(name)
                if self.entries.get(name) != change.upserted:
                    upserted.append(change.upserted)
                self.entries[name] = change.upserted
            elif self.entries.pop(change.removed, None) is not None:
                removed.append(change.removed)
        if response.synced and self._unconfirmed is not None:
            for name in sorted(self._unconfirmed & self.entries.keys()):
                del self.entries[name]
                removed.append(name)
            self._unconfirmed = None
        self.revision = response.revision or self.revision
        self.is_synced = response.synced
        return Difference(upserted=tuple(upserted), removed=tuple(removed))

    def lose(self, problem: str) -> Difference:
        """The watch broke; what is known stays, and may be old."""
        self.is_synced = False
        return Difference(problem=problem)


async def follow(client: ControlClient, view: ConnectionView, *, text: str = "") -> AsyncIterator[Difference]:
    """Keep a view right for good, and yield what changes in it; also that nothing is known, once each time.

    Args:
        client: Reaches the controller.
        view: Where it goes on from.
        text: A filter.

    Raises:
        ApiError: The controller refuses to be watched.
    """
    wait_s = FIRST_RETRY_S
    is_lost = False
    while True:
        try:
            async for response in client.watch(view.revision, text=text):
                wait_s, is_lost = FIRST_RETRY_S, False
                yield view.take(response)
            problem = "the watch ended"
        except ApiError as error:
            if error.code not in _AGAIN:
                raise
            problem = str(error)
        if not is_lost:
            is_lost = True
            yield view.lose(problem)
        await asyncio.sleep(wait_s)
        wait_s = min(LONGEST_RETRY_S, wait_s * _GROWTH)
