"""NAT detection, float and keepalives (RFC 7296 §2.23)."""

import hashlib
from ipaddress import ip_address

import pytest

from gateway.ike.path import Path
from gateway.ike.v2.nat import detect, detection_hash, detection_to_send, floated

SPI_I = bytes.fromhex("1122334455667788")
SPI_R = bytes.fromhex("99aabbccddeeff00")
ALICE, BOB, NAT = ip_address("192.0.2.1"), ip_address("198.51.100.2"), ip_address("203.0.113.9")

BOB_SEES_ALICE = Path(BOB, 500, ALICE, 500)
BOB_SEES_NAT = Path(BOB, 500, NAT, 1024)
ALICE_SEES_BOB = Path(ALICE, 500, BOB, 500)


def sent_by_alice(path=ALICE_SEES_BOB, **options):
    return detection_to_send(SPI_I, bytes(8), path, **options)


def seen_by_bob(sent, path, **options):
    return detect(
        spi_i=SPI_I,
        spi_r=bytes(8),
        path=path,
        sources=[sent.source],
        destinations=[sent.destination],
        **options,
    )


def test_the_hash_is_sha1_over_spis_address_and_port_in_network_order():
    # RFC 7296 §2.23: "the SHA-1 digest of the SPIs (in the order they appear in the header), IP address,
    # and port"; the bytes are spelled out here by hand.
    expected = hashlib.sha1(SPI_I + SPI_R + b"\xc0\x00\x02\x01" + b"\x01\xf4").digest()

    assert detection_hash(SPI_I, SPI_R, ALICE, 500) == expected


def test_the_hash_of_an_ipv6_address_has_all_sixteen_octets():
    address = ip_address("2001:db8::1")

    expected = hashlib.sha1(SPI_I + SPI_R + address.packed + b"\x11\x94").digest()

    assert detection_hash(SPI_I, SPI_R, address, 4500) == expected


def test_without_a_nat_nobody_floats():
    status = seen_by_bob(sent_by_alice(), BOB_SEES_ALICE)

    assert status.is_supported
    assert not status.is_present
    assert not status.must_keep_alive


def test_a_translated_source_puts_the_peer_behind_a_nat():
    status = seen_by_bob(sent_by_alice(), BOB_SEES_NAT)

    assert (status.local, status.remote) == (False, True)
    assert status.is_present
    assert not status.must_keep_alive


def test_a_translated_destination_puts_us_behind_a_nat_and_we_keep_it_alive():
    aimed_at_nat = sent_by_alice(Path(ALICE, 500, NAT, 500))

    status = seen_by_bob(aimed_at_nat, BOB_SEES_ALICE)

    assert (status.local, status.remote) == (True, False)
    assert status.must_keep_alive


def test_a_port_changed_alone_is_a_nat():
    status = seen_by_bob(sent_by_alice(), Path(BOB, 500, ALICE, 1024))

    assert status.remote


def test_one_matching_source_of_several_is_enough():
    # RFC 7296 §2.23: a sender that does not know which of its addresses will be used sends several.
    sent = sent_by_alice()
    others = [detection_hash(SPI_I, bytes(8), NAT, 500), sent.source]

    status = detect(
        spi_i=SPI_I,
        spi_r=bytes(8),
        path=BOB_SEES_ALICE,
        sources=others,
        destinations=[sent.destination],
    )

    assert not status.is_present


@pytest.mark.parametrize("missing", ["sources", "destinations", "both"])
def test_a_peer_without_the_notifies_never_floats(missing):
    sent = sent_by_alice()
    sources = [] if missing in {"sources", "both"} else [sent.source]
    destinations = [] if missing in {"destinations", "both"} else [sent.destination]

    status = detect(
        spi_i=SPI_I,
        spi_r=bytes(8),
        path=BOB_SEES_NAT,
        sources=sources,
        destinations=destinations,
        force_encapsulation=True,
    )

    assert not status.is_supported
    assert not status.is_present


def test_forced_encapsulation_is_seen_as_a_nat_by_both_sides():
    sent = sent_by_alice(force_encapsulation=True)

    assert seen_by_bob(sent, BOB_SEES_ALICE).remote
    answer = detection_to_send(SPI_I, SPI_R, BOB_SEES_ALICE)
    alice = detect(
        spi_i=SPI_I,
        spi_r=SPI_R,
        path=ALICE_SEES_BOB,
        sources=[answer.source],
        destinations=[answer.destination],
        force_encapsulation=True,
    )
    assert (alice.local, alice.remote) == (True, False)


@pytest.mark.parametrize(
    ("ports", "after"),
    [((500, 500), (4500, 4500)), ((4500, 4500), (4500, 4500)), ((5500, 500), (5500, 4500))],
)
def test_only_the_ike_port_floats(ports, after):
    path = floated(Path(ALICE, ports[0], BOB, ports[1]))

    assert (path.local_port, path.remote_port) == after
    assert (path.local, path.remote) == (ALICE, BOB)
