"""CREATE_CHILD_SA for Child SAs: new ones and rekeys (RFC 7296 §1.3.1, §1.3.3, §2.8, §2.17)."""

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import ChildSaEstablished, ChildSaFailed, ChildSaRekeyed, FailureReason
from gateway.ike.v2 import rekey_child_sa
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import DeletePayload, KePayload
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.proposal import ProtocolId
from gateway.ipsec.sa import Direction
from tests.fakes.pair import Pair, child

REKEY = [
    "CREATE_CHILD_SA SK {N(REKEY_SA), SA, Ni, TSi, TSr} -->",
    "<-- CREATE_CHILD_SA SK {SA, Nr, TSi, TSr}",
    "INFORMATIONAL SK {D(ESP)} -->",
    "<-- INFORMATIONAL SK {D(ESP)}",
]
REKEY_WITH_PFS = [
    "CREATE_CHILD_SA SK {N(REKEY_SA), SA, Ni, KEi, TSi, TSr} -->",
    "<-- CREATE_CHILD_SA SK {SA, Nr, KEr, TSi, TSr}",
    *REKEY[2:],
]
PFS = "aes256gcm16-x25519"


def two_children(**changes):
    return Pair(
        alice={
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16", **changes),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16", **changes),
            ]
        },
        bob={
            "children": [
                child("lan", local="10.2.0.0/16", remote="10.1.0.0/16", **changes),
                child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16", **changes),
            ]
        },
    )


def mirrored(lines):
    """The same story told by the other side."""
    return [
        f"<-- {line.removesuffix(' -->')}" if line.endswith("-->") else f"{line.removeprefix('<-- ')} -->"
        for line in lines
    ]


# --- a new Child SA (§1.3.1) --------------------------------------------------------------------


def test_a_second_child_sa_takes_one_exchange():
    pair = two_children()
    pair.alice.initiate("lan")
    pair.settle()
    mark = pair.mark

    # CREATE_CHILD_SA { SA, Ni, TSi, TSr } -->
    pair.alice.initiate("dmz")
    pair.settle()

    assert pair.story(since=mark) == [
        "CREATE_CHILD_SA SK {SA, Ni, TSi, TSr} -->",
        "<-- CREATE_CHILD_SA SK {SA, Nr, TSi, TSr}",
    ]
    assert {sa.child for sa in pair.bob.child_sas} == {"lan", "dmz"}
    pair.check(children=2)


def test_the_responder_of_the_ike_sa_may_ask_for_a_child_sa_too():
    # §2.17: the initiator of this exchange, Bob, sends with the first keys.
    pair = two_children()
    pair.alice.initiate("lan")
    pair.settle()

    pair.bob.initiate("dmz")
    pair.settle()

    pair.check(children=2, ike_sas=1)


def test_with_a_key_exchange_method_in_the_proposal_there_are_ke_payloads():
    pair = two_children(esp=PFS)
    pair.alice.initiate("lan")
    pair.settle()
    mark = pair.mark

    pair.alice.initiate("dmz")
    pair.settle()

    assert pair.story(since=mark) == [
        "CREATE_CHILD_SA SK {SA, Ni, KEi, TSi, TSr} -->",
        "<-- CREATE_CHILD_SA SK {SA, Nr, KEr, TSi, TSr}",
    ]
    pair.check(children=2)


def test_bringing_up_what_is_up_says_nothing():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    pair.alice.initiate("lan")
    pair.settle()

    assert pair.story(since=mark) == []


def test_a_refused_second_child_sa_leaves_the_first_one_alone():
    pair = Pair(
        alice={
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16"),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16"),
            ]
        },
    )
    pair.alice.initiate("lan")
    pair.settle()
    mark = pair.mark

    pair.alice.initiate("dmz")
    pair.settle()

    assert pair.story(since=mark)[1] == "<-- CREATE_CHILD_SA SK {N(TS_UNACCEPTABLE)}"
    (failed,) = pair.alice.events(ChildSaFailed)
    assert (failed.child, failed.failure.reason) == ("dmz", FailureReason.TS_UNACCEPTABLE)
    pair.check(children=1)


# --- rekey (§1.3.3, §2.8) -----------------------------------------------------------------------


@pytest.mark.parametrize(("esp", "story"), [("aes256gcm16", REKEY), (PFS, REKEY_WITH_PFS)])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_either_side_rekeys_with_and_without_pfs(esp, story, who):
    pair = Pair(both={"esp": esp})
    pair.establish()
    old, mark = pair.alice.child_sa, pair.mark

    getattr(pair, who).rekey_child()
    pair.settle()
    pair.run_for(20.0)

    assert pair.story(since=mark) == (story if who == "alice" else mirrored(story))
    new = pair.alice.child_sa
    assert new.child_sa_id != old.child_sa_id
    assert new.inbound.spi != old.inbound.spi
    assert new.inbound.encryption_key != old.inbound.encryption_key
    assert (new.local_ts, new.remote_ts) == (old.local_ts, old.remote_ts)
    pair.check(children=1)


def test_rekey_sa_names_the_spi_that_the_initiator_receives_with():
    # §1.3.3: "the SPI field ... the SPI the exchange initiator would expect in inbound ESP packets".
    pair = Pair()
    pair.establish()
    old, mark = pair.alice.child_sa, len(pair.messages())

    pair.alice.rekey_child()
    pair.settle()

    rekey_sa = pair.messages()[mark].notify(NotifyType.REKEY_SA)
    assert rekey_sa.protocol == ProtocolId.ESP
    assert rekey_sa.spi == old.inbound.spi.to_bytes(4)
    (delete,) = [p for p in pair.messages()[mark + 2].payloads if isinstance(p, DeletePayload)]
    assert delete.spis == (old.inbound.spi.to_bytes(4),)


def test_both_sides_tell_of_the_rekey_once():
    pair = Pair()
    pair.establish()
    old = {host.name: host.child_sa.child_sa_id for host in pair.hosts}

    pair.alice.rekey_child()
    pair.settle()
    pair.run_for(20.0)

    for host in pair.hosts:
        (rekeyed,) = host.events(ChildSaRekeyed)
        assert rekeyed.old.child_sa_id == old[host.name]
        assert rekeyed.new.child_sa_id == host.child_sa.child_sa_id
        assert len(host.events(ChildSaEstablished)) in (1, 2)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("notes_traffic", [True, False])
@pytest.mark.parametrize("slow_s", [0.0, 0.3])
def test_no_packet_is_lost_at_a_rekey(who, notes_traffic, slow_s):
    pair = Pair()
    pair.establish()
    pair.link.fate = lambda packet: (slow_s if packet.number % 2 else 0.0,)
    flow = pair.start_flow(notes_traffic=notes_traffic)

    getattr(pair, who).rekey_child()
    pair.run_for(20.0)

    assert flow.missing == []
    assert flow.received > 7000
    pair.flow = None
    pair.check(children=1)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_order_of_a_rekey_at_each_datapath(who):
    # New inbound, new outbound, old outbound away, old inbound away after the DELETE.
    pair = Pair()
    pair.establish()
    marks = {host.name: len(host.sad.history) for host in pair.hosts}

    getattr(pair, who).rekey_child()
    pair.settle()
    pair.run_for(20.0)

    for host in pair.hosts:
        steps = [(change.verb, change.sa.direction) for change in host.sad.history[marks[host.name] :]]
        assert steps == [
            ("install", Direction.INBOUND),
            ("install", Direction.OUTBOUND),
            ("remove", Direction.OUTBOUND),
            ("remove", Direction.INBOUND),
        ]


def test_the_responder_of_a_rekey_sends_on_the_new_sa_only_when_the_peer_surely_has_it():
    # §2.8: until the initiator has the answer, it has no inbound SA for the new keys.
    pair = Pair()
    pair.establish()
    old = pair.bob.child_sa.outbound
    pair.link.fate = lambda packet: () if packet.destination[0] == pair.alice.address else (0.0,)

    pair.alice.rekey_child()
    pair.run_for(0.5)

    assert pair.bob.sad.outbound("site", "lan") == old


def test_rekeys_can_follow_each_other_for_ever():
    pair = Pair()
    pair.establish()

    for number in range(10):
        (pair.alice if number % 2 else pair.bob).rekey_child()
        pair.settle()
        pair.run_for(10.0)

    pair.check(children=1)
    assert len({change.sa.spi for change in pair.alice.sad.history}) == 22


# --- INVALID_KE_PAYLOAD in a rekey (§1.3) -------------------------------------------------------


def test_a_refused_key_exchange_method_is_corrected_in_a_rekey():
    pair = Pair(alice={"esp": "aes256gcm16-x25519-ecp256"}, bob={"esp": "aes256gcm16-ecp256"})
    pair.establish()
    mark, already = pair.mark, len(pair.messages())

    pair.alice.rekey_child()
    pair.settle()
    pair.run_for(20.0)

    assert pair.story(since=mark) == [
        "CREATE_CHILD_SA SK {N(REKEY_SA), SA, Ni, KEi, TSi, TSr} -->",
        "<-- CREATE_CHILD_SA SK {N(INVALID_KE_PAYLOAD)}",
        *REKEY_WITH_PFS,
    ]
    methods = [
        p.method for opened in pair.messages()[already:] for p in opened.payloads if isinstance(p, KePayload)
    ]
    assert methods == [Ke.CURVE25519, Ke.ECP_256, Ke.ECP_256]
    assert str(pair.alice.child_sa.proposal) == "aes256gcm16-ecp256"
    pair.check(children=1)


def test_a_refused_rekey_leaves_the_old_child_sa_in_place():
    # PFS is demanded by one side only: that shows at the first rekey, not in IKE_AUTH.
    pair = Pair(alice={"esp": "aes256gcm16-x25519"}, bob={"esp": "aes256gcm16-ecp256"})
    pair.establish()
    old = pair.alice.child_sa

    pair.alice.rekey_child()
    pair.settle()

    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.replaces == old.child_sa_id
    assert failed.failure.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert pair.alice.child_sa.child_sa_id == old.child_sa_id
    pair.check(children=1)


# --- bounds -------------------------------------------------------------------------------------


def test_a_peer_that_rekeys_and_never_deletes_gets_no_more_than_its_share(monkeypatch):
    def forget_to_delete(ike_sa, old):
        return
        yield

    pair = Pair(bob_options=EndpointOptions(child_limit=3))
    pair.establish()
    monkeypatch.setattr(rekey_child_sa, "delete_replaced", forget_to_delete)

    for _ in range(12):
        pair.alice.rekey_child()
        pair.settle()
        newest = pair.bob.child_sas[-1].child_sa_id
        pair.bob._drained(pair.bob.endpoint.note_traffic(newest, pair.now))
        pair.settle()

    assert len(pair.bob.child_sas) == 2 * 3
    # What was left behind is deleted, and then rekeys are welcome again.
    monkeypatch.undo()
    pair.run_for(60.0)
    assert len(pair.bob.child_sas) == 1


def test_child_sas_of_one_ike_sa_are_limited():
    pair = two_children()
    pair.bob.endpoint._context.options = EndpointOptions(child_limit=1)
    pair.alice.initiate("lan")
    pair.settle()

    pair.alice.initiate("dmz")
    pair.settle()

    (failed,) = pair.alice.events(ChildSaFailed)
    assert failed.failure.notify == "NO_ADDITIONAL_SAS"
    assert [sa.child for sa in pair.bob.child_sas] == ["lan"]
