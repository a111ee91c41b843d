"""Every datapath that the suite runs against."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from gateway.datapath.backend import Datapath
from gateway.datapath.software.backend import SoftwareBackend
from gateway.host.sockets import PortOptions, open_ports
from tests.conformance.namespace import fresh_network_namespace
from tests.fakes.datapath import FakeDatapath

OUR_ADDRESSES = ("192.0.2.1/24", "2001:db8::1/64", "10.1.0.1/16", "fd00:1::1/64")


SOFTWARE = pytest.param("software", marks=pytest.mark.netns)


@pytest.fixture(params=["fake", SOFTWARE])
async def datapath(request: pytest.FixtureRequest) -> AsyncIterator[Datapath]:
    """Any datapath, empty and ready."""
    async with OPENERS[request.param]() as opened:
        yield opened


@pytest.fixture(params=[SOFTWARE])
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


OPENERS: dict[str, Callable[[], AbstractAsyncContextManager[Datapath]]] = {
    "fake": open_fake,
    "software": open_software,
}
