"""What is wanted: generations, etags, and who would compete with whom for the same packets."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from gateway.controller.desired import DesiredState
from gateway.controller.facade import ControlError, ControlErrorReason
from gateway.ipsec.connection import Child, Connection, Side
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.selectors import TrafficSelector


def connection(name: str, net: str, **child: Any) -> Connection:
    return Connection(
        name=name,
        local=Side(),
        remote=Side(),
        children=(
            Child(
                name="lan",
                local_ts=(TrafficSelector.parse("10.0.0.0/16"),),
                remote_ts=(TrafficSelector.parse(net),),
                **child,
            ),
        ),
    )


PARIS, ROME = connection("paris", "10.1.0.0/16"), connection("rome", "10.2.0.0/16")


@pytest.fixture
def state() -> DesiredState:
    numbers = count(1)
    desired = DesiredState(lambda: f"etag-{next(numbers)}")
    for item in (ROME, PARIS):
        desired.put(desired.successor(item))
    return desired


def test_each_change_counts_and_has_an_etag_of_its_own(state: DesiredState) -> None:
    before = state.get("paris")
    assert before is not None

    state.put(state.successor(replace(PARIS, allow_weak=("3des",))))

    after = state.get("paris")
    assert after is not None
    assert (before.generation, after.generation) == (1, 2)
    assert len({before.etag, after.etag, "etag-1"}) == 3
    assert state.names() == ("paris", "rome")


@pytest.mark.parametrize(
    ("etags", "refused"),
    [
        ({"paris": "etag-2"}, False),
        ({"paris": "*", "rome": "etag-1"}, False),
        ({"oslo": ""}, False),
        ({"paris": "etag-1"}, True),
        ({"paris": ""}, True),
        ({"oslo": "*"}, True),
        ({"oslo": "etag-9"}, True),
    ],
    ids=["same", "any", "new", "other", "exists", "any but absent", "gone"],
)
def test_an_etag_must_be_what_the_connection_has(
    state: DesiredState, etags: dict[str, str], refused: bool
) -> None:
    if not refused:
        state.check_etags(etags)
        return
    with pytest.raises(ControlError) as caught:
        state.check_etags(etags)
    assert caught.value.reason is ControlErrorReason.ETAG_MISMATCH


def test_an_orchestrator_that_was_overtaken_is_refused(state: DesiredState) -> None:
    state.generation = 7

    for fine in (0, 7, 8):
        state.check_generation(fine)
    with pytest.raises(ControlError, match="generation 6 is older than 7") as caught:
        state.check_generation(6)
    assert caught.value.reason is ControlErrorReason.STALE_GENERATION


IPSEC0 = TunnelInterface(name="ipsec0", id=42)
LIKE_PARIS = connection("oslo", "10.1.0.0/16")


@pytest.mark.parametrize(
    ("wanted", "gone", "found"),
    [
        ((LIKE_PARIS,), (), ["oslo"]),
        ((connection("oslo", "10.1.0.0/16", priority=2000),), (), []),
        ((connection("oslo", "10.1.0.0/16", interface=IPSEC0),), (), []),
        ((LIKE_PARIS,), ("paris",), []),
        ((LIKE_PARIS, connection("paris", "10.3.0.0/16")), (), []),
        ((LIKE_PARIS, connection("bonn", "10.1.0.0/16")), ("paris",), ["bonn"]),
        # Paris cannot have what Rome has; so it stays as it is, and Oslo cannot have that.
        ((connection("paris", "10.2.0.0/16"), LIKE_PARIS), (), ["paris", "oslo"]),
        ((PARIS,), (), []),
    ],
    ids=[
        "twin",
        "priority",
        "interface",
        "twin goes",
        "twin moves",
        "two new",
        "one drags another",
        "itself",
    ],
)
def test_what_would_compete_for_packets_is_found(
    state: DesiredState, wanted: tuple[Connection, ...], gone: tuple[str, ...], found: list[str]
) -> None:
    assert list(state.conflicts(wanted, gone)) == found


def test_what_was_removed_is_free_again(state: DesiredState) -> None:
    state.remove("paris")

    assert state.conflicts([LIKE_PARIS], ()) == {}
    assert "paris" not in state
    assert state.names() == ("rome",)
