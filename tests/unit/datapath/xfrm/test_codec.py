"""Messages from bytes to records and back."""

import struct
from dataclasses import fields, replace
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.attributes import ATTRIBUTES
from gateway.datapath.xfrm.codec import decode, encode
from gateway.datapath.xfrm.errors import XfrmDecodeError, XfrmEncodeError
from gateway.datapath.xfrm.messages import MESSAGES, XfrmMessage, parse
from gateway.datapath.xfrm.numbers import Attribute, MessageType, Mode, OffloadFlag, SaDirection
from gateway.ipsec.secret import Secret
from tests.unit.datapath.xfrm import samples
from tests.unit.datapath.xfrm.samples import B6, BODIES, SA, SA6, A


def message(
    body: r.Body = SA, kind: MessageType = MessageType.NEWSA, **attributes: object
) -> r.Message[r.Body]:
    return r.Message(type=kind, body=body, attributes=r.Attributes(**attributes))


def attribute_bytes(**attributes: object) -> bytes:
    """Return the bytes of the attributes of a NEWSA."""
    return bytes(encode(message(**attributes))[16 + 224 :])


# --- round trips --------------------------------------------------------------------------------------


def test_samples_have_every_message_and_every_attribute() -> None:
    assert {kind for kind, _, _ in BODIES} == set(MessageType) == set(MESSAGES)
    assert set(samples.ATTRIBUTES) == {field.name for field in fields(r.Attributes)} == set(ATTRIBUTES)
    named = {codec.name for codec in ATTRIBUTES.values()}
    assert named == {f"XFRMA_{one.name}" for one in Attribute if one is not Attribute.PAD}
    assert {(number, name) for number, name, _ in XfrmMessage.nla_map} == {
        (one.value, f"XFRMA_{one.name}") for one in Attribute
    }


@pytest.mark.parametrize(("kind", "flags", "body"), BODIES)
def test_every_message_comes_back_as_it_was(kind: MessageType, flags: int, body: r.Body) -> None:
    sent = r.Message(type=kind, body=body, flags=flags, sequence=5, port=6)

    assert decode(bytes(encode(sent))) == sent


@pytest.mark.parametrize("name", samples.ATTRIBUTES)
def test_every_attribute_comes_back_as_it_was(name: str) -> None:
    sent = message(**{name: samples.ATTRIBUTES[name]})

    assert decode(bytes(encode(sent))) == sent


@pytest.mark.parametrize(("kind", "flags", "body"), [one for one in BODIES if "INFO" not in one[0].name])
def test_all_attributes_at_once_come_back_behind_every_body(
    kind: MessageType, flags: int, body: r.Body
) -> None:
    attributes = dict(samples.ATTRIBUTES)
    if body.family != SA.family:
        # Their family is that of the body.
        for name in ("source", "care_of_address", "encapsulation"):
            del attributes[name]
    if kind is MessageType.ACQUIRE:
        del attributes["templates"]
    sent = r.Message(type=kind, body=body, flags=flags, attributes=r.Attributes(**attributes))

    assert decode(bytes(encode(sent))) == sent


# --- attributes iproute2 6.1 cannot make, by hand from <linux/xfrm.h> ---------------------------------


@pytest.mark.parametrize(
    ("attributes", "wire"),
    [
        # struct xfrm_user_offload: int ifindex, u8 flags, 3 bytes hole; XFRM_OFFLOAD_PACKET is 4.
        ({"offload": r.Offload(link=3, flags=OffloadFlag.PACKET)}, struct.pack("=HHiB3x", 12, 28, 3, 4)),
        # u8, padded to 4 bytes behind the length.
        ({"direction": SaDirection.IN}, struct.pack("=HHB3x", 5, 33, 1)),
        ({"direction": SaDirection.OUT}, struct.pack("=HHB3x", 5, 33, 2)),
        ({"nat_keepalive_s": 20}, struct.pack("=HHI", 8, 34, 20)),
        ({"cpu": 3}, struct.pack("=HHI", 8, 35, 3)),
        ({"iptfs_drop_time_us": 1000}, struct.pack("=HHI", 8, 36, 1000)),
        ({"iptfs_reorder_window_packets": 3}, struct.pack("=HHH2x", 6, 37, 3)),
        ({"iptfs_dont_fragment": True}, struct.pack("=HH", 4, 38)),
        ({"iptfs_dont_fragment": False}, b""),
        ({"iptfs_init_delay_us": 4}, struct.pack("=HHI", 8, 39, 4)),
        ({"iptfs_max_queue_bytes": 5}, struct.pack("=HHI", 8, 40, 5)),
        ({"iptfs_packet_bytes": 6}, struct.pack("=HHI", 8, 41, 6)),
        ({"mapping_threshold_s": 7}, struct.pack("=HHI", 8, 32, 7)),
        ({"last_used_s": 8}, struct.pack("=HHQ", 12, 15, 8)),
        # Ports and addresses are in network order, all else is not.
        (
            {"encapsulation": samples.ATTRIBUTES["encapsulation"]},
            struct.pack("=HHH", 28, 4, 2) + bytes.fromhex("1194 0401 0000 c0000203") + bytes(12),
        ),
    ],
)
def test_attribute_has_the_bytes_of_the_header(attributes: dict[str, object], wire: bytes) -> None:
    assert attribute_bytes(**attributes) == wire


def test_sa_has_spi_ports_and_addresses_in_network_order_and_numbers_in_host_order() -> None:
    data = bytes(encode(message()))[16:]

    assert len(data) == 224
    assert data[56 + 16 : 56 + 20] == bytes.fromhex("c0ffee01")
    assert data[32:40] == struct.pack(">HHHH", 2000, 0xFF00, 1000, 0xFFF0)
    assert data[80:84] == A.packed
    assert struct.unpack_from("=I", data, 208) == (9,)


# --- keys ---------------------------------------------------------------------------------------------


def test_keys_are_secrets_that_no_print_of_a_message_shows() -> None:
    key = bytes(range(0x41, 0x41 + 20))
    aead = r.AeadAlgorithm(name="rfc4106(gcm(aes))", key=Secret(key), icv_bits=128)
    sent = message(aead=aead)
    data = bytes(encode(sent))

    decoded, raw = decode(data), parse(data)

    assert isinstance(decoded.attributes.aead, r.AeadAlgorithm)
    assert decoded.attributes.aead.key == Secret(key)
    for shown in (repr(sent), repr(decoded), repr(raw), repr(raw.get_attr("XFRMA_ALG_AEAD")), str(dict(raw))):
        assert key.decode() not in shown
        assert repr(key) not in shown


# --- what cannot be written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        message(replace(SA, source=A, id=replace(SA.id, destination=B6))),
        message(replace(SA, reqid=2**32)),
        message(replace(SA, reqid=-1)),
        message(replace(SA, replay_window=256)),
        message(r.SaId(destination=A, spi=2**32, protocol=50), MessageType.GETSA),
        message(samples.POLICY),
        message(r.SadInfo()),
        message(SA, MessageType.GETSADINFO),
        replace(message(SA.id, MessageType.GETSA), flags=0x300),
        message(protocol=256),
        message(iptfs_reorder_window_packets=2**16),
        message(if_id=2**32),
        message(tfc_padding_bytes=-1),
        message(encryption=r.Algorithm(name="x" * 64, key=Secret(b""))),
        message(encryption=r.Algorithm(name="é", key=Secret(b""))),
        message(encryption=r.Algorithm(name="a\0b", key=Secret(b""))),
        message(templates=(r.Template(source=A, destination=B6, protocol=50, mode=Mode.TUNNEL),)),
        message(
            r.PolicyInfo(
                selector=r.Selector(source=IPv4Interface("10.0.0.0/8"), destination=IPv6Interface("::/0")),
                direction=samples.POLICY.direction,
            ),
            MessageType.NEWPOLICY,
        ),
    ],
)
def test_record_that_does_not_fit_is_an_error(sent: r.Message[r.Body]) -> None:
    with pytest.raises(XfrmEncodeError):
        encode(sent)


# --- what cannot be read ------------------------------------------------------------------------------


def with_attribute(number: int, value: bytes, body: r.Body = SA) -> bytes:
    """Return a NEWSA with an attribute of these bytes."""
    data = bytes(encode(message(body)))
    data += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack("=I", len(data)) + data[4:]


SIZES = {
    Attribute.ALG_AUTH: 68,
    Attribute.ENCAP: 24,
    Attribute.SA: 224,
    Attribute.POLICY: 168,
    Attribute.SEC_CTX: 8,
    Attribute.LTIME_VAL: 32,
    Attribute.REPLAY_VAL: 12,
    Attribute.REPLAY_THRESH: 4,
    Attribute.SRCADDR: 16,
    Attribute.LASTUSED: 8,
    Attribute.POLICY_TYPE: 6,
    Attribute.ALG_AEAD: 72,
    Attribute.KMADDRESS: 40,
    Attribute.MARK: 8,
    Attribute.REPLAY_ESN_VAL: 24,
    Attribute.PROTO: 1,
    Attribute.ADDRESS_FILTER: 36,
    Attribute.OFFLOAD_DEV: 8,
    Attribute.IF_ID: 4,
    Attribute.SA_DIR: 1,
    Attribute.IPTFS_REORDER_WINDOW: 2,
}


@pytest.mark.parametrize(("number", "size"), SIZES.items())
def test_attribute_too_short_is_an_error_that_names_it(number: Attribute, size: int) -> None:
    with pytest.raises(XfrmDecodeError, match=f"XFRM_MSG_NEWSA: XFRMA_{number.name} has {size - 1} bytes"):
        decode(with_attribute(number, bytes(size - 1)))


@pytest.mark.parametrize(
    ("number", "value", "says"),
    [
        (Attribute.TMPL, bytes(65), "no array of structs of 64"),
        (Attribute.ALG_CRYPT, b"cbc(aes)".ljust(64, b"\0") + struct.pack("=I", 128) + bytes(15), "15 bytes"),
        (Attribute.ALG_CRYPT, b"cbc(aes)".ljust(64, b"\0") + struct.pack("=I", 127) + bytes(16), "127 bits"),
        (Attribute.ALG_CRYPT, b"x" * 64 + struct.pack("=I", 0), "not ASCII with a zero"),
        (Attribute.REPLAY_ESN_VAL, struct.pack("=I", 2) + bytes(20) + bytes(4), "4 bytes of 2 words"),
        (Attribute.SEC_CTX, struct.pack("=HHBBH", 12, 8, 1, 1, 4) + b"abc", "3 bytes of 4"),
        (Attribute.SA_DIR, b"\x03", "3 is no SaDirection"),
        (Attribute.ADDRESS_FILTER, bytes(32) + struct.pack("=HBB", 2, 33, 0), "33 bits is longer"),
        (Attribute.KMADDRESS, bytes(40), "family 0"),
    ],
)
def test_attribute_that_makes_no_sense_is_an_error(number: Attribute, value: bytes, says: str) -> None:
    with pytest.raises(XfrmDecodeError, match=f"XFRMA_{number.name}.*{says}"):
        decode(with_attribute(number, value))


def test_every_truncation_of_a_message_is_an_error() -> None:
    data = bytes(encode(message(**samples.ATTRIBUTES)))

    for length in range(len(data)):
        with pytest.raises(XfrmDecodeError):
            decode(data[:length])


def test_attribute_of_a_newer_kernel_is_passed_over_and_a_longer_value_is_cut() -> None:
    assert decode(with_attribute(99, bytes(5))).attributes == r.Attributes()
    longer = with_attribute(Attribute.OFFLOAD_DEV, struct.pack("=iB3x", 3, 2) + bytes(4))
    assert decode(longer).attributes.offload == r.Offload(link=3, flags=OffloadFlag.INBOUND)


def test_message_of_another_family_is_an_error() -> None:
    with pytest.raises(XfrmDecodeError, match="0x29"):
        decode(struct.pack("=IHHII", 16, 0x29, 0, 0, 0))


def test_acquire_across_families_takes_the_outer_family_of_its_template() -> None:
    acquire = r.Acquire(
        id=r.SaId(destination=B6, spi=0, protocol=50),
        source=SA6.source,
        selector=samples.SELECTOR,
        policy=samples.POLICY,
        sequence=1,
    )
    template = r.Template(source=SA6.source, destination=B6, protocol=50, mode=Mode.TUNNEL)
    sent = message(acquire, MessageType.ACQUIRE, templates=(template,))

    assert decode(bytes(encode(sent))) == sent


def test_missing_bitmap_is_all_zero_as_iproute2_sends_it() -> None:
    wire = struct.pack("=HHIIIIII", 28, 23, 4, 0, 0, 0, 0, 128)

    assert attribute_bytes(replay_esn=r.ReplayStateEsn(window_packets=128)) == wire
    assert decode(with_attribute(23, wire[4:])).attributes.replay_esn == r.ReplayStateEsn(window_packets=128)
