"""Every datapath that the suite runs against."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.agent.agent import Agent
from gateway.api.address import UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.app.backends import make_datapath
from gateway.datapath.backend import Datapath
from gateway.datapath.engine.backend import EngineBackend
from gateway.datapath.engine.options import EngineOptions
from gateway.datapath.registry import AUTO, BackendOptions
from gateway.datapath.software.backend import SoftwareBackend
from gateway.datapath.software.tun import Tun
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.host.sockets import PortOptions, open_ports
from tests.conformance.namespace import fresh_network_namespace
from tests.engine.conftest import make
from tests.fakes.datapath import FakeDatapath
from tests.fakes.espd import FakeLauncher

ESPD = Path(__file__).parents[2] / "hw" / "espd"
OUR_ADDRESSES = ("192.0.2.1/24", "2001:db8::1/64", "10.1.0.1/16", "fd00:1::1/64")


SOFTWARE = pytest.param("software", marks=pytest.mark.netns)
REMOTE = pytest.param("remote", marks=pytest.mark.netns)
XFRM = pytest.param("xfrm", marks=pytest.mark.guest)
EVERY = pytest.param("every", marks=pytest.mark.guest)
ENGINE = pytest.param("engine", marks=pytest.mark.netns)
ENGINE_XDP = pytest.param("engine_xdp", marks=pytest.mark.netns)
ENGINE_BOOKS = pytest.param("engine_books", marks=pytest.mark.netns)


@pytest.fixture(params=["fake", SOFTWARE, REMOTE, XFRM, EVERY, ENGINE, ENGINE_XDP, ENGINE_BOOKS])
async def datapath(request: pytest.FixtureRequest) -> AsyncIterator[Datapath]:
    """Any datapath, empty and ready."""
    async with OPENERS[request.param]() as opened:
        yield opened


@pytest.fixture(params=[SOFTWARE, REMOTE, XFRM, EVERY, ENGINE, ENGINE_XDP, ENGINE_BOOKS])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Datapath]:
    """A datapath with an engine behind it, which refuses what it cannot carry; the fakes take everything."""
    async with OPENERS[request.param]() as opened:
        yield opened


@asynccontextmanager
async def open_fake() -> AsyncIterator[Datapath]:
    fake = FakeDatapath()
    yield fake
    await fake.close()


@asynccontextmanager
async def open_software() -> AsyncIterator[Datapath]:
    with fresh_network_namespace(*OUR_ADDRESSES):
        ports = open_ports(PortOptions())
        backend = SoftwareBackend(esp_sockets=ports.esp)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.close()
            ports.close()


@asynccontextmanager
async def open_xfrm() -> AsyncIterator[Datapath]:
    with fresh_network_namespace(*OUR_ADDRESSES):
        ports = open_ports(PortOptions())
        backend = XfrmBackend(esp_sockets=ports.esp)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.close()
            ports.close()


def engine_options(*interfaces: str, state_dir: Path | None = None) -> EngineOptions:
    """Return how the native engine sits in a namespace, built here; it may have interfaces for itself."""
    program = make("espd", source=ESPD) / "espd"
    return EngineOptions(program=program, interfaces=interfaces, state_dir=state_dir)


@asynccontextmanager
async def open_engine(*interfaces: str) -> AsyncIterator[Datapath]:
    """The native engine, with an espd of its own, which may have interfaces for itself."""
    with fresh_network_namespace(*OUR_ADDRESSES):
        ports = open_ports(PortOptions())
        backend = EngineBackend(engine_options(*interfaces), ports.esp)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.close()
            ports.close()


def open_engine_xdp() -> AbstractAsyncContextManager[Datapath]:
    """The same, by AF_XDP in and by AF_XDP or live frames out: espd chooses."""
    return open_engine("outside")


@asynccontextmanager
async def open_engine_books() -> AsyncIterator[Datapath]:
    """The backend of the native engine over an espd that keeps the books and carries nothing."""
    with fresh_network_namespace(*OUR_ADDRESSES), TemporaryDirectory() as folder:
        ports = open_ports(PortOptions())
        launcher = FakeLauncher(Tun)
        backend = EngineBackend(EngineOptions(state_dir=Path(folder)), ports.esp, launcher=launcher)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.close()
            launcher.espd.end()
            ports.close()


@asynccontextmanager
async def open_every() -> AsyncIterator[Datapath]:
    """Every backend that can run here, as an agent has them: without ESP in the kernel only software."""
    with fresh_network_namespace(*OUR_ADDRESSES):
        ports = open_ports(PortOptions())
        dispatcher = make_datapath(AUTO, BackendOptions(esp_sockets=ports.esp))
        await dispatcher.start()
        agent = Agent(dispatcher, fingerprint_key=bytes(32))
        try:
            await agent.start()
            yield agent
        finally:
            await agent.close()
            ports.close()


@asynccontextmanager
async def open_remote() -> AsyncIterator[Datapath]:
    """The same as a controller has it, over gRPC."""
    async with open_every() as agent:
        with TemporaryDirectory() as folder:
            address = UnixAddress(Path(folder) / "datapath.sock")
            server = ApiServer([Listener(address=address)], datapath=agent)
            await server.start()
            client = DatapathClient(address)
            try:
                yield client
            finally:
                await client.close()
                await server.stop(grace_s=0)


OPENERS: dict[str, Callable[[], AbstractAsyncContextManager[Datapath]]] = {
    "fake": open_fake,
    "software": open_software,
    "remote": open_remote,
    "xfrm": open_xfrm,
    "every": open_every,
    "engine": open_engine,
    "engine_xdp": open_engine_xdp,
    "engine_books": open_engine_books,
}
