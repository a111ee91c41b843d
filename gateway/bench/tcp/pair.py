"""Two gateways with one pair of SAs between them: agents alone, and keys over their API, without IKE."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from gateway.api.address import UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.bench.agent import NoAgentError, running_agent, socket_path
from gateway.bench.topology import Site, SiteToSite
from gateway.datapath.backend import ItemResult
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

_KEY_BITS: Final = 256
_SALT_BYTES: Final = 4
_CONNECTION: Final = "bench"
_IN_UDP: Final = UdpEncapsulation(source_port=4500, destination_port=4500)


class NoGateway(GatewayError):
    """A gateway cannot run as wanted, or takes no SAs; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How two gateways carry what is between them."""

    name: str
    backend: str
    """Empty: no gateway of ours, the kernel forwards in clear."""
    encapsulated: bool = False
    options: tuple[str, ...] = ()
    """More of the agent's."""


WAYS: Final = (
    Way(name="forwarding", backend=""),
    Way(name="engine", backend="engine"),
    Way(name="engine, in UDP", backend="engine", encapsulated=True),
    Way(name="engine, XDP outside", backend="engine", options=("--engine-interface", "outside")),
    Way(
        name="engine, XDP outside, in UDP",
        backend="engine",
        encapsulated=True,
        options=("--engine-interface", "outside"),
    ),
    Way(name="software", backend="software"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two agents that run."""

    pids: tuple[int, ...]
    words: str
    """How packets come and go, as the first says."""


@contextmanager
def running_pair(sites: SiteToSite, way: Way, directory: Path) -> Iterator[Pair]:
    """Run what a way needs; nothing of it is left at the end.

    Raises:
        NoGateway: An agent does not start, or refuses its SAs.
    """
    if not way.backend:
        with _routes_in_clear(sites):
            yield Pair(pids=(), words="kernel forwarding, in clear")
        return
    with ExitStack() as stack:
        ends = (sites.a, sites.b)
        directories = [directory / name for name in ("a", "b")]
        try:
            agents = [
                stack.enter_context(running_agent(site.gateway, place, way.backend, way.options))
                for site, place in zip(ends, directories, strict=True)
            ]
        except NoAgentError as error:
            raise NoGateway(str(error)) from error
        keys = [Secret(secrets.token_bytes(_KEY_BITS // 8 + _SALT_BYTES)) for _ in ends]
        words = [
            asyncio.run(_Half(way=way, here=ends[i], there=ends[1 - i], number=i, keys=keys).install(path))
            for i, path in enumerate(directories)
        ]
        yield Pair(pids=tuple(agent.pid for agent in agents), words=words[0])


@contextmanager
def _routes_in_clear(sites: SiteToSite) -> Iterator[None]:
    both = ((sites.a, sites.b), (sites.b, sites.a))
    for here, there in both:
        here.gateway.run("ip", "route", "replace", there.inside, "via", there.outside)
    try:
        yield
    finally:
        for here, there in both:
            here.gateway.run("ip", "route", "delete", there.inside, check=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Half:
    """What one side has of the pair of SAs."""

    way: Way
    here: Site
    there: Site
    number: int
    """Of this side: 0 or 1."""
    keys: Sequence[Secret]
    """By which the first and the second side send."""

    async def install(self, directory: Path) -> str:
        """Install the SAs at the agent that runs in a directory; return how it carries packets."""
        client = DatapathClient(UnixAddress(socket_path(directory)))
        try:
            _check(await client.install_sas([self._sa(Direction.INBOUND)]))
            _check(await client.apply_policies([_policy(self.here, self.there)]))
            _check(await client.install_sas([self._sa(Direction.OUTBOUND)]))
            return "; ".join(sorted({item.placement_reason for item in await client.list_sas()}))
        finally:
            await client.close()

    def _sa(self, direction: Direction) -> SecurityAssociation:
        is_out = direction is Direction.OUTBOUND
        ends = (self.here, self.there) if is_out else (self.there, self.here)
        number = self.number if is_out else 1 - self.number
        return SecurityAssociation(
            spi=Spi(0x0100_0000 + number),
            direction=direction,
            source=ip_address(ends[0].outside),
            destination=ip_address(ends[1].outside),
            encryption=Encr.AES_GCM_16,
            encryption_key=self.keys[number],
            key_bits=_KEY_BITS,
            encapsulation=_IN_UDP if self.way.encapsulated else None,
            local_ts=(TrafficSelector.parse(self.here.inside),),
            remote_ts=(TrafficSelector.parse(self.there.inside),),
            connection=_CONNECTION,
            child="lan",
            child_sa_id=1,
        )


def _policy(here: Site, there: Site) -> Policy:
    return Policy(
        name=f"{_CONNECTION}/lan",
        action=Action.PROTECT,
        local_ts=(TrafficSelector.parse(here.inside),),
        remote_ts=(TrafficSelector.parse(there.inside),),
        local_address=ip_address(here.outside),
        remote_address=ip_address(there.outside),
        connection=_CONNECTION,
        child="lan",
    )


def _check(results: Sequence[ItemResult]) -> None:
    for result in results:
        if result.error is not None:
            raise NoGateway(str(result.error))
