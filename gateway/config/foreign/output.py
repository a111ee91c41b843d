"""An import as the text of a configuration file, and its secrets as files beside it.

Where the text goes to a file, every secret goes to one of its own, for root alone; where it goes to standard
output, secrets stand in it as values, as they stood in the source.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from gateway.config.foreign.draft import Imported, Plain
from gateway.config.foreign.statement import ForeignConfigError
from gateway.ipsec.secret import Secret

_MODE: Final = 0o600

PlaceSecret = Callable[[str, str, Secret], dict[str, str]]
"""Takes a connection's name, the key that a secret stands under and the secret; returns the reference."""


def value_of(_connection: str, _key: str, secret: Secret) -> dict[str, str]:
    """Return a secret as a value in the file itself."""
    return {"value": secret.reveal().decode()}


@dataclass(slots=True)
class SecretFiles:
    """Secrets that become files in one directory; `place` is a `PlaceSecret`."""

    directory: Path
    files: dict[str, Secret] = field(default_factory=dict)
    """By file name."""

    def place(self, connection: str, key: str, secret: Secret) -> dict[str, str]:
        """Return a reference to the file that a secret will be in; equal ones of a connection share it."""
        number = 1
        while True:
            name = f"{connection}.{key}" if number == 1 else f"{connection}-{number}.{key}"
            if self.files.setdefault(name, secret) == secret:
                return {"file": name}
            number += 1

    def contents(self) -> dict[Path, bytes]:
        """Return what each file holds."""
        return {self.directory / name: secret.reveal() + b"\n" for name, secret in self.files.items()}


def write_private(files: Mapping[Path, bytes], *, replace: bool) -> None:
    """Write files that their owner alone may read: all of them, or none where one is there already.

    Raises:
        ForeignConfigError: One is there already and `replace` is not set, or cannot be written.
    """
    there = [str(path) for path in files if path.exists()]
    if there and not replace:
        raise ForeignConfigError(f"{', '.join(there)} is there already; --force replaces it")
    for path, contents in files.items():
        beside = path.with_name(f".{path.name}.new")
        try:
            beside.unlink(missing_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "wb") as file:
                file.write(contents)
            beside.replace(path)
        except OSError as error:
            raise ForeignConfigError(f"{path} cannot be written: {error.strerror}") from None


def to_text(imported: Imported, place: PlaceSecret) -> str:
    """Return the YAML of an import."""
    connections = [_placed(item, item["name"], "", place) for item in imported.connections]
    text: str = yaml.safe_dump(
        {"connections": connections}, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    return text


def has_secrets(plain: Plain) -> bool:
    """Say whether some secret stands in plain data."""
    if isinstance(plain, dict):
        return any(has_secrets(value) for value in plain.values())
    if isinstance(plain, list | tuple):
        return any(has_secrets(value) for value in plain)
    return isinstance(plain, Secret)


def _placed(plain: Plain, connection: str, key: str, place: PlaceSecret) -> Plain:
    if isinstance(plain, Secret):
        return place(connection, key, plain)
    if isinstance(plain, dict):
        return {name: _placed(value, connection, name, place) for name, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_placed(value, connection, key, place) for value in plain]
    return plain
