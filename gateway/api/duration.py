"""Durations as people write them: `500ms`, `90s`, `15m`, `1h30m`, `7d`."""

import re
from typing import Final

MAX_S: Final = 3650 * 86400.0
"""Ten years: longer is a slip of the unit."""

_UNITS: Final = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class DurationError(ValueError):
    """A text is no duration; its own text says what would be right."""


def parse_duration(text: str) -> float:
    """Return seconds.

    Raises:
        DurationError: The text is something else, or longer than ten years, or shorter than 1 ms.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        if _NUMBER.fullmatch(text):
            raise DurationError(f"'{text}' has no unit; write {text}s, {text}m or {text}h")
        raise DurationError(f"'{text}' is not a duration, as 90s, 15m, 1h or 1h30m")
    seconds = sum(float(number) * dict(_UNITS)[unit] for number, unit in parts)
    if seconds > MAX_S:
        raise DurationError(f"'{text}' is longer than ten years")
    if 0 < seconds < 0.001:
        raise DurationError(f"'{text}' is shorter than 1ms")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that means `seconds`, to the microsecond."""
    milliseconds = seconds * 1000
    if 0 < seconds < 1 and abs(milliseconds - round(milliseconds)) < 1e-6:
        return f"{round(milliseconds)}ms"
    text = ""
    rest = seconds
    for unit, size in _UNITS[:3]:
        count = int(rest // size)
        rest -= count * size
        text += f"{count}{unit}" if count else ""
    rest = round(rest, 6)
    return text + (f"{rest:.6f}".rstrip("0").rstrip(".") + "s" if rest or not text else "")
