"""AES-GCM-8 and -12 against NIST SP 800-38D, written out in `written_out.gcm`."""

from itertools import product

import pytest

from gateway.esp.inbound import parse_outer
from gateway.esp.packet import trailer
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.sa import Mode
from tests.unit.esp.samples import (
    ENCAPSULATION,
    INNER,
    OUTER,
    SPI,
    SUITES,
    Suite,
    inbound,
    ip_packet,
    outbound,
    outer_header,
)
from tests.unit.esp.written_out import gcm

TRUNCATED = {Encr.AES_GCM_12: 12, Encr.AES_GCM_8: 8, Encr.AES_GCM_16: 16}
GCM_SUITES = [suite for suite in SUITES if suite.encryption in TRUNCATED]
SHAPES = [
    pytest.param(mode, inner, outer, udp, id=f"{mode.value}-v{inner}-in-v{outer}{'-udp' if udp else ''}")
    for (mode, inner, outer), udp in product(
        (
            *product((Mode.TUNNEL,), (4, 6), (4, 6)),
            (Mode.TRANSPORT, 4, 4),
            (Mode.TRANSPORT, 6, 6),
        ),
        (False, True),
    )
]


def build(suite: Suite, payload: bytes, next_header: int, sequence: int, esn: bool) -> bytes:
    """Return an ESP packet as RFC 4106 has it."""
    key, salt = suite.encryption_key[:-4], suite.encryption_key[-4:]
    spi, low, iv = SPI.to_bytes(4), (sequence & 0xFFFFFFFF).to_bytes(4), sequence.to_bytes(8)
    aad = spi + iv if esn else spi + low
    ciphertext, tag = gcm(key, salt + iv, payload + trailer(len(payload), next_header, 4), aad)
    return spi + low + iv + ciphertext + tag[: TRUNCATED[suite.encryption]]


@pytest.mark.parametrize("suite", GCM_SUITES, ids=str)
@pytest.mark.parametrize(("esn", "sequence"), [(False, 7), (True, (5 << 32) + 7)], ids=["sn32", "esn"])
@pytest.mark.parametrize(("mode", "inner", "outer", "udp"), SHAPES)
def test_gcm_with_every_icv_is_what_the_standard_says(
    *, suite: Suite, mode: Mode, inner: int, outer: int, udp: bool, esn: bool, sequence: int
) -> None:
    encapsulation = ENCAPSULATION if udp else None
    packet = ip_packet(inner, b"0123456789", addresses=INNER if mode is Mode.TUNNEL else OUTER)
    payload = packet if mode is Mode.TUNNEL else packet[20 if inner == 4 else 40 :]
    next_header = (4 if inner == 4 else 41) if mode is Mode.TUNNEL else 253
    expected = build(suite, payload, next_header, sequence, esn)
    sender = outbound(
        suite, mode=mode, outer=outer, esn=esn, encapsulation=encapsulation, next_sequence=sequence
    )
    receiver = inbound(suite, mode=mode, outer=outer, esn=esn, encapsulation=encapsulation)
    receiver.window.commit(sequence - 1)

    header, sealed = parse_outer(sender.seal(packet, 0.0))

    assert sealed == expected
    assert header.udp_source_port == (4500 if udp else None)
    facts = outer_header(outer, udp_source_port=4500 if udp else None)
    assert receiver.open(expected, facts, 0.0).packet == packet
