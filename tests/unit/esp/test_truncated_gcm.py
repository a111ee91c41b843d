"""AES-GCM-8 and -12 against NIST SP 800-38D, written out here; of AES only the block cipher is borrowed."""

from itertools import product

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

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


def multiply(x: int, y: int) -> int:
    """Return the product in GF(2^128) (SP 800-38D §6.3)."""
    z = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def gcm(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
    """Return ciphertext and full tag (SP 800-38D §7.1, with a nonce of 96 bits)."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 16)

    stream = b"".join(block(nonce + n.to_bytes(4)) for n in range(2, len(plaintext) // 16 + 3))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream, strict=False))
    hashed = pad(aad) + pad(ciphertext) + (len(aad) * 8).to_bytes(8) + (len(ciphertext) * 8).to_bytes(8)
    h, ghash = int.from_bytes(block(bytes(16))), 0
    for at in range(0, len(hashed), 16):
        ghash = multiply(ghash ^ int.from_bytes(hashed[at : at + 16]), h)
    return ciphertext, (ghash ^ int.from_bytes(block(nonce + b"\0\0\0\1"))).to_bytes(16)


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
