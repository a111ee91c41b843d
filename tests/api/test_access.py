"""Roles, audit log, limits and certificates over real sockets."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copyfile

import grpc
import pytest

from gateway.api import interceptor
from gateway.api.address import Address, TcpAddress, TlsFiles, UnixAddress
from gateway.api.call_limit import BURST
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.api.errors import ApiError
from gateway.api.listener import Listener
from gateway.api.roles import Role
from gateway.api.server import ApiServer
from gateway.app.access import control_listeners, role_sockets
from gateway.datapath.backend import DatapathError
from tests.api.certificates import Authority
from tests.api.fake_controller import FakeController
from tests.fakes.datapath import FakeDatapath


@asynccontextmanager
async def served(*listeners: Listener, controller: FakeController | None = None) -> AsyncIterator[ApiServer]:
    server = ApiServer(
        listeners, control=controller or FakeController(), datapath=FakeDatapath() if not controller else None
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0)


# --- one socket for each role ---------------------------------------------------------------------


async def test_every_socket_allows_what_its_role_allows_and_says_what_it_does_not(tmp_path: Path) -> None:
    control = UnixAddress(tmp_path / "control.sock")
    sockets = role_sockets(control)
    controller = FakeController()
    async with served(*control_listeners(control, None), controller=controller):
        for role, address in sockets.items():
            async with ControlClient(address) as client:
                await client.status()  # everybody
                if role is Role.VIEWER:
                    with pytest.raises(ApiError, match="Terminate needs the role operator") as refused:
                        await client.terminate(pb.Target(ike_sa_id=7))
                    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
                    assert refused.value.reason == "ROLE_REQUIRED"
                else:
                    await client.terminate(pb.Target(ike_sa_id=7))
                if role is not Role.ADMIN:
                    with pytest.raises(ApiError, match="DeleteConnections needs the role admin"):
                        await client.delete(["paris-tokyo"])
                else:
                    await client.delete(["paris-tokyo"])

    assert [verb for verb, _ in controller.calls] == ["terminate", "terminate"]
    assert not [name for name in os.listdir(tmp_path) if "sock" in name], "a socket was left behind"


# --- certificates ---------------------------------------------------------------------------------


@asynccontextmanager
async def tcp(tls: TlsFiles) -> AsyncIterator[Address]:
    async with served(Listener(address=TcpAddress("127.0.0.1", 0), tls=tls)) as server:
        yield server.addresses[0]


async def test_a_certificate_has_the_roles_that_it_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    operator = authority.sign("operator", roles=(Role.OPERATOR,))
    nobody = authority.sign("nobody")
    async with tcp(authority.sign("server")) as address:
        async with ControlClient(address, tls=operator) as client:
            await client.terminate(pb.Target(ike_sa_id=7))
            with pytest.raises(ApiError, match="certificate:operator has operator"):
                await client.delete(["paris-tokyo"])
        async with ControlClient(address, tls=nobody) as client:
            with pytest.raises(ApiError, match="certificate:nobody has no role"):
                await client.status()


async def test_keys_go_to_a_datapath_only_by_a_certificate_of_that_role(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    async with tcp(authority.sign("server")) as address:
        for role, may in ((Role.ADMIN, False), (Role.DATAPATH, True)):
            client = DatapathClient(address, tls=authority.sign(role.value, roles=(role,)), patience_s=0.0)
            try:
                if may:
                    assert len(await client.allocate_spis(1)) == 1
                else:
                    with pytest.raises(DatapathError, match="AllocateSpis needs the role datapath"):
                        await client.allocate_spis(1)
            finally:
                await client.close()


async def status_over(address: Address, tls: TlsFiles) -> bool:
    """Say whether a client gets an answer over a connection of its own."""
    async with ControlClient(address, tls=tls, deadline_s=30.0) as client:
        try:
            await client.status()
        except ApiError:
            return False
    return True


async def test_certificates_replaced_on_disk_are_used_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    viewer = (Role.VIEWER,)
    files = old.sign("server")
    async with tcp(files) as address:
        assert await status_over(address, old.sign("reader", roles=viewer))

        # The new key alone does not fit: what was there before stays in force.
        replacement = new.sign("server")
        copyfile(replacement.key, files.key)
        assert await status_over(address, old.sign("reader", roles=viewer))

        copyfile(replacement.certificate, files.certificate)
        copyfile(replacement.ca, files.ca)
        assert await status_over(address, new.sign("reader", roles=viewer))
        assert not await status_over(address, old.sign("reader", roles=viewer))


# --- the audit log ----------------------------------------------------------------------------------


async def test_every_call_that_changes_something_is_in_the_audit_log_with_its_result(
    tmp_path: Path, audit_lines: list[dict[str, object]]
) -> None:
    control = UnixAddress(tmp_path / "control.sock")
    controller = FakeController()
    async with served(*control_listeners(control, None), controller=controller):
        async with ControlClient(control) as admin:
            await admin.status()
            await admin.delete(["paris-tokyo", "oslo"])
            with pytest.raises(ApiError):
                await admin.rekey(pb.Target(connection="nowhere"), reauthenticate=True)
        async with ControlClient(role_sockets(control)[Role.VIEWER]) as viewer:
            with pytest.raises(ApiError):
                await viewer.terminate(pb.Target(child_sa_id=9))

    told = [(line["who"], line["method"], line["what"], line["outcome"]) for line in audit_lines]
    admin_socket, viewer_socket = f"socket:{control}", f"socket:{role_sockets(control)[Role.VIEWER]}"
    assert told == [
        (admin_socket, "DeleteConnections", ["paris-tokyo", "oslo"], "OK"),
        (admin_socket, "Rekey", ["nowhere", "reauthenticate"], "NOT_FOUND"),
        (viewer_socket, "Terminate", ["Child SA 9"], "PERMISSION_DENIED"),
    ]


# --- limits -----------------------------------------------------------------------------------------


async def test_who_calls_too_often_is_told_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = UnixAddress(tmp_path / "control.sock")
    monkeypatch.setattr(interceptor.time, "monotonic", lambda: 1000.0)
    async with (
        served(*control_listeners(control, None), controller=FakeController()),
        ControlClient(role_sockets(control)[Role.VIEWER]) as viewer,
        ControlClient(control) as admin,
    ):
        for _ in range(int(BURST)):
            await viewer.status()
        with pytest.raises(ApiError, match="put more items into one call") as refused:
            await viewer.status()
        await admin.status()

    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.reason == "TOO_MANY_CALLS"
    assert refused.value.retry_after_s == pytest.approx(0.0005)
