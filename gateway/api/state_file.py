"""The desired state in a SQLite database: what is applied with the control API outlives the controller.

One directory, one controller: the database is locked while it is open. A change is one transaction, on disk
before it is answered, so that whatever ends the process leaves the state before it or the state after it. The
messages are kept as they were applied, with the secrets in them: the directory is for its owner only, and
deleted secrets are overwritten.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert_connection import read_connection
from gateway.api.violations import InvalidArgument, Violations
from gateway.controller.applying import Kept, StoreError
from gateway.controller.facade import WantedConnection
from gateway.ipsec.errors import GatewayError

FILE: Final = "desired.sqlite"
VERSION: Final = 1
"""Of the tables, in `user_version`."""
_APPLICATION: Final = 0x69707377
"""In `application_id`: "ipsw"."""

_TABLES: Final = """
CREATE TABLE connection (
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    etag TEXT NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0);
"""


class StateError(GatewayError):
    """The state cannot be read; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedState:
    """What a controller begins with."""

    connections: tuple[WantedConnection, ...]
    kept: tuple[Kept, ...]
    """Of the same connections, in the same order."""
    generation: int
    """The highest one that was applied."""


class StateFile:
    """An open database (`DesiredStore`)."""

    def __init__(self, directory: Path, *, owner: tuple[int, int] | None = None) -> None:
        """Open or make the database of a directory.

        Args:
            directory: Made where it is missing.
            owner: User and group that everything is to belong to; `None` leaves it.

        Raises:
            StateError: It cannot be opened, is another's, or another controller has it open.
        """
        self.path = directory / FILE
        before = os.umask(0o077)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Root may give away what it may not open: what it gave away the last time it takes back.
            if owner is not None:
                self._take_back()
            try:
                self._database = sqlite3.connect(
                    self.path, isolation_level=None, check_same_thread=False, timeout=1
                )
                self._prepare()
            finally:
                # The write-ahead log is opened, and has its owner, while whoever opens it may do that.
                if owner is not None:
                    self._give_to(owner)
        except (OSError, sqlite3.Error) as error:
            raise StateError(_explain(self.path, error)) from error
        finally:
            os.umask(before)

    def _take_back(self) -> None:
        ours = (os.geteuid(), os.getegid())
        os.chown(self.path.parent, *ours)
        for path in self._files():
            os.chown(path, *ours)

    def _give_to(self, owner: tuple[int, int]) -> None:
        for path in (*self._files(), self.path.parent):
            os.chown(path, *owner)

    def _files(self) -> list[Path]:
        return list(self.path.parent.glob(f"{FILE}*"))

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA secure_delete = ON")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        with self._transaction():
            (version,) = run("PRAGMA user_version").fetchone()
            if version == 0 and not run("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in _TABLES.split(";\n"):
                    run(statement)
                run(f"PRAGMA user_version = {VERSION}")
                run(f"PRAGMA application_id = {_APPLICATION}")
            elif version != VERSION or run("PRAGMA application_id").fetchone() != (_APPLICATION,):
                raise StateError(
                    f"{self.path} is of another version ({version}, wanted is {VERSION}): use the "
                    "ipsecgw that wrote it, or another directory"
                )
            # Something is written at each start, so that a disk that takes nothing is told of now.
            run("UPDATE state SET generation = generation")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # --- reading --------------------------------------------------------------------------------

    def load(self) -> LoadedState:
        """Return everything that is kept.

        Raises:
            StateError: It cannot be read, or something in it is no connection any more.
        """
        try:
            rows = self._database.execute(
                "SELECT name, generation, etag, message FROM connection ORDER BY rowid"
            ).fetchall()
            (generation,) = self._database.execute("SELECT generation FROM state").fetchone()
        except sqlite3.Error as error:
            raise StateError(_explain(self.path, error)) from error
        kept, wanted = [], []
        for name, number, etag, contents in rows:
            violations = Violations()
            item = read_connection(cpb.Connection.FromString(contents), name, violations)
            if item is None:
                raise StateError(
                    f"{self.path} has what this version does not take: {InvalidArgument(violations.found())}"
                )
            wanted.append(item)
            kept.append(Kept(name=name, generation=number, etag=etag, document=None))
        return LoadedState(connections=tuple(wanted), kept=tuple(kept), generation=generation)

    # --- writing (DesiredStore) -----------------------------------------------------------------

    async def save(self, changed: Sequence[Kept], removed: Sequence[str], generation: int) -> None:
        """Keep all of it or, after an error, nothing of it; on disk when this returns.

        Raises:
            StoreError: It cannot be kept.
        """
        await asyncio.to_thread(self._save, changed, removed, generation)

    def _save(self, changed: Sequence[Kept], removed: Sequence[str], generation: int) -> None:
        run = self._database
        try:
            with self._transaction():
                run.executemany(
                    "INSERT INTO connection VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                    "generation = excluded.generation, etag = excluded.etag, message = excluded.message",
                    [(item.name, item.generation, item.etag, self._contents(item)) for item in changed],
                )
                run.executemany("DELETE FROM connection WHERE name = ?", [(name,) for name in removed])
                run.execute("UPDATE state SET generation = ?", (generation,))
        except sqlite3.Error as error:
            raise StoreError(_explain(self.path, error)) from error

    def _contents(self, item: Kept) -> bytes:
        if item.document is None:
            raise StoreError(
                f"connection {item.name} was changed by somebody else at the same moment; apply it again"
            )
        message = cpb.Connection.FromString(item.document.reveal())
        before = self._database.execute(
            "SELECT message FROM connection WHERE name = ?", (item.name,)
        ).fetchone()
        if before is not None:
            keep_secrets(message, cpb.Connection.FromString(before[0]))
        return message.SerializeToString()


def keep_secrets(message: cpb.Connection, before: cpb.Connection) -> None:
    """Put what a connection says to keep into it, from what it was before."""
    held = next((psk for psk in _psks(before) if psk.value), None)
    for psk in _psks(message):
        if held is not None and not psk.value:
            psk.CopyFrom(held)
    _keep_keys(message.local.auth, before.local.auth)
    given, had = message.remote.auth.certificate, before.remote.auth.certificate
    if any(crl.is_set for crl in given.crls):
        del given.crls[:]
        given.crls.extend(had.crls)


def _psks(message: cpb.Connection) -> list[cpb.PreSharedKey]:
    sides = (message.local, message.remote)
    return [side.auth.psk for side in sides if side.auth.WhichOneof("method") == "psk"]


def _keep_keys(auth: cpb.Authentication, before: cpb.Authentication) -> None:
    match auth.WhichOneof("method"):
        case "certificate":
            given, had = auth.certificate, before.certificate
            if (given.HasField("key") and not given.key.value) or any(not key.value for key in given.keys):
                keys = [*([had.key] if had.HasField("key") else []), *had.keys]
                given.ClearField("key")
                del given.keys[:]
                given.keys.extend(keys)
        case "public_key" if auth.public_key.HasField("key") and not auth.public_key.key.value:
            auth.public_key.key.CopyFrom(before.public_key.key)


def _explain(path: Path, error: Exception) -> str:
    advice = "is the disk full, and may this user write there?"
    if "locked" in str(error):
        advice = "another controller has it open; stop that one, or give this one another directory"
    elif "not a database" in str(error) or "malformed" in str(error):
        advice = "restore it from a backup, or move it away and apply the connections again"
    return f"cannot use {path}: {error}; {advice}"
