"""The harness itself: a link that mishandles what it is told to, and fakes that do what they say."""

from ipaddress import ip_address

import pytest

from gateway.datapath.backend import DatapathError, ErrorReason, SasLost
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from tests.fakes.clock import Clock
from tests.fakes.datapath import FakeDatapath, FakeSad
from tests.fakes.entropy import Entropy
from tests.fakes.link import Link, Nat, delayed, doubled, lost
from tests.fakes.pair import ALICE, BOB, selectors

NAT = ip_address("203.0.113.9")
FROM_ALICE, TO_BOB = (ALICE, 500), (BOB, 500)


def arrivals(link, until=100.0):
    """Everything that arrives, as (time, data)."""
    found = []
    while (when := link.next_arrival()) is not None and when <= until:
        found += [(round(when, 3), packet.data) for packet in link.arrived(when)]
    return found


def send(link, *datagrams, now=0.0):
    for datagram in datagrams:
        link.send(FROM_ALICE, TO_BOB, datagram, now)


def test_a_datagram_takes_the_latency():
    link = Link(latency_s=0.01)

    send(link, b"a", b"b")

    assert arrivals(link) == [(0.01, b"a"), (0.01, b"b")]


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        (lost(0), [(0.01, b"b")]),
        (delayed(0.5, 0), [(0.01, b"b"), (0.51, b"a")]),
        (doubled(0.5, 0), [(0.01, b"a"), (0.01, b"b"), (0.51, b"a")]),
    ],
)
def test_the_fate_of_one_packet_leaves_the_others_alone(fate, expected):
    link = Link(latency_s=0.01)
    link.fate = fate

    send(link, b"a", b"b")

    assert arrivals(link) == expected


def test_a_nat_gives_an_outside_port_and_brings_answers_back():
    link = Link()
    link.nats = [Nat(inside=ALICE, outside=NAT)]

    link.send(FROM_ALICE, TO_BOB, b"out", 0.0)
    (out,) = link.arrived(1.0)
    link.send(TO_BOB, out.source, b"back", 1.0)
    (back,) = link.arrived(2.0)

    assert out.source == (NAT, 40001)
    assert back.destination == FROM_ALICE


def test_after_a_rebinding_the_old_port_leads_nowhere():
    link = Link()
    nat = Nat(inside=ALICE, outside=NAT)
    link.nats = [nat]
    link.send(FROM_ALICE, TO_BOB, b"out", 0.0)
    (before,) = link.arrived(1.0)

    nat.rebind()
    link.send(TO_BOB, before.source, b"to the old port", 1.0)
    link.send(FROM_ALICE, TO_BOB, b"out again", 1.0)

    (after,) = link.arrived(2.0)
    assert after.source != before.source
    assert [packet.data for packet in link.lost] == [b"to the old port"]


def test_nobody_outside_reaches_an_inside_that_never_sent():
    link = Link()
    link.nats = [Nat(inside=ALICE, outside=NAT)]

    link.send(TO_BOB, (NAT, 500), b"hello?", 0.0)

    assert arrivals(link) == []


def test_the_clock_never_goes_back():
    clock = Clock(10.0)
    clock.jump_to(11.0)

    with pytest.raises(AssertionError):
        clock.jump_to(10.5)


def test_entropy_repeats_itself_and_differs_between_sides():
    first, again, other = Entropy(1), Entropy(1), Entropy(2)

    drawn = [first(size) for size in (8, 8, 32, 32)]

    assert drawn == [again(size) for size in (8, 8, 32, 32)]
    assert len(set(drawn)) == 4
    assert drawn[0] == bytes.fromhex("0100000000000001")
    assert other(32) not in drawn


# --- the fake datapath --------------------------------------------------------------------------


def outbound(spi=0x1001, key=b"k" * 36):
    return SecurityAssociation(
        spi=Spi(spi),
        direction=Direction.OUTBOUND,
        source=ALICE,
        destination=BOB,
        encryption=Encr.AES_GCM_16,
        encryption_key=Secret(key),
        key_bits=256,
        local_ts=selectors("10.1.0.0/16"),
        remote_ts=selectors("10.2.0.0/16"),
        connection="site",
        child="lan",
    )


def test_the_newest_outbound_sa_serves_its_child():
    sad = FakeSad()
    old, new = outbound(0x1001), outbound(0x1002)

    sad.install(old)
    sad.install(new)
    assert sad.outbound("site", "lan") == new
    sad.remove(new.sa_id)

    assert sad.outbound("site", "lan") == old


def test_the_same_sa_twice_is_one_and_another_with_its_name_is_refused():
    sad = FakeSad()

    assert sad.install(outbound()).ok
    assert sad.install(outbound()).ok
    refused = sad.install(outbound(key=b"x" * 36))

    assert refused.error.reason is ErrorReason.SPI_IN_USE
    assert len(sad.history) == 1


async def test_the_fake_datapath_refuses_what_it_is_told_to_and_then_goes_on():
    datapath = FakeDatapath()
    datapath.refusals.append(DatapathError(ErrorReason.TABLE_FULL, "full"))

    first, second = await datapath.install_sas([outbound(0x1001), outbound(0x1002)])

    assert first.error.reason is ErrorReason.TABLE_FULL
    assert second.placement is Engine.SOFTWARE
    assert [held.sa.spi for held in await datapath.list_sas()] == [0x1002]


async def test_every_watcher_of_the_fake_datapath_hears_every_event():
    datapath = FakeDatapath()
    watchers = [datapath.events(), datapath.events()]
    event = SasLost(sa_ids=(outbound().sa_id,), reason="test")

    datapath.emit(event)
    await datapath.close()

    assert [[heard async for heard in watcher] for watcher in watchers] == [[event], [event]]


async def test_reconcile_removes_what_is_older():
    datapath = FakeDatapath()
    old, new = outbound(0x1001), outbound(0x1002)
    await datapath.install_sas([old], generation=1)
    await datapath.install_sas([new], generation=2)

    assert await datapath.reconcile(2) == (old.sa_id,)
    assert [held.sa for held in await datapath.list_sas()] == [new]


async def test_a_repeated_install_takes_on_the_newer_generation():
    datapath = FakeDatapath()
    await datapath.install_sas([outbound()], generation=1)
    await datapath.install_sas([outbound()], generation=2)

    assert await datapath.reconcile(2) == ()
