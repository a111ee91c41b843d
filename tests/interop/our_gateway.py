"""Our gateway for many tests: one process whose connections change, driven through its API."""

import asyncio
import csv
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.api.address import UnixAddress
from gateway.api.config_file import load_config
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_client import ControlClient
from gateway.bench.topology import Namespace
from tests.netns.command import Gateway

R = TypeVar("R")

_WAIT_S = 60.0


class OurGateway:
    """`ipsecgw run` in a namespace; each test gives it the connections it needs.

    The command line takes most of a second to start, so the API is called directly.
    """

    def __init__(self, namespace: Namespace, directory: Path, options: tuple[str, ...] = ()) -> None:
        self.process = Gateway(namespace, directory, "connections: []\n", options)
        self._loop = asyncio.new_event_loop()
        self._client: ControlClient | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.process.start()
        self._client = self._run(self._dial())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        self._run(self._client.close())
        self._loop.close()
        self.process.stop()

    def configure(self, config: str) -> None:
        """Take these connections and no others; the SAs of those that change or go are deleted."""
        self._log_start = len(self.process.log())
        path = self.process.config_path
        path.write_text(config)
        results = self._run(self._api.apply(load_config(path).message.connections, prune=True))
        for result in results:
            assert not result.HasField("error"), f"{result.name}: {result.error.message}"

    def up(self, target: str) -> pb.Operation:
        """Bring up `CONNECTION` or `CONNECTION/CHILD` and return how that ended."""
        return self._run(self._api.initiate(_target(target), wait_s=_WAIT_S))

    def down(self, target: str) -> pb.Operation:
        """Delete the SAs of `CONNECTION` or `CONNECTION/CHILD` and return how that ended."""
        return self._run(self._api.terminate(_target(target), wait_s=_WAIT_S))

    def rekey(self, target: str, *, reauthenticate: bool = False) -> pb.Operation:
        """Rekey the IKE SA of `CONNECTION` or the Child SA of `CONNECTION/CHILD`; return how that ended."""
        return self._run(self._api.rekey(_target(target), reauthenticate=reauthenticate, wait_s=_WAIT_S))

    def ike_sas(self) -> list[pb.IkeSa]:
        """Return the IKE SAs."""
        return list(self._run(self._api.ike_sas()))

    def child_sas(self) -> list[pb.ChildSa]:
        """Return the Child SAs."""
        return list(self._run(self._api.child_sas()))

    def explain(self, connection: str) -> str:
        """Return what there is to know about a connection."""
        return "\n".join(f"{fact.topic}: {fact.text}" for fact in self._run(self._api.explain(connection)))

    def keys(self) -> dict[int, tuple[str, str]]:
        """Return encryption and integrity key (hexadecimal) of every SA that our datapath got, by SPI."""
        table = self.process.key_log / "esp_sa"
        rows = csv.reader(table.read_text().splitlines()) if table.exists() else ()
        return {
            int(spi, 16): (encryption.removeprefix("0x"), integrity.removeprefix("0x"))
            for _, _, _, spi, _, encryption, _, integrity in rows
        }

    def log(self) -> str:
        """Return the log since the last `configure`."""
        return self.process.log()[self._log_start :]

    @property
    def _api(self) -> ControlClient:
        assert self._client is not None, "not started"
        return self._client

    async def _dial(self) -> ControlClient:
        return ControlClient(UnixAddress(self.process.directory / "run" / "control.sock"))

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return self._loop.run_until_complete(work)


def _target(name: str) -> pb.Target:
    connection, _, child = name.partition("/")
    return pb.Target(connection=connection, child=child)


def failure_of(operation: pb.Operation) -> str:
    """Return why an operation did not succeed, or the empty string."""
    if operation.state == pb.OPERATION_STATE_SUCCEEDED:
        return ""
    return str(operation.failure) or f"not done after {_WAIT_S} s: {operation}"
