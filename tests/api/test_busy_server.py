"""A server that has no time to greet its clients at once is there all the same."""

import asyncio
import contextlib
from pathlib import Path

from gateway.api.address import UnixAddress
from gateway.api.control_client import ControlClient
from tests.api.fake_controller import FakeController

_BUSY_S = 0.5


async def test_a_client_waits_for_a_server_that_greets_it_late(
    controller: FakeController, control_address: UnixAddress, tmp_path: Path
) -> None:
    busy = UnixAddress(tmp_path / "busy.sock")

    async def serve_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(_BUSY_S)
        from_server, to_server = await asyncio.open_unix_connection(control_address.path)
        await asyncio.gather(relay(reader, to_server), relay(from_server, writer))

    async with await asyncio.start_unix_server(serve_late, busy.path), ControlClient(busy) as client:
        status = await client.status()

    assert status.child_sas == 4


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on everything until one of the two is gone."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
