"""What a configuration refers to, read on the client's side: key files, certificates, CRLs, variables.

Every reference in a `Connection` message becomes its `value`, so that the controller opens no file that
somebody else names. What cannot be read is told at the place of the reference.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.violations import at
from gateway.config.secrets import (
    SecretError,
    SecretReference,
    SecretSource,
    decode_text,
    read_public_file,
    resolve_key,
    resolve_secret,
)
from gateway.ipsec.secret import Secret

Note = Callable[[str, str], None]
"""Takes the path of a reference and what is wrong with it."""

Public = cpb.PublicFile | cpb.CrlFile
SecretMessage = cpb.PreSharedKey | cpb.PrivateKey | cpb.Passphrase

_PEM: Final = b"-----BEGIN"


def resolve_sources(message: cpb.Connection, path: str, directory: Path, note: Note) -> None:
    """Replace every reference of a connection by the value it means.

    Args:
        message: Changed in place.
        path: Its path.
        directory: What relative paths start from.
        note: Told of each reference that cannot be read.
    """
    for name, side in (("local", message.local), ("remote", message.remote)):
        for where, secret in _secrets(side.auth, at(path, f"{name}.auth")):
            _resolve_secret(secret, where, directory, note)
        for where, public in _publics(side.auth, at(path, f"{name}.auth")):
            _resolve_public(public, where, directory, note)


def write_key(key: Secret) -> str:
    """Return the `value` that means these bytes, whatever they are."""
    return "0x" + key.reveal().hex()


def _secrets(auth: cpb.Authentication, path: str) -> Iterator[tuple[str, SecretMessage]]:
    match auth.WhichOneof("method"):
        case "psk":
            yield at(path, "psk"), auth.psk
        case "certificate":
            where = at(path, "certificate")
            if auth.certificate.HasField("key"):
                yield from _key(auth.certificate.key, at(where, "key"))
            for i, key in enumerate(auth.certificate.keys):
                yield from _key(key, at(where, "keys", i))
        case "public_key" if auth.public_key.HasField("key"):
            yield from _key(auth.public_key.key, at(path, "public_key.key"))


def _key(message: cpb.PrivateKey, path: str) -> Iterator[tuple[str, SecretMessage]]:
    # The passphrase first: a key that stands in for one that cannot be read has none.
    if message.HasField("passphrase"):
        yield at(path, "passphrase"), message.passphrase
    yield path, message


def _publics(auth: cpb.Authentication, path: str) -> Iterator[tuple[str, Public]]:
    for i, file in enumerate(auth.public_key.keys):
        yield at(path, "public_key.keys", i), file
    given, where = auth.certificate, at(path, "certificate")
    for name, files in (("certs", given.certs), ("cas", given.cas), ("intermediates", given.intermediates)):
        for i, file in enumerate(files):
            yield at(where, name, i), file
    for i, crl in enumerate(given.crls):
        yield at(where, "crls", i), crl


def _resolve_secret(message: SecretMessage, path: str, directory: Path, note: Note) -> None:
    source = message.WhichOneof("source")
    if source is None:
        return
    reference = SecretReference(SecretSource(source), Secret(getattr(message, source).encode()))
    read = resolve_key if isinstance(message, cpb.PrivateKey) else resolve_secret
    try:
        message.value = write_key(read(reference, base=directory))
    except SecretError as error:
        note(at(path, source), str(error))
        _stand_in(message, source)


def _stand_in(message: SecretMessage, source: str) -> None:
    """Leave something that nothing else is said about: the problem is known."""
    if isinstance(message, cpb.Passphrase):
        message.ClearField(source)
        return
    message.Clear()
    message.is_set = True


def _resolve_public(message: Public, path: str, directory: Path, note: Note) -> None:
    source = message.WhichOneof("source")
    if source is None:
        return
    try:
        if source == "file":
            contents = read_public_file(message.file, base=directory)
        else:
            contents = decode_text(message.value)
    except SecretError as error:
        note(at(path, source), str(error))
        message.ClearField(source)
        return
    is_text = contents.isascii() and _PEM in contents
    message.value = contents.decode() if is_text else f"0x{contents.hex()}"
