"""Both ends start at once: one IKE SA and one Child SA are left, whatever overtakes what."""

from itertools import product
from random import Random

import pytest

from gateway.ike.events import IkeSaEstablished
from tests.fakes.link import delayed, lost
from tests.fakes.pair import Pair

DELAYS = [0.005, 0.015, 0.025, 0.5, 1.5, 4.0]


def start_both(pair, gap_s=0.0):
    pair.alice.initiate()
    pair.run_for(gap_s)
    pair.bob.initiate()


def converged(pair):
    pair.run_for(90.0)
    pair.check(children=1, ike_sas=1)
    for host in pair.hosts:
        assert len(host.events(IkeSaEstablished)) >= 1


@pytest.mark.parametrize("gap_s", [0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05])
def test_both_start_within_a_few_milliseconds(gap_s):
    pair = Pair()

    start_both(pair, gap_s)

    converged(pair)


def test_whoever_initiated_the_one_too_many_deletes_it_at_once():
    pair = Pair()

    start_both(pair)
    pair.settle()

    assert [len(host.ike_sas) for host in pair.hosts] == [1, 1]
    assert len([line for line in pair.story() if "D(IKE)" in line]) == 1


@pytest.mark.parametrize(("number", "seconds"), list(product(range(8), DELAYS)))
def test_one_slow_message(number, seconds):
    pair = Pair()
    pair.link.fate = delayed(seconds, number)

    start_both(pair)

    converged(pair)


@pytest.mark.parametrize("number", range(8))
def test_one_lost_message(number):
    pair = Pair()
    pair.link.fate = lost(number)

    start_both(pair)

    converged(pair)


@pytest.mark.parametrize("seed", range(40))
def test_every_message_takes_its_own_time(seed):
    dice = Random(seed)
    pair = Pair()
    pair.link.fate = lambda packet: (dice.choice((0.0, 0.005, 0.02, 0.1, 1.2)),)

    start_both(pair, gap_s=dice.choice((0.0, 0.01, 0.03)))

    converged(pair)


def test_no_packet_is_lost_once_the_first_child_sa_is_up():
    pair = Pair()
    start_both(pair)
    pair.run_until(lambda: all(host.sad.outbound("site", "lan") for host in pair.hosts))
    flow = pair.start_flow()

    pair.run_for(60.0)

    assert flow.missing == []


def test_a_second_start_by_the_peer_later_changes_nothing():
    pair = Pair()
    pair.establish()
    mark = pair.mark

    pair.bob.initiate()
    pair.settle()

    assert pair.story(since=mark) == []
    pair.check(children=1)
