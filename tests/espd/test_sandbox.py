"""What espd may still do once it runs, as it ships."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.datapath.engine import protocol as p
from tests.conformance.namespace import fresh_network_namespace
from tests.espd.machine import (
    INNER,
    OURS,
    PORT,
    Machine,
    inbound,
    load_pair,
    open_outer,
    open_packet,
    open_raw,
    open_tun,
    opener,
    outbound,
    running,
)

KEPT = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 14: "CAP_IPC_LOCK", 39: "CAP_BPF"}
SECCOMP_FILTER = "2"


@pytest.fixture
def machine(shipped: Path, tmp_path: Path) -> Iterator[Machine]:
    with fresh_network_namespace(*OURS), running(shipped, tmp_path) as machine:
        yield machine


def status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capabilities(mask: str) -> set[int]:
    return {number for number in range(64) if int(mask, 16) >> number & 1}


def test_every_thread_keeps_few_capabilities_and_gains_none(machine: Machine) -> None:
    machine.client.hello()
    machine.client.configure(workers=2)
    threads = [int(task.name) for task in Path(f"/proc/{machine.process.pid}/task").iterdir()]

    assert len(threads) == 3
    for thread in threads:
        said = status(thread)
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            assert capabilities(said[kind]) <= KEPT.keys(), kind
        assert capabilities(said["CapInh"]) == capabilities(said["CapAmb"]) == set()
        assert said["NoNewPrivs"] == "1"
        assert said["Seccomp"] == SECCOMP_FILTER


def test_memory_is_locked_and_never_dumped(machine: Machine) -> None:
    said = status(machine.process.pid)
    limits = Path(f"/proc/{machine.process.pid}/limits").read_text()
    (core,) = (line.split() for line in limits.splitlines() if line.startswith("Max core file size"))

    assert int(said["VmLck"].split()[0]) > 0
    assert core[4:6] == ["0", "0"]


@pytest.mark.parametrize("outside", [open_raw, open_packet], ids=["raw", "packet"])
def test_it_carries_packets_all_the_same(machine: Machine, outside: "type[object]") -> None:
    client = machine.client
    client.hello()
    client.configure(workers=2)
    open_tun(client, queues=2)
    outside(client)
    out = outbound()
    load_pair(client, out, inbound())

    machine.program().sendto(b"hello", (INNER[4][1], PORT))

    assert open_outer(opener(out), machine.peer.take(50)).endswith(b"hello")
    assert client.read_device(1).receive_method == p.IoKind.TUN
