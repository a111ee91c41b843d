"""Rows of the tables: a frame in, the verdict, and the reason it is counted under."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from gateway.host.bpf.abi import Counter, Exit, read_counters
from gateway.host.bpf.attach import InterfaceTakenError, attach_xdp
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.maps import Map
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.programs import Link, Program, TestRun
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.selectors import TrafficSelector

OUR_MAC: Final = "02:00:00:00:00:01"
THEIR_MAC: Final = "02:00:00:00:00:02"


class Verdict(IntEnum):
    """What an XDP program returns."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    frame: Packet
    verdict: Verdict
    reason: DropReason | Exit

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def drop(name: str, frame: Packet, reason: DropReason) -> Row:
    return Row(name=name, frame=frame, verdict=Verdict.DROP, reason=reason)


def to_stack(name: str, frame: Packet, reason: Exit) -> Row:
    return Row(name=name, frame=frame, verdict=Verdict.PASS, reason=reason)


def engine(name: str, frame: Packet) -> Row:
    return Row(name=name, frame=frame, verdict=Verdict.REDIRECT, reason=Exit.ENGINE)


def policy(name: str, action: Action, local: str, remote: str, priority: int = 1000) -> Policy:
    return Policy(
        name=name,
        action=action,
        local_ts=(TrafficSelector.parse(local),),
        remote_ts=(TrafficSelector.parse(remote),),
        priority=priority,
    )


def link(*, vlans: Iterable[int] = ()) -> Packet:
    """Return a link header to us, with VLAN tags."""
    header: Packet = Ether(dst=OUR_MAC, src=THEIR_MAC)
    for vlan in vlans:
        header /= Dot1Q(vlan=vlan)
    return header


@contextmanager
def loaded_program(
    name: str,
    shared: Mapping[str, Map] | None = None,
    entries: Mapping[str, int] | None = None,
    **constants: int,
) -> Iterator[LoadedObject]:
    """Load a program with constants and sizes of maps of its own, and attach it to a device of the namespace.

    Attached it does nothing; but a test run of a program that no driver has takes 25 ms, because the kernel
    makes a way to call it for each run, and waits for all CPUs.
    """
    spec = read_program(name)
    values = {
        constant: value.to_bytes(spec.variables[constant][2], "little")
        for constant, value in constants.items()
    }
    spec = spec.with_constants(values).with_entries(entries or {})
    with load_object(spec, shared=shared) as loaded:
        (program,) = loaded.programs.values()
        with _attach_to_a_free_device(program):
            yield loaded


def _attach_to_a_free_device(program: Program) -> Link:
    try:
        return attach_xdp(program, "outside").link
    except InterfaceTakenError:
        return attach_xdp(program, "beyond").link


def run(loaded: LoadedObject, frame: Packet | bytes, **where: int) -> tuple[TestRun, DropReason | Exit]:
    """Run the only program of an object and return what it gave and the one reason that it counted."""
    (program,) = loaded.programs.values()
    before = read_counters(loaded.maps)
    done = program.test_run(bytes(frame), **where)
    counted = _difference(before, read_counters(loaded.maps))
    assert [counter.packets for counter in counted.values()] == [1], f"counted {counted}"
    (reason,) = counted
    return done, reason


def _difference(
    before: Mapping[DropReason | Exit, Counter], after: Mapping[DropReason | Exit, Counter]
) -> dict[DropReason | Exit, Counter]:
    found = {}
    for reason, counter in after.items():
        old = before.get(reason, Counter())
        if counter != old:
            found[reason] = Counter(packets=counter.packets - old.packets, bytes=counter.bytes - old.bytes)
    return found
