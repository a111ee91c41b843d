"""Where `bench path` measures: a gateway in a network namespace, and what the generator is connected to.

    generator: lan ──── lan  gateway  outer ──── outer :generator
                198.51.100.2/.1       192.0.2.1/.2

    10.1.0.0/16  hosts of the LAN            10.128.0.0/9  hosts behind the peer, a /24 for each pair of SAs

Either all of it is made here, of veth pairs, or the interfaces were named: they are moved into namespaces of
ours and come back at the end, without their addresses. The generator may be on another machine. Its side has
no addresses: what it would answer is entered as permanent neighbours.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from gateway.api.generator import Generator
from gateway.bench.path.generator import LocalGenerator
from gateway.bench.topology import (
    Link,
    Namespace,
    borrowed_link,
    connect,
    delete_namespace,
    end_all_inside,
    make_namespace,
)

GATEWAY_OUTER: Final = IPv4Address("192.0.2.1")
PEER: Final = IPv4Address("192.0.2.2")
LOCAL_NETWORK: Final = IPv4Network("10.1.0.0/16")
REMOTE_NETWORK: Final = IPv4Network("10.128.0.0/9")
_LAN_ADDRESS: Final = "198.51.100.1/30"
_LAN_HOST: Final = IPv4Address("198.51.100.2")
_FAR_ADDRESS: Final = "198.51.100.5/30"
_FAR_HOST: Final = IPv4Address("198.51.100.6")
_OUTER_ADDRESS: Final = f"{GATEWAY_OUTER}/24"
_LAN, _OUTER = "lan", "outer"
_VETH: Final = "veth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cables:
    """The generator's interfaces: at the other ends of the gateway's."""

    lan: str
    outer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One interface of the gateway."""

    name: str
    driver: str
    """Empty where it does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """A gateway's namespace with its interfaces up, and a generator at their other ends."""

    prefix: str
    """Of the names of its namespaces."""
    gateway: Namespace
    lan: Device
    outer: Device
    generator: Generator

    @property
    def is_veth(self) -> bool:
        """Say whether both interfaces are veth devices, as those are that beds are made of here."""
        return self.lan.driver == self.outer.driver == _VETH

    @property
    def what(self) -> str:
        """Return the interfaces in words."""
        return f"{self.lan.name} ({self.lan.driver}), {self.outer.name} ({self.outer.driver})"


def generator_cpu() -> int | None:
    """Return the CPU that the generator has on veth, or `None` where there is only one: the first."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[0] if len(cpus) > 1 else None


def gateway_cpus(workers: int) -> tuple[int, ...]:
    """Return the CPUs of a gateway's workers: the last ones, and the generator's after all others."""
    cpus = sorted(os.sched_getaffinity(0), reverse=True)
    return tuple(cpus[number % len(cpus)] for number in range(workers))


def pinned(command: Callable[..., Sequence[str]], cpu: int | None) -> Callable[..., Sequence[str]]:
    """Return what makes the same command lines, for one CPU alone where there is one to choose."""
    if cpu is None:
        return command
    return lambda *argv: command("taskset", "-c", str(cpu), *argv)


@contextmanager
def veth_bed(prefix: str, queues: int = 1) -> Iterator[Bed]:
    """Make everything, and take it away at the end.

    Args:
        prefix: Of the namespaces.
        queues: Receive queues of each of the gateway's interfaces.

    Raises:
        TopologyError: Not root, or the kernel refuses.
    """
    with _namespaces(prefix) as (gateway, generator):
        for device, addresses in ((_LAN, (_LAN_ADDRESS,)), (_OUTER, (_OUTER_ADDRESS,))):
            _cable(gateway, device, to=generator, far=device, addresses=addresses, queues=queues)
        yield _complete(prefix, gateway, _LAN, _OUTER, _near(generator))


@contextmanager
def pair_bed(prefix: str) -> Iterator[tuple[Bed, Namespace]]:
    """Make a bed with a second gateway, where the generator would be the peer: yields its namespace too.

        generator: lan ──── lan  gateway  outer ──── outer  far  lan ──── outer :generator

    Packets go through both gateways, and are plaintext at both ends.

    Raises:
        TopologyError: Not root, or the kernel refuses.
    """
    with _namespaces(prefix) as (gateway, generator), _namespaces(f"{prefix}-2") as (far, _):
        _cable(gateway, _LAN, to=generator, far=_LAN, addresses=(_LAN_ADDRESS,))
        _cable(gateway, _OUTER, to=far, far=_OUTER, addresses=(_OUTER_ADDRESS,))
        far.run("ip", "address", "add", f"{PEER}/24", "dev", _OUTER)
        _cable(far, _LAN, to=generator, far=_OUTER, addresses=(_FAR_ADDRESS,))
        near = _near(generator)
        near.aim(gateway_lan=_mac(gateway, _LAN), gateway_outer=_mac(far, _LAN))
        ports = near.ports()
        _lead(gateway, _LAN, _LAN_HOST, ports[0].mac, LOCAL_NETWORK)
        _lead(far, _LAN, _FAR_HOST, ports[1].mac, REMOTE_NETWORK)
        devices = [Device(name=name, driver=_VETH) for name in (_LAN, _OUTER)]
        yield Bed(prefix=prefix, gateway=gateway, lan=devices[0], outer=devices[1], generator=near), far


@contextmanager
def cable_bed(prefix: str) -> Iterator[Bed]:
    """Make a bed without a gateway: the generator's interfaces are the two ends of one veth pair.

        generator: lan ──── outer :generator

    Raises:
        TopologyError: Not root, or the kernel refuses.
    """
    with _namespaces(prefix) as (_, generator):
        _cable(generator, _LAN, to=generator, far=_OUTER, addresses=())
        near = _near(generator)
        near.aim(gateway_lan=_mac(generator, _OUTER), gateway_outer=_mac(generator, _LAN))
        devices = [Device(name=name, driver=_VETH) for name in (_LAN, _OUTER)]
        yield Bed(prefix=prefix, gateway=generator, lan=devices[0], outer=devices[1], generator=near)


def _cable(
    gateway: Namespace, device: str, *, to: Namespace, far: str, addresses: tuple[str, ...], queues: int = 1
) -> None:
    """Connect two namespaces by veth devices that can do all that is measured."""
    connect(
        Link(
            left=gateway,
            left_device=device,
            left_addresses=addresses,
            right=to,
            right_device=far,
            right_addresses=(),
            queues=queues,
        )
    )
    # Only then does a veth device poll, and take frames that an XDP program has redirected to it.
    for namespace, end in ((gateway, device), (to, far)):
        namespace.run("ethtool", "-K", end, "gro", "on")


def _near(generator: Namespace) -> LocalGenerator:
    return LocalGenerator(pinned(generator.command, generator_cpu()), lan=_LAN, outer=_OUTER)


@contextmanager
def named_bed(prefix: str, lan: str, outer: str, near: Cables) -> Iterator[Bed]:
    """Move interfaces of this machine into two namespaces, and give them back at the end.

    Args:
        prefix: Of the namespaces.
        lan: The gateway's interface to the LAN.
        outer: The gateway's outer interface.
        near: Our own at the other ends of their cables.

    Raises:
        TopologyError: Not root, or an interface is not there or cannot be moved.
    """
    with _namespaces(prefix) as (gateway, generator), ExitStack() as stack:
        for namespace, device, address in (
            (gateway, lan, _LAN_ADDRESS),
            (gateway, outer, _OUTER_ADDRESS),
            (generator, near.lan, None),
            (generator, near.outer, None),
        ):
            stack.enter_context(borrowed_link(device, namespace))
            _bring_up(namespace, device, address)
        far = LocalGenerator(generator.command, lan=near.lan, outer=near.outer)
        yield _complete(prefix, gateway, lan, outer, far)


@contextmanager
def remote_bed(prefix: str, lan: str, outer: str, generator: Generator) -> Iterator[Bed]:
    """Move the gateway's interfaces into a namespace; what they are cabled to is another machine's.

    Raises:
        TopologyError: Not root, or an interface is not there or cannot be moved.
    """
    with _namespaces(prefix) as (gateway, _), ExitStack() as stack:
        for device, address in ((lan, _LAN_ADDRESS), (outer, _OUTER_ADDRESS)):
            stack.enter_context(borrowed_link(device, gateway))
            _bring_up(gateway, device, address)
        yield _complete(prefix, gateway, lan, outer, generator)


@contextmanager
def _namespaces(prefix: str) -> Iterator[tuple[Namespace, Namespace]]:
    with ExitStack() as stack:
        made = []
        for role in ("gw", "gen"):
            namespace = make_namespace(f"{prefix}-{role}")
            stack.callback(delete_namespace, namespace)
            stack.callback(end_all_inside, namespace)
            made.append(namespace)
        yield made[0], made[1]


def _bring_up(namespace: Namespace, device: str, address: str | None) -> None:
    if address is not None:
        namespace.run("ip", "address", "add", address, "dev", device)
    namespace.run("ip", "link", "set", device, "up")


def _complete(prefix: str, gateway: Namespace, lan: str, outer: str, generator: Generator) -> Bed:
    """Lead both networks through the gateway to the generator, which answers no ARP."""
    generator.aim(gateway_lan=_mac(gateway, lan), gateway_outer=_mac(gateway, outer))
    ports = generator.ports()
    _lead(gateway, lan, _LAN_HOST, ports[0].mac, LOCAL_NETWORK)
    _lead(gateway, outer, PEER, ports[1].mac, REMOTE_NETWORK)
    return Bed(
        prefix=prefix,
        gateway=gateway,
        lan=Device(name=lan, driver=_driver(gateway, lan)),
        outer=Device(name=outer, driver=_driver(gateway, outer)),
        generator=generator,
    )


def _lead(gateway: Namespace, device: str, neighbour: IPv4Address, mac: str, network: IPv4Network) -> None:
    """Lead a network to a neighbour who answers no ARP."""
    gateway.run(
        *("ip", "neighbour", "replace", str(neighbour), "lladdr", mac),
        *("dev", device, "nud", "permanent"),
    )
    gateway.run("ip", "route", "add", str(network), "via", str(neighbour), "dev", device)


def _mac(namespace: Namespace, device: str) -> str:
    (link,) = json.loads(namespace.run("ip", "-json", "link", "show", "dev", device).stdout)
    return str(link["address"])


def _driver(namespace: Namespace, device: str) -> str:
    done = namespace.run("ethtool", "-i", device, check=False)
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return lines.get("driver", "")
