"""Fuzz targets of the ESP core: what arrives from the outer network, and IP packets of either side."""

import contextlib
from functools import cache

from gateway.esp.ah_inbound import AhInboundSa
from gateway.esp.errors import PacketDropped
from gateway.esp.flow import parse_flow
from gateway.esp.inbound import parse_outer
from gateway.esp.packet import PROTOCOL_AH
from gateway.esp.transform import make_seal
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, Mode
from tests.fuzz.target import Target, choice
from tests.fuzz.test_esp_inbound import BEFORE_AUTHENTICATION
from tests.unit.esp.ah_samples import AH_SUITES, ah_inbound, ah_outbound
from tests.unit.esp.samples import (
    SPI,
    SUITES,
    association,
    inbound,
    ip_packet,
    make_entropy,
    outbound,
    outer_header,
)

MODES = list(Mode)
VERSIONS = (4, 6)


def receive(receiver, packet, outer):
    try:
        return receiver.open(packet, outer, 0.0).packet
    except PacketDropped as dropped:
        return dropped.reason


def run_stranger(data):
    """Bytes of somebody without the key: dropped, and no trace but a counter."""
    if len(data) < 2:
        return
    suite, mode, version = choice(data[0], SUITES), choice(data[1], MODES), choice(data[1] >> 1, VERSIONS)
    receiver = inbound(suite, mode=mode, outer=version, esn=bool(data[1] & 4))
    esp = SPI.to_bytes(4) + data[2:]
    if (suite.name, esp) in genuine():
        return  # only who made the seeds has the key
    verdict = receive(receiver, esp, outer_header(version))
    assert verdict in BEFORE_AUTHENTICATION
    assert receiver.sequence == 0
    assert receiver.usage.packets == 0
    assert receiver.usage.drops == {verdict: 1}


@cache
def genuine():
    """The seeds, which open under the suite that sealed them."""
    return {(choice(packet[0], SUITES).name, SPI.to_bytes(4) + packet[2:]) for packet in esp_packets()}


def esp_packets():
    for index, suite in enumerate(SUITES):
        for mode, version in ((0, 4), (0, 6), (1, 4), (1, 6)):
            packet = ip_packet(version, b"payload" * 3)
            with contextlib.suppress(PacketDropped):
                sealed = outbound(suite, mode=MODES[mode], outer=version).seal(packet, 0.0)
                _, esp = parse_outer(sealed)
                yield bytes([index, mode | (version == 6) << 1]) + esp[4:]


def run_plaintext(data):
    """A peer with the key who seals anything at all: opened or dropped, and counted once."""
    if len(data) < 3:
        return
    suite, mode, version = choice(data[0], SUITES), choice(data[1], MODES), choice(data[1] >> 1, VERSIONS)
    plaintext = data[3:]
    plaintext += bytes(-len(plaintext) % 16)
    sa = association(Direction.OUTBOUND, suite, mode=mode, outer=version)
    esp = make_seal(sa, make_entropy())(1, plaintext)
    receiver = inbound(suite, mode=mode, outer=version)
    facts = outer_header(version, tos=data[2])

    verdict = receive(receiver, esp, facts)

    assert verdict is not DropReason.INTEGRITY
    assert receive(receiver, esp, facts) in (DropReason.REPLAY, DropReason.MALFORMED)


def plaintexts():
    for version, next_header in ((4, 4), (6, 41)):
        packet = ip_packet(version, b"payload" * 3)
        pad = -(len(packet) + 2) % 16
        plaintext = packet + bytes(range(1, pad + 1)) + bytes([pad, next_header])
        for suite in range(len(SUITES)):
            for mode in range(4):
                yield bytes([suite, mode, 0]) + plaintext
    yield bytes([0, 0, 0]) + bytes(1) + bytes(range(1, 14)) + bytes([13, 59])


def run_ah_stranger(data):
    """AH bytes and outer headers of anybody: dropped, or one of the seeds unchanged."""
    if len(data) < 3:
        return
    suite, mode, version = choice(data[0], AH_SUITES), choice(data[1], MODES), choice(data[1] >> 1, VERSIONS)
    receiver: AhInboundSa = ah_inbound(suite, mode=mode, outer=version)
    outer = (b"\x45" if version == 4 else b"\x60") + data[3:]
    with contextlib.suppress(PacketDropped):
        header, ah = parse_outer(outer, PROTOCOL_AH)
        verdict = receive(receiver, ah, header)
        assert receiver.sequence in (0, 1)  # 1: one of the seeds, mutable fields changed perhaps
        assert receiver.sequence == 1 or receiver.usage.drops == {verdict: 1}


def ah_packets():
    for index, suite in enumerate(AH_SUITES):
        for mode, version in ((0, 4), (0, 6), (1, 4), (1, 6)):
            with contextlib.suppress(PacketDropped):
                sealed = ah_outbound(suite, mode=MODES[mode], outer=version).seal(
                    ip_packet(version, b"payload" * 3), 0.0
                )
                yield bytes([index, mode | (version == 6) << 1, 0]) + sealed[1:]


def run_flow(data):
    """Any packet of a host: its flow is known, or it is dropped with a reason."""
    with contextlib.suppress(PacketDropped):
        flow = parse_flow(data)
        assert flow.source_address.version == flow.destination_address.version == flow.version
        assert (flow.source_port is None) == (flow.destination_port is None)
    with contextlib.suppress(PacketDropped):
        _, payload = parse_outer(data)
        assert len(payload) < len(data)


def run_outbound(data):
    """Any packet into the tunnel: sealed and opened again to what it was, or dropped."""
    if len(data) < 2:
        return
    mode, version = choice(data[0], MODES), choice(data[0] >> 1, VERSIONS)
    with contextlib.suppress(PacketDropped):
        sealed = outbound(mode=mode, outer=version).seal(data[1:], 0.0)
        header, esp = parse_outer(sealed)
        verdict = receive(inbound(mode=mode, outer=version), esp, header)
        assert verdict is not DropReason.INTEGRITY


def ip_packets():
    for version in VERSIONS:
        for size in (0, 8, 40, 1200):
            yield ip_packet(version, bytes(size))
            yield ip_packet(version, bytes(size), tos=0xB9)


def prefixed():
    for packet in ip_packets():
        for mode in range(4):
            yield bytes([mode]) + packet


ESP_TARGETS = (
    Target("esp_stranger", esp_packets, run_stranger, 2000),
    Target("esp_plaintext", plaintexts, run_plaintext, 2000),
    Target("ah_stranger", ah_packets, run_ah_stranger, 2000),
    Target("ip_flow", ip_packets, run_flow, 2000),
    Target("esp_outbound", prefixed, run_outbound, 2000),
)
