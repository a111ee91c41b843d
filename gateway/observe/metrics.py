"""Monotonic counters by name and labels, and their OpenMetrics text.

A counter only grows. What the datapath counts arrives as totals and is taken over with `advance_to`; what
this process counts itself grows with `add`. Names end in `_total` and carry their unit (docs/style §9).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.ipsec.errors import GatewayError

MAX_SERIES: Final = 20_000
"""Label sets of one counter; the bound on memory if a label ever took a value from the network."""

_NAME: Final = re.compile(r"gw_[a-z0-9_]+_total")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]*")

Labels = tuple[tuple[str, str], ...]
"""Label names and values in the order in which the counter declares them."""


class MetricsError(GatewayError):
    """A counter was declared or used wrongly."""


@dataclass(slots=True)
class Counter:
    """One family of counters, one series per set of label values. Made by `Metrics.counter`."""

    name: str
    text: str
    labels: tuple[str, ...]
    _series: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, amount: int = 1, **labels: str) -> None:
        """Count `amount` more.

        Raises:
            MetricsError: `amount` is negative, or the labels are not the declared ones.
        """
        if amount < 0:
            raise MetricsError(f"{self.name} only grows, got {amount}")
        key = self._key(labels)
        self._series[key] = self._series.get(key, 0) + amount

    def advance_to(self, total: int, **labels: str) -> None:
        """Take over a total counted elsewhere; one that went back is a restart and is not followed down.

        Raises:
            MetricsError: The labels are not the declared ones.
        """
        key = self._key(labels)
        self._series[key] = max(self._series.get(key, 0), total)

    def forget(self, **labels: str) -> None:
        """Drop every series with these label values: the SA or peer they tell of is gone."""
        wanted = [(self.labels.index(name), value) for name, value in labels.items() if name in self.labels]
        if len(wanted) != len(labels):
            raise MetricsError(f"{self.name} has labels {self.labels}, got {tuple(labels)}")
        for key in [k for k in self._series if all(k[i] == value for i, value in wanted)]:
            del self._series[key]

    def value(self, **labels: str) -> int:
        """Return the count of one series; 0 if nothing was counted."""
        return self._series.get(self._key(labels, create=False), 0)

    def series(self) -> Iterator[tuple[Labels, int]]:
        """Yield every series, ordered by label values."""
        for key in sorted(self._series):
            yield tuple(zip(self.labels, key, strict=True)), self._series[key]

    def _key(self, labels: Mapping[str, str], *, create: bool = True) -> tuple[str, ...]:
        if labels.keys() != set(self.labels):
            raise MetricsError(f"{self.name} has labels {self.labels}, got {tuple(labels)}")
        key = tuple(str(labels[name]) for name in self.labels)
        if create and key not in self._series and len(self._series) >= MAX_SERIES:
            return ("other",) * len(self.labels)
        return key


class Metrics:
    """All counters of one process."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        """Return the counter of this name; the first call declares it.

        Args:
            name: `gw_..._total`, with the unit before `_total` where there is one.
            text: One line for the reader of the metrics page.
            labels: Names of the labels, in the order in which they are shown.

        Raises:
            MetricsError: The name is no counter name, or was declared with other labels.
        """
        known = self._counters.get(name)
        if known is not None:
            if known.labels != labels:
                raise MetricsError(f"{name} was declared with labels {known.labels}, now {labels}")
            return known
        if not _NAME.fullmatch(name):
            raise MetricsError(f"{name!r} is not a counter name of the form gw_..._total")
        if not all(_LABEL.fullmatch(label) for label in labels):
            raise MetricsError(f"{labels} are not label names in lower case")
        return self._counters.setdefault(name, Counter(name, text, labels))

    def snapshot(self) -> dict[tuple[str, Labels], int]:
        """Return every series and its count at this moment."""
        return {
            (name, labels): count
            for name, counter in sorted(self._counters.items())
            for labels, count in counter.series()
        }

    def render(self) -> str:
        """Return the OpenMetrics text (`application/openmetrics-text; version=1.0.0`)."""
        lines = []
        for name, counter in sorted(self._counters.items()):
            family = name.removesuffix("_total")
            lines += [f"# TYPE {family} counter", f"# HELP {family} {_escape(counter.text)}"]
            for labels, count in counter.series():
                inside = ",".join(f'{key}="{_escape(value)}"' for key, value in labels)
                lines.append(f"{name}{{{inside}}} {count}" if inside else f"{name} {count}")
        return "\n".join([*lines, "# EOF"]) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
