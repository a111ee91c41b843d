"""`xdp_sink`: what a benchmark waits for is counted and dropped, samples and all else go to the stack."""

import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.objects import LoadedObject, load_object
from tests.ebpf.program_table import Verdict

MAGIC = 0x67776265
FIRST_SPI, SPIS, MASK = 0x0100_0000, 10, 0b111
_WANTED = struct.Struct("=6I")
_COUNT = struct.Struct("=8Q")


@pytest.fixture(scope="module")
def sink() -> Iterator[LoadedObject]:
    with load_object(read_program("xdp_sink")) as loaded:
        yield loaded


def want(sink: LoadedObject, protocol: int) -> None:
    wanted = _WANTED.pack(protocol, FIRST_SPI, SPIS, MAGIC, MASK, 0)
    sink.maps["gw_sink_wanted"].update(bytes(4), wanted)


def counted(sink: LoadedObject) -> tuple[int, int]:
    """Return packets and bytes of all CPUs."""
    values = [_COUNT.unpack(value) for _, value in sink.maps["gw_sink_counts"].items()]
    return sum(value[0] for value in values), sum(value[1] for value in values)


def esp(spi: int = FIRST_SPI, sequence: int = 9, **fields: object) -> Packet:
    return Ether() / IP(proto=50, **fields) / Raw(struct.pack("!II", spi, sequence) + bytes(80))


def plain(number: int = 9, magic: int = MAGIC) -> Packet:
    return Ether() / IP() / UDP(dport=9) / Raw(struct.pack("=IIQQ", magic, 0, number, 0) + bytes(40))


COUNTED = {
    "ESP of the first SA": (50, esp(), Verdict.DROP),
    "ESP of the last SA": (50, esp(spi=FIRST_SPI + SPIS - 1), Verdict.DROP),
    "a sample of ESP": (50, esp(sequence=8), Verdict.PASS),
    "plaintext": (17, plain(), Verdict.DROP),
    "a sample of plaintext": (17, plain(number=16), Verdict.PASS),
}
OTHERS = {
    "ESP of a later SA": (50, esp(spi=FIRST_SPI + SPIS)),
    "ESP of an earlier SA": (50, esp(spi=FIRST_SPI - 1)),
    "ESP where plaintext is wanted": (17, esp()),
    "plaintext where ESP is wanted": (50, plain()),
    "UDP of somebody else": (17, plain(magic=1)),
    "nothing is wanted": (0, esp()),
    "IP options": (50, esp(options=[IPOption_Timestamp()])),
    "TCP": (17, Ether() / IP() / TCP() / Raw(bytes(40))),
    "IPv6": (50, Ether() / IPv6(nh=50) / Raw(bytes(80))),
    "a VLAN": (50, Ether() / Dot1Q(vlan=3) / IP(proto=50) / Raw(bytes(80))),
    "ARP": (50, Ether() / ARP() / Raw(bytes(40))),
    "cut behind the header": (50, Ether() / IP(proto=50) / Raw(bytes(2))),
}


@pytest.mark.parametrize(("protocol", "frame", "verdict"), COUNTED.values(), ids=list(COUNTED))
def test_what_is_waited_for_is_counted(
    sink: LoadedObject, protocol: int, frame: Packet, verdict: Verdict
) -> None:
    want(sink, protocol)
    packets, octets = counted(sink)

    done = sink.programs["gw_sink"].test_run(bytes(frame))

    assert Verdict(done.verdict) is verdict
    assert counted(sink) == (packets + 1, octets + len(bytes(frame[IP])))


@pytest.mark.parametrize(("protocol", "frame"), OTHERS.values(), ids=list(OTHERS))
def test_all_else_is_left_to_the_stack(sink: LoadedObject, protocol: int, frame: Packet) -> None:
    want(sink, protocol)
    before = counted(sink)

    done = sink.programs["gw_sink"].test_run(bytes(frame))

    assert Verdict(done.verdict) is Verdict.PASS
    assert counted(sink) == before
    assert done.frame == bytes(frame)
