"""Loss, duplication and reordering (RFC 7296 §2.1, §2.2): every message of every exchange, one at a time.

Whatever happens to one message, the final state is the same as if nothing had, no SPI is allocated and no SA
installed twice, and a response that is repeated is repeated byte for byte.
"""

from collections import Counter
from random import Random

import pytest

from gateway.ike.endpoint import EndpointOptions
from gateway.ike.events import ChildSaDeleted, ChildSaFailed, IkeSaDeleted, IkeSaFailed
from tests.fakes.link import delayed, doubled, lost
from tests.fakes.pair import Arrived, Pair, Sent, child

PATIENT = {"retransmit_timeout_s": 1.0, "retransmit_base": 1.3, "retransmit_tries": 10}
CHILDREN = {
    "both": {"ike_options": PATIENT},
    "alice": {
        "children": [
            child("lan", local="10.1.0.0/16", remote="10.2.0.0/16"),
            child("dmz", local="10.11.0.0/16", remote="10.12.0.0/16"),
        ]
    },
    "bob": {
        "children": [
            child("lan", local="10.2.0.0/16", remote="10.1.0.0/16"),
            child("dmz", local="10.12.0.0/16", remote="10.11.0.0/16"),
        ]
    },
}


def fresh(**options):
    return Pair(**CHILDREN, **options)


def established():
    pair = fresh()
    pair.alice.initiate("lan")
    pair.settle()
    return pair


#: name: (how the pair starts, what is done, how many messages that takes, Child SAs and IKE SAs at the end)
SCENARIOS = {
    "IKE_SA_INIT and IKE_AUTH": (fresh, lambda pair: pair.alice.initiate("lan"), 4, 1, 1),
    "with a cookie": (
        lambda: fresh(bob_options=EndpointOptions(cookie_threshold=0)),
        lambda pair: pair.alice.initiate("lan"),
        6,
        1,
        1,
    ),
    "new Child SA": (established, lambda pair: pair.alice.initiate("dmz"), 2, 2, 1),
    "new Child SA by the responder": (established, lambda pair: pair.bob.initiate("dmz"), 2, 2, 1),
    "Child rekey": (established, lambda pair: pair.alice.rekey_child(), 4, 1, 1),
    "Child rekey by the responder": (established, lambda pair: pair.bob.rekey_child(), 4, 1, 1),
    "IKE rekey": (established, lambda pair: pair.alice.rekey_ike(), 4, 1, 1),
    "IKE rekey by the responder": (established, lambda pair: pair.bob.rekey_ike(), 4, 1, 1),
    "delete Child SA": (established, lambda pair: pair.alice.delete_child(), 2, 0, 1),
    "delete IKE SA": (established, lambda pair: pair.alice.delete_ike(), 2, 0, 0),
    "liveness": (established, lambda pair: pair.bob.check_liveness(), 2, 1, 1),
}

FAULTS = {
    "lost": lost,
    "doubled at once": lambda number: doubled(0.0, number),
    "doubled a little later": lambda number: doubled(0.015, number),
    "doubled much later": lambda number: doubled(5.0, number),
    "late": lambda number: delayed(0.5, number),
    "later than the retransmission": lambda number: delayed(1.5, number),
    "much later": lambda number: delayed(12.0, number),
}

CASES = [
    pytest.param(scenario, fault, index, id=f"{scenario}: message {index} {fault}")
    for scenario, (_, _, messages, _, _) in SCENARIOS.items()
    for fault in FAULTS
    for index in range(messages)
]


def test_the_scenarios_have_as_many_messages_as_they_say():
    for name, (start, act, messages, children, ike_sas) in SCENARIOS.items():
        pair = start()
        mark = pair.mark

        act(pair)
        pair.run_for(15.0)

        assert len(pair.story(since=mark)) == messages, name
        pair.check(children=children, ike_sas=ike_sas)


@pytest.mark.parametrize(("scenario", "fault", "index"), CASES)
def test_one_message_mishandled_changes_nothing_in_the_end(scenario, fault, index):
    start, act, _, children, ike_sas = SCENARIOS[scenario]
    pair = start()
    installed = [len(host.sad.history) for host in pair.hosts]
    undisturbed = start()
    act(undisturbed)
    undisturbed.run_for(60.0)
    pair.link.fate = FAULTS[fault](pair.mark + index)

    act(pair)
    pair.run_for(60.0)

    pair.check(children=children, ike_sas=ike_sas)
    for host, same, before in zip(pair.hosts, undisturbed.hosts, installed, strict=True):
        verbs = Counter(change.verb for change in host.sad.history[before:])
        assert verbs == Counter(change.verb for change in same.sad.history[before:])
        assert len(host.events(IkeSaFailed, ChildSaFailed)) == 0
        assert len(host.events(IkeSaDeleted)) == len(same.events(IkeSaDeleted))
        assert len(host.events(ChildSaDeleted)) == len(same.events(ChildSaDeleted))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_everything_sent_twice_is_byte_identical_and_answered_alike(scenario):
    # Every packet arrives twice: requests are answered twice with the same bytes, responses ignored once.
    start, act, _, children, ike_sas = SCENARIOS[scenario]
    pair = start()
    pair.link.fate = lambda packet: (0.0, 0.02)

    act(pair)
    pair.run_for(60.0)

    pair.check(children=children, ike_sas=ike_sas)
    by_message = {}
    for packet in pair.sent():
        header = pair.tap.open(packet.data).message.header
        key = (header.spi_i, header.spi_r, header.message_id, header.flags, header.exchange_type)
        if header.message_id or header.exchange_type != 34:
            by_message.setdefault(key, set()).add(packet.data)
    assert all(len(variants) == 1 for variants in by_message.values())


def test_the_initiators_retransmissions_back_off():
    pair = Pair(
        alice={"ike_options": {"retransmit_timeout_s": 1.0, "retransmit_base": 2.0, "retransmit_tries": 4}}
    )
    pair.link.fate = lambda packet: ()
    start = pair.now

    pair.alice.initiate()
    pair.run_for(100.0)

    times = [round(packet.sent_at - start, 3) for packet in pair.sent()]
    assert times == [0.0, 1.0, 3.0, 7.0, 15.0]
    assert len({packet.data for packet in pair.sent()}) == 1


def test_a_responder_never_retransmits_by_itself():
    # §2.1: "the responder never retransmits unless it receives a retransmission of the request".
    pair = Pair()
    pair.link.fate = lambda packet: () if packet.source[0] == pair.bob.address else (0.0,)
    pair.alice.initiate()

    pair.run_for(20.0)

    arrivals = [e for e in pair.log if isinstance(e, Arrived) and e.host == "bob"]
    answers = [e for e in pair.log if isinstance(e, Sent) and e.host == "bob"]
    assert len(arrivals) == len(answers)
    assert len({entry.packet.data for entry in answers}) == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_heavy_loss_only_takes_longer(scenario, seed):
    start, act, _, children, ike_sas = SCENARIOS[scenario]
    pair = start()
    dice = Random(seed)
    pair.link.fate = lambda packet: () if dice.random() < 0.4 else (dice.random() * 0.1,)

    act(pair)
    pair.run_for(60.0)
    pair.link.fate = lambda packet: (0.0,)
    pair.run_for(60.0)

    pair.check(children=children, ike_sas=ike_sas)
