"""Who may use which socket of the control API."""

import argparse
from pathlib import Path

import pytest

from gateway.api.address import TcpAddress, UnixAddress
from gateway.api.roles import Role
from gateway.app.access import (
    Access,
    access_arguments,
    add_access_arguments,
    control_listeners,
    parse_access,
    role_sockets,
    usable_control,
)

CONTROL = UnixAddress(Path("/run/ipsecgw/control.sock"))


def test_there_is_one_socket_for_each_role() -> None:
    assert {role: str(address) for role, address in role_sockets(CONTROL).items()} == {
        Role.ADMIN: "unix:/run/ipsecgw/control.sock",
        Role.OPERATOR: "unix:/run/ipsecgw/control-operator.sock",
        Role.VIEWER: "unix:/run/ipsecgw/control-viewer.sock",
    }


def test_each_is_the_owners_alone_unless_told_otherwise() -> None:
    listeners = control_listeners(CONTROL, None, [parse_access("viewer=:monitoring")])

    assert [(item.roles, item.owner, item.group, item.mode) for item in listeners] == [
        (frozenset({Role.ADMIN}), None, None, 0o600),
        (frozenset({Role.OPERATOR}), None, None, 0o600),
        (frozenset({Role.VIEWER}), None, "monitoring", 0o660),
    ]


def test_a_tcp_port_is_one_for_all_roles() -> None:
    (listener,) = control_listeners(TcpAddress("192.0.2.1", 7000), None)

    assert listener.address == TcpAddress("192.0.2.1", 7000)


@pytest.mark.parametrize(
    ("text", "access"),
    [
        ("operator=:netops", Access(role=Role.OPERATOR, group="netops", mode=0o660)),
        ("admin=alice:", Access(role=Role.ADMIN, user="alice", mode=0o600)),
        ("viewer=nobody:all:666", Access(role=Role.VIEWER, user="nobody", group="all", mode=0o666)),
        ("viewer=::0640", Access(role=Role.VIEWER, mode=0o640)),
    ],
)
def test_access_is_read_and_handed_on(text: str, access: Access) -> None:
    parser = argparse.ArgumentParser()
    add_access_arguments(parser)

    given = parser.parse_args(["--access", text])

    assert given.access == [access]
    assert parser.parse_args(access_arguments(given)).access == [access]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("netops", "does not begin with a role"),
        ("root=:wheel", "one of admin, operator, viewer"),
        ("datapath=:wheel", "one of admin, operator, viewer"),
        ("viewer=monitoring", "no colon"),
        ("viewer=:monitoring:rw", "not a mode in octal"),
        ("viewer=:monitoring:0999", "not a mode in octal"),
        ("viewer=:monitoring:", "not a mode in octal"),
    ],
)
def test_what_is_not_of_that_form_is_told(text: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        parse_access(text)


def test_a_command_uses_the_best_socket_it_may(tmp_path: Path) -> None:
    control = UnixAddress(tmp_path / "control.sock")
    (tmp_path / "control-viewer.sock").touch()

    assert usable_control(control) == UnixAddress(tmp_path / "control-viewer.sock")

    (tmp_path / "control.sock").touch()
    assert usable_control(control) == control


def test_where_there_is_no_socket_the_first_is_named(tmp_path: Path) -> None:
    control = UnixAddress(tmp_path / "control.sock")

    assert usable_control(control) == control
    assert usable_control(TcpAddress("192.0.2.1", 7000)) == TcpAddress("192.0.2.1", 7000)
