"""What is said of an end of espd."""

from dataclasses import replace

from gateway.datapath.engine.outage import Outage
from gateway.datapath.engine.sad import Held
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import SecurityAssociation
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import PEER, inbound, outbound

ELSEWHERE = (TrafficSelector.parse("10.3.0.0/16"),)


def held(sa: SecurityAssociation) -> Held:
    return Held(sa=sa, fingerprint=b"", cookie=1, generation=1, installed_at=0.0, peer=(PEER, 0))


def test_traffic_stands_until_every_child_sa_has_a_new_one() -> None:
    outage = Outage(since=10.0)
    outage.lose([held(sa) for sa in (inbound(), outbound(), outbound(remote_ts=ELSEWHERE))])

    outage.carry([inbound(), outbound(0x2002)])
    assert not outage.is_over

    outage.carry([replace(outbound(0x2003), remote_ts=ELSEWHERE)])
    assert outage.is_over


def test_it_is_over_at_once_where_nothing_was_lost() -> None:
    outage = Outage(since=10.0)
    outage.lose([])

    assert outage.is_over


def test_only_what_was_dropped_since_is_its_cost() -> None:
    outage = Outage(since=10.0)
    outage.begin_counting({DropReason.NO_ENGINE: 5, DropReason.REPLAY: 2}, {DropReason.NO_ENGINE: 5})
    outage.begin_counting({DropReason.NO_ENGINE: 15}, {})  # the next one ended too before SAs were there

    cost = outage.cost({DropReason.NO_ENGINE: 25, DropReason.REPLAY: 2, DropReason.NO_SA: 3}, now=10.5)

    assert cost == {"seconds": 0.5, "dropped_at_least": 23, "reasons": "no_engine 20, no_sa 3"}


def test_what_was_dropped_before_its_end_was_noticed_is_its_cost_too() -> None:
    outage = Outage(since=10.0)
    outage.begin_counting(
        {DropReason.NO_ENGINE: 9, DropReason.CLEAR_INBOUND: 2},
        {DropReason.NO_ENGINE: 5, DropReason.CLEAR_INBOUND: 1},
    )

    cost = outage.cost({DropReason.NO_ENGINE: 12, DropReason.CLEAR_INBOUND: 2}, now=10.5)

    assert cost == {"seconds": 0.5, "dropped_at_least": 7, "reasons": "no_engine 7"}
