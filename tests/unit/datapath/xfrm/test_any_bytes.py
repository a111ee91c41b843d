"""Any bytes end in a record or in `XfrmDecodeError`, and a record that was read can be written."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.codec import decode, encode
from gateway.datapath.xfrm.errors import XfrmDecodeError
from gateway.datapath.xfrm.numbers import MessageType
from tests.unit.datapath.xfrm.samples import ATTRIBUTES, BODIES

GENUINE = [
    bytes(encode(r.Message(type=kind, flags=flags, body=body, attributes=r.Attributes(**{name: value}))))
    for kind, flags, body in BODIES
    for name, value in ATTRIBUTES.items()
    if body.family or name not in {"source", "care_of_address"}
]
KINDS = st.sampled_from(list(MessageType))


def read(data: bytes) -> r.Message[r.Body] | None:
    """Return the message, `None` if it is refused; anything else fails the test."""
    try:
        message = decode(data)
    except XfrmDecodeError:
        return None
    assert decode(bytes(encode(message))) == message
    return message


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    read(data)


@given(KINDS, st.sampled_from([0, 0x300]), st.binary(max_size=400))
def test_any_body(kind: MessageType, flags: int, body: bytes) -> None:
    read(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 2) + body)


@given(st.sampled_from(BODIES), st.lists(st.tuples(st.integers(0, 45), st.binary(max_size=120)), max_size=4))
def test_any_attributes_behind_a_genuine_body(
    body: tuple[MessageType, int, r.Body], attributes: list[tuple[int, bytes]]
) -> None:
    kind, flags, record = body
    data = bytes(encode(r.Message(type=kind, flags=flags, body=record)))
    data += bytes(-len(data) % 4)
    for number, value in attributes:
        data += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)

    read(struct.pack("=I", len(data)) + data[4:])


@given(st.sampled_from(GENUINE), st.data())
def test_genuine_message_with_some_bytes_changed(genuine: bytes, data: st.DataObject) -> None:
    changed = bytearray(genuine)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))

    read(bytes(changed))
