"""Messages that iproute2 and the kernel exchanged: read, and written anew byte for byte."""

import json
from collections import Counter
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.codec import decode, encode
from gateway.datapath.xfrm.messages import aligned, attribute_spans, message_class
from gateway.datapath.xfrm.numbers import (
    EncapsulationType,
    MessageType,
    Mode,
    OffloadFlag,
    PolicyAction,
    PolicyDirection,
    SaExtraFlag,
)
from gateway.ipsec.secret import Secret

VECTORS = json.loads(Path("tests/vectors/xfrm/iproute2-6.1.0.json").read_text())["entries"]
_NLMSG_ERROR_AND_DONE = {2, 3}

MESSAGES = [
    pytest.param(bytes.fromhex(one), id=f"{entry['command'][3:60]} {way} {i}")
    for entry in VECTORS
    for way in ("sent", "received")
    for i, one in enumerate(entry[way])
    if int(one[8:10], 16) not in _NLMSG_ERROR_AND_DONE
]


def parts(data: bytes) -> tuple[bytes, bytes, Counter[bytes]]:
    """Return header without its length, body, and attributes in no order: iproute2 has one of its own."""
    kind, flags = MessageType(data[4]), int.from_bytes(data[6:8], "little")
    end = 16 + message_class(kind, flags).layout.size()
    spans = attribute_spans(data, aligned(end), len(data))
    return data[4:16], data[16:end], Counter(data[start : start + length] for _, start, length in spans)


def sent(start: str) -> r.Message[r.Body]:
    """Return what the command that starts so sent."""
    (entry,) = [one for one in VECTORS if one["command"].startswith(start)]
    return decode(bytes.fromhex(entry["sent"][0]))


@pytest.mark.parametrize("data", MESSAGES)
def test_message_is_written_as_it_was_read(data: bytes) -> None:
    assert parts(bytes(encode(decode(data)))) == parts(data)


def test_vectors_have_what_a_kernel_without_esp_can_say() -> None:
    seen = {MessageType(param.values[0][4]) for param in MESSAGES}

    assert set(MessageType) - seen == {
        MessageType.NEWAE,
        MessageType.GETAE,
        MessageType.REPORT,
        MessageType.MIGRATE,
        MessageType.MAPPING,
    }


def test_sa_of_iproute2_is_what_its_command_says() -> None:
    message = sent("ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1004")

    assert isinstance(message.body, r.SaInfo)
    assert message.body.id == r.SaId(destination=IPv4Address("192.0.2.2"), spi=0x1004, protocol=50)
    assert (message.body.source, message.body.mode) == (IPv4Address("192.0.2.1"), Mode.TUNNEL)
    assert message.body.limits == r.LifetimeLimits(
        soft_bytes=1000000,
        hard_bytes=2000000,
        soft_packets=3000,
        hard_packets=4000,
        soft_add_s=50,
        hard_add_s=60,
        soft_use_s=70,
        hard_use_s=80,
    )
    assert message.attributes == r.Attributes(
        aead=r.AeadAlgorithm(
            name="rfc4106(gcm(aes))",
            key=Secret(bytes.fromhex("000102030405060708090a0b0c0d0e0f10111213")),
            icv_bits=128,
        ),
        encapsulation=r.Encapsulation(
            type=EncapsulationType.ESP_IN_UDP,
            source_port=4500,
            destination_port=4501,
            original_address=IPv4Address("192.0.2.9"),
        ),
        extra_flags=SaExtraFlag.DONT_ENCAP_DSCP,
        offload=r.Offload(link=1, flags=OffloadFlag.INBOUND),
    )


def test_policy_of_iproute2_is_what_its_command_says() -> None:
    message = sent("ip xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/16 proto tcp")

    assert message.body == r.PolicyInfo(
        selector=r.Selector(
            source=IPv4Interface("10.2.0.0/16"),
            destination=IPv4Interface("10.1.0.0/16"),
            protocol=6,
            source_port=80,
            source_port_mask=0xFFFF,
            destination_port=1000,
            destination_port_mask=0xFFFF,
        ),
        direction=PolicyDirection.IN,
        action=PolicyAction.ALLOW,
    )
    assert message.attributes.templates is not None
    first, second = message.attributes.templates
    assert (first.spi, first.reqid, first.mode, first.is_optional) == (0x1234, 7, Mode.TUNNEL, True)
    assert (first.source, first.destination) == (IPv4Address("192.0.2.2"), IPv4Address("192.0.2.1"))
    assert (second.protocol, second.mode) == (51, Mode.TRANSPORT)


def test_monitor_saw_the_acquire_of_a_ping() -> None:
    (entry,) = [one for one in VECTORS if one["command"] == "ip xfrm monitor"]
    told = [decode(bytes.fromhex(one)) for one in entry["received"]]

    (acquire,) = [one for one in told if isinstance(one.body, r.Acquire)]

    assert isinstance(acquire.body, r.Acquire)
    assert acquire.body.id == r.SaId(destination=IPv4Address("192.0.2.2"), spi=0, protocol=50)
    assert acquire.body.source == IPv4Address("192.0.2.1")
    # ping(8) first asks for its source address with a UDP socket to port 1025.
    assert (acquire.body.selector.protocol, acquire.body.selector.destination_port) == (17, 1025)
    assert acquire.body.policy.priority == 3
    assert acquire.attributes.templates is not None
    assert acquire.attributes.templates[0].reqid == 7
    assert [one.body.is_hard for one in told if isinstance(one.body, r.PolicyExpire)] == [False, True]
    assert [one.body.sa.id.spi for one in told if isinstance(one.body, r.Expire)] == [0, 0x2001]
