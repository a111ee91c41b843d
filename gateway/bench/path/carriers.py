"""What carries packets in a set-up: an agent with SAs, the kernel, raw forwarding, or a peer's program."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.api.generator import Tunnel
from gateway.bench.path.bed import Bed, cable_bed, gateway_cpus
from gateway.bench.path.dpdk import running_secgw, running_testpmd
from gateway.bench.path.gateway import NotPlaced, new_tunnel, running_gateway
from gateway.bench.path.pairs import libipsec_pair, wireguard_pair
from gateway.bench.path.plan import (
    CABLE,
    FORWARDING,
    LIBIPSEC,
    RAW,
    SECGW,
    TESTPMD,
    TUN,
    WIREGUARD,
    Direction,
    Setup,
)
from gateway.bench.path.raw import RawForwarding
from gateway.ipsec.placement import Engine

_KERNEL: Final = "kernel forwarding"
#: How packets come in and go out where that is always the same; espd says by which methods it does it.
_IO: Final = {
    Engine.NIC_PACKET.value: _KERNEL,
    Engine.NIC_CRYPTO.value: _KERNEL,
    Engine.KERNEL.value: _KERNEL,
    Engine.SOFTWARE.value: "TUN, raw sockets",
}
#: How espd says that it sends by what was asked for.
_ASKED: Final = {"live": "out by live frames", "af_xdp": "out by AF_XDP", "af_packet": "out by AF_PACKET"}
_DPDK_IO: Final = "DPDK net_af_xdp, copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """What carries packets while one set-up is measured."""

    bed: Bed
    where: Callable[[], tuple[str, str]]
    """Read back where SAs are, and how packets come in and go out."""
    is_esp: bool = True
    """Whether what is on the outer side is ESP of the generator's SAs; else it is plaintext at both ends."""
    pids: Callable[[], tuple[int, ...]] = tuple
    """Its processes; children count with them."""
    drops: Callable[[], dict[str, int]] = dict
    """What it dropped so far, by reason."""
    turn: Callable[[Direction], None] = lambda _: None
    """Make ready for packets this way."""


@contextmanager
def carrying(setup: Setup, bed: Bed, directory: Path, key_bits: int) -> Iterator[Carrier]:
    """Have packets carried as a set-up says, and the generator ready; nothing of it is left at the end.

    Raises:
        NotPlaced: It cannot be had here; the text says why.
    """
    make = _MAKERS.get(setup.placement, _agent)
    with make(setup, bed, directory, key_bits) as carrier:
        yield carrier


@contextmanager
def _forwarding(_setup: Setup, bed: Bed, _directory: Path, _key_bits: int) -> Iterator[Carrier]:
    with _generator(bed, None):
        yield Carrier(bed=bed, where=lambda: (FORWARDING, _KERNEL), is_esp=False)


@contextmanager
def _agent(setup: Setup, bed: Bed, directory: Path, key_bits: int) -> Iterator[Carrier]:
    engine = Engine(setup.placement)
    options: tuple[str, ...] = ()
    if engine is Engine.ENGINE:
        options = tuple(word for cpu in gateway_cpus(setup.workers) for word in ("--engine-cpu", str(cpu)))
        if setup.io != TUN:
            options += ("--engine-interface", bed.outer.name, "--engine-inner-interface", bed.lan.name)
            options += ("--engine-io", setup.io)
    with (
        running_gateway(bed.gateway, directory, engine, options) as gateway,
        _generator(bed, gateway.install(engine, setup.sas, key_bits)),
    ):

        def where() -> tuple[str, str]:
            there = gateway.whereabouts()
            return there.name, _IO.get(there.name, there.words)

        asked = _ASKED.get(setup.io)
        if asked is not None and where()[1].count(asked) < len((bed.lan, bed.outer)):
            raise NotPlaced(f"espd does otherwise: {where()[1]}")
        yield Carrier(bed=bed, where=where, pids=lambda: (gateway.pid,), drops=gateway.drops)


@contextmanager
def _raw(setup: Setup, bed: Bed, directory: Path, _key_bits: int) -> Iterator[Carrier]:
    with _generator(bed, None), RawForwarding(bed, setup.io, directory) as raw:
        yield Carrier(
            bed=bed, where=lambda: (RAW, raw.io), is_esp=False, pids=lambda: raw.pids, turn=raw.turn
        )


@contextmanager
def _cable(_setup: Setup, bed: Bed, _directory: Path, _key_bits: int) -> Iterator[Carrier]:
    if not bed.is_veth:
        raise NotPlaced("it is a veth pair, and says nothing of a generator on other interfaces")
    with cable_bed(f"{bed.prefix}-cable") as cable, _generator(cable, None):
        yield Carrier(bed=cable, where=lambda: ("no gateway", "one veth pair"), is_esp=False)


@contextmanager
def _secgw(setup: Setup, bed: Bed, directory: Path, key_bits: int) -> Iterator[Carrier]:
    tunnel = new_tunnel(setup.sas, key_bits)
    with running_secgw(bed, tunnel, directory) as process, _generator(bed, tunnel):
        yield _program(SECGW, bed, process)


@contextmanager
def _testpmd(_setup: Setup, bed: Bed, directory: Path, _key_bits: int) -> Iterator[Carrier]:
    with running_testpmd(bed, directory) as process, _generator(bed, None):
        yield _program(TESTPMD, bed, process, is_esp=False)


def _program(name: str, bed: Bed, process: "subprocess.Popen[bytes]", *, is_esp: bool = True) -> Carrier:
    return Carrier(bed=bed, where=lambda: (name, _DPDK_IO), is_esp=is_esp, pids=lambda: (process.pid,))


@contextmanager
def _libipsec(_setup: Setup, bed: Bed, directory: Path, _key_bits: int) -> Iterator[Carrier]:
    with libipsec_pair(bed.prefix, directory) as (pair, pids), _generator(pair, None):
        yield _two(LIBIPSEC, pair, pids)


@contextmanager
def _wireguard(_setup: Setup, bed: Bed, directory: Path, _key_bits: int) -> Iterator[Carrier]:
    with wireguard_pair(bed.prefix, directory) as (pair, pids), _generator(pair, None):
        yield _two(WIREGUARD, pair, pids)


def _two(name: str, pair: Bed, pids: tuple[int, ...]) -> Carrier:
    where = f"two of {name}", "TUN, UDP sockets; through both gateways, on any CPU"
    return Carrier(bed=pair, where=lambda: where, is_esp=False, pids=lambda: pids)


@contextmanager
def _generator(bed: Bed, tunnel: Tunnel | None) -> Iterator[None]:
    with ExitStack() as stack:
        stack.callback(bed.generator.close)
        bed.generator.configure(tunnel)
        yield


_MAKERS: Final = {
    FORWARDING: _forwarding,
    RAW: _raw,
    CABLE: _cable,
    SECGW: _secgw,
    TESTPMD: _testpmd,
    LIBIPSEC: _libipsec,
    WIREGUARD: _wireguard,
}
