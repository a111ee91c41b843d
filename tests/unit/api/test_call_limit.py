"""One client cannot keep the gateway from the others."""

import pytest

from gateway.api.call_limit import BURST, CALLS_PER_S, MAX_CLIENTS, CallLimit, TooManyCallsError


def spend(limit: CallLimit, client: str, calls: int, now: float) -> None:
    for _ in range(calls):
        limit.take(client, now)


def test_a_burst_is_taken_and_the_next_call_told_when_to_come_back() -> None:
    limit = CallLimit()
    spend(limit, "one", int(BURST), now=0.0)

    with pytest.raises(TooManyCallsError) as refused:
        limit.take("one", 0.0)

    assert refused.value.retry_after_s == pytest.approx(1 / CALLS_PER_S)
    limit.take("one", refused.value.retry_after_s + 1e-9)


def test_another_client_is_not_concerned() -> None:
    limit = CallLimit()
    spend(limit, "one", int(BURST), now=0.0)

    limit.take("other", 0.0)


def test_the_rate_holds_over_time() -> None:
    limit = CallLimit()
    spend(limit, "one", int(BURST), now=0.0)

    spend(limit, "one", int(CALLS_PER_S) - 1, now=1.0)
    spend(limit, "one", 1, now=1.1)


def test_a_silence_saves_no_more_than_a_burst() -> None:
    limit = CallLimit()
    limit.take("one", 0.0)
    spend(limit, "one", int(BURST), now=1e6)

    with pytest.raises(TooManyCallsError):
        limit.take("one", 1e6)


def test_clients_without_number_take_no_memory_without_bound_and_the_spent_are_remembered() -> None:
    limit = CallLimit()
    spend(limit, "spender", int(BURST), now=0.0)

    for number in range(3 * MAX_CLIENTS):
        limit.take(f"client-{number}", 0.0)

    assert len(limit._buckets) <= MAX_CLIENTS
    with pytest.raises(TooManyCallsError):
        limit.take("spender", 0.0)
