"""A traffic generator on another machine: the client of the generator service, for a caller that blocks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, TypeVar

import grpc.aio

from gateway.api.address import Address, TlsFiles, dial
from gateway.api.bench.v1 import generator_pb2 as gpb
from gateway.api.bench.v1.generator_pb2_grpc import GeneratorServiceStub
from gateway.api.errors import api_error
from gateway.api.generator import GeneratorError, Load, Port, Traffic, Tunnel
from gateway.api.generator_service import (
    mac_octets,
    read_port,
    read_traffic,
    write_load,
    write_tunnel,
)

T = TypeVar("T")

_DEADLINE_S: Final = 60.0
"""Of one call, beside the time that packets are sent."""


class RemoteGenerator:
    """Reaches a generator agent. Its calls block: it has an event loop of its own."""

    pid: int | None = None
    """It is no process of this machine."""

    def __init__(self, address: Address, tls: TlsFiles | None) -> None:
        self._runner = asyncio.Runner()
        self._channel = self._runner.run(self._dial(address, tls))
        # The generated stub is untyped; every answer gets its type where it is used.
        self._stub: Any = GeneratorServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._gateway_macs = (b"", b"")

    def ports(self) -> tuple[Port, Port]:
        """Return its interfaces: LAN and outer.

        Raises:
            ApiError: Nobody answers there, or we may not use it.
        """
        answer: gpb.GetPortsResponse = self._call(self._stub.GetPorts, gpb.GetPortsRequest())
        return read_port(answer.lan), read_port(answer.outer)

    def aim(self, *, gateway_lan: str, gateway_outer: str) -> None:
        """Have it send to these link addresses of the gateway, from the next `configure` on."""
        self._gateway_macs = mac_octets(gateway_lan), mac_octets(gateway_outer)

    def configure(self, tunnel: Tunnel | None) -> None:
        """See `Generator.configure`."""
        lan, outer = self._gateway_macs
        request = gpb.StartRequest(gateway_lan_link_address=lan, gateway_outer_link_address=outer)
        if tunnel is not None:
            request.tunnel.CopyFrom(write_tunnel(tunnel))
        self._call(self._stub.Start, request)

    def run(self, load: Load, on_window: Callable[[bool], None]) -> Traffic:
        """See `Generator.run`."""
        return self._runner.run(self._run(load, on_window))

    def close(self) -> None:
        """See `Generator.close`; it can be configured again."""
        self._call(self._stub.Stop, gpb.StopRequest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection for good."""
        self._runner.run(self._channel.close())
        self._runner.close()

    async def _dial(self, address: Address, tls: TlsFiles | None) -> grpc.aio.Channel:
        return dial(address, tls)

    def _call(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        return self._runner.run(self._ask(method, request))

    async def _ask(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        try:
            return await method(request, timeout=_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise api_error(error) from error

    async def _run(self, load: Load, on_window: Callable[[bool], None]) -> Traffic:
        try:
            async for event in self._stub.Run(write_load(load), timeout=load.seconds + _DEADLINE_S):
                kind = event.WhichOneof("event")
                if kind == "traffic":
                    return read_traffic(event.traffic)
                on_window(kind == "opened")
        except grpc.aio.AioRpcError as error:
            raise api_error(error) from error
        raise GeneratorError("the generator ended without saying what it counted")
