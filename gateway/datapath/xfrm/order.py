"""Numbers for the entries of an ordered SPD, so that a new one fits between two without renumbering them.

The kernel searches policies by a number of 32 bits, the lowest first; among equal ones, by age. The SPD is
ordered by priority and name (`gateway.ipsec.policy`).
"""

from bisect import bisect_left, insort
from typing import Final

_FIRST: Final = 1 << 16
"""Lower numbers are for what must come before the SPD."""
_STRIDE: Final = 1 << 11
_LAST: Final = 1 << 31
STEPS: Final = 4
"""Each entry has so many numbers of its own, from its label on."""

#: Priority and name of an entry.
Place = tuple[int, str]


class OrderFullError(Exception):
    """There are more entries than numbers."""


class Order:
    """The labels of entries, which rise with their places."""

    def __init__(self) -> None:
        self._floor = _FIRST
        self._places: list[Place] = []
        self._labels: dict[Place, int] = {}

    def label(self, place: Place) -> int:
        """Return the label of an entry that was added."""
        return self._labels[place]

    def add(self, place: Place, label: int | None = None) -> bool:
        """Give an entry a label; return whether others got new ones for that.

        Args:
            place: Of the entry; one that is there already keeps its label.
            label: What it had in a former life; taken if it fits between its neighbours.

        Raises:
            OrderFullError: There is no number left.
        """
        if place in self._labels:
            return False
        index = bisect_left(self._places, place)
        before = self._labels[self._places[index - 1]] if index else self._floor - STEPS
        behind = self._labels[self._places[index]] if index < len(self._places) else None
        middle = before + (_STRIDE if behind is None else (behind - before) // 2)
        limit = _LAST if behind is None else behind
        for wanted in (label, middle):
            if wanted is not None and before + STEPS <= wanted <= limit - STEPS:
                insort(self._places, place)
                self._labels[place] = wanted
                return False
        self._number_anew(sorted((*self._places, place)))
        return True

    def come_after(self, number: int) -> None:
        """Give out no label up to this number any more."""
        self._floor = max(self._floor, number + 1)

    def remove(self, place: Place) -> None:
        """Forget an entry."""
        if self._labels.pop(place, None) is not None:
            del self._places[bisect_left(self._places, place)]

    def _number_anew(self, places: list[Place]) -> None:
        stride = min(_STRIDE, (_LAST - self._floor) // (len(places) + 1))
        if stride < 2 * STEPS:
            raise OrderFullError(f"{len(places)} SPD entries are more than there are numbers for")
        self._places = places
        self._labels = {place: self._floor + (n + 1) * stride for n, place in enumerate(places)}
