"""Soft, hard and random parts of lifetimes: absolute in foreign files, fractions in ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.config.foreign.draft import Plain, without_defaults
from gateway.config.foreign.statement import Setting, Statements

DEFAULT_OVER: Final = 0.1
"""Hard lifetime over soft: the default of swanctl.conf(5), and ours."""
_MOST: Final = 0.99
"""A random part of all there is would leave nothing."""


def duration(value_s: float | None) -> str | None:
    """Return seconds as our configuration writes them."""
    return None if value_s is None else f"{value_s:.3f}".rstrip("0").rstrip(".") + "s"


def fraction(part: float, whole: float) -> float:
    """Return how much of a soft lifetime its random part is."""
    return round(min(part / whole, _MOST), 4)


@dataclass(frozen=True, slots=True)
class Limits:
    """One kind of lifetime, by time, bytes or packets, as our configuration says it; None: not said."""

    soft: float | None = None
    over: float | None = None
    jitter: float | None = None
    setting: Setting | None = None
    """A line that told of `over` or `jitter`, for a note."""


def make_limits(soft: float, hard: float | None, rand: float | None, setting: Setting | None) -> Limits:
    """Return the limits of a soft and perhaps a hard lifetime; `rand` is taken off the soft one at most."""
    over = None if hard is None or hard < soft else round(hard / soft - 1, 4)
    if rand is None and hard is not None and hard >= soft:
        rand = hard - soft
    return Limits(soft, over, None if rand is None else fraction(rand, soft), setting)


def read_limits(said: Statements, unit: str, read: Callable[[str], float]) -> Limits:
    """Return `rekey_UNIT`, `life_UNIT` and `rand_UNIT` of swanctl.conf(5)."""
    settings = [said.take(f"{kind}_{unit}") for kind in ("rekey", "life", "rand")]
    values: list[float | None] = []
    for setting in settings:
        try:
            values.append(None if setting is None else read(setting.value))
        except ValueError as error:
            assert setting is not None  # nothing else was read
            said.lose(setting, str(error))
            values.append(None)
    soft, hard, rand = values
    if soft is None and hard:
        soft = hard / (1 + DEFAULT_OVER)
    elif soft == 0 and hard:
        assert settings[1] is not None  # it has a value
        said.lose(settings[1], "an end without rekeying is not there: it is rekeyed shortly before")
        soft, rand = hard / (1 + DEFAULT_OVER), None
    if not soft:
        if rand is not None and settings[2] is not None:
            said.lose(settings[2], f"is for rekey_{unit}, which is not given")
        return Limits(soft)
    return make_limits(soft, hard, rand, settings[1] or settings[2])


def child_lifetimes(time: Limits, size: Limits, packets: Limits, said: Statements) -> dict[str, Plain]:
    """Return the keys of a child; that time, bytes and packets share fractions is told where it matters."""
    limits = (time, size, packets)
    over = _common([limit.over for limit in limits])
    jitter = _common([limit.jitter for limit in limits])
    for limit in limits:
        if limit.setting is not None and ((limit.over or over) != over or (limit.jitter or jitter) != jitter):
            said.lose(
                limit.setting,
                f"over_fraction {over} and jitter {jitter} are for time, bytes and packets alike",
            )
    return without_defaults(
        {
            "rekey": duration(time.soft),
            "rekey_bytes": int(size.soft) if size.soft else None,
            "rekey_packets": int(packets.soft) if packets.soft else None,
            "over_fraction": over,
            "jitter": jitter,
        }
    )


def _common(values: Sequence[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)
