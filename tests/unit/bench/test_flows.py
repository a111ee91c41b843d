"""What is said of a flow: whether it was what it claims to be."""

import os

import pytest

from gateway.bench.cpu import CpuUse
from gateway.bench.flows import TwoWayFlow
from gateway.bench.traffic import FlowCount
from tests.netns.losses import Account


def flow(*, sent: int, gap_s: float = 0.01, lost: int = 0) -> TwoWayFlow:
    """Return a flow of four seconds, with the same number of packets each way."""
    ends = [
        FlowCount(sent=sent // 2, received=sent // 2 - lost // 2, seconds=4.0, longest_gap_s=gap)
        for gap in (gap_s, 0.0)
    ]
    return TwoWayFlow(*ends)


def account(flow: TwoWayFlow, *, others_share: float = 0.0, no_engine: int = 0) -> Account:
    """Return an account of a flow at a gateway that dropped packets for want of room in its rings."""
    others_s = others_share * flow.a.seconds * (os.cpu_count() or 1)
    made = Account(20_000, flow=flow)
    made.cpu = CpuUse(busy_s=1.0, others_s=others_s, stolen_s=0.0, groups_s={})
    made.gateways["paris:no_engine"] = no_engine
    return made


@pytest.mark.parametrize(
    ("sent", "gap_s", "is_steady"),
    [
        (80_000, 0.01, True),
        (72_000, 0.1, True),
        (71_900, 0.01, False),
        (80_000, 0.11, False),
        (20_000, 0.01, False),
    ],
)
def test_a_flow_is_steady_at_nine_tenths_of_its_rate_without_a_pause_over_100_ms(
    sent: int, gap_s: float, *, is_steady: bool
) -> None:
    assert account(flow(sent=sent, gap_s=gap_s)).is_steady is is_steady


def test_a_flow_has_the_rate_at_which_both_ends_really_sent() -> None:
    assert flow(sent=20_000).rate_pps == 5_000
    assert "5000 (of 20000) packets a second for 4.0 s" in str(account(flow(sent=20_000)))


@pytest.mark.parametrize(
    ("lost", "no_engine", "others_share", "is_for_want_of_cpu"),
    [
        (100, 100, 0.5, True),
        (100, 100, 0.05, False),  # a machine with nothing else to do
        (100, 98, 0.5, False),  # some went elsewhere
        (0, 0, 0.5, False),  # nothing to excuse
    ],
)
def test_only_full_rings_on_a_busy_machine_excuse_a_loss(
    lost: int, no_engine: int, others_share: float, *, is_for_want_of_cpu: bool
) -> None:
    made = account(flow(sent=80_000, lost=lost), others_share=others_share, no_engine=no_engine)

    assert made.flow.lost == lost
    assert made.is_for_want_of_cpu is is_for_want_of_cpu
