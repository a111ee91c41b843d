"""Listeners: sockets with mode and group, taken or stale names, mutual TLS, health, reflection, shutdown."""

# ruff: noqa: ASYNC240 - looking at small local files does not keep these tests waiting

import asyncio
import os
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.api.address import AddressError, TcpAddress, TlsFiles, UnixAddress, dial, parse_address
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.api.errors import ApiError
from gateway.api.listener import Listener, ListenError
from gateway.api.roles import Role
from gateway.api.server import ApiServer
from gateway.datapath.backend import DatapathError
from tests.api.certificates import Authority
from tests.api.fake_controller import FakeController
from tests.fakes.datapath import FakeDatapath

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def serve(path: Path, **options: object) -> ApiServer:
    return ApiServer([Listener(address=UnixAddress(path), **options)], datapath=FakeDatapath())  # type: ignore[arg-type]


# --- Unix sockets -------------------------------------------------------------------------------


async def test_a_socket_is_for_its_owner_only_unless_told_otherwise(tmp_path: Path) -> None:
    group = 4 if os.geteuid() == 0 else os.getegid()
    private = serve(tmp_path / "private.sock")
    shared = serve(tmp_path / "shared.sock", mode=0o660, group=group)
    before = os.umask(0o022)
    os.umask(before)

    await private.start()
    await shared.start()

    assert stat.S_IMODE((tmp_path / "private.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shared.sock").stat().st_mode) == 0o660
    assert (tmp_path / "shared.sock").stat().st_gid == group
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private.sock", "shared.sock"]
    assert os.umask(before) == before
    await private.stop(grace_s=0)
    await shared.stop(grace_s=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_another_user_is_kept_out_by_the_mode() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others already
        Path(folder).chmod(0o755)
        server = serve(Path(folder) / "s.sock")
        await server.start()
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{folder}/s.sock')"
        command = ["/usr/bin/python3", "-c", connect]

        outsider = await asyncio.to_thread(
            subprocess.run, command, user=65534, capture_output=True, text=True
        )
        root = await asyncio.to_thread(subprocess.run, command)

        assert "PermissionError" in outsider.stderr
        assert root.returncode == 0
        await server.stop(grace_s=0)


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = serve(path)

    await server.start()

    client = DatapathClient(UnixAddress(path), patience_s=0.0)
    assert (await client.capabilities()).name == "fake"
    await client.close()
    await server.stop(grace_s=0)
    assert not path.exists()


async def test_a_served_socket_is_left_alone_and_its_process_named(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first, second = serve(path), serve(path)
    await first.start()

    with pytest.raises(ListenError) as caught:
        await second.start()

    assert str(caught.value).startswith(f"cannot listen at {path}: process {os.getpid()} (")
    assert str(caught.value).endswith("does already; stop it, or choose another socket for this one")
    client = DatapathClient(UnixAddress(path), patience_s=0.0)
    assert (await client.capabilities()).name == "fake"
    await client.close()
    await first.stop(grace_s=0)


async def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")

    with pytest.raises(ListenError, match="it exists and is no socket"):
        await serve(path).start()

    assert path.read_text() == "precious"


async def test_a_path_that_is_too_long_or_a_group_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="a Unix socket has at most 107 bytes"):
        await serve(tmp_path / ("x" * 100)).start()
    with pytest.raises(ListenError, match="there is no such group"):
        await serve(tmp_path / "s.sock", group="no-such-group").start()
    with pytest.raises(ListenError, match=r"cannot listen at /proc/none/s\.sock"):
        await serve(Path("/proc/none/s.sock")).start()
    assert not list(tmp_path.iterdir())


async def test_stopping_leaves_a_successors_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    old = serve(path)
    await old.start()
    path.unlink()
    new = serve(path)
    await new.start()

    await old.stop(grace_s=0)

    client = DatapathClient(UnixAddress(path), patience_s=0.0)
    assert (await client.capabilities()).name == "fake"
    await client.close()
    await new.stop(grace_s=0)


async def test_both_services_on_one_socket(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "both.sock")
    server = ApiServer([Listener(address=address)], control=FakeController(), datapath=FakeDatapath())
    await server.start()

    async with ControlClient(address) as control:
        assert (await control.status()).version == "0.1.0"
    client = DatapathClient(address)
    assert (await client.capabilities()).name == "fake"
    await client.close()
    await server.stop(grace_s=0)


async def test_stopping_ends_streams_without_waiting_for_the_grace(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s.sock")
    server = ApiServer([Listener(address=address)], control=FakeController())
    await server.start()
    async with ControlClient(address) as client:
        stream = await client.events()

        stopping = asyncio.create_task(server.stop(grace_s=30), name="stop")
        with pytest.raises(ApiError) as caught:
            await asyncio.wait_for(anext(stream), 30)

    assert caught.value.reason == "SHUTTING_DOWN"
    assert caught.value.retry_after_s == 1.0
    await asyncio.wait_for(stopping, 30)


# --- TCP and mutual TLS -------------------------------------------------------------------------


async def tcp_server(tls: TlsFiles) -> tuple[ApiServer, TcpAddress]:
    server = ApiServer([Listener(address=TcpAddress("127.0.0.1", 0), tls=tls)], datapath=FakeDatapath())
    await server.start()
    (address,) = server.addresses
    assert isinstance(address, TcpAddress)
    assert address.port != 0
    return server, address


async def test_tcp_without_mutual_tls_is_refused_at_both_ends(tmp_path: Path) -> None:
    address = TcpAddress("127.0.0.1", 0)

    with pytest.raises(ListenError, match="needs mutual TLS: give a certificate, its key and the CA"):
        await ApiServer([Listener(address=address)], datapath=FakeDatapath()).start()
    with pytest.raises(AddressError, match="needs mutual TLS"):
        dial(address)
    with pytest.raises(AddressError, match=r"cannot read the TLS file /no/c\.pem: No such file or directory"):
        dial(address, TlsFiles(certificate=Path("/no/c.pem"), key=Path("/no/k"), ca=Path("/no/ca")))


async def test_tls_files_that_do_not_fit_together_are_named_at_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    one, other = authority.sign("one"), authority.sign("other")

    with pytest.raises(
        AddressError, match=f"{other.key} is not the key of the certificate {one.certificate}"
    ):
        TlsFiles(certificate=one.certificate, key=other.key, ca=one.ca).read()
    with pytest.raises(AddressError, match=f"{one.key} holds no usable certificate"):
        TlsFiles(certificate=one.certificate, key=one.key, ca=one.key).read()
    assert one.read()[0].startswith(b"-----BEGIN CERTIFICATE-----")


async def test_tcp_with_certificates_of_both_ends_works(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    server, address = await tcp_server(authority.sign("server"))
    client = DatapathClient(address, tls=authority.sign("client", roles=(Role.DATAPATH,)), patience_s=0.0)

    assert (await client.capabilities()).name == "fake"

    await client.close()
    await server.stop(grace_s=0)


async def test_a_client_of_another_authority_is_refused(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server, address = await tcp_server(ours.sign("server"))
    client = DatapathClient(
        address, tls=theirs.sign("client", ca=ours.certificate, roles=(Role.DATAPATH,)), patience_s=0.0
    )

    with pytest.raises(DatapathError, match="check the network and the certificates"):
        await client.capabilities()

    await client.close()
    await server.stop(grace_s=0)


async def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    server, address = await tcp_server(ours.sign("server"))
    credentials = grpc.ssl_channel_credentials(ours.certificate.read_bytes())

    async with grpc.aio.secure_channel(str(address), credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(grace_s=0)


async def test_a_server_of_another_authority_is_refused(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server, address = await tcp_server(theirs.sign("server", ca=ours.certificate))
    client = DatapathClient(address, tls=ours.sign("client", roles=(Role.DATAPATH,)), patience_s=0.0)

    with pytest.raises(DatapathError, match="check the network and the certificates"):
        await client.capabilities()

    await client.close()
    await server.stop(grace_s=0)


async def test_a_port_in_use_says_so(tmp_path: Path) -> None:
    tls = Authority(tmp_path, "ours").sign("server")
    server, address = await tcp_server(tls)

    with pytest.raises(ListenError, match=r"is the port in use \(`ss -ltnp`\)"):
        await ApiServer([Listener(address=address, tls=tls)], datapath=FakeDatapath()).start()

    await server.stop(grace_s=0)


async def test_when_one_listener_cannot_be_opened_none_is(tmp_path: Path) -> None:
    listeners = [
        Listener(address=UnixAddress(tmp_path / "s.sock")),
        Listener(address=TcpAddress("127.0.0.1", 0)),
    ]

    with pytest.raises(ListenError):
        await ApiServer(listeners, datapath=FakeDatapath()).start()

    assert not list(tmp_path.iterdir())


# --- health and reflection ----------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "gateway.api.datapath.v1.DatapathService"])
async def test_health_follows_what_the_server_says(tmp_path: Path, service: str) -> None:
    address = UnixAddress(tmp_path / "s.sock")
    server = serve(address.path)
    await server.start()
    request = health_pb2.HealthCheckRequest(service=service)

    async with dial(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(request, timeout=30)).status == SERVING
        watch = health.Watch(request)
        assert (await watch.read()).status == SERVING
        await server.set_serving(False)
        assert (await health.Check(request, timeout=30)).status == NOT_SERVING
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await server.stop(grace_s=0)


async def test_reflection_lists_the_services_and_their_files(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s.sock")
    server = ApiServer([Listener(address=address)], control=FakeController(), datapath=FakeDatapath())
    await server.start()
    ask = reflection_pb2.ServerReflectionRequest
    requests = [
        ask(list_services=""),
        ask(file_containing_symbol="gateway.api.control.v1.ControlService"),
    ]

    async with dial(address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
        answers = [answer async for answer in call]

    services = {service.name for service in answers[0].list_services_response.service}
    assert services == {
        "gateway.api.control.v1.ControlService",
        "gateway.api.datapath.v1.DatapathService",
        "gateway.api.log.v1.LogService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert answers[1].file_descriptor_response.file_descriptor_proto
    await server.stop(grace_s=0)


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/ipsecgw/control.sock", UnixAddress(Path("/run/ipsecgw/control.sock"))),
        ("127.0.0.1:50051", TcpAddress("127.0.0.1", 50051)),
        ("dpu.example:1", TcpAddress("dpu.example", 1)),
        ("[2001:db8::1]:65535", TcpAddress("2001:db8::1", 65535)),
    ],
)
def test_addresses_are_read_and_written(text: str, address: UnixAddress | TcpAddress) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "unix:", "unix:here.sock", "localhost", "h:", ":1", "h:65536", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)
