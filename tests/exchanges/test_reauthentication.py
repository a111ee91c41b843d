"""Authenticating anew, make before break (RFC 7296 §2.8.3, RFC 4478)."""

import pytest

from gateway.ike.errors import LocalError
from gateway.ike.events import (
    ChildSaDeleted,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    ReauthenticationDue,
    SpiRequest,
)
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload
from gateway.ipsec.connection import Unique
from tests.fakes.link import Nat
from tests.fakes.pair import ALICE, ALICE_LAN, BOB_LAN, Pair, child
from tests.fakes.tap import request_header

SITES = [
    ("lan", ALICE_LAN, BOB_LAN),
    ("lab", "10.3.0.0/16", "10.4.0.0/16"),
    ("tv", "10.5.0.0/16", "10.6.0.0/16"),
]


def three_children(**changes):
    return Pair(
        alice={"children": [child(n, local=a, remote=b) for n, a, b in SITES]} | changes,
        bob={"children": [child(n, local=b, remote=a) for n, a, b in SITES]} | changes,
    )


def all_up(pair):
    for name, _, _ in SITES:
        pair.alice.initiate(name)
    pair.settle()
    pair.check(children=3)


def test_a_new_ike_sa_with_its_child_sa_comes_first_and_then_the_old_one_goes():
    pair = Pair()
    pair.establish()
    old, mark = pair.alice.ike_sa, pair.mark

    pair.alice.reauthenticate()
    pair.run_for(10.0)

    assert pair.story(since=mark) == [
        "IKE_SA_INIT {SAi1, KEi, Ni} -->",
        "<-- IKE_SA_INIT {SAr1, KEr, Nr}",
        "IKE_AUTH SK {IDi, IDr, AUTH, SAi2, TSi, TSr} -->",
        "<-- IKE_AUTH SK {IDr, AUTH, SAr2, TSi, TSr}",
        "INFORMATIONAL SK {D(IKE)} -->",
        "<-- INFORMATIONAL SK {}",
    ]
    pair.check(children=1)
    assert pair.alice.ike_sa.spi_i != old.spi_i
    for host in pair.hosts:
        (ended,) = host.events(IkeSaDeleted)
        assert ended.ike_sa.spi_i == old.spi_i
    assert pair.alice.events(IkeSaDeleted)[0].failure.reason is FailureReason.REPLACED


def test_it_says_no_initial_contact():
    # §2.4 would make the peer drop the old IKE SA before the new Child SAs carry the traffic.
    pair = Pair()
    pair.establish()

    pair.alice.reauthenticate()
    pair.settle()

    auth = [m for m in pair.messages(pair.alice) if m.message.header.exchange_type == ExchangeType.IKE_AUTH]
    contact = [message.notify(NotifyType.INITIAL_CONTACT) is not None for message in auth]
    assert contact == [True, False]


@pytest.mark.parametrize("unique", list(Unique))
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_no_packet_is_lost_whoever_begins_and_whatever_the_policy(who, unique):
    pair = Pair(both={"ike_options": {"unique": unique}})
    pair.establish()
    flow = pair.start_flow()
    pair.run_for(40.0 if unique is Unique.REPLACE else 1.0)

    getattr(pair, who).reauthenticate()
    pair.run_for(12.0)

    assert flow.missing == []
    assert flow.received > 400
    pair.flow = None
    pair.settle()
    pair.check(children=1)


def test_every_child_sa_is_brought_over_before_the_old_ike_sa_goes():
    pair = three_children()
    all_up(pair)
    old = pair.alice.ike_sa
    pair.bob.answer(SpiRequest, after=1.0)

    pair.alice.reauthenticate()
    pair.run_until(lambda: pair.alice.events(IkeSaDeleted) != [])

    new = {sa.child for sa in pair.alice.child_sas if sa.ike_sa_id != old.ike_sa_id}
    assert new == {"lan", "lab", "tv"}
    pair.run_for(10.0)
    pair.check(children=3)


def test_a_child_sa_that_fails_at_first_is_tried_again_and_the_old_one_serves_meanwhile():
    pair = three_children()
    all_up(pair)
    pair.bob.answer(SpiRequest, refuse="TABLE_FULL", where=lambda request: request.child == "tv", times=2)

    pair.alice.reauthenticate()
    pair.run_for(5.0)
    assert pair.alice.events(IkeSaDeleted) == []
    pair.run_for(40.0)

    assert len(pair.alice.events(IkeSaDeleted)) == 1
    pair.check(children=3)


def test_a_peer_that_refuses_the_new_one_keeps_the_old_one():
    pair = Pair()
    pair.establish()
    pair.bob.psk = b"another key"

    pair.alice.reauthenticate()
    pair.run_for(100.0)

    pair.check(children=1)
    assert pair.alice.events(IkeSaDeleted) == []
    # Nobody asked for it to be tried again.
    assert len(pair.alice.events(IkeSaFailed)) == 1


def test_asking_twice_is_one_reauthentication():
    pair = Pair()
    pair.establish()
    old = pair.alice.ike_sa.ike_sa_id

    first = pair.alice.reauthenticate(old)
    second = pair.alice.reauthenticate(old)
    pair.run_for(10.0)

    assert first == second
    assert len(pair.alice.events(IkeSaEstablished)) == 2
    pair.check(children=1)


def test_both_sides_at_once_end_with_one_ike_sa_and_lose_nothing():
    pair = Pair()
    pair.establish()
    flow = pair.start_flow()
    pair.run_for(60.0)

    pair.alice.reauthenticate()
    pair.bob.reauthenticate()
    pair.run_for(60.0)

    assert flow.missing == []
    pair.flow = None
    pair.settle()
    pair.check(children=1)


def test_a_childless_ike_sa_is_authenticated_anew_too():
    pair = Pair()
    pair.alice.initiate(None)
    pair.settle()

    pair.alice.reauthenticate()
    pair.run_for(10.0)

    pair.check(children=0)
    assert len(pair.alice.events(IkeSaEstablished)) == 2


def test_what_is_not_established_cannot_be_authenticated_anew():
    pair = Pair()
    pair.link.fate = lambda packet: ()
    pair.alice.initiate()

    with pytest.raises(LocalError, match="is connecting"):
        pair.alice.endpoint.reauthenticate(pair.alice.ike_sas[0].ike_sa_id, pair.now)


def test_a_peer_behind_a_nat_has_to_begin_itself():
    pair = Pair(bob={"remote_address": None})
    pair.link.nats = [Nat(inside=ALICE, outside=Pair().bob.address + 77)]
    pair.establish()

    with pytest.raises(LocalError, match="behind a NAT"):
        pair.bob.endpoint.reauthenticate(pair.bob.ike_sa.ike_sa_id, pair.now)
    pair.alice.reauthenticate()
    pair.run_for(10.0)

    assert len(pair.alice.ike_sas) == len(pair.bob.ike_sas) == 1


# --- by the clock ---------------------------------------------------------------------------------


def timed(reauth_s=1000.0, alice=None, **bob):
    options = {"reauth_s": reauth_s, "over_s": 200.0, "jitter": 0.0, "dpd_delay_s": 0.0}
    return Pair(
        alice={"ike_options": options if alice is None else alice},
        bob={"ike_options": options | bob},
    )


def test_the_initiator_does_it_in_time():
    pair = timed()
    pair.establish()

    # Bob, whose time is the same, has told it: Alice takes nine tenths.
    pair.run_for(890.0)
    assert len(pair.alice.events(IkeSaEstablished)) == 1
    pair.run_for(60.0)

    assert len(pair.alice.events(IkeSaEstablished)) == 2
    assert pair.bob.events(ReauthenticationDue) == []
    pair.check(children=1)


def test_an_ike_rekey_does_not_stop_the_clock():
    pair = timed()
    pair.establish()
    pair.run_for(800.0)
    pair.alice.rekey_ike()
    pair.settle()
    pair.run_for(50.0)
    assert pair.alice.events(ReauthenticationDue) == []

    pair.run_for(100.0)

    assert len(pair.alice.events(ReauthenticationDue)) == 1
    assert len(pair.alice.events(IkeSaEstablished)) == 2
    pair.check(children=1)


def test_what_fails_is_tried_again_until_the_time_is_over():
    pair = timed()
    pair.establish()
    pair.alice.psk = b"another key"

    pair.run_for(1150.0)
    assert len(pair.alice.events(ReauthenticationDue)) > 10
    pair.check(children=1)
    pair.run_for(100.0)

    (ended,) = pair.alice.events(IkeSaDeleted)
    assert ended.failure.reason in (FailureReason.LIFETIME_EXPIRED, FailureReason.DELETED_BY_PEER)
    assert pair.bob.events(IkeSaDeleted)[0].failure.reason is FailureReason.LIFETIME_EXPIRED
    assert pair.alice.child_sas == pair.bob.child_sas == ()
    assert len(pair.bob.events(ChildSaDeleted)) == 1


def test_the_responder_tells_how_long_it_has_time():
    # RFC 4478 §3: AUTH_LIFETIME in the IKE_AUTH response, in seconds.
    pair = timed(alice={"jitter": 0.0, "dpd_delay_s": 0.0})
    pair.establish()

    notify = pair.messages(pair.bob)[1].notify(NotifyType.AUTH_LIFETIME)
    assert notify.data == (1000).to_bytes(4)
    pair.run_for(910.0)

    # Alice wants nothing of the kind herself, and authenticates anew before the time is over.
    assert len(pair.alice.events(IkeSaEstablished)) == 2
    pair.check(children=1)


def test_a_lifetime_that_the_peer_tells_later_counts_as_well():
    # RFC 4478 §3: in an INFORMATIONAL request.
    pair = Pair(both={"ike_options": {"jitter": 0.0, "dpd_delay_s": 0.0}})
    pair.establish()
    sa = pair.alice.ike_sa
    header = request_header(spi_i=sa.spi_i, spi_r=sa.spi_r, exchange=ExchangeType.INFORMATIONAL, message_id=0)
    lifetime = NotifyPayload(NotifyType.AUTH_LIFETIME, (100).to_bytes(4))
    from_bob = header.__class__(
        spi_i=sa.spi_i, spi_r=sa.spi_r, exchange_type=header.exchange_type, flags=0, message_id=0
    )
    pair.alice.receive(pair.tap.keys(sa.spi_i, sa.spi_r).seal(from_bob, [lifetime]))

    pair.run_for(95.0)

    assert len(pair.alice.events(IkeSaEstablished)) == 2


def test_a_peer_that_gives_no_time_at_all_keeps_nobody_busy():
    pair = timed(alice={"jitter": 0.0}, reauth_s=1.0)
    pair.alice.initiate()

    pair.run_for(60.0)

    assert len(pair.alice.events(IkeSaEstablished)) <= 3


def test_a_responder_that_nobody_obeys_begins_itself():
    pair = timed()
    pair.establish()
    # Alice does not believe in time, and says so by doing nothing.
    (ike_sa,) = pair.alice.endpoint._ike_sas.all()
    ike_sa.limit_authentication(None, None)
    for timer in list(pair.alice.endpoint._context.timers._by_owner[ike_sa.id]):
        if timer.timer.value.startswith("ike_reauth") or timer.timer.value == "ike_unauthentic":
            pair.alice.endpoint._context.timers.cancel(timer)

    pair.run_for(1120.0)

    assert len(pair.bob.events(ReauthenticationDue)) == 1
    assert len(pair.bob.events(IkeSaEstablished)) == 2
    pair.check(children=1)
