"""Who may call what."""

import pytest

from gateway.api.control.v1 import control_pb2
from gateway.api.datapath.v1 import datapath_pb2
from gateway.api.log.v1 import log_pb2
from gateway.api.roles import (
    CONTROL,
    DATAPATH,
    AccessError,
    Caller,
    Role,
    caller_by_certificate,
    is_mutating,
    role_needed,
)

METHODS = [
    f"/{service.full_name}/{method.name}"
    for service in (
        control_pb2.DESCRIPTOR.services_by_name["ControlService"],
        datapath_pb2.DESCRIPTOR.services_by_name["DatapathService"],
        log_pb2.DESCRIPTOR.services_by_name["LogService"],
    )
    for method in service.methods
]

READING = ("Get", "List", "Explain", "Watch")


def may(role: Role, method: str) -> bool:
    try:
        Caller("test", frozenset({role})).require(method)
    except AccessError:
        return False
    return True


@pytest.mark.parametrize("method", METHODS)
def test_a_viewer_may_read_and_nothing_else(method: str) -> None:
    name = method.rpartition("/")[2]
    is_read = name.startswith(READING) and method != f"/{DATAPATH}/WatchEvents"

    assert may(Role.VIEWER, method) == is_read
    assert is_mutating(method) == (not name.startswith(READING))


@pytest.mark.parametrize("name", ["Initiate", "Terminate", "Rekey", "ListConnections", "WatchEvents"])
def test_an_operator_may_drive_connections(name: str) -> None:
    assert may(Role.OPERATOR, f"/{CONTROL}/{name}")


@pytest.mark.parametrize("name", ["ApplyConnections", "DeleteConnections"])
def test_only_an_admin_may_change_what_is_configured(name: str) -> None:
    assert [role for role in Role if may(role, f"/{CONTROL}/{name}")] == [Role.ADMIN]


@pytest.mark.parametrize("name", ["InstallSas", "RemoveSas", "ApplyPolicies", "AllocateSpis", "WatchEvents"])
def test_only_the_datapath_role_may_touch_sas(name: str) -> None:
    assert [role for role in Role if may(role, f"/{DATAPATH}/{name}")] == [Role.DATAPATH]


def test_a_method_that_nobody_thought_of_needs_the_highest_role() -> None:
    assert role_needed(f"/{CONTROL}/NewlyAdded") is Role.ADMIN
    assert role_needed(f"/{DATAPATH}/NewlyAdded") is Role.DATAPATH
    assert role_needed("/gateway.api.other.v1.NewService/Method") is Role.ADMIN


def test_a_refusal_says_who_needs_what() -> None:
    caller = Caller("certificate:monitoring", frozenset({Role.VIEWER}))

    with pytest.raises(AccessError) as refused:
        caller.require(f"/{CONTROL}/Rekey")

    assert str(refused.value) == (
        "Rekey needs the role operator; certificate:monitoring has viewer: use the socket of that role, or a "
        "certificate with the URI urn:ipsecgw:role:operator among its names"
    )


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ((b"urn:ipsecgw:role:viewer",), {Role.VIEWER}),
        (
            (b"host.example", b"urn:ipsecgw:role:admin", b"urn:ipsecgw:role:datapath"),
            {Role.ADMIN, Role.DATAPATH},
        ),
        ((b"urn:ipsecgw:role:root",), set()),
        ((b"urn:ipsecgw:role:",), set()),
        ((b"viewer",), set()),
        ((b"URN:IPSECGW:ROLE:ADMIN",), set()),
        ((b"\xff\xfe",), set()),
        ((), set()),
    ],
    ids=["one", "two", "unknown", "empty", "bare-word", "other-case", "not-text", "none"],
)
def test_a_certificate_has_the_roles_it_names_exactly(names: tuple[bytes, ...], roles: set[Role]) -> None:
    assert caller_by_certificate({"x509_subject_alternative_name": names}).roles == roles


def test_a_certificate_is_known_by_its_common_name_else_by_another_name() -> None:
    names = [b"urn:ipsecgw:role:viewer", b"host.example"]

    assert caller_by_certificate({"x509_common_name": [b"ops"]}).name == "certificate:ops"
    assert caller_by_certificate({"x509_subject_alternative_name": names}).name == "certificate:host.example"
    assert caller_by_certificate({}).name == "certificate:(no name)"
