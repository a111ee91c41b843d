"""`xdp_cpumap`: the packets of an SA go to one CPU."""

import os
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import CPU_LIST, CPUS, SPI_CPUS, CpuQueue, Exit, Spi, Word, read_counters
from gateway.host.bpf.objects import LoadedObject
from gateway.ipsec.drop_reason import DropReason
from tests.ebpf.program_table import Row, Verdict, drop, link, loaded_program, run, to_stack

CPU = min(os.sched_getaffinity(0))
NAT_T = UDP(sport=4500, dport=4500, chksum=0)


@pytest.fixture(scope="module")
def cpumap() -> Iterator[LoadedObject]:
    with loaded_program("xdp_cpumap", gw_cpu_count=2) as loaded:
        CPUS.of(loaded.maps).set(Word(CPU), CpuQueue(frames=64))
        CPU_LIST.of(loaded.maps).set(Word(0), Word(CPU))
        # The second CPU of the list has no queue, as one that was taken away.
        CPU_LIST.of(loaded.maps).set(Word(1), Word(1023))
        SPI_CPUS.of(loaded.maps).set(Spi(0x5000), Word(CPU))
        SPI_CPUS.of(loaded.maps).set(Spi(0x5001), Word(1023))
        yield loaded


def esp(spi: int) -> Raw:
    return Raw(spi.to_bytes(4, "big") + bytes(36))


def outer(**fields: object) -> Packet:
    return link() / IP(src="192.0.2.2", dst="192.0.2.1", **fields)


def steered(name: str, frame: Packet) -> Row:
    return Row(name=name, frame=frame, verdict=Verdict.REDIRECT, reason=Exit.STEERED)


ROWS = (
    steered("ESP with a CPU of its own", outer(proto=50) / esp(0x5000)),
    steered(
        "AH with a CPU of its own", outer(proto=51) / Raw(bytes(4) + (0x5000).to_bytes(4, "big") + bytes(16))
    ),
    steered("ESP in UDP", outer() / NAT_T / esp(0x5000)),
    steered("ESP over IPv6", link() / IPv6(src="2001:db8::2", dst="2001:db8::1", nh=50) / esp(0x5000)),
    steered("ESP on a VLAN", link(vlans=[3]) / IP(proto=50) / esp(0x5000)),
    steered("ESP by hash to the first CPU", outer(proto=50) / esp(0)),
    to_stack("ESP by hash to a CPU without queue", outer(proto=50) / esp(1), Exit.OTHER),
    to_stack("ESP of a CPU without queue", outer(proto=50) / esp(0x5001), Exit.OTHER),
    to_stack("a fragment of ESP", outer(proto=50, flags="MF") / esp(0x5000), Exit.OTHER),
    to_stack("IKE", outer() / UDP(dport=500) / Raw(bytes(28)), Exit.OTHER),
    to_stack("TCP", outer() / TCP(), Exit.OTHER),
    to_stack("ARP", link() / ARP(), Exit.NOT_IP),
    drop("cut", outer(len=90, proto=50) / esp(1), DropReason.MALFORMED),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_frame_ends_as_the_table_says(cpumap: LoadedObject, row: Row) -> None:
    done, reason = run(cpumap, row.frame)

    assert (Verdict(done.verdict), reason) == (row.verdict, row.reason)
    assert done.frame == bytes(row.frame)


def test_spis_that_are_counted_up_spread_over_the_cpus(cpumap: LoadedObject) -> None:
    before = read_counters(cpumap.maps)

    for spi in range(0xC0000000, 0xC0000200):
        cpumap.programs["gw_cpumap"].test_run(bytes(outer(proto=50) / esp(spi)))
    after = read_counters(cpumap.maps)

    first = after[Exit.STEERED].packets - before[Exit.STEERED].packets
    assert 200 < first < 312


def test_without_cpus_nothing_is_steered() -> None:
    with loaded_program("xdp_cpumap") as loaded:
        done, reason = run(loaded, outer(proto=50) / esp(7))

    assert (Verdict(done.verdict), reason) == (Verdict.PASS, Exit.OTHER)
