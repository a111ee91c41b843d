"""Counters and limits in bytes, packets and sequence numbers (RFC 4301 §4.4.2.1)."""

from typing import Any

import pytest

from gateway.esp.errors import PacketDropped
from gateway.esp.usage import Expiry
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.lifetime import Lifetime, Limit
from tests.unit.esp.samples import esp_of, inbound, ip_packet, outbound, outer_header

PACKET = ip_packet(4, bytes(80))  # 100 bytes


def lifetime(soft: dict[str, int], hard: dict[str, int]) -> dict[str, Any]:
    return {"lifetime": Lifetime(soft=Limit(**soft), hard=Limit(**hard))}


def drop_of(action: Any, *args: Any) -> DropReason:
    with pytest.raises(PacketDropped) as dropped:
        action(*args, 0.0)
    return dropped.value.reason


def test_outbound_packet_limits_are_each_told_once_and_then_the_sa_is_dead() -> None:
    sender = outbound(**lifetime({"packets": 2}, {"packets": 4}))
    told = []

    for _ in range(4):
        sender.seal(PACKET, 0.0)
        told.append(sender.drain_expiries())

    assert told == [(), (Expiry(False, "packets"),), (), (Expiry(True, "packets"),)]
    assert drop_of(sender.seal, PACKET) is DropReason.SA_EXPIRED
    assert drop_of(sender.seal_payload, PACKET) is DropReason.SA_EXPIRED
    assert sender.drain_expiries() == ()
    assert (sender.usage.packets, sender.sequence) == (4, 4)


def test_outbound_byte_limits_are_never_exceeded() -> None:
    sender = outbound(**lifetime({"bytes": 150}, {"bytes": 250}))

    sender.seal(PACKET, 0.0)
    assert sender.drain_expiries() == ()
    sender.seal(PACKET, 0.0)
    assert sender.drain_expiries() == (Expiry(False, "bytes"),)
    assert drop_of(sender.seal, PACKET) is DropReason.SA_EXPIRED
    assert sender.drain_expiries() == (Expiry(True, "bytes"),)
    assert drop_of(sender.seal, ip_packet(4)) is DropReason.SA_EXPIRED
    assert sender.drain_expiries() == ()
    assert sender.usage.bytes == 200


def test_byte_limit_reached_exactly_is_told_at_once() -> None:
    sender = outbound(**lifetime({}, {"bytes": 200}))

    sender.seal(PACKET, 0.0)
    sender.seal(PACKET, 0.0)

    assert sender.drain_expiries() == (Expiry(True, "bytes"),)
    assert sender.usage.is_expired


def test_inbound_limits() -> None:
    sender = outbound()
    receiver = inbound(**lifetime({"packets": 1, "bytes": 100}, {"packets": 2}))
    packets = [esp_of(sender.seal(PACKET, 0.0)) for _ in range(3)]

    receiver.open(packets[0], outer_header(), 0.0)
    assert set(receiver.drain_expiries()) == {Expiry(False, "packets"), Expiry(False, "bytes")}
    receiver.open(packets[1], outer_header(), 0.0)
    assert receiver.drain_expiries() == (Expiry(True, "packets"),)
    assert drop_of(receiver.open, packets[2], outer_header()) is DropReason.SA_EXPIRED
    assert receiver.usage.drops == {DropReason.SA_EXPIRED: 1}


def test_forged_packets_use_up_nothing() -> None:
    receiver = inbound(**lifetime({"packets": 1}, {"packets": 2}))

    for _ in range(5):
        forged = esp_of(outbound().seal(PACKET, 0.0))[:-1] + b"\0"
        assert drop_of(receiver.open, forged, outer_header()) is DropReason.INTEGRITY

    assert receiver.drain_expiries() == ()
    assert receiver.usage.packets == 0


@pytest.mark.parametrize(("esn", "bits"), [(False, 32), (True, 64)])
def test_soft_expiry_at_three_quarters_of_the_sequence_space(esn: bool, bits: int) -> None:
    mark = 3 * (1 << bits) // 4 - 1
    sender = outbound(esn=esn, next_sequence=mark - 1)

    sender.seal(PACKET, 0.0)
    assert sender.drain_expiries() == ()
    sender.seal(PACKET, 0.0)
    assert sender.drain_expiries() == (Expiry(False, "sequence"),)
    sender.seal(PACKET, 0.0)
    assert sender.drain_expiries() == ()


def test_sa_without_limits_never_expires() -> None:
    sender = outbound()

    for _ in range(100):
        sender.seal(PACKET, 0.0)

    assert sender.drain_expiries() == ()
