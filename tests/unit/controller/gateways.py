"""Two whole controllers, real cores included, on an in-memory wire and fake datapaths, in virtual time."""

import asyncio
import random
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from gateway.agent.agent import Agent
from gateway.controller.controller import Controller, ControllerOptions
from gateway.controller.facade import Operation, Target, WantedConnection
from gateway.host.sockets import IkePorts
from gateway.ike.path import Path
from gateway.ipsec.connection import Child, Connection, IkeOptions, Side, Start
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.policy import Policy
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.sa import Direction, IpAddress, SaId
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from tests.fakes.datapath import FakeDatapath
from tests.fakes.entropy import Entropy

PARIS, TOKYO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
PSK = b"correct horse battery staple"
LATENCY_S = 0.01


def net(text: str) -> tuple[TrafficSelector, ...]:
    first, last = text.split("-")
    return (TrafficSelector(IPv4Address(first), IPv4Address(last)),)


PARIS_NET, TOKYO_NET = net("10.1.0.0-10.1.255.255"), net("10.2.0.0-10.2.255.255")


class Wire:
    """Carries datagrams between transports by address; `cut` loses them all."""

    def __init__(self) -> None:
        self.transports: dict[IpAddress, MemoryTransport] = {}
        self.cut = False
        self.sent: list[tuple[Path, bytes]] = []

    def send(self, path: Path, datagram: bytes) -> None:
        self.sent.append((path, datagram))
        loop = asyncio.get_running_loop()
        if not self.cut:
            back = Path(path.remote, path.remote_port, path.local, path.local_port)
            loop.call_later(LATENCY_S, self._deliver, back, datagram)

    def _deliver(self, path: Path, datagram: bytes) -> None:
        transport = self.transports.get(path.local)
        if transport is not None and transport.is_open:
            transport.receive(datagram, path)


class MemoryTransport:
    """A `Transport` on a `Wire`."""

    def __init__(
        self, wire: Wire, address: IpAddress, receive: Callable[[bytes, Path], None], lost: Callable[[], None]
    ) -> None:
        self._wire = wire
        self.receive = receive
        self.lost = lost
        self._ports: IkePorts | None = None
        wire.transports[address] = self

    @property
    def is_open(self) -> bool:
        return self._ports is not None

    def adopt(self, ports: IkePorts) -> None:
        self._ports = ports

    def release(self) -> None:
        self._ports = None

    def release_borrowed(self) -> None:
        self._ports = None

    def send(self, path: Path, datagram: bytes) -> None:
        if self.is_open:
            self._wire.send(path, datagram)


class Gateway:
    """One controller with the agent and fake backend it drives; either can be killed and started again."""

    def __init__(
        self,
        wire: Wire,
        *,
        is_paris: bool,
        start: Start = Start.NONE,
        psk: bytes = PSK,
        child: dict[str, Any] | None = None,
        ike: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        self.wire = wire
        self.is_paris = is_paris
        self.address = PARIS if is_paris else TOKYO
        self.start_mode = start
        self.psk = psk
        self.lives = 0
        self.child_changes, self.ike_changes, self.changes = child or {}, ike or {}, changes
        self.names: dict[str, list[IpAddress]] = {}
        """What the resolver knows."""
        self.asked: list[str] = []
        self.sent_with: list[tuple[SaId, bytes]] = []
        self.unanswered: tuple[str, ...] = ()
        """Calls to the agent that are lost on the way, while all others are answered."""

    def connection(self) -> Connection:
        ids = (parse_identity("gw-paris.example"), parse_identity("gw-tokyo.example"))
        nets = (PARIS_NET, TOKYO_NET)
        here, there = (0, 1) if self.is_paris else (1, 0)
        remote = {"addresses": (TOKYO if self.is_paris else PARIS,), "id": ids[there]}
        child = Child(
            **{
                "name": "lan",
                "local_ts": nets[here],
                "remote_ts": nets[there],
                "proposals": (parse_proposal("aes256gcm16-x25519", ProtocolId.ESP),),
                "start": self.start_mode,
            }
            | self.child_changes
        )
        return Connection(
            name="paris-tokyo",
            local=Side(addresses=(self.address,), id=ids[here]),
            remote=Side(**remote | self.changes.get("remote", {})),
            ike=IkeOptions(
                proposals=(parse_proposal("aes256gcm16-prfsha384-x25519", ProtocolId.IKE),),
                **self.ike_changes,
            ),
            children=self.changes.get("children", (child,)),
        )

    async def resolve(self, name: str) -> list[IpAddress]:
        self.asked.append(name)
        if not self.names.get(name):
            raise OSError(f"nobody knows {name}")
        return self.names[name]

    async def start_agent(self) -> None:
        """Begin an agent's life: empty-handed, as after a kill of the software datapath."""
        self.backend = FakeDatapath()
        if self.lives:
            self.backend.sad._next_spi += 0x1000 * self.lives
        self.agent = Agent(self.backend, fingerprint_key=b"test")
        await self.agent.start()

    def new_controller(self) -> Controller:
        self.lives += 1
        return Controller(
            datapath=_Remote(self),
            obtain_ports=self._obtain_ports,
            entropy=Entropy((0x10 if self.is_paris else 0x80) + self.lives),
            rng=random.Random(7),
            wall_clock=lambda: 1_700_000_000.0 + asyncio.get_running_loop().time(),
            options=ControllerOptions(version="test"),
            make_transport=lambda receive, lost: MemoryTransport(self.wire, self.address, receive, lost),
            resolve=self.resolve,
        )

    async def start(self) -> None:
        await self.start_agent()
        await self.start_controller()

    async def start_controller(self) -> None:
        self.controller = self.new_controller()
        results = await self.controller.start(
            [WantedConnection(connection=self.connection(), psk=Secret(self.psk))]
        )
        assert [result.error for result in results] == [None]

    async def _obtain_ports(self) -> IkePorts:
        return IkePorts(ports=())

    async def kill_agent(self) -> None:
        """End the agent without a word; its SAs are lost."""
        await self.agent.close()
        self.lives += 1

    async def kill_controller(self) -> None:
        """End the controller without a word to the peer or the datapath."""
        self.controller.abandon()
        await self.controller._upkeep.stop()

    async def up(self) -> Operation:
        begun = await self.controller.initiate(Target(connection="paris-tokyo"))
        return await self.controller.operation(begun.operation_id, wait_s=120)

    def outbound(self) -> SaId | None:
        """Return the SA that would carry a packet now."""
        serving = self.backend.sad.outbound("paris-tokyo", "lan")
        return None if serving is None else serving.sa_id

    def policies(self) -> list[Policy]:
        return [policy for policy, _generation in self.backend.sad.policies.values()]


class _Remote:
    """What the controller holds on to while the agent behind it changes, as a gRPC client does."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def __getattr__(self, name: str) -> object:
        if name in self._gateway.unanswered:
            return _wait_for_ever
        return getattr(self._gateway.agent, name)


async def _wait_for_ever(*_arguments: object, **_named: object) -> None:
    await asyncio.Event().wait()


def can_talk(one: Gateway, other: Gateway) -> bool:
    """Say whether a packet of either would be decrypted by the other."""
    for sender, receiver in ((one, other), (other, one)):
        sa = sender.backend.sad.outbound("paris-tokyo", "lan")
        if sa is None or receiver.backend.sad.inbound(sa.spi) is None:
            return False
        if receiver.backend.sad.inbound(sa.spi).encryption_key != sa.encryption_key:  # type: ignore[union-attr]
            return False
    return True


def outbound_keys(gateway: Gateway) -> list[tuple[int, bytes]]:
    """Return (SPI, key) of every outbound SA this backend was ever given, in order."""
    return [
        (change.sa.spi, change.sa.encryption_key.reveal())
        for change in gateway.backend.sad.history
        if change.verb == "install" and change.sa.direction is Direction.OUTBOUND
    ]
