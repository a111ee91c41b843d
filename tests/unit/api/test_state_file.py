"""The kept desired state: everything comes back, secrets included, and nobody else can read or open it."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert_connection import read_connections
from gateway.api.state_file import FILE, StateError, StateFile, keep_secrets
from gateway.controller.applying import Kept, StoreError
from gateway.ipsec.secret import Secret


def connection(name: str = "paris", psk: str = "correct horse") -> cpb.Connection:
    return cpb.Connection(
        name=name,
        local=cpb.Side(auth=cpb.Authentication(psk=cpb.PreSharedKey(value=psk))),
        remote=cpb.Side(address="192.0.2.2"),
        children=[cpb.Child(name="lan", local_ts=["10.1.0.0/16"], remote_ts=["10.2.0.0/16"])],
    )


def kept(message: cpb.Connection, generation: int = 1, etag: str = "e1") -> Kept:
    document = Secret(message.SerializeToString())
    return Kept(name=message.name, generation=generation, etag=etag, document=document)


def keeping(message: cpb.Connection) -> cpb.Connection:
    """Return the same connection as an answer has it: keys are there, and not told."""
    message.local.auth.psk.Clear()
    message.local.auth.psk.is_set = True
    return message


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_what_was_kept_comes_back_in_the_order_in_which_it_came(directory: Path) -> None:
    state = StateFile(directory)
    await state.save([kept(connection("rome")), kept(connection("paris"), etag="e2")], [], 7)
    await state.save([kept(connection("rome", psk="new"), generation=2, etag="e3")], [], 8)
    state.close()

    loaded = StateFile(directory).load()

    (expected,) = read_connections([connection("rome", psk="new")])
    assert [item.connection.name for item in loaded.connections] == ["rome", "paris"]
    assert loaded.connections[0].connection == expected.connection
    assert loaded.connections[0].psk == Secret(b"new")
    assert [(item.name, item.generation, item.etag) for item in loaded.kept] == [
        ("rome", 2, "e3"),
        ("paris", 1, "e2"),
    ]
    assert loaded.generation == 8


async def test_removed_is_removed_and_its_key_is_not_left_in_the_file(directory: Path) -> None:
    state = StateFile(directory)
    await state.save([kept(connection(psk="unmistakable"))], [], 1)
    await state.save([], ["paris", "never there"], 1)
    assert state.load().connections == ()
    state.close()

    assert b"unmistakable" not in _contents(directory)


async def test_a_connection_that_says_to_keep_its_key_keeps_it(directory: Path) -> None:
    state = StateFile(directory)
    await state.save([kept(connection())], [], 1)
    changed = keeping(connection())
    changed.children[0].priority = 5

    await state.save([kept(changed, generation=2)], [], 1)

    (loaded,) = state.load().connections
    assert loaded.connection.children[0].priority == 5
    assert loaded.psk == Secret(b"correct horse")


async def test_it_is_for_its_owner_only_and_for_one_controller(directory: Path) -> None:
    before = os.umask(0)
    try:
        state = StateFile(directory)
        await state.save([kept(connection())], [], 1)
    finally:
        os.umask(before)

    assert _modes(directory) == {0o700, 0o600}
    with pytest.raises(StateError, match="another controller has it open"):
        StateFile(directory)


async def test_an_error_keeps_what_was_there_before(directory: Path) -> None:
    state = StateFile(directory)
    await state.save([kept(connection())], [], 3)
    no_document = Kept(name="oslo", generation=1, etag="e", document=None)

    with pytest.raises(StoreError, match="somebody else at the same moment"):
        await state.save([kept(connection(psk="new")), no_document], ["paris"], 9)
    state._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="is the disk full"):
        await state.save([kept(connection(f"c{number}" * 20)) for number in range(200)], [], 9)

    loaded = state.load()
    assert [item.psk for item in loaded.connections] == [Secret(b"correct horse")]
    assert loaded.generation == 3


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 100), "restore it from a backup"),
        (lambda path: _run(path, "PRAGMA user_version = 99"), "of another version"),
        (lambda path: _run(path, "PRAGMA application_id = 1"), "of another version"),
        (
            lambda path: _run(path, "UPDATE connection SET message = x'0A0120'"),
            "has what this version does not take: paris.name: ' ' is not a name",
        ),
    ],
    ids=["garbage", "version", "application", "contents"],
)
async def test_what_cannot_be_used_is_refused_with_what_to_do(
    directory: Path, break_it: object, says: str
) -> None:
    state = StateFile(directory)
    await state.save([kept(connection())], [], 1)
    state.close()
    assert callable(break_it)
    break_it(directory / FILE)

    with pytest.raises(StateError, match=says):
        StateFile(directory).load()


def _contents(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


def _modes(directory: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}


def _run(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StateError, match="may this user write there"):
        StateFile(tmp_path / "file" / "state")


def test_keys_and_crls_are_kept_where_the_message_says_so() -> None:
    before = cpb.Connection()
    before.local.auth.certificate.certs.add(value="C")
    before.local.auth.certificate.key.value = "K"
    before.local.auth.certificate.key.passphrase.value = "P"
    before.remote.auth.certificate.crls.add(value="L")
    again = cpb.Connection()
    again.local.auth.certificate.certs.add(value="D")
    again.local.auth.certificate.key.is_set = True
    again.remote.auth.certificate.crls.add(is_set=True)

    keep_secrets(again, before)

    assert again.local.auth.certificate.certs[0].value == "D"
    assert [(key.value, key.passphrase.value) for key in again.local.auth.certificate.keys] == [("K", "P")]
    assert [crl.value for crl in again.remote.auth.certificate.crls] == ["L"]


def test_a_raw_key_is_kept_and_a_new_one_is_taken() -> None:
    before = cpb.Connection()
    before.local.auth.public_key.key.value = "K"
    kept_key, new_key = cpb.Connection(), cpb.Connection()
    kept_key.local.auth.public_key.key.is_set = True
    new_key.local.auth.public_key.key.value = "N"

    keep_secrets(kept_key, before)
    keep_secrets(new_key, before)

    assert kept_key.local.auth.public_key.key.value == "K"
    assert new_key.local.auth.public_key.key.value == "N"
