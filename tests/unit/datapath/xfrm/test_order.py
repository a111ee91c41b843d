"""Numbers of SPD entries: they rise with the places, and are few."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.xfrm import order
from gateway.datapath.xfrm.order import STEPS, Order, OrderFullError, Place

PLACES = st.lists(st.tuples(st.integers(0, 5), st.text("abc", min_size=1, max_size=3)), unique=True)


def labels(made: Order, places: list[Place]) -> list[int]:
    return [made.label(place) for place in sorted(places)]


@given(PLACES)
def test_labels_rise_with_places_and_leave_room_for_the_steps_of_each(places: list[Place]) -> None:
    made = Order()

    for place in places:
        made.add(place)

    found = labels(made, places)
    assert all(later - earlier >= STEPS for earlier, later in pairwise(found))


def test_entries_added_in_their_order_never_change_their_labels() -> None:
    made = Order()

    renumbered = [made.add((1000, f"{number:05}")) for number in range(5000)]

    assert not any(renumbered)


def test_entries_that_come_before_a_last_one_never_change_their_labels() -> None:
    made = Order()
    made.add((2000, "discard all"))

    renumbered = [made.add((1000, f"{number:05}")) for number in range(3000)]

    assert sum(renumbered) <= 1


def test_entries_that_come_in_no_order_change_labels_rarely() -> None:
    made = Order()

    renumbered = [made.add((1000, f"{number * 7919 % 5003:05}")) for number in range(5000)]

    assert sum(renumbered) <= 10


def test_entries_that_come_backwards_change_labels_rarely() -> None:
    made = Order()

    renumbered = [made.add((1000, f"{number:05}")) for number in reversed(range(5000))]

    assert sum(renumbered) <= 2


def test_entry_between_two_gets_a_label_between_theirs() -> None:
    made = Order()
    made.add((1, "a"))
    made.add((3, "a"))

    assert not made.add((2, "a"))
    assert made.label((1, "a")) < made.label((2, "a")) < made.label((3, "a"))


def test_all_are_numbered_anew_when_there_is_no_room_between_two() -> None:
    made = Order()
    places = [(1000, f"{number:05}") for number in range(60)]
    made.add(places[0])

    renumbered = [made.add(place) for place in reversed(places[1:])]

    assert any(renumbered)
    assert labels(made, places) == sorted(labels(made, places))


def test_label_of_a_former_life_is_kept_if_it_fits() -> None:
    made = Order()
    made.add((1, "a"), 70_000)
    made.add((3, "a"), 80_000)

    made.add((2, "fits"), 75_000)
    made.add((2, "z does not"), 60_000)

    assert made.label((2, "fits")) == 75_000
    assert 75_000 < made.label((2, "z does not")) < 80_000


def test_entries_come_after_a_number_even_before_those_with_less() -> None:
    made = Order()
    made.add((5, "a"))
    made.come_after(1_000_000)

    made.add((1, "b"))

    assert 1_000_000 < made.label((1, "b")) < made.label((5, "a"))


def test_removed_entry_leaves_its_place() -> None:
    made = Order()
    made.add((1, "a"))
    made.remove((1, "a"))
    made.remove((1, "never"))

    assert not made.add((1, "a"))


def test_more_entries_than_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_LAST", order._FIRST + 12 * STEPS)
    made = Order()
    added: list[Place] = []

    with pytest.raises(OrderFullError):
        fill(made, added)

    assert labels(made, added) == sorted({made.label(place) for place in added})
    with pytest.raises(KeyError):
        made.label((1, f"{len(added):02}"))


def fill(made: Order, added: list[Place]) -> None:
    """Add entries, and note those that were taken."""
    for number in range(50):
        made.add((1, f"{number:02}"))
        added.append((1, f"{number:02}"))
