"""Real servers on real Unix sockets, in this process, in front of fakes."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.api.address import UnixAddress
from gateway.api.control_client import ControlClient
from gateway.api.datapath_client import DatapathClient
from gateway.api.listener import Listener
from gateway.api.server import ApiServer
from gateway.observe.logs import JsonFormatter
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


@pytest.fixture
def audit_lines() -> Iterator[list[dict[str, object]]]:
    lines: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    logger = logging.getLogger("gateway.audit")
    keep, level = Keep(), logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(keep)
    logger.setLevel(level)
