"""Whose configuration a path is, and reading it: the one entrance to this package."""

import re
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Final

from gateway.config.foreign.draft import Imported
from gateway.config.foreign.ipsec_conf import Dialect, import_ipsec_conf
from gateway.config.foreign.statement import ForeignConfigError, read_text
from gateway.config.foreign.swanctl import import_swanctl

_NAMES: Final = ("swanctl.conf", "ipsec.conf")
_SWANCTL: Final = re.compile(r"^[ \t]*(connections|secrets|pools|authorities)\s*\{", re.MULTILINE)
_CONF: Final = re.compile(r"^(conn|ca|config)[ \t]+\S+", re.MULTILINE)


class Format(Enum):
    """What a file is written in; the values are those of the command line."""

    SWANCTL = "swanctl"
    STRONGSWAN = "strongswan"
    LIBRESWAN = "libreswan"


def import_config(
    path: Path,
    *,
    written_in: Format | None = None,
    secrets_path: Path | None = None,
    addresses: Collection[str] = (),
    local_side: str = "",
) -> Imported:
    """Read a swanctl.conf or an ipsec.conf, or the one in a directory.

    Args:
        path: File or directory.
        written_in: None: what it looks like.
        secrets_path: An ipsec.secrets that is not beside the ipsec.conf.
        addresses: This machine's, which tell left from right.
        local_side: `left` or `right`, whatever the addresses say.

    Raises:
        ForeignConfigError: It cannot be read, or is neither.
    """
    path = _file_of(path)
    if (written_in or _look(path)) is Format.SWANCTL:
        return import_swanctl(path)
    dialect = None if written_in is None else Dialect(written_in.value)
    return import_ipsec_conf(
        path, dialect=dialect, secrets_path=secrets_path, addresses=addresses, local_side=local_side
    )


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in _NAMES if (path / name).is_file()]
    if len(found) != 1:
        what = " and ".join(_NAMES) if found else f"neither {' nor '.join(_NAMES)}"
        raise ForeignConfigError(f"{path} has {what}; name the file")
    return found[0]


def _look(path: Path) -> Format | None:
    """Return SWANCTL, or None for an ipsec.conf of either dialect."""
    text = read_text(path)
    if path.name in _NAMES:
        return Format.SWANCTL if path.name == _NAMES[0] else None
    if _SWANCTL.search(text):
        return Format.SWANCTL
    if _CONF.search(text):
        return None
    raise ForeignConfigError(
        f"{path} looks like neither swanctl.conf nor ipsec.conf; say which it is with --format"
    )
