"""Read files for the probes: what was in them, or why they could not be read. Reads only."""

import errno
import gzip
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.hardware.facts import Answer, Fact

#: What the kernel answers to a question about something it does not have.
_ABSENT = frozenset({errno.EOPNOTSUPP, errno.ENOENT, errno.ENODEV})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A file's text, or why there is none."""

    source: str
    """Where it was read from: `/proc/cpuinfo`."""
    text: str | None = None
    error: str = ""
    """Why there is no text."""

    @property
    def why_not(self) -> str:
        """Return the evidence of an answer that this reading cannot give."""
        return f"{self.source}: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A question that the kernel did not answer."""

    source: str
    """The message or call: `ETHTOOL_MSG_FEATURES_GET`."""
    number: int
    """The errno."""

    def fact(self, name: str, *, absent_is_no: bool = False) -> Fact:
        """Return what the refusal says.

        Args:
            name: Of the fact.
            absent_is_no: "Not supported" answers the question itself. Otherwise it only says that the driver
                does not tell, and the answer is `could not tell`.
        """
        is_no = absent_is_no and self.number in _ABSENT
        return Fact(name=name, answer=Answer.NO if is_no else Answer.UNKNOWN, evidence=self.evidence)

    @property
    def evidence(self) -> str:
        """Return what was asked and the error, by name and in words."""
        # Linux has one number for ENOTSUP and EOPNOTSUPP; its own messages say the latter.
        code = errno.errorcode.get(self.number, str(self.number)).replace("ENOTSUP", "EOPNOTSUPP")
        return f"{self.source}: {code} ({os.strerror(self.number).lower()})"


def read_text(path: Path) -> Reading:
    """Return the text of a file, unpacked if its name ends in `.gz`; of sysfs values without the newline."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Reading(source=str(path), error=reason.lower())
    return Reading(source=str(path), text=data.decode("utf-8", "replace"))


def read_first(*paths: Path) -> Reading:
    """Return the first file that can be read, or one reading that says why none can."""
    readings = []
    for path in paths:
        reading = read_text(path)
        if reading.text is not None:
            return reading
        readings.append(reading)
    return Reading(
        source=" and ".join(reading.source for reading in readings),
        error="; ".join(dict.fromkeys(reading.error for reading in readings)),
    )


def read_btf_names(path: Path, names: Iterable[str]) -> Reading:
    """Return which of these names the BTF of a kernel or module has: functions, and constants of its enums.

    Its strings end with a zero octet each; nothing more of it is understood here.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        return Reading(source=str(path), error=(error.strerror or str(error)).lower())
    return Reading(
        source=str(path), text=" ".join(name for name in names if b"\0%s\0" % name.encode() in data)
    )


def read_value(path: Path) -> str:
    """Return the one line of a sysfs file, or nothing if it cannot be read."""
    return (read_text(path).text or "").strip()


def read_link_name(path: Path) -> str:
    """Return the last part of where a symbolic link leads, or nothing if there is no such link."""
    try:
        return path.readlink().name
    except OSError:
        return ""
