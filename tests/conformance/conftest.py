"""Every datapath that the suite runs against."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
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
from tests.conformance.engine_methods import METHODS, WatchedEngine, check_sent, take_redirected_frames
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
ENGINE_LIVE = pytest.param("engine_live", marks=pytest.mark.netns)
ENGINE_BOOKS = pytest.param("engine_books", marks=pytest.mark.netns)
#: Where no packet comes, one method shows what the others show.
SLOW_METHODS = [
    pytest.param(name, marks=[pytest.mark.netns, pytest.mark.slow])
    for name in METHODS
    if name != "engine_live"
]
REAL = [SOFTWARE, REMOTE, XFRM, EVERY, ENGINE, ENGINE_LIVE, *SLOW_METHODS, ENGINE_BOOKS]


@pytest.fixture(params=["fake", *REAL])
async def datapath(request: pytest.FixtureRequest) -> AsyncIterator[Datapath]:
    """Any datapath, empty and ready."""
    async with OPENERS[request.param]() as opened:
        yield opened


@pytest.fixture(params=REAL)
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


def engine_options(name: str = "engine", *, state_dir: Path | None = None) -> EngineOptions:
    """Return how the engine built here sits in a namespace: with TUN and raw sockets, or one of `METHODS`."""
    program = make("espd", source=ESPD) / "espd"
    if name == "engine":
        return EngineOptions(program=program, state_dir=state_dir)
    sending, *_ = METHODS[name]
    return EngineOptions(program=program, interfaces=("outside",), sending=sending, state_dir=state_dir)


@asynccontextmanager
async def open_engine(name: str = "engine") -> AsyncIterator[Datapath]:
    """The native engine, with an espd of its own; at the end it shows by what it sent."""
    with fresh_network_namespace(*OUR_ADDRESSES):
        take_redirected_frames("beyond")
        ports = open_ports(PortOptions())
        backend = WatchedEngine(engine_options(name), ports.esp)
        try:
            await backend.start()
            yield backend
            if name in METHODS and not backend.is_closed:
                await check_sent(backend, name)
        finally:
            await backend.close()
            ports.close()


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
    **{name: partial(open_engine, name) for name in METHODS},
    "engine_books": open_engine_books,
}
