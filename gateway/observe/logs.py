"""Structured logs on the standard `logging`: one line, one fact, with fields (docs/style §9).

A line is an event name in snake_case and fields; values are rendered here, so that no format string can
print a key: a `Secret` shows its length, and bytes longer than an IKE SPI are not shown at all.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Final, TextIO

from gateway.ipsec.errors import VocabularyError

ROOT: Final = "gateway"
MAX_BYTES_SHOWN: Final = 8
"""An IKE SPI; anything longer may be key material."""

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_BARE: Final = re.compile(r"[A-Za-z0-9_.:/@%+,\[\]()*-]+")
_EVENT: Final = "gw_event"
_FIELDS: Final = "gw_fields"


class LogFormat(Enum):
    """How a line looks; the value is its name on the command line."""

    HUMAN = "human"
    JSON = "json"


@cache
def _logger_of(subsystem: str) -> logging.Logger:
    # `getLogger` takes a lock each time, which is felt where a flood is not logged datagram by datagram.
    return logging.getLogger(f"{ROOT}.{subsystem}")


@dataclass(frozen=True, slots=True)
class EventLogger:
    """Writes the events of one subsystem, with the fields bound to it on every line."""

    subsystem: str
    bound: Mapping[str, object]

    def bind(self, **fields: object) -> "EventLogger":
        """Return a logger that adds these fields to every line; later ones win."""
        return EventLogger(self.subsystem, {**self.bound, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        """Log what only a developer asks for, or what a stranger can trigger by sending packets."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log something an operator would tell a colleague."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log something the operator must look at."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, *, exception: BaseException | None = None, **fields: object) -> None:
        """Log that we failed to do our job, with the traceback of `exception` where there is one."""
        self._log(logging.ERROR, event, fields, exception)

    @property
    def _logger(self) -> logging.Logger:
        return _logger_of(self.subsystem)

    def _log(
        self, level: int, event: str, fields: Mapping[str, object], exception: BaseException | None = None
    ) -> None:
        logger = self._logger
        if logger.isEnabledFor(level):
            extra = {_EVENT: event, _FIELDS: {**self.bound, **fields}}
            logger.log(level, "%s", event, extra=extra, exc_info=exception)


def get_logger(subsystem: str, **fields: object) -> EventLogger:
    """Return the logger of a module (`__name__`) or a subsystem (`ike`, `datapath`), with fields bound to it.

    The subsystem of a line, which has its own level, is the package below `gateway`.
    """
    return EventLogger(subsystem.removeprefix(f"{ROOT}."), fields)


# --- rendering ----------------------------------------------------------------------------------

Rendered = str | int | float | bool | None | list["Rendered"]


def render(value: object) -> Rendered:
    """Return a field's value as JSON can carry it; nothing secret survives this."""
    if isinstance(value, Enum):
        return render(value.value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return data.hex() if len(data) <= MAX_BYTES_SHOWN else f"<{len(data)} bytes>"
    if isinstance(value, list | tuple | set | frozenset):
        return [render(item) for item in value]
    return str(value)


class _Formatter(logging.Formatter):
    """Turns a record, ours or another library's, into (time, level, subsystem, event, fields)."""

    def _facts(self, record: logging.LogRecord) -> tuple[str, str, str, str, dict[str, Rendered]]:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        subsystem = record.name.removeprefix(f"{ROOT}.").partition(".")[0]
        fields = {key: render(value) for key, value in getattr(record, _FIELDS, {}).items()}
        event = getattr(record, _EVENT, None)
        if event is None:
            event, fields = "message", {"text": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        return when.replace("+00:00", "Z"), record.levelname.lower(), subsystem, event, fields


class JsonFormatter(_Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when, level, subsystem, event, fields = self._facts(record)
        line = {"time": when, "level": level, "subsystem": subsystem, "event": event}
        # A field cannot replace what stands before it.
        rest = {key if key not in line else f"{key}_": value for key, value in fields.items()}
        return json.dumps({**line, **rest}, ensure_ascii=False)


class HumanFormatter(_Formatter):
    """`time level subsystem event key=value ...`, values quoted where they are not plain words."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        when, level, subsystem, event, fields = self._facts(record)
        exception = fields.pop("exception", None)
        words = [when, f"{level.upper():<7}", f"{subsystem:<10}", event]
        words += [f"{key}={_human(value)}" for key, value in fields.items()]
        return " ".join(words) + (f"\n{exception}" if exception else "")


def _human(value: Rendered) -> str:
    if isinstance(value, list):
        value = ",".join("-" if item is None else str(item) for item in value)
    if value is None:
        return "-"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())


# --- set-up -------------------------------------------------------------------------------------


def parse_levels(text: str) -> tuple[str, dict[str, str]]:
    """Parse `info` or `info,ike=debug,api=warning` into the default level and those of subsystems.

    Raises:
        VocabularyError: A level is unknown; `column` is its offset.
    """
    default, subsystems, column = "info", {}, 0
    for part in text.split(","):
        name, equals, level = part.strip().partition("=")
        if not equals:
            name, level = "", name
        level = level.strip().lower()
        if level not in LEVELS:
            raise VocabularyError(
                f"{level!r} is not a log level; one of {', '.join(LEVELS)} is expected", column=column
            )
        if name:
            subsystems[name.strip()] = level
        else:
            default = level
        column += len(part) + 1
    return default, subsystems


def configure(
    *,
    levels: str = "info",
    format: LogFormat = LogFormat.HUMAN,  # noqa: A002 - the word of the command line
    stream: TextIO | None = None,
) -> None:
    """Write all logs of this process to one stream (standard error), replacing what was set up before.

    Other libraries' lines appear from WARNING up.

    Raises:
        VocabularyError: `levels` is not what `parse_levels` reads.
    """
    parse_levels(levels)  # A mistake changes nothing.
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if format is LogFormat.JSON else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_levels(levels)


def set_levels(levels: str) -> None:
    """Set the level of all our subsystems, and of those that have another.

    Raises:
        VocabularyError: `levels` is not what `parse_levels` reads; nothing was changed.
    """
    default, subsystems = parse_levels(levels)
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith(f"{ROOT}."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger(ROOT).setLevel(LEVELS[default])
    for subsystem, level in subsystems.items():
        logging.getLogger(f"{ROOT}.{subsystem}").setLevel(LEVELS[level])


def levels_in_force() -> str:
    """Return the levels in the form that `parse_levels` reads."""
    names = {number: name for name, number in LEVELS.items()}
    default = logging.getLogger(ROOT).getEffectiveLevel()
    parts = [names.get(default, "info")]
    for logger_name in sorted(logging.Logger.manager.loggerDict):
        level = logging.getLogger(logger_name).level
        if logger_name.startswith(f"{ROOT}.") and level in names:
            parts.append(f"{logger_name.removeprefix(f'{ROOT}.')}={names[level]}")
    return ",".join(parts)
