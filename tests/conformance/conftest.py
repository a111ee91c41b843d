"""Every datapath that the suite runs against."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.agent.agent import Agent
from gateway.api.address import UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.api.server import ApiServer, Listener
from gateway.datapath.backend import Datapath
from gateway.datapath.software.backend import SoftwareBackend
from gateway.datapath.xfrm.backend import XfrmBackend
from gateway.host.sockets import PortOptions, open_ports
from tests.conformance.namespace import fresh_network_namespace
from tests.fakes.datapath import FakeDatapath

OUR_ADDRESSES = ("192.0.2.1/24", "2001:db8::1/64", "10.1.0.1/16", "fd00:1::1/64")


SOFTWARE = pytest.param("software", marks=pytest.mark.netns)
REMOTE = pytest.param("remote", marks=pytest.mark.netns)
XFRM = pytest.param("xfrm", marks=pytest.mark.guest)


@pytest.fixture(params=["fake", SOFTWARE, REMOTE, XFRM])
async def datapath(request: pytest.FixtureRequest) -> AsyncIterator[Datapath]:
    """Any datapath, empty and ready."""
    async with OPENERS[request.param]() as opened:
        yield opened


@pytest.fixture(params=[SOFTWARE, REMOTE, XFRM])
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


@asynccontextmanager
async def open_remote() -> AsyncIterator[Datapath]:
    """The software backend as a controller has it: behind an agent, over gRPC."""
    async with open_software() as backend:
        agent = Agent(backend, fingerprint_key=bytes(32))
        await agent.start()
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
                await agent.close()


OPENERS: dict[str, Callable[[], AbstractAsyncContextManager[Datapath]]] = {
    "fake": open_fake,
    "software": open_software,
    "remote": open_remote,
    "xfrm": open_xfrm,
}
