"""What was lived through is counted once, and only grows."""

import pytest

from gateway.controller.tally import ESTABLISHED, LATENCY_BOUNDS_S, Carried, Latency, Tally
from gateway.datapath.backend import SaCounters
from gateway.ike.events import (
    ChildSaFailed,
    ChildSaRekeyed,
    Failure,
    FailureReason,
    IkeSaDeleted,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
)
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, SaId, SecurityAssociation
from tests.fakes.records import make_child_sa, make_ike_sa

NO_PROPOSAL = Failure(reason=FailureReason.NO_PROPOSAL_CHOSEN, detail="nothing in common")
OURS = Failure(reason=FailureReason.DELETED_BY_OPERATOR, detail="by hand")
IN, OUT = ("paris", "lan", Direction.INBOUND), ("paris", "lan", Direction.OUTBOUND)


def halves(child_sa_id: int, spi_in: int, spi_out: int) -> tuple[SecurityAssociation, SecurityAssociation]:
    """Return the inbound and the outbound SA of a Child SA."""
    child_sa = make_child_sa(child_sa_id, spi_in=spi_in, spi_out=spi_out)
    assert child_sa.inbound is not None
    assert child_sa.outbound is not None
    return child_sa.inbound, child_sa.outbound


def count(sa: SecurityAssociation, packets: int, drops: dict[DropReason, int] | None = None) -> SaCounters:
    """Return the counters of an SA whose packets have 100 bytes."""
    return SaCounters(
        sa_id=sa.sa_id, packets=packets, bytes=100 * packets, sequence=packets, drops=drops or {}
    )


def counted(*packets: tuple[SecurityAssociation, int]) -> dict[SaId, SaCounters]:
    return {sa.sa_id: count(sa, number) for sa, number in packets}


def test_handshakes_are_counted_by_role_and_result() -> None:
    tally = Tally()

    tally.on_event(IkeSaEstablished(ike_sa=make_ike_sa(1, began_at=99.0, established_at=99.03)))
    tally.on_event(IkeSaFailed(ike_sa=make_ike_sa(2, is_initiator=False), failure=NO_PROPOSAL))
    tally.on_event(IkeSaFailed(ike_sa=make_ike_sa(3, is_initiator=False, connection=""), failure=NO_PROPOSAL))

    assert tally.handshakes == {
        ("paris", "initiator", ESTABLISHED): 1,
        ("paris", "responder", "no_proposal_chosen"): 1,
        ("", "responder", "no_proposal_chosen"): 1,
    }
    assert tally.latency["initiator"].sum_s == pytest.approx(0.03)
    assert dict(tally.latency["initiator"].cumulative())[0.025] == 0
    assert dict(tally.latency["initiator"].cumulative())[0.05] == 1


def test_a_time_on_the_bound_belongs_below_it_and_a_longer_one_to_infinity() -> None:
    latency = Latency()

    latency.add(LATENCY_BOUNDS_S[0])
    latency.add(1e6)

    below = dict(latency.cumulative())
    assert below[LATENCY_BOUNDS_S[0]] == 1
    assert below[LATENCY_BOUNDS_S[-1]] == 1
    assert below[float("inf")] == 2


def test_ends_rekeys_and_failures_are_counted() -> None:
    tally = Tally()
    old, new = make_child_sa(1), make_child_sa(2)

    tally.on_event(IkeSaRekeyed(old=make_ike_sa(1), new=make_ike_sa(2)))
    tally.on_event(IkeSaDeleted(ike_sa=make_ike_sa(2), failure=OURS))
    tally.on_event(ChildSaRekeyed(old=old, new=new))
    tally.on_event(
        ChildSaFailed(ike_sa_id=old.ike_sa_id, connection="paris", child="lan", failure=NO_PROPOSAL)
    )

    assert tally.ike_sa_rekeys == {("paris",): 1}
    assert tally.ike_sa_ends == {("paris", "deleted_by_operator"): 1}
    assert tally.child_sa_rekeys == {("paris", "lan"): 1}
    assert tally.child_sa_failures == {("paris", "lan", "no_proposal_chosen"): 1}


def test_what_a_child_carried_goes_on_over_a_rekey_and_misses_nothing() -> None:
    tally = Tally()
    old_in, old_out = halves(1, 0x1001, 0x2001)
    new_in, new_out = halves(2, 0x1002, 0x2002)

    tally.on_counters([old_in, old_out], counted((old_in, 10), (old_out, 20)))
    tally.on_counters(
        [old_in, old_out, new_in, new_out], counted((old_in, 11), (old_out, 20), (new_in, 0), (new_out, 5))
    )
    # What came between the last reading and the removal.
    tally.on_removed(old_in, count(old_in, 13))
    tally.on_removed(old_out, count(old_out, 20))
    tally.on_counters([new_in, new_out], counted((new_in, 3), (new_out, 6)))

    assert tally.carried == {IN: Carried(16, 1600), OUT: Carried(26, 2600)}


def test_an_sa_that_nobody_ever_read_is_counted_when_it_goes() -> None:
    tally = Tally()
    inbound, _ = halves(1, 0x1001, 0x2001)

    tally.on_removed(inbound, count(inbound, 7))

    assert tally.carried == {IN: Carried(7, 700)}


def test_what_sas_dropped_stays_when_they_are_gone() -> None:
    tally = Tally()
    inbound, _ = halves(1, 0x1001, 0x2001)

    tally.on_removed(inbound, count(inbound, 7, {DropReason.REPLAY: 3}))
    tally.on_removed(inbound, count(inbound, 1, {DropReason.REPLAY: 1}))

    assert tally.drops_of_removed == {DropReason.REPLAY: 4}


def test_a_count_that_went_back_is_a_new_beginning() -> None:
    tally = Tally()
    inbound, _ = halves(1, 0x1001, 0x2001)

    tally.on_counters([inbound], counted((inbound, 10)))
    tally.on_counters([inbound], counted((inbound, 2)))

    assert tally.carried == {IN: Carried(12, 1200)}


def test_an_sa_that_is_gone_is_not_remembered_and_one_that_was_lost_keeps_what_was_read() -> None:
    tally = Tally()
    inbound, _ = halves(1, 0x1001, 0x2001)
    tally.on_counters([inbound], counted((inbound, 10)))

    tally.on_removed(inbound, None)

    assert not tally._last_seen
    assert tally.carried == {IN: Carried(10, 1000)}


def test_connections_that_are_gone_are_forgotten_but_not_strangers() -> None:
    tally = Tally()
    for name in ("paris", "oslo", ""):
        tally.on_event(IkeSaFailed(ike_sa=make_ike_sa(1, connection=name), failure=NO_PROPOSAL))
    tally.on_event(IkeSaRekeyed(old=make_ike_sa(1), new=make_ike_sa(2)))
    inbound, _ = halves(1, 0x1001, 0x2001)
    tally.on_counters([inbound], counted((inbound, 1)))

    tally.keep_only(["oslo"])

    assert {connection for connection, _, _ in tally.handshakes} == {"oslo", ""}
    assert not tally.ike_sa_rekeys
    assert not tally.carried


def test_a_copy_does_not_change_with_its_original() -> None:
    tally = Tally()
    tally.on_event(IkeSaEstablished(ike_sa=make_ike_sa(1)))
    inbound, _ = halves(1, 0x1001, 0x2001)
    tally.on_counters([inbound], counted((inbound, 1)))

    copy = tally.copy()
    tally.on_event(IkeSaEstablished(ike_sa=make_ike_sa(2)))
    tally.on_counters([inbound], counted((inbound, 9)))

    assert copy.handshakes["paris", "initiator", ESTABLISHED] == 1
    assert sum(copy.latency["initiator"].counts) == 1
    assert copy.carried[IN] == Carried(1, 100)
