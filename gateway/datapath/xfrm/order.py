"""Numbers for the entries of an ordered SPD, so that a new one fits between two without renumbering them.

The kernel searches policies by a number of 32 bits, the lowest first; among equal ones, by age. The SPD is
ordered by priority and name (`gateway.ipsec.policy`). To give entries other numbers is to tell the kernel
every policy again, so it must be rare: entries of one priority have room before and behind them for more of
it, since new connections mostly come last, or first; and there is room between neighbours for those that do
neither.
"""

from bisect import bisect_left, insort
from itertools import groupby
from typing import Final

_FIRST: Final = 1 << 16
"""Lower numbers are for what must come before the SPD."""
_STRIDE: Final = 1 << 14
"""Between an entry and the next one of its priority."""
_GROUP_STRIDE: Final = 1 << 26
"""Between the last entry of a priority and the first of the next."""
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
            OrderFullError: There is no number left; nothing is changed.
        """
        if place in self._labels:
            return False
        index = bisect_left(self._places, place)
        before = self._labels[self._places[index - 1]] if index else self._floor - STEPS
        behind = self._labels[self._places[index]] if index < len(self._places) else _LAST
        for wanted in (label, self._between(place, index, before, behind)):
            if wanted is not None and before + STEPS <= wanted <= behind - STEPS:
                insort(self._places, place)
                self._labels[place] = wanted
                return False
        self._number_anew(sorted((*self._places, place)))
        return True

    def _between(self, place: Place, index: int, before: int, behind: int) -> int:
        """Return a label between two: far from the next where others of its kind will come, else midway."""
        middle = before + (behind - before) // 2
        is_first = not index or self._places[index - 1][0] != place[0]
        is_last = index == len(self._places) or self._places[index][0] != place[0]
        if is_last:
            return min(middle, before + (_GROUP_STRIDE if is_first else _STRIDE))
        return max(middle, behind - _STRIDE) if is_first else middle

    def come_after(self, number: int) -> None:
        """Give out no label up to this number any more."""
        self._floor = max(self._floor, number + 1)

    def remove(self, place: Place) -> None:
        """Forget an entry."""
        if self._labels.pop(place, None) is not None:
            del self._places[bisect_left(self._places, place)]

    def _number_anew(self, places: list[Place]) -> None:
        """Give each priority a part of the numbers, and fill the middle half of it evenly."""
        groups = [list(group) for _, group in groupby(places, key=lambda place: place[0])]
        share = (_LAST - self._floor) // (len(places) + len(groups))
        labels: dict[Place, int] = {}
        start = self._floor
        for group in groups:
            stride = min(_STRIDE, share // 2)
            if stride < STEPS:
                raise OrderFullError(f"{len(places)} SPD entries are more than there are numbers for")
            room = share * (len(group) + 1)
            first = start + (room - stride * len(group)) // 2
            labels |= {place: first + number * stride for number, place in enumerate(group)}
            start += room
        self._places, self._labels = places, labels
