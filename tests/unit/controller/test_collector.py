"""Why it is safe to look for garbage in cycles less often: the core leaves none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.bench.ike.in_memory import Pair
from gateway.bench.ike.suites import DEFAULT_SUITE
from gateway.controller.collector import OBJECTS_BETWEEN_COLLECTIONS, collect_less_often


@contextmanager
def usual_thresholds() -> Iterator[None]:
    """Give the process back the thresholds it has."""
    usual = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def no_collection() -> Iterator[None]:
    """Let nobody collect meanwhile, so that what there is can be counted."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_the_youngest_are_looked_at_less_often_and_the_others_as_before() -> None:
    with usual_thresholds():
        before = gc.get_threshold()

        collect_less_often()

        assert gc.get_threshold() == (OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
        assert before[0] < OBJECTS_BETWEEN_COLLECTIONS


def test_handshakes_rekeys_and_deletes_leave_no_garbage_in_cycles() -> None:
    pair = Pair(DEFAULT_SUITE, 5, dpd_delay_s=0.0)
    pair.handshake(0)
    endpoint = pair.initiator.endpoint

    with no_collection():
        for number in range(1, 5):
            pair.handshake(number)
        for child_sa in endpoint.child_sas():
            endpoint.rekey_child(child_sa.child_sa_id, pair.now)
        pair.flush()
        pair.run(until=pair.now + 60.0)
        for ike_sa in endpoint.ike_sas():
            endpoint.rekey_ike(ike_sa.ike_sa_id, pair.now)
        pair.flush()
        pair.run(until=pair.now + 60.0)
        assert (len(endpoint.ike_sas()), len(endpoint.child_sas())) == (5, 5)
        for ike_sa in endpoint.ike_sas():
            endpoint.terminate_ike(ike_sa.ike_sa_id, pair.now)
        pair.flush()
        pair.run(until=pair.now + 60.0)
        assert not endpoint.ike_sas()

        # The loop variables hold the last ones.
        del child_sa, ike_sa
        assert gc.collect() == 0
