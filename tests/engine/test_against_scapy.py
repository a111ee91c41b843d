"""scapy as a second oracle of the native engine: every suite, mode, family and kind of number, both ways.

What scapy lacks (truncated GCM; XCBC and GMAC of its own) is as in `tests/unit/esp/test_scapy.py` and
`test_ah_scapy.py`, whose shapes and suites are used here.

The short run has every suite in a fifth of the shapes, each suite in others, the slow one has all. That the
bytes are those of `gateway.esp`, and that scapy opens those, is shown in every shape elsewhere
(`test_against_gateway_esp.py`, and the two files above).
"""

from collections.abc import Iterable, Sequence
from itertools import product

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from gateway.datapath.engine.core import Crypto, EngineLibrary, Worker
from gateway.datapath.engine.records import SaState
from gateway.ipsec.sa import Direction, Mode
from tests.unit.esp import test_ah_scapy as ah
from tests.unit.esp import test_scapy as esp
from tests.unit.esp.ah_samples import AH_SUITES, SHA256, AhSuite, ah_association, ah_outbound
from tests.unit.esp.samples import ENCAPSULATION, OUTER, Suite, association, material

SHAPES = [
    (mode, inner, outer, udp, sequence)
    for (mode, inner, outer), udp, sequence in product(
        esp.TUNNEL + esp.TRANSPORT, (False, True), (7, (5 << 32) + 7)
    )
]
AH_SHAPES = [shape for shape in SHAPES if not shape[3]]
Shape = tuple[Mode, int, int, bool, int]
PARTS = 5
"""The short run takes one shape of so many; it divides no number of modes, families or kinds of numbers."""
IP_CLASS = {4: IP, 6: IPv6}


def some(shapes: Sequence[Shape], number: int, crypto: Crypto) -> Sequence[Shape]:
    """Return the shapes of the suite of this number in the short run."""
    return shapes[(2 * number + (crypto is Crypto.OPENSSL)) % PARTS :: PARTS]


def test_all_suites_together_have_every_shape() -> None:
    for shapes, suites in ((SHAPES, esp.SCAPY_SUITES), (AH_SHAPES, AH_SUITES)):
        taken = [some(shapes, number, Crypto.OPENSSL) for number in range(len(suites))]
        assert min(map(len, taken)) > 1
        assert {shape for chosen in taken for shape in chosen} == set(shapes)


@pytest.mark.parametrize("suite", esp.SCAPY_SUITES, ids=str)
def test_esp_both_ways(library: EngineLibrary, suite: Suite, crypto: Crypto) -> None:
    check_esp(library, suite, crypto, some(SHAPES, esp.SCAPY_SUITES.index(suite), crypto))


@pytest.mark.slow
@pytest.mark.parametrize("suite", esp.SCAPY_SUITES, ids=str)
def test_esp_both_ways_in_every_shape(library: EngineLibrary, suite: Suite, crypto: Crypto) -> None:
    check_esp(library, suite, crypto, SHAPES)


def check_esp(library: EngineLibrary, suite: Suite, crypto: Crypto, shapes: Iterable[Shape]) -> None:
    if library.choose_crypto(association(Direction.OUTBOUND, suite), crypto) is None:
        crypto = Crypto.AUTO  # test_against_gateway_esp.py has what each library lacks
    for mode, inner, outer, udp, sequence in shapes:
        worker = Worker(library, seed=material("scapy", 32))
        fields = {
            "mode": mode,
            "outer": outer,
            "esn": sequence >> 32 > 0,
            "encapsulation": ENCAPSULATION if udp else None,
        }
        ref = worker.add(
            association(Direction.OUTBOUND, suite, **fields), next_sequence=sequence, crypto=crypto
        )
        state = SaState(sequence=sequence - 1)
        worker.add(association(Direction.INBOUND, suite, **fields), crypto=crypto, state=state)
        packets = esp.sample_packets(mode, inner)
        theirs = [
            esp.scapy_sa(suite, mode, outer, udp=udp, sequence=number, esn=fields["esn"])
            for number in range(sequence, sequence + len(packets))
        ]

        ours = worker.seal([(ref, packet) for packet in packets])
        opened = [
            bytes(sa.decrypt(IP_CLASS[outer](outcome.packet)))
            for sa, outcome in zip(theirs, ours, strict=True)
        ]
        sealed = [
            bytes(sa.encrypt(IP_CLASS[inner](packet))) for sa, packet in zip(theirs, packets, strict=True)
        ]
        outcomes = worker.open(sealed)

        assert opened == packets, (mode, inner, outer, udp, sequence)
        assert [outcome.packet for outcome in outcomes] == packets, (mode, inner, outer, udp, sequence)
        assert [outcome.sequence for outcome in outcomes] == [outcome.sequence for outcome in ours]
        worker.close()


@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
def test_ah_both_ways(library: EngineLibrary, suite: AhSuite, crypto: Crypto) -> None:
    check_ah(library, suite, crypto, some(AH_SHAPES, AH_SUITES.index(suite), crypto))


@pytest.mark.slow
@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
def test_ah_both_ways_in_every_shape(library: EngineLibrary, suite: AhSuite, crypto: Crypto) -> None:
    check_ah(library, suite, crypto, AH_SHAPES)


def check_ah(library: EngineLibrary, suite: AhSuite, crypto: Crypto, shapes: Iterable[Shape]) -> None:
    if library.choose_crypto(ah_association(Direction.OUTBOUND, suite), crypto) is None:
        crypto = Crypto.AUTO
    for mode, inner, outer, _, sequence in shapes:
        worker = Worker(library, seed=material("scapy", 32))
        fields = {"mode": mode, "outer": outer, "esn": sequence >> 32 > 0}
        ref = worker.add(
            ah_association(Direction.OUTBOUND, suite, **fields), next_sequence=sequence, crypto=crypto
        )
        state = SaState(sequence=sequence - 1)
        worker.add(ah_association(Direction.INBOUND, suite, **fields), crypto=crypto, state=state)
        packets = ah.sample_packets(mode, inner)
        theirs = [
            ah.scapy_sa(suite, mode, outer, sequence=number, esn=fields["esn"])
            for number in range(sequence, sequence + len(packets))
        ]

        ours = worker.seal([(ref, packet) for packet in packets])
        opened = [
            ah.without_identification(bytes(sa.decrypt(IP_CLASS[outer](outcome.packet))))
            for sa, outcome in zip(theirs, ours, strict=True)
        ]
        sealed = [
            bytes(sa.encrypt(IP_CLASS[inner](packet))) for sa, packet in zip(theirs, packets, strict=True)
        ]
        outcomes = worker.open(sealed)

        assert opened == [ah.without_identification(packet) for packet in packets]
        assert [outcome.packet for outcome in outcomes] == packets, (mode, inner, outer, sequence)
        worker.close()


# --- AH over headers that change on the way (RFC 4302 Appendix A) ----------------------------------


def ipv4_with_options(name: str) -> bytes:
    source, destination = OUTER[4]
    header = IP(src=source, dst=destination, id=77, options=ah.IPV4_OPTIONS[name])
    return bytes(header / UDP(sport=1, dport=2) / Raw(b"data"))


def ipv6_with_extensions(name: str) -> bytes:
    source, destination = OUTER[6]
    header = IPv6(src=source, dst=destination) / ah.EXTENSION_CHAINS[name]()
    return bytes(header / UDP(sport=1, dport=2) / Raw(b"data"))


HEADERS = [
    *(pytest.param(4, ipv4_with_options(name), id=f"IPv4 {name}") for name in ah.IPV4_OPTIONS),
    *(pytest.param(6, ipv6_with_extensions(name), id=f"IPv6 {name}") for name in ah.EXTENSION_CHAINS),
]


@pytest.mark.parametrize(("version", "packet"), HEADERS)
def test_ah_covers_options_and_extension_headers_as_scapy_and_the_reference_do(
    worker: Worker, version: int, packet: bytes
) -> None:
    fields = {"mode": Mode.TRANSPORT, "outer": version}
    ref = worker.add(ah_association(Direction.OUTBOUND, **fields))
    worker.add(ah_association(Direction.INBOUND, **fields))
    theirs = ah.scapy_sa(SHA256, Mode.TRANSPORT, version, sequence=1, esn=False)

    (ours,) = worker.seal([(ref, packet)])
    (opened,) = worker.open([bytes(theirs.encrypt(IP_CLASS[version](packet), seq_num=1))])

    assert ours.packet == ah_outbound(**fields).seal(packet, 0.0)
    assert bytes(theirs.decrypt(IP_CLASS[version](ours.packet))) == packet
    assert opened.packet == packet
