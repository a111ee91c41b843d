"""Where a gateway's sockets are, and which unprivileged user its controller becomes."""

import asyncio
import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.api.address import Address, UnixAddress, parse_address
from gateway.host.errors import HostError
from gateway.host.privileges import Account, find_account, nameless_account
from gateway.ipsec.errors import GatewayError

DEFAULT_RUN_DIR: Final = Path("/run/ipsecgw")
CONTROL_VARIABLE: Final = "IPSECGW_CONTROL"
DATAPATH_VARIABLE: Final = "IPSECGW_DATAPATH"

#: Whom the controller becomes where there is such a user, unless told otherwise.
PREFERRED_USER: Final = "ipsecgw"


class PlaceError(GatewayError):
    """A directory or user cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The sockets of one gateway."""

    control: Address
    datapath: Address


def find_places(
    environment: Mapping[str, str],
    *,
    run_dir: Path | None = None,
    control: str | None = None,
    datapath: str | None = None,
) -> Places:
    """Return the sockets: as named, else below `run_dir`, else by the environment, else below /run/ipsecgw.

    Raises:
        AddressError: A name is no address.
    """
    folder = (run_dir or DEFAULT_RUN_DIR).absolute()
    by_environment: Mapping[str, str] = environment if run_dir is None else {}
    return Places(
        control=parse_address(
            control or by_environment.get(CONTROL_VARIABLE) or f"unix:{folder / 'control.sock'}"
        ),
        datapath=parse_address(
            datapath or by_environment.get(DATAPATH_VARIABLE) or f"unix:{folder / 'datapath.sock'}"
        ),
    )


def ports_socket(datapath: UnixAddress) -> Path:
    """Return where the agent at `datapath` hands out the IKE sockets."""
    return datapath.path.with_name(datapath.path.name + ".ports")


def make_directory(path: Path) -> None:
    """Make the directory of a socket, if there is none, for everybody to enter and its owner to write.

    Whoever else may write to it could put a socket of his own there, and be given the keys of every SA.

    Raises:
        PlaceError: It cannot be made, belongs to somebody else, or this process may not write into it.
    """
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        there = path.stat()
    except FileExistsError as error:
        raise PlaceError(
            f"{path} is not a directory: remove it, or choose another place with --run-dir"
        ) from error
    except OSError as error:
        raise PlaceError(
            f"cannot make {path}: {error.strerror}; run as root, or choose another place with --run-dir"
        ) from error
    if there.st_uid not in (0, os.geteuid()) or there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PlaceError(
            f"others may write to {path} (owner {there.st_uid}, mode {stat.S_IMODE(there.st_mode):04o}): "
            "the sockets need a directory of our own; choose another place with --run-dir"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise PlaceError(
            f"cannot write into {path}: run as its owner or root, or choose another place with --run-dir"
        )


def enter_directory(address: UnixAddress) -> UnixAddress:
    """Make the directory of a socket the working directory; return the address as seen from there.

    Raises:
        OSError: It cannot be entered.
    """
    os.chdir(address.path.parent)
    return UnixAddress(Path(address.path.name))


def controller_account(name: str | None, datapath: Address) -> Account:
    """Return whom the controller of this datapath becomes: `name`, else `ipsecgw`, else a user of its own.

    Raises:
        HostError: There is no user of that name.
    """
    if name is not None:
        return find_account(name)
    try:
        return find_account(PREFERRED_USER)
    except HostError:
        return nameless_account(str(datapath))


def is_root() -> bool:
    """Say whether this process may become another user."""
    return os.geteuid() == 0


async def is_listening(path: Path) -> bool:
    """Say whether somebody serves the Unix socket at `path`."""
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
