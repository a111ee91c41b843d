"""The generator service: test traffic for a benchmark that runs on another machine.

The generator is blocking: it runs in a thread, one request at a time.
"""

# ruff: noqa: ARG002, N802 - the names of the methods are the .proto's, their parameters gRPC's

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields
from ipaddress import IPv4Address
from typing import Any, Final

import grpc.aio

from gateway.api.bench.v1 import generator_pb2 as gpb
from gateway.api.bench.v1.generator_pb2_grpc import GeneratorServiceServicer
from gateway.api.generator import Generator, GeneratorError, KeyedSas, Load, Port, Traffic, Tunnel
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.sa import Spi
from gateway.ipsec.secret import Secret

MAX_SECONDS: Final = 3600.0
MAX_FLOWS: Final = 1 << 16
_MAC_BYTES: Final = 6
#: Names in `Traffic` that the messages spell out.
_SPELLED: Final = {
    "sender_cpu_s": "sender_cpu_seconds",
    "sink_cpu_s": "sink_cpu_seconds",
    "latency_us": "latency_microseconds",
}

Context = grpc.aio.ServicerContext[Any, Any]


class GeneratorService(GeneratorServiceServicer):
    """Serves one generator to one client at a time."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._busy = asyncio.Lock()

    async def GetPorts(self, request: gpb.GetPortsRequest, context: Context) -> gpb.GetPortsResponse:
        """Return the interfaces."""
        lan, outer = await asyncio.to_thread(self._generator.ports)
        return gpb.GetPortsResponse(lan=_write_port(lan), outer=_write_port(outer))

    async def Start(self, request: gpb.StartRequest, context: Context) -> gpb.StartResponse:
        """Be the peer of some SAs."""
        tunnel = _read_tunnel(request.tunnel) if request.HasField("tunnel") else None
        lan = _read_mac(request.gateway_lan_link_address)
        outer = _read_mac(request.gateway_outer_link_address)
        async with self._alone():
            self._generator.aim(gateway_lan=lan, gateway_outer=outer)
            await asyncio.to_thread(self._generator.configure, tunnel)
        return gpb.StartResponse()

    async def Run(self, request: gpb.RunRequest, context: Context) -> AsyncIterator[gpb.RunResponse]:
        """Send, and tell how it goes; when the client goes away, end at once."""
        load = _read_load(request)
        loop = asyncio.get_running_loop()
        windows: asyncio.Queue[bool] = asyncio.Queue()

        def tell(is_open: bool) -> None:
            loop.call_soon_threadsafe(windows.put_nowait, is_open)

        async with self._alone():
            running = asyncio.create_task(
                asyncio.to_thread(self._generator.run, load, tell), name="generator-run"
            )
            try:
                for is_open in (True, False):
                    await _until_told(windows, running)
                    yield _window(is_open)
                yield gpb.RunResponse(traffic=write_traffic(await asyncio.shield(running)))
            finally:
                if not running.done():
                    await asyncio.to_thread(self._generator.close)
                    await asyncio.gather(running, return_exceptions=True)

    async def Stop(self, request: gpb.StopRequest, context: Context) -> gpb.StopResponse:
        """Forget the SAs."""
        async with self._alone():
            await asyncio.to_thread(self._generator.close)
        return gpb.StopResponse()

    def _alone(self) -> asyncio.Lock:
        """Return the lock, free.

        Raises:
            GeneratorError: Another client has it.
        """
        if self._busy.locked():
            raise GeneratorError("the generator is busy: another client's packets are under way")
        return self._busy


async def _until_told(windows: asyncio.Queue[bool], running: asyncio.Task[Traffic]) -> None:
    """Wait for the next window; a generator that ends before it has failed, with its own error."""
    told = asyncio.create_task(windows.get(), name="generator-window")
    try:
        await asyncio.wait({told, running}, return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            running.result()
            await told
    finally:
        told.cancel()


def _window(is_open: bool) -> gpb.RunResponse:
    if is_open:
        return gpb.RunResponse(opened=gpb.WindowOpened())
    return gpb.RunResponse(closed=gpb.WindowClosed())


# --- messages and records -------------------------------------------------------------------------


def write_tunnel(tunnel: Tunnel) -> gpb.Tunnel:
    """Return a tunnel as a message, keys included."""
    return gpb.Tunnel(
        gateway=tunnel.gateway.packed,
        peer=tunnel.peer.packed,
        key_bits=tunnel.key_bits,
        sas=[
            gpb.Sas(
                outbound_spi=sas.outbound_spi,
                outbound_key=sas.outbound_key.reveal(),
                inbound_spi=sas.inbound_spi,
                inbound_key=sas.inbound_key.reveal(),
            )
            for sas in tunnel.sas
        ],
    )


def write_load(load: Load) -> gpb.RunRequest:
    """Return a load as a message."""
    return gpb.RunRequest(
        way=gpb.WAY_OUT if load.is_out else gpb.WAY_IN,
        esp=load.is_esp,
        packets_per_second=load.packets_per_s,
        seconds=load.seconds,
        flows=load.flows,
        sample=load.sample,
        sizes=load.sizes_bytes,
    )


def write_traffic(traffic: Traffic) -> gpb.Traffic:
    """Return what was counted as a message."""
    return gpb.Traffic(
        **{_SPELLED.get(item.name, item.name): getattr(traffic, item.name) for item in fields(Traffic)}
    )


def read_traffic(message: gpb.Traffic) -> Traffic:
    """Return what was counted."""
    values = {item.name: getattr(message, _SPELLED.get(item.name, item.name)) for item in fields(Traffic)}
    return Traffic(**{**values, "latency_us": dict(message.latency_microseconds)})


def read_port(message: gpb.Port) -> Port:
    """Return an interface."""
    return Port(message.interface, _read_mac(message.link_address))


def mac_octets(mac: str) -> bytes:
    """Return a link address as a message has it."""
    return bytes.fromhex(mac.replace(":", ""))


def _write_port(port: Port) -> gpb.Port:
    return gpb.Port(interface=port.device, link_address=mac_octets(port.mac))


def _read_mac(octets: bytes) -> str:
    if len(octets) != _MAC_BYTES:
        raise VocabularyError(f"a link address is {_MAC_BYTES} octets, got {len(octets)}")
    return octets.hex(":")


def _read_tunnel(message: gpb.Tunnel) -> Tunnel:
    if message.key_bits not in (128, 256):
        raise VocabularyError(f"a key of AES-GCM is 128 or 256 bits here, got {message.key_bits}")
    try:
        gateway, peer = IPv4Address(message.gateway), IPv4Address(message.peer)
    except ValueError as error:
        raise VocabularyError(f"an outer address is four octets: {error}") from error
    if not message.sas:
        raise VocabularyError("a tunnel has one pair of SAs or more")
    return Tunnel(
        gateway=gateway,
        peer=peer,
        key_bits=message.key_bits,
        sas=[
            KeyedSas(
                outbound_spi=Spi(sas.outbound_spi),
                outbound_key=Secret(sas.outbound_key),
                inbound_spi=Spi(sas.inbound_spi),
                inbound_key=Secret(sas.inbound_key),
            )
            for sas in message.sas
        ],
    )


def _read_load(message: gpb.RunRequest) -> Load:
    if message.way not in (gpb.WAY_OUT, gpb.WAY_IN):
        raise VocabularyError("way: expected out or in")
    if not 0 < message.seconds <= MAX_SECONDS or not message.packets_per_second >= 0:
        raise VocabularyError(f"expected more than 0 and at most {MAX_SECONDS:.0f} seconds, and a rate")
    if not 1 <= message.flows <= MAX_FLOWS or not message.sample or not message.sizes:
        raise VocabularyError(f"expected 1 to {MAX_FLOWS} flows, sizes, and one in how many to sample")
    return Load(
        is_out=message.way == gpb.WAY_OUT,
        is_esp=message.esp,
        packets_per_s=message.packets_per_second,
        seconds=message.seconds,
        flows=message.flows,
        sample=message.sample,
        sizes_bytes=tuple(message.sizes),
    )
