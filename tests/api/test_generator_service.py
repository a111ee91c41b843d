"""The generator of test traffic over real sockets: who may use it, and what becomes of what is asked."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from gateway.api.address import Address, AddressError, TcpAddress, TlsFiles, UnixAddress
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.api.errors import ApiError
from gateway.api.generator import GeneratorError, KeyedSas, Load, Port, Traffic, Tunnel
from gateway.api.generator_client import RemoteGenerator
from gateway.api.generator_service import MAX_FLOWS, MAX_SECONDS
from gateway.api.listener import Listener, ListenError
from gateway.api.roles import Role
from gateway.api.server import ApiServer
from gateway.datapath.backend import DatapathError
from gateway.ipsec.sa import Spi
from gateway.ipsec.secret import Secret
from tests.api.certificates import Authority

T = TypeVar("T")

TUNNEL = Tunnel(
    gateway=IPv4Address("192.0.2.1"),
    peer=IPv4Address("192.0.2.2"),
    key_bits=128,
    sas=[
        KeyedSas(
            outbound_spi=Spi(0x1000 + i),
            outbound_key=Secret(bytes(range(20))),
            inbound_spi=Spi(0x2000 + i),
            inbound_key=Secret(bytes(range(1, 21))),
        )
        for i in range(3)
    ],
)
LOAD = Load(
    is_out=True,
    is_esp=True,
    packets_per_s=1234.5,
    seconds=0.5,
    flows=7,
    sample=8,
    sizes_bytes=(64, 1420),
)
TRAFFIC = Traffic(
    seconds=0.5,
    sent=600,
    send_retries=1,
    received_in_window=590,
    received=599,
    received_bytes=99_000,
    sink_drops=2,
    samples=75,
    bad_samples=3,
    clear_samples=4,
    sender_cpu_s=0.25,
    sink_cpu_s=0.125,
    method="live frames",
    latency_us={"p50": 11.0, "max": 99.5},
)
GATEWAY = {"gateway_lan": "02:00:00:00:00:0a", "gateway_outer": "02:00:00:00:00:0b"}


class FakeGenerator:
    """Counts what `TRAFFIC` says, whatever is asked for; with `holds`, only after `close`."""

    pid = None

    def __init__(self, *, holds: bool = False, fails: str = "") -> None:
        self.holds = holds
        self.fails = fails
        self.gateway: dict[str, str] = {}
        self.tunnels: list[Tunnel | None] = []
        self.loads: list[Load] = []
        self.closed = threading.Event()

    def ports(self) -> tuple[Port, Port]:
        return Port("ens1", "02:00:00:00:00:01"), Port("ens2", "02:00:00:00:00:02")

    def aim(self, **gateway: str) -> None:
        self.gateway = gateway

    def configure(self, tunnel: Tunnel | None) -> None:
        self.tunnels.append(tunnel)
        self.closed.clear()

    def run(self, load: Load, on_window: Callable[[bool], None]) -> Traffic:
        self.loads.append(load)
        if self.fails:
            raise GeneratorError(self.fails)
        on_window(True)
        if self.holds and self.closed.wait(20):
            raise GeneratorError("closed")
        on_window(False)
        return TRAFFIC

    def close(self) -> None:
        self.closed.set()


@asynccontextmanager
async def served(listener: Listener, generator: FakeGenerator | None = None) -> AsyncIterator[Address]:
    server = ApiServer([listener], generator=generator or FakeGenerator())
    await server.start()
    try:
        yield server.addresses[0]
    finally:
        await server.stop(grace_s=0)


def socket(tmp_path: Path) -> Listener:
    return Listener(address=UnixAddress(tmp_path / "bench.sock"), roles=frozenset({Role.BENCH}))


async def remote(address: Address, work: Callable[[RemoteGenerator], T], tls: TlsFiles | None = None) -> T:
    """Do blocking work with a client, in a thread: it has an event loop of its own."""

    def use() -> T:
        with RemoteGenerator(address, tls) as generator:
            return work(generator)

    return await asyncio.to_thread(use)


async def test_what_is_asked_arrives_whole_and_so_does_what_was_counted(tmp_path: Path) -> None:
    windows: list[bool] = []
    fake = FakeGenerator()

    def work(generator: RemoteGenerator) -> Traffic:
        assert [port.device for port in generator.ports()] == ["ens1", "ens2"]
        assert generator.ports()[1].mac == "02:00:00:00:00:02"
        generator.aim(**GATEWAY)
        generator.configure(TUNNEL)
        traffic = generator.run(LOAD, windows.append)
        generator.configure(None)
        generator.close()
        return traffic

    async with served(socket(tmp_path), fake) as address:
        traffic = await remote(address, work)

    assert traffic == TRAFFIC
    assert windows == [True, False]
    assert fake.tunnels == [TUNNEL, None]
    assert fake.loads == [LOAD]
    assert fake.gateway == GATEWAY
    assert fake.closed.is_set()


# --- who may --------------------------------------------------------------------------------------


async def test_only_the_role_bench_may_use_it_and_it_may_use_nothing_else(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    server = authority.sign("server")
    bench = authority.sign("bench", roles=(Role.BENCH,))
    others = authority.sign("others", roles=(Role.ADMIN, Role.DATAPATH))
    nobody = authority.sign("nobody")
    fake = FakeGenerator()

    async with served(Listener(address=TcpAddress("127.0.0.1", 0), tls=server), fake) as address:
        assert await remote(address, lambda generator: generator.ports()[0].device, bench) == "ens1"
        for files in (others, nobody):
            with pytest.raises(ApiError, match="GetPorts needs the role bench") as refused:
                await remote(address, RemoteGenerator.ports, files)
            assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
            for call in (
                lambda generator: generator.configure(None),
                lambda generator: generator.run(LOAD, print),
                RemoteGenerator.close,
            ):
                with pytest.raises(ApiError, match="needs the role bench"):
                    await remote(address, aimed(call), files)
    assert fake.tunnels == []
    assert fake.loads == []

    gateway = ApiServer([Listener(address=TcpAddress("127.0.0.1", 0), tls=server)], generator=FakeGenerator())
    await gateway.start()
    try:
        async with ControlClient(gateway.addresses[0], tls=bench) as client:
            with pytest.raises(ApiError):
                await client.status()
        datapath = DatapathClient(gateway.addresses[0], tls=bench, patience_s=0.1)
        with pytest.raises(DatapathError):
            await datapath.capabilities()
        await datapath.close()
    finally:
        await gateway.stop(grace_s=0)


def aimed(call: Callable[[RemoteGenerator], Any]) -> Callable[[RemoteGenerator], Any]:
    def work(generator: RemoteGenerator) -> Any:
        generator.aim(**GATEWAY)
        return call(generator)

    return work


async def test_without_tls_only_a_unix_socket_is_served_and_dialled() -> None:
    server = ApiServer([Listener(address=TcpAddress("127.0.0.1", 0))], generator=FakeGenerator())

    with pytest.raises(ListenError, match="needs mutual TLS"):
        await server.start()
    with pytest.raises(AddressError, match="needs mutual TLS"):
        await remote(TcpAddress("127.0.0.1", 1), RemoteGenerator.ports)


# --- what can go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds": 0.0}, "more than 0"),
        ({"seconds": MAX_SECONDS + 1}, "at most 3600 seconds"),
        ({"packets_per_s": -1.0}, "and a rate"),
        ({"flows": 0}, "flows"),
        ({"flows": MAX_FLOWS + 1}, "flows"),
        ({"sample": 0}, "sample"),
        ({"sizes_bytes": ()}, "sizes"),
    ],
    ids=["no time", "too long", "rate", "no flows", "flows", "sample", "sizes"],
)
async def test_a_load_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    fake = FakeGenerator()
    load = replace(LOAD, **changes)
    async with served(socket(tmp_path), fake) as address:
        with pytest.raises(ApiError, match=words) as refused:
            await remote(address, lambda generator: generator.run(load, print))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert fake.loads == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"key_bits": 192}, "128 or 256"), ({"sas": []}, "one pair of SAs")],
    ids=["key", "no SAs"],
)
async def test_a_tunnel_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    fake = FakeGenerator()
    async with served(socket(tmp_path), fake) as address:
        with pytest.raises(ApiError, match=words) as refused:
            await remote(address, aimed(lambda generator: generator.configure(replace(TUNNEL, **changes))))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert fake.tunnels == []


async def test_a_link_address_must_be_told_before_anything_is_sent(tmp_path: Path) -> None:
    async with served(socket(tmp_path)) as address:
        with pytest.raises(ApiError, match="a link address is 6 octets"):
            await remote(address, lambda generator: generator.configure(None))


async def test_a_failure_of_the_generator_is_told_in_its_words(tmp_path: Path) -> None:
    async with served(socket(tmp_path), FakeGenerator(fails="no device ens1")) as address:
        with pytest.raises(ApiError, match="no device ens1") as refused:
            await remote(address, lambda generator: generator.run(LOAD, print))
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.reason == "GENERATOR_REFUSED"


async def test_a_client_that_goes_away_ends_its_run(tmp_path: Path) -> None:
    fake = FakeGenerator(holds=True)

    async with served(socket(tmp_path), fake) as address:
        with pytest.raises(_Left):
            await remote(address, lambda generator: generator.run(LOAD, leave))
        assert await asyncio.to_thread(fake.closed.wait, 10), "packets would be sent for nobody"


class _Left(Exception):
    pass


def leave(_is_open: bool) -> None:
    """Go away in the middle of a run."""
    raise _Left


async def test_while_packets_are_under_way_nobody_else_may_start(tmp_path: Path) -> None:
    fake = FakeGenerator(holds=True)
    sending = threading.Event()

    async with served(socket(tmp_path), fake) as address:
        running = asyncio.create_task(
            remote(address, lambda generator: generator.run(LOAD, lambda _: sending.set()))
        )
        assert await asyncio.to_thread(sending.wait, 10)
        with pytest.raises(ApiError, match="the generator is busy"):
            await remote(address, aimed(lambda generator: generator.configure(None)))
        fake.close()
        with pytest.raises(ApiError, match="closed"):
            await running
