"""Several Child SAs for the same traffic, each for a CPU (RFC 9611)."""

import pytest

from gateway.ike.events import ChildSaDeleted, ChildSaFailed, ChildSaRekeyed
from gateway.ike.v2 import child_negotiation
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import NotifyPayload
from tests.fakes.pair import Pair

NEW = [
    "CREATE_CHILD_SA SK {N(SA_RESOURCE_INFO), SA, Ni, TSi, TSr} -->",
    "<-- CREATE_CHILD_SA SK {N(SA_RESOURCE_INFO), SA, Nr, TSi, TSr}",
]


def pair_with(alice=None, bob=None, *, alice_cpus=2, bob_cpus=2, **common):
    """Both want SAs for as many CPUs as they have, unless `alice` or `bob` says otherwise."""
    pair = Pair(
        alice={"child_options": {"per_cpu_sas": alice}, **common},
        bob={"child_options": {"per_cpu_sas": bob}, **common},
    )
    pair.alice.endpoint.use_cpus(alice_cpus)
    pair.bob.endpoint.use_cpus(bob_cpus)
    return pair


def bring_up(pair):
    """Let Alice bring the first Child SA up, and both whatever follows from that."""
    pair.alice.initiate("lan")
    pair.settle()
    pair.run_for(12.0)


def cpus_of(host):
    """The CPUs of a side's Child SAs that carry traffic, that for all first."""
    carrying = [sa.cpu for sa in host.child_sas if sa.state == "installed"]
    return sorted(carrying, key=lambda cpu: -1 if cpu is None else cpu)


def data_of_notifies(pair, host):
    """The data of all SA_RESOURCE_INFO that a side has sent."""
    return [
        payload.data
        for message in pair.messages(host)
        for payload in message.payloads
        if isinstance(payload, NotifyPayload) and payload.notify_type == NotifyType.SA_RESOURCE_INFO
    ]


# --- negotiation (RFC 9611 §3) ------------------------------------------------------------------


def test_the_first_is_for_all_cpus_and_the_initiator_asks_for_the_others_at_once():
    pair = pair_with()

    # IKE_AUTH { IDi, AUTH, N(SA_RESOURCE_INFO), SAi2, TSi, TSr } -->
    # CREATE_CHILD_SA { N(SA_RESOURCE_INFO), SA, Ni, TSi, TSr } -->, for each CPU
    bring_up(pair)

    story = pair.story()
    assert "N(SA_RESOURCE_INFO)" in story[2]
    assert "N(SA_RESOURCE_INFO)" in story[3]
    assert story[4:] == [*NEW, *NEW]
    assert cpus_of(pair.alice) == cpus_of(pair.bob) == [None, 0, 1]
    pair.check(children=3)


def test_each_has_the_same_properties_and_keys_of_its_own():
    pair = pair_with(alice_cpus=1, bob_cpus=1)

    bring_up(pair)

    first, second = pair.alice.child_sas
    assert (second.cpu, second.outbound.cpu, second.inbound.cpu) == (0, 0, 0)
    assert (first.proposal, first.local_ts, first.remote_ts) == (
        second.proposal,
        second.local_ts,
        second.remote_ts,
    )
    assert first.outbound.encryption_key != second.outbound.encryption_key


def test_the_data_of_the_notify_say_which_cpu_it_is_for():
    pair = pair_with(bob_cpus=1)

    bring_up(pair)

    assert data_of_notifies(pair, pair.alice) == [b"", bytes(4), (1).to_bytes(4, "big")]


def test_beside_one_with_pfs_each_has_a_key_exchange_of_its_own():
    pair = pair_with(alice_cpus=1, bob_cpus=1, esp="aes256gcm16-x25519")

    bring_up(pair)

    assert pair.story()[4:] == [
        "CREATE_CHILD_SA SK {N(SA_RESOURCE_INFO), SA, Ni, KEi, TSi, TSr} -->",
        "<-- CREATE_CHILD_SA SK {N(SA_RESOURCE_INFO), SA, Nr, KEr, TSi, TSr}",
    ]
    pair.check(children=2)


# --- who has more CPUs (§4) ---------------------------------------------------------------------


def test_the_responder_gives_each_to_the_cpu_with_fewest():
    pair = pair_with(alice_cpus=4)

    bring_up(pair)

    assert cpus_of(pair.alice) == [None, 0, 1, 2, 3]
    assert cpus_of(pair.bob) == [None, 0, 0, 1, 1]
    pair.check(children=5)


def test_the_responder_asks_for_the_cpus_that_it_has_more_a_little_later():
    pair = pair_with(bob_cpus=3)
    pair.alice.initiate("lan")
    pair.settle()
    pair.run_for(1.0)
    assert cpus_of(pair.bob) == [None, 0, 1]

    # <-- CREATE_CHILD_SA { N(SA_RESOURCE_INFO), SA, Ni, TSi, TSr }
    pair.run_for(12.0)

    assert cpus_of(pair.bob) == [None, 0, 1, 2]
    assert cpus_of(pair.alice) == [None, 0, 0, 1]
    pair.check(children=4)


def test_cpus_beyond_the_configured_number_get_none():
    pair = pair_with(alice=2, alice_cpus=8, bob_cpus=1)

    bring_up(pair)

    assert cpus_of(pair.alice) == [None, 0, 1]


def test_both_may_bring_the_first_up_at_once():
    pair = pair_with()
    pair.alice.initiate("lan")
    pair.bob.initiate("lan")

    pair.run_for(120.0)

    for host in pair.hosts:
        assert {None, 0, 1} <= set(cpus_of(host))
        assert host.endpoint.is_carried("site", "lan")
    pair.check()


# --- later --------------------------------------------------------------------------------------


def test_a_successor_is_for_the_cpu_of_what_it_replaces():
    pair = pair_with(alice_cpus=1, bob_cpus=1)
    bring_up(pair)
    mark = pair.mark

    # CREATE_CHILD_SA { N(REKEY_SA), N(SA_RESOURCE_INFO), SA, Ni, TSi, TSr } -->
    pair.alice.rekey_child(pair.alice.child_sas[1].child_sa_id)
    pair.run_for(30.0)

    assert pair.story(since=mark)[0] == (
        "CREATE_CHILD_SA SK {N(REKEY_SA), N(SA_RESOURCE_INFO), SA, Ni, TSi, TSr} -->"
    )
    assert [event.new.cpu for event in pair.alice.events(ChildSaRekeyed)] == [0]
    assert [event.new.cpu for event in pair.bob.events(ChildSaRekeyed)] == [0]
    pair.check(children=2)


def test_rekeying_the_one_for_all_leaves_the_others_alone():
    pair = pair_with()
    bring_up(pair)
    others = {sa.child_sa_id for sa in pair.alice.child_sas if sa.cpu is not None}

    pair.alice.rekey_child(pair.alice.child_sas[0].child_sa_id)
    pair.run_for(30.0)

    assert {sa.child_sa_id for sa in pair.alice.child_sas if sa.cpu is not None} == others
    pair.check(children=3)


def test_an_ike_rekey_takes_all_of_them_along():
    pair = pair_with()
    bring_up(pair)

    pair.alice.rekey_ike()
    pair.run_for(40.0)

    assert cpus_of(pair.alice) == cpus_of(pair.bob) == [None, 0, 1]
    pair.check(children=3)


def test_authenticating_anew_brings_all_of_them_up_again():
    pair = pair_with()
    bring_up(pair)

    pair.alice.reauthenticate()
    pair.run_for(60.0)

    assert cpus_of(pair.alice) == cpus_of(pair.bob) == [None, 0, 1]
    pair.check(children=3)


def test_one_that_the_peer_deletes_is_not_asked_for_again_until_the_next_rekey():
    pair = pair_with(alice_cpus=1, bob_cpus=1)
    bring_up(pair)

    # <-- INFORMATIONAL { D }
    pair.bob.delete_child(pair.bob.child_sas[1].child_sa_id)
    pair.run_for(60.0)

    assert cpus_of(pair.alice) == cpus_of(pair.bob) == [None]
    assert [event.child_sa.cpu for event in pair.alice.events(ChildSaDeleted)] == [0]
    pair.alice.rekey_child(pair.alice.child_sas[0].child_sa_id)
    pair.run_for(30.0)
    assert cpus_of(pair.alice) == [None, 0]
    pair.check(children=2)


def test_one_for_a_cpu_does_not_count_as_carrying_the_child():
    pair = pair_with(alice_cpus=1, bob_cpus=1)
    bring_up(pair)

    pair.alice.delete_child(pair.alice.child_sas[0].child_sa_id)
    pair.run_for(10.0)

    assert not pair.alice.endpoint.is_carried("site", "lan")
    # So that the one for all comes back. Here the peer sees it as one more beside what is left.
    pair.alice.initiate("lan")
    pair.run_for(30.0)
    assert cpus_of(pair.alice) == [None, 0]
    pair.check(children=2)


def test_packets_lose_nothing_when_those_for_cpus_come_up():
    pair = pair_with(alice_cpus=1, bob_cpus=1)
    pair.alice.initiate("lan")
    pair.settle()
    flow = pair.start_flow()

    pair.run_for(12.0)

    assert flow.received
    assert flow.missing == []
    pair.check(children=2)


# --- peers that will not (§5.2, RFC 7296) -------------------------------------------------------


@pytest.mark.parametrize(
    ("alice", "bob"), [(None, 0), (0, None)], ids=["the responder does not", "the initiator does not"]
)
def test_nothing_is_asked_for_beside_a_first_one_that_only_one_side_means_so(alice, bob):
    pair = pair_with(alice, bob)

    bring_up(pair)

    assert len(pair.story()) == 4
    assert data_of_notifies(pair, pair.bob) == []
    pair.check(children=1)


def test_a_datapath_that_cannot_tell_cpus_apart_has_nothing_said_of_them():
    pair = pair_with(alice_cpus=0)

    bring_up(pair)

    assert data_of_notifies(pair, pair.alice) == []
    pair.check(children=1)


def test_enough_is_told_by_ts_max_queue_and_the_peer_asks_no_more():
    # Twice as many as there are CPUs are taken (§6): here two.
    pair = pair_with(bob=1, alice_cpus=4)

    bring_up(pair)

    assert pair.story()[-2:] == [NEW[0], "<-- CREATE_CHILD_SA SK {N(TS_MAX_QUEUE)}"]
    (failed,) = pair.alice.events(ChildSaFailed)
    assert (failed.cpu, failed.failure.notify) == (2, "TS_MAX_QUEUE")
    assert cpus_of(pair.alice) == [None, 0, 1]
    pair.check(children=3)


def test_one_that_is_unlike_the_first_is_refused(monkeypatch):
    pair = pair_with(alice_cpus=1, bob_cpus=1, esp="aes256gcm16, aes128gcm16")
    monkeypatch.setattr(child_negotiation, "proposals_like", lambda _agreed, configured: configured[1:])

    # CREATE_CHILD_SA { N(SA_RESOURCE_INFO), SA (with other algorithms), Ni, TSi, TSr } -->
    bring_up(pair)

    assert "<-- CREATE_CHILD_SA SK {N(NO_PROPOSAL_CHOSEN)}" in pair.story()
    assert any("must be like it" in event.failure.detail for event in pair.bob.events(ChildSaFailed))
    assert cpus_of(pair.alice) == [None]
