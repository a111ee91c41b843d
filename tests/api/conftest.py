"""Real servers on real Unix sockets, in this process, in front of fakes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.api.address import UnixAddress
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from tests.api.fake_controller import FakeController
from tests.fakes.datapath import FakeDatapath


@pytest.fixture
def fake_datapath() -> FakeDatapath:
    return FakeDatapath()


@pytest.fixture
async def datapath_address(fake_datapath: FakeDatapath, tmp_path: Path) -> AsyncIterator[UnixAddress]:
    address = UnixAddress(tmp_path / "datapath.sock")
    server = ApiServer([Listener(address=address)], datapath=fake_datapath)
    await server.start()
    yield address
    await server.stop(grace_s=0)


@pytest.fixture
async def datapath(datapath_address: UnixAddress) -> AsyncIterator[DatapathClient]:
    client = DatapathClient(datapath_address, patience_s=0.0)
    yield client
    await client.close()


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
async def control_address(controller: FakeController, tmp_path: Path) -> AsyncIterator[UnixAddress]:
    address = UnixAddress(tmp_path / "control.sock")
    server = ApiServer([Listener(address=address)], control=controller)
    await server.start()
    yield address
    await server.stop(grace_s=0)


@pytest.fixture
async def control(control_address: UnixAddress) -> AsyncIterator[ControlClient]:
    async with ControlClient(control_address) as client:
        yield client
