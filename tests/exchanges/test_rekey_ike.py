"""Rekeying the IKE SA (RFC 7296 §1.3.2, §2.8, §2.18)."""

import pytest

from gateway.ike.events import FailureReason, IkeSaDeleted, IkeSaKeysDerived, IkeSaRekeyed
from gateway.ike.v2.window import RENEW_MESSAGE_ID, Backoff, RequestWindow, ResponseWindow
from gateway.ike.wire.header import ExchangeType
from gateway.ike.wire.payloads import KePayload, NoncePayload, SaPayload
from gateway.ike.wire.sa_payload import wire_proposals
from gateway.ipsec.algorithms import Ke
from tests.fakes.pair import Pair
from tests.fakes.tap import request_header

REKEY = {
    "alice": [
        "CREATE_CHILD_SA SK {SA, Ni, KEi} -->",
        "<-- CREATE_CHILD_SA SK {SA, Nr, KEr}",
        "INFORMATIONAL SK {D(IKE)} -->",
        "<-- INFORMATIONAL SK {}",
    ],
    "bob": [
        "<-- CREATE_CHILD_SA SK {SA, Ni, KEi}",
        "CREATE_CHILD_SA SK {SA, Nr, KEr} -->",
        "<-- INFORMATIONAL SK {D(IKE)}",
        "INFORMATIONAL SK {} -->",
    ],
}


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_either_side_replaces_the_ike_sa_and_the_child_sas_move_on(who):
    pair = Pair()
    pair.establish()
    old, child_sa, mark = pair.alice.ike_sa, pair.alice.child_sa, pair.mark

    getattr(pair, who).rekey_ike()
    pair.settle()

    assert pair.story(since=mark) == REKEY[who]
    new = pair.alice.ike_sa
    assert {new.spi_i, new.spi_r}.isdisjoint({old.spi_i, old.spi_r})
    # Whoever initiates the rekey is the original initiator of the new IKE SA (§2.18, §1.3.2).
    assert new.is_initiator is (who == "alice")
    assert pair.alice.child_sa.inbound == child_sa.inbound
    assert pair.alice.child_sa.ike_sa_id == new.ike_sa_id
    pair.check(children=1)


def test_the_datapath_notices_nothing():
    pair = Pair()
    pair.establish()
    history = [len(host.sad.history) for host in pair.hosts]
    flow = pair.start_flow()

    pair.alice.rekey_ike()
    pair.run_for(10.0)

    assert flow.missing == []
    assert [len(host.sad.history) for host in pair.hosts] == history


def test_both_sides_tell_of_the_rekey_once_and_of_no_end():
    pair = Pair()
    pair.establish()
    old = {host.name: host.ike_sa.ike_sa_id for host in pair.hosts}

    pair.alice.rekey_ike()
    pair.settle()

    for host in pair.hosts:
        (rekeyed,) = host.events(IkeSaRekeyed)
        assert rekeyed.old.ike_sa_id == old[host.name]
        assert rekeyed.new.ike_sa_id == host.ike_sa.ike_sa_id
        assert host.events(IkeSaDeleted) == []


def test_identities_and_proposal_are_inherited_and_keys_are_not():
    pair = Pair()
    pair.establish()
    old = pair.alice.ike_sa

    pair.alice.rekey_ike()
    pair.settle()

    new = pair.alice.ike_sa
    assert (new.local_id, new.remote_id, new.proposal) == (old.local_id, old.remote_id, old.proposal)
    first, second = pair.alice.events(IkeSaKeysDerived)
    assert first.keys.sk_ei != second.keys.sk_ei
    assert first.keys.sk_er != second.keys.sk_er


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("second", ["alice", "bob"])
def test_exchanges_go_on_in_the_new_ike_sa_from_message_id_zero(first, second):
    pair = Pair()
    pair.establish()
    getattr(pair, first).rekey_ike()
    pair.settle()
    already = len(pair.messages())

    getattr(pair, second).rekey_child()
    pair.settle()
    pair.run_for(10.0)

    headers = [opened.message.header for opened in pair.messages()[already:]]
    assert [header.message_id for header in headers] == [0, 0, 1, 1]
    assert {(header.spi_i, header.spi_r) for header in headers} == {
        (pair.alice.ike_sa.spi_i, pair.alice.ike_sa.spi_r)
    }
    pair.check(children=1)


def test_ike_rekeys_can_follow_each_other_for_ever():
    pair = Pair()
    pair.establish()

    for number in range(6):
        (pair.alice if number % 2 else pair.bob).rekey_ike()
        pair.settle()

    pair.check(children=1)


def test_the_old_ike_sa_is_really_gone():
    # A message of the old IKE SA, authentic and next in order, is answered by nobody.
    pair = Pair()
    pair.establish()
    old = pair.alice.ike_sa
    pair.alice.rekey_ike()
    pair.settle()
    header = pair.messages()[2].message.header
    keys = pair.tap.keys(old.spi_i, old.spi_r)
    mark = pair.mark

    # 3 was the DELETE: whoever repeats that still gets its answer.
    for message_id in (0, 1, 2, *range(4, 10)):
        forged = type(header)(
            spi_i=old.spi_i, spi_r=old.spi_r, exchange_type=37, flags=8, message_id=message_id
        )
        pair.bob.receive(keys.seal(forged, []))

    assert pair.mark == mark


def test_a_public_value_is_never_used_twice():
    pair = Pair()
    pair.establish()

    pair.alice.rekey_ike()
    pair.settle()
    pair.alice.rekey_ike()
    pair.settle()

    values = [
        p.data for opened in pair.messages() for p in opened.payloads if type(p).__name__ == "KePayload"
    ]
    assert len(values) == 6
    assert len(set(values)) == 6


def test_an_ike_sa_that_is_terminated_during_its_rekey_has_no_successor_left():
    pair = Pair()
    pair.establish()

    pair.alice.rekey_ike()
    pair.alice.delete_ike()
    pair.run_for(60.0)

    pair.check(children=0, ike_sas=0)
    (deleted,) = pair.alice.events(IkeSaDeleted)
    assert deleted.failure.reason is FailureReason.DELETED_BY_OPERATOR


@pytest.mark.parametrize("spi", [bytes(8), b"\x0a", bytes(7) + b"\x0a\x0a"])
def test_an_ike_rekey_brings_an_spi_of_eight_octets_that_are_not_all_zero(spi):
    # §1.3.2, §3.3.1
    pair = Pair()
    pair.establish()
    sa, mark = pair.alice.ike_sa, pair.mark
    header = request_header(
        spi_i=sa.spi_i, spi_r=sa.spi_r, exchange=ExchangeType.CREATE_CHILD_SA, message_id=2
    )
    payloads = [
        SaPayload(wire_proposals((sa.proposal,), spi)),
        NoncePayload(bytes(range(32))),
        KePayload(Ke.CURVE25519, bytes(range(32))),
    ]

    pair.bob.receive(pair.tap.keys(sa.spi_i, sa.spi_r).seal(header, payloads))

    assert pair.story(since=mark) == ["<-- CREATE_CHILD_SA SK {N(INVALID_SYNTAX)}"]
    assert pair.bob.events(IkeSaRekeyed) == []


def test_the_ike_sa_is_rekeyed_before_its_message_ids_run_out():
    # §2.2: they must not wrap; that takes four billion requests, so this pair begins near the end.
    pair = Pair()
    pair.establish()
    (ours,), (theirs,) = (host.endpoint._ike_sas.all() for host in pair.hosts)
    ours.requests = RequestWindow(Backoff(), first_id=RENEW_MESSAGE_ID - 1)
    theirs.responses = ResponseWindow(first_id=RENEW_MESSAGE_ID - 1)

    pair.alice.check_liveness()
    pair.settle()

    assert len(pair.alice.events(IkeSaRekeyed)) == 1
    pair.check(children=1)
