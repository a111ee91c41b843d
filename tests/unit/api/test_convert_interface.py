"""Tunnel interfaces in a configuration: what is read, what it means for the Child, and what is refused."""

from typing import Any

import pytest

from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.convert_connection import read_connection, write_connection
from gateway.api.violations import Violations
from gateway.ipsec.connection import Child
from gateway.ipsec.interface import EVERYTHING, id_of_name
from gateway.ipsec.selectors import TrafficSelector


def connection(interface: dict[str, Any], **child: Any) -> cpb.Connection:
    side = cpb.Side(address="192.0.2.1", auth=cpb.Authentication(psk=cpb.PreSharedKey(value=b"told")))
    peer = cpb.Side(address="192.0.2.2", auth=cpb.Authentication(psk=cpb.PreSharedKey(value=b"told")))
    return cpb.Connection(
        name="paris",
        local=side,
        remote=peer,
        children=[cpb.Child(name="all", interface=interface, **child)],
    )


def read(message: cpb.Connection) -> tuple[Child | None, list[str]]:
    """Return the Child, and what is wrong with it."""
    violations = Violations()
    wanted = read_connection(message, "c", violations)
    wrong = [f"{found.field}: {found.description}" for found in violations.found()]
    return (None if wanted is None else wanted.connection.children[0]), wrong


def test_child_of_an_interface_is_about_everything_unless_it_says_less() -> None:
    whole, _ = read(connection({"name": "ipsec0"}))
    part, _ = read(connection({"name": "ipsec0"}, remote_ts=["10.0.0.0/8"]))

    assert whole is not None
    assert part is not None
    assert (whole.local_ts, whole.remote_ts) == (EVERYTHING, EVERYTHING)
    assert (part.local_ts, part.remote_ts) == (EVERYTHING, (TrafficSelector.parse("10.0.0.0/8"),))


def test_interface_without_an_id_gets_one_that_is_always_the_same() -> None:
    first, _ = read(connection({"name": "ipsec0"}))
    other, _ = read(connection({"name": "ipsec1"}))

    assert first is not None
    assert other is not None
    assert first.interface_id == id_of_name("ipsec0") == 1881889815
    assert first.interface_id != other.interface_id


def test_what_was_read_is_written_alike() -> None:
    message = connection(
        {
            "name": "ipsec0",
            "id": 42,
            "mtu": 1400,
            "addresses": ["169.254.9.1/30", "fd00:9::1/64"],
            "routes": ["10.2.0.0/16"],
            "vrf": "red",
        }
    )
    violations = Violations()
    wanted = read_connection(message, "c", violations)

    assert wanted is not None
    written = write_connection(wanted.connection, psk_is_set=True)
    assert written.children[0].interface == message.children[0].interface


@pytest.mark.parametrize(
    ("interface", "child", "wrong"),
    [
        ({}, {}, "c.children[0].interface: '' is no name for an interface"),
        ({"name": "a/b"}, {}, "c.children[0].interface: 'a/b' is no name"),
        ({"name": "x" * 16}, {}, "1 to 15 bytes"),
        ({"name": "ipsec0", "vrf": ".."}, {}, "'..' is no name"),
        ({"name": "ipsec0", "mtu": 68}, {}, "an MTU is 576 to 65535, got 68"),
        ({"name": "ipsec0", "addresses": ["10.1.0.1/33"]}, {}, "c.children[0].interface.addresses[0]: "),
        ({"name": "ipsec0", "routes": ["10.1.0.1/16"]}, {}, "c.children[0].interface.routes[0]: "),
        ({"name": "ipsec0", "routes": ["0.0.0.0/0"]}, {}, "holds the peer's address 192.0.2.2"),
        ({"name": "ipsec0"}, {"action": "ACTION_DISCARD"}, "is for action protect, not discard"),
        ({"name": "ipsec0"}, {"mode": "MODE_TRANSPORT"}, "is for mode tunnel, not transport"),
    ],
)
def test_what_no_interface_can_be_is_refused(
    interface: dict[str, Any], child: dict[str, Any], wrong: str
) -> None:
    _, found = read(connection(interface, **child))

    assert any(wrong in text for text in found), found


def test_routes_of_a_vrf_may_hold_the_peer() -> None:
    child, wrong = read(connection({"name": "ipsec0", "vrf": "red", "routes": ["0.0.0.0/0"]}))

    assert wrong == []
    assert child is not None
