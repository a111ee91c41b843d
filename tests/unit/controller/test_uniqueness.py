import pytest

from gateway.controller.uniqueness import SETTLE_S, superseded_ike_sas
from tests.fakes.records import make_child_sa, make_ike_sa

OLD, NEW = make_ike_sa(1, established_at=100.0), make_ike_sa(2, established_at=500.0)
LATER = 500.0 + SETTLE_S


def test_the_newest_wins_when_it_has_stood_and_carries_what_the_old_one_carried() -> None:
    children = [make_child_sa(1, ike_sa_id=1), make_child_sa(2, ike_sa_id=2)]

    assert superseded_ike_sas([OLD, NEW], children, LATER) == (1,)


def test_nothing_goes_before_the_core_has_settled_what_began_at_once() -> None:
    children = [make_child_sa(1, ike_sa_id=1), make_child_sa(2, ike_sa_id=2)]

    assert superseded_ike_sas([OLD, NEW], children, LATER - 0.1) == ()


@pytest.mark.parametrize("state", ["creating", "rekeyed", "deleting"])
def test_the_old_one_stays_while_the_new_one_does_not_carry_its_child(state: str) -> None:
    children = [make_child_sa(1, ike_sa_id=1), make_child_sa(2, ike_sa_id=2, state=state)]

    assert superseded_ike_sas([OLD, NEW], children, LATER) == ()


def test_peers_with_other_identities_have_nothing_to_do_with_each_other() -> None:
    other = make_ike_sa(2, established_at=500.0, remote_id="gw-osaka.example")
    children = [make_child_sa(1, ike_sa_id=1), make_child_sa(2, ike_sa_id=2)]

    assert superseded_ike_sas([OLD, other], children, LATER) == ()


@pytest.mark.parametrize("state", ["connecting", "half_open", "rekeyed", "deleting"])
def test_an_ike_sa_that_is_not_in_service_supersedes_nothing(state: str) -> None:
    new = make_ike_sa(2, established_at=500.0, state=state)
    children = [make_child_sa(1, ike_sa_id=1), make_child_sa(2, ike_sa_id=2)]

    assert superseded_ike_sas([OLD, new], children, LATER) == ()


def test_of_three_the_newest_stays() -> None:
    newest = make_ike_sa(3, established_at=600.0)
    children = [make_child_sa(number, ike_sa_id=number) for number in (1, 2, 3)]

    assert superseded_ike_sas([newest, OLD, NEW], children, 600.0 + SETTLE_S) == (1, 2)


def test_a_peer_that_makes_ike_sas_without_end_does_not_keep_us_comparing() -> None:
    class Counted(set[str]):
        compared = 0

        def __le__(self, other: object) -> bool:
            Counted.compared += 1
            return set.__le__(self, other)  # type: ignore[operator]

    many = [make_ike_sa(number, established_at=100.0 + number) for number in range(1, 401)]
    children = [make_child_sa(number, ike_sa_id=number) for number in range(1, 401)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.controller.uniqueness.set", Counted, raising=False)
        superseded = superseded_ike_sas(many, children, 1000.0)

    assert superseded == tuple(range(1, 400))
    assert 0 < Counted.compared <= 8 * 400
