import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.fakes.virtual_loop import VirtualLoop
from tests.unit.controller.gateways import Gateway, Wire


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let time jump in every test of this folder."""
    return {"virtual": VirtualLoop}


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def paris(wire: Wire) -> AsyncIterator[Gateway]:
    gateway = Gateway(wire, is_paris=True)
    await gateway.start()
    yield gateway
    await gateway.controller.stop()
    await gateway.agent.close()


@pytest.fixture
async def tokyo(wire: Wire) -> AsyncIterator[Gateway]:
    gateway = Gateway(wire, is_paris=False)
    await gateway.start()
    yield gateway
    await gateway.controller.stop()
    await gateway.agent.close()
