"""Secret references: where a pre-shared or private key is found, and how its text becomes bytes.

A reference is one of `{file: PATH}`, `{value: TEXT}`, `{env: NAME}`, `{credential: NAME}` (a systemd
credential). What is found there is taken literally, less one line end, unless it begins with `0x` (hex
digits) or `0s` (base64), as in strongSwan's secrets. A file with a private key is taken byte for byte: it may
be DER. Errors name the place and never the contents.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from gateway.ipsec.errors import GatewayError
from gateway.ipsec.secret import Secret
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

MAX_SECRET_BYTES: Final = 4096
"""More is a wrong file, not a key."""

MAX_KEY_FILE_BYTES: Final = 65536
"""The same for a private key: RSA-8192 in PEM, encrypted, has some 7,000."""

MAX_PUBLIC_FILE_BYTES: Final = 8 << 20
"""The same for certificates and CRLs."""

CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a unit with LoadCredential= or SetCredential= (systemd.exec(5))."""


class SecretError(GatewayError):
    """A secret cannot be found or read; the text says what to do."""


class SecretSource(Enum):
    """Where a secret is found; the value is the key of the reference in the configuration."""

    FILE = "file"
    VALUE = "value"
    ENV = "env"
    CREDENTIAL = "credential"


@dataclass(frozen=True, slots=True)
class SecretReference:
    """One reference as it stands in the configuration."""

    source: SecretSource
    text: Secret
    """The path, name or value: a `Secret`, because of the last of these."""

    def __str__(self) -> str:
        """Return the reference for messages, a value hidden."""
        shown = "..." if self.source is SecretSource.VALUE else self.text.reveal().decode(errors="replace")
        return f"{{{self.source.value}: {shown}}}"


def parse_secret_reference(mapping: Mapping[str, str]) -> SecretReference:
    """Return the reference that a mapping of the configuration means.

    Raises:
        SecretError: It is not exactly one of `file`, `value`, `env` and `credential`.
    """
    sources = ", ".join(source.value for source in SecretSource)
    if len(mapping) != 1:
        given = ", ".join(sorted(mapping)) or "nothing"
        raise SecretError(f"a secret has exactly one of {sources}; this one has {given}")
    ((key, text),) = mapping.items()
    try:
        source = SecretSource(key)
    except ValueError:
        raise SecretError(f"{key!r} is not a source of secrets; one of {sources} is expected") from None
    if not text:
        raise SecretError(f"the {key} of a secret is empty")
    return SecretReference(source, Secret(text.encode()))


def resolve_secret(
    reference: SecretReference,
    *,
    base: Path,
    environment: Mapping[str, str] | None = None,
    allow_readable_by_others: bool = True,
) -> Secret:
    """Fetch the secret a reference means.

    Args:
        reference: Where it is.
        base: The directory that relative paths start from: that of the configuration file.
        environment: Stands in for this process's.
        allow_readable_by_others: Whether a file that its group or everybody can read is used, with a
            warning in the log, or refused.

    Raises:
        SecretError: It is not there, not readable, empty, or not what its `0x` or `0s` promises.
    """
    found = _found(reference, base, environment, MAX_SECRET_BYTES, allow_readable_by_others)
    return Secret(_decode(_without_line_end(found), str(reference), MAX_SECRET_BYTES))


def resolve_key(
    reference: SecretReference,
    *,
    base: Path,
    environment: Mapping[str, str] | None = None,
    allow_readable_by_others: bool = True,
) -> Secret:
    """Fetch the private key a reference means, in PEM or DER; arguments as of `resolve_secret`.

    Raises:
        SecretError: It is not there, not readable, empty, or not what its `0x` or `0s` promises.
    """
    found = _found(reference, base, environment, MAX_KEY_FILE_BYTES, allow_readable_by_others)
    if reference.source in (SecretSource.FILE, SecretSource.CREDENTIAL) and found:
        # DER may begin with the letters that mean hexadecimal digits elsewhere.
        return Secret(_limited(found, str(reference), MAX_KEY_FILE_BYTES))
    return Secret(_decode(found, str(reference), MAX_KEY_FILE_BYTES))


def decode_text(text: str) -> bytes:
    """Return the bytes that a text means: itself, or what follows `0x` or `0s`.

    Raises:
        SecretError: It is empty, or not what its `0x` or `0s` promises.
    """
    return _decode(text.encode(), "{value: ...}", MAX_PUBLIC_FILE_BYTES)


def read_public_file(text: str, *, base: Path) -> bytes:
    """Return the contents of a file that holds no secret: certificates, a public key, a CRL.

    Raises:
        SecretError: It is not there, not readable, empty, or too long.
    """
    path = base / _expanded(text)
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_PUBLIC_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SecretError(f"the file {path} does not exist") from None
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not a path"
        raise SecretError(f"the file {path} cannot be read by uid {os.geteuid()}: {detail}") from None
    if not contents:
        raise SecretError(f"the file {path} is empty")
    return _limited(contents, str(path), MAX_PUBLIC_FILE_BYTES)


def _found(
    reference: SecretReference,
    base: Path,
    environment: Mapping[str, str] | None,
    limit: int,
    allow_readable_by_others: bool,
) -> bytes:
    environment = os.environ if environment is None else environment
    text = reference.text.reveal()
    match reference.source:
        case SecretSource.VALUE:
            return text
        case SecretSource.ENV:
            return _from_environment(text.decode(), environment)
        case SecretSource.FILE:
            path = base / _expanded(text.decode())
            return _from_file(path, limit, allow_readable_by_others=allow_readable_by_others)
        case SecretSource.CREDENTIAL:
            return _from_credential(text.decode(), environment, limit)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SecretError(f"{text} begins with the home directory of a user there is not") from None


def _from_environment(name: str, environment: Mapping[str, str]) -> bytes:
    if name not in environment:
        raise SecretError(f"the environment variable {name} is not set; set it where the gateway is started")
    return os.fsencode(environment[name])


def _from_credential(name: str, environment: Mapping[str, str], limit: int) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_.@:-]+", name) or name in {".", ".."}:
        raise SecretError(f"{name!r} is not the name of a systemd credential")
    directory = environment.get(CREDENTIALS_DIRECTORY)
    if not directory:
        raise SecretError(
            f"no systemd credentials here ({CREDENTIALS_DIRECTORY} is not set): run as a systemd unit with "
            f"LoadCredential={name}:PATH, or use file, env or value"
        )
    path = Path(directory) / name
    if not path.exists():
        raise SecretError(
            f"the unit has no credential {name!r}; add LoadCredential={name}:PATH to its [Service] section"
        )
    # systemd keeps others out of the directory, whatever the mode of the file.
    return _from_file(path, limit, allow_readable_by_others=True, warn=False)


def _from_file(path: Path, limit: int, *, allow_readable_by_others: bool, warn: bool = True) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            contents = file.read(limit + 3)
    except FileNotFoundError:
        raise SecretError(f"the secret file {path} does not exist; write the key there, mode 0600") from None
    except PermissionError:
        uid = os.geteuid()
        raise SecretError(
            f"the secret file {path} cannot be read by uid {uid}; make that user its owner, mode 0600"
        ) from None
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not a path"
        raise SecretError(f"the secret file {path} cannot be read: {detail}") from None
    if warn and mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everybody" if mode & stat.S_IROTH else "its group"
        if not allow_readable_by_others:
            raise SecretError(f"the secret file {path} can be read by {who}; run: chmod 600 {path}")
        _log.warning("secret_file_readable", path=str(path), by=who, hint=f"chmod 600 {path}")
    return contents


def _without_line_end(contents: bytes) -> bytes:
    for end in (b"\r\n", b"\n"):
        if contents.endswith(end):
            return contents[: -len(end)]
    return contents


def _limited(found: bytes, where: str, limit: int) -> bytes:
    if len(found) > limit:
        raise SecretError(f"the secret of {where} is over {limit} bytes; is it the right place?")
    return found


def _decode(found: bytes, where: str, limit: int) -> bytes:
    """Return the key bytes of what was found; errors tell nothing of it."""
    _limited(found, where, limit)
    prefix, digits = found[:2], found[2:]
    try:
        if prefix in (b"0x", b"0X"):
            found = binascii.unhexlify(b"".join(digits.split()))
        elif prefix in (b"0s", b"0S"):
            found = base64.b64decode(b"".join(digits.split()), validate=True)
    except (binascii.Error, ValueError):
        kind = "an even number of hex digits" if prefix in (b"0x", b"0X") else "base64"
        raise SecretError(f"the secret of {where} begins with {prefix.decode()} but is not {kind}") from None
    if not found:
        raise SecretError(f"the secret of {where} is empty")
    return found
