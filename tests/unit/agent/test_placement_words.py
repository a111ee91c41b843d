"""What is said of where an SA is: why on no better engine, and how that engine carries it."""

from gateway.agent.sa_placing import reason_of
from gateway.datapath.backend import ItemResult
from gateway.ipsec.placement import Engine, PlacementReason, PlacementRefusal, in_words

NO_NIC = PlacementRefusal(
    engine=Engine.NIC_PACKET, reason=PlacementReason.NO_DEVICE, text="no NIC has the address"
)


def test_what_a_backend_says_of_its_engine_stands_behind_the_refusals() -> None:
    answer = ItemResult(
        name="out:esp:192.0.2.2:00002001", placement_reason="in by TUN and out by raw sockets"
    )

    assert reason_of([NO_NIC], answer) == (
        "nic_packet: NO_DEVICE: no NIC has the address; in by TUN and out by raw sockets"
    )
    assert reason_of([], answer) == "in by TUN and out by raw sockets"


def test_what_a_backend_refused_is_not_said_twice() -> None:
    answer = ItemResult(
        name="out:esp:192.0.2.2:00002001", placement_reason=in_words([NO_NIC]), refusals=(NO_NIC,)
    )

    assert reason_of([NO_NIC], answer) == in_words([NO_NIC])
