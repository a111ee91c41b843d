"""The sockets of the control API, one for each role: control.sock, control-operator.sock and so on."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.api.address import Address, TlsFiles, UnixAddress
from gateway.api.listener import Listener
from gateway.api.roles import Role

#: What stands behind the name of the first socket, in the order of what they allow.
_SUFFIXES: Final = {Role.ADMIN: "", Role.OPERATOR: "-operator", Role.VIEWER: "-viewer"}

OWNER_ONLY: Final = 0o600
WITH_GROUP: Final = 0o660


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use one of the sockets."""

    role: Role
    user: str | None = None
    group: str | None = None
    mode: int = OWNER_ONLY


def add_access_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--access`."""
    parser.add_argument(
        "--access",
        type=parse_access,
        action="append",
        default=[],
        metavar="ROLE=[USER]:[GROUP][:MODE]",
        help="who may use the socket of a role (admin, operator, viewer), as viewer=:monitoring; the mode is "
        "0660 with a group and 0600 without (default: root alone)",
    )


def access_arguments(args: argparse.Namespace) -> list[str]:
    """Return the arguments that give a child the same."""
    given: Sequence[Access] = args.access
    return [word for access in given for word in ("--access", _as_text(access))]


def parse_access(text: str) -> Access:
    """Return what `viewer=USER:GROUP:MODE` means.

    Raises:
        argparse.ArgumentTypeError: It is not of that form; the text says what is wrong.
    """
    name, equals, rest = text.partition("=")
    roles = {role.value: role for role in _SUFFIXES}
    if not equals or name not in roles:
        raise argparse.ArgumentTypeError(
            f"'{text}' does not begin with a role and '=': one of {', '.join(roles)} is expected"
        )
    user, colon, rest = rest.partition(":")
    group, with_mode, mode = rest.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(
            f"'{text}' has no colon: write {name}=USER:GROUP, either may be empty"
        )
    if not with_mode:
        number = WITH_GROUP if group else OWNER_ONLY
    elif len(mode) in (3, 4) and not set(mode) - set("01234567"):
        number = int(mode, 8)
    else:
        raise argparse.ArgumentTypeError(f"'{mode}' is not a mode in octal, as 0660")
    return Access(role=roles[name], user=user or None, group=group or None, mode=number)


def _as_text(access: Access) -> str:
    return f"{access.role.value}={access.user or ''}:{access.group or ''}:{access.mode:04o}"


def role_sockets(control: UnixAddress) -> dict[Role, UnixAddress]:
    """Return the socket of every role, by the name of the first."""
    path = control.path
    return {
        role: UnixAddress(path.with_name(f"{path.stem}{suffix}{path.suffix}"))
        for role, suffix in _SUFFIXES.items()
    }


def control_listeners(
    control: Address, tls: TlsFiles | None, given: Sequence[Access] = ()
) -> tuple[Listener, ...]:
    """Return where the control API is served: at a TCP port, or at a socket for each role."""
    if not isinstance(control, UnixAddress):
        return (Listener(address=control, tls=tls),)
    who = {role: Access(role=role) for role in _SUFFIXES} | {access.role: access for access in given}
    return tuple(
        Listener(
            address=address,
            roles=frozenset({role}),
            owner=who[role].user,
            group=who[role].group,
            mode=who[role].mode,
        )
        for role, address in role_sockets(control).items()
    )


def usable_control(control: Address) -> Address:
    """Return the first of the sockets that this user may write to; `control` itself if there is none."""
    if isinstance(control, UnixAddress):
        for address in role_sockets(control).values():
            if os.access(address.path, os.W_OK):
                return address
    return control
