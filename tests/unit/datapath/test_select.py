"""Where an SA lands, why not elsewhere, and which backends there are."""

import pytest

from gateway.datapath.backend import DatapathError, ErrorReason
from gateway.datapath.registry import backend_names, make_backend
from gateway.datapath.select import choose
from gateway.ipsec.placement import Engine, Placement


def test_first_wish_needs_no_reason() -> None:
    choice = choose(Placement(prefer=(Engine.SOFTWARE,)), [Engine.SOFTWARE])

    assert (choice.engine, choice.reason) == (Engine.SOFTWARE, "")


def test_later_wish_says_why_not_the_earlier_ones() -> None:
    choice = choose(
        Placement(prefer=(Engine.NIC_PACKET, Engine.ENGINE, Engine.KERNEL, Engine.SOFTWARE)),
        [Engine.SOFTWARE],
        why_not={Engine.NIC_PACKET: "eth0 has no offload"},
    )

    assert choice.engine is Engine.SOFTWARE
    assert choice.reason == "nic_packet: eth0 has no offload; engine, kernel: not in this datapath"


@pytest.mark.parametrize(
    "wish", [Placement(require=Engine.XDP), Placement(prefer=(Engine.XDP,)), Placement(prefer=())]
)
def test_nothing_allowed_is_refused(wish: Placement) -> None:
    with pytest.raises(DatapathError) as refused:
        choose(wish, [Engine.SOFTWARE])

    assert refused.value.reason is ErrorReason.PLACEMENT_UNAVAILABLE


def test_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(DatapathError, match="auto, software"):
        make_backend("hardware")

    assert backend_names() == ("auto", "software")
