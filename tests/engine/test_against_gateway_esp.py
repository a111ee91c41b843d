"""`gateway.esp` as the oracle of the native engine: the same SA, the same packets, the same bytes.

CBC draws its IV, so that there the bytes cannot be equal; what one seals the other opens, for every suite.
"""

from itertools import product
from typing import Any

import pytest

from gateway.datapath.engine.core import Crypto, EngineLibrary, Refusal, Refused, Worker
from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.ah_outbound import AhOutboundSa
from gateway.esp.errors import PacketDropped
from gateway.esp.inbound import InboundSa, parse_outer
from gateway.esp.outbound import OutboundSa
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.sa import Direction, IpsecProtocol, Mode, SecurityAssociation
from tests.unit.esp.ah_samples import AH_SUITES, AhSuite, ah_association
from tests.unit.esp.samples import (
    ENCAPSULATION,
    INNER,
    OUTER,
    SUITES,
    Suite,
    association,
    ip_packet,
    make_entropy,
    material,
)

SIZES = (0, 1, 2, 3, 13, 64, 255, 1380)
HIGH = 2**32 + 5
"""A sequence number that shows its high half."""


def packets_for(mode: Mode, outer: int, inner: int) -> list[bytes]:
    addresses = INNER if mode is Mode.TUNNEL else OUTER
    version = inner if mode is Mode.TUNNEL else outer
    return [
        ip_packet(version, material(f"payload {size}", size), tos=tos, addresses=addresses)
        for size, tos in zip(SIZES, (0, 0xB8, 1, 2, 3, 0x28, 0xFF, 0), strict=True)
    ]


def shapes() -> list[dict[str, Any]]:
    """Every mode, pair of families, encapsulation and kind of sequence number."""
    found = []
    for mode, outer, inner, udp, esn in product(Mode, (4, 6), (4, 6), (None, ENCAPSULATION), (False, True)):
        if mode is Mode.TRANSPORT and inner != outer:
            continue
        found.append({"mode": mode, "outer": outer, "inner": inner, "encapsulation": udp, "esn": esn})
    return found


def sa_of(direction: Direction, suite: Suite, shape: dict[str, Any]) -> SecurityAssociation:
    fields = {key: value for key, value in shape.items() if key not in ("inner", "outer")}
    return association(direction, suite, outer=shape["outer"], **fields)


def reference_open(inbound: InboundSa, packet: bytes) -> bytes:
    outer, esp = parse_outer(packet)
    return inbound.open(esp, outer, 0.0).packet


def first_sequence(shape: dict[str, Any]) -> int:
    return HIGH if shape["esn"] else 7


def lacks(crypto: Crypto, sa: SecurityAssociation) -> bool:
    """Say whether a library has no such suite: what the other one is there for."""
    if crypto is Crypto.OPENSSL:
        return sa.integrity is Integ.AES_XCBC_96
    return sa.encryption in (Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16) and sa.key_bits == 192


def is_refused(library: EngineLibrary, sa: SecurityAssociation, crypto: Crypto) -> bool:
    """Return whether the suite is one that this library lacks; then check that it says so."""
    if not lacks(crypto, sa):
        return False
    worker = Worker(library, seed=material("refusal", 32))
    with pytest.raises(Refused) as refused:
        worker.add(sa, crypto=crypto)
    assert refused.value.reason is Refusal.UNSUPPORTED
    assert library.choose_crypto(sa, crypto) is None
    assert library.choose_crypto(sa) not in (None, crypto)
    worker.close()
    return True


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_seals_as_the_reference_does(library: EngineLibrary, suite: Suite, crypto: Crypto) -> None:
    if is_refused(library, association(Direction.OUTBOUND, suite), crypto):
        return
    for shape in shapes():
        worker = Worker(library, seed=material("seal", 32))
        sa = sa_of(Direction.OUTBOUND, suite, shape)
        start = first_sequence(shape)
        ref = worker.add(sa, next_sequence=start, crypto=crypto)
        reference = OutboundSa(sa, entropy=make_entropy(), next_sequence=start)
        packets = packets_for(shape["mode"], shape["outer"], shape["inner"])

        outcomes = worker.seal([(ref, packet) for packet in packets])

        assert worker.usage(ref).crypto is crypto
        assert [outcome.drop for outcome in outcomes] == [None] * len(packets), shape
        assert [outcome.sequence for outcome in outcomes] == list(range(start, start + len(packets)))
        if suite.encryption is Encr.AES_CBC:
            opener = InboundSa(sa_of(Direction.INBOUND, suite, shape))
            opener.window.highest = start - 1
            opened = [reference_open(opener, outcome.packet) for outcome in outcomes]
            assert opened == packets, shape
        else:
            expected = [reference.seal(packet, 0.0) for packet in packets]
            assert [outcome.packet for outcome in outcomes] == expected, shape
        worker.close()


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_opens_what_the_reference_seals(library: EngineLibrary, suite: Suite, crypto: Crypto) -> None:
    if is_refused(library, association(Direction.INBOUND, suite), crypto):
        return
    for shape in shapes():
        worker = Worker(library, seed=material("open", 32))
        ref = worker.add(sa_of(Direction.INBOUND, suite, shape), crypto=crypto)
        start = 1 if not shape["esn"] else 2**31
        sealer = OutboundSa(
            sa_of(Direction.OUTBOUND, suite, shape), entropy=make_entropy(), next_sequence=start
        )
        packets = packets_for(shape["mode"], shape["outer"], shape["inner"])
        sealed = [sealer.seal(packet, 0.0) for packet in packets]

        outcomes = worker.open(sealed)

        assert [outcome.drop for outcome in outcomes] == [None] * len(packets), shape
        assert [outcome.packet for outcome in outcomes] == packets, shape
        assert {outcome.ref for outcome in outcomes} == {ref}
        assert worker.usage(ref).packets == len(packets)
        worker.close()


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_refuses_each_packet_of_which_one_bit_changed(
    library: EngineLibrary, suite: Suite, crypto: Crypto
) -> None:
    if is_refused(library, association(Direction.INBOUND, suite), crypto):
        return
    for esn in (False, True):
        worker = Worker(library, seed=material("bit", 32))
        ref = worker.add(association(Direction.INBOUND, suite, esn=esn), crypto=crypto)
        sealer = OutboundSa(
            association(Direction.OUTBOUND, suite, esn=esn), entropy=make_entropy(), next_sequence=1
        )
        sealed = sealer.seal(ip_packet(4, material("payload", 29)), 0.0)
        # From the sequence number to the end: a bit in each byte. The SPI names another SA.
        changed = [
            sealed[:at] + bytes((sealed[at] ^ 1 << at % 8,)) + sealed[at + 1 :]
            for at in range(24, len(sealed))
        ]

        outcomes = worker.open(changed)

        assert {outcome.drop for outcome in outcomes} <= {"integrity", "replay_window"}
        assert sum(outcome.drop == "integrity" for outcome in outcomes) >= len(changed) - 4
        assert worker.usage(ref).packets == 0
        assert worker.open([sealed])[0].drop is None
        worker.close()


# --- AH -------------------------------------------------------------------------------------------


def ah_shapes() -> list[dict[str, Any]]:
    return [shape for shape in shapes() if shape["encapsulation"] is None]


def ah_of(direction: Direction, suite: AhSuite, shape: dict[str, Any]) -> SecurityAssociation:
    return ah_association(direction, suite, mode=shape["mode"], outer=shape["outer"], esn=shape["esn"])


@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
def test_ah_seals_as_the_reference_does(library: EngineLibrary, suite: AhSuite, crypto: Crypto) -> None:
    for shape in ah_shapes():
        sa = ah_of(Direction.OUTBOUND, suite, shape)
        if is_refused(library, sa, crypto):
            return
        worker = Worker(library, seed=material("ah", 32))
        start = first_sequence(shape)
        ref = worker.add(sa, next_sequence=start, crypto=crypto)
        reference = AhOutboundSa(sa, next_sequence=start)
        packets = packets_for(shape["mode"], shape["outer"], shape["inner"])

        outcomes = worker.seal([(ref, packet) for packet in packets])

        expected = [reference.seal(packet, 0.0) for packet in packets]
        assert [outcome.packet for outcome in outcomes] == expected, shape
        worker.close()


@pytest.mark.parametrize("suite", AH_SUITES, ids=str)
def test_ah_opens_what_the_reference_seals(library: EngineLibrary, suite: AhSuite, crypto: Crypto) -> None:
    for shape in ah_shapes():
        sa = ah_of(Direction.INBOUND, suite, shape)
        if is_refused(library, sa, crypto):
            return
        worker = Worker(library, seed=material("ah", 32))
        worker.add(sa, crypto=crypto)
        sealer = AhOutboundSa(ah_of(Direction.OUTBOUND, suite, shape), next_sequence=1)
        reader = AhInboundSa(sa)
        packets = packets_for(shape["mode"], shape["outer"], shape["inner"])
        sealed = [sealer.seal(packet, 0.0) for packet in packets]

        outcomes = worker.open(sealed)

        expected = []
        for packet in sealed:
            outer, ah = parse_outer(packet, IpsecProtocol.AH)
            expected.append(reader.open(ah, outer, 0.0).packet)
        assert [outcome.drop for outcome in outcomes] == [None] * len(packets), shape
        assert [outcome.packet for outcome in outcomes] == expected, shape
        spoilt = sealer.seal(packets[-1], 0.0)
        assert worker.open([spoilt[:-1] + bytes((spoilt[-1] ^ 1,))])[0].drop == "integrity"
        worker.close()


# --- drops ----------------------------------------------------------------------------------------


def reference_verdict(inbound: InboundSa, packet: bytes) -> str | None:
    try:
        reference_open(inbound, packet)
    except PacketDropped as dropped:
        return dropped.reason.value
    return None


@pytest.mark.parametrize("outer", [4, 6])
def test_says_the_same_of_every_truncation(library: EngineLibrary, outer: int) -> None:
    worker = Worker(library, seed=material("truncation", 32))
    worker.add(association(Direction.INBOUND, outer=outer))
    reader = InboundSa(association(Direction.INBOUND, outer=outer))
    sealed = OutboundSa(
        association(Direction.OUTBOUND, outer=outer), entropy=make_entropy(), next_sequence=1
    ).seal(ip_packet(4, b"payload"), 0.0)
    cuts = [sealed[:length] for length in range(len(sealed))]

    outcomes = worker.open(cuts)

    assert [outcome.drop for outcome in outcomes] == [reference_verdict(reader, cut) for cut in cuts]
    worker.close()
