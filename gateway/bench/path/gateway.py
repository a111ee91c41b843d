"""The gateway under test: an agent in the bed's namespace, with SAs installed over its API, without IKE."""

import asyncio
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from gateway.api.address import UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.api.generator import KeyedSas, Tunnel
from gateway.bench.agent import NoAgentError, running_agent, socket_path
from gateway.bench.path.bed import GATEWAY_OUTER, LOCAL_NETWORK, PEER, REMOTE_NETWORK
from gateway.bench.topology import Namespace
from gateway.datapath.backend import DatapathError, ItemResult
from gateway.datapath.registry import ENGINES
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

MAX_SAS: Final = 16384
"""As many as the generator has room for."""
_FIRST_SPI: Final = {Direction.OUTBOUND: 0x0100_0000, Direction.INBOUND: 0x0200_0000}
_BATCH: Final = 500
_SALT_BYTES: Final = 4
#: Of the sizes that the profiles of NICs have, the largest that all of them take.
REPLAY_WINDOW_PACKETS: Final = 256
_CONNECTION: Final = "bench"


class NotPlaced(GatewayError):
    """SAs cannot be where they are to be measured; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where SAs were found when they were read back."""

    placements: tuple[str, ...]
    """Each engine that has some, in order; one, if all is well."""
    sas: int
    words: str
    """What the backend says of it: why not better, or by which methods packets come and go."""

    @property
    def name(self) -> str:
        """Return the engine, or all of them."""
        return "+".join(self.placements)


def backend_of(engine: Engine) -> str:
    """Return the backend that drives an engine.

    Raises:
        NotPlaced: This version has none.
    """
    for name, engines in ENGINES.items():
        if engine in engines:
            return name
    raise NotPlaced("this version has no backend that drives it")


class Gateway:
    """An agent that runs, and our connection to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", directory: Path) -> None:
        self._process = process
        self._runner = asyncio.Runner()
        self._socket = socket_path(directory)
        self._client = self._runner.run(self._connect())

    @property
    def pid(self) -> int:
        """The agent's process; what it starts are its children."""
        return self._process.pid

    def install(self, engine: Engine, count: int, key_bits: int) -> Tunnel:
        """Install pairs of SAs and an SPD entry for each, all required to be on an engine.

        Raises:
            NotPlaced: The agent refuses, with its reason.
        """
        tunnel = new_tunnel(count, key_bits)
        pairs = tunnel.sas
        for index in range(0, count, _BATCH):
            batch = range(index, min(index + _BATCH, count))
            self._runner.run(self._install_batch(engine, [(i, pairs[i]) for i in batch], key_bits))
        return tunnel

    def whereabouts(self) -> Whereabouts:
        """Read back where the SAs are now."""
        installed = self._runner.run(self._client.list_sas())
        return Whereabouts(
            placements=tuple(sorted({item.placement.value for item in installed})),
            sas=len(installed),
            words="; ".join(sorted({item.placement_reason for item in installed} - {""})),
        )

    def drops(self) -> dict[str, int]:
        """Return what was dropped so far, by reason, over all SAs and without one."""
        counters = self._runner.run(self._client.counters())
        totals: dict[str, int] = {}
        for drops in (counters.drops, *(sa.drops for sa in counters.sas)):
            for reason, packets in drops.items():
                totals[reason.value] = totals.get(reason.value, 0) + packets
        return {reason: packets for reason, packets in sorted(totals.items()) if packets}

    def close(self) -> None:
        """Remove every SA and SPD entry, and close the connection; the process is its starter's to end."""
        try:
            self._runner.run(self._clear())
        except DatapathError:
            pass  # it is gone, which is for whoever met it first to say
        finally:
            self._runner.run(self._client.close())
            self._runner.close()

    async def _connect(self) -> DatapathClient:
        return DatapathClient(UnixAddress(self._socket))

    async def _install_batch(
        self, engine: Engine, pairs: Sequence[tuple[int, KeyedSas]], key_bits: int
    ) -> None:
        sas = [(_sa(i, pair, way, engine, key_bits), way) for i, pair in pairs for way in Direction]
        policies = [_policy(index, engine) for index, _ in pairs]
        for way in (Direction.INBOUND, Direction.OUTBOUND):
            if way is Direction.OUTBOUND:
                _check(await self._client.apply_policies(policies))
            _check(await self._client.install_sas([sa for sa, its_way in sas if its_way is way]))

    async def _clear(self) -> None:
        installed = await self._client.list_sas()
        await self._client.remove_sas([item.sa.sa_id for item in installed])
        await self._client.remove_policies([policy.name for policy in await self._client.list_policies()])


def new_tunnel(count: int, key_bits: int) -> Tunnel:
    """Return pairs of SAs with new keys."""
    pairs = [_new_pair(index, key_bits) for index in range(count)]
    return Tunnel(gateway=GATEWAY_OUTER, peer=PEER, key_bits=key_bits, sas=pairs)


@contextmanager
def running_gateway(
    namespace: Namespace, directory: Path, engine: Engine, options: Sequence[str] = ()
) -> Iterator[Gateway]:
    """Run an agent with the backend that drives an engine; nothing of it is left at the end.

    Args:
        namespace: Where it runs.
        directory: For its sockets and its log.
        engine: Which.
        options: More of `ipsecgw agent`'s.

    Raises:
        NotPlaced: There is no such backend, or it cannot run here; the text has its reason.
    """
    backend = backend_of(engine)
    try:
        with running_agent(namespace, directory, backend, options) as process:
            gateway = Gateway(process, directory)
            try:
                yield gateway
            finally:
                gateway.close()
    except NoAgentError as error:
        raise NotPlaced(str(error)) from error


def _new_pair(index: int, key_bits: int) -> KeyedSas:
    key_bytes = key_bits // 8 + _SALT_BYTES
    return KeyedSas(
        outbound_spi=Spi(_FIRST_SPI[Direction.OUTBOUND] + index),
        outbound_key=Secret(secrets.token_bytes(key_bytes)),
        inbound_spi=Spi(_FIRST_SPI[Direction.INBOUND] + index),
        inbound_key=Secret(secrets.token_bytes(key_bytes)),
    )


def _sa(
    index: int, pair: KeyedSas, direction: Direction, engine: Engine, key_bits: int
) -> SecurityAssociation:
    is_out = direction is Direction.OUTBOUND
    return SecurityAssociation(
        spi=pair.outbound_spi if is_out else pair.inbound_spi,
        direction=direction,
        source=GATEWAY_OUTER if is_out else PEER,
        destination=PEER if is_out else GATEWAY_OUTER,
        encryption=Encr.AES_GCM_16,
        encryption_key=pair.outbound_key if is_out else pair.inbound_key,
        key_bits=key_bits,
        replay_window_packets=REPLAY_WINDOW_PACKETS,
        local_ts=_selectors(LOCAL_NETWORK),
        remote_ts=_selectors(remote_network(index)),
        connection=_CONNECTION,
        child=str(index),
        child_sa_id=index + 1,
        placement=Placement(require=engine),
    )


def _policy(index: int, engine: Engine) -> Policy:
    return Policy(
        name=f"{_CONNECTION}/{index}",
        action=Action.PROTECT,
        local_ts=_selectors(LOCAL_NETWORK),
        remote_ts=_selectors(remote_network(index)),
        local_address=GATEWAY_OUTER,
        remote_address=PEER,
        connection=_CONNECTION,
        child=str(index),
        placement=Placement(require=engine),
    )


def remote_network(index: int) -> IPv4Network:
    """Return the network behind one pair of SAs, as the generator numbers them too."""
    return IPv4Network((int(REMOTE_NETWORK.network_address) + (index << 8), 24))


def _selectors(network: IPv4Network) -> tuple[TrafficSelector, ...]:
    return (TrafficSelector.parse(str(network)),)


def _check(results: Sequence[ItemResult]) -> None:
    for result in results:
        if result.error is not None:
            raise NotPlaced(str(result.error))
