"""Measure the classification of packets in XDP: nanoseconds for one, with SPDs of several sizes.

The kernel runs a program many times on one frame (BPF_PROG_TEST_RUN), without any interface: what is measured
is the program with its maps, all of them in the CPU's caches. Each case is measured twice: with what a CPU
remembers of pairs of addresses, as packets of known flows find it, and without, as the first packet of each
finds it.
"""

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from statistics import median
from typing import Final

from gateway.bench.machine import describe_machine
from gateway.bench.steering.frames import IPSEC, UDP, IpAddress, frame
from gateway.host.bpf.abi import SAS, InboundSa, Spi
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.maps import Map
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.programs import Program
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.errors import GatewayError
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

TUNNEL_COUNTS: Final = (1, 100, 2_000, 20_000)
INBOUND, OUTBOUND, ONE_ARM = "xdp_inbound", "xdp_outbound", "xdp_one_arm"
_PROGRAMS: Final = (INBOUND, OUTBOUND, ONE_ARM)
_REMEMBERS: Final = "gw_remembers_leaves"
_FIRST_SPI: Final = 0x10000
_US: Final = IPv4Address("192.0.2.1")
_PEER: Final = IPv4Address("192.0.2.2")
_STRANGER: Final = IPv4Address("203.0.113.1")
_LOCAL: Final[Mapping[int, IpAddress]] = {4: IPv4Address("10.1.1.1"), 6: IPv6Address("2001:db8:1::1")}
_VERDICTS: Final = {1: "drop", 2: "pass", 4: "redirect"}
_AF_XDP: Final = 44


class NotSteered(GatewayError):
    """A program did not do with a frame what is to be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure."""

    rounds: int
    packets: int
    """Per case and round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One program and one packet."""

    program: str
    packet: str
    """In words."""
    frame: bytes
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one case took: nanoseconds for one packet, of each round."""

    tunnels: int
    program: str
    packet: str
    remembered_ns: tuple[int, ...]
    searched_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run."""

    machine: Mapping[str, str]
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Return everything, the figure of each round included."""
        rows = [
            {
                "tunnels": row.tunnels,
                "program": row.program,
                "packet": row.packet,
                "remembered_ns": median(row.remembered_ns),
                "searched_ns": median(row.searched_ns),
                "rounds": {"remembered_ns": row.remembered_ns, "searched_ns": row.searched_ns},
            }
            for row in self.rows
        ]
        return json.dumps({"machine": dict(self.machine), "rows": rows}, indent=2)


def run(tunnel_counts: Sequence[int], effort: Effort, say: Callable[[str], None]) -> Results:
    """Measure all cases in turns.

    Raises:
        BpfError: Programs cannot be compiled or loaded.
        NotSteered: One does something else than is to be measured.
    """
    rows: list[Row] = []
    for count in tunnel_counts:
        say(f"{count:,} tunnels")
        rows += _measure(count, effort)
    return Results(machine=describe_machine(), rows=tuple(rows))


def _measure(tunnels: int, effort: Effort) -> Iterator[Row]:
    cases = cases_of(tunnels)
    taken: dict[tuple[Case, bool], list[int]] = {}
    with _loaded(tunnels) as programs:
        for _ in range(effort.rounds):  # by turns: what disturbs the machine disturbs every case
            for case in cases:
                for remembers in (True, False):
                    done = programs[case.program, remembers].test_run(case.frame, repeat=effort.packets)
                    found = _VERDICTS.get(done.verdict, str(done.verdict))
                    if found != case.verdict:
                        raise NotSteered(f"{case.program}: {case.packet}: {found}, not {case.verdict}")
                    taken.setdefault((case, remembers), []).append(done.nanoseconds)
    for case in cases:
        yield Row(
            tunnels=tunnels,
            program=case.program,
            packet=case.packet,
            remembered_ns=tuple(taken[case, True]),
            searched_ns=tuple(taken[case, False]),
        )


def cases_of(tunnels: int) -> list[Case]:
    """Return what is measured with so many tunnels: the packets are of the last one."""
    spi = struct.pack(">II", _FIRST_SPI + tunnels - 1, 1)
    esp = frame(_PEER, _US, IPSEC, spi)
    far = {family: _network(family, tunnels - 1)[0] + 7 for family in (4, 6)}
    outgoing = {family: frame(_LOCAL[family], far[family], UDP) for family in (4, 6)}
    cases = [
        Case(program=program, packet="ESP, known SPI", frame=esp, verdict="redirect")
        for program in (INBOUND, ONE_ARM)
    ]
    for program in (OUTBOUND, ONE_ARM):
        cases += [
            Case(program=program, packet=f"IPv{family}, PROTECT", frame=outgoing[family], verdict="redirect")
            for family in (4, 6)
        ]
    return [
        *cases,
        Case(
            program=INBOUND,
            packet="in clear, PROTECT",
            frame=frame(far[4], _LOCAL[4], UDP),
            verdict="drop",
        ),
        Case(
            program=INBOUND,
            packet="in clear, no entry",
            frame=frame(_STRANGER, _LOCAL[4], UDP),
            verdict="pass",
        ),
    ]


def _network(family: int, number: int) -> tuple[IpAddress, int]:
    """Return the network behind a tunnel, as its first address and its prefix bits."""
    if family == 4:
        return IPv4Address((100 << 24) + (number << 8)), 24
    return IPv6Address((0x2001_0DB8_8000 << 80) + (number << 64)), 64


def _policies(tunnels: int) -> Iterator[Policy]:
    for number in range(tunnels):
        for family, local in ((4, "10.0.0.0/8"), (6, "2001:db8:1::/48")):
            first, bits = _network(family, number)
            yield Policy(
                name=f"{number:05}-{family}",
                action=Action.PROTECT,
                local_ts=(TrafficSelector.parse(local),),
                remote_ts=(TrafficSelector.parse(f"{first}/{bits}"),),
            )


@contextmanager
def _loaded(tunnels: int) -> Iterator[dict[tuple[str, bool], Program]]:
    """Load each program, with and without what a CPU remembers, all over the same maps."""
    programs: dict[tuple[str, bool], Program] = {}
    with ExitStack() as stack:
        shared: Mapping[str, Map] = {}
        for name in (ONE_ARM, INBOUND, OUTBOUND):  # the first has the maps of all
            for remembers in (True, False):
                loaded = stack.enter_context(_load(name, shared, remembers=remembers))
                shared = shared or loaded.maps
                (programs[name, remembers],) = loaded.programs.values()
        engine = stack.enter_context(socket.socket(_AF_XDP, socket.SOCK_RAW, 0))
        shared["gw_xsks"].update(bytes(4), struct.pack("=I", engine.fileno()))
        SpdMaps(shared).publish(compile_spd(_policies(tunnels)))
        sa = InboundSa(destination=_US, protocol=IPSEC)
        SAS.of(shared).set_many({Spi(_FIRST_SPI + number): sa for number in range(tunnels)})
        yield programs


def _load(name: str, shared: Mapping[str, Map], *, remembers: bool) -> LoadedObject:
    spec = read_program(name).with_constants({_REMEMBERS: struct.pack("=I", remembers)})
    return load_object(spec, shared=shared)
