"""Peers that leave undone what we would have done: after a while we do it (RFC 7296 §2.8 leaves it open).

Here one side's DELETEs do not get through for a minute, as if it were of a kind that sends none.
"""

import pytest

from gateway.ike.events import ChildSaDeleted, ChildSaRekeyed, IkeSaDeleted
from gateway.ike.wire.payloads import DeletePayload
from tests.fakes.pair import Pair, child

PATIENT = {"retransmit_timeout_s": 1.0, "retransmit_base": 1.0, "retransmit_tries": 200, "dpd_delay_s": 0.0}


def new_pair():
    return Pair(
        both={"ike_options": PATIENT},
        alice={
            "children": [
                child("lan", local="10.1.0.0/16", remote="10.2.0.0/16"),
                child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16"),
            ]
        },
        bob={
            "children": [
                child("lan", local="10.2.0.0/16", remote="10.1.0.0/16"),
                child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16"),
            ]
        },
    )


def established():
    pair = new_pair()
    pair.alice.initiate("lan")
    pair.settle()
    pair.check(children=1)
    return pair


def deletes_nothing(pair, host):
    """Lose every DELETE that one side sends as a request."""

    def fate(packet):
        if packet.source[0] != host.address:
            return (0.0,)
        opened = pair.tap.open(packet.data)
        is_delete = any(isinstance(payload, DeletePayload) for payload in opened.payloads)
        return () if is_delete and opened.message.header.is_request else (0.0,)

    pair.link.fate = fate


def makes_peace(pair, children):
    pair.link.fate = lambda packet: (0.0,)
    pair.run_for(30.0)
    pair.check(children=children)


def test_the_responder_of_a_child_rekey_sends_on_the_successor_and_deletes_the_old_one_by_itself():
    pair = established()
    deletes_nothing(pair, pair.bob)
    old = pair.alice.child_sa.outbound.spi

    pair.bob.rekey_child()
    pair.run_for(19.0)
    assert pair.alice.sad.outbound("site", "lan").spi == old
    pair.run_for(2.0)
    assert pair.alice.sad.outbound("site", "lan").spi != old
    pair.run_for(40.0)

    assert len(pair.alice.child_sas) == 1
    assert len(pair.alice.events(ChildSaRekeyed)) == 1
    makes_peace(pair, children=1)


def test_the_responder_of_an_ike_rekey_deletes_the_old_ike_sa_by_itself():
    pair = established()
    deletes_nothing(pair, pair.bob)

    pair.bob.rekey_ike()
    pair.run_for(60.0)

    assert len(pair.alice.ike_sas) == 1
    makes_peace(pair, children=1)


#: What both sides do at once, and how many Child SAs are left of it.
AT_ONCE = {
    "new Child SA": (established, lambda host: host.initiate("dmz"), 2),
    "Child rekey": (established, lambda host: host.rekey_child(), 1),
    "IKE rekey": (established, lambda host: host.rekey_ike(), 1),
    "start": (new_pair, lambda host: host.initiate("lan"), 1),
}


@pytest.mark.parametrize("lazy", ["alice", "bob"])
@pytest.mark.parametrize("what", AT_ONCE)
def test_what_a_lazy_peer_made_twice_or_replaced_is_deleted_for_it(what, lazy):
    start, act, children = AT_ONCE[what]
    pair = start()
    sluggard, other = (pair.alice, pair.bob) if lazy == "alice" else (pair.bob, pair.alice)
    deletes_nothing(pair, sluggard)

    act(pair.alice)
    act(pair.bob)
    pair.run_for(60.0)

    assert len(other.ike_sas) == 1
    assert len(other.child_sas) == children
    makes_peace(pair, children=children)
    if what != "start":
        assert [e for host in pair.hosts for e in host.events(IkeSaDeleted)] == []
    if what.endswith("rekey"):
        assert [e for host in pair.hosts for e in host.events(ChildSaDeleted)] == []
