"""Connections that were applied before, known again by their bytes, so that what is so already costs nothing.

An orchestrator sends its whole desired state again and again. Reading it takes longer than everything else,
and nearly all of it was read before. What is kept of a message is a digest under a key of this process, so
that nobody can try passwords against it, and the connection without its secrets.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert_connection import read_connection, read_connections
from gateway.api.violations import Violations
from gateway.controller.facade import Applied, ApplyResult, WantedConnection
from gateway.ipsec.secret import Secret

_DIGEST_BYTES: Final = 16
_DONE: Final = (Applied.CREATED, Applied.UPDATED, Applied.UNCHANGED)


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    etag: str
    wanted: WantedConnection
    """It says to keep the secrets."""


class KnownRequests:
    """What each connection was applied as, the last time.

    Args:
        etag_of: Returns the etag that a connection has now: with another one, nothing is known of it.
        keep_documents: Whether connections are to carry what they were asked for with.
    """

    def __init__(self, etag_of: Callable[[str], str], *, keep_documents: bool) -> None:
        self._etag_of = etag_of
        self._keep_documents = keep_documents
        self._key = os.urandom(_DIGEST_BYTES)
        self._known: dict[str, _Known] = {}

    def read(self, messages: Iterable[cpb.Connection]) -> tuple[WantedConnection, ...]:
        """Return every connection of a request.

        Raises:
            InvalidArgument: Something in some connection is wrong; all of it is named.
        """
        return read_connections(messages, self._read)

    def _read(self, message: cpb.Connection, path: str, violations: Violations) -> WantedConnection | None:
        known = self._known.get(message.name)
        is_current = known is not None and known.etag == self._etag_of(message.name)
        if known is not None and is_current and known.digest == self._digest(message):
            return known.wanted
        wanted = read_connection(message, path, violations)
        if wanted is None or not self._keep_documents:
            return wanted
        return replace(wanted, document=Secret(message.SerializeToString()))

    def note(
        self,
        messages: Iterable[cpb.Connection],
        wanted: Iterable[WantedConnection],
        results: Sequence[ApplyResult],
    ) -> None:
        """Remember what was applied; all three are in the order of the request."""
        for message, item, result in zip(messages, wanted, results, strict=False):
            known = self._known.get(message.name)
            if result.applied in _DONE and (known is None or known.wanted is not item):
                self._known[message.name] = _Known(self._digest(message), result.etag, _kept(item))
        self.forget(results)

    def forget(self, results: Iterable[ApplyResult]) -> None:
        """Forget what was deleted."""
        for result in results:
            if result.applied is Applied.DELETED:
                self._known.pop(result.name, None)

    def _digest(self, message: cpb.Connection) -> bytes:
        contents = message.SerializeToString(deterministic=True)
        return hashlib.blake2b(contents, key=self._key, digest_size=_DIGEST_BYTES).digest()


def _kept(item: WantedConnection) -> WantedConnection:
    return replace(
        item,
        psk=None,
        private_keys=None if item.private_keys else item.private_keys,
        crls=None if item.crls else item.crls,
        document=None,
    )
